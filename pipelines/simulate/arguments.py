"""Checks of what a simulator is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta
from numbers import Integral, Real

import pandas as pd

from detector.errors import SettingError

# Simulated clocks show local time, so these have no time zone.
START = datetime.fromisoformat("2024-10-01")
FIRST, LAST = datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2250-01-01")


def whole(name: str, value: object, *, least: int, most: int | None = None) -> None:
    """Raise unless ``value`` is a whole number in the range.

    >>> whole("rows", 5, least=1)
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise SettingError(
            f"{name} expected a whole number of at least {least}, got {value!r}. Give {name}={least} or more."
        )
    if most is not None and int(value) > most:
        raise SettingError(
            f"{name} expected a whole number of at most {most}, got {value!r}. Give {name}={most} or less."
        )


def share(name: str, value: object, *, least: float, most: float) -> None:
    """Raise unless ``value`` is a number in the range.

    >>> share("fraud_rate", 0.01, least=0, most=0.5)
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) <= most:
        raise SettingError(f"{name} expected a share from {least} to {most}, got {value!r}. Give one in between.")


def local_time(name: str, value: object) -> None:
    """Raise unless ``value`` is a datetime without a time zone.

    >>> local_time("start", datetime(2024, 10, 1))
    """
    if not isinstance(value, datetime) or pd.isna(value) or value.tzinfo is not None:
        raise SettingError(
            f"{name} expected a datetime without a time zone, got {value!r}. Give datetime(2024, 10, 1)."
        )


def holdable(start: datetime, length: timedelta) -> None:
    """Raise if the time from ``start`` on leaves the dates that a pandas table can hold.

    >>> holdable(datetime(2024, 10, 1), timedelta(days=120))
    """
    if not FIRST <= start < LAST or length > LAST - start:
        raise SettingError(
            f"{length} from {start} on leave the years 1700 to 2250 which a table can hold. "
            f"Start elsewhere or simulate less."
        )
