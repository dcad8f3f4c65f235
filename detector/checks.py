"""Settings that make no sense, refused with their name, what was expected and what was received."""

from __future__ import annotations

from numbers import Integral, Real
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from detector.errors import SettingError

MOST_SEED = 2**32 - 1
"""What NumPy and scikit-learn take at most."""


def check_least(settings: object, least: int, *names: str) -> None:
    """Refuse numbers that are too small, and what is no number.

    >>> from types import SimpleNamespace
    >>> check_least(SimpleNamespace(trees=0), 1, "trees")
    Traceback (most recent call last):
    detector.errors.SettingError: trees must be at least 1. Received: trees=0.
    """
    for name in names:
        value = getattr(settings, name)
        if not (isinstance(value, Real) and float(value) >= least):
            raise SettingError(f"{name} must be at least {least}. Received: {name}={value!r}.")


def check_whole(settings: object, *names: str) -> None:
    """Refuse what is no whole number; a float without a fraction becomes an int.

    >>> from types import SimpleNamespace
    >>> settings = SimpleNamespace(trees=30.0, folds=2.5)
    >>> check_whole(settings, "trees", "folds")
    Traceback (most recent call last):
    detector.errors.SettingError: folds must be a whole number, of type int. Received: folds=2.5.
    >>> settings.trees
    30
    """
    for name in names:
        value = getattr(settings, name)
        if (whole := as_whole(value)) is None:
            raise SettingError(f"{name} must be a whole number, of type int. Received: {name}={value!r}.")
        if whole is not value:
            object.__setattr__(settings, name, whole)  # most settings are frozen once they are checked


def as_whole(value: object) -> int | None:
    """A whole number as it is, or as an int if it is a float; None for anything else.

    >>> as_whole(30.0), as_whole(1.5), as_whole("3")
    (30, None, None)
    """
    if isinstance(value, Integral):
        return cast("int", value)
    return int(float(value)) if isinstance(value, Real) and float(value).is_integer() else None


def check_seed(settings: object) -> None:
    """Refuse a ``random_state`` that not all random numbers can be begun with.

    >>> from types import SimpleNamespace
    >>> check_seed(SimpleNamespace(random_state=1.5))
    Traceback (most recent call last):
    detector.errors.SettingError: random_state must be a whole number, of type int. Received: random_state=1.5.
    """
    check_whole(settings, "random_state")
    check_interval(settings, f"[0, {MOST_SEED}]", "random_state")


def check_interval(settings: object, interval: str, *names: str) -> None:
    """Refuse numbers outside an interval, written as in mathematics, and what is no number.

    >>> from types import SimpleNamespace
    >>> check_interval(SimpleNamespace(share=1.0), "[0, 1)", "share")
    Traceback (most recent call last):
    detector.errors.SettingError: share must lie in [0, 1). Received: share=1.0.
    """
    low, high = interval[1:-1].split(", ")
    is_open = interval.startswith("(") and interval.endswith(")")
    for name in names:
        value = getattr(settings, name)
        number = float(value) if isinstance(value, Real) else float("nan")
        after = number >= float(low) if interval.startswith("[") else number > float(low)
        before = number <= float(high) if interval.endswith("]") else number < float(high)
        if not (after and before):
            where = f"between {low} and {high}" if is_open else f"in {interval}"
            raise SettingError(f"{name} must lie {where}. Received: {name}={value!r}.")


def one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is none of those known.

    >>> one_of("loss", "mse", ("mse", "mae"))
    >>> one_of("loss", "mes", ("mse", "mae"))
    Traceback (most recent call last):
    detector.errors.SettingError: loss must be one of mse, mae. Received: loss='mes'.
    """
    if value not in known:
        raise SettingError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}.")


def check_zone(name: str, value: str) -> None:
    """Refuse a time zone that nobody knows; of those known, each is looked up once.

    >>> check_zone("timezone", "Mars")
    Traceback (most recent call last):
    detector.errors.SettingError: timezone must name a time zone, such as Europe/Berlin. Received: timezone='Mars'.
    """
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):  # in that order: unknown, a path, no text, a folder
        raise SettingError(
            f"{name} must name a time zone, such as Europe/Berlin. Received: {name}={value!r}."
        ) from None


def check_kind(settings: object, kind: type, *names: str) -> None:
    """Refuse what is of another kind, and not None.

    >>> from types import SimpleNamespace
    >>> check_kind(SimpleNamespace(share="half"), float, "share")
    Traceback (most recent call last):
    detector.errors.SettingError: share must be a float. Received: share='half'.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not isinstance(value, kind):
            raise SettingError(f"{name} must be a {kind.__name__}. Received: {name}={value!r}.")
