"""Rows that could not be used, in one line."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.progress import counted

REASONS = 3


def left_out(reasons: Mapping[str, int], *, of: int) -> list[str]:
    """How many rows could not be used, and why; nothing if there are none.

    >>> left_out({"time: missing time": 1, "amount: not a number": 3}, of=50)
    ['4 of 50 rows could not be used: amount: not a number (3 rows); time: missing time (1 row).']
    """
    total = sum(reasons.values())
    return [f"{total:,} of {counted(of)} could not be used: {why(reasons)}."] if total else []


def why(reasons: Mapping[str, int]) -> str:
    """The most frequent reasons, each with the number of its rows."""
    most = sorted(reasons.items(), key=lambda item: -item[1])
    told = "; ".join(f"{reason} ({counted(count)})" for reason, count in most[:REASONS])
    return told + (f"; and {counted(len(most) - REASONS, 'other reason')}" if len(most) > REASONS else "")
