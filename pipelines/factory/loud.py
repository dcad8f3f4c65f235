"""Stretches of training that make thresholds high, in words: what they are, and what to do about them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from detector.detectors.series.loud_stretch import LoudStretches, Stretch

MOST_LINES = 3


def loud_notes(found: Sequence[LoudStretches]) -> list[str]:
    """A sentence on each model's, the one that raises its threshold most first, and how many more there are.

    >>> loud = LoudStretches((Stretch(300, 339, 0, "M7"),), threshold=40.0, without=2.5)
    >>> loud_notes([loud])[0].partition(" If that")[0]
    'A threshold rests on M7, steps 300 to 339: it is 40, and 2.5 without, so less is found.'
    """
    ordered = sorted(found, key=lambda one: one.without / one.threshold)
    notes = [_note(one) for one in ordered[:MOST_LINES]]
    if (more := len(ordered) - MOST_LINES) > 0:
        notes.append(f"So do {more:,} more thresholds on stretches of their own.")
    return notes


def _note(found: LoudStretches) -> str:
    where = "; ".join(_where(one) for one in found.stretches)
    return (
        f"A threshold rests on {where}: it is {found.threshold:.3g}, and {found.without:.3g} without, so less is "
        f"found. If that was a fault, a holiday or maintenance, name it in `series.maintenance` or label it, and train "
        f"again."
    )


def _where(stretch: Stretch) -> str:
    when = f"steps {stretch.first:,} to {stretch.last:,}"
    if stretch.start is not None and stretch.end is not None:
        when = f"{pd.Timestamp(stretch.start):%Y-%m-%d %H:%M} to {pd.Timestamp(stretch.end):%Y-%m-%d %H:%M} UTC"
    return f"{stretch.entity}, {when}" if str(stretch.entity) else when
