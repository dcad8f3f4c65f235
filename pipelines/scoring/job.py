"""The service's job ``score``: batch after batch, until nothing is left of what was there, or the service ends."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipelines.alerts.outbox.enqueue import enqueue
from pipelines.jobs.context import Context, JobOutcome
from pipelines.progress import counted
from pipelines.scoring.batch_transaction import Scoring
from pipelines.scoring.load import load_scorer
from pipelines.scoring.repeats import repeats_in_words
from pipelines.scoring.reports import held_back
from pipelines.scoring.series import SeriesBatchScorer
from pipelines.scoring.series_tails import load_memory
from pipelines.scoring.unusable import report_files
from pipelines.store import Batch

log = logging.getLogger("detector.score")

MOST_REASONS = 20


def scored_of(scored: int, rows: int) -> str:
    """How many rows are scored, of how many that came; of readings, some may have come in earlier batches.

    >>> scored_of(20, 24), scored_of(276, 263)
    ('scored 20 of 24 rows', 'scored 276 rows, some of which had waited (263 came)')
    """
    if scored > rows:
        return f"scored {counted(scored)}, some of which had waited ({rows:,} came)"
    return f"scored {scored:,} of {counted(rows)}"


@dataclass
class Totals:
    """What a run of several batches came to."""

    batches: int = 0
    rows: int = 0
    scored: int = 0
    flagged: int = 0
    quarantined: int = 0
    repeated: int = 0
    corrected: int = 0

    def add(self, batch: Batch) -> None:
        """One more batch."""
        self.batches += 1
        for name in ("rows", "scored", "flagged", "quarantined", "repeated", "corrected"):
            setattr(self, name, getattr(self, name) + getattr(batch, name))

    def outcome(
        self, notices: Sequence[str], reasons: Counter[str] | None = None, held: Mapping[str, int] | None = None
    ) -> JobOutcome:
        """Its record; ``reasons`` counts the rows that could not be used, ``held`` those held back."""
        facts = {name: value for name, value in vars(self).items() if name != "rows"}
        if reasons:
            facts["quarantined_by_reason"] = dict(reasons.most_common(MOST_REASONS))
        if held:
            facts["held_by_gate"] = dict(held)
        if notices:
            facts["notices"] = list(notices[:20])
        if not self.batches:
            return JobOutcome(outcome="skipped", note="; ".join(notices) or "nothing new", facts=facts)
        note = f"{scored_of(self.scored, self.rows)}, flagged {self.flagged:,}"
        if held:
            note += f", {held_back(held)}"
        if self.quarantined:
            note += f", quarantined {self.quarantined:,}"
        repeats = repeats_in_words(self.repeated, self.corrected)
        return JobOutcome(rows=self.rows, note="; ".join([note, *repeats, *notices]), facts=facts)


def score_new(context: Context) -> JobOutcome:
    """Score all that has come in, batch by batch; a batch that an earlier run left open comes first.

    Each batch is scored at the time it is by then, with the detector that serves by then. What comes while the last one
    is scored waits for the next run: a source that never rests would have this one go on for ever.

    Raises ``BundleError`` if there is no trained detector; ``SourceError, SinkError, StoreError`` if something cannot
    be read or written; the batch in hand is undone, and taken again by the next run.
    """
    began, totals, notices = time.monotonic(), Totals(), list[str]()
    scoring = Scoring(context, load_scorer(context.config, context.cache))
    scoring.tidy()
    while not context.stopping():
        batch = scoring.next_batch()
        notices += [notice for notice in scoring.followed.notices if notice not in notices]
        if batch is None:
            break
        if (refused := scoring.run(batch)) is not None:
            notices.append(refused)
        else:
            totals.add(batch)
            if scoring.is_last:
                break
        scoring = _at(context.now + timedelta(seconds=time.monotonic() - began), scoring)
    if not totals.batches:
        _report_silence(scoring)
    for notice in notices:
        log.warning(notice)
    report_files(context, notices, has_scored=totals.batches > 0)
    return totals.outcome(notices, scoring.reasons, scoring.held)


def _at(now: datetime, scoring: Scoring) -> Scoring:
    """What scores the next batch: another detector may have been promoted meanwhile."""
    context, before = replace(scoring.context, now=now), scoring.scorer
    scorer = load_scorer(context.config, context.cache)
    if scorer.version != before.version:
        log.info("from here on %s scores, and no longer %s", scorer.version, before.version)
    return replace(scoring, context=context, scorer=scorer)


def _report_silence(scoring: Scoring) -> None:
    """Have machines reported that say nothing, where nobody else says anything either."""
    context, scorer = scoring.context, scoring.scorer
    if not isinstance(scorer, SeriesBatchScorer):
        return
    notices = scorer.silent(load_memory(context.store, scoring.source), context.now)
    if notices.empty:
        return
    with context.store.write() as session:
        enqueue(session, notices, config=context.config, now=context.now)
        context.fence(session)
