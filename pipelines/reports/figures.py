"""Figures for the report and for MLflow: plain arrays or frames in, a Matplotlib Figure out.

A title says what one sees in these data, not what kind of plot it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError
from detector.metrics import ranking
from detector.metrics.budget import budget_metrics
from detector.metrics.calibration import alert_curve, calibration_metrics
from pipelines.reports.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    count_axis,
    empty_figure,
    in_house_style,
    legend_below,
    percent,
    percent_axis,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 4_000
BARS = 20
STEPS = 1_000
"""Points of a curve: more are not to be seen, and make a page of megabytes."""


@in_house_style
def loss_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss on the rows fitted and on the rows held out, and below it the learning rate.

    - ``history``: one value an epoch: ``loss``, and where known ``held_out_loss`` and ``learning_rate``.

    Raises ``DataError`` if there is no epoch.
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
    axes[0].legend(loc="upper right")
    if rate:
        axes[1].plot(epochs, rate, color=GREY)
        axes[1].set(ylabel="learning rate", ylim=(0, None))
    axes[-1].set(xlabel="epoch")
    axes[-1].locator_params(axis="x", integer=True)
    return figure


@in_house_style
def risk_histogram(risk: ArrayLike, *, labels: ArrayLike | None = None, threshold: float | None = None) -> Figure:
    """How the risk is distributed, anomalies apart where labels are known; counts on a logarithmic scale.

    - ``labels`` (n_rows,): 1 anomalous, 0 normal, missing unknown.
    - ``threshold``: the least risk that was flagged.
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
    legend_below(figure)
    return figure


@in_house_style
def precision_recall(labels: ArrayLike, risk: ArrayLike, *, budget: int | None = None) -> Figure:
    """Precision against recall, with the line of a blind guess and, where given, the alert budget.

    Raises ``DataError`` if the known labels are all of one class.
    """
    facts, curve = ranking.ranking_metrics(labels, risk), ranking.pr_curve(labels, risk)
    figure, (axes,) = empty_figure()
    drawn = curve.iloc[_thinned(len(curve))]
    recall = np.append(0.0, drawn["recall"])
    precision = np.append(drawn["precision"].iloc[0], drawn["precision"])
    axes.step(recall, precision, color=BLUE, where="pre", label=f"risk (average precision {facts['ap']:.2f})")
    axes.axhline(
        facts["prevalence"],
        color=GREY,
        linestyle="--",
        linewidth=1.4,
        label=f"blind guess ({facts['prevalence']:.3f})",
    )
    if budget:
        found = budget_metrics(labels, risk, budget)
        precise, recalled = found["precision_at_budget"], found["recall_at_budget"]
        label = f"{found['budget']:,.0f} rows looked at: precision {percent(precise)}, recall {percent(recalled)}"
        axes.plot(recalled, precise, "o", color=ORANGE, markersize=8, label=label)
    lift = facts["ap"] / facts["prevalence"]
    axes.set(xlabel="recall: share of anomalies found", ylabel="precision: share of flags that are right")
    axes.set(title=f"Ranking is {_times(lift)} as precise as a blind guess", xlim=(0, 1.01), ylim=(0, 1.03))
    legend_below(figure, columns=2)
    return figure


@in_house_style
def alert_rate(p_value: ArrayLike, *, chosen: float | None = None) -> Figure:
    """The share of rows that each threshold on the p-value would flag, and the threshold chosen.

    - ``chosen``: the largest p-value that was flagged.
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

    - ``p_value`` (n_rows,): of normal rows that took no part in fitting or calibration.
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


def _known(risk: ArrayLike, labels: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.asarray(risk, dtype=np.float64)
    truth = np.full(len(values), np.nan) if labels is None else ranking.read_labels(labels)
    finite = np.isfinite(values)
    if not finite.any():
        raise DataError("There is no risk to draw. Score at least one row first.")
    return values[finite], truth[finite]


def _thinned(rows: int) -> NDArray[np.intp]:
    """Places of a curve's points to draw: all at the start, where they lie apart, then fewer; the last one always."""
    steps = np.geomspace(1, rows, min(STEPS, rows)).astype(np.intp) - 1
    return np.unique(np.concatenate([np.arange(min(STEPS, rows)), steps, [rows - 1]]))


def _times(ratio: float) -> str:
    return f"{ratio:.0f} times" if ratio >= 3 else f"{ratio:.1f} times"
