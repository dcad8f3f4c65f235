"""Score what the source holds: read in batches, judge, decide over all of it, explain what is flagged, write."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc
from detector.decide.audit_sample import Exploration
from detector.decide.policy import Policy
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.table.scorer import TabularScorer
from detector.explain.reason import Reason, in_words
from detector.persist import bundle
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import exploration_of, policy_of
from pipelines.features.engine import Featuring, featuring_of, joined, slices
from pipelines.ingest.dedupe import KeyLedger
from pipelines.prefetch import ahead
from pipelines.progress import counted, progress
from pipelines.scoring.series_batch import SeriesReport, score_series
from pipelines.sinks.files import QuarantineSink, open_sink
from pipelines.sources import Source, open_source

BATCH = 65_536


@dataclass(frozen=True)
class ScoreReport:
    """What a scoring run did."""

    rows: int
    scored: int
    flagged: int
    quarantined: int
    seconds: float
    output: str
    quarantine: str
    policy: str
    note: str | None

    def summary(self) -> list[str]:
        """The run in a few lines."""
        flagged = f"{self.flagged:,} ({100 * self.flagged / self.scored:.2g} %)" if self.flagged else "none"
        lines = [
            f"Scored {self.scored:,} of {counted(self.rows)} in {self.seconds:.1f} s; flagged {flagged}.",
            f"Policy: {self.policy}.",
            f"Scores: {self.output}",
        ]
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; see why in {self.quarantine}")
        if self.note and not self.flagged:
            lines.append(self.note)
        return lines


def score(
    config: Config,
    *,
    input: str | None = None,  # noqa: A002 - the option's name
    output: str | None = None,
    now: datetime,
) -> ScoreReport | SeriesReport:
    """Judge rows with the trained detector.

    Series are judged whole, see ``score_series``. Of a table, all rows are scored first; the policy then decides over
    all of them, because a budget or a false discovery rate is a property of the whole batch. Memory stays bounded:
    between the two, scores wait in a temporary file.

    Parameters
    ----------
    config : Config
        Names the source, the bundle, the policy and the output.
    input, output : str, optional
        A file, folder or pattern to read, and a file to write, instead of the configured ones.
    now : datetime
        When this run happens; written beside every score.

    Raises
    ------
    BundleError
        If there is no trained detector, or it was changed.
    SourceError, SinkError
        If the rows cannot be read or the scores not be written; nothing is half written.
    SchemaError
        If a column is missing.
    """
    started = time.perf_counter()
    folder = config.bundle.resolve()  # a link to a bundle may be moved to another one meanwhile
    scorer, version = bundle.load(folder), bundle.fingerprint(folder)
    source = open_source(config.source.at(input) if input is not None else config.source)
    target = config.output.at(output) if output is not None else config.output
    featuring = featuring_of(config, trained=True)
    given = scorer.schema if featuring is None else scorer.schema.without(featuring.features.names)
    given.check(source.columns())
    if isinstance(scorer, SequenceScorer):
        return score_series(config, scorer, source, target, version=version, now=now, started=started)
    policy = policy_of(config.policy, scorer.schema)
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(target))
        quarantine = stack.enter_context(
            QuarantineSink(target.quarantine_path, columns=_read_columns(source, given, featuring))
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-")))
        words = in_words if featuring is None else lambda reasons: in_words(featuring.in_own_words(reasons))
        waiting = Waiting(folder, scorer, policy, words=words, exploration=exploration_of(config))
        rows = _measure(source, scorer, waiting, quarantine, given=given, featuring=featuring, now=now)
        flagged = waiting.decide()
        for verdicts in ahead(waiting.verdicts(flagged)):
            sink.write(verdicts.assign(model_version=version, scored_at=naive_utc(now)))
    return ScoreReport(
        rows=rows,
        scored=len(flagged),
        flagged=int(flagged.sum()),
        quarantined=quarantine.rows,
        seconds=time.perf_counter() - started,
        output=sink.describe(),
        quarantine=quarantine.describe(),
        policy=policy.describe(),
        note=policy.power_note(len(flagged), scorer.calibration.size) if len(flagged) else None,
    )


def _measure(
    source: Source,
    scorer: TabularScorer,
    waiting: Waiting,
    quarantine: QuarantineSink,
    *,
    given: Schema,
    featuring: Featuring | None,
    now: datetime,
) -> int:
    schema, ledger, rows = scorer.schema, KeyLedger(), 0
    wanted = _read_columns(source, given, featuring)

    def _with_features(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        nonlocal rows
        if featuring is None:
            for batch in batches:
                rows += len(batch)
                yield batch
        elif (whole := joined(batches)) is not None:
            rows = len(whole)
            featured = featuring.push(whole, now=pd.Timestamp(now))
            quarantine.write(featured.quarantine)
            yield from slices(featured.rows)

    with progress("Scoring", total=source.estimate()) as advance:
        for batch in ahead(_with_features(source.batches(BATCH, columns=wanted, numeric=given.numeric))):
            cleaned = clean(batch, schema, positions=batch.index)
            good = cleaned.rows
            quarantine.write(cleaned.quarantine)
            if schema.key is not None:
                again = ledger.repeats(good[schema.key])
                quarantine.write(_repeated(batch.loc[good.index[again]], schema.key))
                good = good[~again]
            waiting.add(good, scorer.measure(good))
            advance(len(batch))
        quarantine.write(source.rejected)
    return rows + len(source.rejected)


def _read_columns(source: Source, schema: Schema, featuring: Featuring | None) -> list[str]:
    needed = {*schema.features, *(name for role, name in schema.roles.items() if role != "label")}
    if featuring is not None:
        needed |= set(featuring.reader.needs)
    return [name for name in source.columns() if name in needed]


def _repeated(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Rows whose key came in an earlier batch, as ``clean`` sets rows aside."""
    reasons = [f"{key}: key {value} appears again (first in an earlier batch)" for value in rows[key]]
    aside = rows.rename(columns={name: f"source_{name}" for name in ("row", "reason")})
    return pd.concat([pd.DataFrame({"row": rows.index, "reason": reasons}, index=rows.index), aside], axis=1)


class Waiting:
    """Measured rows between scoring and decision: two numbers a row in memory, the rest in a temporary file.

    Parameters
    ----------
    folder : Path
        For the temporary files.
    scorer : TabularScorer
        Names the columns and explains.
    policy : Policy
        Decides; rows it can never flag are not kept for explanation.
    kept : sequence of str
        Features whose values stay beside the verdicts.
    words : callable
        How reasons are told.
    exploration : Exploration, optional
        Draws rows that are not flagged; verdicts then say which (``explored``), and how likely each row was to be
        looked at (``chance``).
    """

    def __init__(
        self,
        folder: Path,
        scorer: TabularScorer,
        policy: Policy,
        *,
        kept: Sequence[str] = (),
        words: Callable[[list[Reason]], str] = in_words,
        exploration: Exploration | None = None,
    ) -> None:
        self.scorer = scorer
        self.policy = policy
        self.folder = folder
        self.words = words
        self.exploration = exploration
        self.kept = [name for name in kept if name in scorer.schema.features]
        self._risk: list[NDArray[np.float64]] = []
        self._p_value: list[NDArray[np.float64]] = []
        self._day: list[NDArray[np.datetime64]] = []
        self._lots: list[NDArray[np.float64]] = []

    def add(self, rows: pd.DataFrame, measures: pd.DataFrame, *, names: Iterable[object] | None = None) -> None:
        """Keep one batch; ``names`` are those of its rows where no key names them, by default their positions."""
        schema, number = self.scorer.schema, len(self._risk)
        risk, p_value = measures["risk"].to_numpy(), measures["p_value"].to_numpy()
        self._risk.append(risk)
        self._p_value.append(p_value)
        if self.policy.needs_day and schema.time is not None:
            self._day.append(rows[schema.time].to_numpy().astype("datetime64[D]"))
        if self.exploration is not None:
            given = rows.index if names is None else names
            self._lots.append(self.exploration.lots(given if schema.key is None else rows[schema.key]))
        named = [name for role, name in schema.roles.items() if role != "label"]
        _write(self.folder / f"{number}.measures", pd.concat([rows[named + self.kept], measures], axis=1))
        _write(self.folder / f"{number}.candidates", rows[self.policy.candidates(p_value, risk)])

    def decide(self) -> NDArray[np.bool_]:
        """Which of all rows are flagged."""
        if not self._risk:
            return np.zeros(0, dtype=bool)
        day = np.concatenate(self._day) if self._day else None
        return self.policy.decide(np.concatenate(self._p_value), np.concatenate(self._risk), day=day)

    def verdicts(self, flagged: NDArray[np.bool_]) -> Iterator[pd.DataFrame]:
        """The rows in order, batch by batch, with flags and reasons; one empty frame if there are none."""
        start = 0
        with progress("Explaining and writing", total=len(flagged)) as advance:
            for number, risk in enumerate(self._risk):
                if not len(risk) and (len(flagged) or number):
                    continue  # its columns are all missing, so their types are unknown
                marks = flagged[start : start + len(risk)]
                measures = _read(self.folder / f"{number}.measures")
                verdicts = self.scorer.verdicts(measures, measures, flagged=marks)
                if marks.any():
                    candidates = _read(self.folder / f"{number}.candidates")
                    chosen = candidates.loc[verdicts.index[marks]]
                    verdicts.loc[chosen.index, "reasons"] = [self.words(each) for each in self.scorer.explain(chosen)]
                if self.exploration is not None:
                    chance = self.exploration.chance(len(flagged))
                    verdicts["explored"] = ~marks & (self._lots[number] < chance)
                    verdicts["chance"] = np.where(marks, 1.0, chance)
                yield verdicts.join(measures[self.kept]) if self.kept else verdicts
                start += len(risk)
                advance(len(risk))


def _write(path: Path, frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read(path: Path) -> pd.DataFrame:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pandas()
