"""The backtest as figures, a page and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from pipelines.backtest.metrics import SUPERVISED, UNSUPERVISED
from pipelines.backtest.summary import PAGE, BacktestReport, weighted
from pipelines.reports.page import as_svg, render_page, write_page
from pipelines.reports.style import BLUE, GREY, INK, ORANGE, date_axis, empty_figure, in_house_style, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "as it decides": INK,
    "members": BLUE,
    "head": ORANGE,
    "a blind guess": GREY,
    "a perfect score": GREY,
    "as it turned out": BLUE,
    "as the p-values promised": ORANGE,
    "caught": BLUE,
    "missed": ORANGE,
    "flagged rows": BLUE,
}
WORDS = {
    "begin": "begins on",
    "prevalence": "share of anomalies",
    "auroc": "AUROC",
    "ap": "average precision",
    "flagged": "flagged rows",
    "alerts_per_day": "flagged rows a day",
    "recall": "share of anomalies flagged",
    "precision_realised": "precision, as it turned out",
    "precision_predicted": "precision, as promised",
    "head_decides": "head decides",
}
COUNTS = ("rows", "flagged", "amount")


def figures(report: BacktestReport) -> dict[str, Figure]:
    """What a person would rather look at than read; what was not measured is not drawings."""
    periods, k = report.periods, report.plan.k
    drawings = {}
    ranked = {
        "ap": "as it decides",
        "with_labels_ap": "head",
        "unsupervised_ap": "members",
        "prevalence": "a blind guess",
    }
    cards = {
        f"card_precision_{k}": "as it decides",
        f"with_labels_card_precision_{k}": "head",
        f"unsupervised_card_precision_{k}": "members",
        f"card_precision_{k}_ceiling": "a perfect score",
    }
    promised = {"precision_realised": "as it turned out", "precision_predicted": "as the p-values promised"}
    amounts = {"amount_caught": "caught", "amount_missed": "missed"}
    for name, title, unit, lines in (
        ("ranking", "Average precision", "average precision", ranked),
        ("cards", f"The {k} riskiest entities of a day", "share that is anomalous", cards),
        ("precision", "What was flagged", "share that is anomalous", promised),
        ("amounts", "Amount of frauds", "amount a period", amounts),
        ("alerts", "Flagged rows", "rows a day", {"alerts_per_day": "flagged rows"}),
    ):
        present = {column: label for column, label in lines.items() if column in periods}
        if present:
            drawings[name] = _over_time(periods, present, title, unit)
    scenarios = [name for name in periods if name.startswith("recall_")]
    if scenarios:
        drawings["scenarios"] = _scenarios(periods, scenarios)
    return drawings


@in_house_style
def _over_time(periods: pd.DataFrame, lines: dict[str, str], title: str, unit: str) -> Figure:
    """One line a number, with a dot for each seed."""
    figure, (axes,) = empty_figure()
    for column, label in lines.items():
        mean, colour = periods.groupby("begin")[column].mean(), COLOURS[label]
        beside = {"members", "head"} & set(lines.values())
        wide = {"linewidth": 6, "alpha": 0.35, "markersize": 9} if colour == INK and beside else {"markersize": 4}
        line = "--" if colour == GREY else "-"
        axes.plot(mean.index, mean, color=colour, label=label, marker="o", linestyle=line, clip_on=False, **wide)
        if periods["seed"].nunique() > 1 and colour != GREY:
            axes.scatter(periods["begin"], periods[column], color=colour, s=8, alpha=0.5, clip_on=False)
    first, last = periods["begin"].min(), periods["begin"].max()
    margin = max((last - first) / 20, pd.Timedelta(days=1))
    axes.set_xlim(first - margin, last + margin)
    axes.set_title(title)
    axes.set_xlabel("begin of the period")
    axes.set_ylabel(unit)
    nothing = not periods[list(lines)].fillna(0).to_numpy().any()
    axes.set_ylim(0, 1 if nothing or "precision_realised" in lines else None)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if len(lines) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, borderaxespad=0.2)
        axes.set_title(title, pad=26)
    date_axis(axes)
    return figure


@in_house_style
def _scenarios(periods: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """A bar for each kind of anomaly: the share found over all periods together."""
    figure, (axes,) = empty_figure()
    seeds, found = periods["seed"].nunique(), {}
    for column in columns:
        name = column.removeprefix("recall_")
        many = periods[f"anomalies_{name}"].sum() / seeds
        found[f"{name.replace('_', ' ')} ({many:,.0f})"] = weighted(periods, column, f"anomalies_{name}")
    shares = pd.Series(found).sort_values()
    bars = axes.barh(shares.index, shares, color=BLUE)
    axes.bar_label(bars, [percent(share) for share in shares], padding=4)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("share of the anomalies that were flagged (how many there were)")
    axes.set_title("Found, by scenario")
    return figure


def write(
    report: BacktestReport, drawings: Mapping[str, Figure], name: str, folder: Path, *, now: datetime
) -> dict[str, str]:
    """Write ``backtest.html`` and ``backtest.csv``; say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    table, page = folder / "backtest.csv", folder / PAGE
    write_page(table, report.periods.to_csv(index=False))
    plan = report.plan
    last = list(plan.periods())[-1][1] - pd.Timedelta(days=1)
    about = (
        f"{plan.start:%d %B %Y} to {last:%d %B %Y}, every {plan.every}, learnt from {plan.train}, labels known "
        f"after {plan.delay} where no report says otherwise. Made {now:%Y-%m-%d %H:%M}."
    )
    html = render_page(
        "backtest.html.j2",
        name=name,
        about=about,
        lines=[line[0].upper() + line[1:] for line in map(str.strip, report.summary())],
        seeds=plan.seeds > 1,
        figures=as_svg(drawings),
        means=_means(report),
        periods=_periods(report),
    )
    write_page(page, html)
    return {"Report": str(page), "Table": str(table)}


def _means(report: BacktestReport) -> Markup:
    numbers = report.numbers().drop(columns=[] if report.plan.seeds > 1 else ["over_seeds"])
    shown = numbers.T.apply(lambda values: [_shown(values.name, value) for value in values])
    return _table(shown.T.set_axis(numbers.columns, axis="columns"))


def _periods(report: BacktestReport) -> Markup:
    periods = report.periods
    whole = (periods["begin"] == periods["begin"].dt.normalize()).all()
    begin = periods["begin"].dt.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M")
    if report.plan.seeds > 1:
        begin += [f", seed {seed:.0f}" for seed in periods["seed"]]
    numbers = periods.drop(columns=["begin", "seed"])
    shown = numbers.apply(lambda values: [_shown(values.name, value) for value in values])
    return _table(shown.set_axis(begin, axis="index").T)


def _shown(name: object, value: float) -> str:
    """A number as a reader wants it: counts and money whole, shares to three digits; nothing where it is missing."""
    if pd.isna(value):
        return "–"
    whole = float(value).is_integer() and str(name).startswith((*COUNTS, "anomalies", "seed", "head_decides"))
    money = str(name).startswith("amount")
    return f"{value + 0.0:,.0f}" if whole or money else f"{value + 0.0:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _word(name: object) -> str:
    """The name of a number in words.

    >>> _word("with_labels_card_precision_20"), _word("recall_card_testing")
    ('the 20 riskiest a day, head', 'card testing: share flagged')
    """
    text = str(name)
    for start, end in ((SUPERVISED, ", head"), (UNSUPERVISED, ", members")):
        if text.startswith(start):
            return _word(text.removeprefix(start)) + end
    for start, end in (("anomalies_", ": anomalies"), ("recall_", ": share flagged")):
        if text.startswith(start):
            return text.removeprefix(start).replace("_", " ") + end
    if text.startswith("card_precision_"):
        k, _, ceiling = text.removeprefix("card_precision_").partition("_")
        return f"the {k} riskiest a day" + (", perfect score" if ceiling else "")
    return WORDS.get(text, text.replace("_", " "))


def _table(frame: pd.DataFrame) -> Markup:
    shown = frame.rename(index=_word, columns=_word)
    return Markup(shown.to_html(border=0, index_names=False))
