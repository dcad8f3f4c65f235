"""Figures that compare encoders: how well they rebuild, at what cost, and what they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from detector.errors import DataError
from pipelines.reports.style import BLUE, GREY, INK, ORANGE, in_house_style, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, "#4f8a5b", "#8a5a83", GREY, "#b08a2e", "#2f4b6e", "#c26b8a")
DAMAGES = {
    "noise": "noise (deviations)",
    "missing": "values missing (%)",
    "contamination": "dirty training rows (%)",
}
MEASURES = {"error": "error", "rank_stability": "rank stability", "auroc": "AUROC"}


@in_house_style
def encoder_table(table: pd.DataFrame) -> Figure:
    """Errors on fitted and on held-out rows of each encoder, with its speed, its training time and its size in words.

    - ``table``: as ``detector.lab.report.compare`` gives it.

    Raises ``DataError`` if there is no encoder.
    """
    from matplotlib.figure import Figure

    if table.empty:
        raise DataError("encoder_table needs at least one encoder. Pass the table of detector.encoder_report.compare.")
    ranked = table.sort_values("error_held_out", ascending=False)
    figure = Figure(figsize=(6.2, 1.5 + 0.5 * len(ranked)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    places = np.arange(len(ranked))
    axes.barh(places + 0.19, ranked["error_train"], height=0.34, color=BLUE, label="rows fitted")
    axes.barh(places - 0.19, ranked["error_held_out"], height=0.34, color=ORANGE, label="rows held out")
    for place, (_, facts) in zip(places, ranked.iterrows(), strict=True):
        end = max(facts["error_train"], facts["error_held_out"])
        axes.annotate(
            _cost(facts), (end, place), (6, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    axes.set_yticks(places, [shorten(str(name), 24) for name in ranked.index])
    axes.set(
        xlabel="reconstruction error (1 is knowing nothing)",
        xlim=(0, 1.7 * float(ranked[["error_train", "error_held_out"]].max(axis=None)) or 1.0),
        title=f"{ranked.index[-1]} rebuilds rows it has not seen best",
    )
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower right", ncols=2)
    return figure


@in_house_style
def encoder_robustness(robustness: pd.DataFrame) -> Figure:
    """Error, rank stability and AUROC of each encoder against noise, missing values and dirty training rows.

    - ``robustness``: as ``detector.lab.report.compare`` gives it.

    Raises ``DataError`` if no damage was tried.
    """
    from matplotlib.figure import Figure

    damages = [damage for damage in DAMAGES if (robustness.loc[robustness["damage"] == damage, "level"] > 0).any()]
    if not damages:
        raise DataError("encoder_robustness needs levels of damage above 0. Compare the encoders with some Levels.")
    figure = Figure(figsize=(2.1 * len(damages) + 0.9, 5.4), layout="constrained", facecolor="white")
    grid = figure.subplots(len(MEASURES), len(damages), sharex="col", sharey="row", squeeze=False)
    names = list(dict.fromkeys(robustness["encoder"]))
    for column, damage in enumerate(damages):
        tried = robustness[robustness["damage"] == damage]
        for row, (measure, label) in enumerate(MEASURES.items()):
            axes = grid[row, column]
            for name, colour in zip(names, _colours(len(names)), strict=True):
                found = tried[tried["encoder"] == name].sort_values("level")
                x = found["level"] * (1 if damage == "noise" else 100)
                axes.plot(x, found[measure], "o-", color=colour, markersize=3.5, linewidth=1.6, label=name)
            if column == 0:
                axes.set_ylabel(label)
            if row == len(MEASURES) - 1:
                axes.set_xlabel(DAMAGES[damage])
            axes.locator_params(axis="x", nbins=4)
    figure.align_ylabels()
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].set_title(_steadiest(robustness))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, [shorten(label, 24) for label in labels], loc="outside lower center", ncols=min(4, len(names))
    )
    return figure


def _cost(facts: pd.Series[Any]) -> str:
    """What an encoder takes, in a line.

    >>> _cost(pd.Series({"rows_per_second": 51234.0, "training_seconds": 3.21, "size_bytes": 20480.0}))
    '51,000 rows/s · 3.2 s to train · 20 kB'
    """
    parts = []
    if "rows_per_second" in facts:
        parts.append(f"{float(format(facts['rows_per_second'], '.2g')):,.0f} rows/s")
    if "training_seconds" in facts:
        parts.append(f"{facts['training_seconds']:.2g} s to train")
    if "size_bytes" in facts:
        parts.append(f"{facts['size_bytes'] / 1024:,.0f} kB")
    return " · ".join(parts)


def _steadiest(robustness: pd.DataFrame) -> str:
    means = robustness[robustness["level"] > 0].groupby("encoder")["rank_stability"].mean()
    if means.isna().all():
        return "What encoders stand"
    if len(means) == 1:
        return f"The ranking stays {means.iloc[0]:.2f} alike under damage"
    return f"{means.idxmax()} keeps its ranking best under damage"


def _colours(number: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(number)]
