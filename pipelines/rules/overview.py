"""What every rule has come to: hits of today and of the week, and how often people said that it was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.explain.reason import RULE
from pipelines.config import Config
from pipelines.rules.stored import HeldRule, held_rules
from pipelines.store.alert_tables import Alert, Answer
from pipelines.store.rule_tables import RuleHits

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class RuleLine:
    """A rule with what it has come to.

    - ``today``, ``week``: Rows that it hit, of the last day and the last seven days that were scored.
    - ``flagged``, ``hidden``: Of the week: rows flagged because of it alone, rows that it hid.
    - ``alerts``, ``answered``, ``fraud``: Alerts that it is among the reasons of; those answered fraud or fine; those
      that were fraud.
    """

    rule: HeldRule
    today: int = 0
    week: int = 0
    flagged: int = 0
    hidden: int = 0
    alerts: int = 0
    answered: int = 0
    fraud: int = 0
    problem: str = ""

    @property
    def precision(self) -> float | None:
        """The share of the answered alerts that were fraud."""
        return self.fraud / self.answered if self.answered else None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON, for programs."""
        section, rule = self.rule.section, self.rule
        counts = ("today", "week", "flagged", "hidden", "alerts", "answered", "fraud")
        return {
            "name": section.name,
            "when": section.when,
            "action": section.action,
            "severity": section.severity if section.action == "alert" else None,
            "tag": section.tag,
            "by": section.by if section.action == "score_up" else None,
            "reason": section.reason,
            "state": section.state,
            "origin": rule.origin,
            "changed_by": rule.who,
            "changed_at": None if rule.at is None else rule.at.isoformat(),
            "why": rule.why,
            "problem": self.problem or rule.clash,
            **{name: getattr(self, name) for name in counts},
            "precision": self.precision,
        }


def overview(
    config: Config, session: Session | None, *, now: datetime, problems: dict[str, str] | None = None
) -> list[RuleLine]:
    """Every rule with what it has come to; ``problems`` says of some why they cannot be looked at."""
    rules, problems = held_rules(config, session), problems or {}
    if session is None:
        return [RuleLine(rule, problem=problems.get(rule.name, "")) for rule in rules]
    counts, verdicts = _counts(config, session, now), _verdicts(config, session, rules)
    return [
        RuleLine(
            rule,
            **({} if rule.clash else counts.get(rule.name, {}) | verdicts.get(rule.name, {})),
            problem=problems.get(rule.name, ""),
        )
        for rule in rules
    ]


def _counts(config: Config, session: Session, now: datetime) -> dict[str, dict[str, int]]:
    """By the days of rows, which may lie behind the clock: counted back from the latest day that was scored."""
    if not sa.inspect(session.connection()).has_table(RuleHits.__tablename__):
        return {}
    latest = session.scalar(sa.select(sa.func.max(RuleHits.day)).where(RuleHits.source == config.name))
    if latest is None:
        return {}
    last = min(latest, now.date())
    found: dict[str, dict[str, int]] = {}
    wanted = sa.select(RuleHits).where(RuleHits.source == config.name, RuleHits.day > last - WEEK, RuleHits.day <= last)
    for line in session.scalars(wanted):
        counts = found.setdefault(line.rule, dict.fromkeys(("today", "week", "flagged", "hidden"), 0))
        counts["today"] += line.hits if line.day == last else 0
        counts["week"] += line.hits
        counts["flagged"] += line.flagged
        counts["hidden"] += line.hidden
    return found


def _verdicts(config: Config, session: Session, rules: Sequence[HeldRule]) -> dict[str, dict[str, int]]:
    """Alerts by the rules that are among their reasons; of several answers the last one counts."""
    names = {rule.name for rule in rules}
    found = {name: dict.fromkeys(("alerts", "answered", "fraud"), 0) for name in names}
    alerts = sa.select(Alert.id, Alert.facts).where(
        Alert.source == config.name, Alert.kind.in_(("opened", "worse", "again")), Alert.pattern.startswith(RULE)
    )
    answers = (
        sa.select(Answer.alert, Answer.verdict)
        .join(Alert, Alert.id == Answer.alert)
        .where(Alert.source == config.name, Alert.pattern.startswith(RULE))
        .order_by(Answer.id)
    )
    said: dict[str, str] = {alert: verdict for alert, verdict in session.execute(answers)}  # noqa: C416 - rows, no pairs
    for alert, facts in session.execute(alerts):
        for name in {each.removeprefix(RULE) for each in _by_rules(facts)} & names:
            counts, verdict = found[name], said.get(alert, "")
            counts["alerts"] += 1
            counts["answered"] += verdict in ("fraud", "fine")
            counts["fraud"] += verdict == "fraud"
    return found


def _by_rules(facts: dict[str, Any]) -> list[str]:
    """The features among an alert's reasons that are rules."""
    features = (str(each["feature"]) for each in facts.get("reasons", []) if not each["share"])
    return [name for name in features if name.startswith(RULE)]
