"""What a policy promises beside what came of it, by verdicts: false alarms, and what nothing flagged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import sqlalchemy as sa

from detector.decide.audit_sample import missed
from pipelines.alerts.feedback.answers import sent_alerts
from pipelines.alerts.grouping.audit_sample import SAMPLED
from pipelines.config import Config
from pipelines.factory.detector import audit_sample_of
from pipelines.jobs.context import ProcessCache
from pipelines.labels.feedback import Statements
from pipelines.progress import counted, percent
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store import Batch, Store
from pipelines.store.alert_tables import Answer

DAYS = 30


def promises_kept(config: Config, store: Store, memory: ProcessCache, *, now: datetime) -> list[str]:
    """Sentences: what the policy promises and what the last 30 days came to, and about how much was missed."""
    return [*_false_alarms(config, store, now=now), *_misses(config, store, memory, now=now)]


def _false_alarms(config: Config, store: Store, *, now: datetime) -> Iterator[str]:
    since, policy = now - timedelta(days=DAYS), config.policy
    with store.read() as session:
        sums = sa.select(sa.func.sum(Batch.scored), sa.func.sum(Batch.flagged))
        scored, flagged = session.execute(sums.where(Batch.source == config.name, Batch.done_at >= since)).one()
        sent = sent_alerts(session, config.name)
    answered = sent[sent["answered"] & (sent["reason"] != SAMPLED)].drop_duplicates("alert")
    if scored and policy.quantile is not None:
        yield (
            f"Promised: {percent(1 - policy.quantile, 2)} of normal rows are flagged at most. Of the "
            f"{counted(int(scored))} of {DAYS} days {percent(flagged / scored, 2)} were, anomalies among them."
        )
    if len(answered):
        wrong = percent(1 - float(answered["fraud"].mean()))
        about = f"Of {counted(len(answered), 'alert')} that people answered {wrong} were false"
        promise = "" if policy.fdr is None else f"Promised: {percent(policy.fdr)} of flagged rows are false at most. "
        yield f"{promise}{about}."


def _misses(config: Config, store: Store, memory: ProcessCache, *, now: datetime) -> Iterator[str]:
    if audit_sample_of(config) is None or config.columns.key is None:
        yield "What is missed is not known: `policy.explore` has rows drawn at random for people to look at."
        return
    with store.read() as session:
        batch, answer = (session.scalar(sa.select(sa.func.max(each.id))) for each in (Batch, Answer))
    token = (config.name, batch, answer, now.date())
    yield memory.of("misses", token, lambda: _estimate(config, store, now=now))


def _estimate(config: Config, store: Store, *, now: datetime) -> str:
    frame = stored_scores(config, store, ScoresQuery(("explored", "chance"), since=now - timedelta(days=DAYS)))
    drawn = frame[frame["explored"].fillna(False).astype(bool)] if "explored" in frame else frame.iloc[:0]
    drawn = drawn.reset_index(drop=True)
    truth = np.full(len(drawn), np.nan)
    if len(drawn):
        said = Statements.answers(config).about(drawn[config.columns.key])["verdicts"]
        said = said.drop_duplicates("row", keep="last")
        truth[said["row"].to_numpy()] = said["label"].to_numpy()
    known = truth[~np.isnan(truth)]
    if not len(known):
        return f"What is missed is not known: none of {counted(len(drawn))} drawn at random in {DAYS} days is answered."
    a_day = missed(truth, drawn["chance"].to_numpy(np.float64)) / _days(drawn, config)
    return (
        f"About {a_day:,.3g} a day are missed: {known.sum():,.0f} of {counted(len(known))} that were drawn at random "
        f"and answered were {config.anomaly}."
    )


def _days(drawn: pd.DataFrame, config: Config) -> float:
    time = config.columns.time
    if time not in drawn:
        return float(DAYS)
    return max(1.0, float((drawn[time].max() - drawn[time].min()) / pd.Timedelta(days=1)))
