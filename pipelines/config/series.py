"""The part of the configuration about sensors: how series are made regular, and how they are scored."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from detector.detectors.series.recipe import MEMBERS, Member
from detector.errors import SettingError
from detector.series.rhythm import period_of
from pipelines.config.gates import GateSection, MaintenanceSection
from pipelines.config.learning import TrainingSection
from pipelines.config.values import Section, Share, Zone

_SAMPLING = ("every", "align", "missing", "limit", "jitter", "unsorted", "repeated", "counters")
_PARAMETER = re.compile(
    r"(?:Sampling\()?\b(?P<name>every|align|missing|limit|jitter|unsorted|repeated|models|short)="
    r"(?:'(?P<quoted>[^']*)'|(?P<left>\.\.\.)|(?P<plain>[\w-]+))(?P<closed>\))?"
)
_IN_WORDS = {
    "a shorter window": "a shorter window (`series.window`)",
    "shorter windows": "shorter windows (`series.window`)",
    "Allow more jitter": "Allow more jitter (`series.sampling.jitter`)",
    "let entities share a model": "let entities share a model (`series.models: shared`)",
    "Write the times with their zone": "Say whose clock it is in `source.formats`, such as `{time: {timezone: "
    "Europe/Berlin}}`, and train again; or write the times with their zone",
    "Name the time column in the schema": "Name the time in `columns.time`",
    "A SequenceDetector reads numeric and boolean sensors, but the schema lists": "Sensors are numbers, or true and "
    "false, but `columns.categorical` or `columns.datetime` lists",
    "Leave them out of the schema": "List them under `columns.ignore` in its place",
    "a schema that names the entity column. Name it": "the entity of each row. Name it in `columns.entity`",
}


def in_settings(message: str) -> str:
    """What the library says of its parameters, in the words of the configuration.

    >>> in_settings("Give the interval, such as every='1min', with align='mean'.")
    'Give the interval, such as `series.sampling.every: 1min`, with `series.sampling.align: mean`.'
    >>> in_settings("Bridge gaps, such as with Sampling(limit=...).")
    'Bridge gaps, such as with `series.sampling.limit`.'
    """
    for words, settings in _IN_WORDS.items():
        message = message.replace(words, settings)
    return _PARAMETER.sub(_setting, message)


def _setting(match: re.Match[str]) -> str:
    name, value = match["name"], match["quoted"] or match["plain"]
    place = f"series.sampling.{name}" if name in _SAMPLING else f"series.{name}"
    closed = "" if match[0].startswith("Sampling(") else match["closed"] or ""
    return f"`{place}`{closed}" if value is None else f"`{place}: {value}`{closed}"


class SamplingSection(Section):
    """What becomes of gaps, uneven times, missing values, disorder and repeats."""

    every: str | None = None
    """The time between two readings, such as 1min. Found by itself when left out."""

    align: Literal["steps", "mean", "last"] = "steps"
    """Sensors that report together: steps. Apart, or faster than needed: the mean or the last of each interval."""

    missing: Literal["mask", "previous", "reject"] = "mask"
    """A missing value stays unknown (mask), is the one before it (previous), or is an error (reject)."""

    limit: NonNegativeInt = 5
    """A gap of more steps splits a series in two; a shorter one is missing values."""

    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How much longer than the interval, as a share of it, a step may be. 1 for clocks that cut off fractions."""

    unsorted: Literal["sort", "reject"] = "sort"
    """Readings that come after later ones: sort them in, or refuse them all."""

    repeated: Literal["quarantine", "reject"] = "quarantine"
    """A second reading of the same time: quarantine it, or refuse them all."""

    counters: tuple[str, ...] = ()
    """Sensors that count upwards, such as meters of energy: what they add from reading to reading is looked at."""


class EncoderSection(Section):
    """The network that rebuilds windows; it must beat a linear model on held-out rows, or that one is used."""

    kind: Literal["conv1d", "lstm", "gru", "transformer", "variational"] | None = None
    """Which: conv1d, lstm, gru, transformer or variational. By default none: a linear model (principal components)."""

    fall_back: bool = True
    """Whether the linear model takes its place where it is better."""

    training: TrainingSection = TrainingSection()
    """How the network is trained."""


class SeriesSection(Section):
    """How sensors are scored, where `kind` is sensors: windows of readings, rebuilt by a model of normal ones."""

    models: Literal["shared", "entity"] = "shared"
    """One model for all entities (shared), which must be alike, or one for each (entity)."""

    group_by: str | None = None
    """A pattern that finds a machine's kind in its name, such as ^([a-z]+)-; those of a kind share a model."""

    learn_from: PositiveInt | None = None
    """How many machines a shared model learns from, drawn by their names, where there are more; by default all."""

    members: tuple[Member, ...] = MEMBERS
    """What scores a row: windows rebuilt, long windows, each sensor's spectrum, a forest on windows, a forecast."""

    window: Annotated[int, Field(ge=2)] = 32
    """Rows in a window."""

    short: Literal["reject", "pad"] = "reject"
    """A series shorter than a window: an error, or scored as if its first row had lasted longer."""

    residuals: Literal["z", "mahalanobis"] = "z"
    """Whether residuals are scaled sensor by sensor (z), or all together (mahalanobis)."""

    smoothing: Annotated[float, Field(ge=0)] | None = None
    """Rows the risk is smoothed over: more for long anomalies, 0 for none. By default 3 (13,000 rows) to 10 (1,200)."""

    wait: Annotated[int, Field(ge=0)] | None = None
    """Steps a row's score waits for at most, but never fewer than two windows and their smoothing, 74 with windows of \
    32; long windows that go on for longer count less. By default up to 167."""

    trailing: bool = False
    """Whether a row is scored by the rows before it alone, as they arrive; else by those on both sides."""

    quantile: Share = 0.99
    """A row is unusually risky above this quantile of the risks of rows not learnt from."""

    period: str | None = None
    """After which time readings are alike: 1d, 7d, 8h, or none. By default it is looked for in the training rows."""

    timezone: Zone | None = None
    """Whose clock tells hour and weekday, such as Europe/Berlin. By default the one that `source.formats` names for \
the time column, or that of the service."""

    join: NonNegativeInt = 5
    """Flagged segments with at most so many quiet steps between them are one event."""

    late_minutes: NonNegativeFloat = 0.0
    """In the service: how much later than newer ones of its machine a reading may come; all scores wait for that."""

    silent_minutes: PositiveFloat = 15.0
    """In the service: a machine whose newest row is so much older than that of the others is reported as silent."""

    silent_by_clock: bool = False
    """Whether it is compared with the clock as well, for machines whose rows come at once, with their true time."""

    trees: PositiveInt = 100
    """Trees of the isolation forest."""

    lags: PositiveInt = 8
    """Rows a forecast is made from."""

    variance: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the windows' variance that the linear model keeps."""

    range_floor: Annotated[float, Field(ge=0)] | None = None
    """Least range of a sensor, as a share of the median range of the sensors that move: one that hardly moves counts \
    less. By default 0.1 with fewer than 1,000 training rows, else 0, for it depends on units, which `doctor` says."""

    gates: GateSection = GateSection()
    """What of all sensors is told."""

    sensors: dict[str, GateSection] = Field(default={})
    """What of single sensors is told, by name, where it is another: heat: {direction: up, least_deviation: 2}."""

    maintenance: MaintenanceSection = MaintenanceSection()
    """When machines are in maintenance: nothing is learnt from these times, and nothing told in them."""

    sampling: SamplingSection = SamplingSection()
    """What becomes of gaps, uneven times, missing values, disorder and repeats."""

    encoder: EncoderSection = EncoderSection()
    """The network that rebuilds windows; it must beat a linear model on held-out rows, or that one is used."""

    @field_validator("period")
    @classmethod
    def _is_period(cls, value: str | None) -> str | None:
        if value is not None and value != "none":
            try:
                period_of(value)
            except SettingError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _sample_of_many(self) -> Self:
        if self.learn_from is not None and self.models == "entity":
            raise ValueError("`learn_from` leaves machines out, which `models: entity` gives no model. Leave it out.")
        if self.group_by is not None and self.models == "entity":
            raise ValueError("`group_by` says which machines share a model, and `models: entity` that none do. Choose.")
        return self

    @field_validator("group_by")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"expected a pattern such as ^([a-z]+)-, received {value!r}: {error}.") from None
        return value

    @model_validator(mode="after")
    def _some_member(self) -> Self:
        if not self.members:
            raise ValueError(f"expected at least one of {', '.join(MEMBERS[:-1])} and {MEMBERS[-1]} in `members`.")
        return self
