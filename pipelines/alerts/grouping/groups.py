"""Flagged rows → events → what to tell. Pure functions over frames and what is known of each group.

An event is what one key (an account, a machine) did without a longer pause. It is told once: again only when it gets
more severe, or when it lasts beyond a set time after it was told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.values import naive_utc, read_dates
from detector.decide.policy import SEVERITIES
from detector.errors import SettingError, nearest

Kind = Literal["opened", "worse", "again"]
EVERYTHING = "everything"


@dataclass(frozen=True)
class Event:
    """Flagged rows of one key without a longer pause between them.

    Parameters
    ----------
    group : str
        The key, hashed.
    first_at, last_at : datetime
        Of its rows, by their own time.
    rows : int
        How many.
    severity : str
        Of all of it, with what is at stake taken into account.
    risk, p_value : float
        Of its worst row.
    amount : float or None
        What is at stake, summed up; None if no column says it.
    places : array
        Where its rows are among the flagged ones, in order of time.
    peak : int
        Where its worst row is.
    """

    group: str
    first_at: datetime
    last_at: datetime
    rows: int
    severity: str
    risk: float
    p_value: float
    amount: float | None
    places: NDArray[np.int64]
    peak: int


@dataclass(frozen=True)
class Known:
    """What is known of the latest event of a group.

    Parameters
    ----------
    incident : str
        Names the event.
    severity, told_severity : str
        Of the event so far, and the highest one that was told; empty if nothing was.
    told_at : datetime or None
        The time of the rows that were told last.
    first_at, last_at : datetime
        Of its rows.
    rows : int
        How many.
    is_open : bool
        Whether it goes on, as far as is known.
    """

    incident: str
    severity: str
    told_severity: str
    told_at: datetime | None
    first_at: datetime
    last_at: datetime
    rows: int
    is_open: bool = True


@dataclass(frozen=True)
class Candidate:
    """An event that is worth telling, if there is room for it.

    Parameters
    ----------
    kind : {"opened", "worse", "again"}
        Why.
    event : Event
        What.
    incident : str
        The name of the event it belongs to.
    first_at : datetime
        When that began.
    previous : str
        The severity that was told before; empty if nothing was.
    is_fresh : bool
        Whether it is counted for the first time.
    """

    kind: Kind
    event: Event
    incident: str
    first_at: datetime
    previous: str
    is_fresh: bool


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


def stakes(severity: str, amount: float | None, *, small: float | None, large: float | None) -> str:
    """The severity with what is at stake: one level up for much, one down for little.

    >>> stakes("medium", 9_000.0, small=20, large=5_000), stakes("medium", 3.0, small=20, large=5_000)
    ('high', 'low')
    """
    level = rank(severity)
    if amount is not None and large is not None and amount >= large:
        level += 1
    elif amount is not None and small is not None and amount < small:
        level -= 1
    return SEVERITIES[min(max(level, 0), len(SEVERITIES) - 1)]


def events_of(
    flagged: pd.DataFrame,
    *,
    source: str,
    by: Sequence[str],
    time: str | None,
    now: datetime,
    window: timedelta,
    amount: str | None = None,
    small: float | None = None,
    large: float | None = None,
) -> list[Event]:
    """Join flagged rows of one key that are no further apart than the window.

    Parameters
    ----------
    flagged : DataFrame
        Verdicts of flagged rows, with the columns named here.
    source : str
        Whose rows they are.
    by : sequence of str
        Columns of the key; none if all rows are about the same.
    time : str or None
        The column of times, taken as UTC where they name no zone; without one, all happened now.
    now : datetime
        For rows without a time.
    window : timedelta
        The longest pause within an event.
    amount : str, optional
        The column that says what is at stake.
    small, large : float, optional
        Sums that lower and raise the severity.

    Raises
    ------
    SettingError
        If a column is not there.
    """
    if flagged.empty:
        return []
    for name in (*by, *((amount,) if amount else ())):
        if name not in flagged:
            raise SettingError(
                f"`alerts` names the column {name!r}, which the verdicts do not have. {nearest(name, flagged.columns)}"
            )
    codes, keys = _keys(flagged, by)
    when = times_of(flagged, time, now)
    order = np.lexsort((when, codes))
    begins = np.ones(len(order), dtype=bool)
    pause = np.diff(when[order]) > np.timedelta64(window)
    begins[1:] = (np.diff(codes[order]) != 0) | pause
    starts = np.flatnonzero(begins)
    risk = flagged["risk"].to_numpy(dtype=np.float64)[order]
    p_value = np.minimum.reduceat(flagged["p_value"].to_numpy(dtype=np.float64)[order], starts)
    levels = flagged["severity"].map(rank).to_numpy(dtype=np.int64)[order]
    worst = np.maximum.reduceat(levels, starts)
    stake = np.zeros(len(order))
    if amount is not None:
        stake = np.abs(np.nan_to_num(pd.to_numeric(flagged[amount], errors="coerce").to_numpy(np.float64)[order]))
    sums = np.add.reduceat(stake, starts)
    groups = [group_id(source, key) for key in keys]
    ends = np.append(starts[1:], len(order))
    moments: list[datetime] = when[order].astype("datetime64[us]").tolist()
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        at_stake = float(sums[number]) if amount is not None else None
        found.append(
            Event(
                group=groups[codes[order[start]]],
                first_at=moments[start].replace(tzinfo=UTC),
                last_at=moments[end - 1].replace(tzinfo=UTC),
                rows=int(end - start),
                severity=stakes(SEVERITIES[max(worst[number], 0)], at_stake, small=small, large=large),
                risk=float(risk[start:end].max()),
                p_value=float(p_value[number]),
                amount=at_stake,
                places=order[start:end],
                peak=int(order[start + int(np.argmax(risk[start:end]))]),
            )
        )
    return found


def advance(
    event: Event, known: Known | None, *, name: str, window: timedelta, again: timedelta
) -> tuple[Candidate | None, Known]:
    """Compare an event with what is known of its group.

    Parameters
    ----------
    event : Event
        What came.
    known : Known or None
        The latest event of its group; None for the first.
    name : str
        What the event is to be called if it is another one.
    window : timedelta
        The longest pause within an event.
    again : timedelta
        An event that goes on so long after it was told is told again.

    Returns
    -------
    tuple of (Candidate or None, Known)
        What to tell, if anything, and what is known from now on; as if nothing were told: see ``told``.
    """
    if known is None or event.first_at > known.last_at + window or event.last_at < known.first_at - window:
        fresh = Known(name, event.severity, "", None, event.first_at, event.last_at, event.rows)
        late = known is not None and event.last_at < known.first_at
        candidate = Candidate("opened", event, name, event.first_at, "", is_fresh=True)
        return candidate, known if late and known is not None else fresh
    joined = replace(
        known,
        severity=max(known.severity, event.severity, key=rank),
        first_at=min(known.first_at, event.first_at),
        last_at=max(known.last_at, event.last_at),
        rows=known.rows + event.rows,
        is_open=True,
    )
    kind: Kind | None = None
    if not known.told_severity:
        kind = "opened"
    elif rank(event.severity) > rank(known.told_severity):
        kind = "worse"
    elif known.told_at is not None and event.last_at - known.told_at >= again:
        kind = "again"
    if kind is None:
        return None, joined
    counted = kind == "opened"  # as one there was no room for, or that was silenced
    return Candidate(kind, event, known.incident, joined.first_at, known.told_severity, not counted), joined


def told(known: Known, candidate: Candidate) -> Known:
    """What is known once a candidate has been told."""
    if known.incident != candidate.incident:
        return known
    severity = max(known.told_severity, candidate.event.severity, key=rank)
    return replace(known, told_severity=severity, told_at=candidate.event.last_at)


def choose(candidates: Iterable[Candidate], *, room: int) -> tuple[list[Candidate], list[Candidate]]:
    """Those there is room for, the most severe and the riskiest first, and those there is not."""
    ranked = sorted(candidates, key=lambda each: (-rank(each.event.severity), -each.event.risk, each.event.first_at))
    return ranked[: max(room, 0)], ranked[max(room, 0) :]


def times_of(frame: pd.DataFrame, time: str | None, now: datetime) -> NDArray[np.datetime64]:
    """When the rows happened, as UTC; now where no time is known."""
    moment = np.datetime64(naive_utc(now), "us")
    if time is None or time not in frame:
        return np.full(len(frame), moment)
    when = frame[time]
    if isinstance(when.dtype, pd.DatetimeTZDtype):
        when = when.dt.tz_convert(None)
    elif not pd.api.types.is_datetime64_dtype(when):
        when = read_dates(when)[0]
    found = when.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(found), moment, found)


def key_of(row: pd.Series, by: Sequence[str]) -> list[str]:
    """The key of a row as text."""
    return [str(row[name]) for name in by] or [EVERYTHING]


def _keys(frame: pd.DataFrame, by: Sequence[str]) -> tuple[NDArray[np.int64], list[list[str]]]:
    if not by:
        return np.zeros(len(frame), dtype=np.int64), [[EVERYTHING]]
    numbers = frame.groupby(list(by), sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64)
    firsts = frame.loc[~pd.Series(numbers, index=frame.index).duplicated(), list(by)]
    return numbers, [[str(value) for value in row] for row in firsts.itertuples(index=False)]
