"""``/v1/rules``: the rules and what they came to; try one on the past, keep one, put one into another state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy.orm import Session

from detector.errors import DataError, DetectorError, SettingError
from pipelines.alerts.outbox.service_alerts import report_over
from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.problems import HEADERS, ProblemError
from pipelines.api.request_body import RequestBody
from pipelines.api.writes import in_one_transaction
from pipelines.config import RuleSection
from pipelines.config.rules import MOST_REASON, MOST_WHEN
from pipelines.listing import as_plain
from pipelines.rules.checked import problems_of
from pipelines.rules.expression import Condition
from pipelines.rules.names import Names
from pipelines.rules.overview import RuleLine, overview
from pipelines.rules.stored import find_rule, held_rules, history, put_rule, remove_rule, section_of, set_state
from pipelines.rules.trial_report import RuleTrial
from pipelines.rules.wording import change_in_words
from pipelines.scoring.load import load_scorer
from pipelines.scoring.rule_trial import try_rule

MOST_TRIED = 200_000
"""Rows that a trial in the service looks at; a command looks at all."""
MOST_DAYS = 3_650.0
RuleName = Annotated[str, Path(min_length=1, max_length=64)]


class Definition(RequestBody):
    """What a rule says."""

    when: str = Field(min_length=1, max_length=MOST_WHEN, description="Which rows: amount > 500 and country != 'DE'.")
    action: str = Field("alert", description="alert, score_up or never.")
    severity: str | None = Field(None, description="Of alert: low, medium, high or critical.")
    tag: str = Field("", max_length=64)
    by: float | None = Field(None, gt=0, le=1_000, description="Of score_up: how much is added to the risk.")
    reason: str = Field("", max_length=MOST_REASON, description="What people are told; by default `when`.")

    def section(self, name: str, state: str) -> RuleSection:
        """As a rule.

        Raises ``ProblemError`` that names the fields, if it is none.
        """
        values = self.model_dump(exclude={"state", "why", "days"}, exclude_none=True)
        try:
            return section_of({**values, "name": name, "state": state})
        except SettingError as error:
            raise ProblemError(422, str(error), fields=_fields(str(error))) from None


class RuleToKeep(Definition):
    """A rule to be kept."""

    state: str = Field("shadow", description="live, shadow or off.")
    why: str = Field("", max_length=1_000, description="Why; kept with who and when.")


class RuleToTry(Definition):
    """A rule to be tried."""

    days: float = Field(30.0, gt=0, le=MOST_DAYS, description="The last so many days before the latest row.")


class State(RequestBody):
    """Another state."""

    state: str = Field(description="live, shadow or off.")
    why: str = Field("", max_length=1_000, description="Why; kept with who and when.")


def rules_router(context: AppContext) -> APIRouter:
    """The paths."""
    router = APIRouter(prefix="/rules", tags=["rules"])
    reads, tries, changes = (Depends(needs(scope)) for scope in ("view", "review", "admin"))

    @router.get("", dependencies=[reads])
    def list_rules() -> JSONResponse:
        """Every rule: its state, its hits, and how often people said that it was right."""
        return JSONResponse({"rules": [line.to_dict() for line in lines_of(context)]}, headers=HEADERS)

    @router.get("/names", dependencies=[reads])
    def list_names_for_rules() -> JSONResponse:
        """What conditions may name: columns with their kinds, and lists."""
        found = names_of(context)
        return JSONResponse({"columns": dict(found.columns), "lists": list(found.lists)}, headers=HEADERS)

    @router.get("/history", dependencies=[reads])
    def list_rule_changes(rule: str = "", limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> JSONResponse:
        """Who changed what, the latest first."""
        return JSONResponse({"changes": history_of(context, rule, most=limit)}, headers=HEADERS)

    @router.post("/try", dependencies=[tries])
    def try_given_rule(given: RuleToTry) -> JSONResponse:
        """What a rule would have done on rows of the source; nothing is changed."""
        found = trial_of(context, given.section("tried", "shadow"), days=given.days)
        return JSONResponse(as_plain(found.to_json()), headers=HEADERS)

    @router.put("/{name}", dependencies=[changes])
    def keep_rule(name: RuleName, given: RuleToKeep, request: Request) -> JSONResponse:
        """Keep a rule, in the place of the one of that name; one of the file stays as it is."""
        who, section = caller_of(request).name, given.section(name, given.state)
        check(context, section)

        def within(session: Session) -> dict[str, Any]:
            put_rule(session, section, config=context.config, who=who, reason=given.why, now=context.clock())
            return _of(session, context, name)

        return in_one_transaction(context, request, given, within)

    @router.post("/{name}/state", dependencies=[changes])
    def set_rule_state(name: RuleName, given: State, request: Request) -> JSONResponse:
        """Put a rule into another state."""
        who = caller_of(request).name

        def within(session: Session) -> dict[str, Any]:
            switch(session, context, name, given.state, who=who, why=given.why)
            return _of(session, context, name)

        return in_one_transaction(context, request, given, within)

    @router.delete("/{name}", dependencies=[changes])
    def delete_rule(name: RuleName, request: Request) -> JSONResponse:
        """Take a rule away that is not one of the file; its history stays."""
        who = caller_of(request).name

        def within(session: Session) -> dict[str, Any]:
            remove_rule(session, name, config=context.config, who=who, reason="", now=context.clock())
            return {"removed": name}

        return in_one_transaction(context, request, None, within)

    return router


def lines_of(context: AppContext) -> list[RuleLine]:
    """Every rule with what it has come to, and why it cannot be looked at."""
    with context.store.read() as session:
        rules = held_rules(context.config, session)
        try:
            sections = [rule.section for rule in rules]
            problems = problems_of(context.config, sections, load_scorer(context.config, context.cache).schema)
        except DetectorError:
            problems = {}  # without a detector there are no columns to check against
        return overview(context.config, session, now=context.clock(), problems=problems)


def names_of(context: AppContext) -> Names:
    """What conditions may name.

    Raises ``BundleError`` if there is no detector.
    """
    return Names.of(context.config, load_scorer(context.config, context.cache).schema)


def check(context: AppContext, section: RuleSection) -> None:
    """Raise ``ProblemError`` if a rule does not fit the columns, or ``DataError`` if rows are readings of sensors."""
    if context.config.kind == "sensors":
        raise DataError("Rules are about rows of tables, and `kind` is sensors.")
    try:
        Condition.read(section.when, names_of(context))
    except SettingError as error:
        raise ProblemError(422, f"when: {error}", fields={"when": str(error)}) from None


def trial_of(context: AppContext, rule: RuleSection, *, days: float) -> RuleTrial:
    """A rule on the last days of the source; one at a time, for it reads the whole source."""
    check(context, rule)
    with context.store.read() as session:
        rules = held_rules(context.config, session)
    if not context.trying.acquire(blocking=False):
        raise ProblemError(
            503, "Another rule is being tried. Ask again in a few seconds.", headers={"Retry-After": "5"}
        )
    try:
        return try_rule(context.config, rule, rules, days=days, now=context.clock(), most_rows=MOST_TRIED)
    finally:
        context.trying.release()


def switch(session: Session, context: AppContext, name: str, state: str, *, who: str, why: str) -> None:
    """Put a rule into another state; if it had failed and acts again, that trouble is over."""
    config, now = context.config, context.clock()
    set_state(session, name, state, config=config, who=who, reason=why, now=now)
    if state != "off":
        report_over(session, f"rule {name}", config=config, now=now)


def history_of(context: AppContext, rule: str, *, most: int) -> list[dict[str, Any]]:
    """Changes as programs receive them."""
    with context.store.read() as session:
        return [
            {
                "at": each.at.isoformat(),
                "rule": each.rule,
                "who": each.who,
                "what": each.what,
                "change": change_in_words(each.before, each.after),
                "why": each.reason,
                "before": each.before,
                "after": each.after,
                "hash": each.hash,
                "version": each.version,
            }
            for each in history(session, config=context.config, rule=rule, most=most)
        ]


def _of(session: Session, context: AppContext, name: str) -> dict[str, Any]:
    rule = find_rule(held_rules(context.config, session), name)
    return RuleLine(rule).to_dict()


def _fields(said: str) -> Mapping[str, str]:
    """The fields of an error of ``section_of``."""
    parts = (each.partition(": ") for each in said.split("; "))
    return {name: detail for name, mark, detail in parts if mark and " " not in name}
