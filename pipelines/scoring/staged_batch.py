"""A batch between its scoring and its commit."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipelines.ingest.batch import ReadFacts
from pipelines.ingest.repeated_rows import RepeatedRows
from pipelines.rules.run import RuleRun
from pipelines.scoring.contract import ScoredBatch
from pipelines.scoring.shadow import ShadowTrial
from pipelines.sinks.batch_sink import Staged
from pipelines.sinks.quarantine import QuarantineSink


@dataclass(frozen=True)
class StagedBatch:
    """A batch that is scored and staged, and waits to be committed."""

    scored: ScoredBatch
    output: Staged
    facts: ReadFacts
    rows: int
    """All that came; of a replay, with those that it left in the quarantine."""
    quarantine: QuarantineSink
    """What took the rows that could not be used."""
    is_replay: bool
    alerts: pd.DataFrame | None = None
    """What alerts are made of; None where a batch brings none."""
    trial: ShadowTrial | None = None
    memory: bytes | None = None
    """What the detector had kept of the batch before."""
    rules: RuleRun | None = None
    repeats: RepeatedRows | None = None

    @property
    def expected_state(self) -> str:
        """The state its batch must still be in: another instance may have scored it, or given it up."""
        return "done" if self.is_replay else "claimed"
