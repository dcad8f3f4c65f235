"""``POST /v1/score``: events in, scores out, as the next batch would have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from detector.cleaning.plain import NotPlainError
from detector.errors import SchemaError
from pipelines.api.arrow_stream import stream_of
from pipelines.api.context import AppContext, needs
from pipelines.api.events import ARROW, JSON, Events, ScoreRequest
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.api.writes import once
from pipelines.features.plain_frame import plain_list
from pipelines.scoring.event_scorer import BusyError, ScoredEvents
from pipelines.scoring.one_event import EventRequest, ScoredEvent

Flag = Annotated[bool, Query(description="As in the body, for a body that is an Arrow stream.")]
BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {"required": True, "content": {JSON: {"schema": Events.model_json_schema()}, ARROW: BINARY}}


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


def scores_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(tags=["score"])
    most = context.config.service.api.most_events

    @router.post(
        "/score",
        response_model=Scores,
        responses={200: {"content": {ARROW: BINARY}}},
        dependencies=[Depends(needs("score"))],
        openapi_extra={"requestBody": BODY},
    )
    async def score(request: Request, *, reasons: Flag = False, dry_run: Flag = False) -> Response:
        """Score events as the next batch would, if it held just these."""
        try:
            body = await request.body()
        except ClientDisconnect:
            raise ProblemError(400, "The body did not come in whole.") from None

        def answer() -> Response:
            kind = request.headers.get("content-type", "")
            columns = context.event_scorer.columns
            given = ScoreRequest.read(body, kind, columns, most=most, reasons=reasons, dry_run=dry_run)
            wants_arrow = ARROW in request.headers.get("accept", "").lower()
            if given.dry_run:
                return response_of(_scored(context, given), as_arrow=wants_arrow)
            return once(
                context,
                request,
                body,
                lambda: _scored(context, given),
                lambda each: response_of(each, as_arrow=wants_arrow),
            )

        return await run_in_threadpool(answer)

    return router


def response_of(answer: Mapping[str, Any], *, as_arrow: bool = False) -> Response:
    """An answer as it is sent."""
    if as_arrow:
        return Response(stream_of(answer), media_type=ARROW, headers=HEADERS)
    return Response(to_json(answer), media_type=JSON, headers=HEADERS)


def _scored(context: AppContext, given: ScoreRequest) -> dict[str, Any]:
    keep = not given.dry_run
    try:
        if given.one is not None and not given.reasons:
            with contextlib.suppress(NotPlainError):
                return scored_one(context, given.one, keep=keep)
        found = context.event_scorer.score(given.frame, now=context.clock(), explain=given.reasons, keep=keep)
    except BusyError as error:
        raise ProblemError(503, str(error), headers={"Retry-After": "2"}) from None
    except SchemaError as error:
        if not error.column:
            raise
        raise ProblemError(422, "A column cannot be read.", fields={f"events.{error.column}": str(error)}) from None
    refused = [_refused(place, text, given) for place, text in sorted(found.refused.items())]
    if refused and len(given.frame) == 1:
        raise ProblemError(422, "The event cannot be scored.", fields={refused[0]["field"]: refused[0]["detail"]})
    scores = _score_lines(found, key=context.config.columns.key, explained=given.reasons)
    about = {"model_version": found.version, "held": found.held, "note": found.note}
    return about | {"scores": scores, "refused": refused}


def scored_one(context: AppContext, event: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """What is answered to one plain event.

    Raises ``NotPlainError`` if it goes by frames; ``BusyError`` as they do.
    """
    return answer_of(context.batcher.ask(EventRequest(event, keep, context.clock())).result())


def answer_of(found: ScoredEvent) -> dict[str, Any]:
    """What is answered to one event."""
    line = {"place": 0, "key": found.key, **found.values, "rules": [], "hidden_by": [], "reasons": None}
    return {"model_version": found.version, "scores": [line], "refused": [], "held": found.held, "note": found.note}


def _refused(place: int, text: str, given: ScoreRequest) -> dict[str, Any]:
    name, _, _ = text.partition(":")
    return {"place": place, "field": given.place(place, name if " " not in name else ""), "detail": text}


def _score_lines(found: ScoredEvents, *, key: str | None, explained: bool) -> list[dict[str, Any]]:
    scores, nothing = found.scores, repeat(None, len(found.scores))
    reasons = [[_reason(each) for each in listed] for listed in scores["reasons"]] if explained else nothing
    columns = (
        scores.index.tolist(),
        nothing if key is None or key not in scores else plain_list(scores[key]),
        *(scores[name].tolist() for name in ("risk", "p_value", "flagged", "severity", "decided_by")),
        _named(scores, "rules_hit"),
        _named(scores, "hidden_by"),
        reasons,
    )
    return [
        {
            "place": place,
            "key": key,
            "risk": risk,
            "p_value": p_value,
            "flagged": flagged,
            "severity": severity,
            "decided_by": decided_by,
            "rules": rules,
            "hidden_by": hidden_by,
            "reasons": told,
        }
        for place, key, risk, p_value, flagged, severity, decided_by, rules, hidden_by, told in zip(
            *columns, strict=True
        )
    ]


def _named(scores: pd.DataFrame, column: str) -> Iterable[list[str]]:
    if column not in scores:
        return repeat([], len(scores))
    return [text.split(", ") if text else [] for text in scores[column].tolist()]


def _reason(reason: Any) -> dict[str, Any]:
    return {
        "feature": reason.feature,
        "observed": reason.observed,
        "expected": reason.expected,
        "share": round(float(reason.share), 4),
    }
