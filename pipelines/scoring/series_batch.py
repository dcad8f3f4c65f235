"""Score whole series: read them, judge every row, gather flagged stretches into events, write both."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from detector.cleaning.values import naive_utc
from detector.detectors.series.scorer import SequenceScorer
from detector.errors import DataError
from pipelines.config import Config, OutputSection
from pipelines.factory.detector import policy_of
from pipelines.progress import counted, progress
from pipelines.sinks.files import QuarantineSink, open_sink
from pipelines.sources import Source

MOST_TOLD = 10


@dataclass(frozen=True)
class SeriesReport:
    """What scoring series did."""

    rows: int
    scored: int
    flagged: int
    events: pd.DataFrame
    quarantined: int
    seconds: float
    output: str
    events_output: str
    quarantine: str
    policy: str

    def summary(self) -> list[str]:
        """The run in a few lines, with the riskiest events."""
        lines = [
            (
                f"Scored {self.scored:,} of {counted(self.rows)} in {self.seconds:.1f} s; flagged "
                f"{counted(self.flagged)} in {counted(len(self.events), 'event')}."
            ),
            f"Policy: {self.policy}.",
        ]
        top = self.events.nlargest(MOST_TOLD, "risk").sort_values("start", kind="stable")
        for event in top.itertuples():
            whose = f"{event.entity}  " if event.entity else ""
            lines.append(f"  {whose}{event.start} to {event.end}  {event.severity}: {event.text}")
        if len(self.events) > len(top):
            lines.append(f"  and {len(self.events) - len(top):,} less risky ones")
        lines += [f"Scores: {self.output}", f"Events: {self.events_output}"]
        if self.quarantined:
            lines.append(f"{counted(self.quarantined)} could not be used; see why in {self.quarantine}")
        return lines


def score_series(
    config: Config,
    scorer: SequenceScorer,
    source: Source,
    target: OutputSection,
    *,
    version: str,
    now: datetime,
    started: float,
) -> SeriesReport:
    """Judge series with a trained detector.

    A row's risk depends on the rows around it, so all rows are read before the first is judged.

    Parameters
    ----------
    config : Config
        Names the policy, and how near flagged stretches are one event.
    scorer : SequenceScorer
        The detector.
    source : Source
        Its rows.
    target : OutputSection
        Where scores, events and rows that cannot be used go.
    version : str
        The detector's fingerprint, written beside every score.
    now : datetime
        When this run happens; written beside every score.
    started : float
        When it began, by ``time.perf_counter``.

    Raises
    ------
    DataError
        If there are no rows, or a series cannot be judged.
    """
    policy, schema = policy_of(config.policy, scorer.schema), scorer.schema
    columns = [name for name in source.columns() if name in {*schema.features, *schema.roles.values()}]
    with progress("Reading", total=source.estimate()) as advance:
        frame = source.read(columns=columns, numeric=schema.numeric, advance=advance)
    if frame.empty:
        raise DataError(f"{source.describe()} holds no rows. Give rows with readings.")
    stamp = {"model_version": version, "scored_at": naive_utc(now)}
    with progress("Scoring", total=None):
        verdicts = scorer.judge(frame, policy=policy, join=config.series.join)
    events = verdicts.events
    with ExitStack() as stack:
        quarantine = stack.enter_context(QuarantineSink(target.quarantine_path, columns=columns))
        quarantine.write(verdicts.quarantine)
        quarantine.write(source.rejected)
        sink = stack.enter_context(open_sink(target))
        beside = stack.enter_context(open_sink(target.events))
        sink.write(verdicts.frame.assign(**stamp))
        beside.write(events.drop(columns="reasons").rename(columns={"text": "reasons"}).assign(**stamp))
    return SeriesReport(
        rows=len(frame) + len(source.rejected),
        scored=len(verdicts.frame),
        flagged=int(verdicts.frame["flagged"].sum()),
        events=events,
        quarantined=quarantine.rows,
        seconds=time.perf_counter() - started,
        output=sink.describe(),
        events_output=beside.describe(),
        quarantine=quarantine.describe(),
        policy=policy.describe(),
    )
