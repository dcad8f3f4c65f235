"""The rules that hold: those of the file and those that people keep in the service, in their states; and every change.

A rule of the file stays as the file says. Its state can be changed in the service all the same, and a failure switches
it off; that holds until what the rule says is changed in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pydantic
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError, NotFoundError, SettingError, nearest
from pipelines.config import Config, RuleSection
from pipelines.config.rules import MOST_RULES, STATES
from pipelines.escaping import for_terminal, one_line
from pipelines.rules.book import hash_of, version_of
from pipelines.store.rule_tables import RuleChange, RuleState, StoredRule
from pipelines.store.trail import write_down

FILE: Literal["file"] = "file"
CONSOLE: Literal["console"] = "console"
MOST_WHY = 1_000
MOST_WHO = 200
FAILED = "failed"


@dataclass(frozen=True)
class HeldRule:
    """A rule with where it comes from.

    - ``section``: In the state that holds.
    - ``origin``: "file" or "console".
    - ``who``, ``at``, ``why``: Of the last change of its state or, of a kept rule, of what it says; empty for the file.
    - ``clash``: Why it does not run, where a rule of the file has its name.
    """

    section: RuleSection
    origin: Literal["file", "console"]
    who: str = ""
    at: datetime | None = None
    why: str = ""
    clash: str = ""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.section.name


def held_rules(config: Config, session: Session | None) -> list[HeldRule]:
    """All rules, those of the file first; ``session`` is None where there is no state of a service."""
    if session is None or not _has_tables(session):
        return [HeldRule(section, FILE) for section in config.rules]
    states = {each.name: each for each in session.scalars(sa.select(RuleState).where(RuleState.source == config.name))}
    found = [_of_file(section, states.get(section.name)) for section in config.rules]
    names = {each.name.casefold() for each in found}
    kept = sa.select(StoredRule).where(StoredRule.source == config.name).order_by(StoredRule.name)
    for each in session.scalars(kept):
        clash = ""
        if each.name.casefold() in names:
            clash = (
                f"The file holds a rule named {each.name!r} too, and the file's is the one that runs. Remove "
                f"this one, or rename the one in the file."
            )
        section = RuleSection.model_validate({**each.definition, "name": each.name, "state": each.state})
        found.append(HeldRule(section, CONSOLE, each.who, each.at, "", clash))
    return found


def in_force(rules: Sequence[HeldRule]) -> list[RuleSection]:
    """What runs of them, in their states; rules that are off are among them."""
    return [rule.section for rule in rules if not rule.clash]


def find_rule(rules: Sequence[HeldRule], name: str) -> HeldRule:
    """A rule by its name.

    Raises ``NotFoundError`` that names the nearest one, if there is none.
    """
    for rule in sorted(rules, key=lambda each: bool(each.clash)):
        if rule.name == name:
            return rule
    raise NotFoundError(f"There is no rule {one_line(name)[:80]!r}. {nearest(name, [rule.name for rule in rules])}")


def section_of(values: dict[str, Any]) -> RuleSection:
    """A rule from plain values.

    Raises ``SettingError`` that names the field, if it is none.
    """
    try:
        return RuleSection.model_validate(values)
    except pydantic.ValidationError as error:
        said = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'rule'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False, include_input=False)
        )
        raise SettingError(said) from None


def put_rule(
    session: Session, section: RuleSection, *, config: Config, who: str, reason: str, now: datetime
) -> HeldRule:
    """Keep a rule in the service, in the place of the one of that name that people kept before.

    Raises ``DataError`` if the file holds a rule of that name, or there are too many.
    """
    rules = held_rules(config, session)
    if any(rule.name.casefold() == section.name.casefold() for rule in rules if rule.origin == FILE):
        raise DataError(
            f"name: the file {config.file or 'of the configuration'} holds a rule named {section.name!r}. "
            f"Change it there, or give this one another name."
        )
    before = session.get(StoredRule, (config.name, section.name))
    if before is None:
        twin = next((rule for rule in rules if rule.name.casefold() == section.name.casefold()), None)
        if twin is not None:
            raise DataError(f"name: there is a rule named {twin.name!r} already. Give this one another name.")
        if len(rules) >= MOST_RULES:
            raise DataError(
                f"There are {len(rules)} rules, and there may be {MOST_RULES}. Remove some, or join some with `or`."
            )
    then = {} if before is None else {**before.definition, "state": before.state}
    kept = StoredRule(source=config.name, name=section.name, definition=section.definition, state=section.state)
    kept.who, kept.at = _who(who), now
    session.merge(kept)
    what = "created" if before is None else "changed"
    _record(session, section, what, before=then, config=config, who=who, reason=reason, now=now)
    return HeldRule(section, CONSOLE, _who(who), now)


def remove_rule(session: Session, name: str, *, config: Config, who: str, reason: str, now: datetime) -> None:
    """Take a rule away that people kept in the service; what it came to, and who changed it, stays on record.

    Raises ``DataError`` if there is none of that name, or it is one of the file.
    """
    kept = session.get(StoredRule, (config.name, name))
    if kept is None:
        rule = find_rule(held_rules(config, session), name)
        raise DataError(f"The rule {rule.name!r} stands in the file. Take it out there, or switch it off.")
    section = RuleSection.model_validate({**kept.definition, "name": name, "state": kept.state})
    session.delete(kept)
    session.flush()
    _record(
        session, section, "removed", before=_whole(section), after={}, config=config, who=who, reason=reason, now=now
    )


def set_state(
    session: Session,
    name: str,
    state: str,
    *,
    config: Config,
    who: str,
    reason: str,
    now: datetime,
    what: str = "state",
) -> HeldRule:
    """Put a rule into another state.

    Raises ``DataError`` if there is no such rule or state.
    """
    if state not in STATES:
        raise DataError(f"state: {one_line(state)[:80]!r} is not known. {nearest(state, STATES)}")
    rule = find_rule(held_rules(config, session), name)
    section = rule.section.model_copy(update={"state": state})
    if rule.origin == CONSOLE:
        kept = session.get_one(StoredRule, (config.name, name))
        kept.state, kept.who, kept.at = state, _who(who), now
    else:
        values = {"source": config.name, "name": name, "hash": hash_of(section), "state": state}
        session.merge(RuleState(**values, reason=_why(reason), who=_who(who), at=now))
    session.flush()
    _record(session, section, what, before=_whole(rule.section), config=config, who=who, reason=reason, now=now)
    return HeldRule(section, rule.origin, _who(who), now, _why(reason))


def note_file(session: Session, *, config: Config, now: datetime) -> int:
    """Put on record what has changed in the file since the last look; how many rules."""
    last: dict[str, RuleChange] = {}
    noted = (
        sa.select(RuleChange).where(RuleChange.source == config.name, RuleChange.what == FILE).order_by(RuleChange.id)
    )
    for change in session.scalars(noted):
        last[change.rule] = change
    changed = 0
    by_name = {section.name: section for section in config.rules}
    for name, change in last.items():
        if name not in by_name and change.after:
            section = section_of({**change.after, "name": name})
            _record(
                session,
                section,
                FILE,
                before=change.after,
                after={},
                config=config,
                who=FILE,
                reason="no longer in the file",
                now=now,
            )
            changed += 1
    for name, section in by_name.items():
        before = last[name].after if name in last else {}
        if before != _whole(section):
            _record(session, section, FILE, before=before, config=config, who=FILE, reason="", now=now)
            changed += 1
    return changed


def history(session: Session, *, config: Config, rule: str = "", most: int = 200) -> list[RuleChange]:
    """Who changed what, the latest first."""
    if not _has_tables(session):
        return []
    wanted = sa.select(RuleChange).where(RuleChange.source == config.name)
    if rule:
        wanted = wanted.where(RuleChange.rule == rule)
    return list(session.scalars(wanted.order_by(RuleChange.id.desc()).limit(most)))


def last_change(session: Session, config: Config) -> int:
    """Grows with every change of a rule, of the file's too once it was noted."""
    if not _has_tables(session):
        return 0
    return int(session.scalar(sa.select(sa.func.max(RuleChange.id)).where(RuleChange.source == config.name)) or 0)


def _of_file(section: RuleSection, state: RuleState | None) -> HeldRule:
    if state is None or state.hash != hash_of(section):
        return HeldRule(section, FILE)
    return HeldRule(section.model_copy(update={"state": state.state}), FILE, state.who, state.at, state.reason)


def _whole(section: RuleSection) -> dict[str, Any]:
    return section.definition | {"state": section.state}


def _record(
    session: Session,
    section: RuleSection,
    what: str,
    *,
    before: dict[str, Any],
    config: Config,
    who: str,
    reason: str,
    now: datetime,
    after: dict[str, Any] | None = None,
) -> None:
    session.flush()
    after = _whole(section) if after is None else after
    session.add(
        RuleChange(
            source=config.name,
            rule=section.name,
            at=now,
            who=_who(who),
            what=what,
            before=before,
            after=after,
            hash=hash_of(section),
            version=version_of(in_force(held_rules(config, session))),
            reason=_why(reason),
        )
    )
    trail = {"rule": section.name, "what": what, "hash": hash_of(section), "state": section.state}
    write_down(session, "rule", actor=_who(who), now=now, reason=_why(reason), arguments=trail)
    session.flush()


def _has_tables(session: Session) -> bool:
    """Whether the state is of a version that knows rules; a command that only looks changes none."""
    return sa.inspect(session.connection()).has_table(RuleChange.__tablename__)


def _who(who: str) -> str:
    return one_line(who)[:MOST_WHO] or "unknown"


def _why(reason: str) -> str:
    return for_terminal(reason.strip())[:MOST_WHY]
