"""The guard in front of the console: who is not signed in sees the sign-in page, and no other site sends its forms."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

import anyio.to_thread
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector.errors import DataError, StoreError
from pipelines.api.context import AppContext
from pipelines.api.limits import bounded
from pipelines.console.proxy import ProxySignIn
from pipelines.console.sign_ins import Visitor, visitor

PATH = "/console"
COOKIE = "__Host-detector"
STATIC = "/static/"
OPEN = ("/sign-in", STATIC)
MOST_BYTES = 200_000
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


class ConsoleGuard:
    """Lets those through who are signed in and may look; adds the headers that keep pages to themselves."""

    def __init__(self, app: ASGIApp, context: AppContext) -> None:
        self.app = app
        self.context = context
        section = context.config.service.console
        self.proxy = ProxySignIn(section.proxy, context.store, hours=section.hours)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or send its sender to the sign-in page."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        send = _with_headers(send, {"Cache-Control": "max-age=300"} if path.startswith(STATIC) else {})
        writes = scope["method"] not in ("GET", "HEAD")
        if writes and not _is_ours(headers):
            await PlainTextResponse("This form was sent from another site.", 403)(scope, receive, send)
            return
        receive = bounded(receive, most=MOST_BYTES)
        if not path.startswith(OPEN):
            refusal = await self._admit(scope, headers, path, writes=writes)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers, path: str, *, writes: bool) -> Response | None:
        try:
            who = await anyio.to_thread.run_sync(self._visitor, scope, headers)
        except DataError as error:
            return PlainTextResponse(str(error), 403)
        except StoreError:
            return PlainTextResponse("The service's state cannot be reached. Try again in a minute.", 503)
        if who is None:
            following = "" if writes or path in ("", "/") else f"?next={quote(path, safe='')}"
            # htmx follows a redirect by itself; a form that was sent is not sent again
            return RedirectResponse(f"{PATH}/sign-in{following}", 303)
        if not who.caller.may("view"):
            return PlainTextResponse("This needs a key with the scope view or review. Sign in with another one.", 403)
        scope.setdefault("state", {})["visitor"] = who
        return None

    def _visitor(self, scope: Scope, headers: Headers) -> Visitor | None:
        now = self.context.clock()
        if (named := self.proxy.visitor(scope, headers, now=now)) is not None:
            return named
        with self.context.store.read() as session:
            return visitor(session, cookie_of(headers), now=now)


def cookie_of(headers: Headers) -> str:
    """The cookie of the console that a request brings; empty if none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _is_ours(headers: Headers) -> bool:
    """Whether a browser says that a page of this address sent the request; every browser of today says so."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _with_headers(send: Send, own: Mapping[str, str]) -> Send:
    async def _send(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.lower().encode(), value.encode()) for name, value in ({**HEADERS, **own}).items()]
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return _send
