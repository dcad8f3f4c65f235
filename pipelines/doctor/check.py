"""What one look at one thing found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.listing import Cell, Column, Listing

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
