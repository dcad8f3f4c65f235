"""The part of the configuration about features: what is measured of an entity's own past."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from detector.errors import SettingError
from pipelines.config.values import Section

if TYPE_CHECKING:
    from detector.features import FeatureSet, Money
    from pipelines.config.data import ColumnsSection

RATE = re.compile(r"(\S+)\s+(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)")
TURNS = ("fraud: known", "fraud: taken back", "fraud: said again")
"""What the jobs call the columns that they fill with what is known of a row; no table has such columns."""
NEEDS_TIME = "features need a time. Name it in `columns.time`."


class FeaturesSection(Section):
    """What is measured of each row's past: of its card, account, terminal or device, as it was at that time."""

    history: tuple[str, ...] = ()
    """Lines such as "mean of amount by card_id over 1d, 30d"; see docs/features.md for all measures."""

    calendar: tuple[str, ...] = ()
    """What the clock says: hour, weekday, night, weekend, hour_sin, hour_cos, weekday_sin, weekday_cos."""

    amount: str = "amount"
    """The column that holds amounts of money, for the rules below."""

    currency: str | None = None
    """The column that names the currency of the amount. Without it, all are in one."""

    mixed: Literal["refuse", "convert", "apart"] = "refuse"
    """Several currencies: quarantine other rows, convert by the rates, or compare within each currency only."""

    rates: tuple[str, ...] = ()
    """What one of each currency is worth, such as ["EUR 1", "SEK 0.09"]; the first is what features are in."""

    negative: Literal["keep", "skip", "refuse"] = "keep"
    """Refunds: keep the negative amount, skip it while the event counts, or quarantine the row."""

    zero: Literal["keep", "skip", "refuse"] = "keep"
    """Amounts of nothing, such as checks of a card: keep, skip or refuse."""

    reported: str | None = None
    """The column that says when a label became known. Without it, when the row happened; delays come on top."""

    decimals: Annotated[int, Field(ge=0, le=6)] = 2
    """Numbers are counted in so many decimals, which makes sums exact."""

    most_events: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """A window holds at most so many events of one entity, the latest; counts go no higher."""

    most_megabytes: NonNegativeFloat = 500
    """Memory that the past of entities may take, about; a larger one is kept on disk, with the same features."""

    ahead: PositiveInt = 300
    """Seconds that a clock may run ahead; rows further in the future are quarantined."""

    lateness: PositiveInt | None = 3_600
    """Seconds that a row may come late and still find its place in the past; empty for none."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        from detector.features import calendar, feature

        try:
            feature.parse(self.history)
            calendar.check_calendar(self.calendar)
            self.money()
        except SettingError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return bool(self.history or self.calendar)

    def check_events(self, setting: str) -> None:
        """Make sure that there are events for a network to read.

        Raises ``ValueError`` if no feature is of single events, or they are of several entities.
        """
        from detector.features import feature
        from detector.members.event_sequence import steps_of

        try:
            steps_of(feature.parse(self.history))
        except SettingError as error:
            raise ValueError(f"{setting}: {error}") from None

    def feature_set(self, columns: ColumnsSection) -> FeatureSet:
        """The features as the library knows them.

        Raises ``SettingError`` if there is no time.
        """
        from detector.features import FeatureSet

        if columns.time is None:
            raise SettingError(NEEDS_TIME)
        return FeatureSet(
            self.history,
            time=columns.time,
            key=columns.key,
            calendar=self.calendar,
            money=self.money(),
            turns=TURNS,
            decimals=self.decimals,
            most_events=self.most_events,
        )

    def money(self) -> Money:
        """What an amount means, as the library knows it.

        Raises ``SettingError`` if a rate cannot be read, or currencies are to be converted without any.
        """
        from detector.features import Money

        rates = {}
        for text in self.rates:
            match = RATE.fullmatch(text.strip())
            if match is None:
                raise SettingError(f"A rate expected a currency and a number, such as SEK 0.09, received {text!r}.")
            rates[match[1]] = float(match[2])
        if self.currency is not None and self.mixed == "convert" and not rates:
            raise SettingError(
                'Currencies are to be converted, but no rate is given. Give `rates`, such as ["EUR 1", "SEK 0.09"].'
            )
        return Money(
            self.amount,
            currency=self.currency,
            mixed=self.mixed,
            rates=rates,
            negative=self.negative,
            zero=self.zero,
        )
