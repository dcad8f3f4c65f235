"""The pages of health, quality and other policies, and their forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from detector.errors import DataError, DetectorError
from pipelines.alerts.channels.targets import targets_of
from pipelines.alerts.feedback.answers import quality
from pipelines.api.configuration import reloaded
from pipelines.api.context import AppContext
from pipelines.api.health import health_of
from pipelines.api.jobs import run_of
from pipelines.api.policy import changed_policy, policy_with
from pipelines.api.problems import ProblemError
from pipelines.api.what_if import policies_of
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.console.rendering import page
from pipelines.jobs.steering import last_runs, steer
from pipelines.scoring.promises import promises_kept
from pipelines.store.alert_tables import TargetState

ASKED = ("quantile", "budget", "fdr", "days")
DAYS = 30.0
MOST_LINES = 20


def pages_router(context: AppContext) -> APIRouter:
    """The pages."""
    router = APIRouter()

    @router.get("/health")
    def health(request: Request) -> HTMLResponse:
        with context.store.read() as session:
            runs = [run_of(run) for run in last_runs(session, most=15)]
            targets = {target.name: session.get(TargetState, target.name) for target in targets_of(context.config)}
            states = [
                {"name": name, "state": "up" if state is None else state.state, "error": state.error if state else ""}
                for name, state in targets.items()
            ]
        values: dict[str, Any] = {"health": health_of(context), "runs": runs, "targets": states}
        return page("health.html.j2", request, name=context.config.name, **values)

    @router.get("/quality")
    def quality_page(request: Request) -> HTMLResponse:
        with context.store.read() as session:
            found = quality(session, source=context.config.name)
        promises = promises_kept(context.config, context.store, context.memory, now=context.clock())
        tables = {name: frame.head(MOST_LINES).to_dict("records") for name, frame in found.by.items()}
        return page(
            "quality.html.j2",
            request,
            name=context.config.name,
            anomaly=context.config.anomaly,
            quality=found,
            promises=promises,
            tables=tables,
        )

    @router.get("/what-if")
    def what_if(request: Request) -> HTMLResponse:
        given = {name: request.query_params.get(name, "").strip() for name in ASKED}
        problem, outlooks = "", None
        try:
            outlooks = policies_of(context, _changes(given), days=_number(given, "days") or DAYS)
        except (ProblemError, DetectorError) as error:
            problem = error.detail if isinstance(error, ProblemError) else str(error)
        values: dict[str, Any] = {"given": given, "problem": problem, "outlooks": outlooks, "days": DAYS}
        values |= {"before": _as_yaml(context, {}), "after": _as_yaml(context, _shown(given))}
        values["sliders"] = _sliders(context, given)
        values["file"] = None if context.config.file is None else context.config.file.name
        values |= {"anomaly": context.config.anomaly, "can_be_asked": context.config.kind != "sensors"}
        return page("what_if.html.j2", request, name=context.config.name, **values)

    @router.post("/what-if")
    async def change(request: Request) -> Response:
        return await checked(request, lambda form: _change(context, request, form), scope="admin")

    @router.post("/jobs")
    async def steer_job(request: Request) -> Response:
        return await checked(request, lambda form: _steer(context, form), scope="admin")

    @router.post("/configuration")
    async def reload(request: Request) -> Response:
        return await checked(request, lambda form: _reload(context, request, form), scope="admin")

    return router


def _reload(context: AppContext, request: Request, form: Form) -> Response:
    found = reloaded(context, who=form.visitor.caller.name, reason=form.one("reason"))
    return page("problem.html.j2", request, title="The configuration was read", text=found["note"])


def _change(context: AppContext, request: Request, form: Form) -> Response:
    changes = _changes({name: form.one(name) for name in ASKED})
    if not changes:
        raise DataError("This is the policy of today. Change a rule above, look at what it flags, then keep it.")
    who, as_copy = form.visitor.caller.name, form.one("as") == "copy"
    found = changed_policy(context, changes, who=who, reason=form.one("reason"), as_copy=as_copy)
    return page("problem.html.j2", request, title="The policy is written", text=found["note"])


def _sliders(context: AppContext, given: Mapping[str, str]) -> dict[str, dict[str, float | str]]:
    """What can be dragged: of a quantile the digits of its distance from 1, so that .9, .99 and .999 lie evenly."""
    policy = policy_with(context.config, _shown(given))
    quantile, budget = policy.get("quantile", 0.99), policy.get("budget", {}).get("rows", 20)
    usual = context.config.policy.budget.rows if context.config.policy.budget else budget
    digits = -math.log10(max(1.0 - quantile, 1e-6)) if 0 < quantile < 1 else 2.0
    return {
        "quantile": {"min": 1, "max": 5, "step": 0.05, "value": round(digits, 2), "scale": "digits"},
        "budget": {"min": 1, "max": max(100, 3 * usual), "step": 1, "value": budget, "scale": "plain"},
        "fdr": {"min": 0.01, "max": 0.5, "step": 0.01, "value": policy.get("fdr", 0.1), "scale": "plain"},
    }


def _as_yaml(context: AppContext, changes: Mapping[str, Any]) -> str:
    return yaml.safe_dump({"policy": policy_with(context.config, changes)}, sort_keys=False)


def _changes(given: Mapping[str, str]) -> dict[str, Any]:
    """What the fields ask to change of the policy; an empty one changes nothing, and "off" takes a rule away."""
    found: dict[str, Any] = {}
    for name in ("quantile", "fdr", "budget"):
        if given[name] == "off":
            found[name] = None
        elif given[name]:
            value = _number(given, name)
            found[name] = {"rows": int(value or 0), "per": "day"} if name == "budget" else value
    return found


def _shown(given: Mapping[str, str]) -> dict[str, Any]:
    try:
        return _changes(given)
    except DataError:
        return {}


def _number(given: Mapping[str, str], name: str) -> float | None:
    if not given[name]:
        return None
    try:
        found = float(given[name])
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or (name == "days" and not 0 < found <= 3_650):
        raise DataError(f"{name}: {given[name]!r} is no such number.")
    return found


def _steer(context: AppContext, form: Form) -> str:
    with context.store.write() as session:
        who, now = form.visitor.caller.name, context.clock()
        steer(session, form.one("job"), form.one("step"), actor=who, reason=form.one("reason"), now=now)
    return f"{PATH}/health"
