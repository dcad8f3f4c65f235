"""The summary of a backtest: what was found, and what to know before trusting it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import pandas as pd

from pipelines.backtest.metrics import LEAST_ROWS, SUPERVISED, UNSUPERVISED
from pipelines.backtest.plan import Plan
from pipelines.progress import counted
from pipelines.reports.style import percent

PAGE = "backtest.html"
BROKEN = 0.05
CHANCE = 2.0
"""By so many standard deviations of their number there must be more false alarms than were promised. Fewer, and a
handful of them is called a broken promise; more, and a broken one takes long to be seen."""
LEAST_SHARE = 0.01
NOTHING = (
    "Flagged: nothing in any period. The policy asks for more certainty than the p-values can give: learn from more "
    "rows, or take a budget or a quantile."
)


@dataclass(frozen=True)
class BacktestReport:
    """What a backtest found.

    - ``periods``: one row a period and seed: ``begin``, ``seed``, and the numbers of ``period_metrics`` as the detector
      would have decided. Where labels sufficed for a head, those of the head begin with ``with_labels_``, those of the
      members with ``unsupervised_``, and ``head_decides`` is 1 if it had proved itself by then.
    - ``notes``: what a reader should know before trusting the numbers: rows and periods that were left out, and why.
    """

    periods: pd.DataFrame
    plan: Plan
    places: dict[str, str]
    notes: tuple[str, ...] = ()

    def numbers(self) -> pd.DataFrame:
        """Each number over all periods, its spread over periods and, within a period, over seeds."""
        return means_and_spreads(self.periods)

    def summary(self) -> list[str]:
        """The backtest in a few lines."""
        return [
            *summarise(self.periods, self.plan),
            *self.notes,
            *(f"{what}: {at}" for what, at in self.places.items()),
        ]


def means_and_spreads(periods: pd.DataFrame) -> pd.DataFrame:
    """Each number over all periods, its spread over periods and, within a period, over seeds.

    A share of rows is of those of all periods together, as in the lines of the summary; all else is the mean of the
    periods.

    >>> begins = pd.to_datetime(["2024-01-01", "2024-01-08"])
    >>> periods = pd.DataFrame({"begin": begins, "seed": 0, "flagged": [1.0, 9.0], "precision_realised": [1.0, 0.0]})
    >>> means_and_spreads(periods)["mean"].to_dict()
    {'flagged': 5.0, 'precision_realised': 0.1}
    """
    values = periods.drop(columns=["begin", "seed"])
    by_period = values.groupby(periods["begin"])
    over_seeds, means = by_period.std(ddof=0).mean(), values.mean()
    for name in values:
        if (weight := share_of(str(name))) in values:
            means[name] = weighted(periods, str(name), str(weight))
    return pd.DataFrame({"mean": means, "over_periods": by_period.mean().std(ddof=0), "over_seeds": over_seeds})


def share_of(name: str) -> str | None:
    """What a number is a share of; None if it is no share of rows.

    >>> share_of("precision_realised"), share_of("recall_theft"), share_of("ap")
    ('flagged', 'anomalies_theft', None)
    """
    if name in ("precision_realised", "precision_predicted"):
        return "flagged"
    kind, _, scenario = name.partition("_")
    if kind != "recall":
        return None
    return f"anomalies_{scenario}" if scenario else "anomalies"


def summarise(periods: pd.DataFrame, plan: Plan) -> list[str]:
    """What was found, in a few lines. Shares of anomalies, flagged rows and money are of all periods together."""
    begins = periods["begin"].nunique()
    lines = [f"{counted(begins, 'period')} of {plan.every}, {counted(plan.seeds, 'seed')} each{_size(periods, plan)}."]
    lines += _ranking(periods, plan)
    lines += _flagged(periods)
    lines += _amounts(periods)
    lines += _scenarios(periods, plan)
    return lines + _head(periods, plan)


def cautions(
    periods: pd.DataFrame, plan: Plan, *, first: pd.Timestamp, last: pd.Timestamp, least_anomalies: int | None
) -> list[str]:
    """Why the periods are fewer, shorter or worse trained than the plan says.

    - ``first``, ``last``: where the table begins and ends.
    - ``least_anomalies``: how many known anomalies a head needs; nothing is said of a head by default.
    """
    planned, begins = list(plan.periods()), periods["begin"].drop_duplicates()
    notes = []
    if missing := len(planned) - len(begins):
        notes.append(
            f"{missing} of {counted(len(planned), 'period')} left out: without rows, or with fewer than {LEAST_ROWS} "
            f"before them to learn from."
        )
    if planned[-1][1] < pd.Timestamp(plan.end):
        notes.append(f"From {planned[-1][1]:%Y-%m-%d} on nothing is scored: what is left is no whole {plan.every}.")
    ends = dict(planned)
    if last < ends[begins.max()] - pd.Timedelta(days=1):
        notes.append(f"The last period is not whole: the table ends at {last:%Y-%m-%d %H:%M}.")
    if short := int((begins - plan.learnt < first.normalize()).sum()):
        notes.append(
            f"{counted(short, 'period')} learnt from less than {plan.train}: the table begins at "
            f"{first:%Y-%m-%d %H:%M}."
        )
    if least_anomalies is not None and "head_decides" not in periods:
        notes.append(
            f"No head was learnt: in no period were {least_anomalies} anomalies known (`train.head.least_anomalies`)."
        )
    return notes


def _size(periods: pd.DataFrame, plan: Plan) -> str:
    if "anomalies" not in periods:
        return ""
    rows, anomalies = periods["rows"].sum() / plan.seeds, periods["anomalies"].sum() / plan.seeds
    return f"; {rows:,.0f} rows in all, {anomalies:,.0f} of them anomalous"


def _ranking(periods: pd.DataFrame, plan: Plan) -> list[str]:
    numbers, k, walked = means_and_spreads(periods), plan.k, periods["begin"].nunique()
    names = {"auroc": "AUROC", "ap": "average precision", "prevalence": "a blind guess"}
    shown = [f"{word} {_spread(numbers, name, plan, walked)}" for name, word in names.items() if name in numbers.index]
    if not shown:
        return ["Ranking: none, because no period holds both anomalous and normal rows."]
    lines = [f"Ranking: {', '.join(shown)}."]
    if (name := f"card_precision_{k}") in numbers.index:
        ceiling = percent(float(numbers.loc[f"{name}_ceiling", "mean"]))
        lines.append(
            f"The {k} riskiest entities a day: {percent(float(numbers.loc[name, 'mean']))} are anomalous; "
            f"a perfect score would have {ceiling}."
        )
    return lines


def _spread(numbers: pd.DataFrame, name: str, plan: Plan, walked: int) -> str:
    mean, periods, seeds = numbers.loc[name, ["mean", "over_periods", "over_seeds"]]
    if name == "prevalence":
        return f"{mean:.3f}"
    spreads = [f"± {periods:.3f} over periods"] if walked > 1 else []
    spreads += [f"± {seeds:.3f} over seeds"] if plan.seeds > 1 else []
    return f"{mean:.3f}" + (f" ({', '.join(spreads)})" if spreads else "")


def _flagged(periods: pd.DataFrame) -> list[str]:
    if "flagged" not in periods:
        return []
    total, runs = periods["flagged"].sum(), len(periods)
    if not total:
        return [NOTHING]
    recall = f"; {percent(weighted(periods, 'recall', 'anomalies'))} of the anomalies" if "recall" in periods else ""
    lines = [f"Flagged: {_a_day(periods['alerts_per_day'].mean())} rows a day{recall}."]
    if "precision_realised" in periods:
        realised = percent(weighted(periods, "precision_realised", "flagged"))
        promised = percent(weighted(periods, "precision_predicted", "flagged"))
        lines.append(f"Of what was flagged {realised} is anomalous; the p-values promised at least {promised}.")
        lines += _broken_promise(periods)
    if nothing := int((periods["flagged"] == 0).sum()):
        lines.append(f"Nothing was flagged in {nothing} of {runs} trainings.")
    return lines


def _broken_promise(periods: pd.DataFrame) -> list[str]:
    """What to change where clearly less of what was flagged is anomalous than the p-values promised."""
    realised = weighted(periods, "precision_realised", "flagged")
    promised = weighted(periods, "precision_predicted", "flagged")
    if not realised < promised - BROKEN:
        return [f"That is less than promised, by less than {percent(BROKEN)}."] if realised < promised else []
    runs = max(1, periods["seed"].nunique())  # of other seeds they are the same rows
    wrong, expected = ((1 - share) * periods["flagged"].sum() / runs for share in (realised, promised))
    if wrong < expected + CHANCE * sqrt(max(expected, 1.0)):
        return [f"That is less than promised, and may be chance: {wrong:.0f} false alarms in place of {expected:.0f}."]
    factor = (1 - realised) / max(1 - promised, LEAST_SHARE)
    return [
        (
            f"The promise was broken: there are {factor:.1f} times the false alarms that were promised. The p-values "
            f"compare with rows of "
            f"training, and later rows are not like them. Learn from more or more recent rows (`--train`; "
            f"`retrain.days` and `service.jobs.retrain.when` in the service), leave out columns that drift "
            f"(`detector drift` names them; `columns.ignore`), or bound what is flagged (`policy.budget`, a higher "
            f"`policy.quantile`)."
        )
    ]


def _amounts(periods: pd.DataFrame) -> list[str]:
    if "amount_caught" not in periods:
        return []
    caught, missed = periods["amount_caught"].mean(), periods["amount_missed"].mean()
    share = f" ({percent(caught / (caught + missed))})" if caught >= 0 and caught + missed > 0 else ""
    return [f"Amount: {caught:,.0f} of {caught + missed:,.0f} a period caught{share}, {missed:,.0f} missed."]


def _scenarios(periods: pd.DataFrame, plan: Plan) -> list[str]:
    lines = []
    for name in periods:
        if name.startswith("recall_"):
            scenario = name.removeprefix("recall_")
            many = periods[f"anomalies_{scenario}"].sum() / plan.seeds
            share = percent(weighted(periods, name, f"anomalies_{scenario}"))
            lines.append(f"  found of {scenario.replace('_', ' ')}: {share} of {many:,.0f}")
    return lines


def _head(periods: pd.DataFrame, plan: Plan) -> list[str]:
    if "head_decides" not in periods:
        return []
    trained = periods[periods["head_decides"].notna()]
    means, decided = trained.mean(numeric_only=True), int(trained["head_decides"].sum())
    shown = [
        f"{word} {means[f'{SUPERVISED}{name}']:.3f}, without labels {means[f'{UNSUPERVISED}{name}']:.3f}"
        for name, word in (("ap", "average precision"), (f"card_precision_{plan.k}", "precision of the riskiest"))
        if f"{SUPERVISED}{name}" in means
    ]
    often = f"in {len(trained)} of {counted(len(periods), 'training')} and decided in {decided}"
    return [f"With labels: a head was learnt {often}. There: {'; '.join(shown)}."]


def weighted(periods: pd.DataFrame, name: str, weight: str) -> float:
    """A share over all periods together, each as heavy as what it is a share of."""
    known = periods[name].notna()
    whole = float(periods.loc[known, weight].sum())
    return float((periods[name] * periods[weight])[known].sum()) / whole if whole else float("nan")


def _a_day(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
