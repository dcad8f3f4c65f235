"""What another policy would have flagged, from stored scores: flags a day, what verdicts say of them, and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.cleaning.values import read_names
from detector.decide.policy import Policy
from detector.errors import DataError
from pipelines.config import Config, PolicySection
from pipelines.config.masking import masks_of
from pipelines.factory.detector import policy_of
from pipelines.jobs.context import ProcessCache
from pipelines.labels.answers import frauds_at_stake
from pipelines.labels.feedback import Statements
from pipelines.scoring.load import load_scorer
from pipelines.scoring.rules_what_if import HITS, LiveRules, RulesOutlook, StoredHits
from pipelines.scoring.table import TableBatchScorer
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store import Batch, Run, Store
from pipelines.store.alert_tables import Answer


@dataclass(frozen=True)
class Outlook:
    """What a policy comes to over some days.

    - ``answered``, ``fraud``: of the rows it flags, those of which people have said what they were, and were right.
    - ``missed``: rows that people called fraud and it does not flag.
    - ``money_caught``, ``money_missed``: what was at stake in events that people called fraud: in those of which it
      flags a row, and in the others; None without ``alerts.amount`` or such events.
    - ``rules``: what rules make of it, which all of the above leaves out; None where none acts.
    """

    policy: str
    rows: int
    days: float
    flagged: int
    a_day: float
    answered: int
    fraud: int
    missed: int
    money_caught: float | None = None
    money_missed: float | None = None
    rules: RulesOutlook | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON, for programs."""
        precision = self.fraud / self.answered if self.answered else None
        rules = None if self.rules is None else self.rules.to_dict()
        return vars(self) | {"precision": precision, "rules": rules}


@dataclass(frozen=True)
class _Stored:
    risk: NDArray[np.float64]
    p_value: NDArray[np.float64]
    day: NDArray[np.datetime64] | None
    said: NDArray[np.float64]
    days: float
    stakes: tuple[tuple[float, NDArray[np.intp]], ...] = ()
    """What was at stake in each fraud, and where its rows are."""

    hits: StoredHits | None = None


def what_if(
    config: Config,
    store: Store,
    cache: ProcessCache,
    *,
    changes: Mapping[str, Any],
    days: float,
    now: datetime,
    memory: ProcessCache | None = None,
) -> tuple[Outlook, Outlook]:
    """Today's policy and another one, over the rows of the last days.

    - ``changes``: of the section ``policy``: ``quantile``, ``budget``, ``fdr``; None takes a rule away.
    - ``memory``: keeps the scores that were read last; another one than ``cache``, which others wait for.

    Raises ``DataError`` if there are no scores of those days, or rows are readings of sensors; ``SettingError`` or
    pydantic's error if there is no such policy.
    """
    scorer = load_scorer(config, cache)
    if not isinstance(scorer, TableBatchScorer):
        raise DataError("Flags of sensors depend on the rows around them: `detector score` shows another policy.")
    kept, rules = memory or ProcessCache(), LiveRules.of(config, store)
    token, stored = _stored(config, store, kept, days=days, now=now)
    given = config.policy.model_dump(exclude_unset=True) | dict(changes)
    other = PolicySection.model_validate({name: value for name, value in given.items() if value is not None})
    policy = policy_of(config.policy, scorer.schema)
    version = None if rules is None else rules.version
    today = kept.of(
        "today's outlook", (token, scorer.version, policy, version), lambda: _outlook(stored, policy, scorer, rules)
    )
    return today, _outlook(stored, policy_of(other, scorer.schema), scorer, rules)


def _outlook(stored: _Stored, policy: Policy, scorer: TableBatchScorer, rules: LiveRules | None) -> Outlook:
    if policy.needs_day and stored.day is None:
        raise DataError("budget: per day needs `columns.time`, and rows have no time. Set `per: batch`.")
    flagged = _decided(stored, policy, scorer)

    def decided(seen: Flags | None) -> Flags:
        return flagged if seen is None else _decided(stored, policy, scorer, seen)

    known = ~np.isnan(stored.said)
    fraud = stored.said == 1.0
    caught = sum(amount for amount, places in stored.stakes if flagged[places].any())
    missed = sum(amount for amount, places in stored.stakes if not flagged[places].any())
    return Outlook(
        policy=policy.describe(),
        rows=len(stored.risk),
        days=round(stored.days, 2),
        flagged=int(flagged.sum()),
        a_day=round(float(flagged.sum()) / max(stored.days, 1.0), 2),
        answered=int((flagged & known).sum()),
        fraud=int((flagged & fraud).sum()),
        missed=int((~flagged & fraud).sum()),
        money_caught=round(caught, 2) if stored.stakes else None,
        money_missed=round(missed, 2) if stored.stakes else None,
        rules=None if rules is None else rules.outlook(stored.hits, decided, days=stored.days, stakes=stored.stakes),
    )


def _decided(stored: _Stored, policy: Policy, scorer: TableBatchScorer, seen: Flags | None = None) -> Flags:
    """The rows that a policy flags, if it sees all or only some."""
    risk, p_value, day = stored.risk, stored.p_value, stored.day if policy.needs_day else None
    if seen is not None:
        risk, p_value, day = risk[seen], p_value[seen], None if day is None else day[seen]
    found = policy.decision(p_value, risk, day=day, support=scorer.scorer.support).flagged
    if seen is None:
        return found
    flagged = np.zeros(len(seen), dtype=bool)
    flagged[seen] = found
    return flagged


def _stored(
    config: Config, store: Store, memory: ProcessCache, *, days: float, now: datetime
) -> tuple[tuple[object, ...], _Stored]:
    """The scores of the last days and what was said of them, and what they stand for.

    They are read anew where there is a batch or an answer more, or a job has ended that changes or deletes scores.
    """
    with store.read() as session:
        batch = session.scalar(sa.select(sa.func.max(Batch.id)).where(Batch.state == "done"))
        answer = session.scalar(sa.select(sa.func.max(Answer.id)))
        ended = (Run.job.in_(("replay", "housekeeping")), Run.outcome != "running")
        run = session.scalar(sa.select(sa.func.max(Run.id)).where(*ended))
    token = (config.name, days, batch, answer, run, now.date())
    return token, memory.of("stored scores", token, lambda: _read(config, store, days=days, now=now))


def _read(config: Config, store: Store, *, days: float, now: datetime) -> _Stored:
    frame = stored_scores(config, store, ScoresQuery(("risk", "p_value", HITS), since=now - timedelta(days=days)))
    if frame.empty:
        raise DataError(f"No row of the last {days:g} days has a score. Ask for more days.")
    time, key = config.columns.time, config.columns.key
    day = frame[time].to_numpy().astype("datetime64[D]") if time in frame else None
    said = np.full(len(frame), np.nan)
    if key in frame:
        about = Statements.answers(config).about(frame[key])["verdicts"].drop_duplicates("row", keep="last")
        said[about["row"].to_numpy()] = about["label"].to_numpy()
    span = days if time not in frame else (frame[time].max() - frame[time].min()).total_seconds() / 86_400
    risk, p_value = frame["risk"].to_numpy(np.float64).copy(), frame["p_value"].to_numpy(np.float64).copy()
    return _Stored(risk, p_value, day, said, float(span), _stakes(config, store, frame), StoredHits.of(frame))


def _stakes(config: Config, store: Store, frame: pd.DataFrame) -> tuple[tuple[float, NDArray[np.intp]], ...]:
    key = config.columns.key
    if config.alerts.amount is None or key is None or key not in frame:
        return ()
    with store.read() as session:
        stakes = frauds_at_stake(session, config.name)
    if not stakes:
        return ()
    names, masks = read_names(frame[key]).astype("str").astype("object"), masks_of(config)
    if masks.is_masked(key):
        if not masks.tells_apart(key):
            return ()
        names = names.map(lambda name: masks.show(key, name), na_action="ignore")
    wanted = frozenset().union(*(stake.keys for stake in stakes))
    at = names[names.isin(wanted)]
    places = dict(zip(at, at.index.tolist(), strict=True))
    found = [(stake.amount, [places[each] for each in stake.keys if each in places]) for stake in stakes]
    return tuple((amount, np.array(rows, dtype=np.intp)) for amount, rows in found if rows)
