"""Facts of a training in the shapes MLflow keeps them: settings, the dataset, the model's signature."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pandas as pd

from detector.schema import guess_kind
from pipelines.tracking.address import mask_passwords

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.models import ModelSignature

_TYPES = {"numeric": "double", "boolean": "boolean", "datetime": "datetime"}
_LONGEST = 6000
LONGEST_NAME = 240


@dataclass(frozen=True)
class DatasetFacts:
    """Which rows a model learnt from.

    - ``name``: what a reviewer calls the data.
    - ``source``: where they came from; passwords in URLs are hidden.
    - ``digest``: their fingerprint: equal rows, equal digest.
    - ``columns``: name to kind ("numeric", "categorical", "boolean", "datetime") or role.
    """

    name: str
    source: str
    rows: int
    digest: str
    columns: Mapping[str, str] = field(default_factory=dict)


def flat_params(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as names with dots and text; settings that are None are left out.

    >>> flat_params({"name": "payments", "train": {"forest": {"trees": 200}, "rows": None}})
    {'name': 'payments', 'train.forest.trees': '200'}
    """
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flat_params(value, f"{prefix}{name}.")
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            flat[f"{prefix}{name}"] = mask_passwords(shown)[:_LONGEST]
    return flat


def allowed_names(names: Iterable[str]) -> dict[str, str]:
    """Each name of a setting or metric, such as that of a column, as MLflow takes it; different names stay different.

    >>> list(allowed_names(["psi/amount (€)", "psi/amount ($)", "formats.Größe"]).values())
    ['psi/amount ___', 'psi/amount ___ 2', 'formats.Größe']
    """
    given = tuple(names)
    taken = dict.fromkeys(given)
    allowed: dict[str, str] = {}
    for name in given:
        short = _allowed(name)
        also = (f"{short} {number}" for number in count(2))
        allowed[name] = (
            short if short == name or short not in taken else next(each for each in also if each not in taken)
        )
        taken[allowed[name]] = None
    return allowed


def _allowed(name: str) -> str:
    """What MLflow does not allow becomes an underscore, and so do slashes of what is no path, as in ``km//h``."""
    plain = re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]
    return (
        plain if posixpath.normpath(plain) == plain and not plain.startswith(("/", "..")) else plain.replace("/", "_")
    )


OF_MEMBERS = ("weight_", "power_", "parity_", "rank_correlation_", "agreement_", "ap_", "auroc_")
GROUPS = {"head_": "head/", "calibration_": "calibration/", "share_below_": "calibration/share_below_"}
OF_SIDES = ("_champion", "_challenger")
FIRST = (
    *("ap", "ap_champion", "ap_challenger", "auroc", "precision", "recall", "precision_at_budget", "recall_at_budget"),
    *("flagged", "alerts_a_day"),
)


def grouped(metrics: Mapping[str, float | None], members: Iterable[str]) -> dict[str, float | None]:
    """Metrics in the order of MLflow's pages: what a reviewer compares, all others, then members, head, calibration.

    >>> grouped({"ap": 0.5, "ap_forest": 0.4, "ap_champion": 0.3, "head_gain": 0.1}, ["forest"])
    {'ap': 0.5, 'ap_champion': 0.3, 'head/gain': 0.1, 'members/ap_forest': 0.4}
    """
    names = tuple(members)

    def place(name: str) -> str:
        if name.endswith(OF_SIDES):
            return name
        if name.startswith(OF_MEMBERS) and any(f"_{each}" in name for each in names):
            return f"members/{name}"
        return next(
            (group + name.removeprefix(begin) for begin, group in GROUPS.items() if name.startswith(begin)), name
        )

    def rank(name: str) -> tuple[bool, int, str]:
        return "/" in name, FIRST.index(name) if name in FIRST else len(FIRST), name.partition("/")[0] * ("/" in name)

    found = {place(name): value for name, value in metrics.items()}
    return {name: found[name] for name in sorted(found, key=rank)}


def dataset_input(facts: DatasetFacts, context: str = "training") -> DatasetInput:
    """The dataset as MLflow links it to a run, with the true number of rows and no copy of any."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    columns = [
        {"type": _TYPES.get(kind, "string"), "name": name, "required": True} for name, kind in facts.columns.items()
    ]
    dataset = Dataset(
        name=facts.name[:500],
        digest=facts.digest[:36],
        source_type="local",
        source=json.dumps({"uri": mask_passwords(facts.source)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": facts.rows, "num_elements": facts.rows * len(facts.columns)}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def signature_of(example: pd.DataFrame, predictions: pd.DataFrame, *, optional: Sequence[str] = ()) -> ModelSignature:
    """Columns in and out; rows may come without the ``optional`` ones.

    Nothing is typed on the way in. MLflow refuses a whole batch whose amounts happen to be whole numbers if the example
    had decimals, and the other way round, or whose text is a pandas category; the detector's own cleaning reads all of
    them, and quarantines single rows it cannot read.
    """
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    anything = AnyType()  # type: ignore[no-untyped-call]  # MLflow annotates its classes but in part
    inputs = Schema(
        [
            *(ColSpec(anything, str(name)) for name in example.columns if name not in optional),
            *(ColSpec(anything, name, required=False) for name in optional),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=infer_signature(predictions).inputs)


def typed_columns(example: pd.DataFrame) -> dict[str, str]:
    """Each column's kind for a reader: number, text, true or false, or date. A number such as 5411 is no year.

    >>> rows = pd.DataFrame({"amount": [1.5], "shop": ["a"], "time": ["2025-03-04 08:00:00"], "category": ["5411"]})
    >>> typed_columns(rows)
    {'amount': 'number', 'shop': 'text', 'time': 'date', 'category': 'number'}
    """
    return {str(name): _kind(example[name]) for name in example.columns}


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "true or false"
    if pd.api.types.is_numeric_dtype(column):
        return "number"
    kind, _ = guess_kind(column)
    return {"numeric": "number", "datetime": "date", "boolean": "true or false"}.get(kind, "text")
