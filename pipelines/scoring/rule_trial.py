"""A rule tried on rows of the past: what it would have hit, caught and cost, beside the model and the other rules.

Rows are measured as in training and scored by the detector that serves; the other rules are in the states they have. So
the numbers are what would be today, not what was sent then: lists are today's, but for values that have an end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc, read_dates
from detector.decide.support import Support
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.scoring import TableScoring
from detector.errors import DataError, SettingError, nearest
from detector.explain.reason import Reason
from detector.metrics.ranking import read_labels
from detector.persist import bundle
from detector.schema import Schema
from pipelines.config import Config, RuleSection
from pipelines.config.masking import masks_of
from pipelines.factory.detector import policy_of
from pipelines.features.engine import FeatureEngine
from pipelines.features.frames import slices
from pipelines.features.raw_source import RawSource
from pipelines.jobs.context import ProcessCache
from pipelines.labels.feedback import Statements
from pipelines.labels.known import known_labels, with_report_time
from pipelines.progress import counted, progress
from pipelines.rules.checked import book_of
from pipelines.rules.expression import Condition
from pipelines.rules.names import Names, typed
from pipelines.rules.run import RuleRun
from pipelines.rules.stored import HeldRule, in_force
from pipelines.rules.trial_report import Overlap, RuleTrial

MOST_EXAMPLES = 10
TRIED = "tried"


def tried_rule(text: str, rules: Sequence[HeldRule], names: Names) -> RuleSection:
    """The rule of a name, or a new one of an expression.

    Raises ``SettingError`` if it is neither.
    """
    for rule in rules:
        if rule.name == text.strip():
            return rule.section
    try:
        Condition.read(text, names)
    except SettingError as error:
        if text.strip().replace("-", "_").replace(".", "_").isidentifier():
            known = [rule.name for rule in rules]
            raise SettingError(
                f"There is no rule {text.strip()!r}. {nearest(text, known)} Or give a condition, such as amount > 500."
            ) from None
        raise SettingError(f"The condition {text.strip()!r}: {error}") from None
    name = TRIED
    while any(rule.name.casefold() == name for rule in rules):
        name += "-again"
    return RuleSection(name=name, when=text.strip())


def try_rule(
    config: Config,
    rule: str | RuleSection,
    rules: Sequence[HeldRule],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    days: float | None = None,
    now: datetime,
    most_rows: int | None = None,
) -> RuleTrial:
    """Try a rule on the rows of the source.

    - ``rule``: The name of one of ``rules``, a condition, or a whole rule.
    - ``since``, ``until``: From when on, and before when; all rows by default.
    - ``days``: The last so many days before the latest row instead.
    - ``most_rows``: Score at most the latest so many.

    Raises ``SettingError`` if the rule does not fit the columns; ``DataError`` if there are no rows then;
    ``BundleError`` if there is no trained detector; ``SourceError`` if the rows cannot be read.
    """
    scorer = bundle.load(config.bundle.resolve())
    if not isinstance(scorer, TabularScorer):
        raise SettingError("Rules are about rows of tables, and `kind` is sensors.")
    names = Names.of(config, scorer.schema)
    section = tried_rule(rule, rules, names) if isinstance(rule, str) else rule
    others = [each for each in in_force(rules) if each.name != section.name]
    cache = ProcessCache()
    book = book_of(config, [*others, section.model_copy(update={"state": "shadow"})], scorer.schema, cache)
    then = book_of(config, [*others, section.model_copy(update={"state": "live"})], scorer.schema, cache)
    rows, labels, notes = _rows(config, scorer, names, since=since, until=until, days=days, now=now, most=most_rows)
    policy = policy_of(config.policy, scorer.schema)
    with progress("Scoring", total=len(rows)) as advance:
        measured = _Measured(scorer, [scorer.recalled(part) for part in _watched(slices(rows), advance)])
    runs = []
    for each in (book, then):
        run = RuleRun(each, now=now)
        scoring = TableScoring(measured.again(), policy, explains=False, overrides=run)
        for part in slices(rows):
            scoring.add(part)
        run.decide(scoring, None)
        if section.name in run.failed:
            raise SettingError(f"The rule {section.name!r} fails on these rows: {run.failed[section.name]}")
        runs.append(run)
    return _report(config, section, rows, labels, measured, runs[0], runs[1], notes)


class _Measured:
    """A scorer whose rows were measured before, part by part."""

    def __init__(self, scorer: TabularScorer, parts: list[tuple[pd.DataFrame, NDArray[np.float64]]]) -> None:
        self.scorer = scorer
        self.parts = parts
        self._next = 0

    def again(self) -> _Measured:
        """The same measures, to be given out from the first part on."""
        return _Measured(self.scorer, self.parts)

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return self.scorer.schema

    @property
    def support(self) -> Support | None:
        """What a false discovery rate can rest on."""
        return self.scorer.support

    @property
    def measures(self) -> pd.DataFrame:
        """The measures of all rows, in order."""
        return pd.concat([part for part, _ in self.parts])

    def recalled(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """The measures of the next part, whatever the rows: parts come in the order in which they were measured."""
        del rows
        self._next += 1
        return self.parts[self._next - 1]

    def p_value(self, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p-value of each risk."""
        return self.scorer.p_value(risk)

    def as_scores(self, rows: pd.DataFrame, measures: pd.DataFrame, *, flagged: NDArray[np.bool_]) -> pd.DataFrame:
        """The scores of rows, as the scorer makes them of measures."""
        return self.scorer.as_scores(rows, measures, flagged=flagged)

    def explain(self, rows: pd.DataFrame) -> list[list[Reason]]:
        """Nothing is explained in a trial."""
        return [[] for _ in range(len(rows))]


def _watched(parts: Sequence[pd.DataFrame], advance: Any) -> Any:
    for part in parts:
        yield part
        advance(len(part))


def _rows(
    config: Config,
    scorer: TabularScorer,
    names: Names,
    *,
    since: datetime | None,
    until: datetime | None,
    days: float | None,
    now: datetime,
    most: int | None,
) -> tuple[pd.DataFrame, NDArray[np.float64], list[str]]:
    """Cleaned rows of the time with the extra columns of rules, what is known of each, and what is to be said."""
    schema = scorer.schema
    raw, time = RawSource.open(config, schema, place=None, trained=False), schema.time
    told = [name for name in (schema.label, config.features.reported) if name]
    frame = raw.read(also=[*config.columns.for_rules, *told])
    notes: list[str] = []
    if time is None and (since or until or days):
        raise DataError("Rows have no time (`columns.time`), so none can be chosen by it. Leave the times out.")
    when = None if time is None else read_dates(frame[time])[0]
    if when is not None and days is not None and when.notna().any():
        since = (when.max() - timedelta(days=days)).to_pydatetime()
    if raw.engine is not None:
        frame = raw.engine.compute(_recent(frame, when, since, raw.engine), now=pd.Timestamp(now)).rows
    cleaned = clean(frame, schema, positions=frame.index)
    rows = cleaned.rows
    if time is not None:
        inside = np.ones(len(rows), dtype=bool)
        if since is not None:
            inside &= (rows[time] >= naive_utc(since)).to_numpy()
        if until is not None:
            inside &= (rows[time] < naive_utc(until)).to_numpy()
        rows = rows[inside].sort_values(time, kind="stable")
    if rows.empty:
        raise DataError("There are no rows of that time in the source. Give other days.")
    if most is not None and len(rows) > most:
        notes.append(
            f"Only the latest {most:,} of {counted(len(rows))} were looked at; `detector rules try` takes all."
        )
        rows = rows.tail(most)
    rows = rows.assign(**typed(frame.loc[rows.index], names.extra))
    return rows, _labels(rows, frame, config, schema, now=now), notes


def _recent(frame: pd.DataFrame, when: pd.Series | None, since: datetime | None, engine: FeatureEngine) -> pd.DataFrame:
    """The rows that matter: those of the time, and those that their features look back to."""
    if when is None or since is None:
        return frame
    return frame[(when >= naive_utc(since) - engine.reach).to_numpy()]


def _labels(
    rows: pd.DataFrame, frame: pd.DataFrame, config: Config, schema: Schema, *, now: datetime
) -> NDArray[np.float64]:
    if schema.time is not None:
        dated = with_report_time(rows, frame, config)
        return np.asarray(known_labels(dated, config, schema, now=now).label, dtype=np.float64)
    if schema.label is not None and schema.label in rows:
        return np.asarray(read_labels(rows[schema.label]), dtype=np.float64)
    found = np.full(len(rows), np.nan)
    if schema.key is not None:
        for said in Statements.read(config).about(rows[schema.key]).values():
            last = said.drop_duplicates("row", keep="last")
            found[last["row"].to_numpy()] = last["label"].to_numpy()
    return found


def _report(
    config: Config,
    section: RuleSection,
    rows: pd.DataFrame,
    labels: NDArray[np.float64],
    measured: _Measured,
    before: RuleRun,
    then: RuleRun,
    notes: list[str],
) -> RuleTrial:
    hits, time, amount = before.hits[section.name], measured.schema.time, config.alerts.amount
    fraud, fine = labels == 1, labels == 0
    when = None if time is None else rows[time]
    money = None
    if amount is not None and amount in rows:
        money = np.abs(np.nan_to_num(pd.to_numeric(rows[amount], errors="coerce").to_numpy(np.float64)))
    span = 1.0 if when is None else (when.max() - when.min()).total_seconds() / 86_400
    gone = before.flagged & ~then.flagged
    overlaps = [Overlap("the model", "", int(before.model.sum()), int((hits & before.model).sum()))]
    for rule in before.rules:
        if rule.name != section.name:
            theirs = before.hits[rule.name]
            overlaps.append(Overlap(rule.name, rule.section.state, int(theirs.sum()), int((hits & theirs).sum())))
    notes += [f"The rule {name!r} failed on these rows and was left out: {why}" for name, why in before.failed.items()]
    return RuleTrial(
        rule=section.name,
        when=section.when,
        action=section.action,
        rows=len(rows),
        days_in_all=round(span, 2),
        since=None if when is None else when.min().to_pydatetime(),
        until=None if when is None else when.max().to_pydatetime(),
        hits=int(hits.sum()),
        frauds=int((hits & fraud).sum()),
        false_alarms=int((hits & fine).sum()),
        frauds_in_all=int(fraud.sum()),
        only=int((hits & fraud & ~before.flagged).sum()),
        flagged_before=int(before.flagged.sum()),
        flagged_then=int(then.flagged.sum()),
        hidden=int(gone.sum()),
        hidden_frauds=int((gone & fraud).sum()),
        amount=None if money is None else round(float(money[hits].sum()), 2),
        amount_frauds=None if money is None else round(float(money[hits & fraud].sum()), 2),
        amount_false_alarms=None if money is None else round(float(money[hits & fine].sum()), 2),
        days=_by_day(when, hits, fraud),
        overlaps=overlaps,
        examples=_examples(config, rows, measured.measures, hits, before, labels),
        notes=notes,
    )


def _by_day(when: pd.Series | None, hits: NDArray[np.bool_], fraud: NDArray[np.bool_]) -> list[dict[str, Any]]:
    if when is None:
        return []
    day = when.dt.date.to_numpy()
    frame = pd.DataFrame({"day": day, "hits": hits, "frauds": hits & fraud})
    counts = frame.groupby("day", sort=True)[["hits", "frauds"]].sum()
    return [
        {"day": moment.isoformat(), "hits": int(line.hits), "frauds": int(line.frauds)}
        for moment, line in zip(counts.index, counts.itertuples(), strict=True)
    ]


def _examples(
    config: Config,
    rows: pd.DataFrame,
    measures: pd.DataFrame,
    hits: NDArray[np.bool_],
    run: RuleRun,
    labels: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """The riskiest rows that it hits, as people may read them."""
    columns, masks = config.columns, masks_of(config)
    wanted = (columns.key, columns.time, columns.entity, config.alerts.amount, *config.alerts.shown)
    shown = [name for name in dict.fromkeys(wanted) if name is not None and name in rows]
    risk = measures["risk"].to_numpy()
    places = np.flatnonzero(hits)
    places = places[np.argsort(-risk[places], kind="stable")][:MOST_EXAMPLES]
    known = {1.0: "fraud", 0.0: "fine"}
    return [
        {
            **{name: masks.show(name, _plain(rows[name].iloc[place])) for name in shown},
            "p-value": float(f"{measures['p_value'].iloc[place]:.3g}"),
            "flagged": bool(run.flagged[place]),
            "known": known.get(float(labels[place]), ""),
        }
        for place in places.tolist()
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)
