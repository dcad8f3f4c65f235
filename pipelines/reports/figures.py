"""Figures for the report and for MLflow: plain arrays or frames in, a Matplotlib Figure out.

A title says what one sees in these data, not what kind of plot it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError
from detector.metrics import ranking as evaluate
from detector.metrics.calibration import alert_curve, calibration_metrics
from pipelines.reports.style import (
    BLUE,
    GREY,
    INK,
    INK_ON_COLOUR,
    ORANGE,
    RULE,
    count_axis,
    empty_figure,
    in_house_style,
    percent,
    percent_axis,
    ramp,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 4_000
BARS = 20


@in_house_style
def loss_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss on the rows fitted and on the rows held out, and below it the learning rate.

    Parameters
    ----------
    history : mapping
        One value an epoch: ``loss``, and where known ``held_out_loss`` and ``learning_rate``.

    Raises
    ------
    DataError
        If there is no epoch.
    """
    loss, held_out = list(history.get("loss", [])), list(history.get("held_out_loss", []))
    rate = list(history.get("learning_rate", []))
    if not loss:
        raise DataError("loss_curves needs at least one epoch of 'loss'. Was the autoencoder fitted?")
    epochs = np.arange(1, len(loss) + 1)
    figure, axes = empty_figure(rows=2 if rate else 1, ratios=[3, 1] if rate else None)
    marker = "o" if len(loss) == 1 else None
    axes[0].plot(epochs, loss, color=BLUE, label="rows fitted", marker=marker)
    title = f"Loss over {len(loss)} epoch{'s' if len(loss) > 1 else ''}"
    if held_out:
        best = int(np.nanargmin(held_out)) if not np.isnan(held_out).all() else 0
        axes[0].plot(epochs, held_out, color=ORANGE, label="rows held out", marker=marker)
        axes[0].plot(epochs[best], held_out[best], "o", color=ORANGE, markersize=7, label=f"best, epoch {best + 1}")
        title = f"Held-out loss is lowest at epoch {best + 1} of {len(loss)}"
    axes[0].set(ylabel="loss", title=title)
    axes[0].legend()
    if rate:
        axes[1].plot(epochs, rate, color=GREY)
        axes[1].set(ylabel="learning rate", ylim=(0, None))
    axes[-1].set(xlabel="epoch")
    axes[-1].locator_params(axis="x", integer=True)
    return figure


@in_house_style
def risk_histogram(risk: ArrayLike, *, labels: ArrayLike | None = None, threshold: float | None = None) -> Figure:
    """How the risk is distributed, anomalies apart where labels are known; counts on a logarithmic scale.

    Parameters
    ----------
    risk : array of shape (n_rows,)
    labels : array of shape (n_rows,) or None
        1 anomalous, 0 normal, missing unknown.
    threshold : float or None
        The least risk that was flagged.
    """
    values, truth = _known(risk, labels)
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1e-9), 61).tolist()
    figure, (axes,) = empty_figure()
    groups = [
        ("normal", BLUE, truth == 0),
        ("label unknown", GREY, np.isnan(truth)),
        ("anomalous", ORANGE, truth == 1),
    ]
    if np.isnan(truth).all():
        groups = [("rows", BLUE, np.isnan(truth))]
    for name, colour, chosen in groups:
        if chosen.any():
            label = f"{name} ({int(chosen.sum()):,})"
            axes.hist(values[chosen], edges, color=colour, alpha=0.3, log=True)
            axes.hist(values[chosen], edges, color=colour, histtype="step", linewidth=1.6, log=True, label=label)
    title = "Most rows carry little risk, few carry much"
    if (truth == 1).any() and (truth == 0).any():
        beyond = float(np.mean(values[truth == 1] > np.quantile(values[truth == 0], 0.99)))
        title = f"{percent(beyond)} of anomalies lie above 99 % of normal rows"
    elif threshold is not None:
        title = f"{percent(float(np.mean(values >= threshold)))} of rows are at or above the threshold"
    if threshold is not None and np.isfinite(threshold):
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"flagged from {threshold:.2f}")
    axes.set(xlabel="risk (higher is more anomalous)", ylabel="rows per bin", title=title, ylim=(0.7, None))
    count_axis(axes.yaxis)
    axes.legend()
    return figure


@in_house_style
def precision_recall(labels: ArrayLike, risk: ArrayLike, *, budget: int | None = None) -> Figure:
    """Precision against recall, with the line of a blind guess and, where given, the alert budget.

    Raises
    ------
    DataError
        If the known labels are all of one class.
    """
    facts, curve = evaluate.ranking_metrics(labels, risk), evaluate.pr_curve(labels, risk)
    figure, (axes,) = empty_figure()
    recall = np.append(0.0, curve["recall"])
    precision = np.append(curve["precision"].iloc[0], curve["precision"])
    axes.step(recall, precision, color=BLUE, where="pre", label=f"risk (average precision {facts['ap']:.2f})")
    axes.axhline(
        facts["prevalence"],
        color=GREY,
        linestyle="--",
        linewidth=1.4,
        label=f"blind guess ({facts['prevalence']:.3f})",
    )
    if budget:
        flagged = (curve["recall"] * facts["anomalies"] / curve["precision"]).to_numpy()
        at = int(np.argmin(np.abs(flagged - budget)))
        point = curve.iloc[at]
        label = f"{budget:,} rows looked at: precision {point['precision']:.2f}, recall {point['recall']:.2f}"
        axes.plot(point["recall"], point["precision"], "o", color=ORANGE, markersize=8, label=label)
    lift = facts["ap"] / facts["prevalence"]
    axes.set(xlabel="recall: share of anomalies found", ylabel="precision: share of flags that are right")
    axes.set(title=f"Ranking is {_times(lift)} as precise as a blind guess", xlim=(0, 1.01), ylim=(0, 1.03))
    axes.legend(loc="best")
    return figure


@in_house_style
def feature_error(errors: pd.DataFrame, *, unusual: ArrayLike | None = None) -> Figure:
    """Mean reconstruction error of each feature, and where given of the unusual rows apart; the 20 largest.

    Parameters
    ----------
    errors : DataFrame of shape (n_rows, n_features)
        In nats.
    unusual : array of bool of shape (n_rows,) or None
        Rows known to be anomalous, or flagged.
    """
    if errors.empty:
        raise DataError("feature_error needs at least one row and one feature. Score some rows first.")
    chosen = np.zeros(len(errors), dtype=bool) if unusual is None else np.asarray(unusual, dtype=bool)
    split = bool(chosen.any() and not chosen.all())
    normal = errors[~chosen].mean() if split else errors.mean()
    high = errors[chosen].mean() if split else normal
    shown = (high if split else normal).sort_values(ascending=False).head(BARS).index[::-1]
    places = np.arange(len(shown))
    figure, (axes,) = empty_figure(height=1.5 + 0.27 * max(len(shown), 4))
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
        axes.legend(loc="lower right")
        title = f"Unusual rows differ most in {(high - normal).idxmax()}"
    else:
        axes.barh(places, normal[shown], color=BLUE, height=0.62)
        title = f"{shown[-1]} is the hardest to reconstruct"
    more = f" (largest {BARS} of {errors.shape[1]})" if errors.shape[1] > BARS else ""
    axes.set(xlabel=f"mean reconstruction error, nats{more}", title=shorten(title, 70), xlim=(0, None))
    axes.set_yticks(places, [shorten(str(name), 28) for name in shown])
    axes.grid(axis="y", visible=False)
    return figure


@in_house_style
def code_map(codes: ArrayLike, *, risk: ArrayLike | None = None, labels: ArrayLike | None = None) -> Figure:
    """The autoencoder's code in its two main directions (PCA), anomalies or high risks on top.

    Parameters
    ----------
    codes : array of shape (n_rows, n_dimensions)
    risk : array of shape (n_rows,) or None
        Colours the dots where there are no labels.
    labels : array of shape (n_rows,) or None
        1 anomalous, 0 normal, missing unknown.
    """
    points, explained = _principal(np.asarray(codes, dtype=np.float64))
    truth = np.full(len(points), np.nan) if labels is None else evaluate.read_labels(labels)
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
def alert_rate(p_value: ArrayLike, *, chosen: float | None = None) -> Figure:
    """The share of rows that each threshold on the p-value would flag, and the threshold chosen.

    Parameters
    ----------
    p_value : array of shape (n_rows,)
    chosen : float or None
        The largest p-value that was flagged.
    """
    curve = alert_curve(p_value)
    rows = int(np.count_nonzero(~np.isnan(np.asarray(p_value, dtype=np.float64))))
    seen = curve[curve["alert_rate"] > 0]
    figure, (axes,) = empty_figure()
    axes.loglog(
        curve["threshold"],
        curve["threshold"],
        color=GREY,
        linestyle="--",
        linewidth=1.4,
        label="only normal rows",
    )
    axes.loglog(seen["threshold"], seen["alert_rate"], color=BLUE, label="these rows")
    title = "Alert rate for every threshold"
    if chosen is not None and chosen > 0:
        share = float(np.mean(np.asarray(p_value, dtype=np.float64) <= chosen))
        axes.axvline(chosen, color=ORANGE, linewidth=1.2)
        label = f"chosen: {percent(chosen)}, {share * rows:,.0f} of {rows:,} rows"
        axes.plot(chosen, share, "o", color=ORANGE, markersize=8, label=label)
        title = f"The chosen threshold flags {percent(share)} of the rows"
    axes.set(xlabel="threshold on the p-value", ylabel="share of rows flagged", title=title)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.legend(loc="lower right")
    return figure


@in_house_style
def calibration(p_value: ArrayLike) -> Figure:
    """Observed against nominal share of p-values of normal rows, on a logarithmic scale.

    Parameters
    ----------
    p_value : array of shape (n_rows,)
        Of normal rows that took no part in fitting or calibration.
    """
    facts = calibration_metrics(p_value)
    values = np.sort(np.asarray(p_value, dtype=np.float64))
    values = values[~np.isnan(values)]
    steps = np.unique(values[np.unique(np.geomspace(1, len(values), min(400, len(values))).astype(int)) - 1])
    share = np.searchsorted(values, steps, side="right") / len(values)
    nominal = np.geomspace(1 / len(values), 1, 100)
    spread = 1.96 * np.sqrt(nominal * (1 - nominal) / len(values))
    figure, (axes,) = empty_figure()
    lower = np.clip(nominal - spread, 0.5 / len(values), 1)
    axes.fill_between(nominal, lower, np.clip(nominal + spread, 0, 1), color=GREY, alpha=0.25, linewidth=0)
    axes.loglog(nominal, nominal, color=GREY, linestyle="--", linewidth=1.4, label="perfect, with 95 % band")
    axes.loglog(steps, share, color=BLUE, label=f"{len(values):,} normal rows held out")
    axes.set(xlabel="p-value (threshold)", ylabel="share of normal rows at or below it")
    axes.set(title=f"A threshold of 1 % flags {percent(facts['share_below_0.01'])} of normal rows")
    axes.set(ylim=(0.5 / len(values), 1.3))
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    axes.legend(loc="lower right")
    return figure


@in_house_style
def member_correlation(scores: pd.DataFrame) -> Figure:
    """Rank correlation of the members' scores as a small table of squares."""
    matrix = evaluate.member_correlation(scores)
    names, values = [str(name) for name in matrix.columns], matrix.to_numpy()
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


def _known(risk: ArrayLike, labels: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.asarray(risk, dtype=np.float64)
    truth = np.full(len(values), np.nan) if labels is None else evaluate.read_labels(labels)
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("There is no risk to draw. Score at least one row first.")
    return values[finite], truth[finite]


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


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 3 else f"{ratio:.1f} times"
