"""The backtest as figures, a page and a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.figure_style import BLUE, GREY, INK, ORANGE, empty_figure, in_house_style, title_of, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.backtest import BacktestReport

COLOURS = {
    "as it decides": INK,
    "members": BLUE,
    "head": ORANGE,
    "blind guess": GREY,
    "a perfect score": GREY,
    "as it turned out": BLUE,
    "as promised": ORANGE,
    "caught": BLUE,
    "missed": ORANGE,
    "flagged rows": BLUE,
}
STYLE = """
:root{--ground:#f6f7f8;--card:#fff;--ink:#24303c;--soft:#5b6773;--rule:#dfe4e8}
@media(prefers-color-scheme:dark){:root{--ground:#12161b;--card:#1a2027;--ink:#dfe5ea;--soft:#98a4af;--rule:#2d363f}}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:2rem 1.25rem 4rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:1rem}
figure,.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:1rem;margin:0}
figure svg{width:100%;height:auto}.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left}
"""


def figures(report: BacktestReport) -> dict[str, Figure]:
    """What a person would rather look at than read; what was not measured is not drawn."""
    periods, k = report.periods, report.plan.k
    drawn = {}
    ranked = {
        "ap": "as it decides",
        "with_labels_ap": "head",
        "unsupervised_ap": "members",
        "prevalence": "blind guess",
    }
    cards = {
        f"card_precision_{k}": "as it decides",
        f"with_labels_card_precision_{k}": "head",
        f"unsupervised_card_precision_{k}": "members",
        f"card_precision_{k}_ceiling": "a perfect score",
    }
    promised = {"precision_realised": "as it turned out", "precision_predicted": "as promised"}
    amounts = {"amount_caught": "caught", "amount_missed": "missed"}
    for name, title, lines in (
        ("ranking", "Average precision", ranked),
        ("cards", f"Precision of the {k} riskiest a day", cards),
        ("precision", "Precision of what was flagged", promised),
        ("amounts", "Amount", amounts),
        ("alerts", "Alerts a day", {"alerts_per_day": "flagged rows"}),
    ):
        present = {column: label for column, label in lines.items() if column in periods}
        if present:
            drawn[name] = _over_time(periods, present, title)
    scenarios = [name for name in periods if name.startswith("recall_")]
    if scenarios:
        drawn["scenarios"] = _scenarios(periods, scenarios)
    return drawn


@in_house_style
def _over_time(periods: pd.DataFrame, lines: dict[str, str], title: str) -> Figure:
    """One line a number, with a dot for each seed."""
    figure, (axes,) = empty_figure()
    for column, label in lines.items():
        mean, colour = periods.groupby("begin")[column].mean(), COLOURS[label]
        wide = {"linewidth": 6, "alpha": 0.35, "markersize": 9} if colour == INK else {"markersize": 4}
        axes.plot(mean.index, mean, color=colour, label=label, marker="o", **wide)
        if periods["seed"].nunique() > 1:
            axes.scatter(periods["begin"], periods[column], color=colour, s=8, alpha=0.5)
    first, last = periods["begin"].min(), periods["begin"].max()
    margin = max((last - first) / 20, pd.Timedelta(days=1))
    axes.set_xlim(first - margin, last + margin)
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.legend()
    _dates(axes)
    return figure


@in_house_style
def _scenarios(periods: pd.DataFrame, columns: Sequence[str]) -> Figure:
    figure, (axes,) = empty_figure()
    means = periods[list(columns)].mean().sort_values()
    axes.barh([name.removeprefix("recall_").replace("_", " ") for name in means.index], means, color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_title("Share found, by scenario")
    return figure


def _dates(axes: Axes) -> None:
    from matplotlib import dates

    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def write(
    report: BacktestReport, drawn: dict[str, Figure], name: str, folder: Path, *, now: datetime
) -> dict[str, str]:
    """Write ``backtest.html`` and ``backtest.csv``; say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    table, page = folder / "backtest.csv", folder / "backtest.html"
    report.periods.to_csv(table, index=False)
    plan = report.plan
    about = (
        f"{plan.start:%d %B %Y} to {plan.end:%d %B %Y}, every {plan.every}, learnt from {plan.train}, labels known "
        f"after {plan.delay} where no report says otherwise. Made {now:%Y-%m-%d %H:%M}."
    )
    parts = [f"<figure aria-label='{escape(title_of(each))}'>{to_svg(each)}</figure>" for each in drawn.values()]
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.summary())
    numbers = report.numbers().rename(columns=lambda column: column.replace("_", " "))
    page.write_text(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, initial-scale=1'><meta name='color-scheme' content='light dark'>"
        f"<title>{escape(name)} – backtest</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(name)}: backtest</h1><p class='soft'>{escape(about)}</p>"
        f"<div class='card'><ul>{lines}</ul></div><h2>Over time</h2><div class='figures'>{''.join(parts)}</div>"
        f"<h2>Means and spreads</h2><div class='card scroll'>{_table(numbers)}</div>"
        f"<h2>Every period</h2><div class='card scroll'>{_table(report.periods.set_index('begin'))}</div>"
        "</main></body></html>",
        encoding="utf-8",
    )
    return {"Report": str(page), "Table": str(table)}


def _table(frame: pd.DataFrame) -> str:
    return str(frame.to_html(float_format=lambda value: f"{value:,.3f}", border=0, na_rep="", index_names=False))
