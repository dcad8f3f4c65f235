"""An alert as a channel needs it: what happened in one sentence, and everything behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from pipelines.alerts.message import links, words
from pipelines.config.alerting import AlertsSection
from pipelines.escaping import one_line
from pipelines.store.alert_tables import Alert

MOST_KEY = 100


@dataclass(frozen=True)
class Message:
    """An alert for one target. Everything in it may be read by people: masked values are masked already.

    Its properties are of one line each. ``facts`` holds keys as they are, for machines.
    """

    id: str  # the alert's; the same however often it is sent
    incident: str  # the event's; the same for all that is reported of it
    kind: str  # opened, worse, again, recovered, digest, service, or test
    source: str
    label: str  # what it is about
    severity: str
    model_version: str
    first_at: datetime  # of the event, as last_at
    last_at: datetime
    created_at: datetime
    rows: int
    p_value: float  # of the worst row
    amount: float | None
    reasons: list[dict[str, Any]]  # feature, observed, expected, share, words
    facts: Mapping[str, Any] = field(default_factory=dict)
    review_url: str = ""  # where to look; empty if there is no such place
    run_url: str = ""
    answer_url: str = ""

    @property
    def is_service(self) -> bool:
        """Whether it is of the service about itself, or says that this is over."""
        return "service" in self.facts

    @property
    def about(self) -> str:
        """What it is about, with the name of what is watched."""
        return f"{self.label} in {self.source}" if self.label else self.source

    @property
    def sentence(self) -> str:
        """What happened."""
        if self.kind == "digest":
            return self._digest()
        if self.kind == "test":
            return (
                f"This is a test alert of {self.source}. Nothing has happened; alerts will arrive here like this one."
            )
        if self.kind == "service":
            return f"{self.facts['service']['text'].rstrip('.')}."
        if self.kind == "recovered" and self.is_service:
            return f"What the service reported of itself is over: {self.about}, {self.when}."
        if self.kind == "recovered" and self.facts.get("is_followed"):
            return f"What was unusual about {self.about} from {self.when} is over; what came after it is another event."
        if self.kind == "recovered":
            return f"{self.about} is as usual again; it was unusual from {self.when}."
        if "chance" in self.facts:
            return f"A row of {self.about} was drawn at random, to find out what is missed; nothing flagged it."
        mainly = f"; mainly {reason_in_words(self.reasons[0])}" if self.reasons else ""
        return f"{self._unusual()}{mainly}."

    @property
    def lead(self) -> str:
        """What happened, where the reasons stand below it: the sentence without its first reason."""
        has_reasons = self.kind in ("opened", "worse", "again") and self.reasons and "chance" not in self.facts
        return f"{self._unusual()}." if has_reasons else self.sentence

    @property
    def anomaly(self) -> str:
        """What is looked for: fraud, or, of machines, a fault; a table of one's own says it in ``alerts.anomaly``."""
        return str(self.facts.get("anomaly", "fraud"))

    @property
    def question(self) -> str:
        """What people are asked."""
        return f"{self.anomaly.capitalize()}, or fine?"

    @property
    def reasons_title(self) -> str:
        """What stands above the lines of ``reason_lines``."""
        return "Among them" if self.kind == "digest" else "What is wrong" if self.is_service else "Why"

    def _unusual(self) -> str:
        unusual = {"worse": "has become more unusual", "again": "is still unusual"}.get(self.kind, "is unusual")
        text = f"{self.about} {unusual} ({self.severity}): {words.counted(self.rows, 'flagged row')}"
        return text if self.amount is None else f"{text}, {words.money(self.amount)} at stake"

    @property
    def title(self) -> str:
        """A headline."""
        if self.kind == "digest":
            return f"{self.source}: {words.counted(int(self.facts.get('more', 0)), 'more alert')}"
        if self.kind == "test":
            return f"{self.source}: test"
        if self.kind == "recovered":
            return f"Recovered: {self.about}"
        if "chance" in self.facts:
            return f"Drawn at random: {self.about}"
        return f"{self.severity.capitalize()}: {self.about}"

    @property
    def when(self) -> str:
        """The time of the event."""
        return words.span(self.first_at, self.last_at)

    @property
    def rarity(self) -> str:
        """The p-value in words; empty where there is none."""
        return words.rarity(self.p_value) if self.kind in ("opened", "worse", "again") else ""

    @property
    def reason_lines(self) -> list[str]:
        """Every reason in words; of a digest, what it holds; of the service, what is wrong."""
        if self.lists_lines:
            lines = self.facts.get("top", []) if self.kind == "digest" else self.facts["service"].get("lines", [])
            return [one_line(str(line)) for line in lines]
        return [f"{reason_in_words(each)}{share_in_words(each)}" for each in self.reasons]

    @property
    def lists_lines(self) -> bool:
        """Whether its reasons are lines of text rather than features with a share."""
        return self.kind == "digest" or self.is_service

    @property
    def course(self) -> list[tuple[str, bool]]:
        """The risk over time as blocks, and which of them were flagged."""
        points = self.facts.get("course", [])
        blocks = words.sparkline([float(risk) for _, risk, _ in points])
        return [(block, bool(point[2])) for block, point in zip(blocks, points, strict=False)]

    @property
    def sparkline(self) -> str:
        """The risk over time in one line; empty where fewer than two rows are known."""
        return "".join(block for block, _ in self.course)

    @property
    def course_span(self) -> tuple[str, str]:
        """When the risk over time begins and ends; empty where that was not written down."""
        points, begin = self.facts.get("course", []), self.facts.get("course_from")
        if not points or not begin:
            return "", ""
        first = datetime.fromisoformat(str(begin))
        last = first + timedelta(seconds=float(points[-1][0]))
        form = "%H:%M" if first.date() == last.date() else "%Y-%m-%d %H:%M"
        return f"{first:%Y-%m-%d %H:%M}", f"{last:{form}} UTC"

    @property
    def course_threshold(self) -> float | None:
        """The least risk over this time that was flagged; None if nothing was."""
        flagged = [float(risk) for _, risk, is_flagged in self.facts.get("course", []) if is_flagged]
        return min(flagged) if flagged else None

    @property
    def course_in_words(self) -> str:
        """When it was, and from which risk on rows were flagged.

        >>> course = [[0, 1.5, False], [3600, 4.25, True]]
        >>> given = {"course": course, "course_from": "2026-03-01T09:05:00"}
        >>> Message(**{name: None for name in Message.__dataclass_fields__} | {"facts": given}).course_in_words
        '2026-03-01 09:05 to 10:05 UTC, flagged from 4.25'
        """
        begin, end = self.course_span
        threshold = "" if self.course_threshold is None else f"flagged from {self.course_threshold:.2f}"
        return ", ".join(part for part in (f"{begin} to {end}" if begin else "", threshold) if part)

    @property
    def table(self) -> list[tuple[str, str]]:
        """Names and values worth showing."""
        rows = [("When", self.when)]
        if self.kind in ("opened", "worse", "again"):
            rows.append(("How rare", self.rarity))
        if self.amount is not None:
            rows.append(("At stake", words.money(self.amount)))
        called = self.facts.get("names", {})
        rows += [
            (one_line(str(called.get(name, name))), one_line(str(value)))
            for name, value in self.facts.get("columns", {}).items()
        ]
        if held := int(self.facts.get("held", 0)):
            rows.append(("Held back", f"{words.counted(held, 'other flagged row')}, by gates or in maintenance"))
        keys = self.facts.get("keys", [])
        if keys:
            more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
            rows.append(("Rows", ", ".join(one_line(key)[:MOST_KEY] for key in keys[:5]) + more))
        if self.model_version:
            rows.append(("Detector", f"{self.source}, version {self.model_version}"))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """What machines receive of every alert, as plain values."""
        found: dict[str, Any] = {
            "id": self.id,
            "incident": self.incident,
            "kind": self.kind,
            "source": self.source,
            "about": self.label,
            "severity": self.severity,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
            "rows": self.rows,
            "p_value": self.p_value,
            "amount": self.amount,
            "model_version": self.model_version,
        }
        found |= {name: self.facts[name] for name in ("rules", "tags") if name in self.facts}
        if self.is_service:
            about = self.facts["service"]
            lines, todo = about.get("lines", []), about.get("todo", "")
            found["service"] = {"cause": about["cause"], **about.get("figures", {}), "reasons": lines, "todo": todo}
        return found

    def _digest(self) -> str:
        more, of_each = int(self.facts.get("more", 0)), self.facts.get("by_severity", {})
        parts = ", ".join(
            f"{of_each[name]:,} {name}" for name in ("critical", "high", "medium", "low") if name in of_each
        )
        if self.facts.get("why") == "quiet":
            return f"{words.counted(more, 'alert')} of {self.source} came in the quiet hours ({parts})."
        if self.facts.get("why") == "outage":
            return f"{words.counted(more, 'alert')} of {self.source} came while nothing could be sent here ({parts})."
        room, hours = self.facts.get("a_day"), self.facts.get("backlog_hours")
        were, day = "was" if more == 1 else "were", self.facts.get("day")
        when = f"on {day}" if hours is None else f"scored on {day}, more than {hours:g} hours late,"
        return (
            f"{words.counted(more, 'more event')} of {self.source} {when} {were} not sent one by one ({parts}): "
            f"the limit is {room} a day. Their rows are in the scores."
        )


def reason_in_words(reason: Mapping[str, Any]) -> str:
    """One reason, by the phrase that the configuration has for it.

    >>> reason_in_words({"feature": "amount", "observed": "950.00", "expected": "about 42", "words": ""})
    'amount is 950.00, expected about 42'
    """
    expected = f", expected {reason['expected']}" if reason.get("expected") else ""
    said = f": {reason['words']}" if reason.get("words") else f" is {reason['observed']}{expected}"
    return one_line(f"{reason['feature']}{said}")


def share_in_words(reason: Mapping[str, Any]) -> str:
    """A reason's part in the risk; what a rule says has none.

    >>> share_in_words({"share": 0.61}), share_in_words({"share": 0.0})
    (' (61 % of the risk)', '')
    """
    share = float(reason["share"])
    return f" ({100 * share:.0f} % of the risk)" if share else ""


def message_of(alert: Alert, *, section: AlertsSection, target: str) -> Message:
    """The message about an alert for one target; its link says where it was answered."""
    answers, answer_url = section.answers, ""
    if answers is not None and alert.kind in ("opened", "worse", "again"):
        until = alert.created_at + timedelta(days=answers.days)
        token = links.sign(links.Claim(alert.id, target, until), answers.secret.get_secret_value())
        answer_url = f"{answers.url.rstrip('/')}{links.PATH}/{token}"
    return Message(
        id=alert.id,
        incident=alert.incident,
        kind=alert.kind,
        source=one_line(alert.source),
        label=one_line(alert.label),
        severity=alert.severity,
        model_version=alert.model_version,
        first_at=alert.first_at,
        last_at=alert.last_at,
        created_at=alert.created_at,
        rows=alert.rows,
        p_value=alert.p_value,
        amount=alert.amount,
        reasons=list(alert.facts.get("reasons", [])),
        facts=alert.facts,
        review_url="" if "service" in alert.facts else _filled(section.review_url, alert),
        run_url=_filled(section.run_url, alert) if alert.model_version else "",
        answer_url=answer_url,
    )


def _filled(address: str | None, alert: Alert) -> str:
    if not address:
        return ""
    for name, value in (("id", alert.id), ("entity", alert.label), ("version", alert.model_version)):
        address = address.replace("{" + name + "}", quote(value, safe=""))
    return address
