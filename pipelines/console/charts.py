"""Charts as SVG: numbers and places, worked out here; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from detector.arrays import Floats
from detector.explain.reason import reading
from pipelines.scoring.alert_curves import SensorCurve

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


@dataclass(frozen=True)
class Curves:
    """What a sensor read and what it should have read, as the ``d`` of two SVG paths.

    - ``low``, ``high``: the values at the edges, in words.
    - ``since``, ``until``, ``here``: as of a ``Timeline``.
    """

    title: str
    observed: str
    expected: str
    low: str
    high: str
    since: datetime
    until: datetime
    here: tuple[float, float]


def curves(curve: SensorCurve, *, first: datetime, last: datetime) -> Curves:
    """A sensor over time; a line ends where there is no reading.

    - ``first``, ``last``: of the alert.
    """
    times = np.array([moment.timestamp() for moment in curve.when.tz_localize(UTC)])
    values = np.concatenate([curve.observed, curve.expected])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    span, length = high - low or 1.0, times[-1] - times[0] or 1.0

    def x_of(seconds: Floats) -> Floats:
        return np.asarray(EDGE + (WIDTH - 2 * EDGE) * np.clip((seconds - times[0]) / length, 0.0, 1.0))

    def path(part: Floats) -> str:
        y = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (part - low) / span
        return _path(x_of(times), y)

    here = x_of(np.array([first.timestamp(), last.timestamp()])).round(1).tolist()
    since, until = (moment.tz_localize(UTC).to_pydatetime() for moment in (curve.when[0], curve.when[-1]))
    return Curves(
        title=curve.title,
        observed=path(curve.observed),
        expected=path(curve.expected),
        low=reading(low),
        high=reading(high),
        since=since,
        until=until,
        here=(here[0], here[1]),
    )


def _path(x: Floats, y: Floats) -> str:
    """Lines through points, lifted where one is missing; of many, the extremes of each place.

    >>> _path(np.array([0.0, 1.0, 2.0, 3.0]), np.array([5.0, 6.0, np.nan, 7.0]))
    'M0 5L1 6M3 7'
    """
    parts, is_down = [], False
    for at in _extremes(y):
        if not np.isfinite(y[at]):
            is_down = False
            continue
        parts.append(f"{'L' if is_down else 'M'}{x[at]:.4g} {y[at]:.4g}")
        is_down = True
    return "".join(parts)


def _extremes(y: Floats) -> Sequence[int]:
    """All places of a curve, or the lowest and highest of so many stretches that no more can be seen."""
    if len(y) <= 2 * WIDTH:
        return range(len(y))
    found: list[int] = []
    for stretch in np.array_split(np.arange(len(y)), int(WIDTH)):
        known = stretch[np.isfinite(y[stretch])]
        found += sorted({int(known[y[known].argmin()]), int(known[y[known].argmax()])}) if len(known) else [stretch[0]]
    return found


def _height(p_value: float) -> float:
    return -math.log10(min(max(p_value, 1e-9), 1.0))
