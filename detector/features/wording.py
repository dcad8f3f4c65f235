"""How reasons and columns are worded: features by what they measure, columns by the names that people have for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pandas as pd

from detector.explain.reason import Reason, with_reasons
from detector.features.feature import Feature
from detector.features.words import NO_WORDS, ColumnWords, in_own_words, renamed, title_with_window


@dataclass(frozen=True)
class Wording:
    """One way to word everything that is shown of a detector.

    Parameters
    ----------
    features : tuple of Feature
        Those among the columns.
    calendar : tuple of str
        Calendar features among the columns.
    time : str, optional
        The column that calendar features are made of.
    names : mapping of str to ColumnWords
        What people call columns, and their units.

    >>> wording = Wording(tuple(Feature.parse("count by card over 1h")), names={"card": ColumnWords("card number")})
    >>> wording.column("count_1h_by_card"), wording.column("card"), wording.column("amount")
    ('events of this card number, 1 hour', 'card number', 'amount')
    """

    features: tuple[Feature, ...] = ()
    calendar: tuple[str, ...] = ()
    time: str | None = None
    names: Mapping[str, ColumnWords] = field(default_factory=dict)

    def reasons(self, reasons: Sequence[Reason]) -> list[Reason]:
        """Reasons of one row as people say them."""
        return in_own_words(reasons, self.features, calendar=self.calendar, time=self.time, names=self.names)

    def scores(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores whose lists of ``reasons`` are as people say them; an empty one stays as it is."""
        said = scores["reasons"].to_numpy(dtype=object, copy=True)
        for place in with_reasons(scores["reasons"]):
            said[place] = self.reasons(said[place])
        return scores.assign(reasons=said)

    def column(self, name: str) -> str:
        """A column as people call it; a feature by what it measures."""
        for feature in self.features:
            if feature.name == name:
                return title_with_window(renamed(feature, self.names))
        words = self.names.get(name, NO_WORDS)
        return f"{words.name or name}{f' ({words.unit})' if words.unit else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "features": [feature.to_dict() for feature in self.features],
            "calendar": list(self.calendar),
            "time": self.time,
            "names": {name: asdict(words) for name, words in self.names.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(
            tuple(Feature.from_dict(each) for each in values["features"]),
            tuple(values["calendar"]),
            values["time"],
            {name: ColumnWords(**words) for name, words in values["names"].items()},
        )
