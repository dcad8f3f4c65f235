"""The fast path of one plain event: from the body to the group it is scored in, past what only other requests need.

Whatever is not plain (several events, reasons asked for, a name for repeats, a fault anywhere) goes the whole way,
which says what is wrong. So there is nothing here that answers an error.
"""

from __future__ import annotations

import asyncio

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from detector.cleaning.plain import NotPlainError
from detector.errors import DetectorError
from pipelines.api.context import AppContext
from pipelines.api.events import ARROW, JSON, Events
from pipelines.api.problems import ProblemError
from pipelines.api.scores import answer_of, response_of
from pipelines.scoring.one_event import Admits, EventRequest

MOST_BYTES = 65_536
"""A longer body is of several events, mostly, and is read once alone."""


class FastPath:
    """Answers ``POST /score`` of one plain event."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    def may_take(self, scope: Scope, headers: Headers, *, most: int) -> bool:
        """Whether a request may be of that kind, by its address and its headers; ``most`` is how long it may be."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] != "POST" or path != "/score" or scope["query_string"] or "idempotency-key" in headers:
            return False
        if not headers.get("content-type", "").startswith(JSON) or ARROW in headers.get("accept", ""):
            return False
        length = headers.get("content-length", "")
        return length.isdecimal() and int(length) <= min(most, MOST_BYTES)

    async def answer(self, body: Body, *, admits: Admits) -> Response | None:
        """The answer to a request; None if it takes the whole way.

        - ``admits``: whether whoever asks may.
        """
        read = await body.read()
        if read is None:
            return None
        try:
            given = Events.read(read)
            if given.event is None or given.events is not None or given.reasons:
                return None
            request = EventRequest(given.event, not given.dry_run, self.context.clock(), admits)
            return response_of(answer_of(await asyncio.wrap_future(self.context.batcher.ask(request))))
        except (RequestValidationError, ProblemError, NotPlainError, DetectorError):
            return None


class Body:
    """The body of a request, which can be read again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._fault: HTTPException | None = None

    async def read(self) -> bytes | None:
        """All of it; None if it is too large, or did not come in whole."""
        try:
            while not self._messages or self._messages[-1].get("more_body", False):
                self._messages.append(await self._receive())
        except HTTPException as error:
            self._fault = error
            return None
        if self._messages[-1]["type"] != "http.request":
            return None
        return b"".join(message.get("body", b"") for message in self._messages)

    async def again(self) -> Message:
        """The messages once more, then what follows them.

        Raises ``HTTPException`` where it came the first time.
        """
        if self._messages:
            return self._messages.pop(0)
        if self._fault is not None:
            raise self._fault
        return await self._receive()
