"""Train: read, clean, fit, review on rows kept apart, keep the bundle, write the report, log to MLflow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from detector.cleaning.clean import Cleaned, clean
from detector.cleaning.quarantine import quarantine
from detector.decide.calibrate import Calibrator
from detector.decide.policy import Policy
from detector.detectors.table.training_filters import count_reasons
from detector.errors import BundleError, DataError
from detector.persist import bundle
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import fit_warm, policy_of, refuse_taken_names
from pipelines.factory.gates import gated, without_maintenance
from pipelines.factory.kinds import KINDS
from pipelines.factory.labelled_set import LabelledSet, head_note, labelled_set_of, train_head, without
from pipelines.factory.leakage import suspects_note, suspects_of
from pipelines.factory.machines import some_machines
from pipelines.factory.metadata import add_metadata
from pipelines.features.burn_in import warm
from pipelines.features.engine import feature_engine_of, history_folder, statements_of
from pipelines.ingest.usable import open_usable
from pipelines.labels.feedback import Statements
from pipelines.labels.known import with_known_labels, with_report_time
from pipelines.progress import counted, percent, phases, progress
from pipelines.registry.registry import ModelRegistry
from pipelines.reports.content import ReportContent
from pipelines.reports.page import check_page, write_report
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.training.merit import Review
from pipelines.training.pages import drift_of, keep_page, training_content
from pipelines.training.review import review
from pipelines.training.run_record import Trained

if TYPE_CHECKING:
    from detector.detectors.table.detector import TabularDetector
    from pipelines.tracking import LoggedModel

MANY_LOST = 0.01
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
    source = some_machines(open_usable(config), config)
    kind = KINDS[config.kind]
    engine = feature_engine_of(config, trained=False)
    with progress("Reading", total=source.estimate()) as advance:
        frame = kind.read(source, config, advance)
    schema = kind.schema(frame, config)
    refuse_taken_names(schema)
    unmeasured = pd.DataFrame()
    if engine is not None:
        with progress("Measuring features", total=None):
            featured = engine.learn(frame, now=pd.Timestamp(now))
        schema, unmeasured = engine.schema(schema), featured.quarantine
        frame = featured.rows
    statements = statements_of(config, engine)
    whole = engine is not None or config.train.rows is None
    unmatched = _unmatched(frame, config, statements) if whole else None
    frame = _some(frame, config)
    policy = policy_of(config.policy, schema)
    cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
    quarantine_file = _quarantine(config)
    with QuarantineSink(
        quarantine_file, columns=[str(name) for name in frame.columns], escape=config.output.escape_formulas
    ) as sink:
        sink.write(unmeasured)
        sink.write(cleaned.quarantine)
        sink.write(source.rejected)
    _refuse_too_few(cleaned, quarantine_file)
    usable = with_report_time(cleaned.rows, frame, config)
    working, idle = without_maintenance(cleaned.rows, config, schema)
    rows, early = warm(working, str(schema.time), None if engine is None else engine.whole_from)
    rows, kept_apart = kind.split(rows, config, schema)
    labelled = labelled_set_of(usable.drop(index=kept_apart.index), config, schema, now=now, statements=statements)
    rows = without(rows, labelled)
    with phases("Training", unit="epochs") as on_step:
        known = with_known_labels(rows, usable, config, schema, now=now, statements=statements)
        detector = fit_warm(kind.detector(config, schema, on_step), known)
    detector.on_step = None
    if labelled is not None:
        with progress("Learning from labels", total=None):
            detector.scorer_ = train_head(detector.scorer_, labelled, config)
    filtered = _write_filtered(config, detector, rows, frame)
    with progress("Reviewing", total=None):
        reviewed, figures = review(gated(detector.scorer_, config), kept_apart, config, detector.history_)
    add_metadata(detector.scorer_, rows, kept_apart, policy=policy, now=now)
    drift = drift_of(config, _version_before(config), rows, detector.scorer_)
    ModelRegistry(config.bundle).put(detector.scorer_, now=now)
    if engine is not None:
        engine.save(history_folder(config))
    trained = Trained(config, source, detector, frame, cleaned, rows, kept_apart, reviewed, figures, engine)
    lost = _lost(cleaned, len(frame), quarantine_file)
    hindsight = _hindsight(usable, labelled, config, schema)
    waiting = kind.waiting(detector.scorer_)
    notes = [text for text in (early, idle, lost, hindsight, filtered, unmatched, waiting) if text is not None]
    content = replace(_content(trained, notes, now=now, started=started), drift=drift)
    write_report(config.report, content)
    logged: LoggedModel | None = None
    unsent: list[str] = []
    if config.tracking.enabled:
        with progress("Logging to MLflow", total=None):
            logged, unsent = _log(trained)
    if logged is not None:
        places = {"MLflow model": logged.model_uri, "MLflow run": logged.url or str(logged.open_with)}
        content = replace(content, places={**content.places, **places})
        write_report(config.report, content)
    keep_page(config, bundle.fingerprint(config.bundle.resolve()), config.report.read_text(encoding="utf-8"))
    return TrainReport(
        rows=len(rows),
        quarantined=len(unmeasured) + len(cleaned.quarantine) + len(source.rejected),
        reviewed=reviewed,
        metrics=reviewed.all_metrics,
        seconds=time.perf_counter() - started,
        bundle=config.bundle,
        report=config.report,
        quarantine=quarantine_file,
        notes=notes,
        left_out=kind.left_out(detector),
        logged=logged,
        note=_power_note(policy, kind.calibration(detector.scorer_), len(rows)),
        head=head_note(detector.scorer_),
        unsent=unsent,
    )


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


def _quarantine(config: Config) -> Path:
    return config.bundle.with_name(f"{config.bundle.name}.quarantine.csv")


def _unmatched(rows: pd.DataFrame, config: Config, statements: Statements | None) -> str | None:
    """What to say of reports about rows that are not there."""
    if statements is None or config.columns.key is None:
        return None
    unknown = statements.unmatched(rows[config.columns.key])
    if not unknown:
        return None
    return (
        f"{len(unknown):,} of {counted(statements.reports['key'].nunique(), 'reported key')} belong to no row, "
        f"such as {unknown[0]!r}; they count for nothing. Check `train.head.reports.key`."
    )


def _hindsight(rows: pd.DataFrame, labelled: LabelledSet | None, config: Config, schema: Schema) -> str | None:
    """What to say of columns that give the label away, where the head does not say it."""
    if labelled is not None and (labelled.suspects or schema.time is not None):
        return None
    if schema.label is None or not KINDS[config.kind].rows_stand_alone:
        return None
    trusted = config.train.head.trusted
    return suspects_note(suspects_of(rows, rows[schema.label], schema, trusted=trusted))


def _some(frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    """A random sample of as many rows as are to be learnt from, in order."""
    most = config.train.rows
    return (
        frame
        if most is None or len(frame) <= most
        else frame.sample(most, random_state=config.random_state).sort_index()
    )


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


def _refuse_too_few(cleaned: Cleaned, file: Path) -> None:
    if len(cleaned.rows) < 3:
        why = "; ".join(f"{reason} ({counted(count)})" for reason, count in list(cleaned.reasons().items())[:3])
        raise DataError(
            f"Expected at least 3 usable rows to learn from, received {len(cleaned.rows)}. "
            + (
                f"Left out: {why}. See each in {file}. Mend them, or say in `source.formats` how they are written: "
                f"`detector doctor` proposes the form that fits."
                if why
                else "Give more rows."
            )
        )


def _lost(cleaned: Cleaned, rows: int, file: Path) -> str | None:
    """What to say of a fault that many rows have in common, which is then hardly theirs."""
    many = {reason: count for reason, count in cleaned.reasons().items() if count > MANY_LOST * rows}
    if not many:
        return None
    shown = "; ".join(f"{reason} ({percent(count / rows, 1)})" for reason, count in list(many.items())[:3])
    return (
        f"Many rows could not be used for one reason, and nothing like them is learnt: {shown}. See each in {file}; "
        f"`detector doctor` says what to do."
    )


def _log(trained: Trained) -> tuple[LoggedModel | None, list[str]]:
    """Log it; if the server is down, say so, and send it later."""
    from pipelines.tracking import keep_training
    from pipelines.tracking.messages import flush_tracking, spool_of, waiting_note

    page = trained.config.report.read_text(encoding="utf-8")
    entry = keep_training(spool_of(trained.config), trained.record(page))
    sent = flush_tracking(trained.config)
    return sent.models.get(entry), waiting_note(sent)


def _content(trained: Trained, notes: list[str], *, now: datetime, started: float) -> ReportContent:
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
        frame=trained.frame,
        quarantine=trained.cleaned.quarantine,
        source=trained.source.describe(),
        seconds=time.perf_counter() - started,
        notes=[
            *(f"{sentence}." for sentence in kind.left_out(trained.detector)),
            *notes,
            *(note for note in said if note is not None),
        ],
        places={"Bundle": str(config.bundle)},
    )
