"""Charts as SVG: numbers and places, worked out here; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WIDTH, HEIGHT, EDGE = 640.0, 120.0, 10.0
MOST_DOTS = 400


@dataclass(frozen=True)
class Dot:
    """A row in the chart of an entity: where, what kind (usual, flagged, here), and what it says."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class Timeline:
    """The rows of an entity over time.

    - ``dots``: the flagged ones behind the others, so that they lie on top.
    - ``since``, ``until``: what the edges are.
    - ``here``: from where to where this alert reaches, in the units of ``x``.
    """

    dots: Sequence[Dot]
    since: datetime
    until: datetime
    here: tuple[float, float]


def timeline(
    points: Sequence[tuple[datetime, float, bool]], *, first: datetime, last: datetime, until: datetime, days: float
) -> Timeline:
    """Rows by time and by how rare they are: the p-value on a scale of powers of ten, the rarest on top.

    - ``points``: time, p-value, and whether it was flagged.
    - ``first``, ``last``: of the alert.

    >>> from datetime import UTC
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> found = timeline([(now, 0.001, True)], first=now, last=now, until=now, days=90)
    >>> [(dot.x, dot.kind) for dot in found.dots]
    [(630.0, 'here')]
    """
    since = until - timedelta(days=days)
    most = max([3.0, *(_height(p_value) for _, p_value, _ in points)])

    def x_of(when: datetime) -> float:
        share = (when - since).total_seconds() / (86_400 * days)
        return round(EDGE + (WIDTH - 2 * EDGE) * min(max(share, 0.0), 1.0), 1)

    dots = []
    for when, p_value, flagged in points:
        kind = "here" if flagged and first <= when <= last else "flagged" if flagged else "usual"
        y = round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * _height(p_value) / most, 1)
        dots.append(Dot(x_of(when), y, kind, f"{when:%Y-%m-%d %H:%M}, p {p_value:.2g}"))
    usual = [dot for dot in dots if dot.kind == "usual"]
    thinned = usual[:: max(1, math.ceil(len(usual) / MOST_DOTS))]
    return Timeline([*thinned, *(dot for dot in dots if dot.kind != "usual")], since, until, (x_of(first), x_of(last)))


def _height(p_value: float) -> float:
    return -math.log10(min(max(p_value, 1e-9), 1.0))
