"""What ``detector init`` says once it has written a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipelines.doctor.check import MOST_ALIKE, and_others
from pipelines.doctor.choice import Choice
from pipelines.doctor.proposal import Proposal
from pipelines.listing import Column, Listing

MOST_LISTED, MOST_NEIGHBOURS = 40, 3
"""Columns that are listed one by one; of more, so many neighbours that are alike share a line."""


@dataclass(frozen=True)
class InitReport:
    """What was written, and why."""

    file: Path
    rows: int
    proposal: Proposal
    notes: tuple[str, ...] = ()

    def summary(self) -> list[object]:
        """The columns, what to check, and the next commands."""
        found = self.proposal
        columns = (Column("column", head=True), Column("is", head=True), Column("because", is_sentence=True))
        rows = [{"column": name, "is": part, "because": why} for name, part, why in _listed(found.choices)]
        checks = [f"  {line}" for line in (*_to_check(found.choices), *self.notes)]
        name = "" if self.file.parent.resolve() == Path.cwd() else f" {self.file.parent}"
        return [
            f"Looked at {self.rows:,} rows. Their kind is {found.kind}, because {found.why}.",
            Listing(columns, rows),
            f"Wrote {self.file}.",
            *(["Check:", *checks] if checks else []),
            f"Then: detector doctor{name}, detector train{name}, detector score{name}",
        ]


def _listed(choices: Sequence[Choice]) -> Iterator[tuple[str, str, str]]:
    """Columns, what they are and why; of a wide table, neighbours that are alike in one line."""
    least = MOST_NEIGHBOURS if len(choices) > MOST_LISTED else len(choices) + 1
    for (part, why, _), group in groupby(choices, key=lambda each: (each.part, each.why, each.check)):
        alike = list(group)
        if len(alike) >= least:
            yield f"{alike[0].column} … {alike[-1].column}", part, f"{why}, of {len(alike):,} columns"
        else:
            yield from ((each.column, part, why) for each in alike)


def _to_check(choices: Sequence[Choice]) -> Iterator[str]:
    """What a person should make sure of, in one line where it is the same of many columns."""
    asked: dict[tuple[str, str], list[str]] = {}
    for each in choices:
        if each.check:
            asked.setdefault((each.part, each.check), []).append(each.column)
    for (part, check), names in asked.items():
        for name in names if len(names) <= MOST_ALIKE else [and_others(names)]:
            yield f"{name} ({part}): {check}"
