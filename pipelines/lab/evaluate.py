"""Compare encoders on the rows of a configuration: errors, cost, robustness; a table, figures, a report, MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from detector.cleaning.clean import clean
from detector.errors import DataError, SettingError, nearest
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import training_of
from pipelines.factory.kinds import KINDS
from pipelines.features.raw_source import RawSource
from pipelines.progress import progress
from pipelines.reports.content import ReportContent
from pipelines.reports.page import check_page, write_report

if TYPE_CHECKING:
    from detector.lab.report import Comparison

MOST_ROWS = 5_000
SHOWN = {
    "error_held_out": "error",
    "generalisation_gap": "gap",
    "rows_per_second": "rows/s",
    "training_seconds": "seconds",
    "peak_memory_mb": "MB",
    "size_bytes": "bytes",
}


def _three_digits(value: float) -> str:
    """A figure of a table: three digits, and of a large number all whole ones."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


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
            f"Learnt from {self.learnt:,} rows, evaluated on {self.held_out:,} others. Error: variance not rebuilt.",
            *shown.to_string(float_format=_three_digits).splitlines(),
        ]
        worst = self.robustness.groupby(["encoder", "damage"], sort=False)["rank_stability"].min().unstack()
        lines += [
            "Least rank correlation of the scores with those of undamaged rows:",
            *worst.round(3).to_string().splitlines(),
        ]
        lines.append(f"Report: {self.report}")
        return lines if self.logged is None else [*lines, f"MLflow: run {self.logged}"]


def evaluate_encoders(config: Config, *, encoders: Sequence[str], input: str, now: datetime) -> EncoderReport:  # noqa: A002
    """Fit encoders on the configured rows and evaluate them on others.

    A table's rows are what the trained detector's members read: scaled numbers, indicators of gaps, rarities of
    categories. Of sensors, windows of readings.

    - ``config``: names the rows to learn from and the trained detector, which says how rows are prepared.

    Raises ``SettingError`` if an encoder is unknown for rows of this kind; ``DataError`` if there are too few rows.
    """
    from detector.lab.report import compare
    from pipelines.lab.figures import encoder_robustness, encoder_table

    started = time.perf_counter()
    kind = KINDS[config.kind]
    for name in encoders:
        if name not in kind.encoders:
            raise SettingError(f"There is no encoder {name!r} for {config.kind}. {nearest(name, kind.encoders)}")
    report = config.report.with_name(f"{config.report.stem}.encoders.html")
    check_page(report)
    scorer = bundle.load(config.bundle)
    with progress("Reading", total=None):
        learnt, held_out = (
            kind.encoder_input(_rows(config, scorer, place, now=now), scorer, MOST_ROWS, config.random_state)
            for place in (None, input)
        )
    chosen = {name: _encoder(name, scorer, config) for name in encoders}
    with progress("Comparing encoders", total=None):
        found = compare(chosen, learnt, held_out, random_state=config.random_state)
    figures = {"encoders": encoder_table(found.table), "robustness": encoder_robustness(found.robustness)}
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
            notes=[f"Learnt from {len(learnt):,} rows, evaluated on {len(held_out):,} others."],
        ),
    )
    logged = _log(config, found, figures) if config.tracking.enabled else None
    return EncoderReport(found.table, found.robustness, len(learnt), len(held_out), report, logged)


def _rows(config: Config, scorer: bundle.Scorer, place: str | None, *, now: datetime) -> pd.DataFrame:
    """Cleaned rows with their features; those known to be anomalous are left out.

    Of the rows that were learnt from, features are measured as in training; others go on from the past it left.
    """
    raw, kind = RawSource.open(config, scorer.schema, place=place, trained=place is not None), KINDS[config.kind]
    frame = kind.read(raw.source, config, lambda _: None)
    if raw.engine is not None and place is None:
        frame = raw.engine.compute(frame, now=pd.Timestamp(now)).rows
    else:
        frame = raw.measure(frame, now=now)[0].rows
    rows = kind.normal_rows(clean(frame, scorer.schema).rows, scorer)
    if len(rows) < 20:
        raise DataError(
            f"Expected at least 20 usable rows, received {len(rows)} from {raw.source.describe()}. Give more."
        )
    return rows


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
    training, timesteps = KINDS[config.kind].encoder_settings(config, scorer)
    settings = {"training": training_of(training), "random_state": config.random_state}
    encoder = made[name]()
    if timesteps is not None and "timesteps" in encoder.get_params():
        settings["timesteps"] = timesteps
    return encoder.set_params(**settings)


def _log(config: Config, found: Comparison, figures: Mapping[str, Any]) -> str:
    from pipelines.tracking.study import Part, Study, log_study

    study = Study(
        name="encoders",
        job="encoder comparison",
        params=config.to_dict(),
        figures=figures,
        texts={"encoders.csv": found.table.to_csv(), "robustness.csv": found.robustness.to_csv(index=False)},
        parts=[
            Part(str(name), values.to_dict(), found.fitted[str(name)].history_)
            for name, values in found.table.iterrows()
        ],
    )
    return log_study(config.tracking.uri, config.tracking.experiment or config.name, study)
