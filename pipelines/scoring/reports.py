"""What a scoring run did, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from pipelines.listing import Column, Listing
from pipelines.progress import counted, percent

MOST_SHOWN = 10
MOST_SILENT = 3
REASON = "reason"
EVENT_COLUMNS = (*(Column(name, head=True) for name in ("severity", "of", "time")), Column(REASON, is_sentence=True))


def span(start: object, end: object) -> str:
    """From when to when, without the day of the end where it is that of the start; one time where they are equal.

    >>> span(pd.Timestamp("2026-03-01 23:50:07"), pd.Timestamp("2026-03-01 23:58:00"))
    '2026-03-01 23:50:07 to 23:58:00'
    >>> span(3, 3), span(3, 8)
    ('3', '3 to 8')
    """
    if start == end:
        return str(start)
    if isinstance(start, pd.Timestamp) and isinstance(end, pd.Timestamp) and start.date() == end.date():
        return f"{start} to {end:%H:%M:%S}"
    return f"{start} to {end}"


def held_back(held: Mapping[str, int]) -> str:
    """What gates held back, in words, those first that held back most.

    >>> held_back({"heat: direction": 3, "maintenance": 9})
    'held back 12 rows that the policy flags (maintenance 9, heat: direction 3)'
    """
    each = ", ".join(f"{name} {rows:,}" for name, rows in sorted(held.items(), key=lambda one: (-one[1], one[0])))
    return f"held back {counted(sum(held.values()))} that the policy flags ({each})"


def none_of(machines: Sequence[str]) -> str:
    """That machines have no row that could be used, with the names of a few.

    >>> none_of(["pump-7"])
    'No row of pump-7 could be used'
    """
    more = f" and {len(machines) - MOST_SHOWN:,} more" if len(machines) > MOST_SHOWN else ""
    return f"No row of {', '.join(machines[:MOST_SHOWN])}{more} could be used"


def silent_since(silent: Mapping[str, datetime]) -> str:
    """Which machines have no rows, though others have: the time of the last row of a few, by machine.

    >>> silent_since(dict.fromkeys(["M1", "M2", "M3", "M4"], datetime(2026, 3, 1, 10)))
    'No row of M1 since 2026-03-01 10:00, M2 since 2026-03-01 10:00, M3 since 2026-03-01 10:00 and 1 more'
    """
    named = [f"{name} since {since:%Y-%m-%d %H:%M}" for name, since in list(silent.items())[:MOST_SILENT]]
    more = f" and {len(silent) - MOST_SILENT:,} more" if len(silent) > MOST_SILENT else ""
    return f"No row of {', '.join(named)}{more}"


def unlike_training(shares: Mapping[str, float]) -> str:
    """That a large share of the rows of machines is flagged, those first of which most are; "" as the only series.

    >>> unlike_training({"AHU-1": 0.31, "AHU-2": 0.94})
    'Flagged are 94 % of the rows of AHU-2, 31 % of AHU-1'
    >>> unlike_training({"": 0.5})
    'Flagged are 50 % of the rows'
    """
    most = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    first, *rest = (
        percent(share) + (f" of {'' if place else 'the rows of '}{name}" if name else " of the rows")
        for place, (name, share) in enumerate(most[:MOST_SHOWN])
    )
    more = f" and many of {len(most) - MOST_SHOWN:,} more" if len(most) > MOST_SHOWN else ""
    return f"Flagged are {', '.join((first, *rest))}{more}"


@dataclass(frozen=True)
class SeriesReport:
    """What scoring series did."""

    rows: int
    scored: int
    flagged: int
    events: pd.DataFrame
    quarantined: int
    seconds: float
    output: str
    events_output: str
    quarantine: str
    policy: str
    held: Mapping[str, int] = field(default_factory=dict)
    """How many steps each gate held back that would have been flagged."""
    absent: Sequence[str] = ()
    """Machines that have rows, none of which could be used."""
    silent: Mapping[str, datetime] = field(default_factory=dict)
    """The last row of each machine that others have outlived, see ``series.silent_minutes``."""
    unlike: Mapping[str, float] = field(default_factory=dict)
    """The share of the rows that is flagged, of each machine of which it is large; ``""`` names the only series."""
    note: str | None = None
    """Why nothing can be flagged."""

    def summary(self) -> list[object]:
        """The run in a few lines, with the riskiest events."""
        lines: list[object] = [
            (
                f"Scored {self.scored:,} of {counted(self.rows)} in {self.seconds:.1f} s; flagged "
                f"{counted(self.flagged)} in {counted(len(self.events), 'event')}."
            ),
            f"Policy: {self.policy}.",
            *([self.note] if self.note is not None else []),
        ]
        if self.held:
            lines.append(f"{held_back(self.held).capitalize()}.")
        if len(self.events):
            top = self.events.astype({"risk": "float64"}).nlargest(MOST_SHOWN, "risk")
            shown = [
                {"severity": each.severity, "of": each.entity, "time": span(each.start, each.end), REASON: each.text}
                for each in top.itertuples()
            ]
            lines += ["The riskiest events:", Listing(EVENT_COLUMNS, shown)]
            if len(self.events) > len(top):
                lines.append(f"and {len(self.events) - len(top):,} less risky ones")
        if self.unlike:
            lines.append(
                f"{unlike_training(self.unlike)}: they are unlike what was learnt. Either a fault lasts, or what is "
                f"usual has changed, as with a season, another sensor or a machine that was not learnt from: then "
                f"learn from such rows as well, by `detector train` or `detector retrain`."
            )
        lines += [f"Scores: {self.output}", f"Events: {self.events_output}"]
        if self.absent:
            lines.append(f"{none_of(self.absent)}; nothing is known of {'it' if len(self.absent) == 1 else 'them'}.")
        if self.silent:
            lines.append(f"{silent_since(self.silent)}, though others have later ones (`series.silent_minutes`).")
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; see why in {self.quarantine}")
        return lines


@dataclass(frozen=True)
class RuleCount:
    """What a rule came to in a scoring run: rows that it hit, that it flagged alone, and that it hid."""

    name: str
    action: str
    hits: int
    flagged: int
    hidden: int

    @property
    def text(self) -> str:
        """In one line.

        >>> RuleCount("abroad", "alert", 12, 3, 0).text
        'Rule abroad hit 12 rows, of which the policy alone would not have flagged 3.'
        """
        begin = f"Rule {self.name} hit {counted(self.hits)}"
        if self.action == "alert":
            return f"{begin}, of which the policy alone would not have flagged {self.flagged:,}."
        return f"{begin} and hid {self.hidden:,}." if self.action == "never" else f"{begin} and raised their risk."


@dataclass(frozen=True)
class ScoreReport:
    """What a scoring run did."""

    rows: int
    scored: int
    flagged: int
    quarantined: int
    seconds: float
    output: str
    quarantine: str
    policy: str
    note: str | None
    """Why a false discovery rate is no promise, or why nothing could be flagged."""
    neighbours: Mapping[str, int] = field(default_factory=dict)
    """How many rows the policy would have flagged at half and at twice its rate."""
    rules: Sequence[RuleCount] = ()
    """What each live rule came to."""
    riskiest: Sequence[Mapping[str, str]] = ()
    """The first of the flagged rows: names of the row, severity, and the first reason."""

    def summary(self) -> list[object]:
        """The run in a few lines."""
        flagged = f"{self.flagged:,} ({100 * self.flagged / self.scored:.2g} %)" if self.flagged else "none"
        lines: list[object] = [
            f"Scored {self.scored:,} of {counted(self.rows)} in {self.seconds:.1f} s; flagged {flagged}.",
            f"Policy: {self.policy}.",
        ]
        if self.neighbours:
            counts = ", ".join(
                f"{name}: {counted(rows) if not place else f'{rows:,}'}"
                for place, (name, rows) in enumerate(self.neighbours.items())
            )
            lines.append(f"It would have flagged with {counts}.")
        if self.riskiest:
            names = [name for name in self.riskiest[0] if name != REASON]
            columns = (*(Column(name, head=True) for name in names), Column(REASON, is_sentence=True))
            lines += ["The riskiest flagged rows:", Listing(columns, self.riskiest)]
        lines.append(f"Scores: {self.output}")
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; see why in {self.quarantine}")
        lines += [each.text for each in self.rules]
        if self.note:
            lines.append(self.note)
        return lines
