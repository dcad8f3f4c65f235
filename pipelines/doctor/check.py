"""What one look at one thing found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

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


def as_table(checks: Sequence[Check]) -> Table:
    """A table to print."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "Where", "What is there", "What to do", title="detector doctor", title_justify="left")
    for check in checks:
        state = Text(check.state, style=_STYLES[check.state])
        table.add_row(state, Text(check.place), Text(check.found), Text(check.advice))
    return table


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
