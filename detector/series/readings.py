"""Rows in any order → readings in order: series after series, each by time, with no time twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from detector.arrays import Codes, Flags, Floats, Places, Times
from detector.cleaning.quarantine import quarantine
from detector.errors import DataError
from detector.schema import Schema
from detector.series.sampling import Sampling
from detector.series.timestamps import infer_interval, name_series, read_times, refuse_summer_time, show_span, show_time

TOO_FAST = 0.25
FEW = 20


@dataclass(frozen=True)
class Readings:
    """What ``order_readings`` returns.

    - ``time``, ``codes``, (n_readings,): microseconds, or the place in the series where there are no times; and the
      place of the entity in ``names``.
    - ``values``, (n_readings, n_sensors): NaN where missing.
    - ``rows``, (n_rows,): the positions of the rows that have a reading.
    - ``reading``, (n_rows,): the reading of each.
    - ``every``: the interval, in the unit of ``time``.
    - ``names``: the entities.
    - ``timed``: whether there are times.
    - ``moved``: rows that came after a later one of their series.
    - ``quarantine``: the rows that have no reading, and why.
    """

    time: Times
    codes: Codes
    values: Floats
    rows: Places
    reading: Codes
    every: int
    names: pd.Index | None
    timed: bool
    moved: int
    quarantine: pd.DataFrame

    def __len__(self) -> int:
        return len(self.time)

    def show(self, reading: int, index: pd.Index) -> str:
        """Where a reading stands, for a message: its time, if there are times, and its row."""
        row = f"row {index[self.rows[self.reading == reading][0]]}"
        return f"{show_time(self.time[reading])} ({row})" if self.timed else row


def order_readings(rows: pd.DataFrame, schema: Schema, sensors: tuple[str, ...], sampling: Sampling) -> Readings:
    """Put cleaned rows in order of series and time, and quarantine those without an entity or of a time there before.

    Raises ``DataError`` if no row is left, the times are not in UTC, the interval is unclear, readings come faster
    than it, a clock was put back by an hour, or there is disorder or a repeat that the policy rejects.

    >>> rows = pd.DataFrame({"pump": ["a", "b", "a"], "heat": [1.0, 2.0, 3.0]})
    >>> readings = order_readings(rows, Schema(entity="pump", numeric=("heat",)), ("heat",), Sampling())
    >>> readings.rows.tolist(), readings.codes.tolist()
    ([0, 2, 1], [0, 0, 1])
    """
    codes, names = _entities(rows, schema)
    named = np.flatnonzero(codes >= 0)
    if not len(named):
        raise DataError(f"Expected rows of at least one series, got none among {len(rows)} rows. Give rows.")
    values = rows[list(sensors)].to_numpy(dtype=np.float64)
    if schema.time is None:
        time, every, moved = pd.Series(codes).groupby(codes).cumcount().to_numpy(), 1, 0
        order = named[np.argsort(codes[named], kind="stable")]
        again = np.zeros(len(order), dtype=bool)
    else:
        time = read_times(rows[schema.time])
        order = named[np.lexsort((time[named], codes[named]))]
        every = sampling.interval or infer_interval(time[order], codes[order], names)
        if sampling.clock is None:
            refuse_summer_time(time[named], codes[named], values[named], names, every=every)
        moved = _count_moved(time[named], codes[named], rows.index[named], names, sampling)
        again = np.append(False, (np.diff(time[order]) == 0) & (np.diff(codes[order]) == 0))
        again &= sampling.align == "steps"
    if again.any() and sampling.repeated == "reject":
        second = int(np.flatnonzero(again)[0])
        raise DataError(
            f"{name_series(names, int(codes[order[second]]))} has two readings of {show_time(time[order[second]])}: "
            f"rows {rows.index[order[second - 1]]} and {rows.index[order[second]]}. Drop one, or choose "
            f"repeated='quarantine', or align='mean' to join them."
        )
    kept = order[~again]
    readings = Readings(
        time=time[kept],
        codes=codes[kept],
        values=values[kept],
        rows=kept,
        reading=np.arange(len(kept)),
        every=every,
        names=names,
        timed=schema.time is not None,
        moved=moved,
        quarantine=_quarantine(rows, schema, codes, order, again),
    )
    if schema.time is None:
        return readings
    return _refuse_too_fast(readings) if sampling.align == "steps" else _join(readings, sampling)


def nameless(rows: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The rows without an entity, where there are entities, as they came, after their index and the reason."""
    found = rows.iloc[:0] if schema.entity is None else rows[rows[schema.entity].isna()]
    return quarantine(found, [_no_entity(schema)] * len(found))


def _no_entity(schema: Schema) -> str:
    return f"{schema.entity}: the entity is missing"


def _entities(rows: pd.DataFrame, schema: Schema) -> tuple[Codes, pd.Index | None]:
    if schema.entity is None:
        return np.zeros(len(rows), dtype=np.int64), None
    codes, names = pd.factorize(rows[schema.entity])
    return codes.astype(np.int64), pd.Index(names)


def _count_moved(time: Times, codes: Codes, index: pd.Index, names: pd.Index | None, sampling: Sampling) -> int:
    latest = pd.Series(time).groupby(codes).cummax().to_numpy()
    moved = time < latest
    if moved.any() and sampling.unsorted == "reject":
        row = int(np.argmax(moved))
        raise DataError(
            f"{name_series(names, int(codes[row]))} is not in order of time: row {index[row]} is of "
            f"{show_time(time[row])}, a row before it of {show_time(latest[row])}. Sort the rows, or choose "
            f"unsorted='sort'."
        )
    return int(moved.sum())


def _quarantine(rows: pd.DataFrame, schema: Schema, codes: Codes, order: Places, again: Flags) -> pd.DataFrame:
    """The rows as they came, after their index and the reason, in the order they came."""
    reasons = {int(row): _no_entity(schema) for row in np.flatnonzero(codes < 0)}
    firsts = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
    for place in np.flatnonzero(again):
        first = rows.index[order[firsts[place]]]
        reasons[int(order[place])] = f"{schema.time}: the series has a reading of this time (first at row {first})"
    places = sorted(reasons)
    return quarantine(rows.iloc[places], [reasons[place] for place in places]).reset_index(drop=True)


def _refuse_too_fast(readings: Readings) -> Readings:
    steps = np.diff(readings.time)[np.diff(readings.codes) == 0]
    fast = int((2 * steps < readings.every).sum())
    if fast > max(FEW, TOO_FAST * len(steps)):
        raise DataError(
            f"Readings come faster than every {show_span(readings.every)}, or at no steady pace: {fast} of "
            f"{len(steps)} steps are shorter than half of it. Give the true interval as every=..., or choose "
            f"align='mean' or align='last' to put several readings on one step."
        )
    return readings


def _join(readings: Readings, sampling: Sampling) -> Readings:
    """One reading for each interval of the clock: the mean or the last of what each sensor read in it."""
    time = readings.time // readings.every * readings.every
    begins = np.append(True, (np.diff(time) != 0) | (np.diff(readings.codes) != 0))
    reading = np.cumsum(begins) - 1
    groups = pd.DataFrame(readings.values).groupby(reading)
    joined = groups.mean() if sampling.align == "mean" else groups.last()
    values = joined.to_numpy(dtype=np.float64)
    return replace(readings, time=time[begins], codes=readings.codes[begins], values=values, reading=reading)
