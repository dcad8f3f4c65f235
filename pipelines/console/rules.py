"""The pages of rules: the list, the editor with a trial on the past, and who changed what."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from detector.decide.severity import SEVERITIES
from detector.errors import DataError, DetectorError
from pipelines.api.context import AppContext
from pipelines.api.problems import ProblemError
from pipelines.api.rules import MOST_DAYS, check, history_of, lines_of, names_of, switch, trial_of
from pipelines.config import RuleSection
from pipelines.config.rules import MOST_REASON, MOST_WHEN, STATES
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.console.rendering import page
from pipelines.rules.functions import FUNCTION_NAMES
from pipelines.rules.names import IN_WORDS
from pipelines.rules.stored import CONSOLE, find_rule, held_rules, put_rule, remove_rule, section_of
from pipelines.rules.trial_report import RuleTrial

ACTIONS = {
    "alert": "flag the row and tell people",
    "score_up": "raise the risk before the policy decides",
    "never": "never flag it, and count what that hid",
}
FIELDS = ("name", "when", "action", "severity", "tag", "by", "reason", "state")
EMPTY = {
    "name": "",
    "when": "",
    "action": "alert",
    "severity": "medium",
    "tag": "",
    "by": "1",
    "reason": "",
    "state": "shadow",
}
DAYS = 30.0


def rules_router(context: AppContext) -> APIRouter:
    """The pages."""
    router = APIRouter()

    @router.get("/rules")
    def rules(request: Request) -> HTMLResponse:
        values: dict[str, Any] = {"lines": lines_of(context), "states": STATES}
        return page("rules.html.j2", request, name=context.config.name, **values)

    @router.get("/rules/new")
    def new(request: Request) -> HTMLResponse:
        return _editor(context, request, EMPTY)

    @router.get("/rules/history")
    def changes(request: Request) -> HTMLResponse:
        rule = request.query_params.get("rule", "")
        found = history_of(context, rule, most=200)
        return page("rule_history.html.j2", request, name=context.config.name, changes=found, rule=rule)

    @router.get("/rules/edit")
    def edit(request: Request) -> HTMLResponse:
        with context.store.read() as session:
            rule = find_rule(held_rules(context.config, session), request.query_params.get("rule", ""))
        section = rule.section
        given = {"name": section.name, "state": section.state} | {k: str(v) for k, v in section.definition.items()}
        given["by"] = f"{section.by:g}"
        return _editor(context, request, given, is_kept=rule.origin == CONSOLE, is_file=rule.origin != CONSOLE)

    @router.post("/rules/try")
    async def try_one(request: Request) -> Response:
        return await checked(request, lambda form: _tried(context, request, form))

    @router.post("/rules")
    async def save(request: Request) -> Response:
        return await checked(request, lambda form: _save(context, form), scope="admin")

    @router.post("/rules/state")
    async def state(request: Request) -> Response:
        return await checked(request, lambda form: _switch(context, form), scope="admin")

    @router.post("/rules/remove")
    async def remove(request: Request) -> Response:
        return await checked(request, lambda form: _remove(context, form), scope="admin")

    return router


def _editor(
    context: AppContext,
    request: Request,
    given: dict[str, str],
    *,
    is_kept: bool = False,
    is_file: bool = False,
    problem: str = "",
    trial: RuleTrial | None = None,
    days: float = DAYS,
) -> HTMLResponse:
    names = names_of(context)
    columns = [(name, IN_WORDS[kind]) for name, kind in sorted(names.columns.items())]
    values: dict[str, Any] = {
        "given": given,
        "is_kept": is_kept,
        "is_file": is_file,
        "problem": problem,
        "trial": trial,
        "days": f"{days:g}",
        "columns": columns,
        "lists": names.lists,
        "functions": FUNCTION_NAMES,
        "actions": ACTIONS,
        "severities": SEVERITIES,
        "states": STATES,
        "most_when": MOST_WHEN,
        "most_reason": MOST_REASON,
    }
    return page("rule.html.j2", request, name=context.config.name, **values)


def _section(form: Form, *, name: str = "") -> RuleSection:
    """The rule that a form holds; what its action does not use is left out.

    Raises ``SettingError`` that names the field, if it is none.
    """
    given: dict[str, Any] = {key: form.one(key) for key in FIELDS if form.one(key)}
    given["name"] = name or form.one("name")
    for key, action in (("severity", "alert"), ("tag", "alert"), ("by", "score_up")):
        if given.get("action", "alert") != action:
            given.pop(key, None)
    if "by" in given:
        given["by"] = form.number("by", 1.0)
    return section_of(given)


def _tried(context: AppContext, request: Request, form: Form) -> HTMLResponse:
    """The editor as it was sent, with what the rule would have done below it."""
    given = EMPTY | {key: form.one(key) for key in FIELDS if form.one(key)}
    problem, trial, days = "", None, DAYS
    try:
        days = form.number("days", DAYS)
        if not 0 < days <= MOST_DAYS:
            raise DataError(f"days: expected more than 0 and at most {MOST_DAYS:,.0f}, received {days:g}.")
        trial = trial_of(context, _section(form, name=form.one("name") or "tried"), days=days)
    except ProblemError as error:
        problem = error.detail
    except DetectorError as error:
        problem = str(error)
    with context.store.read() as session:
        rules = held_rules(context.config, session)
    origin = next((rule.origin for rule in rules if rule.name == given["name"]), "")
    is_kept, is_file = origin == CONSOLE, origin not in ("", CONSOLE)
    return _editor(context, request, given, is_kept=is_kept, is_file=is_file, problem=problem, trial=trial, days=days)


def _save(context: AppContext, form: Form) -> str:
    section = _section(form)
    check(context, section)
    with context.store.write() as session:
        who, now = form.visitor.caller.name, context.clock()
        put_rule(session, section, config=context.config, who=who, reason=form.one("why"), now=now)
    return f"{PATH}/rules"


def _switch(context: AppContext, form: Form) -> str:
    with context.store.write() as session:
        switch(session, context, form.one("rule"), form.one("state"), who=form.visitor.caller.name, why=form.one("why"))
    return f"{PATH}/rules"


def _remove(context: AppContext, form: Form) -> str:
    with context.store.write() as session:
        who, now = form.visitor.caller.name, context.clock()
        remove_rule(session, form.one("rule"), config=context.config, who=who, reason=form.one("why"), now=now)
    return f"{PATH}/rules"
