"""From the spool to MLflow: each kind of entry, what it becomes there, and all of them in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from detector.decide.policy import Policy
from detector.errors import BundleError, TrackingError
from detector.persist import bundle
from pipelines.tracking.address import reachable
from pipelines.tracking.facts import DatasetFacts, flat_params
from pipelines.tracking.moves import send_monitoring, send_move, send_note
from pipelines.tracking.pyfunc import policy_from_config, policy_to_config
from pipelines.tracking.runs import Point
from pipelines.tracking.session import session
from pipelines.tracking.spool import Entry, Spool
from pipelines.tracking.training import LoggedModel, log_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Sent:
    """What came of sending.

    Parameters
    ----------
    models : dict of str to LoggedModel
        The trainings sent, by the name of their entry.
    entries : int
        How many entries were sent.
    waiting : int
        How many still wait.
    fault : str or None
        Why.
    """

    models: dict[str, LoggedModel] = field(default_factory=dict)
    entries: int = 0
    waiting: int = 0
    fault: str | None = None


def keep_training(
    spool: Spool,
    *,
    experiment: str,
    model_name: str,
    bundle: Path,
    example: pd.DataFrame,
    dataset: DatasetFacts,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    compared: DatasetFacts | None = None,
    members: Mapping[str, Mapping[str, float | None]] | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    figures: Mapping[str, Figure] | None = None,
    texts: Mapping[str, str] | None = None,
    usage: Sequence[Point] = (),
    config_text: str = "",
    tags: Mapping[str, str] | None = None,
    description: str = "",
    policy: Policy | None = None,
    alias: str = "champion",
    serving: str = "champion",
    run_name: str = "{model} v{version}",
    started: float | None = None,
    ended: float | None = None,
) -> str:
    """Put a training into the spool; the parameters are those of `log_training`.

    Returns
    -------
    str
        The entry, under which `send` tells where it went.
    """
    from pipelines.reports.style import to_png
    from pipelines.tracking.address import mask_passwords

    values = {
        "experiment": experiment,
        "model_name": model_name,
        "dataset": asdict(dataset),
        "compared": asdict(compared) if compared is not None else None,
        "params": flat_params(params),
        "metrics": {name: None if value is None else float(value) for name, value in metrics.items()},
        "members": {name: dict(figures_of_merit) for name, figures_of_merit in (members or {}).items()},
        "curves": {name: [float(value) for value in curve] for name, curve in (curves or {}).items()},
        "texts": {name: mask_passwords(text) for name, text in (texts or {}).items()},
        "usage": [list(point) for point in usage],
        "config_text": mask_passwords(config_text),
        "tags": dict(tags or {}),
        "description": description,
        "policy": policy_to_config(policy),
        "alias": alias,
        "serving": serving,
        "run_name": run_name,
        "started": started,
        "ended": ended,
    }

    def write(folder: Path) -> None:
        shutil.copytree(bundle, folder / "bundle")
        example.reset_index(drop=True).to_parquet(folder / "example.parquet")
        for name, figure in (figures or {}).items():
            (folder / f"{name}.png").write_bytes(to_png(figure))

    return spool.put("training", values, write)


def send(spool: Spool, uri: str, *, timeout: float = 3.0) -> Sent:
    """Tell MLflow all that waits, oldest first, as far as it answers.

    A server that is down is no error. One that answers and refuses an entry five times loses that entry to the
    folder ``refused``, so that it holds up no other.

    Parameters
    ----------
    spool : Spool
    uri : str
        The tracking store.
    timeout : float
        Seconds to wait for its first answer.
    """
    if not spool.waiting():
        return Sent()
    if fault := reachable(uri, timeout=timeout):
        return Sent(waiting=spool.waiting(), fault=fault)
    models: dict[str, LoggedModel] = {}
    count = 0
    with spool.sending() as alone:
        if not alone:
            return Sent(waiting=spool.waiting(), fault="Another process is sending at this moment.")
        for entry in spool.entries():
            try:
                found = _send_one(entry, uri)
            except (TrackingError, BundleError, ValueError, KeyError, TypeError) as error:
                if fault := reachable(uri, timeout=timeout):
                    return Sent(models, count, spool.waiting(), fault)
                if not spool.failed(entry, f"{type(error).__name__}: {error}"):
                    return Sent(models, count, spool.waiting(), str(error))
                continue
            if found is not None:
                models[entry.folder.name] = found
            spool.done(entry)
            count += 1
    return Sent(models, count, spool.waiting())


def _send_one(entry: Entry, uri: str) -> LoggedModel | None:
    if entry.kind == "training":
        return _send_training(entry, uri)
    kinds: dict[str, Callable[[MlflowClient, str, Entry], None]] = {
        "note": send_note,
        "move": send_move,
        "monitoring": send_monitoring,
    }
    if entry.kind not in kinds:
        raise ValueError(f"No entry is of the kind {entry.kind!r}; it was written by a newer version.")
    with session(uri) as client:
        kinds[entry.kind](client, uri, entry)
    return None


def _send_training(entry: Entry, uri: str) -> LoggedModel:
    values = dict(entry.values)
    policy = policy_from_config(values.pop("policy"))
    dataset, compared = DatasetFacts(**values.pop("dataset")), values.pop("compared")
    example = pd.read_parquet(entry.folder / "example.parquet")
    scorer = bundle.load(entry.folder / "bundle")
    return log_training(
        uri=uri,
        bundle=entry.folder / "bundle",
        example=example,
        predictions=scorer.judge(example, policy=policy).frame,
        dataset=dataset,
        compared=DatasetFacts(**compared) if compared else None,
        figures={path.stem: path.read_bytes() for path in sorted(entry.folder.glob("*.png"))},
        usage=[(int(at), str(name), float(value)) for at, name, value in values.pop("usage")],
        policy=policy,
        entry=entry.name,
        **values,
    )


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back.

    >>> plain({"a": (1, 2)})
    {'a': [1, 2]}
    """
    return dict(json.loads(json.dumps(values)))
