"""How a backtest walks through the past."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from detector.errors import SettingError
from detector.features.duration import microseconds


@dataclass(frozen=True)
class Plan:
    """How to walk forward.

    - ``start``, ``end``: the first period begins at ``start``; the last one that fits ends by ``end``.
    - ``every``: the length of a period, and how often the detector learns again.
    - ``train``: how far back it learns from.
    - ``delay``: how long after a row its label is known, where the table has no time of report.
    - ``k``: entities a day that people can look at.
    - ``seeds``: detectors of different seeds a period.
    - ``scenario``: a column that names the kind of each anomaly.

    Raises ``SettingError`` if a length, ``k`` or ``seeds`` has no meaning, or no period fits.

    >>> plan = Plan(datetime(2024, 3, 1), datetime(2024, 3, 20), every="7d")
    >>> [f"{begin:%d}" for begin, _ in plan.periods()]
    ['01', '08']
    """

    start: datetime
    end: datetime
    every: str = "7d"
    train: str = "28d"
    delay: str = "7d"
    k: int = 100
    seeds: int = 1
    scenario: str | None = None

    def __post_init__(self) -> None:
        for name in ("every", "train", "delay"):
            try:
                microseconds(getattr(self, name))
            except SettingError as error:
                raise SettingError(f"{name}: {error}") from None
        for name in ("k", "seeds"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}.")
        if self.end <= self.start:
            raise SettingError(
                f"The end {self.end:%Y-%m-%d} does not lie after the start {self.start:%Y-%m-%d}. Choose a later end."
            )
        if not list(self.periods()):
            raise SettingError(
                f"No period of {self.every} fits between {self.start:%Y-%m-%d} and {self.end:%Y-%m-%d}. Choose a later "
                f"end or shorter periods."
            )

    @property
    def learnt(self) -> pd.Timedelta:
        """How far back it learns from."""
        return length(self.train)

    def periods(self) -> Iterator[tuple[pd.Timestamp, pd.Timestamp]]:
        """Begin and end of each period."""
        begin, step = pd.Timestamp(self.start), length(self.every)
        while begin + step <= pd.Timestamp(self.end):
            yield begin, begin + step
            begin += step


def length(text: str) -> pd.Timedelta:
    """A length of time as pandas knows it.

    >>> length("36h")
    Timedelta('1 days 12:00:00')
    """
    return pd.Timedelta(microseconds=microseconds(text))
