"""Series that go on: scored part by part as they would be in one piece, by the rows that are kept of each.

What a row's risk depends on is known: so many steps before it and, unless the model is trailing, so many after it. So
of each series the last rows are kept. A row is settled once all of that is there: it is scored then, and never again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Counts, Flags
from detector.detectors.series.groups import SHARED
from detector.detectors.series.model import SeriesModel
from detector.detectors.series.reasons import duration
from detector.detectors.series.scored import ScoredSeries
from detector.detectors.series.scorer import SequenceScorer
from detector.errors import DataError
from detector.schema import Schema
from detector.series.resample import RegularSeries, regularise
from detector.series.segments import bounds, carry_on


@dataclass(frozen=True)
class Tail:
    """The last rows of each series.

    Parameters
    ----------
    rows : DataFrame
        Series after series, each in order of time; other columns than the schema's are carried along.
    waiting : boolean array of shape (n_rows,)
        The rows that are not settled.
    """

    rows: pd.DataFrame
    waiting: Flags

    @classmethod
    def empty(cls, rows: pd.DataFrame) -> Tail:
        """Of series that have not begun; with the columns of ``rows``."""
        return cls(rows.iloc[:0], np.zeros(0, dtype=bool))

    @classmethod
    def joined(cls, tails: Sequence[Tail]) -> Tail:
        """The tails of several groups of series as one."""
        filled = [tail for tail in tails if len(tail.rows)] or tails[:1]
        return cls(pd.concat([each.rows for each in filled]), np.concatenate([each.waiting for each in filled]))

    def newest(self, schema: Schema) -> pd.Series:
        """The time of each series' last row; see ``newest_of``."""
        return newest_of(self.rows, schema)


def newest_of(rows: pd.DataFrame, schema: Schema) -> pd.Series:
    """The time of each series' last row, by entity, or by empty text where there is one series; none without times."""
    if schema.time is None or rows.empty:
        return pd.Series(dtype="datetime64[us]")
    whose = rows[schema.entity] if schema.entity is not None else pd.Series(SHARED, index=rows.index)
    return rows[schema.time].groupby(whose.to_numpy(), sort=False).max()


@dataclass(frozen=True)
class Continued:
    """What ``continue_series`` returns.

    Parameters
    ----------
    scored : ScoredSeries or None
        The kept rows and the new ones as their models see them; ``None`` if there are none.
    rows : DataFrame
        The rows that are settled now, those that waited first; these have an index below 0.
    step : array of shape (n_settled,)
        The step of each in ``scored``.
    refused : DataFrame
        Rows that cannot be scored, by the same index, with the column ``reason`` first.
    tail : Tail
        For the next part.
    """

    scored: ScoredSeries | None
    rows: pd.DataFrame
    step: Counts
    refused: pd.DataFrame
    tail: Tail


def reach_of(scorer: SequenceScorer) -> tuple[int, int]:
    """How many steps before and after one its score hangs on, whichever model it has."""
    before = max(_context(model) + scorer.gate_reach(model)[0] for model in scorer.models.values())
    return before, max(_ahead(scorer, model) for model in scorer.models.values())


def late_rows(
    scorer: SequenceScorer, newest: pd.Series, rows: pd.DataFrame, *, lateness: timedelta = timedelta(0)
) -> pd.Series:
    """Why rows come too late to be scored.

    Parameters
    ----------
    scorer : SequenceScorer
        The detector.
    newest : Series
        The time of each series' last row before, see ``newest_of``.
    rows : DataFrame
        As ``clean`` returns them.
    lateness : timedelta
        How much earlier than the newest row of its series a row may be.
    """
    none = pd.Series(index=rows.index[:0], dtype="str", name="reason")
    schema = scorer.schema
    if schema.time is None or newest.empty or rows.empty:
        return none
    whose = rows[schema.entity] if schema.entity is not None else pd.Series(SHARED, index=rows.index)
    last = pd.to_datetime(whose.map(newest))
    time, limit = rows[schema.time], last - lateness
    late = time <= limit
    if scorer.sampling.align != "steps" and (every := scorer.sampling.interval) is not None:
        interval = pd.Timedelta(microseconds=every)
        late = time.dt.floor(interval) < limit.dt.floor(interval)
    if not late.any():
        return none
    before = f"more than {duration(pd.Timedelta(lateness))} before" if lateness else "before"
    reasons = [
        f"{schema.time}: the series has a reading of {moment} from an earlier batch"
        if moment == end
        else f"{schema.time}: {moment} is {before} {end}, the newest reading of its series in an earlier batch"
        for moment, end in zip(time[late], last[late], strict=True)
    ]
    return pd.Series(reasons, index=rows.index[late], dtype="str", name="reason")


def continue_series(
    scorer: SequenceScorer,
    tail: Tail,
    rows: pd.DataFrame,
    *,
    ended: Collection[Any] = (),
    is_last: bool = False,
    lateness: timedelta = timedelta(0),
) -> Continued:
    """Score rows that go on where the last ones ended.

    Parameters
    ----------
    scorer : SequenceScorer
        The detector.
    tail : Tail
        What was kept; its columns are those of ``rows``.
    rows : DataFrame
        As ``clean`` returns them, in any order; with an index of its own, from 0 on. Rows of a series that are not
        later than its newest kept one, less the lateness, are refused; with readings joined by interval, those of an
        earlier interval.
    ended : collection
        Entities whose last rows are settled without those that might follow.
    is_last : bool
        Whether this is so of all.
    lateness : timedelta
        How much earlier than the newest row of its series a row may be that comes in a later part. All rows are settled
        so much later.

    Returns
    -------
    Continued
        A series that cannot be put on regular steps, or has no model, is refused with its reason, and begins anew.
    """
    kept = tail.rows.set_axis(pd.RangeIndex(-len(tail.rows), 0), axis="index")
    late = late_rows(scorer, tail.newest(scorer.schema), rows, lateness=lateness)
    fresh = rows.drop(index=late.index)
    joined = pd.concat([kept, fresh]) if len(kept) and len(fresh) else (kept if len(kept) else fresh)
    waiting = pd.Series(True, index=joined.index)
    waiting.loc[kept.index] = tail.waiting
    series: RegularSeries | None = None
    reasons = late
    if len(joined):
        series, strange = _regular(scorer, joined)
        reasons = pd.concat([reasons, strange])
    if series is None:
        refused = _refused(joined, rows, waiting, reasons)
        return Continued(None, joined.iloc[:0], np.zeros(0, np.int64), refused, Tail.empty(joined))
    settled, short = _settled(scorer, series, ended=ended, is_last=is_last, lateness=lateness)
    labels, step = series.rows, series.step
    is_due = waiting.loc[labels].to_numpy() & settled[step]
    if short:
        too_short = pd.Series(series.entity.take(step).map(short), index=labels)[is_due].dropna()
        reasons = pd.concat([reasons, too_short])
        is_due &= ~labels.isin(too_short.index)
    due = np.flatnonzero(is_due)
    return Continued(
        scored=scorer.series_steps(series),
        rows=joined.loc[labels[due]],
        step=step[due],
        refused=_refused(joined, rows, waiting, reasons),
        tail=_shortened(scorer, series, joined, waiting=waiting, settled=settled),
    )


def _regular(scorer: SequenceScorer, rows: pd.DataFrame) -> tuple[RegularSeries | None, pd.Series]:
    """The series on regular steps, and why some rows have none."""
    entity, reasons = scorer.schema.entity, [pd.Series(dtype="str")]
    if entity is not None:
        nobody = rows[entity].isna()
        reasons.append(pd.Series(f"{entity}: the entity is missing", index=rows.index[nobody], dtype="str"))
        rows = rows[~nobody]
    if entity is not None and not scorer.shared:
        unknown = ~rows[entity].isin([name for name in rows[entity].unique().tolist() if scorer.has_model(name)])
        words = "has no model: train again with its rows, or choose `models: shared`"
        reasons.append(rows[entity][unknown].map(lambda name: f"{entity}: {name!r} {words}"))
        rows = rows[~unknown]
    try:
        series = scorer.regular(rows) if len(rows) else None
    except DataError as error:
        good, bad = _tried_apart(scorer, rows, str(error))
        reasons.append(bad)
        rows = rows.loc[good]
        series = scorer.regular(rows) if len(rows) else None
    if series is not None and len(series.quarantine):
        why = series.quarantine.set_index("row")["reason"]
        reasons.append(why.str.replace(r"first at row -\d+", "first in an earlier batch", regex=True))
    return series, pd.concat([each for each in reasons if len(each)] or reasons)


def _tried_apart(scorer: SequenceScorer, rows: pd.DataFrame, reason: str) -> tuple[pd.Index, pd.Series]:
    """The rows of series that can be put on regular steps by themselves, and why the others cannot."""
    entity = scorer.schema.entity
    if entity is None:
        return rows.index[:0], pd.Series(reason, index=rows.index)
    good: list[Any] = []
    bad: list[pd.Series] = []
    for _, part in rows.groupby(entity, sort=False, dropna=False):
        try:
            regularise(part, scorer.schema, scorer.sampling)
        except DataError as error:
            bad.append(pd.Series(str(error), index=part.index))
        else:
            good += part.index.tolist()
    if not bad:  # what is wrong is wrong with all of them together
        return rows.index[:0], pd.Series(reason, index=rows.index)
    return rows.index[rows.index.isin(good)], pd.concat(bad)


def _settled(
    scorer: SequenceScorer, series: RegularSeries, *, ended: Collection[Any], is_last: bool, lateness: timedelta
) -> tuple[Flags, dict[Any, str]]:
    """Which steps have all that they depend on; and series that are over before they were as long as a window."""
    settled = np.zeros(len(series), dtype=bool)
    short: dict[Any, str] = {}
    for name, model, first, end in _by_entity(scorer, series):
        is_over = is_last or name in ended
        if scorer.short == "reject" and end - first < model.length:
            if is_over:
                short[name] = f"its series ended after {end - first} steps, and a window has {model.length}"
                settled[first:end] = True
            continue
        complete = _complete(series, first, end, lateness)
        left = complete - 1 - np.arange(first, end)
        apart = series.segment[first:end] != series.segment[max(first, complete - 1)]
        settled[first:end] = is_over | (left >= 0) & apart | (left >= _ahead(scorer, model))
    return settled, short


def _shortened(
    scorer: SequenceScorer, series: RegularSeries, rows: pd.DataFrame, *, waiting: pd.Series, settled: Flags
) -> Tail:
    """The rows that the next part needs.

    What a sensor read before them still counts: its last value, which stands in for one that is missing, is written
    into the first row kept. How long it has been silent counts too, so the rows reach back further than any silence
    that is no news.
    """
    has_row = np.zeros(len(series), dtype=bool)
    has_row[series.step] = True
    begin = np.zeros(len(series), dtype=np.int64)
    firsts = []
    for _, model, first, end in _by_entity(scorer, series):
        open_ = np.flatnonzero(~settled[first:end])
        needed = first + (int(open_[0]) if len(open_) else end - first) - _context(model) - scorer.gate_reach(model)[0]
        needed -= _shared_over(scorer)
        start = first + int(np.flatnonzero(has_row[first : max(first, needed) + 1])[-1])
        begin[first:end] = start
        firsts.append(start)
    order = np.argsort(series.step, kind="stable")
    labels, step = series.rows[order], series.step[order]
    inside = step >= begin[step]
    labels, step = labels[inside], step[inside]
    kept = rows.loc[labels].copy()
    nothing = np.full(len(series.sensors), np.nan)
    last = carry_on(series.levels, series.segment, nothing)
    missing = ~series.observed if scorer.sampling.missing == "previous" else np.isnan(series.levels)
    for start in firsts:
        at = int(np.searchsorted(step, start))
        for sensor in np.flatnonzero(missing[start] & ~np.isnan(last[start])).tolist():
            kept.iloc[at, kept.columns.get_loc(series.sensors[sensor])] = last[start, sensor]
    return Tail(kept.reset_index(drop=True), waiting.loc[labels].to_numpy() & ~settled[step])


def _context(model: SeriesModel) -> int:
    """How many steps before one that is open are kept."""
    limits = [limit for limit in model.staleness.limits if limit is not None]
    return max(model.memory, model.flatline.reach) + max(limits, default=0) + 1


def _shared_over(scorer: SequenceScorer) -> int:
    """Over how many steps what a counter added may be shared: as many more are kept."""
    sampling = scorer.sampling
    return sampling.limit + 1 if sampling.counters and sampling.missing != "previous" else 0


def _complete(series: RegularSeries, first: int, end: int, lateness: timedelta) -> int:
    """Up to which step of a series no row may come any more, between others or in a gap."""
    if series.times is None or not lateness:
        return end
    times = series.times[first:end]
    return first + int(np.searchsorted(times, times[-1] - np.timedelta64(lateness), side="right"))


def _ahead(scorer: SequenceScorer, model: SeriesModel) -> int:
    """How many steps after one must be there before it is settled; the last interval may still get readings."""
    return model.ahead + scorer.gate_reach(model)[1] + int(scorer.sampling.align != "steps")


def _by_entity(scorer: SequenceScorer, series: RegularSeries) -> list[tuple[Any, SeriesModel, int, int]]:
    """Each series: its entity, its model, its first step and the step after its last."""
    names = [SHARED] if series.entities is None else series.entities.tolist()
    return [
        (names[series.codes[first]], scorer.model_of(names[series.codes[first]]), first, end)
        for first, end in bounds(series.codes)
    ]


def _refused(joined: pd.DataFrame, rows: pd.DataFrame, waiting: pd.Series, reasons: pd.Series) -> pd.DataFrame:
    """The rows that have a reason, in the order they came; not those that were settled before."""
    waited = joined.loc[waiting.index[waiting & (waiting.index < 0)]]
    both = pd.concat([waited, rows]) if len(waited) and len(rows) else (waited if len(waited) else rows)
    found = both.loc[both.index.isin(reasons.index)].copy()
    found.insert(0, "reason", reasons.reindex(found.index).astype("str"))
    return found
