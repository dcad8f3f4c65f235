"""Figures about sensors: the risk over time, and what was observed against what was expected around an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError
from pipelines.reports.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    date_axis,
    empty_figure,
    in_house_style,
    legend_below,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 4_000
MOST_SENSORS = 3


@in_house_style
def risk_over_time(
    when: ArrayLike,
    risk: ArrayLike,
    *,
    flagged: ArrayLike,
    labels: ArrayLike | None = None,
    whose: object = None,
) -> Figure:
    """Risk against time; flagged segments are marked, and known anomalies where there are labels.

    - ``when`` (n_rows,): times, or positions.
    - ``labels`` (n_rows,): 1 for known anomalies.
    - ``whose``: named in the title.

    Raises ``DataError`` if there are no rows.
    """
    when, risk, flagged = np.asarray(when), np.asarray(risk, dtype=float), np.asarray(flagged, dtype=bool)
    if not len(risk):
        raise DataError("risk_over_time needs at least one row.")
    block = -(-len(risk) // MOST_POINTS)
    starts = np.arange(0, len(risk), block)
    highest = np.maximum.reduceat(np.nan_to_num(risk, nan=-np.inf), starts)
    figure, (axes,) = empty_figure()
    axes.plot(when[starts], highest, color=BLUE, linewidth=1.0, label="risk" if block == 1 else "highest risk")
    _shade(axes, when, flagged, colour=ORANGE, label="flagged", place=(0.0, 0.94))
    if labels is not None:
        _shade(axes, when, np.asarray(labels) == 1, colour=INK, label="known anomaly", place=(0.95, 1.0))
    runs = int(np.count_nonzero(np.diff(flagged.astype(int), prepend=0) == 1))
    of = "" if whose in (None, "") else f" of {shorten(str(whose), 20)}"
    axes.set(ylabel="risk", title=f"{runs} flagged segment{'s' if runs != 1 else ''} in {len(risk):,} rows{of}")
    axes.set_yscale("symlog", linthresh=max(float(np.nanmedian(np.abs(risk))), 1e-9))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    legend_below(figure)
    if np.issubdtype(when.dtype, np.datetime64):
        date_axis(axes)
    return figure


@in_house_style
def event_curves(
    curves: pd.DataFrame, *, event: pd.Series, sensors: Sequence[str], called: Callable[[str], str] = str
) -> Figure:
    """What each sensor at fault read around an event, and what it should have read.

    - ``curves``: the lines of one event in ``SequenceScorer.curves``.
    - ``event``: its line in the events: ``start``, ``end``, ``entity`` where there is one.
    - ``sensors``: those to draw, the most important first; at most three are drawn.
    - ``called``: what people call a sensor.

    Raises ``DataError`` if there is no sensor.
    """
    shown = list(sensors)[:MOST_SENSORS]
    if not shown:
        raise DataError("event_curves needs at least one sensor.")
    figure, every = empty_figure(rows=len(shown), height=1.55 + 1.35 * len(shown))
    for axes, name in zip(every, shown, strict=True):
        own = curves[curves["sensor"] == name]
        axes.axvspan(event["start"], event["end"], color=ORANGE, alpha=0.15, linewidth=0)
        axes.plot(own["when"], own["expected"], color=GREY, linewidth=1.4, label="expected")
        axes.plot(own["when"], own["observed"], color=BLUE, linewidth=1.4, label="observed")
        axes.set_ylabel(shorten(called(name), 24), fontsize=8)
    where = f"{event['entity']}: " if event.get("entity") not in (None, "") else ""
    every[0].set_title(f"{where}{called(shown[0])} from {_as_text(event['start'])}")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    if isinstance(event["start"], pd.Timestamp):
        date_axis(every[-1])
    figure.align_ylabels()
    return figure


def _shade(
    axes: Axes, when: NDArray[Any], marked: NDArray[np.bool_], *, colour: str, label: str, place: tuple[float, float]
) -> None:
    edges = np.flatnonzero(np.diff(np.r_[False, marked, False].astype(np.int8)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        last = when[min(after, len(when) - 1)]
        axes.axvspan(when[first], last, *place, color=colour, alpha=0.35, linewidth=0, label=label)
        label = ""  # one line in the legend for all


def _as_text(when: object) -> str:
    return f"{when:%d %b %Y %H:%M:%S}" if isinstance(when, pd.Timestamp) else f"row {when}"
