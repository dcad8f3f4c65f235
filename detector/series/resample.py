"""Cleaned readings → regular series, one step after the other, by a declared policy.

Each series, an entity's rows, is put in order of time and on steps of one interval. What that took, such as gaps that
were masked, values that were carried on and rows that were quarantined, is in the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Codes, Flags, Floats
from detector.errors import DataError, SchemaError, SettingError, ShapeError, nearest
from detector.schema import Schema
from detector.series.counters import added
from detector.series.readings import Readings, order_readings
from detector.series.sampling import Sampling, SamplingReport
from detector.series.timestamps import is_second_pass, is_spring_forward, name_series, show_span, show_time

SUMMER = "That is one hour: if these are local times, summer time began; convert them to UTC. "


@dataclass(frozen=True)
class RegularSeries:
    """Series on steps of one interval, one after the other. Make one with ``regularise``.

    - ``sensors``: the columns of ``values``.
    - ``values``, (n_steps, n_sensors): NaN where missing.
    - ``levels``, (n_steps, n_sensors): what was read where ``values`` of counters say what was added; else the same.
    - ``observed``, (n_steps, n_sensors): where a reading came; not where a value was carried on.
    - ``codes``, (n_steps,): the place of each step's entity in ``entities``.
    - ``segment``, (n_steps,): counts the unbroken segments: it grows by one with each series and each gap that splits.
    - ``times``, (n_steps,): of the reading; where none came, in even steps between its neighbours.
    - ``entities``: the names, in order of appearance; ``None`` for a table of one series.
    - ``every``: the interval.
    - ``excused``, (n_steps,): where no reading can come, because a clock tells that hour as it told the one before.
    - ``rows``: the rows that have a step, in the order they came.
    - ``step``, (n_rows,): the step of each.
    - ``quarantine``: ``row``, ``reason`` and the columns of the rows that have no step.
    - ``report``: what was sorted, merged, filled or is missing.
    - ``counters``: the sensors whose values are what they added.
    """

    sensors: tuple[str, ...]
    values: Floats
    levels: Floats
    observed: Flags
    codes: Codes
    segment: Codes
    times: NDArray[np.datetime64] | None
    entities: pd.Index | None
    every: pd.Timedelta | None
    excused: Flags | None
    rows: pd.Index
    step: Codes
    quarantine: pd.DataFrame
    report: SamplingReport
    counters: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def entity(self) -> pd.Index:
        """The name of each step's entity; empty text in a table of one series."""
        return (pd.Index([""]) if self.entities is None else self.entities).take(self.codes)

    def to_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """What is known for each step, for each of ``rows``.

        Raises ``ShapeError`` if there is not one value, or one line of values, for each step.
        """
        if values.shape[:1] != (len(self),):
            raise ShapeError(
                f"to_rows expected something for each of {len(self)} steps, got an array of shape {values.shape}."
            )
        return values[self.step]

    def overdue(self, until: pd.Timestamp) -> pd.DataFrame:
        """How many intervals ago each sensor last read, so that a machine that fell silent altogether is seen.

        One line an entity, one column a sensor; NaN where it never read. ``until`` is in UTC and without zone. Raises
        ``DataError`` if the series have no times.
        """
        if self.times is None or self.every is None:
            raise DataError("Series without times cannot be overdue. Name the time column in the schema.")
        names = pd.Index([""]) if self.entities is None else self.entities
        last = pd.DataFrame(index=names, columns=list(self.sensors), dtype=np.float64)
        for sensor, name in enumerate(self.sensors):
            read = self.observed[:, sensor]
            latest = pd.Series(self.times[read]).groupby(self.codes[read]).max()
            last.iloc[latest.index.to_numpy(), last.columns.get_loc(name)] = (until - latest) / self.every
        return last


def regularise(rows: pd.DataFrame, schema: Schema, sampling: Sampling | None = None) -> RegularSeries:
    """Put cleaned readings on regular steps, series by series: the numeric and boolean columns are the sensors.

    Without a time, each row of a series is the step after the one before. No row is lost: each has a step or is in
    quarantine (no entity, or a time that was there before). Raises ``SchemaError`` if a column is missing, or none is a
    sensor; ``SettingError`` if an interval is given, but the schema has no time; ``DataError`` if no row is left, a
    time is missing or has a zone, the interval is unclear, readings come faster than it, a clock without a zone
    went back by an hour, or there is something that the policy rejects.

    >>> times = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 00:01", "2024-01-01 00:02", "2024-01-01 00:04"])
    >>> rows = pd.DataFrame({"when": times, "heat": [20.0, 21.0, 22.0, 24.0]})
    >>> series = regularise(rows, Schema(time="when", numeric=("heat",)), Sampling(missing="previous"))
    >>> series.values.ravel().tolist(), series.observed.ravel().tolist()
    ([20.0, 21.0, 22.0, 22.0, 24.0], [True, True, True, False, True])
    >>> series.step.tolist()
    [0, 1, 2, 4]
    """
    sampling = Sampling() if sampling is None else sampling
    schema.check(rows.columns)
    sensors = schema.numeric + schema.boolean
    if not sensors:
        raise SchemaError("A series expected numeric or boolean columns, but the schema lists none. Name the sensors.")
    if schema.time is None and sampling.every is not None:
        raise SettingError(
            f"An interval needs times, but the schema has none. Received: every={sampling.every!r}. Name the time "
            f"column, or leave the interval out."
        )
    readings = order_readings(rows, schema, sensors, sampling)
    hop = _count_steps(readings, sampling)
    if sampling.missing == "reject":
        _reject(readings, hop, sensors, sampling, rows.index)
    # The first reading of a segment is on the next step, whatever came before; so a split holds no steps.
    begins = np.append(True, (hop == 0) | (hop > sampling.limit + 1))
    at = np.cumsum(np.where(begins, 1, np.append(1, hop))) - 1
    before = np.repeat(np.arange(len(at)), np.diff(np.append(at, at[-1] + 1)))
    values = np.full((len(before), len(sensors)), np.nan)
    values[at] = readings.values
    observed = ~np.isnan(values)
    segment = (np.cumsum(begins) - 1)[before]
    if sampling.missing == "previous":
        values = _carry(values, observed, segment, sampling.limit)
    levels, values = values, _counted(values, sensors, segment, sampling)
    kept = np.argsort(readings.rows, kind="stable")
    times = _times(readings, hop, at, before) if readings.timed else None
    return RegularSeries(
        sensors=sensors,
        values=values,
        levels=levels,
        observed=observed & ~np.isnan(values),
        codes=readings.codes[before],
        segment=segment,
        times=times,
        entities=readings.names,
        every=pd.Timedelta(microseconds=readings.every) if readings.timed else None,
        excused=None if times is None or sampling.clock is None else is_second_pass(times, sampling.clock),
        rows=rows.index[readings.rows[kept]],
        step=at[readings.reading[kept]],
        quarantine=readings.quarantine,
        report=SamplingReport(
            moved=readings.moved,
            merged=len(readings.rows) - len(readings),
            uneven=int(_is_uneven(readings, hop, 0.5).sum()),
            filled=_count(sensors, ~np.isnan(levels) & ~observed),
            missing=_count(sensors, np.isnan(levels)),
            gaps=_gaps(readings, hop, sampling),
        ),
        counters=sampling.counters,
    )


def _count_steps(readings: Readings, sampling: Sampling) -> Codes:
    """How many steps each reading is after the one before; 0 for the first of a series."""
    span = np.diff(readings.time)
    steps: Codes = np.maximum((2 * span + readings.every) // (2 * readings.every), 1)
    steps[span <= (1 + sampling.jitter) * readings.every] = 1
    steps[np.diff(readings.codes) != 0] = 0
    return steps


def _is_uneven(readings: Readings, hop: Codes, jitter: float) -> Flags:
    """Single steps that are too long or too short by more than a share of the interval."""
    off = np.abs(np.diff(readings.time) - readings.every)
    return np.asarray((off > jitter * readings.every) & (hop == 1))


def _reject(readings: Readings, hop: Codes, sensors: tuple[str, ...], sampling: Sampling, index: pd.Index) -> None:
    """Raise if a step, a value or an even pace is missing."""
    remedy = "or choose missing='mask' or missing='previous'."
    if len(gap := np.flatnonzero(hop > 1)):
        after, before = readings.time[gap[0]], readings.time[gap[0] + 1]
        summer = is_spring_forward(readings.time[gap[:1]], readings.time[gap[:1] + 1], every=readings.every)
        raise DataError(
            f"{name_series(readings.names, int(readings.codes[gap[0]]))} has no reading between {show_time(after)} and "
            f"{show_time(before)}, where {hop[gap[0]] - 1} are missing at one every {show_span(readings.every)}. "
            f"{SUMMER if summer.any() else ''}Fill the gap, {remedy}"
        )
    if len(uneven := np.flatnonzero(_is_uneven(readings, hop, sampling.jitter))):
        place = int(uneven[0])
        span = int(readings.time[place + 1] - readings.time[place])
        raise DataError(
            f"{name_series(readings.names, int(readings.codes[place]))} is sampled unevenly: "
            f"{readings.show(place + 1, index)} is {show_span(span)} after the reading before, expected "
            f"{show_span(readings.every)}. Allow more jitter, choose align='mean', {remedy}"
        )
    if len(holes := np.argwhere(np.isnan(readings.values))):
        place, sensor = holes[0].tolist()
        more = f" and in {len(holes) - 1} more places" if len(holes) > 1 else ""
        raise DataError(
            f"{name_series(readings.names, int(readings.codes[place]))} has no value of {sensors[sensor]!r} at "
            f"{readings.show(place, index)}{more}. Fill the values, {remedy}"
        )


def _carry(values: Floats, observed: Flags, segment: Codes, limit: int) -> Floats:
    """Each sensor's last value, over at most ``limit`` steps of the same segment."""
    place = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(observed, place, 0), axis=0)
    near = (place - last <= limit) & (segment[last] == segment[:, None])
    return np.where(near, np.take_along_axis(values, last, axis=0), values)


def _counted(levels: Floats, sensors: tuple[str, ...], segment: Codes, sampling: Sampling) -> Floats:
    """What was read, and of counters what was added."""
    if not sampling.counters:
        return levels
    for name in sampling.counters:
        if name not in sensors:
            raise SchemaError(f"The counter {name!r} is none of the sensors. {nearest(name, sensors)}")
    places = [sensors.index(name) for name in sampling.counters]
    values = levels.copy()
    values[:, places] = added(levels[:, places], segment, sampling.limit)
    return values


def _times(readings: Readings, hop: Codes, at: Codes, before: Codes) -> NDArray[np.datetime64]:
    """The time of each step: its reading's, or in even steps between the readings around it."""
    offset = np.arange(len(before)) - at[before]
    pace = np.append(np.diff(readings.time) / np.maximum(hop, 1), 0.0)
    time = readings.time[before] + np.rint(offset * pace[before]).astype(np.int64)
    return np.asarray(time.astype("datetime64[us]"))


def _gaps(readings: Readings, hop: Codes, sampling: Sampling) -> pd.DataFrame:
    place = np.flatnonzero(hop > 1)
    after, before = readings.time[place], readings.time[place + 1]
    bridged = "filled" if sampling.missing == "previous" else "masked"
    names = pd.Index([""]) if readings.names is None else readings.names
    return pd.DataFrame(
        {
            "entity": names.take(readings.codes[place]),
            "after": after.astype("datetime64[us]"),
            "before": before.astype("datetime64[us]"),
            "steps": hop[place] - 1,
            "handled": np.where(hop[place] > sampling.limit + 1, "split", bridged),
            "summer_time": is_spring_forward(after, before, every=readings.every),
        }
    )


def _count(sensors: tuple[str, ...], where: Flags) -> dict[str, int]:
    return dict(zip(sensors, where.sum(axis=0).tolist(), strict=True))
