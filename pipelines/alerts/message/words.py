"""Numbers as people say them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

_BLOCKS = "▁▂▃▄▅▆▇█"


def rarity(p_value: float) -> str:
    """A p-value in words.

    >>> rarity(0.00005)
    '1 in 20,000 normal rows look like this'
    >>> rarity(0.24), rarity(1.0)
    ('24 in 100 normal rows look like this', 'all normal rows look like this')
    """
    if not p_value < 1.0:
        return "all normal rows look like this"
    if p_value >= 0.1:
        return f"{round(100 * p_value)} in 100 normal rows look like this"
    times = 1.0 / max(p_value, 1e-12)
    digits = 10 ** max(0, int(math.log10(times)) - 1)
    return f"1 in {round(times / digits) * digits:,} normal rows look like this"


def money(amount: float) -> str:
    """An amount, with cents where they matter.

    >>> money(1234.5), money(20000.0)
    ('1,234.50', '20,000')
    """
    return f"{amount:,.0f}" if amount == int(amount) or abs(amount) >= 100_000 else f"{amount:,.2f}"


def span(first: datetime, last: datetime) -> str:
    """A stretch of time.

    >>> from datetime import UTC
    >>> span(datetime(2026, 3, 1, 9, 5, tzinfo=UTC), datetime(2026, 3, 1, 9, 40, tzinfo=UTC))
    '2026-03-01 09:05 to 09:40 UTC'
    """
    if last - first < timedelta(minutes=1):
        return f"{first:%Y-%m-%d %H:%M} UTC"
    if first.date() == last.date():
        return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def counted(number: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sparkline(values: Sequence[float]) -> str:
    """Values as a row of blocks, from the lowest to the highest; empty where there are fewer than two.

    >>> sparkline([1.0, 1.2, 9.0, 5.0]), sparkline([3.0, 3.0]), sparkline([3.0])
    ('▁▁█▅', '▅▅', '')
    """
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scaled = [(value - low) / (high - low) if high > low else 0.5 for value in values]
    return "".join(_BLOCKS[min(int(each * len(_BLOCKS)), len(_BLOCKS) - 1)] for each in scaled)
