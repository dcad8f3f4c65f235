"""Batches of a table, scored: clean → each key once → measure → decide → explain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from detector.cleaning.clean import clean
from detector.decide.audit_sample import AuditSample
from detector.decide.days import counts_by_day
from detector.decide.policy import Policy
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.scoring import TableScoring
from detector.features import Wording
from detector.schema import Schema
from pipelines.ingest.batch import InputBatch
from pipelines.ingest.dedupe import KeyLedger
from pipelines.ingest.provenance import with_provenance
from pipelines.prefetch import prefetch, worked_on
from pipelines.scoring.contract import BatchContext, ScoredBatch, each_once


@dataclass(frozen=True)
class _Part:
    """Rows, and the file and row of each if they are sampled by them."""

    rows: pd.DataFrame
    names: list[tuple[str, int]] | None


@dataclass(frozen=True)
class TableBatchScorer:
    """A detector for tables.

    - ``version``: Its fingerprint.
    - ``policy``: Decides over each batch. A budget a day counts what other batches of the day have flagged: a row once
      flagged stays flagged, because its alert is out, and later batches get what is left of the day.
    - ``alert_columns``: Features whose values alerts show.
    - ``wording``: How reasons are said.
    - ``sample``: Draws rows that are not flagged for an audit.
    - ``explains``: Whether flagged rows get reasons.
    """

    scorer: TabularScorer
    version: str
    policy: Policy
    alert_columns: tuple[str, ...] = ()
    wording: Wording = field(default_factory=Wording)
    sample: AuditSample | None = None
    explains: bool = True

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return self.scorer.schema

    @property
    def needs_memory(self) -> bool:
        """Each row is scored by itself."""
        return False

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Facts recorded while it was trained."""
        return self.scorer.metrics

    def score(self, batch: InputBatch, context: BatchContext) -> ScoredBatch:
        """Measure all rows, then decide, then explain."""
        scoring = TableScoring(
            self.scorer,
            self.policy,
            kept=self.alert_columns,
            sample=self.sample,
            explains=self.explains,
            overrides=context.rules,
            spool=FrameFolder(context.folder),
        )
        scored = 0
        for part, measured in worked_on(lambda part: self.scorer.recalled(part.rows), self._parts(batch, context)):
            scoring.add(part.rows, names=part.names, measured=measured)
            scored += len(part.rows)
        for rejected in batch.facts.rejected:
            context.quarantine.write(rejected)
        if context.rules is None:
            decision = scoring.decision(context.used)
            flagged = decision.flagged
        else:
            decision, flagged = context.rules.decide(scoring, context.used)
        frames, day = map(self.wording.scores, scoring.scores(flagged)), scoring.day
        return ScoredBatch(
            scored,
            int(flagged.sum()),
            frames if context.rules is None else context.rules.annotate(frames),
            {} if day is None else counts_by_day(day[decision.flagged]),  # what rules flag takes nothing of a budget
            note=decision.note,
            neighbours=scoring.neighbours() if context.used is None else {},
        )

    def _parts(self, batch: InputBatch, context: BatchContext) -> Iterator[_Part]:
        """The rows that can be scored, a bounded number at a time."""
        ledger = KeyLedger()
        for frame in prefetch(batch.frames()):
            context.checkpoint()
            cleaned = clean(frame, self.schema, positions=frame.index)
            context.quarantine.write(cleaned.quarantine)
            rows = each_once(cleaned.rows, frame, ledger, context, key=self.schema.key)
            if context.rules is not None:
                rows = context.rules.with_columns(rows, frame)
            yield _Part(rows, self._names(rows, batch))
            context.advance(len(frame))

    def _names(self, rows: pd.DataFrame, batch: InputBatch) -> list[tuple[str, int]] | None:
        """The file and row of each, if rows are sampled by them."""
        if self.sample is None or self.schema.key is not None or rows.empty or not batch.facts.spans:
            return None
        where = with_provenance(rows[[]], batch.facts.spans)
        return list(zip(where["file"].tolist(), where["row"].tolist(), strict=True))


class FrameFolder(MutableMapping[str, pd.DataFrame]):
    """Frames that wait in a folder of Arrow files instead of in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setitem__(self, name: str, frame: pd.DataFrame) -> None:
        table = pa.Table.from_pandas(frame, preserve_index=True)
        with pa.OSFile(str(self.folder / name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def __getitem__(self, name: str) -> pd.DataFrame:
        with pa.memory_map(str(self.folder / name)) as file:
            return pa.ipc.open_file(file).read_all().to_pandas()

    def __delitem__(self, name: str) -> None:
        (self.folder / name).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self.folder.iterdir())

    def __len__(self) -> int:
        return sum(1 for _ in self)
