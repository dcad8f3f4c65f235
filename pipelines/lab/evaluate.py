"""Compare encoders on the rows of a configuration: errors, cost, robustness; a table, figures, a report, MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError, SettingError, nearest
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import training_of
from pipelines.progress import progress
from pipelines.reports.page import ReportContent, write_report
from pipelines.sources import open_source
from pipelines.training.kinds import KINDS

if TYPE_CHECKING:
    from detector.detectors.series.scorer import SequenceScorer
    from detector.lab.report import Comparison

MOST_ROWS = 5_000
TABLE = ("dense", "sparse", "variational")
SENSORS = ("dense", "conv1d", "lstm", "gru", "transformer", "variational")
SHOWN = {
    "error_held_out": "error",
    "generalisation_gap": "gap",
    "rows_per_second": "rows/s",
    "training_seconds": "seconds",
    "peak_memory_mb": "MB",
    "size_bytes": "bytes",
}


@dataclass(frozen=True)
class EncoderReport:
    """What a comparison of encoders found."""

    table: pd.DataFrame
    robustness: pd.DataFrame
    learnt: int
    held_out: int
    report: Path
    logged: str | None

    def summary(self) -> list[str]:
        """The comparison in a few lines: a table, and what each stands."""
        shown = self.table[list(SHOWN)].rename(columns=SHOWN)
        lines = [
            f"Learnt from {self.learnt:,} rows, judged on {self.held_out:,} others. Error: variance not rebuilt.",
            *shown.to_string(float_format=lambda value: f"{value:,.3g}").splitlines(),
        ]
        worst = self.robustness.groupby(["encoder", "damage"], sort=False)["rank_stability"].min().unstack()
        lines += [
            "Least rank correlation of the scores with those of undamaged rows:",
            *worst.round(3).to_string().splitlines(),
        ]
        lines.append(f"Report: {self.report}")
        return lines if self.logged is None else [*lines, f"MLflow: run {self.logged}"]


def evaluate_encoders(config: Config, *, encoders: Sequence[str], input: str, now: datetime) -> EncoderReport:  # noqa: A002
    """Fit encoders on the configured rows and judge them on others.

    A table's rows are what the trained detector's members read: scaled numbers, indicators of gaps, rarities of
    categories. Of sensors, windows of readings.

    Parameters
    ----------
    config : Config
        Names the rows to learn from and the trained detector, which says how rows are prepared.
    encoders : sequence of str
        Their names.
    input : str
        Other rows: a file, folder or pattern.
    now : datetime
        When this run happens.

    Raises
    ------
    SettingError
        If an encoder is unknown for rows of this kind.
    DataError
        If there are too few rows.
    """
    from detector.lab.report import compare
    from pipelines.lab.figures import encoder_robustness, encoder_table

    started = time.perf_counter()
    known = TABLE if config.kind == "table" else SENSORS
    for name in encoders:
        if name not in known:
            raise SettingError(f"There is no encoder {name!r} for {config.kind}. {nearest(name, known)}")
    scorer = bundle.load(config.bundle)
    with progress("Reading", total=None):
        learnt = _prepared(scorer, _rows(config, scorer, None), config)
        held_out = _prepared(scorer, _rows(config, scorer, input), config)
    chosen = {name: _encoder(name, scorer, config) for name in encoders}
    with progress("Comparing encoders", total=None):
        found = compare(chosen, learnt, held_out, random_state=config.random_state)
    figures = {"encoders": encoder_table(found.table), "robustness": encoder_robustness(found.robustness)}
    report = config.report.with_name(f"{config.report.stem}.encoders.html")
    write_report(
        report,
        ReportContent(
            name=config.name,
            job="Encoder comparison",
            made_at=now,
            rows=len(learnt) + len(held_out),
            source=input,
            seconds=time.perf_counter() - started,
            figures=figures,
            notes=[f"Learnt from {len(learnt):,} rows, judged on {len(held_out):,} others."],
        ),
    )
    logged = _log(config, found, figures) if config.tracking.enabled else None
    return EncoderReport(found.table, found.robustness, len(learnt), len(held_out), report, logged)


def _rows(config: Config, scorer: bundle.Scorer, place: str | None) -> pd.DataFrame:
    """Cleaned rows; those known to be anomalous are left out."""
    source = open_source(config.source if place is None else config.source.at(place))
    scorer.schema.check(source.columns())
    frame = KINDS[config.kind].read(source, config, lambda _: None)
    rows = clean(frame, scorer.schema).rows
    label = scorer.schema.label
    if label is not None and label in rows and isinstance(scorer, TabularScorer):
        rows = rows[rows[label] != 1]
    if len(rows) < 20:
        raise DataError(f"Expected at least 20 usable rows, received {len(rows)} from {source.describe()}. Give more.")
    return rows


def _prepared(scorer: bundle.Scorer, rows: pd.DataFrame, config: Config) -> NDArray[np.float32]:
    """What the members of a detector for tables read, or windows of series."""
    if not isinstance(scorer, TabularScorer):
        return _windows(scorer, rows)
    few = rows.sample(min(len(rows), MOST_ROWS), random_state=config.random_state)
    return scorer.inside.run(scorer.columns.encode(few).inputs(), ["table"])["table"]


def _windows(scorer: SequenceScorer, rows: pd.DataFrame) -> NDArray[np.float32]:
    """Windows without a gap, flattened, of steps that lie in one stretch."""
    series = scorer.score_steps(rows).series
    length = _length(scorer)
    values = np.asarray(series.values, dtype=np.float32)
    starts = np.arange(0, len(values) - length + 1, max(1, len(values) // MOST_ROWS))
    whole = [
        start
        for start in starts
        if series.segment[start] == series.segment[start + length - 1]
        and not np.isnan(values[start : start + length]).any()
    ]
    if len(whole) < 20:
        raise DataError(f"Expected at least 20 windows of {length} rows without a gap, received {len(whole)}.")
    return np.stack([values[start : start + length].ravel() for start in whole])


def _length(scorer: SequenceScorer) -> int:
    return max(model.length for model in scorer.models.values())


def _encoder(name: str, scorer: bundle.Scorer, config: Config) -> Any:
    from detector.encoders import (
        Conv1dAutoencoder,
        DenseAutoencoder,
        RecurrentAutoencoder,
        SparseAutoencoder,
        TransformerAutoencoder,
        VariationalAutoencoder,
    )

    made: Mapping[str, Callable[[], Any]] = {
        "dense": DenseAutoencoder,
        "sparse": SparseAutoencoder,
        "variational": VariationalAutoencoder,
        "conv1d": Conv1dAutoencoder,
        "lstm": lambda: RecurrentAutoencoder(cell="lstm"),
        "gru": lambda: RecurrentAutoencoder(cell="gru"),
        "transformer": TransformerAutoencoder,
    }
    section = config.train.autoencoder if config.kind == "table" else config.series.encoder
    settings = {"training": training_of(section.training), "random_state": config.random_state}
    encoder = made[name]()
    if "timesteps" in encoder.get_params() and not isinstance(scorer, TabularScorer):
        settings["timesteps"] = _length(scorer)
    return encoder.set_params(**settings)


def _log(config: Config, found: Comparison, figures: Mapping[str, Any]) -> str:
    from pipelines.tracking.comparison import log_comparison

    return log_comparison(
        config.tracking.uri,
        config.tracking.experiment or config.name,
        params=config.to_dict(),
        table=found.table,
        robustness=found.robustness,
        curves={name: encoder.history_ for name, encoder in found.fitted.items()},
        figures=figures,
    )
