"""``POST /v1/score``: events in, scores out, as the next batch would have them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from detector.cleaning.plain import NotPlainError
from detector.errors import nearest
from pipelines.api.doors import Doors, needs
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.api.writes import beside
from pipelines.features.held_events import framed
from pipelines.scoring.on_request import BusyError, ScoredEvents
from pipelines.scoring.one_event import score_one

Value = str | int | float | bool | None
Event = Annotated[dict[str, Value], Field(min_length=1, max_length=2_000)]


class Events(BaseModel):
    """Events to score: one, or several."""

    model_config = ConfigDict(extra="forbid")

    event: Event | None = Field(None, description="One event: the columns of a row, times as ISO 8601.")
    events: list[Event] | None = Field(None, min_length=1, description="Several, which count in each other's past.")
    reasons: bool = Field(default=False, description="Whether each gets its reasons, flagged or not.")
    dry_run: bool = Field(default=False, description="Whether later events are not to count these.")

    def listed(self, *, most: int) -> Sequence[Mapping[str, Value]]:
        """The events.

        Raises ``ProblemError`` if there are none, too many, or both ``event`` and ``events``.
        """
        if (self.event is None) == (self.events is None):
            raise ProblemError(422, "Give one event, or events.", fields={"event": "expected this, or `events`"})
        listed = [self.event] if self.event is not None else self.events or []
        if len(listed) > most:
            text = f"expected at most {most:,} (`service.api.most_events`), received {len(listed):,}"
            raise ProblemError(422, "Too many events.", fields={"events": text})
        return listed

    def place(self, number: int, name: str = "") -> str:
        """How a field is called in an error."""
        return ".".join(part for part in ("event" if self.event is not None else f"events.{number}", name) if part)


class Reason(BaseModel):
    """Why an event is unusual."""

    feature: str
    observed: str
    expected: str
    share: float = Field(description="Of the risk.")


class Score(BaseModel):
    """What is said of an event."""

    place: int = Field(description="Which event of the request, from 0.")
    key: str | int | float | None
    risk: float
    p_value: float = Field(description="The share of normal rows with at least this risk.")
    flagged: bool
    severity: str
    decided_by: str
    rules: list[str] = Field(description="Live rules that hit it.")
    hidden_by: list[str] = Field(description="Rules that keep it from being flagged.")
    reasons: list[Reason] | None


class Refused(BaseModel):
    """An event that cannot be scored."""

    place: int
    field: str
    detail: str


class Scores(BaseModel):
    """What became of the events."""

    model_version: str
    scores: list[Score]
    refused: list[Refused]
    held: int = Field(description="How many later events count, until the source brings them.")
    note: str | None = Field(description="Why a false discovery rate is no promise.")


def scores_router(doors: Doors) -> APIRouter:
    """The path."""
    router = APIRouter(tags=["score"])
    most = doors.config.service.api.most_events

    @router.post("/score", response_model=Scores, dependencies=[Depends(needs("score"))])
    def score(given: Events, request: Request) -> JSONResponse:
        """Score events as the next batch would, if it held just these."""
        listed = given.listed(most=most)
        if given.dry_run:
            return JSONResponse(_scored(doors, given, listed), headers=HEADERS)
        return beside(doors, request, given, lambda: _scored(doors, given, listed))

    return router


def _scored(doors: Doors, given: Events, listed: Sequence[Mapping[str, Value]]) -> dict[str, Any]:
    wanted = doors.on_request.columns
    if missing := {
        given.place(number, name): f"missing; give null if it has no value. {nearest(name, event)}"
        for number, event in enumerate(listed)
        for name in wanted
        if name not in event
    }:
        text = "1 value is missing." if len(missing) == 1 else f"{len(missing):,} values are missing."
        raise ProblemError(422, text, fields=dict(list(missing.items())[:20]))
    try:
        if len(listed) == 1 and not given.reasons:
            with contextlib.suppress(NotPlainError):
                return scored_one(doors, listed[0], keep=not given.dry_run)
        frame = framed(listed)
        found = doors.on_request.score(frame, now=doors.clock(), explain=given.reasons, keep=not given.dry_run)
    except BusyError as error:
        raise ProblemError(503, str(error), headers={"Retry-After": "2"}) from None
    refused = [_refused(place, text, given) for place, text in sorted(found.refused.items())]
    if refused and len(listed) == 1:
        raise ProblemError(422, "The event cannot be scored.", fields={refused[0]["field"]: refused[0]["detail"]})
    scores = _plain(found, key=doors.config.columns.key, explained=given.reasons)
    return {"model_version": found.version, "scores": scores, "refused": refused} | {
        "held": found.held,
        "note": found.note,
    }


def scored_one(doors: Doors, event: Mapping[str, Value], *, keep: bool) -> dict[str, Any]:
    """What is answered to one plain event.

    Raises ``NotPlainError`` if it goes by frames; ``BusyError`` as they do.
    """
    found = score_one(doors.on_request, event, now=doors.clock(), keep=keep)
    line = {"place": 0, "key": found.key, **found.values, "rules": [], "hidden_by": [], "reasons": None}
    return {"model_version": found.version, "scores": [line], "refused": [], "held": found.held, "note": found.note}


def _refused(place: int, text: str, given: Events) -> dict[str, Any]:
    name, _, _ = text.partition(":")
    return {"place": place, "field": given.place(place, name if " " not in name else ""), "detail": text}


def _plain(found: ScoredEvents, *, key: str | None, explained: bool) -> list[dict[str, Any]]:
    scores = found.scores
    names = ["risk", "p_value", "flagged", "severity", "decided_by"]
    keys = [None] * len(scores) if key is None or key not in scores else scores[key].tolist()
    lists: list[Any] = [None] * len(scores)
    if explained:
        lists = [[_reason(each) for each in reasons] for reasons in scores["reasons"]]
    rules = [_named(scores, name) for name in ("rules_hit", "hidden_by")]
    lines = zip(scores.index.tolist(), keys, scores[names].to_dict("records"), *rules, lists, strict=True)
    return [
        {"place": place, "key": plain(key), **line, "rules": hit, "hidden_by": hidden, "reasons": reasons}
        for place, key, line, hit, hidden, reasons in lines
    ]


def _named(scores: pd.DataFrame, column: str) -> list[list[str]]:
    if column not in scores:
        return [[] for _ in range(len(scores))]
    return [text.split(", ") if text else [] for text in scores[column].tolist()]


def _reason(reason: Any) -> dict[str, Any]:
    return {
        "feature": reason.feature,
        "observed": reason.observed,
        "expected": reason.expected,
        "share": round(float(reason.share), 4),
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it.

    >>> plain(float("nan")), plain(pd.Timestamp("2026-03-01")), plain(3)
    (None, '2026-03-01T00:00:00', 3)
    """
    if value is None or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value
