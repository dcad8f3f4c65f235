"""Backtest: walk forward through the past, learn again each period, and count what would have been caught."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.clean import clean
from detector.errors import DataError, SettingError
from detector.policy import Policy
from detector.schema import Schema
from detector.values import read_dates
from pipelines.backtest_metrics import judge_period
from pipelines.backtest_plan import Plan, length
from pipelines.config import Config
from pipelines.config.features import NEEDS_TIME
from pipelines.featuring import Featuring
from pipelines.head import lesson_from, taught, without
from pipelines.labels import Known
from pipelines.learner import detector_of, policy_of
from pipelines.progress import progress
from pipelines.sources import open_source

SUPERVISED, UNSUPERVISED = "with_labels_", "unsupervised_"
LEAST_ROWS = 50


@dataclass(frozen=True)
class BacktestReport:
    """What a backtest found.

    Parameters
    ----------
    periods : DataFrame
        One row a period and seed: ``begin``, ``seed``, and the numbers of ``judge_period`` as the detector would have
        decided. Where labels sufficed for a head, those of the head begin with ``with_labels_``, those of the members
        with ``unsupervised_``, and ``head_decides`` is 1 if it had proved itself by then.
    plan : Plan
        How it walked.
    places : dict of str to str
        Where the results lie.
    """

    periods: pd.DataFrame
    plan: Plan
    places: dict[str, str]

    def numbers(self) -> pd.DataFrame:
        """Mean of each number over all periods, its spread over periods and, within a period, over seeds."""
        values = self.periods.drop(columns=["begin", "seed"])
        by_period = values.groupby(self.periods["begin"])
        over_seeds = by_period.std(ddof=0).mean()
        return pd.DataFrame(
            {"mean": values.mean(), "over_periods": by_period.mean().std(ddof=0), "over_seeds": over_seeds}
        )

    def summary(self) -> list[str]:
        """The backtest in a few lines."""
        means, k = self.numbers()["mean"], self.plan.k
        periods, seeds = self.periods["begin"].nunique(), self.plan.seeds
        lines = [f"{periods} periods of {self.plan.every}, {seeds} seed{'s' if seeds > 1 else ''} each."]
        told = {
            "Ranking": (("auroc", "AUROC"), ("ap", "average precision"), ("prevalence", "blind guess")),
            f"The {k} riskiest a day": (
                (f"card_precision_{k}", "precision"),
                (f"card_precision_{k}_ceiling", "a perfect score"),
            ),
            "Flagged": (
                ("alerts_per_day", "a day"),
                ("recall", "recall"),
                ("precision_realised", "precision"),
                ("precision_predicted", "promised"),
            ),
            "Amount": (("amount_caught", "caught a period"), ("amount_missed", "missed")),
            "With labels": (
                (f"{SUPERVISED}ap", "average precision"),
                (f"{SUPERVISED}card_precision_{k}", "precision of the riskiest"),
                (f"{UNSUPERVISED}ap", "without them"),
                ("head_decides", "share of periods in which the head decides"),
            ),
        }
        for title, names in told.items():
            if shown := [f"{word} {_number(means[name])}" for name, word in names if name in means]:
                lines.append(f"{title}: {', '.join(shown)}.")
        found = [(name.removeprefix("recall_"), share) for name, share in means.items() if name.startswith("recall_")]
        lines += [f"  found of {scenario}: {share:.0%}" for scenario, share in found]
        return lines + [f"{what}: {where}" for what, where in self.places.items()]


def backtest(config: Config, plan: Plan, *, now: datetime, folder: Path | None = None) -> BacktestReport:
    """Do each period what the service would have done, with what was known then.

    At the begin of a period the detector learns from the rows of the ``train`` span before it, without those known by
    then to be anomalous. Entities known by the day of a row to be compromised leave what is judged: their card is
    blocked. Features that use labels use only those known in time.

    Parameters
    ----------
    config : Config
        Names the source, the columns, the features, the detector and the policy.
    plan : Plan
        When, how often, how long.
    now : datetime
        When this run happens.
    folder : Path, optional
        Where the report and the table go; beside the configured report by default.

    Raises
    ------
    SettingError
        If the columns name no time or no label.
    DataError
        If no period has rows to learn from and to judge.
    """
    rows, schema = _prepare(config, plan)
    known_at = _known_at(rows, config, plan)
    policy = policy_of(config.policy, schema)
    found = []
    steps = [(period, seed) for period in plan.periods() for seed in range(plan.seeds)]
    with progress("Backtesting", total=len(steps), unit="periods") as advance:
        for (begin, end), seed in steps:
            values = _period(rows, schema, known_at, config, plan, policy, begin=begin, end=end, seed=seed)
            if values:
                found.append({"begin": begin, "seed": seed, **values})
            advance(1)
    if not found:
        raise DataError(
            f"No period from {plan.start:%Y-%m-%d} to {plan.end:%Y-%m-%d} has rows to learn from and to judge; the "
            f"table reaches from {rows[schema.time].min()} to {rows[schema.time].max()}. Choose dates within it."
        )
    report = BacktestReport(pd.DataFrame(found), plan, {})
    return _told(report, config, now=now, folder=folder or config.report.parent)


def _prepare(config: Config, plan: Plan) -> tuple[pd.DataFrame, Schema]:
    """All rows, cleaned and with their features, and what their columns mean."""
    columns = config.columns
    if columns.time is None:
        raise SettingError(f"A backtest and its {NEEDS_TIME}")
    if columns.label is None:
        raise SettingError("A backtest needs to know what turned out to be fraud. Name that column in `columns.label`.")
    source = open_source(config.source)
    with progress("Reading", total=source.estimate()) as advance:
        frame = source.read(advance=advance)
    schema = columns.schema_of(frame)
    if plan.scenario is not None:
        schema = schema.without([plan.scenario])
    if config.features.wanted:
        featuring = Featuring(config)
        schema, frame = featuring.schema(schema), featuring.compute(frame).rows
    rows = clean(frame, schema, labelled=True, positions=frame.index).rows
    if plan.scenario is not None:
        rows = rows.assign(**{plan.scenario: frame.loc[rows.index, plan.scenario]})
    if config.features.reported is not None:
        rows = rows.assign(**{config.features.reported: read_dates(frame[config.features.reported])[0]})
    return rows.sort_values(str(schema.time), kind="stable"), schema


def _known_at(rows: pd.DataFrame, config: Config, plan: Plan) -> pd.Series:
    """When the label of each row became known: as reported, or after the delay."""
    later = rows[str(config.columns.time)] + length(plan.delay)
    if config.features.reported is None:
        return later
    return rows[config.features.reported].where(rows[str(config.columns.label)] == 1, later)


def _period(
    rows: pd.DataFrame,
    schema: Schema,
    known_at: pd.Series,
    config: Config,
    plan: Plan,
    policy: Policy,
    *,
    begin: pd.Timestamp,
    end: pd.Timestamp,
    seed: int,
) -> dict[str, float]:
    """Learn from what was known at the begin, judge the period; nothing if there are too few rows for either."""
    time, label = rows[str(schema.time)], str(schema.label)
    past = (time >= begin - length(plan.train)) & (time < begin)
    learnt, asked = rows[past], _unblocked(rows, schema, known_at, begin=begin, end=end)
    if len(learnt) < LEAST_ROWS or asked.empty:
        return {}
    learnt = learnt.assign(**{label: learnt[label].where(known_at[past] <= begin)})
    drawn = learnt
    if config.train.rows is not None and len(learnt) > config.train.rows:
        drawn = learnt.sample(config.train.rows, random_state=seed)
    own = config.model_copy(update={"random_state": seed})
    lesson = None
    if config.train.head.enabled:
        lesson = lesson_from(drawn, Known(drawn[label], known_at[drawn.index]), own)
    members = without(drawn, lesson)
    scorer = taught(detector_of(own, schema).fit(members).scorer_, lesson, own)
    measures = scorer.measure(asked)
    day = asked[str(schema.time)].dt.normalize()
    p_value, risk = measures["p_value"].to_numpy(), measures["risk"].to_numpy()
    flagged = policy.decide(p_value, risk, day=day.to_numpy() if policy.needs_day else None)
    amount = config.features.amount if config.features.amount in asked else None

    def judged(score: NDArray[np.float64]) -> dict[str, float]:
        return judge_period(
            asked,
            entity=schema.entity,
            day=day,
            truth=asked[label],
            risk=score,
            flagged=flagged,
            p_value=p_value,
            amount=amount,
            scenario=plan.scenario,
            k=plan.k,
        )

    values = judged(risk)
    if (head := scorer.head) is not None:
        alone = scorer.unsupervised(asked)
        for kind, score in ((SUPERVISED, head.risk(asked, alone)), (UNSUPERVISED, alone["risk"].to_numpy())):
            found, ranked = judged(score), ("auroc", "ap", f"card_precision_{plan.k}")
            values |= {f"{kind}{name}": found[name] for name in ranked if name in found}
        values["head_decides"] = float(head.serves)
    return values


def _unblocked(
    rows: pd.DataFrame, schema: Schema, known_at: pd.Series, *, begin: pd.Timestamp, end: pd.Timestamp
) -> pd.DataFrame:
    """The rows of a period without those of entities known, before their day, to be compromised."""
    time = rows[str(schema.time)]
    asked = rows[(time >= begin) & (time < end)]
    if schema.entity is None:
        return asked
    frauds = rows[schema.label] == 1
    blocked = known_at[frauds].groupby(rows.loc[frauds, schema.entity]).min()
    since = asked[schema.entity].map(blocked)
    return asked[~(since <= asked[str(schema.time)].dt.normalize()).to_numpy(dtype=bool)]


def _told(report: BacktestReport, config: Config, *, now: datetime, folder: Path) -> BacktestReport:
    """Write the report and the table, and log both to MLflow."""
    from pipelines.backtest_report import figures, write

    drawn = figures(report)
    places = write(report, drawn, config.name, folder, now=now)
    if config.tracking.enabled:
        from pipelines.tracking.backtest import log_backtest

        places["MLflow run"] = log_backtest(
            config.tracking.uri,
            config.tracking.experiment or config.name,
            name=f"backtest {config.name}",
            params={**{name: str(value) for name, value in vars(report.plan).items()}, "config": config.to_dict()},
            periods=report.periods,
            means=report.numbers()["mean"].to_dict(),
            figures=drawn,
            summary="\n\n".join(report.summary()),
        )
    return BacktestReport(report.periods, report.plan, places)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3f}"
