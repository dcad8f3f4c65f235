"""Flagged steps of series joined into events: one line each, the reasons of their steps, and the curves around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.event_reasons import EventFacts, EventReasons
from detector.detectors.series.reasons import duration
from detector.detectors.series.scored import ScoredSeries
from detector.explain.reason import Reason, in_words
from detector.series.segments import bridged, near, reach, runs

MARGIN = 20
EVENT_COLUMNS = (
    "entity",
    "start",
    "end",
    "peak",
    "steps",
    "risk",
    "p_value",
    "severity",
    "onset",
    "change",
    "direction",
    "sensors",
    "reasons",
    "text",
)


def events_of(scored: ScoredSeries, flagged: Flags, *, join: int = 0) -> pd.DataFrame:
    """The flagged segments, one line each; see ``SequenceScorer.judge``.

    Where one is interrupted, as far as risk is smoothed, by rows as risky that were held back, it is one all the same.
    """
    segment, found = scored.series.segment, list[tuple[int, int]]()
    if flagged.any():
        risky = (scored.p_value <= scored.p_value[flagged].max()) & ~scored.quiet
        most = max(reach(part.model.smoothing) for part in scored.parts)
        found = runs(bridged(flagged, risky, segment, most), segment, join)
    risk = np.where(flagged, scored.risk, -np.inf)  # a pause between joined segments is no peak
    parts, severe = scored.contributions(flagged) if found else scored.risk[:0], scored.severity(flagged)
    lines = []
    for first, last in found:
        peak = first + int(np.argmax(risk[first : last + 1]))
        steps = first + np.flatnonzero(flagged[first : last + 1])
        facts = _event(scored, steps, parts, flagged)
        lines.append(
            {
                "entity": scored.series.entity[first],
                "start": _when(scored, first),
                "end": _when(scored, last),
                "peak": _when(scored, peak),
                "steps": last - first + 1,
                "risk": scored.risk[peak],
                "p_value": scored.p_value[peak],
                "severity": severe[peak],
                "onset": _when(scored, facts.onset),
                "change": facts.change,
                "direction": facts.direction,
                "sensors": ", ".join(reason.feature for reason in facts.reasons),
                "reasons": facts.reasons,
                "text": f"{in_words(facts.reasons)} | {_course(scored, facts)}",
            }
        )
    return pd.DataFrame(lines, columns=list(EVENT_COLUMNS))


def event_reasons_of(scored: ScoredSeries, flagged: Counts, *, join: int = 0) -> dict[int, list[Reason]]:
    """For each of these flagged steps, the reasons of the event that it belongs to.

    An event begins where steps are as unusual as the least unusual of these, though they were not flagged then.
    """
    if not len(flagged):
        return {}
    unusual = (scored.p_value <= scored.p_value[flagged].max()) & ~scored.quiet
    wanted = np.zeros(len(scored.series), dtype=bool)
    wanted[flagged] = True
    unusual |= wanted
    events = [each for each in runs(unusual, scored.series.segment, join) if wanted[each[0] : each[1] + 1].any()]
    looked = np.zeros(len(scored.series), dtype=bool)
    for first, last in events:
        looked[first : last + 1] = unusual[first : last + 1]
    parts = scored.contributions(looked)
    found: dict[int, list[Reason]] = {}
    for first, last in events:
        steps = first + np.flatnonzero(looked[first : last + 1])
        reasons = _event(scored, steps, parts, looked).reasons
        found |= {int(step): reasons for step in steps if wanted[step]}
    return found


def curves_around(scored: ScoredSeries, events: pd.DataFrame, *, margin: int = MARGIN) -> pd.DataFrame:
    """What sensors read and should have read around events; see ``SequenceScorer.curves``."""
    series, when = scored.series, scored.when
    pieces = []
    for name, event in events.iterrows():
        inside = (series.entity == event["entity"]) & (when >= event["start"]) & (when <= event["end"])
        steps = np.flatnonzero(near(inside, series.segment, margin))
        added = scored.contributions(inside)[steps]
        for at, sensor in enumerate(series.sensors):
            observed = np.where(series.observed[steps, at], series.values[steps, at], np.nan)
            piece = {
                "event": name,
                "entity": event["entity"],
                "sensor": sensor,
                "when": when[steps],
                "observed": observed,
                "expected": scored.expected[steps, at],
                "added": np.where(inside[steps], added[:, at], np.nan),
                "inside": inside[steps],
            }
            pieces.append(pd.DataFrame(piece))
    columns = ["event", "entity", "sensor", "when", "observed", "expected", "added", "inside"]
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=columns)


def _event(scored: ScoredSeries, steps: Counts, parts: Floats, flagged: Flags) -> EventFacts:
    """What is said of an event of these flagged steps."""
    part = next(part for part in scored.parts if np.isin(steps[0], part.place))
    return EventReasons(scored.readings, part.seen, part.place, flagged, scored.gates, scored.outside).of(steps, parts)


def _course(scored: ScoredSeries, facts: EventFacts) -> str:
    """When the sensor at fault began to be off, for how long it was, and when it was worst."""
    start, worst = _when(scored, facts.onset), _when(scored, facts.extreme)
    if scored.series.times is None:
        return f"from row {start} for {facts.end - facts.onset + 1} steps, worst at row {worst}"
    length = _when(scored, facts.end) - start + (scored.series.every or pd.Timedelta(0))
    return f"from {start:%Y-%m-%d %H:%M} for {duration(length)}, worst at {worst:%Y-%m-%d %H:%M}"


def _when(scored: ScoredSeries, step: int) -> Any:
    found = scored.when[step]
    return pd.Timestamp(found) if scored.series.times is not None else int(found)
