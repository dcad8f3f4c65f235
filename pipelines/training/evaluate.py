"""Evaluate: compare the trained detector's scores with known labels, and write the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from detector.cleaning.clean import Cleaned, clean
from detector.decide.audit_sample import missed
from detector.errors import DataError, SettingError
from detector.features import Wording
from detector.persist import bundle
from detector.schema import Schema
from pipelines.alerts.feedback.answers import realised
from pipelines.config import Config
from pipelines.factory.detector import audit_sample_of, policy_of
from pipelines.factory.gates import gated
from pipelines.factory.kinds import KINDS
from pipelines.factory.metadata import reference_of
from pipelines.features.raw_source import RawSource
from pipelines.features.wording import wording_of
from pipelines.labels.feedback import Statements
from pipelines.labels.known import TRUTH, known_labels, with_statements
from pipelines.progress import counted, percent, progress
from pipelines.reports.content import ReportContent, column_facts, quarantine_counts
from pipelines.reports.drift import Drift, drift_since
from pipelines.reports.page import check_page, write_report
from pipelines.sinks.quarantine import count_quarantined, why
from pipelines.training.merit import Review, alternatives, explain_command
from pipelines.training.pages import days_of
from pipelines.training.review import review

LABEL_SOME = "Label some of both (1 anomalous, 0 normal)."


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found."""

    rows: int
    quarantined: int
    reviewed: Review
    report: Path
    notes: Sequence[str] = ()
    answered: int = 0
    realised: str | None = None
    missed: str | None = None

    def summary(self) -> list[str]:
        """The evaluation in a few lines."""
        truth, interval = self.reviewed.truth or {}, self.reviewed.interval
        lines = [
            f"Evaluated {self.rows:,} rows, {truth['labelled']:,.0f} labelled, {truth['anomalies']:,.0f} anomalous.",
            f"AUROC {truth['auroc']:.3f}, average precision {truth['ap']:.3f}"
            + (f" (95 % interval {interval.low:.3f} to {interval.high:.3f})" if interval else "")
            + f"; a blind guess has {truth['prevalence']:.3f}.",
            f"Flagged {truth['flagged']:,.0f}: precision {truth['precision']:.3f}, recall {truth['recall']:.3f}."
            if truth["flagged"]
            else "Flagged none, so none of the anomalies was found.",
            f"Of the {truth['budget']:,.0f} riskiest rows, {percent(truth['precision_at_budget'], 1)} are anomalous.",
        ]
        if "known_events" in truth:
            lines.append(
                f"Events: found {truth['found_events']:.0f} of {truth['known_events']:.0f}; of "
                f"{truth['flagged_events']:.0f} flagged segments {truth['false_events']:.0f} are false alarms."
            )
        members = [name.removeprefix("ap_") for name in truth if name.startswith("ap_")]
        for name in members:
            said = name.replace("_", " ")
            lines.append(f"  {said:<12} AUROC {truth[f'auroc_{name}']:.3f}  AP {truth[f'ap_{name}']:.3f}")
        lines += self.notes
        if self.answered:
            lines.append(f"Of these, {counted(self.answered)} labelled by reports or answers to alerts.")
        if self.realised:
            lines.append(self.realised)
        if self.missed:
            lines.append(self.missed)
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; the report says why.")
        return [*lines, f"Report: {self.report}"]


def evaluate(config: Config, *, input: str, now: datetime) -> EvaluationReport:  # noqa: A002 - the option's name
    """Score labelled rows and compare; reports and answers to alerts count among the labels, see ``with_statements``.

    - ``config``: names the bundle, the policy, and what knows labels: a column, reports, the service's answers.

    Raises ``SettingError`` if nothing tells what is anomalous; ``DataError`` if the rows do not hold both anomalous
    and normal ones.
    """
    started = time.perf_counter()
    report = config.report.with_name(f"{config.report.stem}.evaluation.html")
    check_page(report)
    said = Statements.all(config)
    scorer = gated(bundle.load(config.bundle), config)
    schema = _labelled(scorer.schema, config, said)
    scorer = replace(scorer, schema=schema)
    policy = policy_of(config.policy, schema)
    found = _read(config, input, schema, said, now=now)
    rows, used = found.cleaned.rows, +found.reasons
    with progress("Scoring", total=None):
        if rows.empty:
            raise DataError(f"None of the {counted(found.given)} can be used: {why(used)}. Mend them.")
        reviewed, figures = review(scorer, rows, config, {})
    if reviewed.truth is None:
        unused = count_quarantined(used, of=found.given)
        raise DataError(
            f"{_knowing(schema)} no known anomaly or no known normal row among the {len(rows):,} rows "
            f"read, so there is nothing to compare with. {' '.join([*unused, LABEL_SOME, *found.notes])}"
        )
    wording = wording_of(config)
    content = ReportContent(
        name=scorer.name,
        job="Evaluation",
        made_at=now,
        rows=found.given,
        reviewed=len(reviewed.scored),
        alternatives=alternatives(reviewed.scored),
        drift=_drift(scorer, rows, reviewed, wording),
        explain=explain_command(config, input),
        flagged=int(reviewed.scored["flagged"].sum()),
        quarantined=len(found.quarantine),
        source=found.source,
        seconds=time.perf_counter() - started,
        notes=found.notes,
        truth=reviewed.truth,
        ap_interval=reviewed.interval,
        alerts=reviewed.alerts,
        unit=KINDS[config.kind].unit,
        reasons=reviewed.reasons,
        policy=policy.describe(),
        figures=figures,
        columns=column_facts(found.frame, schema, wording),
        quarantine=quarantine_counts(found.quarantine),
        members=scorer.members,
        model=scorer.metrics,
        places={"Bundle": str(config.bundle)},
    )
    write_report(report, content)
    return EvaluationReport(
        rows=found.given,
        quarantined=len(found.quarantine),
        reviewed=reviewed,
        report=report,
        notes=found.notes,
        answered=found.answered,
        realised=realised(config),
        missed=_missed(rows, reviewed.scored, config=config, schema=schema),
    )


@dataclass(frozen=True)
class _Labelled:
    """The rows of an evaluation.

    - ``frame``: as read, with features and the labels that people gave since; ``answered`` of these.
    - ``given``: how many there were.
    - ``reasons``: how many cannot be used, by the kind of the reason.
    - ``notes``: what measuring the features and reading the labels has to say.
    """

    source: str
    frame: pd.DataFrame
    cleaned: Cleaned
    quarantine: pd.DataFrame
    given: int
    reasons: Counter[str]
    answered: int
    notes: list[str]


def _labelled(schema: Schema, config: Config, said: Statements) -> Schema:
    """What columns mean, with a label: the one that the detector knows, or the configured one, or what was said."""
    if schema.label is not None:
        return schema
    label = config.columns.label
    if label in schema.features:
        raise SettingError(
            f"The detector learnt from {label!r} before `columns.label` named it, so it knows the answers. Train again."
        )
    if label is None and (schema.key is None or not said):
        raise SettingError(
            "Nothing tells what was anomalous. Name a column of the file in `columns.label`, or a table of reports in "
            "`train.head.reports`, or answer alerts of the service; the latter two name rows by `columns.key`."
        )
    return replace(schema, label=label or TRUTH)


def _knowing(schema: Schema) -> str:
    return "Reports and answers tell of" if schema.label == TRUTH else f"{schema.label!r} holds"


def _read(config: Config, place: str, schema: Schema, said: Statements, *, now: datetime) -> _Labelled:
    """Read the rows, measure their features, add what was said of them, and clean them."""
    is_column = schema.label != TRUTH
    raw = RawSource.open(config, schema, place=place, labelled=is_column and not said)
    frame = raw.read(also=[str(schema.label)] if is_column else [])
    rejected, rows = raw.source.rejected, len(frame)
    reasons = Counter({"a line that cannot be read": len(rejected)})
    measured, note = raw.measure(frame, now=now)
    reasons.update(measured.quarantine["reason"])
    frame, answered = with_statements(measured.rows, schema, said)
    cleaned = clean(frame, schema, labelled=True)
    notes = [note] if note else []
    if not is_column and schema.time is not None:
        silent = replace(schema, label=None)
        known = known_labels(cleaned.rows, config, silent, now=now, statements=said)
        cleaned = replace(cleaned, rows=cleaned.rows.assign(**{TRUTH: known.label}))
        notes.append(
            f"Rows that nobody spoke of count as normal once they are {config.retrain.label_delay_days:g} days old "
            f"(`retrain.label_delay_days`)."
        )
    reasons.update(cleaned.counts)
    quarantine = pd.concat([rejected, measured.quarantine, cleaned.quarantine], ignore_index=True)
    given = rows + len(rejected)
    return _Labelled(raw.source.describe(), frame, cleaned, quarantine, given, reasons, answered, notes)


def _drift(scorer: bundle.Scorer, rows: pd.DataFrame, reviewed: Review, wording: Wording) -> Drift | None:
    """The rows beside those that the detector learnt from; None where it does not know these."""
    learnt = reference_of(scorer.metrics)
    if learnt is None:
        return None
    against = f"the rows that the detector learnt from{days_of(scorer)}".replace(" (rows from", " (from")
    return drift_since(learnt, rows, against=against, scores=reviewed.scored, wording=wording)


def _missed(rows: pd.DataFrame, scored: pd.DataFrame, *, config: Config, schema: Schema) -> str | None:
    """How many anomalies a day nothing flags, by the labels of sampled rows; None if they cannot be found again.

    The chance of a row is known here only where the day has the budget, and not each batch its own.
    """
    exploration = audit_sample_of(config)
    if exploration is None or exploration.among is None or schema.key is None or schema.time is None:
        return None
    chance = exploration.chance(len(rows))
    sampled = (exploration.uniform(rows[schema.key]) < chance) & ~scored["flagged"].to_numpy(dtype=bool)
    truth = scored["truth"].to_numpy(dtype=np.float64)[sampled]
    known = truth[~np.isnan(truth)]
    if not len(known):
        return f"None of the {counted(int(sampled.sum()))} drawn at random has a label, so what is missed is unknown."
    days = rows[schema.time].dt.normalize().nunique()
    a_day = missed(truth, np.full(len(truth), chance)) / max(days, 1)
    return (
        f"About {a_day:,.3g} anomalies a day are missed: {known.sum():,.0f} of {counted(len(known))} that were drawn "
        f"at random and have a label."
    )
