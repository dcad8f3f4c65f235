"""The guard in front of all of the API: nothing passes without a key, not even the news of what there is."""

from __future__ import annotations

import logging
import math

import anyio.to_thread
from fastapi.responses import JSONResponse
from sqlalchemy.engine import Connection
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from detector.errors import StoreError
from pipelines.api import keys
from pipelines.api.context import AppContext
from pipelines.api.fast_path import Body, FastPath
from pipelines.api.limits import Rate, bounded, too_large
from pipelines.api.problems import problem
from pipelines.escaping import one_line
from pipelines.scoring.marks import LatestMarks

log = logging.getLogger("detector.api")

MEGABYTE = 1_000_000
FAILURES_A_SECOND = 0.5
AT_ONCE = 8
"""Requests that threads work on: more would keep the jobs from connections to the database."""


class Guard:
    """Lets requests through that carry a valid key, as often as it may ask, with a body no larger than allowed."""

    def __init__(self, app: ASGIApp, context: AppContext) -> None:
        self.app = app
        self.context = context
        self.most = int(context.config.service.api.most_megabytes * MEGABYTE)
        self.rate = Rate(context.config.service.api.per_second)
        self.failures = Rate(FAILURES_A_SECOND)
        self.known_keys = keys.KnownKeys()
        self.fast_path = FastPath(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say why not."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        receive = bounded(receive, most=self.most)
        admission = _Admission(self, _key_of(headers))
        if admission.key and self.fast_path.may_take(scope, headers, most=self.most):
            body = Body(receive)
            answer = await self.fast_path.answer(body, admits=admission)
            if answer is not None:
                await answer(scope, receive, send)
                return
            receive = body.again
        anyio.to_thread.current_default_thread_limiter().total_tokens = AT_ONCE
        found = admission.caller or await self._admit(headers, address=(scope.get("client") or ("", 0))[0])
        if isinstance(found, keys.Caller):
            scope.setdefault("state", {})["caller"] = found
            await self.app(scope, receive, send)
        else:
            await found(scope, receive, send)

    async def _admit(self, headers: Headers, *, address: str) -> keys.Caller | JSONResponse:
        key, caller = _key_of(headers), None
        try:
            if key:
                caller = await anyio.to_thread.run_sync(self._check, key)
        except StoreError as error:
            log.warning("a key could not be looked up: %s", error)
            return problem(503, "The service's state cannot be reached. Ask again in a minute.")
        if caller is None:
            return self._refused(address, given="authorization" in headers)
        if wait := self.rate.wait(caller.id):
            text = f"A key may ask {self.rate.per_second:g} times a second (`service.api.per_second`)."
            return problem(429, text, headers={"Retry-After": str(math.ceil(wait))})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            large = too_large(self.most)
            return problem(large.status_code, large.detail)
        return caller

    def _check(self, key: str) -> keys.Caller | None:
        with self.context.store.read() as session:
            return keys.check(session, key, now=self.context.clock())

    def _refused(self, address: str, *, given: bool) -> JSONResponse:
        """After some wrong keys from one address, wrong keys have to wait; a right one never does."""
        if given and (wait := self.failures.wait(address)):
            return problem(429, "Too many wrong keys.", headers={"Retry-After": str(math.ceil(wait))})
        if given:
            log.warning("a wrong key was used from %s", one_line(address))
        text = "Send a key that `detector keys create` made: Authorization: Bearer det_…"
        return problem(401, text, headers={"WWW-Authenticate": 'Bearer realm="detector"'})


class _Admission:
    """Lets one request through at the look at the state that its scores need as well, or not, without a word.

    - ``caller``: who asks, once they are let through.
    """

    def __init__(self, guard: Guard, key: str) -> None:
        self.guard = guard
        self.key = key
        self.caller: keys.Caller | None = None

    def __call__(self, connection: Connection, marks: LatestMarks) -> bool:
        if self.caller is not None:
            return True  # what is scored anew was let through before
        now = self.guard.context.clock()
        caller = self.guard.known_keys.check(connection, self.key, trail=marks.trail, now=now)
        if caller is None or not caller.may("score") or self.guard.rate.wait(caller.id):
            return False
        self.caller = caller
        return True


def _key_of(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
