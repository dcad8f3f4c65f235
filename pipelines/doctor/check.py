"""What one look at one thing found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.listing import Cell, Column, Listing

MOST_ALIKE, MOST_NAMED = 10, 3
"""Columns about which the same is said one by one; of more, so many are named."""
State = Literal["ok", "warning", "problem"]
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    - ``place``: the place in the configuration: ``columns.key``.
    - ``state``: "ok", "warning", "problem". A warning does not stop a job; a problem does, or makes its result useless.
    """

    place: str
    state: State
    found: str
    advice: str = ""


def likewise(found: Iterable[tuple[str, Check]]) -> list[Check]:
    """What was found of each column, in one line where the same is to be done about many.

    >>> found = [
    ...     (f"wk{n}", Check("columns.numeric", "warning", f"'wk{n}' is always '0'", "Ignore it.")) for n in range(90)
    ... ]
    >>> [check.found for check in likewise(found)]
    ["'wk0' is always '0'; likewise wk1, wk2, wk3 and 86 others"]
    """
    groups: dict[tuple[str, State, str], list[tuple[str, Check]]] = {}
    for name, check in found:
        groups.setdefault((check.place, check.state, check.advice), []).append((name, check))
    shown: list[Check] = []
    for group in groups.values():
        checks = [check for _, check in group]
        if len(checks) > MOST_ALIKE:
            others = and_others([name for name, _ in group][1:])
            checks = [replace(checks[0], found=f"{checks[0].found}; likewise {others}")]
        shown += checks
    return shown


def and_others(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are.

    >>> and_others(["a", "b"]), and_others(list("abcdef"))
    ('a and b', 'a, b, c and 3 others')
    """
    first, more = names[:MOST_NAMED], len(names) - MOST_NAMED
    last = f"{more:,} {'other' if more == 1 else 'others'}" if more > 0 else first[-1]
    return f"{', '.join(first if more > 0 else first[:-1])} and {last}" if len(names) > 1 else last


def as_table(checks: Sequence[Check]) -> Listing:
    """A list to print, in the order of the configuration."""
    columns = (
        Column("state", head=True),
        Column("where", head=True, key="place"),
        Column("what is there", is_sentence=True, key="found"),
        Column("what to do", is_sentence=True, key="advice"),
    )
    rows = [
        {
            "state": Cell(check.state, check.state, _STYLES[check.state]),
            "where": check.place,
            "what is there": check.found,
            "what to do": check.advice,
        }
        for check in checks
    ]
    return Listing(columns, rows, title="detector doctor")


def as_summary(checks: Sequence[Check]) -> str:
    """How many of each, in one line.

    >>> as_summary([Check("source", "ok", "3 rows"), Check("policy", "warning", "no rule")])
    '1 ok, 1 warning, 0 problems.'
    """
    counts = {state: sum(check.state == state for check in checks) for state in _STYLES}
    return (
        ", ".join(f"{count} {state}{'' if state == 'ok' or count == 1 else 's'}" for state, count in counts.items())
        + "."
    )
