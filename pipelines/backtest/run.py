"""Backtest: walk forward through the past, learn again each period, and count what would have been caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from detector.cleaning.clean import clean
from detector.cleaning.values import read_names, read_numbers
from detector.decide.policy import Policy
from detector.detectors.table.recipe import EVERY
from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError, SchemaError, SettingError, nearest
from detector.features import Money
from detector.schema import Schema
from pipelines.backtest.metrics import LEAST_ROWS, SUPERVISED, UNSUPERVISED, ScoredPeriod, in_order, period_metrics
from pipelines.backtest.plan import Plan, length
from pipelines.backtest.summary import PAGE, BacktestReport, cautions
from pipelines.config import Config
from pipelines.config.features import NEEDS_TIME
from pipelines.factory.detector import fit_warm, policy_of
from pipelines.factory.gates import gated, without_maintenance
from pipelines.factory.kinds import KINDS, sample_note
from pipelines.factory.labelled_set import labelled_set_from, train_head, without
from pipelines.features.burn_in import warm
from pipelines.features.engine import FeatureEngine, feature_engine_of
from pipelines.ingest.usable import open_usable
from pipelines.labels.feedback import Statements
from pipelines.labels.known import TRUTH, KnownLabels, LabelHistory, with_report_time
from pipelines.progress import progress
from pipelines.reports.page import check_page
from pipelines.sinks.quarantine import count_quarantined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMOUNT = "__amount__"
"""Among the rows of a backtest: amounts in one currency."""


def backtest(config: Config, plan: Plan, *, now: datetime, folder: Path | None = None) -> BacktestReport:
    """Do each period what the service would have done, with what was known then.

    At the begin of a period the detector learns from the rows of the ``train`` span before it, without those known by
    then to be anomalous. Entities known by the day of a row to be compromised leave what is scored, and what is learnt
    from later: their card is blocked. Features that use labels use only those known in time.

    Raises ``SettingError`` if the columns name no time, or nothing tells what was fraud; ``SchemaError`` if there is no
    column ``plan.scenario`` or ``features.reported``; ``DataError`` if no period has rows to learn from and to score.
    """
    folder = folder or config.report.parent
    check_page(folder / PAGE)
    engine = feature_engine_of(config, trained=False)
    rows, schema, notes = _prepare(config, plan, engine, now=now)
    statements = Statements.read(config) if engine is None else engine.reader.statements
    history = LabelHistory(rows, schema, config, statements, length(plan.delay))
    truth = history.truth(now)
    schema = Schema(**{**schema.to_dict(), "label": schema.label or TRUTH})
    rows = rows.assign(**{str(schema.label): truth.label})
    whole_from = None if engine is None else rows[schema.time].min() + engine.reach
    if config.columns.label is None:  # as training does, which knows of no label column either
        config = config.model_copy(update={"train": config.train.model_copy(update={"calibrate_on": EVERY})})
    kind = KINDS[config.kind]
    walk = _Walk(schema, plan, policy_of(config.policy, schema), whole_from)
    found, most, blocks = [], 0, kind.rows_stand_alone  # a card is blocked, a machine is mended
    periods = list(plan.periods())
    with progress("Backtesting", total=len(periods) * plan.seeds, unit="trainings") as advance:
        for begin, end in periods:
            known = history.known_by(begin, since=begin - plan.learnt)
            learnt = _unblocked(rows, schema, truth.known_at, begin=begin - plan.learnt, end=begin, blocks=blocks)
            learnt, _ = without_maintenance(learnt, config, schema)
            learnt = learnt.assign(**{str(schema.label): known.label[learnt.index]})
            unblocked = _unblocked(rows, schema, truth.known_at, begin=begin, end=end, blocks=blocks)
            most = max(most, len(learnt))
            for seed in range(plan.seeds):
                own = config.model_copy(update={"random_state": seed})
                values = walk.period(learnt, known, unblocked, own)
                if values:
                    found.append({"begin": begin, "seed": seed, **values})
                advance(1)
    if not found:
        raise DataError(
            f"No period from {plan.start:%Y-%m-%d} to {plan.end:%Y-%m-%d} has rows to learn from and to score; the "
            f"table reaches from {rows[schema.time].min()} to {rows[schema.time].max()}. Choose dates within it."
        )
    measured = in_order(pd.DataFrame(found))
    head, time = config.train.head, rows[schema.time]
    least = head.least_anomalies if head.enabled else None
    if (drawn := sample_note(kind, most, config.train.rows)) is not None:
        notes.append(f"In the period with the most rows: {drawn}")
    notes += cautions(measured, plan, first=time.min(), last=time.max(), least_anomalies=least)
    report = BacktestReport(measured, plan, {}, tuple(notes))
    return _publish(report, config, now=now, folder=folder)


def _prepare(
    config: Config, plan: Plan, engine: FeatureEngine | None, *, now: datetime
) -> tuple[pd.DataFrame, Schema, list[str]]:
    """All rows, cleaned and with their features, what their columns mean, and what was left out or could not be read.

    Amounts are in one currency; there are none where currencies are kept apart.
    """
    columns, reported = config.columns, config.features.reported
    if columns.time is None:
        raise SettingError(f"A backtest and its {NEEDS_TIME}")
    source = open_usable(config)
    for name, said in ((plan.scenario, "the scenario"), (reported, "`features.reported`")):
        if name is not None and name not in (present := source.columns()):
            raise SchemaError(f"There is no column {name!r}, which {said} names. {nearest(name, present)}")
    with progress("Reading", total=source.estimate()) as advance:
        frame = source.read(advance=advance)
    schema, given = KINDS[config.kind].schema(frame, config), len(frame) + len(source.rejected)
    if plan.scenario is not None:
        schema = schema.without([plan.scenario])
    quarantined = Counter({"a line that cannot be read": len(source.rejected)})
    if engine is not None:
        featured = engine.compute(frame, now=pd.Timestamp(now))
        schema, frame = engine.schema(schema), featured.rows
        quarantined.update(featured.quarantine["reason"])
    cleaned = clean(frame, schema, labelled=schema.label is not None, positions=frame.index)
    quarantined.update(cleaned.counts)
    rows = with_report_time(cleaned.rows, frame, config)
    if plan.scenario is not None:
        rows = rows.assign(**{plan.scenario: frame.loc[rows.index, plan.scenario]})
    notes = count_quarantined(+quarantined, of=given)
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


@dataclass(frozen=True)
class _Walk:
    """What all periods of a backtest have in common; features are whole from ``whole_from`` on."""

    schema: Schema
    plan: Plan
    policy: Policy
    whole_from: pd.Timestamp | None

    def period(self, learnt: pd.DataFrame, known: KnownLabels, rows: pd.DataFrame, config: Config) -> dict[str, float]:
        """Train on what was known at the begin, score the period; nothing if there are too few rows for either."""
        kind = KINDS[config.kind]
        if len(learnt) < LEAST_ROWS or rows.empty:
            return {}
        if config.train.rows is not None and len(learnt) > config.train.rows:
            learnt = learnt.iloc[kind.sample(len(learnt), config.train.rows, config.random_state)]
        labelled = (
            labelled_set_from(learnt, known.of(learnt.index), config, self.schema)
            if config.train.head.enabled
            else None
        )
        members, _ = warm(without(learnt, labelled), str(self.schema.time), self.whole_from)
        scorer = train_head(fit_warm(kind.detector(config, self.schema, _silent), members).scorer_, labelled, config)
        scorer = gated(scorer, config)
        scores = scorer.score(rows, self.policy, explains=False)
        scores = scores.assign(risk=scores["risk"].fillna(scores["risk"].min()), p_value=scores["p_value"].fillna(1.0))
        scored = ScoredPeriod(
            rows,
            day=rows[str(self.schema.time)].dt.normalize(),
            truth=rows[str(self.schema.label)],
            flagged=scores["flagged"].to_numpy(),
            p_value=scores["p_value"].to_numpy(),
            k=self.plan.k,
            entity=self.schema.entity,
            amount=AMOUNT if AMOUNT in rows else None,
            scenario=self.plan.scenario,
        )
        values = period_metrics(scored, scores["risk"].to_numpy())
        if isinstance(scorer, TabularScorer) and (head := scorer.head) is not None:
            alone = scorer.unsupervised(rows)
            for name_of, risk in ((SUPERVISED, head.risk(rows, alone)), (UNSUPERVISED, alone["risk"].to_numpy())):
                found, ranked = period_metrics(scored, risk), ("auroc", "ap", f"card_precision_{self.plan.k}")
                values |= {f"{name_of}{name}": found[name] for name in ranked if name in found}
            values["head_decides"] = float(head.serves)
        return values


def _unblocked(
    rows: pd.DataFrame, schema: Schema, known_at: pd.Series, *, begin: pd.Timestamp, end: pd.Timestamp, blocks: bool
) -> pd.DataFrame:
    """The rows of a period; without those of entities known before their day to be compromised, if that blocks them."""
    time = rows[str(schema.time)]
    inside = rows[(time >= begin) & (time < end)]
    if schema.entity is None or not blocks:
        return inside
    frauds = rows[schema.label] == 1
    if not frauds.any():
        return inside
    blocked = known_at[frauds].groupby(rows.loc[frauds, schema.entity]).min()
    since = inside[schema.entity].map(blocked)
    return inside[~(since <= inside[str(schema.time)].dt.normalize()).to_numpy(dtype=bool)]


def _silent(what: str, done: int, planned: int) -> None:
    del what, done, planned


def _publish(report: BacktestReport, config: Config, *, now: datetime, folder: Path) -> BacktestReport:
    """Write the report and the table, and log both to MLflow."""
    from pipelines.backtest.report import figures, write

    drawings = figures(report)
    places = write(report, drawings, config.name, folder, now=now)
    if config.tracking.enabled:
        from pipelines.tracking import open_command

        run = _log(report, config, drawings)
        seen = open_command(config.tracking.uri)
        places["MLflow run"] = f"{run}; see it with: {seen}" if seen else run
    return replace(report, places=places)


def _log(report: BacktestReport, config: Config, drawings: Mapping[str, Figure]) -> str:
    """One run for all, and below it one for each period."""
    from pipelines.tracking.study import Part, Study, log_study

    periods = report.periods
    study = Study(
        name=f"backtest {config.name}",
        job="backtest",
        description="\n\n".join(report.summary()),
        params={**{name: str(value) for name, value in vars(report.plan).items()}, "config": config.to_dict()},
        metrics=report.numbers()["mean"].to_dict(),
        figures=drawings,
        texts={"backtest.csv": periods.to_csv(index=False)},
        parts=[
            Part(f"{begin:%Y-%m-%d}", rows.drop(columns=["begin", "seed"]).mean().to_dict())
            for begin, rows in periods.groupby("begin")
        ],
        series="period",
    )
    return log_study(config.tracking.uri, config.tracking.experiment or config.name, study)
