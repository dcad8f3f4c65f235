"""Anomalies among the calibration rows: taken out on evidence only, and the evidence is a gap.

Anomalies among the rows make p-values too large, never too small (Bashari, Sesia and Romano, ICML 2025), so leaving
them in costs findings and breaks no promise. Taking out the largest risks whatever they are does break it: where a
detector ranks badly, they are honest. And nothing that sees only risks can tell in general: two of the sets it was
tried on, landsat and satellite of ADBench, have the same rows and other labels; of the same riskiest half per cent none
is an anomaly in the one, and all are in the other. What is left is the blatant case, a group apart from all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.arrays import Flags, Floats
from detector.decide.tails import Bulk

MOST_SHARE = 0.1
LEAST_GROUP = 3
LEAST_ROWS = 20
WIDEST = 3.0
"""Of several gaps, the one with the most rows beyond it that is not narrower than the widest by more than this."""
TRIMMED_FROM = 25
LARGE_FROM = 50
GAP_SMALL = 3.0
GAP_MEDIUM = 2.5
GAP_LARGE = 0.65
"""The least gaps, in mean excesses below, that count: of 3 to 24, of 25 to 49 and of 50 or more rows. Over 25 sets of
normal rows, three seeds and five rankings, the widest were 2.8, 2.4 and .60; planted groups of blatant outliers had .6
to 14. Smaller, and honest tails lose their ends; larger, and blatant outliers hide each other."""
GAP_VIEW = 6.0
"""The least gap in another view of the rows. Views of a single kind have wide gaps on clean tables, too: up to 5.4."""
LEAST_EXCESS = 0.05
"""The least mean excess that gaps are measured in, in the units of ``Bulk``: rows that crowd below a gap do not make it
wide."""


@dataclass(frozen=True)
class Evidence:
    """What stands apart from the other calibration rows.

    - ``apart``, (n_rows,): rows of a group that is large enough to be taken out.
    - ``stands_out``: the risk above which a group lies that is too small for that: as often honest as not.
    - ``gap``: how far apart, in mean excesses of the rows below.
    """

    apart: Flags
    stands_out: float = float("inf")
    gap: float = 0.0


def find_contamination(
    risk: Floats,
    views: Sequence[Floats] = (),
    *,
    resolution: float = 0.0,
    excused: Callable[[Flags], Flags] | None = None,
) -> Evidence:
    """Look for a group of rows apart from the others.

    - ``risk``, (n_rows,): of calibration rows, none of which was learnt from by what scored it.
    - ``views``: other scores of the same rows, such as the mean of the members that say how far a row is from the
      bulk: outliers that resemble each other are near together, and show in these. Only large groups count there.
    - ``resolution``: risks that differ by less are alike.
    - ``excused``: of a group, rows that it takes no anomaly to explain. They stay, and what is left is taken out only
      if it is large by itself: a second look at the others would find the next step of what lies in steps.

    >>> rng = np.random.default_rng(0)
    >>> found = find_contamination(np.concatenate([rng.normal(size=4900), rng.normal(40, 5, 100)]))
    >>> int(found.apart.sum()), bool(found.apart[-100:].all())
    (100, True)
    >>> int(find_contamination(rng.standard_t(3, 5000)).apart.sum())
    0
    """
    found = _evidence(risk, views, resolution)
    if excused is None or not found.apart.any() or not (ordinary := excused(found.apart) & found.apart).any():
        return found
    apart = found.apart & ~ordinary
    if apart.sum() >= TRIMMED_FROM:
        return replace(found, apart=apart)
    rest = _evidence(risk[~ordinary], [view[~ordinary] for view in views], resolution)
    return replace(rest, apart=np.zeros(len(risk), dtype=bool))


def _evidence(risk: Floats, views: Sequence[Floats], resolution: float) -> Evidence:
    group, gap, below = _widest(risk, resolution)
    apart = np.zeros(len(risk), dtype=bool)
    if group >= TRIMMED_FROM:
        return Evidence(risk > below, gap=gap)
    for view in views:
        found, width, edge = _widest(view, resolution)
        if found >= LARGE_FROM and width >= GAP_VIEW:
            return Evidence(view > edge, gap=width)
    return Evidence(apart, stands_out=below, gap=gap) if group else Evidence(apart)


def _widest(risk: Floats, resolution: float) -> tuple[int, float, float]:
    """The group beyond a gap that counts, the gap, and the risk in its middle; no rows if there is none.

    Gaps are compared with how far values lie apart below them, not rows: of risks that take few values, rows lie apart
    by nothing within a value and by a step between two.
    """
    nothing = (0, 0.0, float("inf"))
    ordered = np.sort(risk)[::-1]
    bulk = Bulk.of(ordered, least=resolution)
    starts = np.append(0, np.flatnonzero(ordered[:-1] - ordered[1:] > resolution) + 1)
    values = ordered[starts]
    above = np.arange(1, len(values) - LEAST_ROWS)  # values above the gap
    group = starts[above] if len(above) else above
    kept = (group >= LEAST_GROUP) & (group <= MOST_SHARE * len(ordered))
    above, group = above[kept], group[kept]
    if bulk is None or not len(group):
        return nothing
    units = bulk.units(values)
    below = np.minimum(np.maximum(LEAST_ROWS, above), (len(values) - above) // 2)
    total = np.append(0.0, np.cumsum(units))
    excess = (total[above + below] - total[above]) / below - units[np.minimum(above + below, len(values) - 1)]
    gap = (units[above - 1] - units[above]) / np.maximum(excess, LEAST_EXCESS)
    least = np.select([group >= LARGE_FROM, group >= TRIMMED_FROM], [GAP_LARGE, GAP_MEDIUM], GAP_SMALL)
    counts = np.flatnonzero(gap >= least)
    if not len(counts):
        return nothing
    at = counts[gap[counts] >= gap[counts].max() / WIDEST][-1]
    return int(group[at]), float(gap[at]), float(values[above[at] - 1 : above[at] + 1].mean())
