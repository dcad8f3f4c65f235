"""Flagged rows → events. An event is what one key (an account, a machine) did without a longer pause."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import read_dates
from detector.decide.severity import SEVERITIES
from detector.errors import SettingError, nearest
from detector.explain.reason import Reason
from pipelines.config import Config

EVERYTHING = "everything"
HELD = "(held back)"
"""Beside the scores of series: how many rows of its machine gates held back in the batch."""
EVENT_REASONS = "(event)"
"""Beside the scores of series: the reasons of the event that a flagged row belongs to."""


@dataclass(frozen=True)
class Event:
    """Flagged rows of one key without a longer pause between them."""

    group: str  # the key, hashed
    first_at: datetime
    last_at: datetime
    rows: int
    severity: str  # of all of it, with the amount taken into account
    risk: float
    p_value: float  # of the worst row, as the risk
    amount: float | None  # summed up over its rows; None if no column says it
    places: NDArray[np.int64]  # of its rows among the flagged ones, in order of time
    peak: int  # the place of its worst row
    pattern: str = ""  # the feature of the worst row's first reason


@dataclass(frozen=True)
class Grouping:
    """Which rows make one event, and what its amount does to the severity."""

    source: str
    by: Sequence[str]  # columns of the key; none if all rows are about the same
    time: str | None  # in UTC where it names no zone; without one, all happened now
    window: timedelta  # the longest pause within an event
    amount: str | None = None
    small: float | None = None  # sums below this lower the severity by one level
    large: float | None = None  # sums from this on raise it

    @classmethod
    def of(cls, config: Config) -> Self:
        """As the configuration says."""
        alerts = config.alerts
        return cls(
            config.name,
            alerts.group_by(config.columns),
            config.columns.time,
            timedelta(minutes=alerts.window_minutes),
            alerts.amount,
            alerts.small_amount,
            alerts.large_amount,
        )


def rank(severity: str) -> int:
    """Its place in the order; -1 for none.

    >>> rank("low"), rank("critical"), rank("")
    (0, 3, -1)
    """
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def group_id(source: str, key: Sequence[object]) -> str:
    """The name of a group in the tables: a hash, because the key may be something nobody is to read.

    >>> group_id("payments", ["card-7"]) == group_id("payments", ["card-7"]) != group_id("payments", ["card-8"])
    True
    """
    text = json.dumps([source, *map(str, key)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def severity_by_amount(severity: str, amount: float | None, *, small: float | None, large: float | None) -> str:
    """One level up for a large amount, one down for a small one.

    >>> [severity_by_amount("medium", amount, small=20, large=5_000) for amount in (9_000.0, 3.0)]
    ['high', 'low']
    """
    level = rank(severity)
    if amount is not None and large is not None and amount >= large:
        level += 1
    elif amount is not None and small is not None and amount < small:
        level -= 1
    return SEVERITIES[min(max(level, 0), len(SEVERITIES) - 1)]


def events_of(flagged: pd.DataFrame, grouping: Grouping, *, now: datetime) -> list[Event]:
    """Join flagged rows of one key that are no further apart than the window.

    ``now`` is for rows without a time.

    Raises ``SettingError`` if a column is not there.
    """
    if flagged.empty:
        return []
    by, amount = grouping.by, grouping.amount
    for name in (*by, *((amount,) if amount else ())):
        if name not in flagged:
            raise SettingError(
                f"`alerts` names the column {name!r}, which the scores do not have. {nearest(name, flagged.columns)}"
            )
    codes, keys = _keys(flagged, by)
    when = times_of(flagged, grouping.time, now)
    order = np.lexsort((when, codes))
    begins = np.ones(len(order), dtype=bool)
    pause = np.diff(when[order]) > np.timedelta64(grouping.window)
    begins[1:] = (np.diff(codes[order]) != 0) | pause
    starts = np.flatnonzero(begins)
    risk = flagged["risk"].to_numpy(dtype=np.float64)[order]
    p_value = np.minimum.reduceat(flagged["p_value"].to_numpy(dtype=np.float64)[order], starts)
    levels = flagged["severity"].map(rank).to_numpy(dtype=np.int64)[order]
    worst = np.maximum.reduceat(levels, starts)
    amounts = np.zeros(len(order))
    if amount is not None:
        amounts = np.abs(np.nan_to_num(pd.to_numeric(flagged[amount], errors="coerce").to_numpy(np.float64)[order]))
    sums = np.add.reduceat(amounts, starts)
    reasons = reasons_column(flagged)
    groups = [group_id(grouping.source, key) for key in keys]
    ends = np.append(starts[1:], len(order))
    moments: list[datetime] = when[order].astype("datetime64[us]").tolist()
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        total = float(sums[number]) if amount is not None else None
        peak = int(order[start + int(np.argmax(risk[start:end]))])
        found.append(
            Event(
                group=groups[codes[order[start]]],
                first_at=moments[start].replace(tzinfo=UTC),
                last_at=moments[end - 1].replace(tzinfo=UTC),
                rows=int(end - start),
                severity=severity_by_amount(
                    SEVERITIES[max(worst[number], 0)], total, small=grouping.small, large=grouping.large
                ),
                risk=float(risk[start:end].max()),
                p_value=float(p_value[number]),
                amount=total,
                places=order[start:end],
                peak=peak,
                pattern=next((reason.feature for reason in event_reasons(reasons, order[start:end], peak)), ""),
            )
        )
    return found


def reasons_column(flagged: pd.DataFrame) -> NDArray[np.object_]:
    """The reasons of each row: of the event it belongs to, where they are known."""
    name = EVENT_REASONS if EVENT_REASONS in flagged else "reasons"
    found: NDArray[np.object_] = flagged[name].to_numpy() if name in flagged else np.full(len(flagged), None)
    if name == EVENT_REASONS and "reasons" in flagged:  # a notice beside the scores has none of an event
        own = flagged["reasons"].to_numpy()
        found = np.array(
            [one or other for one, other in zip(map(reasons_of, found), own, strict=True)] + [None], object
        )
        return found[:-1]
    return found


def reasons_of(value: object) -> list[Reason]:
    """The reasons in a cell of the column ``reasons``, most important first; none where a row is not flagged."""
    return list(value) if isinstance(value, list | tuple) else []


def event_reasons(reasons: NDArray[np.object_], places: NDArray[np.int64], peak: int) -> list[Reason]:
    """The reasons of an event: what rules say of any of its rows, each once, then what the model says of its worst row.

    ``reasons`` is the column of that name, ``places`` and ``peak`` are positions in it.
    """
    rules = {reason: None for place in places for reason in reasons_of(reasons[place]) if reason.is_rule}
    return [*rules, *(reason for reason in reasons_of(reasons[peak]) if not reason.is_rule)]


def times_of(frame: pd.DataFrame, time: str | None, now: datetime) -> NDArray[np.datetime64]:
    """When the rows happened, as UTC; now where no time is known."""
    moment = np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us")
    if time is None or time not in frame:
        return np.full(len(frame), moment)
    when = frame[time]
    if isinstance(when.dtype, pd.DatetimeTZDtype):
        when = when.dt.tz_convert(None)
    elif not pd.api.types.is_datetime64_dtype(when):
        when = read_dates(when)[0]
    found = when.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(found), moment, found)


def _keys(frame: pd.DataFrame, by: Sequence[str]) -> tuple[NDArray[np.int64], list[list[str]]]:
    if not by:
        return np.zeros(len(frame), dtype=np.int64), [[EVERYTHING]]
    numbers = frame.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64)
    firsts = frame.loc[~pd.Series(numbers, index=frame.index).duplicated(), list(by)]
    return numbers, [[str(value) for value in row] for row in firsts.itertuples(index=False)]
