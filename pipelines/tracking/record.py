"""The record of one training: every fact that MLflow is to hold of it, built once and passed on as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from detector.decide.policy import Policy
from pipelines.tracking.address import mask_passwords
from pipelines.tracking.facts import DatasetFacts, flat_params
from pipelines.tracking.pyfunc import policy_from_config, policy_to_config
from pipelines.tracking.runs import Point, as_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.features.raw_rows import RawInput

BUNDLE = "bundle"
EXAMPLE = "example.parquet"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One training, as it is logged: `to_json` and `write_files` put it into the spool, `read` takes it out.

    - ``experiment``, ``model_name``: made if they do not exist.
    - ``bundle``: the folder that ``detector.persist.bundle.save`` wrote.
    - ``raw``: how raw rows are read and their features measured; it goes into the bundle that is logged.
    - ``example``: rows as the model takes them, raw and without the label; the first 5 are kept as the example.
    - ``optional``: columns that rows may come without.
    - ``dataset``, ``compared``: which rows it was trained on, and which it was evaluated on.
    - ``params``: the settings; nested mappings become names with dots.
    - ``metrics``: final values on the rows it was evaluated on; missing ones (None) are left out.
    - ``fit_metrics``: those on the rows it was trained on.
    - ``members``: figures of each member, which has a run of its own below this one.
    - ``curves``: one value an epoch, logged as ``epoch/<name>``.
    - ``figures``: by file name without suffix; PNG if they are bytes.
    - ``texts``: small text files, by name.
    - ``usage``: what the machine did meanwhile: time, name, value.
    - ``config_text``: the configuration file, logged as ``detector.yaml``; passwords in URLs are hidden.
    - ``description``: Markdown, shown on the run and on the model version.
    - ``policy``: the flagging rule the loaded model uses.
    - ``alias``: what marks this version.
    - ``serving``: what marks the version that serves.
    - ``run_name``: ``{model}`` and ``{version}`` are filled in.
    - ``started``, ``ended``: when the training ran, in seconds since 1970; what is logged later keeps its true time.
    """

    experiment: str
    model_name: str
    bundle: Path
    example: pd.DataFrame
    dataset: DatasetFacts
    raw: RawInput | None = None
    optional: Sequence[str] = ()
    compared: DatasetFacts | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    fit_metrics: Mapping[str, float | None] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    figures: Mapping[str, Figure | bytes] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    usage: Sequence[Point] = ()
    config_text: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    policy: Policy | None = None
    alias: str = "champion"
    serving: str = "champion"
    run_name: str = "{model} v{version}"
    started: float | None = None
    ended: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The plain facts, without passwords; the bundle, the example and the figures are files beside them."""
        newer = {"fit_metrics": _plain(self.fit_metrics), "optional": list(self.optional)}
        return {name: value for name, value in newer.items() if value} | {
            "experiment": self.experiment,
            "model_name": self.model_name,
            "dataset": asdict(self.dataset),
            "compared": asdict(self.compared) if self.compared is not None else None,
            "params": flat_params(self.params),
            "metrics": _plain(self.metrics),
            "members": {name: dict(metrics) for name, metrics in self.members.items()},
            "curves": {name: [float(value) for value in curve] for name, curve in self.curves.items()},
            "texts": {name: mask_passwords(text) for name, text in self.texts.items()},
            "usage": [list(point) for point in self.usage],
            "config_text": mask_passwords(self.config_text),
            "tags": dict(self.tags),
            "description": self.description,
            "policy": policy_to_config(self.policy),
            "alias": self.alias,
            "serving": self.serving,
            "run_name": self.run_name,
            "started": self.started,
            "ended": self.ended,
        }

    def write_files(self, folder: Path) -> None:
        """Write what is no plain fact."""
        shutil.copytree(self.bundle, folder / BUNDLE)
        if self.raw is not None:
            self.raw.write(folder / BUNDLE)
        self.example.reset_index(drop=True).to_parquet(folder / EXAMPLE)
        for name, figure in self.figures.items():
            (folder / f"{name}.png").write_bytes(as_png(figure))

    @classmethod
    def read(cls, values: Mapping[str, Any], folder: Path) -> TrainingRecord:
        """The record that was put into the spool, by this version or an earlier one.

        Raises ``TypeError`` if a newer version wrote it, with facts that are unknown here.
        """
        compared = values.get("compared")
        given = {
            "dataset": DatasetFacts(**values["dataset"]),
            "compared": DatasetFacts(**compared) if compared else None,
            "usage": [(int(at), str(name), float(value)) for at, name, value in values.get("usage", ())],
            "policy": policy_from_config(values.get("policy") or {}),
            "bundle": folder / BUNDLE,
            "example": pd.read_parquet(folder / EXAMPLE),
            "figures": {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))},
        }
        return cls(**{**values, **given})


def _plain(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in metrics.items()}
