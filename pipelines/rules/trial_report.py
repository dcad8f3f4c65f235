"""What the trial of a rule has found, and how it is said: hits, frauds, false alarms, money, beside everything else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.alerts.message import words
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import counted


@dataclass(frozen=True)
class Overlap:
    """How many of the rows that the rule hits another one hits too; ``rule`` is "the model" for the policy."""

    rule: str
    state: str
    hits: int
    both: int


@dataclass(frozen=True)
class RuleTrial:
    """What a rule would have done.

    - ``since``, ``until``: The first and the last row; None where rows have no time.
    - ``hits``: Rows that it hits; ``known`` of them are known to be ``frauds`` or ``false_alarms``.
    - ``frauds_in_all``: Known frauds among all rows.
    - ``only``: Known frauds that it hits, and neither the policy nor another live rule flags.
    - ``flagged_before``, ``flagged_then``: Rows flagged without the rule, and with it live.
    - ``hidden``: Of rows flagged without it, those that are not with it; ``hidden_frauds`` are known frauds.
    - ``amount``: Of the rows it hits, of frauds among them, of false alarms; None without ``alerts.amount``.
    - ``days``: Hits of each day.
    """

    rule: str
    when: str
    action: str
    rows: int
    days_in_all: float
    since: datetime | None
    until: datetime | None
    hits: int
    frauds: int
    false_alarms: int
    frauds_in_all: int
    only: int
    flagged_before: int
    flagged_then: int
    hidden: int
    hidden_frauds: int
    amount: float | None
    amount_frauds: float | None
    amount_false_alarms: float | None
    days: list[dict[str, Any]]
    overlaps: list[Overlap]
    examples: list[dict[str, Any]]
    notes: list[str]

    @property
    def a_day(self) -> float:
        """Hits a day."""
        return round(self.hits / max(self.days_in_all, 1.0), 2)

    @property
    def precision(self) -> float | None:
        """Frauds among the hits of which it is known; None where nothing is."""
        known = self.frauds + self.false_alarms
        return self.frauds / known if known else None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, for programs."""
        return vars(self) | {"a_day": self.a_day, "precision": self.precision}

    def summary(self) -> list[object]:
        """For people."""
        return [*self.sentences(), "", self.overlap_table(), "", self.example_table(), *self.notes]

    def sentences(self) -> list[str]:
        """What it came to, in a few lines."""
        span = ""
        if self.since is not None and self.until is not None:
            span = f" of {self.since:%Y-%m-%d} to {self.until:%Y-%m-%d}"
        lines = [
            f"{self.rule} ({self.action}): {self.when}",
            f"Hits {self.hits:,} of {counted(self.rows)}{span}, {self.a_day:g} a day.",
        ]
        if self.frauds_in_all or self.frauds + self.false_alarms:
            share = (
                "" if self.precision is None else f" ({100 * self.precision:.0f} % of those that are known are right)"
            )
            lines.append(
                f"Of these {self.frauds:,} are known frauds, of {self.frauds_in_all:,} in all, and "
                f"{self.false_alarms:,} are false alarms{share}. {self.only:,} frauds would be found by nothing else."
            )
        else:
            lines.append("No row is known to be fraud or not, so nobody can say how many are right.")
        lines.append(self._effect())
        if self.amount is not None:
            frauds, alarms = words.money(self.amount_frauds or 0.0), words.money(self.amount_false_alarms or 0.0)
            lines.append(f"Money: {words.money(self.amount)} in the hits, {frauds} of it fraud, {alarms} false alarms.")
        return lines

    def _effect(self) -> str:
        if self.action == "never":
            frauds = "" if not self.hidden_frauds else f", {self.hidden_frauds:,} of them known frauds"
            return f"Live, it would hide {counted(self.hidden)} of {self.flagged_before:,} that are flagged{frauds}."
        more = self.flagged_then - self.flagged_before
        return f"Live, {self.flagged_then:,} rows would be flagged instead of {self.flagged_before:,} ({more:+,})."

    def overlap_table(self) -> Listing:
        """Beside the model and other rules."""
        columns = (
            Column("beside", head=True),
            Column("state"),
            Column("hits", is_number=True),
            Column("both", is_number=True),
            Column("of this rule", is_number=True, hidden=False, key="share"),
        )
        rows = [
            {
                "beside": each.rule,
                "state": each.state,
                "hits": each.hits,
                "both": each.both,
                "of this rule": Cell(each.both / max(self.hits, 1), f"{100 * each.both / max(self.hits, 1):.0f} %"),
            }
            for each in self.overlaps
        ]
        return Listing(columns, rows, title="Hit by this rule and flagged or hit by another")

    def example_table(self) -> Listing:
        """Some of the rows, the riskiest first."""
        names = list(self.examples[0]) if self.examples else []
        columns = tuple(Column(name, head=not place) for place, name in enumerate(names))
        return Listing(columns, self.examples, title="The riskiest of them", empty="It hits nothing.")
