"""The short way of one plain event: from the body to the scores in one thread, past what only other requests need.

Whatever is not plain (several events, reasons asked for, a name for repeats, a fault anywhere) goes the whole way,
which says what is wrong. So there is nothing here that answers an error.
"""

from __future__ import annotations

import anyio.to_thread
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector.cleaning.plain import NotPlainError
from detector.errors import DetectorError
from pipelines.api.doors import Doors, caller_of
from pipelines.api.events import ARROW, JSON, Events
from pipelines.api.scores import said, scored_one

MOST_BYTES = 65_536
"""A longer body is of several events, mostly, and is read once alone."""


class ShortWay:
    """Answers ``POST /score`` of one plain event; hands everything else on."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self.app = app
        self.doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on with the body that was read."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] != "POST" or path != "/score":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        headers = request.headers
        is_plain = headers.get("content-type", "").startswith(JSON) and ARROW not in headers.get("accept", "")
        if not is_plain or scope["query_string"] or "idempotency-key" in headers or not caller_of(request).may("score"):
            await self.app(scope, receive, send)
            return
        body = Body(receive)
        read = await body.read()
        found = None
        if read is not None and len(read) <= MOST_BYTES:
            found = await anyio.to_thread.run_sync(self._scored, read)
        await (self.app(scope, body.again, send) if found is None else found(scope, receive, send))

    def _scored(self, body: bytes) -> Response | None:
        try:
            given = Events.read(body)
            if given.event is None or given.events is not None or given.reasons:
                return None
            if any(name not in given.event for name in self.doors.on_request.columns.needed):
                return None
            return said(scored_one(self.doors, given.event, keep=not given.dry_run))
        except (RequestValidationError, NotPlainError, DetectorError):
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
