"""What one feature measures: of which column, by whom, over how long, the row itself counted or not.

A line such as ``mean of amount by card_id over 1d, 30d`` stands for one feature a window:

``count by card_id over 1h``
    Events of the card. ``sum``, ``mean``, ``std`` and ``max`` need ``of amount``.
``distinct of terminal_id by card_id over 7d``
    How many different terminals.
``ratio of amount by card_id over 30d``, ``zscore of amount by card_id over 30d``
    The row's amount beside the card's own mean, the row itself never counted.
``new of device by card_id over 90d``
    1 if the card did not use this device within the window, 0 if it did; missing without any history.
``since by card_id over 90d``
    Minutes since the event before.
``distance of latitude, longitude by card_id over 90d``, ``speed of ...``
    Kilometres, and kilometres an hour, from the last known place.
``last 8 of amount by card_id over 90d``, ``gap 8 by card_id over 90d``, ``code 8 of channel by card_id over 90d``
    Of each of the last 8 events: its amount, the minutes to the event behind it, and what its value is called, a
    number from 0 to 15 by a hash of the name. ``gap 1`` leads to the row itself; ``code`` also has 0, the row.
``frauds by terminal_id over 28d delay 7d``, ``risk by terminal_id over 28d delay 7d``
    Events known to be fraud, and their share of all: of the window that ends ``delay`` before the row, and known
    by then.

Windows end at the row. An event counts if it comes before the row in the order of (time, key) and is younger than
the window: one exactly as old as the window does not count. ``with row`` counts the row itself as well.
``delay`` moves the whole window back; then an event counts if it is at least as old as the delay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from detector.errors import SettingError, nearest
from detector.features.duration import microseconds, short

OF_NUMBER = ("sum", "mean", "std", "max", "ratio", "zscore", "last")
OF_ANY = ("distinct", "new", "code")
OF_PLACE = ("distance", "speed")
OF_NOTHING = ("count", "since", "frauds", "risk", "gap")
OF_EVENT = ("last", "gap", "code")
MOST_EVENTS_BACK = 100
OF_LABEL = ("frauds", "risk")
MEASURES = OF_NOTHING + OF_NUMBER + OF_ANY + OF_PLACE
RISING = ("count", "distinct", "new", "distance", "speed", "frauds", "risk")
"""Only more than usual of these is suspicious: nobody looks into a card because it has known less fraud than others."""
MAY_COUNT_ROW = ("count", "sum", "mean", "std", "max", "distinct")
MAY_BE_DELAYED = ("count", "sum", "mean", "std", "max", "ratio", "zscore", "distinct", "frauds", "risk")

_LINE = re.compile(
    r"(?P<measure>\w+)(?:\s+(?P<back>\d{1,9}))?(?:\s+of\s+(?P<of>.+?))?\s+by\s+(?P<by>.+?)\s+over\s+(?P<windows>[\w\s,]+?)"
    r"(?:\s+delay\s+(?P<delay>\w+))?(?P<row>\s+with\s+row)?",
)

_MEASURE_IN_NAME = re.compile(rf"(?:^|_)({'|'.join(MEASURES)})(?:_\d+)?_\d+[smhd](?=_by_)")


@dataclass(frozen=True)
class Feature:
    """One number about a row's past.

    Parameters
    ----------
    measure : str
        One of ``MEASURES``.
    by : tuple of str
        The columns that name the entity: rows belong together if all of them are equal.
    window : int
        How far back, in microseconds.
    of : tuple of str
        The column measured; latitude and longitude for a place.
    delay : int
        How long before the row the window ends, in microseconds.
    with_row : bool
        Whether the row itself counts.
    back : int
        Which event before the row is meant, where it is a single one; 0 is the row itself.

    Raises
    ------
    SettingError
        If these do not go together.

    >>> Feature("mean", by=("card",), of=("amount",), window=microseconds("30d")).name
    'amount_mean_30d_by_card'
    """

    measure: str
    by: tuple[str, ...]
    window: int
    of: tuple[str, ...] = ()
    delay: int = 0
    with_row: bool = False
    back: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", tuple(self.by))
        object.__setattr__(self, "of", tuple(self.of))
        if self.measure not in MEASURES:
            raise SettingError(f"There is no measure {self.measure!r}. {nearest(self.measure, MEASURES)}")
        wanted = 0 if self.measure in OF_NOTHING else 2 if self.measure in OF_PLACE else 1
        if len(self.of) != wanted:
            raise SettingError(
                f"{self.measure} expected {_columns(wanted)} behind `of`, received {_columns(len(self.of))}. "
                f"Write, for example, `{_EXAMPLES[self.measure]}`."
            )
        if not self.by or self.window <= 0 or self.delay < 0:
            raise SettingError(f"{self.measure} expected an entity and a window. Write `by <column> over <window>`.")
        least = 0 if self.measure == "code" else 1
        if not (least <= self.back <= MOST_EVENTS_BACK if self.measure in OF_EVENT else self.back == 0):
            raise SettingError(
                f"{self.measure} expected {_number_of_events(self.measure)}, received {self.back}. "
                f"Write, for example, `{_EXAMPLES[self.measure]}`."
            )
        if self.with_row and self.measure not in MAY_COUNT_ROW:
            raise SettingError(f"{self.measure} never counts the row itself. Take `with row` away.")
        if self.delay and self.measure not in MAY_BE_DELAYED:
            raise SettingError(f"{self.measure} looks at the latest event and knows no delay. Take `delay` away.")
        if self.delay and self.with_row:
            raise SettingError("A window with a delay ends before the row. Take `with row` or `delay` away.")

    @cached_property
    def name(self) -> str:
        """The name of its column."""
        of = "_".join(self.of) + "_" if self.of else ""
        delay = f"_delay_{short(self.delay)}" if self.delay else ""
        row = "_with_row" if self.with_row else ""
        back = f"_{self.back}" if self.measure in OF_EVENT else ""
        return f"{of}{self.measure}{back}_{short(self.window)}_by_{'_'.join(self.by)}{delay}{row}"

    @property
    def reach(self) -> int:
        """How far back it looks in all, in microseconds."""
        return self.window + self.delay

    @property
    def needs_label(self) -> bool:
        """Whether it is made of labels."""
        return self.measure in OF_LABEL

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**values)

    @classmethod
    def parse(cls, line: str) -> list[Self]:
        """Read a line, one feature a window.

        Raises
        ------
        SettingError
            If it is no such line.

        >>> [feature.name for feature in Feature.parse("count by card over 1h, 1d with row")]
        ['count_1h_by_card_with_row', 'count_1d_by_card_with_row']
        """
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise SettingError(
                f"A feature expected a line such as `mean of amount by card_id over 1d, 30d`, received {line!r}. "
                f"Write: measure [number] [of column] by column over window [, window] [delay window] [with row]."
            )
        events = int(match["back"] or 0)
        backs: Sequence[int] = [events]
        if match["measure"] in OF_EVENT and 1 <= events <= MOST_EVENTS_BACK:
            backs = range(0 if match["measure"] == "code" else 1, events + 1)
        return [
            cls(
                measure=match["measure"],
                by=_names(match["by"]),
                of=_names(match["of"] or ""),
                window=microseconds(window),
                delay=microseconds(match["delay"]) if match["delay"] else 0,
                with_row=bool(match["row"]),
                back=back,
            )
            for window in match["windows"].split(",")
            for back in backs
        ]


def is_rising(name: str) -> bool:
    """Whether a column is a feature of which only more than usual is suspicious, by its name.

    >>> is_rising("risk_28d_by_shop_delay_7d"), is_rising("amount_mean_30d_by_card"), is_rising("risk")
    (True, False, False)
    """
    measures = _MEASURE_IN_NAME.findall(name)
    return bool(measures) and measures[-1] in RISING


def is_new(name: str) -> bool:
    """Whether a column is a feature that is 1 where something is new and else 0, by its name.

    >>> is_new("device_new_90d_by_card_id"), is_new("amount_mean_30d_by_card")
    (True, False)
    """
    measures = _MEASURE_IN_NAME.findall(name)
    return bool(measures) and measures[-1] == "new"


def parse(lines: Sequence[str]) -> tuple[Feature, ...]:
    """Read several lines; a feature said twice counts once.

    >>> [feature.name for feature in parse(["since by card over 90d"])]
    ['since_90d_by_card']
    """
    return tuple(dict.fromkeys(feature for line in lines for feature in _parsed(line)))


def _parsed(line: str) -> list[Feature]:
    """The features of a line; an error names the line, which may be one of many."""
    try:
        return Feature.parse(line)
    except SettingError as error:
        raise SettingError(str(error) if repr(line) in str(error) else f"In {line!r}: {error}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().strip('"') for name in text.split(",") if name.strip())


def _number_of_events(measure: str) -> str:
    return f"1 to {MOST_EVENTS_BACK} events" if measure in OF_EVENT else "no number of events"


def _columns(number: int) -> str:
    return {0: "no column", 1: "one column"}.get(number, f"{number} columns")


_OF_EVENTS = {"last": "of amount ", "gap": "", "code": "of channel "}
_EXAMPLES = {
    **{name: f"{name} by card_id over 1d" for name in OF_NOTHING},
    **{name: f"{name} of amount by card_id over 30d" for name in OF_NUMBER},
    **{name: f"{name} of terminal_id by card_id over 30d" for name in OF_ANY},
    **{name: f"{name} 8 {of}by card_id over 90d" for name, of in _OF_EVENTS.items()},
    **{name: f"{name} of latitude, longitude by card_id over 30d" for name in OF_PLACE},
}
