"""Requests that change something: done once, however often they come, if their sender names them.

The name is in the header ``Idempotency-Key``. The same request under the same name gets the same answer again; another
request under that name is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from pipelines.api.context import AppContext, caller_of
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.store.access_tables import AnsweredRequest

MOST_NAME = 200
IN_HAND = 0
LOST_AFTER = timedelta(minutes=5)

Values = dict[str, Any]
Answer = TypeVar("Answer", bound=Response)
Respond = Callable[[Values], Answer]


def in_one_transaction(
    context: AppContext, request: Request, given: BaseModel | None, act: Callable[[Session], Values]
) -> JSONResponse:
    """Do something in one transaction, together with the note that it was done."""
    note = _note(context, request, given)
    with context.store.write() as session:
        if note is not None and (before := _taken(session, note)) is not None:
            return _again(before, note, as_json)
        answer = act(session)
        _done(session, note, answer)
    return as_json(answer)


def once(
    context: AppContext,
    request: Request,
    given: BaseModel | bytes | None,
    act: Callable[[], Values],
    respond: Respond[Answer],
) -> Answer:
    """Do something outside of any transaction, such as to read a file; meanwhile the same request is refused.

    ``respond`` makes the response of an answer.
    """
    note = _note(context, request, given)
    if note is None:
        return respond(act())
    with context.store.write() as session:
        if (before := _taken(session, note)) is not None:
            return _again(before, note, respond)
    try:
        answer = act()
    except BaseException:
        with context.store.write() as session:
            session.execute(_ours(sa.delete(AnsweredRequest), note))
        raise
    with context.store.write() as session:
        _done(session, note, answer)
    return respond(answer)


def as_json(answer: Values) -> JSONResponse:
    """An answer as it is sent."""
    return JSONResponse(answer, headers=HEADERS)


def _note(context: AppContext, request: Request, given: BaseModel | bytes | None) -> Values | None:
    name = request.headers.get("idempotency-key")
    if name is None:
        return None
    if not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        raise ProblemError(400, f"Idempotency-Key: expected 1 to {MOST_NAME} printable characters.")
    body = given.model_dump_json().encode() if isinstance(given, BaseModel) else given or b""
    said = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
    fingerprint = hashlib.sha256(said).hexdigest()
    values = {"key": caller_of(request).id, "name": name, "fingerprint": fingerprint}
    return values | {"status": IN_HAND, "answer": {}, "at": context.clock()}


def _taken(session: Session, note: Values) -> AnsweredRequest | None:
    """The request of that name that came before; if there is none, this one takes the name."""
    kind = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = kind.insert(AnsweredRequest).values(**note).on_conflict_do_nothing().returning(AnsweredRequest.key)
    if session.execute(statement).first() is not None:
        return None
    found = session.get_one(AnsweredRequest, (note["key"], note["name"]))
    if found.status == IN_HAND and found.at < note["at"] - LOST_AFTER and found.fingerprint == note["fingerprint"]:
        found.at = note["at"]  # whoever had it in hand has died
        return None
    return found


def _again(before: AnsweredRequest, note: Values, respond: Respond[Answer]) -> Answer:
    if before.fingerprint != note["fingerprint"]:
        raise ProblemError(422, "Idempotency-Key: another request came under this name. Give each its own.")
    if before.status == IN_HAND:
        raise ProblemError(409, "Idempotency-Key: the request of this name is in hand.", headers={"Retry-After": "1"})
    found = respond(before.answer)
    found.headers["Idempotent-Replay"] = "true"
    return found


def _done(session: Session, note: Values | None, answer: Values) -> None:
    if note is not None:
        session.execute(_ours(sa.update(AnsweredRequest), note).values(status=200, answer=answer))


def _ours(statement: Any, note: Values) -> Any:
    return statement.where(AnsweredRequest.key == note["key"], AnsweredRequest.name == note["name"])
