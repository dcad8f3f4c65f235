"""The console as one application under ``/console``, behind its guard."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from detector.errors import DetectorError
from pipelines.api.application import PATH as API
from pipelines.api.application import api
from pipelines.api.context import AppContext
from pipelines.api.limits import Rate
from pipelines.config import Config
from pipelines.console.alert import alert_router
from pipelines.console.audit import audit_router
from pipelines.console.forms import failed
from pipelines.console.guard import COOKIE, PATH, ConsoleGuard, cookie_of
from pipelines.console.models import models_router
from pipelines.console.pages import pages_router
from pipelines.console.queue import queue_router
from pipelines.console.rendering import TEMPLATES, form_of, page
from pipelines.console.rules import rules_router
from pipelines.console.sign_ins import Visitor, sign_in, sign_out
from pipelines.console.views import views_router
from pipelines.service.facts import Facts
from pipelines.store import Store

FAILURES_A_SECOND = 0.2


def console(context: AppContext) -> ASGIApp:
    """The application, to be mounted at ``PATH``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=TEMPLATES / "static"))
    for router in (queue_router, views_router, alert_router, models_router, pages_router, rules_router, audit_router):
        app.include_router(router(context))
    _add_sign_in(app, context)

    @app.exception_handler(DetectorError)
    async def of_service(request: Request, error: DetectorError) -> Response:
        return failed(request, error)

    @app.exception_handler(HTTPException)
    async def of_path(request: Request, error: HTTPException) -> Response:
        text = str(error.detail)
        return page("problem.html.j2", request, status=error.status_code, title="There is no such page", text=text)

    @app.exception_handler(RequestValidationError)
    async def of_fields(request: Request, _: RequestValidationError) -> Response:
        text = "The address of this page cannot be read."
        return page("problem.html.j2", request, status=400, title="That did not work", text=text)

    return ConsoleGuard(app, context)


def mount_web(app: FastAPI, config: Config, store: Store, facts: Facts) -> list[str]:
    """Put the console and the API under the service's web application, as configured; returns their paths."""
    context, section = AppContext.of(config, store, facts), config.service
    mounted: dict[str, ASGIApp] = {}
    if section.console.enabled:
        mounted[PATH] = console(context)
        app.add_api_route("/", lambda: RedirectResponse(f"{PATH}/", 303), include_in_schema=False)
    if section.api.enabled:
        mounted[API] = api(context)
    app.add_middleware(ByPrefix, mounted=mounted)
    return list(mounted)


class ByPrefix:
    """Gives every request below a path to the application of that path.

    Starlette's own ``Mount`` leaves out paths with a line break in them, and the guard would never see those.
    """

    def __init__(self, app: ASGIApp, mounted: Mapping[str, ASGIApp]) -> None:
        self.app = app
        self.mounted = mounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path = scope.get("path", "")
        for prefix, app in self.mounted.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                await app(dict(scope, root_path=scope.get("root_path", "") + prefix), receive, send)
                return
        await self.app(scope, receive, send)


def _add_sign_in(app: FastAPI, context: AppContext) -> None:
    failures = Rate(FAILURES_A_SECOND)
    hours = context.config.service.console.hours

    def try_key(key: str) -> str | None:
        with context.store.write() as session:
            return sign_in(session, key, hours=hours, now=context.clock())

    @app.get("/sign-in")
    async def ask(request: Request) -> Response:
        return page("sign_in.html.j2", request, problem="", following=request.query_params.get("next", ""))

    @app.post("/sign-in")
    async def enter(request: Request) -> Response:
        try:
            form = await form_of(request)
        except ValueError:
            form = {}
        key, following = (form.get(name, [""])[-1].strip() for name in ("key", "next"))
        cookie = await run_in_threadpool(try_key, key)
        if cookie is None:
            wait = failures.wait(request.client.host if request.client else "")
            problem = f"Too many wrong keys: wait {math.ceil(wait)} s." if wait else "This key opens nothing."
            values = {"problem": problem, "following": following}
            return page("sign_in.html.j2", request, status=429 if wait else 403, **values)
        answer = RedirectResponse(f"{PATH}{_own(following)}", 303)
        answer.set_cookie(
            COOKIE, cookie, max_age=int(hours * 3_600), path="/", secure=True, httponly=True, samesite="lax"
        )
        return answer

    @app.post("/sign-out")
    async def leave(request: Request) -> Response:
        who: Visitor = request.state.visitor
        form = await form_of(request)
        answer = RedirectResponse(f"{PATH}/sign-in", 303)
        if who.sent(form.get("token", [""])[-1]):
            await run_in_threadpool(_leave, context, cookie_of(request.headers))
            answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return answer


def _leave(context: AppContext, cookie: str) -> None:
    with context.store.write() as session:
        sign_out(session, cookie)


def _own(path: str) -> str:
    """A path within the console; another one leads to its first page.

    >>> _own("/alerts/al_1"), _own("//evil.example"), _own("https://evil.example"), _own("")
    ('/alerts/al_1', '/', '/', '/')
    """
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if safe and "?" not in path and ".." not in path else "/"
