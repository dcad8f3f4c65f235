"""How many known events are found, and how many flagged segments are false: what an operator counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Flags
from detector.errors import ShapeError


def event_metrics(labels: ArrayLike, flagged: ArrayLike, entity: ArrayLike | None = None) -> dict[str, float]:
    """Compare flagged segments with known ones.

    A known event is found if one of its rows is flagged; a flagged segment is false if it holds no known anomaly. Both
    say nothing of how much of an event is flagged: read them beside the measures by row.

    Labels are 1 anomalous, 0 normal, NaN unknown, the rows of each entity in the order of time; a segment ends where
    the entity changes. Returned are ``known_events``, ``found_events``, ``flagged_events``, ``false_events``, all
    counts, and ``event_recall`` and ``event_precision``, NaN where there is nothing to count. Raises ``ShapeError`` if
    the arrays differ in length.

    >>> event_metrics([0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 1, 0])["event_recall"]
    0.5
    """
    truth, raised = np.asarray(labels, dtype=float), np.asarray(flagged, dtype=bool)
    whose = np.zeros(len(truth), dtype=np.int64) if entity is None else np.unique(entity, return_inverse=True)[1]
    if not len(truth) == len(raised) == len(whose):
        raise ShapeError(
            f"event_metrics expected arrays of one length, received {len(truth)} labels, {len(raised)} flags and "
            f"{len(whose)} entities."
        )
    order = np.argsort(whose, kind="stable")
    truth, raised, whose = truth[order], raised[order], whose[order]
    known, alarms = _segments(truth == 1, whose), _segments(raised, whose)
    found = sum(bool(raised[first:last].any()) for first, last in known)
    right = sum(bool((truth[first:last] == 1).any()) for first, last in alarms)
    false = sum(bool((truth[first:last] == 0).all()) for first, last in alarms)
    return {
        "known_events": float(len(known)),
        "found_events": float(found),
        "flagged_events": float(len(alarms)),
        "false_events": float(false),
        "event_recall": found / len(known) if known else np.nan,
        "event_precision": right / (right + false) if right + false else np.nan,
    }


def _segments(marked: Flags, whose: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First row and the row after the last of each run of marked rows of one entity."""
    starts = marked & np.r_[True, ~marked[:-1] | (whose[1:] != whose[:-1])]
    ends = marked & np.r_[~marked[1:] | (whose[1:] != whose[:-1]), True]
    return list(zip(np.flatnonzero(starts).tolist(), (np.flatnonzero(ends) + 1).tolist(), strict=True))
