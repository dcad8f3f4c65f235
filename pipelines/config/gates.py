"""The part of the configuration that says what operators want to be told of sensors, and when not."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from pipelines.config.values import Place, Section, Zone
from pipelines.cron import Interval, parse


class GateSection(Section):
    """What of a sensor is told; what is held back is counted."""

    direction: Literal["both", "up", "down"] = "both"
    """Whether it is told that a sensor reads too high (up), too low (down), or either (both)."""

    least_deviation: NonNegativeFloat = 0.0
    """How far from what it should have read a sensor must be, in its unit; smaller faults are hidden."""

    least_relative: NonNegativeFloat = 0.0
    """The same as a share of what it should have read, such as 0.05. Where both are given, both must be reached."""

    least_minutes: NonNegativeFloat = 0.0
    """For how many minutes a sensor must be off; without times, for how many steps. It is told that much later."""

    stuck: bool = True
    """Whether it is told that it shows one value for more than twice as many readings as ever in training."""

    range: tuple[float | None, float | None] | None = None
    """Readings outside are always told, such as [0, 90] or [null, 90], even if the models see nothing in them."""

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if self.range is None:
            return self
        low, high = self.range
        if low is None and high is None:
            raise ValueError("`range` expected a limit, such as [0, 90] or [null, 90], received none. Leave it out.")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"`range` expected the lower limit first, received [{low:g}, {high:g}].")
        return self


class RecurringSection(Section):
    """Maintenance that comes again and again."""

    when: str
    """When it begins: five fields as in crontab, with a time zone behind them if need be, such as 0 6 * * sun."""

    minutes: Annotated[float, Field(gt=0, le=44_640)]
    """How long it takes."""

    machine: str | None = None
    """Which machine; by default all of them."""

    reason: str = ""
    """What is done, in a few words."""

    @field_validator("when")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if isinstance(parse(value), Interval):
            raise ValueError(f"expected the five fields of crontab, such as `0 6 * * sun`; received {value!r}.")
        return value


class MaintenanceSection(Section):
    """When machines are in maintenance: nothing is learnt from these times, and nothing told in them."""

    calendar: Place | None = None
    """A .csv file with the columns from and to, and machine and reason if need be; read anew when it changes."""

    recurring: tuple[RecurringSection, ...] = ()
    """Maintenance that comes again and again, such as [{when: 0 6 * * sun, minutes: 120}]."""

    timezone: Zone | None = None
    """The time zone of times that name none. By default as `series.timezone`."""

    @property
    def is_planned(self) -> bool:
        """Whether there is any."""
        return self.calendar is not None or bool(self.recurring)
