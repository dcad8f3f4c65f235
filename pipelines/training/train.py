"""Train: read, clean, fit, review on rows kept apart, keep the bundle, write the report, log to MLflow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from detector.cleaning.quarantine import quarantine
from detector.decide.calibrate import Calibrator
from detector.decide.policy import Policy
from detector.detectors.table.training_filters import count_reasons
from detector.errors import BundleError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import fit_warm, policy_of
from pipelines.factory.gates import gated
from pipelines.factory.kinds import KINDS
from pipelines.factory.labelled_set import head_note, train_head
from pipelines.factory.metadata import add_metadata
from pipelines.features.engine import history_folder
from pipelines.progress import counted, phases, progress
from pipelines.registry.registry import ModelRegistry
from pipelines.reports.content import ReportContent
from pipelines.reports.drift import Drift
from pipelines.reports.page import check_page, write_report
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.training.merit import Review
from pipelines.training.pages import drift_of, keep_page, training_content
from pipelines.training.prepare import PreparedRows, prepare
from pipelines.training.review import review
from pipelines.training.run_record import Trained

if TYPE_CHECKING:
    from detector.detectors.table.detector import TabularDetector
    from pipelines.tracking import LoggedModel

NONE_LEFT_OUT = pd.DataFrame({"row": [], "reason": []}, dtype=object)


@dataclass(frozen=True)
class TrainReport:
    """What a training did."""

    rows: int
    quarantined: int
    reviewed: Review
    metrics: dict[str, float]
    seconds: float
    bundle: Path
    report: Path
    quarantine: Path
    notes: list[str]
    left_out: list[str]
    logged: LoggedModel | None
    note: str | None
    head: str | None = None
    unsent: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """The training in a few lines."""
        truth = self.reviewed.truth
        lines = [f"Trained on {counted(self.rows)} in {self.seconds:.0f} s."]
        if self.left_out:
            lines.append(f"Left out, because nothing can be learnt from them: {'; '.join(self.left_out)}.")
        if truth is not None:
            lines.append(
                f"On {truth['labelled']:,.0f} labelled rows kept apart, {truth['anomalies']:,.0f} of them anomalous: "
                f"AUROC {truth['auroc']:.3f}, average precision {truth['ap']:.3f} "
                f"(a blind guess has {truth['prevalence']:.3f})."
            )
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; see why in {self.quarantine}")
        lines += [text for text in (self.head, *self.notes, self.note) if text]
        lines += [f"Bundle: {self.bundle}", f"Report: {self.report}"]
        if self.logged is not None:
            lines.append(f"MLflow: {self.logged.model_uri}, version {self.logged.version}, run {self.logged.run_id}")
            lines.append(f"  {self.logged.url or self.logged.open_with}")
        return lines + self.unsent


def train(config: Config, *, now: datetime) -> TrainReport:
    """Learn what is normal from the configured source.

    Rows whose label says anomalous are never learnt from. A share of all rows is kept from the detector and used to
    tell how good it is.

    Raises ``DetectorError``: with what to do; the earlier bundle and report stay as they were.
    """
    started = time.perf_counter()
    _check_places(config)
    prepared = prepare(config, now=now)
    rows, kept_apart, kind = prepared.rows, prepared.kept_apart, KINDS[config.kind]
    policy = policy_of(config.policy, prepared.schema)
    detector = _fit(prepared, config, now=now)
    filtered = _write_filtered(config, detector, rows, prepared.frame)
    with progress("Reviewing", total=None):
        reviewed, figures = review(gated(detector.scorer_, config), kept_apart, config, detector.history_)
    add_metadata(detector.scorer_, rows, kept_apart, policy=policy, now=now)
    drift = drift_of(config, _version_before(config), rows, detector.scorer_)
    ModelRegistry(config.bundle).put(detector.scorer_, now=now)
    if prepared.engine is not None:
        prepared.engine.save(history_folder(config))
    trained = Trained(config, prepared, detector, reviewed, figures)
    said = (filtered, *kind.noticed(detector), kind.delay_note(detector.scorer_))
    notes = [*prepared.notes, *(text for text in said if text is not None)]
    content = _content(trained, notes, drift, now=now, started=started)
    logged, unsent = _publish(trained, content)
    return TrainReport(
        rows=len(rows),
        quarantined=prepared.quarantined,
        reviewed=reviewed,
        metrics=reviewed.all_metrics,
        seconds=time.perf_counter() - started,
        bundle=config.bundle,
        report=config.report,
        quarantine=prepared.quarantine,
        notes=notes,
        left_out=kind.left_out(detector),
        logged=logged,
        note=_power_note(policy, kind.calibration(detector.scorer_), len(rows)),
        head=head_note(detector.scorer_),
        unsent=unsent,
    )


def _fit(prepared: PreparedRows, config: Config, *, now: datetime) -> TabularDetector:
    """The detector, with a head where labels teach one."""
    with phases("Training", unit="epochs") as on_step:
        known = prepared.with_labels(config, now=now)
        detector: TabularDetector = fit_warm(KINDS[config.kind].detector(config, prepared.schema, on_step), known)
    detector.on_step = None
    if prepared.labelled is not None:
        with progress("Learning from labels", total=None):
            detector.scorer_ = train_head(detector.scorer_, prepared.labelled, config)
    return detector


def _publish(trained: Trained, content: ReportContent) -> tuple[LoggedModel | None, list[str]]:
    """Write the report, log the training, have the report say where, and keep it beside the detectors."""
    config = trained.config
    write_report(config.report, content)
    logged: LoggedModel | None = None
    unsent: list[str] = []
    if config.tracking.enabled:
        with progress("Logging to MLflow", total=None):
            logged, unsent = _log(trained)
    if logged is not None:
        places = {"MLflow model": logged.model_uri, "MLflow run": logged.url or str(logged.open_with)}
        write_report(config.report, replace(content, places={**content.places, **places}))
    keep_page(config, bundle.fingerprint(config.bundle.resolve()), config.report.read_text(encoding="utf-8"))
    return logged, unsent


def _power_note(policy: Policy, calibration: Calibrator, rows: int) -> str | None:
    """Why the policy may flag nothing, or why its rate is no promise."""
    support = calibration.support
    why = None if support is None or policy.fdr is None else support.why_not(policy.fdr)
    return why or policy.power_note(rows, calibration.size, support=support)


def _check_places(config: Config) -> None:
    """Find out before the long part what would otherwise fail after it."""
    bundle.check_place(config.bundle)
    check_page(config.report)
    if config.tracking.enabled:
        from pipelines.tracking import require

        require(config.tracking.uri, may_be_down=True)


def _version_before(config: Config) -> bundle.Scorer | None:
    """The detector that this one takes the place of; None too if it cannot be read, which must not stop a training."""
    if not config.bundle.exists():
        return None
    try:
        return bundle.load(config.bundle)
    except BundleError:
        return None


def _write_filtered(config: Config, detector: TabularDetector, rows: pd.DataFrame, frame: pd.DataFrame) -> str | None:
    """Keep the rows that were left out of training, each with its reason; say how many."""
    left = getattr(detector, "left_out_", NONE_LEFT_OUT)  # a detector of series has no filters
    path = config.bundle.with_name(f"{config.bundle.name}.left_out.csv")
    with QuarantineSink(
        path, columns=[str(name) for name in frame.columns], escape=config.output.escape_formulas
    ) as sink:
        place = rows.index[left["row"].to_numpy(dtype=np.intp)]
        sink.write(quarantine(frame.loc[place], left["reason"].tolist()))
    if left.empty:
        return None
    shown = ", ".join(f"{kind} {count:,}" for kind, count in count_reasons(left).items())
    return f"Left out of training: {shown}. See each in {path}"


def _log(trained: Trained) -> tuple[LoggedModel | None, list[str]]:
    """Log it; if the server is down, say so, and send it later."""
    from pipelines.tracking import keep_training
    from pipelines.tracking.messages import flush_tracking, spool_of, waiting_note

    page = trained.config.report.read_text(encoding="utf-8")
    entry = keep_training(spool_of(trained.config), trained.record(page))
    sent = flush_tracking(trained.config)
    return sent.models.get(entry), waiting_note(sent)


def _content(
    trained: Trained, notes: list[str], drift: Drift | None, *, now: datetime, started: float
) -> ReportContent:
    config, reviewed, scorer = trained.config, trained.reviewed, trained.detector.scorer_
    kind = KINDS[config.kind]
    policy = policy_of(config.policy, scorer.schema)
    said = (head_note(scorer), _power_note(policy, kind.calibration(scorer), len(reviewed.scored)))
    return training_content(
        config,
        scorer,
        reviewed,
        trained.figures,
        job="Training",
        now=now,
        frame=trained.prepared.frame,
        quarantine=trained.prepared.cleaned.quarantine,
        source=trained.prepared.source.describe(),
        seconds=time.perf_counter() - started,
        notes=[
            *(f"{sentence}." for sentence in kind.left_out(trained.detector)),
            *notes,
            *(note for note in said if note is not None),
        ],
        places={"Bundle": str(config.bundle)},
        drift=drift,
    )
