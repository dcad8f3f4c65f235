"""One event that somebody asks about, without a frame around it: the numbers of ``OnRequest.score``, sooner.

What is measured, decided and remembered is the same. What is odd about an event, and what only frames can tell (rules,
reasons, a head, members that read events before), is left to ``OnRequest.score``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy.orm import Session

from detector.cleaning.plain import Cell, NotPlainError, plain_row
from detector.features.excerpt import KnownBy, known_rows
from pipelines.features.feature_state import FeatureState
from pipelines.rules.serving import rule_book_at
from pipelines.scoring.marks import Marks, marks_of
from pipelines.scoring.on_request import OnRequest, flagged_by_day
from pipelines.scoring.table import TableBatchScorer


@dataclass(frozen=True)
class ScoredEvent:
    """What is said of an event.

    - ``values``: its risk, p-value, flag and severity, and what decided.
    - ``key``: as cleaned.
    - ``version``: of the detector.
    - ``held``: whether it counts in the past of later ones from now on.
    - ``note``: why a false discovery rate is no promise.
    """

    values: Mapping[str, Any]
    key: Cell
    version: str
    held: int = 0
    note: str | None = None


def score_one(desk: OnRequest, event: Mapping[str, Any], *, now: datetime, keep: bool) -> ScoredEvent:
    """Score one event, given as it came.

    Raises ``NotPlainError`` where it takes ``OnRequest.score``; ``BusyError`` and ``DataError`` as that does.
    """
    scorer, state = desk.scorer(), desk.state()
    features: dict[str, float] = {}
    known = False
    if state is None:
        with desk.store.read() as session:
            _check_rules(desk, session, scorer, marks_of(session, desk.config.name))
    else:
        features, known = _measured(desk, event, scorer, state, now=now)
    cells = plain_row({**event, **features}, scorer.schema)
    values, note = _decided(desk, scorer, cells)
    key = None if scorer.schema.key is None else cells[scorer.schema.key]
    held = 0 if not keep or known or state is None else desk.hold({str(key): event}, state, now=now)
    return ScoredEvent(values, key, scorer.version, held, note)


def _check_rules(desk: OnRequest, session: Session, scorer: TableBatchScorer, marks: Marks) -> None:
    """Raise ``NotPlainError`` if there are rules."""
    if rule_book_at(desk.config, session, scorer.schema, desk.cache, latest=marks.rule_change) is not None:
        raise NotPlainError


def _measured(
    desk: OnRequest, event: Mapping[str, Any], scorer: TableBatchScorer, state: FeatureState, *, now: datetime
) -> tuple[dict[str, float], bool]:
    """The features of an event, and whether the source has brought it already."""
    desk.check_leads()
    engine = state.engine
    typed = engine.read_one(event, now=pd.Timestamp(now))
    key = None if engine.features.key is None else str(typed[engine.features.key])
    with desk.in_turn(state), desk.store.read() as session:
        marks = marks_of(session, desk.config.name)
        _check_rules(desk, session, scorer, marks)
        times = [event[engine.features.time]]
        history, in_hand = state.history_for(times, lambda: desk.followed(state), marks.batch)
        desk.held.follow(session, last=marks.last_held, gone=(marks.batch, marks.trail), now=now)
        known_by = KnownBy.of_one(history, typed)
        others = desk.held.read_near(engine, known_by, now=now, but=lambda other: other == key or other in in_hand)
        return engine.measure_one(history, typed, known_by, others), bool(known_rows(history, known_by)[0])


def _decided(desk: OnRequest, batch: TableBatchScorer, cells: Mapping[str, Cell]) -> tuple[dict[str, Any], str | None]:
    """What the policy says of a cleaned event, and its note."""
    scorer, policy = batch.scorer, batch.policy
    found = scorer.measure_one(cells)
    day = None
    if policy.needs_day and scorer.schema.time is not None:
        day = np.array([cells[scorer.schema.time]], dtype="datetime64[us]").astype("datetime64[D]")
    decision = policy.decision(
        found.p_value,
        found.risk,
        day=day,
        used=lambda days: flagged_by_day(desk.store, desk.config.name, days),
        support=scorer.support,
        learnt=found.learnt,
    )
    values = {
        "risk": float(found.risk[0]),
        "p_value": float(found.p_value[0]),
        "flagged": bool(decision.flagged[0]),
        "severity": str(scorer.severity(found.risk, found.p_value, decision.flagged)[0]),
        "decided_by": scorer.decided_by,
    }
    return values, decision.note
