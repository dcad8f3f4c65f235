"""Figures of what a detector has learnt: the error of each feature, the map of its code, how alike its members rank.

As in `figures`, a title says what one sees in these data.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError
from detector.metrics import ranking
from pipelines.reports.style import (
    BLUE,
    INK_ON_COLOUR,
    ORANGE,
    RULE,
    empty_figure,
    in_house_style,
    legend_below,
    percent,
    ramp,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 4_000
BARS = 20
LABEL, LINE = 38, 0.155
"""Letters of a line of a label, and how high one is in inches."""


@in_house_style
def feature_error(errors: pd.DataFrame, *, unusual: ArrayLike | None = None) -> Figure:
    """Mean reconstruction error of each feature, and where given of the unusual rows apart; the 20 largest.

    - ``errors`` (n_rows, n_features): in nats.
    - ``unusual``: rows known to be anomalous, or flagged.
    """
    if errors.empty:
        raise DataError("feature_error needs at least one row and one feature. Score some rows first.")
    chosen = np.zeros(len(errors), dtype=bool) if unusual is None else np.asarray(unusual, dtype=bool)
    split = bool(chosen.any() and not chosen.all())
    normal = errors[~chosen].mean() if split else errors.mean()
    high = errors[chosen].mean() if split else normal
    shown = (high if split else normal).sort_values(ascending=False).head(BARS).index[::-1]
    labels = [fill(str(name), LABEL) for name in shown]
    lines = np.array([1 + label.count("\n") for label in labels])
    heights = LINE * lines + 0.09
    places = np.cumsum(heights) - heights / 2
    figure, (axes,) = empty_figure(height=1.5 + max(float(heights.sum()), 1.0))
    if split:
        axes.hlines(places, normal[shown], high[shown], color=RULE, linewidth=2.5, zorder=1)
        axes.plot(
            normal[shown],
            places,
            "o",
            color=BLUE,
            markersize=7,
            label=f"other rows ({int((~chosen).sum()):,})",
        )
        axes.plot(
            high[shown],
            places,
            "o",
            color=ORANGE,
            markersize=7,
            label=f"unusual rows ({int(chosen.sum()):,})",
        )
        legend_below(figure)
        title = f"Unusual rows differ most in {(high - normal).idxmax()}"
    else:
        axes.barh(places, normal[shown], color=BLUE, height=0.15)
        title = f"{shown[-1]} is the hardest to reconstruct"
    more = f" (largest {BARS} of {errors.shape[1]})" if errors.shape[1] > BARS else ""
    axes.set(xlabel=f"mean reconstruction error, nats{more}", title=fill(shorten(title, 80), 44), xlim=(0, None))
    axes.set_yticks(places, labels, fontsize=8, linespacing=1.0)
    axes.set_ylim(0, float(heights.sum()))
    axes.grid(axis="y", visible=False)
    return figure


@in_house_style
def code_map(codes: ArrayLike, *, risk: ArrayLike | None = None, labels: ArrayLike | None = None) -> Figure:
    """The autoencoder's code in its two main directions (PCA), anomalies or high risks on top.

    - ``risk`` (n_rows,): colours the dots where there are no labels.
    - ``labels`` (n_rows,): 1 anomalous, 0 normal, missing unknown.
    """
    points, explained = _principal(np.asarray(codes, dtype=np.float64))
    truth = np.full(len(points), np.nan) if labels is None else ranking.read_labels(labels)
    level = np.zeros(len(points)) if risk is None else np.asarray(risk, dtype=np.float64)
    kept = _sample(len(points), keep=truth == 1)
    kept = kept[np.argsort(np.nan_to_num(level[kept]), kind="stable")]
    points, truth, level = points[kept], truth[kept], level[kept]
    figure, (axes,) = empty_figure(height=4.0)
    look: Any = {"s": 14, "linewidths": 0, "rasterized": True}
    if (truth == 1).any():
        ordinary = truth != 1
        axes.scatter(*points[ordinary].T, color=BLUE, alpha=0.35, label="normal or unknown", **look)
        axes.scatter(*points[~ordinary].T, color=ORANGE, alpha=0.9, label="known anomalies", **look)
        figure.legend(loc="outside lower right", ncols=2)
    elif risk is not None:
        low, high = np.quantile(level, [0.05, 0.995])
        across, up = points.T
        dots = axes.scatter(across, up, c=level, cmap=ramp(), vmin=low, vmax=high, **look)
        bar = figure.colorbar(dots, ax=axes, label="risk", fraction=0.04, pad=0.02)
        bar.outline.set_visible(False)
    else:
        axes.scatter(*points.T, color=BLUE, alpha=0.4, **look)
    _trim(axes, points)
    axes.set(title=f"Two directions hold {percent(float(explained.sum()))} of what the code says")
    axes.set(xlabel=f"direction 1 ({percent(float(explained[0]))} of variance)")
    axes.set(ylabel=f"direction 2 ({percent(float(explained[1]))})")
    return figure


@in_house_style
def member_correlation(scores: pd.DataFrame) -> Figure:
    """Rank correlation of the members' scores as a small table of squares."""
    matrix = ranking.member_correlation(scores)
    names, values = [str(name).replace("_", " ") for name in matrix.columns], matrix.to_numpy()
    size = len(names)
    figure, (axes,) = empty_figure(height=1.4 + 0.55 * size)
    axes.imshow(values, cmap=ramp(diverging=True), vmin=-1, vmax=1, aspect="auto")
    for row in range(size):
        for column in range(size):
            value = values[row, column]
            strong = bool(abs(value) > 0.6)
            text = "none" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if strong else INK_ON_COLOUR)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    others = values[~np.eye(size, dtype=bool)]
    mean = float(np.nanmean(others)) if others.size and not np.isnan(others).all() else 1.0
    kind = "much the same order" if mean > 0.8 else "related but different orders" if mean > 0.3 else "different orders"
    axes.set(
        title=f"Members rank the rows in {kind}" if size > 1 else "One member",
        xlabel="Spearman rank correlation",
    )
    return figure


def _principal(codes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if codes.ndim != 2 or len(codes) < 2:
        raise DataError(f"code_map needs a code for each of at least two rows, received shape {codes.shape}.")
    centred = codes - codes.mean(axis=0)
    variance, directions = np.linalg.eigh(centred.T @ centred)
    variance, directions = np.clip(variance[::-1], 0, None), directions[:, ::-1]
    points = np.zeros((len(codes), 2))
    wide = min(2, codes.shape[1])
    points[:, :wide] = centred @ directions[:, :wide]
    share = np.zeros(2)
    share[:wide] = variance[:wide] / max(float(variance.sum()), 1e-300)
    return points, share


def _sample(rows: int, *, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    if rows <= DOTS:
        return np.arange(rows)
    random = np.random.default_rng(0)
    kept = np.flatnonzero(keep)[:DOTS]
    others = random.choice(np.flatnonzero(~keep), min(DOTS, int((~keep).sum())), replace=False)
    return np.concatenate([others, kept])


def _trim(axes: Axes, points: NDArray[np.float64]) -> None:
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    room = 0.15 * np.maximum(high - low, 1e-9)
    axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
