"""Train: read, clean, fit, review on rows kept apart, keep the bundle, write the report, log to MLflow."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from detector.cleaning.clean import Cleaned, clean
from detector.decide.policy import Policy
from detector.detectors.table.training_filters import count_reasons
from detector.errors import DataError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import policy_of, refuse_taken_names, schema_of
from pipelines.factory.labelled_set import head_note, head_tags, labelled_set_of, train_head, without
from pipelines.factory.metadata import REFERENCE, calibration_of, remember
from pipelines.features.burn_in import warm
from pipelines.features.engine import featuring_of, history_folder, statements_of
from pipelines.labels.feedback import Statements
from pipelines.labels.known import with_report_time
from pipelines.progress import counted, progress
from pipelines.registry.registry import Shelf
from pipelines.reports.page import ReportContent, column_facts, quarantine_counts, write_report
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.sources import Source, open_source
from pipelines.training.kinds import KINDS
from pipelines.training.review import Review

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detector.detectors.table.detector import TabularDetector
    from detector.training.settings import OnStep
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
    told: list[str]
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
        lines += [text for text in (self.head, *self.told, self.note) if text]
        lines += [f"Bundle: {self.bundle}", f"Report: {self.report}"]
        if self.logged is not None:
            lines.append(f"MLflow: {self.logged.model_uri}, version {self.logged.version}, run {self.logged.run_id}")
            lines.append(f"  {self.logged.url or self.logged.open_with}")
        return lines + self.unsent


def train(config: Config, *, now: datetime) -> TrainReport:
    """Learn what is normal from the configured source.

    Rows whose label says anomalous are never learnt from. A share of all rows is kept from the detector and used to
    tell how good it is.

    Parameters
    ----------
    config : Config
        Everything else.
    now : datetime
        When this run happens.

    Raises
    ------
    DetectorError
        With what to do; the earlier bundle and report stay as they were.
    """
    started = time.perf_counter()
    _check_places(config)
    source = open_source(config.source)
    kind = KINDS[config.kind]
    featuring = featuring_of(config, trained=False)
    with progress("Reading", total=source.estimate()) as advance:
        frame = kind.read(source, config, advance)
    schema = schema_of(frame, config)
    refuse_taken_names(schema)
    unmeasured = pd.DataFrame()
    if featuring is not None:
        with progress("Measuring features", total=None):
            featured = featuring.learn(frame, now=pd.Timestamp(now))
        schema, unmeasured = featuring.schema(schema), featured.quarantine
        frame = featured.rows
    statements = statements_of(config, featuring)
    whole = featuring is not None or config.train.rows is None
    strangers = _strangers(frame, config, statements) if whole else None
    frame = _some(frame, config)
    policy = policy_of(config.policy, schema)
    cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
    quarantine = _quarantine(config)
    with QuarantineSink(quarantine, columns=[str(name) for name in frame.columns]) as sink:
        sink.write(unmeasured)
        sink.write(cleaned.quarantine)
        sink.write(source.rejected)
    _refuse_too_few(cleaned, quarantine)
    usable = with_report_time(cleaned.rows, frame, config)
    rows, early = warm(cleaned.rows, str(schema.time), None if featuring is None else featuring.whole_from)
    rows, kept_apart = kind.split(rows, config, schema)
    lesson = labelled_set_of(usable.drop(index=kept_apart.index), config, schema, now=now, statements=statements)
    rows = without(rows, lesson)
    with fitting_steps() as on_step:
        detector = kind.detector(config, schema, on_step).fit(rows)
    detector.on_step = None
    if lesson is not None:
        with progress("Learning from labels", total=None):
            detector.scorer_ = train_head(detector.scorer_, lesson, config)
    filtered = _write_filtered(config, detector, rows, frame)
    with progress("Reviewing", total=None):
        reviewed, drawn = kind.review(detector.scorer_, kept_apart, config, detector.history_)
    remember(detector.scorer_, rows, kept_apart, policy=policy, now=now)
    Shelf(config.bundle).put(detector.scorer_, now=now)
    if featuring is not None:
        featuring.save(history_folder(config))
    logged: LoggedModel | None = None
    unsent: list[str] = []
    if config.tracking.enabled:
        with progress("Logging to MLflow", total=None):
            logged, unsent = _log(config, detector, source, rows, kept_apart, reviewed, drawn)
    told = [text for text in (early, filtered, strangers) if text is not None]
    content = _content(
        config, detector, source, frame, cleaned, reviewed, drawn, logged, told, now=now, started=started
    )
    write_report(config.report, content)
    return TrainReport(
        rows=len(rows),
        quarantined=len(unmeasured) + len(cleaned.quarantine) + len(source.rejected),
        reviewed=reviewed,
        metrics=reviewed.all_metrics,
        seconds=time.perf_counter() - started,
        bundle=config.bundle,
        report=config.report,
        quarantine=quarantine,
        told=told,
        left_out=kind.left_out(detector),
        logged=logged,
        note=policy.power_note(len(rows), calibration_of(detector.scorer_).size),
        head=head_note(detector.scorer_),
        unsent=unsent,
    )


def _check_places(config: Config) -> None:
    """Find out before the long part what would otherwise fail after it."""
    bundle.check_place(config.bundle)
    if config.tracking.enabled:
        from pipelines.tracking import require

        require(config.tracking.uri, may_be_down=True)


def _quarantine(config: Config) -> Path:
    return config.bundle.with_name(f"{config.bundle.name}.quarantine.csv")


def _strangers(rows: pd.DataFrame, config: Config, statements: Statements | None) -> str | None:
    """What to say of reports about rows that are not there."""
    if statements is None or config.columns.key is None:
        return None
    unknown = statements.strangers(rows[config.columns.key])
    if not unknown:
        return None
    return (
        f"{len(unknown):,} of {counted(statements.reports['key'].nunique(), 'reported key')} belong to no row, "
        f"such as {unknown[0]!r}; they count for nothing. Check `train.head.reports.key`."
    )


def _some(frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    """A random sample of as many rows as are to be learnt from, in order."""
    most = config.train.rows
    return (
        frame
        if most is None or len(frame) <= most
        else frame.sample(most, random_state=config.random_state).sort_index()
    )


def _write_filtered(config: Config, detector: TabularDetector, rows: pd.DataFrame, frame: pd.DataFrame) -> str | None:
    """Keep the rows that the cleaning settings left out of training, each with its reason; say how many."""
    left = getattr(detector, "left_out_", NONE_LEFT_OUT)  # a detector of series has no filters
    path = config.bundle.with_name(f"{config.bundle.name}.left_out.csv")
    with QuarantineSink(path, columns=[str(name) for name in frame.columns]) as sink:
        place = rows.index[left["row"].to_numpy(dtype=np.intp)]
        aside = frame.loc[place].rename(columns={name: f"source_{name}" for name in ("row", "reason")})
        sink.write(aside.assign(row=place, reason=left["reason"].to_numpy()))
    if left.empty:
        return None
    shown = ", ".join(f"{kind} {count:,}" for kind, count in count_reasons(left).items())
    return f"Left out of training by `train.cleaning`: {shown}. See each in {path}"


def _refuse_too_few(cleaned: Cleaned, quarantine: Path) -> None:
    if len(cleaned.rows) < 3:
        why = "; ".join(f"{reason} ({counted(count)})" for reason, count in list(cleaned.reasons().items())[:3])
        raise DataError(
            f"Expected at least 3 usable rows to learn from, received {len(cleaned.rows)}. "
            + (f"Left out: {why}. See each in {quarantine}, and mend them." if why else "Give more rows.")
        )


@contextmanager
def fitting_steps() -> Iterator[OnStep]:
    """A progress bar for the longest step, the autoencoder; the others are short."""
    with progress("Training", total=None, unit="epochs") as advance:
        last = 0

        def on_step(what: str, done: int, planned: int) -> None:  # noqa: ARG001 - what the library tells
            nonlocal last
            if planned > 1:
                advance(done - last)
                last = done

        yield on_step


def _log(
    config: Config,
    detector: TabularDetector,
    source: Source,
    rows: pd.DataFrame,
    kept_apart: pd.DataFrame,
    reviewed: Review,
    drawn: dict[str, Figure],
) -> tuple[LoggedModel | None, list[str]]:
    """Tell MLflow; if its server is down, say so, and tell it later."""
    from pipelines.tracking import DatasetFacts, keep_training
    from pipelines.tracking.messages import cut, experiment_of, model_of, send_waiting, spool_of, waiting_note

    scorer, schema = detector.scorer_, detector.scorer_.schema
    features = [*(name for role, name in schema.roles.items() if role != "label"), *schema.features]
    example = KINDS[config.kind].example(kept_apart, scorer)[list(dict.fromkeys(features))]
    kinds = {name: schema.kind_of(name) for name in schema.features} | {
        name: role for role, name in schema.roles.items()
    }
    facts = {name: value for name, value in scorer.metrics.items() if isinstance(value, int | float)}
    policy = policy_of(config.policy, schema)
    entry = keep_training(
        spool_of(config),
        experiment=experiment_of(config),
        model_name=model_of(config),
        alias=config.tracking.alias,
        serving=config.tracking.alias,
        bundle=config.bundle,
        example=example,
        dataset=DatasetFacts(
            name=config.name, source=source.describe(), rows=len(rows), digest=fingerprint(rows), columns=kinds
        ),
        params=config.to_dict(),
        metrics=facts | reviewed.all_metrics,
        curves=detector.history_,
        figures=drawn,
        config_text=config.file.read_text(encoding="utf-8") if config.file is not None else "",
        tags={"job": "train", "rows": str(len(rows)), "members": ", ".join(scorer.members)} | cut(head_tags(scorer)),
        description=_description(config, len(rows), reviewed, policy),
        policy=policy,
    )
    sent = send_waiting(config)
    return sent.models.get(entry), waiting_note(sent)


def _description(config: Config, rows: int, reviewed: Review, policy: Policy) -> str:
    lines = [f"**{config.name}**: learnt from {rows:,} rows."]
    if reviewed.truth is not None:
        lines.append(
            f"On {reviewed.truth['labelled']:,.0f} labelled rows kept apart: AUROC {reviewed.truth['auroc']:.3f}, "
            f"average precision {reviewed.truth['ap']:.3f} at a prevalence of {reviewed.truth['prevalence']:.4f}."
        )
    lines.append(f"Flags {policy.describe()}: {reviewed.metrics['flagged_share']:.2%} of those rows.")
    return "\n\n".join(lines)


def _content(
    config: Config,
    detector: TabularDetector,
    source: Source,
    frame: pd.DataFrame,
    cleaned: Cleaned,
    reviewed: Review,
    drawn: dict[str, Figure],
    logged: LoggedModel | None,
    told: list[str],
    *,
    now: datetime,
    started: float,
) -> ReportContent:
    scorer, policy = detector.scorer_, policy_of(config.policy, detector.scorer_.schema)
    places = {"Bundle": str(config.bundle)}
    if logged is not None:
        places |= {"MLflow model": logged.model_uri, "MLflow run": logged.url or str(logged.open_with)}
    notes = [f"{sentence}." for sentence in KINDS[config.kind].left_out(detector)] + told
    said = (head_note(scorer), policy.power_note(len(reviewed.verdicts), calibration_of(scorer).size))
    notes += [note for note in said if note is not None]
    return ReportContent(
        name=config.name,
        job="Training",
        made_at=now,
        rows=len(frame),
        quarantined=len(cleaned.quarantine),
        source=source.describe(),
        seconds=time.perf_counter() - started,
        truth=reviewed.truth,
        ap_interval=reviewed.interval,
        alerts=reviewed.alerts,
        unit=KINDS[config.kind].unit,
        reasons=reviewed.reasons,
        policy=policy.describe(),
        calibration={name: value for name, value in reviewed.metrics.items() if name.startswith(("calib", "share_"))},
        figures=drawn,
        columns=column_facts(frame, scorer.schema),
        quarantine=quarantine_counts(cleaned.quarantine),
        members=scorer.members,
        model={name: value for name, value in scorer.metrics.items() if name != REFERENCE},
        places=places,
        notes=notes,
    )


def fingerprint(rows: pd.DataFrame) -> str:
    """A short name for exactly these rows: equal rows, equal fingerprint.

    >>> fingerprint(pd.DataFrame({"a": [1.0]})) == fingerprint(pd.DataFrame({"a": [2.0]}))
    False
    """
    each = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    return hashlib.sha256(each.tobytes()).hexdigest()[:16]
