"""What became known of events after they were kept: when they were known to be fraud, no longer, and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Integers, Times
from detector.features.events import NEVER
from detector.features.integers import known_times
from detector.features.measures import TURNS

if TYPE_CHECKING:
    from detector.features.feature_set import FeatureSet


def reported_turns(features: FeatureSet, rows: pd.DataFrame, time: Times, reported: pd.Timestamp | None) -> Integers:
    """The turns of reported rows, one line each; see ``History.report``."""
    if features.turns is not None and reported is None:
        return np.column_stack(features.turns_of(rows, time))
    moments = None if features.reported is None else rows[features.reported]
    if reported is not None:
        moments = pd.Series(reported, index=rows.index)
    found = np.full((len(rows), len(TURNS)), NEVER)
    found[:, 0] = known_times(time, pd.Series(1.0, index=rows.index), moments)
    return found


def with_turns(events: NDArray[Any], at: Integers, turns: Integers, *, earlier: bool) -> NDArray[Any] | None:
    """Events with the turns, shape (n_reported, 3), of as many of them; None if that changes nothing.

    Which of several events of one moment (``at``, their positions) is meant is unknown. Those that have the turns
    already keep them; then come those of which nothing is known. If more are reported than there are, those of which
    nothing is reported come last. With ``earlier`` the earlier counts of what is known and what is reported, as where
    nothing is ever taken back.
    """
    kept = {place: tuple(int(events[turn][place]) for turn in TURNS) for place in at.tolist()}
    news: list[tuple[int, ...]] = []
    for moments in sorted(map(tuple, turns.tolist()), key=lambda moments: moments[0] == NEVER):
        if moments[0] == NEVER and len(kept) <= len(news):
            break
        same = next((place for place, known in kept.items() if known == moments), None)
        if same is None:
            news.append(moments)
        else:
            del kept[same]
    if not news or not kept:
        return None
    events = events.copy()
    for place, moments in zip(sorted(kept, key=lambda place: kept[place][0] != NEVER), news, strict=False):
        for turn, when in zip(TURNS, moments, strict=True):
            events[turn][place] = min(when, events[turn][place]) if earlier else when
    return events
