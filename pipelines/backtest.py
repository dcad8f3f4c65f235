"""Backtest: walk forward through the past, learn again each period, and count what would have been caught."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.clean import clean
from detector.errors import DataError, SchemaError, SettingError, nearest
from detector.features import Money
from detector.policy import Policy
from detector.schema import Schema
from detector.values import read_dates, read_names, read_numbers
from pipelines.aside import left_out
from pipelines.backtest_metrics import in_order, judge_period
from pipelines.backtest_plan import Plan, length
from pipelines.backtest_truth import TRUTH, truth_of
from pipelines.backtest_words import (
    LEAST_ROWS,
    SUPERVISED,
    UNSUPERVISED,
    cautions,
    in_words,
    means_and_spreads,
)
from pipelines.config import Config
from pipelines.config.features import NEEDS_TIME
from pipelines.featuring import Featuring
from pipelines.head import lesson_from, taught, without
from pipelines.labels import Known
from pipelines.learner import detector_of, policy_of
from pipelines.progress import progress
from pipelines.sources import open_source
from pipelines.warm_up import warm, warm_from

AMOUNT = "__amount__"
"""Among the rows of a backtest: amounts in one currency."""


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
    notes : tuple of str
        What a reader should know before trusting the numbers: rows and periods that were left out, and why.
    """

    periods: pd.DataFrame
    plan: Plan
    places: dict[str, str]
    notes: tuple[str, ...] = ()

    def numbers(self) -> pd.DataFrame:
        """Mean of each number over all periods, its spread over periods and, within a period, over seeds."""
        return means_and_spreads(self.periods)

    def summary(self) -> list[str]:
        """The backtest in a few lines."""
        return [*in_words(self.periods, self.plan), *self.notes, *(f"{what}: {at}" for what, at in self.places.items())]


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
        If the columns name no time, or nothing tells what was fraud.
    SchemaError
        If there is no column ``plan.scenario`` or ``features.reported``.
    DataError
        If no period has rows to learn from and to judge.
    """
    rows, schema, notes = _prepare(config, plan, now=now)
    truth = truth_of(rows, schema, config, delay=length(plan.delay), now=now)
    schema = Schema(**{**schema.to_dict(), "label": schema.label or TRUTH})
    rows, known_at = rows.assign(**{str(schema.label): truth.label}), truth.known_at
    policy = policy_of(config.policy, schema)
    found = []
    steps = [(period, seed) for period in plan.periods() for seed in range(plan.seeds)]
    with progress("Backtesting", total=len(steps), unit="trainings") as advance:
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
    periods = in_order(pd.DataFrame(found))
    head, time = config.train.head, rows[schema.time]
    least = head.least_anomalies if head.enabled else None
    notes += cautions(periods, plan, first=time.min(), last=time.max(), least_anomalies=least)
    report = BacktestReport(periods, plan, {}, tuple(notes))
    return _told(report, config, now=now, folder=folder or config.report.parent)


def _prepare(config: Config, plan: Plan, *, now: datetime) -> tuple[pd.DataFrame, Schema, list[str]]:
    """All rows, cleaned and with their features, what their columns mean, and what was left out or could not be read.

    Amounts are in one currency; there are none where currencies are kept apart.
    """
    columns, reported = config.columns, config.features.reported
    if columns.time is None:
        raise SettingError(f"A backtest and its {NEEDS_TIME}")
    source = open_source(config.source)
    for name, said in ((plan.scenario, "the scenario"), (reported, "`features.reported`")):
        if name is not None and name not in (present := source.columns()):
            raise SchemaError(f"There is no column {name!r}, which {said} names. {nearest(name, present)}")
    with progress("Reading", total=source.estimate()) as advance:
        frame = source.read(advance=advance)
    schema, given = columns.schema_of(frame), len(frame) + len(source.rejected)
    if plan.scenario is not None:
        schema = schema.without([plan.scenario])
    aside = Counter({"a line that cannot be read": len(source.rejected)})
    if config.features.wanted:
        featuring = Featuring(config)
        featured = featuring.compute(frame, now=pd.Timestamp(now))
        schema, frame = featuring.schema(schema), featured.rows
        aside.update(featured.quarantine["reason"])
    cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
    aside.update(cleaned.counts)
    rows = cleaned.rows
    if plan.scenario is not None:
        rows = rows.assign(**{plan.scenario: frame.loc[rows.index, plan.scenario]})
    if reported is not None:
        rows = rows.assign(**{reported: read_dates(frame[reported])[0]})
    notes = left_out(+aside, of=given)
    amounts, unsummed = _amounts(frame.loc[rows.index], config.features.money())
    if amounts is not None:
        rows = rows.assign(**{AMOUNT: amounts})
    notes += unsummed
    return rows.sort_values(str(schema.time), kind="stable"), schema, notes


def _amounts(rows: pd.DataFrame, money: Money) -> tuple[pd.Series | None, list[str]]:
    """Amounts in one currency, missing where they do not count; none, with the reason, if there are several."""
    if money.column not in rows or money.currency not in (None, *rows.columns):
        return None, []
    read = pd.DataFrame({money.column: read_numbers(rows[money.column])[0]}, index=rows.index)
    if money.currency is not None:
        read[money.currency] = read_names(rows[money.currency])
        names = sorted(map(str, read[money.currency].dropna().unique()))
        if money.mixed == "apart" and len(names) > 1:
            return None, [f"No amounts are summed: they are in {', '.join(names)}, which are kept apart."]
    usable = money.faults(read) == ""
    return pd.Series(money.read(read[usable]), index=rows.index[usable]).reindex(rows.index), []


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
    since = warm_from(time[time < begin], Featuring(config).reach) if config.features.wanted else None
    members, _ = warm(without(drawn, lesson), str(schema.time), since)
    scorer = taught(detector_of(own, schema).fit(members).scorer_, lesson, own)
    measures = scorer.measure(asked)
    day = asked[str(schema.time)].dt.normalize()
    p_value, risk = measures["p_value"].to_numpy(), measures["risk"].to_numpy()
    flagged = policy.decide(p_value, risk, day=day.to_numpy() if policy.needs_day else None)
    amount = AMOUNT if AMOUNT in asked else None

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
    if not frauds.any():
        return asked
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
    return replace(report, places=places)
