"""Lengths of time as people write them: ``15m``, ``1h``, ``30d``."""

from __future__ import annotations

import re

from detector.errors import SettingError

MICROSECONDS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
LONGEST = 366 * MICROSECONDS["d"]


def microseconds(text: str) -> int:
    """A length of time in microseconds.

    Raises ``SettingError`` if it is not a whole number of s, m, h or d, or is longer than 366 days.

    >>> microseconds("2m"), microseconds("30d") // microseconds("1d")
    (120000000, 30)
    """
    match = re.fullmatch(r"(\d{1,9})\s*([smhd])", text.strip())
    if match is None or int(match[1]) == 0:
        raise SettingError(f"A window expected a length such as 15m, 1h or 30d, received {text!r}. Write one of those.")
    length = int(match[1]) * MICROSECONDS[match[2]]
    if length > LONGEST:
        raise SettingError(f"A window of {text} is longer than 366 days. Choose a shorter one; 90d is long already.")
    return length


def short(length: int) -> str:
    """The shortest way to write a length of time in microseconds.

    >>> short(microseconds("60m")), short(microseconds("90d"))
    ('1h', '90d')
    """
    unit = next(unit for unit in ("d", "h", "m", "s") if length % MICROSECONDS[unit] == 0)
    return f"{length // MICROSECONDS[unit]}{unit}"


def spoken(length: int) -> str:
    """A length of time in words, as before a noun.

    >>> spoken(microseconds("30d")), spoken(microseconds("1h"))
    ('30-day', '1-hour')
    """
    text = short(length)
    return f"{text[:-1]}-{WORDS[text[-1]]}"
