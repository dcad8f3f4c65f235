"""``detector score``: all that a source holds at once, read in parts, decided over all of it, written."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc
from detector.decide.policy import Policy
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import newest_of
from detector.detectors.table.scorer import TabularScorer
from detector.errors import DataError
from detector.explain.reason import in_words
from detector.features import Wording
from detector.persist import bundle
from detector.schema import Schema
from pipelines.config import Config, OutputSection
from pipelines.factory.detector import audit_sample_of, policy_of
from pipelines.factory.gates import gated
from pipelines.features.engine import FeatureEngine
from pipelines.features.frames import joined, slices
from pipelines.features.raw_source import RawSource
from pipelines.features.wording import wording_of
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.dedupe import KeyLedger
from pipelines.prefetch import prefetch
from pipelines.progress import progress
from pipelines.rules.names import FOR_ALERTS
from pipelines.scoring.contract import BatchContext, ScoredBatch, each_once, entities_of
from pipelines.scoring.reports import REASON, RuleCount, ScoreReport, SeriesReport
from pipelines.scoring.series_spool import SeriesSpool
from pipelines.scoring.staleness import Staleness
from pipelines.scoring.standing_rules import standing_rules
from pipelines.scoring.table import TableBatchScorer
from pipelines.scoring.written import as_written
from pipelines.sinks.files import open_sink
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.sources import Source

if TYPE_CHECKING:
    from pipelines.rules.run import RuleRun

BATCH = 32_768
"""Rows read and scored together. Several such parts are in memory at once; of fewer rows, they cost more time."""
RISKIEST = 5
MANY_FLAGGED = 0.1
"""Share of the rows of a machine from which on more than single faults are flagged."""


@dataclass(frozen=True)
class _Run:
    """What both kinds of detectors are given."""

    config: Config
    source: Source
    target: OutputSection
    version: str
    now: datetime
    started: float

    def stamped(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores with the model and the time."""
        return scores.assign(model_version=self.version, scored_at=naive_utc(self.now))


def score(
    config: Config,
    *,
    input: str | None = None,  # noqa: A002 - the option's name
    output: str | None = None,
    now: datetime,
) -> ScoreReport | SeriesReport:
    """Score rows with the trained detector.

    Of a table, all rows are measured first; the policy then decides over all of them, because a budget or a false
    discovery rate is a property of the whole. Memory stays bounded: between the two, rows wait in temporary files.
    Series are scored whole, because a row's risk depends on the rows around it; some at a time where the policy decides
    on each row by itself.

    - ``config``: Names the source, the bundle, the policy and the output.
    - ``input``, ``output``: A file, folder or pattern to read, and a file to write, instead of the configured ones.
    - ``now``: When this run happens; written beside every score.

    Raises ``BundleError`` if there is no trained detector, or it was changed; ``SourceError, SinkError`` if the rows
    cannot be read or the scores not be written; nothing is half written; ``SchemaError`` if a column is missing;
    ``DataError`` if there are no readings, or a series cannot be scored.
    """
    started = time.perf_counter()
    folder = config.bundle.resolve()  # a link to a bundle may be moved to another one meanwhile
    scorer, version = bundle.load(folder), bundle.fingerprint(folder)
    raw = RawSource.open(config, scorer.schema, place=input)
    target = config.output.at(output) if output is not None else config.output
    run = _Run(config, raw.source, target, version, now, started)
    if isinstance(scorer, SequenceScorer):
        return _score_series(run, gated(scorer, config))
    wanted = raw.columns(also=config.columns.for_rules)
    rows = InputBatch(wanted, lambda facts: _read(raw.source, facts, columns=wanted, numeric=raw.schema.numeric))
    return _score_table(run, scorer, rows, raw.engine)


def _score_table(run: _Run, scorer: TabularScorer, rows: InputBatch, engine: FeatureEngine | None) -> ScoreReport:
    config, policy = run.config, policy_of(run.config.policy, scorer.schema)
    batch_scorer = TableBatchScorer(
        scorer, run.version, policy, wording=wording_of(config), sample=audit_sample_of(config)
    )
    rules = standing_rules(run.config, scorer.schema, now=run.now)
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(run.target))
        place, escape = run.target.quarantine_path, run.target.escape_formulas
        quarantine = stack.enter_context(QuarantineSink(place, columns=rows.columns, escape=escape))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-")))
        notes: list[str] = []
        if engine is not None:
            rows = rows.map(_with_features(engine, quarantine, notes, now=run.now))
        with progress("Scoring", total=run.source.estimate()) as advance:
            context = BatchContext(folder=folder, quarantine=quarantine, now=run.now, advance=advance, rules=rules)
            scored = batch_scorer.score(rows, context)
        riskiest: list[pd.DataFrame] = []
        with progress("Explaining and writing", total=scored.scored) as advance:
            for scores in prefetch(scored.frames):
                riskiest = [pd.concat([*riskiest, scores[scores["flagged"]]]).nlargest(RISKIEST, "risk")]
                sink.write(run.stamped(as_written(scores.drop(columns=list(FOR_ALERTS), errors="ignore"))))
                advance(len(scores))
    return ScoreReport(
        rows=rows.facts.rows + len(run.source.rejected),
        scored=scored.scored,
        flagged=scored.flagged,
        quarantined=quarantine.rows,
        seconds=time.perf_counter() - run.started,
        output=sink.describe(),
        quarantine=quarantine.describe(),
        policy=policy.describe(),
        note=" ".join([*notes, *_failures(rules), *_notes(scored, policy, scorer)]) or None,
        neighbours=scored.neighbours,
        rules=[] if rules is None else _counts(rules),
        riskiest=[row for frame in riskiest for row in _named(frame, scorer.schema)],
    )


def _named(flagged: pd.DataFrame, schema: Schema) -> Iterator[dict[str, str]]:
    """Flagged rows by what names them, with severity and the first reason; by their place where nothing does."""
    names = [name for name in (schema.key, schema.time, schema.entity) if name is not None and name in flagged]
    for place, row in zip(flagged.index, flagged.to_dict("records"), strict=True):
        named = {name: str(row[name]) for name in names} or {"row": f"row {place}"}
        yield named | {"severity": row["severity"], REASON: row["reasons"][0].text if len(row["reasons"]) else ""}


def _counts(rules: RuleRun) -> list[RuleCount]:
    """What each live rule came to."""
    found = {rule.name: RuleCount(rule.name, rule.section.action, 0, 0, 0) for rule in rules.rules if rule.is_live}
    for each in rules.tallies:
        if (before := found.get(each.rule)) is not None:
            hits, flagged = before.hits + each.hits, before.flagged + each.flagged
            found[each.rule] = replace(before, hits=hits, flagged=flagged, hidden=before.hidden + each.hidden)
    return list(found.values())


def _failures(rules: RuleRun | None) -> list[str]:
    failed = {} if rules is None else rules.failed
    return [f"The rule {name!r} failed and was left out: {why}" for name, why in failed.items()]


def _notes(scored: ScoredBatch, policy: Policy, scorer: TabularScorer) -> list[str]:
    note = scored.note
    if not note and not scored.flagged and scored.scored:
        note = policy.power_note(scored.scored, scorer.calibration.size, support=scorer.support)
    return [note] if note else []


def _read(source: Source, facts: ReadFacts, *, columns: list[str], numeric: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    for frame in source.batches(BATCH, columns=columns, numeric=numeric):
        facts.rows += len(frame)
        yield frame
    facts.rejected.append(source.rejected)


def _with_features(
    engine: FeatureEngine, quarantine: QuarantineSink, notes: list[str], *, now: datetime
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """Measures features of all rows together, because an entity's lie in any order.

    The notes say if they do not go on from the past that training left.
    """

    def measure(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        if (whole := joined(frames)) is not None:
            featured, note = engine.measure(whole, now=pd.Timestamp(now))
            notes.extend([note] if note else [])
            quarantine.write(featured.quarantine)
            yield from slices(featured.rows)

    return measure


def _score_series(run: _Run, scorer: SequenceScorer) -> SeriesReport:
    config, source, schema = run.config, run.source, scorer.schema
    policy = policy_of(config.policy, schema)
    columns = [name for name in source.columns() if name in {*schema.features, *schema.roles.values()}]
    words, scored, flagged, held = wording_of(config), 0, 0, Counter[str]()
    unscored = set[str]()
    parts, newest, shares = list[pd.DataFrame](), list[pd.Series](), list[pd.DataFrame]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-")))
        spool = SeriesSpool(folder, schema.entity if policy.is_by_row else None, rows=source.estimate())
        rows = _fill(spool, source, columns=columns, numeric=schema.numeric)
        place, escape = run.target.quarantine_path, run.target.escape_formulas
        quarantine = stack.enter_context(QuarantineSink(place, columns=columns, escape=escape))
        sink = stack.enter_context(open_sink(run.target))
        context, ledger = BatchContext(folder=folder, quarantine=quarantine, now=run.now), KeyLedger()
        with progress("Scoring", total=rows) as advance:
            for part in spool.parts():
                advance(len(part))
                unscored |= entities_of(part, schema)
                if spool.groups > 1 and (part := _first_of_keys(part, schema, ledger, context)).empty:
                    continue
                found = scorer.score_frame(part.reset_index(drop=True), policy=policy, join=config.series.join)
                quarantine.write(found.quarantine.assign(row=part.index[found.quarantine["row"].astype("int64")]))
                sink.write(run.stamped(as_written(words.scores(found.frame))))
                parts.append(found.events)
                newest.append(newest_of(found.frame, schema))
                shares.append(_flags_of(found.frame, schema))
                unscored -= entities_of(found.frame, schema)
                scored, flagged = scored + len(found.frame), flagged + int(found.frame["flagged"].sum())
                held += found.held
        if not parts:
            raise DataError(f"No row of {source.describe()} can be read. Give rows with readings.")
        quarantine.write(source.rejected)
        events = _worded(pd.concat([each for each in parts if len(each)] or parts[:1], ignore_index=True), words)
        events_sink = stack.enter_context(open_sink(run.target.events))
        events_sink.write(run.stamped(as_written(events.drop(columns="text"))))
    return SeriesReport(
        rows=rows + len(source.rejected),
        scored=scored,
        flagged=flagged,
        events=events,
        quarantined=quarantine.rows,
        seconds=time.perf_counter() - run.started,
        output=sink.describe(),
        events_output=events_sink.describe(),
        quarantine=quarantine.describe(),
        policy=policy.describe(),
        held=held,
        absent=tuple(sorted(unscored)),
        silent=_silent(run, scorer, pd.concat(newest)),
        unlike=_unlike(pd.concat(shares).groupby(level=0).sum()),
        note=None if flagged else policy.power_note(scored, scorer.calibrator.size),
    )


def _fill(spool: SeriesSpool, source: Source, *, columns: list[str], numeric: tuple[str, ...]) -> int:
    """Read all rows of a source into a spool; how many there are.

    Raises ``DataError`` if there is none.
    """
    rows = 0
    with progress("Reading", total=source.estimate()) as advance:
        for frame in source.batches(BATCH, columns=columns, numeric=numeric):
            spool.add(frame)
            rows += len(frame)
            advance(len(frame))
    if not rows:
        raise DataError(f"{source.describe()} holds no rows. Give rows with readings.")
    return rows


def _flags_of(scores: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """How many rows of each machine are scored, and how many flagged; that of one series is called ""."""
    whose = pd.Series("", index=scores.index) if schema.entity is None else scores[schema.entity].astype(str)
    return scores["flagged"].groupby(whose).agg(["size", "sum"])


def _unlike(counts: pd.DataFrame) -> dict[str, float]:
    """The share that is flagged, of the machines of which it is large: no policy is meant to flag so many."""
    share = (counts["sum"] / counts["size"]).loc[lambda each: each >= MANY_FLAGGED]
    return {str(name): float(each) for name, each in share.items()}


def _silent(run: _Run, scorer: SequenceScorer, newest: pd.Series) -> dict[str, datetime]:
    """The time of the last row of each machine that the service would call silent, as others have later ones."""
    if newest.empty:
        return {}
    staleness = replace(Staleness.of(run.config), by_clock=False)
    latest = newest.groupby(level=0).max()
    silent = staleness.silent(scorer, latest, staleness.present(latest, run.now)).sort_values()
    return {str(name): since for name, since in silent.items()}


def _first_of_keys(part: pd.DataFrame, schema: Schema, ledger: KeyLedger, context: BatchContext) -> pd.DataFrame:
    """The rows of some series without those whose key another group had; where none is left to score, no row.

    All that is left out is quarantined; of rows to be scored, the scorer sees to those that cannot be read.
    """
    cleaned = clean(part, schema, positions=part.index)
    kept = each_once(cleaned.rows, part, ledger, context, key=schema.key)
    if kept.empty:
        context.quarantine.write(cleaned.quarantine)
        return part.iloc[:0]
    return part.drop(index=cleaned.rows.index.difference(kept.index))


def _worded(events: pd.DataFrame, words: Wording) -> pd.DataFrame:
    """Events whose reasons are by the names that people have for sensors, in the list and in the text."""
    said = [words.reasons(each) for each in events["reasons"]]
    texts = [
        in_words(new) + text.removeprefix(in_words(old))
        for new, old, text in zip(said, events["reasons"], events["text"], strict=True)
    ]
    return events.assign(reasons=pd.Series(said, index=events.index, dtype=object), text=texts)
