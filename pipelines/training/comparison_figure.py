"""A comparison as a picture: what each detector finds for the work it makes, and how right its p-values are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.registry.comparison import Comparison
from pipelines.reports.style import BLUE, GREY, INK, ORANGE, count_axis, in_house_style, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (("champion", BLUE), ("challenger", ORANGE))


@in_house_style
def comparison_figure(found: Comparison) -> Figure:
    """Recall against rows looked at, and the p-values against the diagonal they should follow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _recall(left, found)
    _calibration(right, found)
    return figure


def _recall(axes: Axes, found: Comparison) -> None:
    known = ~np.isnan(found.truth)
    at_budget: list[float] = []
    for (name, colour), risk in zip(COLOURS, found.judged, strict=True):
        order = np.argsort(-risk[known], kind="stable")
        recall = np.cumsum(found.truth[known][order]) / max(found.truth[known].sum(), 1.0)
        at = min(found.budget, len(recall)) - 1
        at_budget.append(float(recall[at]))
        axes.plot(np.arange(1, len(recall) + 1), recall, color=colour, label=name)
        axes.plot(at + 1, recall[at], "o", color=colour, markersize=6)
    axes.axvline(found.budget, color=INK, linestyle="--", linewidth=1, label=f"{found.budget:,} rows looked at")
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="riskiest rows looked at", ylabel="share of anomalies found")
    count_axis(axes.xaxis)
    kind = "known" if found.basis == "labels" else "injected"
    axes.set_title(
        f"Challenger finds {percent(at_budget[1])} of {kind} anomalies, champion {percent(at_budget[0])}", fontsize=10
    )
    axes.legend()


def _calibration(axes: Axes, found: Comparison) -> None:
    for (name, colour), side in zip(COLOURS, (found.champion, found.challenger), strict=True):
        values = np.sort(side.p_value)
        shares = np.arange(1, len(values) + 1) / len(values)
        axes.plot(values, shares, color=colour, label=f"{name}, off by {side.calibration:.2f}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set(xlabel="p-value", ylabel="share of rows at or below", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Right p-values follow the diagonal", fontsize=10)
    axes.legend()
