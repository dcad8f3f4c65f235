"""Score what was left out (backfill), or score again what was scored (replay); both leave a trail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.cleaning.values import read_names
from detector.errors import DataError, NotFoundError, SettingError
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.contract import LeftOut
from pipelines.jobs.context import Context, JobOutcome
from pipelines.scoring.batch_transaction import Scoring
from pipelines.scoring.contract import AdjacentBatches
from pipelines.scoring.job import Totals
from pipelines.scoring.load import load_scorer
from pipelines.store import Audit, Batch
from pipelines.store.trail import who

log = logging.getLogger("detector.score")


def backfill(context: Context) -> JobOutcome:
    """Score rows that were left out: files that were skipped or quarantined, rows behind the cursor.

    A row that has scores already is left alone. ``context.arguments``: ``files`` (names), or ``since`` and ``until``
    (positions of the cursor's column); ``actor`` and ``reason`` for the trail.

    Raises ``SettingError`` if a file is not there or was scored, or a position cannot be read.
    """
    scoring = Scoring(context, load_scorer(context.config, context.cache))
    scoring.tidy()
    arguments = context.arguments
    wanted = LeftOut(arguments.get("files") or (), arguments.get("since"), arguments.get("until"))
    proposals = scoring.followed.left_out(wanted, context.now)
    totals, notices, trail = Totals(), [], _begin_trail(context, "backfill")

    def finish(session: Session, kept: Batch, facts: ReadFacts) -> None:
        scoring.finish(session, kept, facts)
        record = session.get_one(Audit, trail)
        record.batches, record.rows = record.batches + 1, record.rows + kept.rows

    for proposal in proposals:
        if context.stopping():
            break
        batch = scoring.claim(proposal.window, proposal.claim, purpose="backfill")
        if (refused := scoring.run(batch, finish=finish)) is not None:
            notices.append(refused)
            continue
        totals.add(batch)
    return totals.outcome(notices, scoring.reasons)


def replay(context: Context) -> JobOutcome:
    """Score batches again, with the detector that serves now.

    Scores of the same detector are replaced; those of another one stay beside the new ones, told apart by
    ``model_version``. ``context.arguments``: ``batches`` (numbers), or ``since`` and ``until`` (times at which
    they were scored); ``actor`` and ``reason`` for the trail.

    A row of a series is scored by the rows around it, which are read from the batches before and after.

    Raises ``SettingError`` if there is no such batch.
    """
    scoring = Scoring(context, load_scorer(context.config, context.cache))
    scoring.tidy()
    totals, notices = Totals(), []
    for batch in _chosen(context, scoring.source):
        if context.stopping():
            break
        if not scoring.followed.can_replay(batch.window):
            notices.append(f"batch {batch.id} was left as it is: its files have changed or are gone")
            continue
        before = batch.model_version
        goes_on = scoring.scorer.needs_memory and batch.purpose == "score"
        rows = _opened(scoring, batch) if goes_on else _rows_of(scoring, batch)
        if rows is None:
            notices.append(
                f"batch {batch.id} was left as it is: no row of it has scores (any more): `detector backfill`"
            )
            continue

        def finish(session: Session, kept: Batch, _: ReadFacts, before: str = before) -> None:
            note = {"batch": kept.id, "model_before": before, "model_after": kept.model_version}
            session.add(_record(context, "replay", batches=1, rows=kept.rows, **note))

        try:
            around = _around(scoring, batch) if goes_on else None
            scoring.process(batch, mode="replay", finish=finish, rows=rows, around=around)
        except DataError as error:
            if not goes_on:
                raise
            notices.append(f"batch {batch.id} was left as it is: {error}")
            continue
        totals.add(batch)
    return totals.outcome(notices, scoring.reasons)


def _chosen(context: Context, source: str) -> list[Batch]:
    arguments = context.arguments
    found = sa.select(Batch).where(Batch.source == source, Batch.state == "done").order_by(Batch.id)
    if numbers := arguments.get("batches"):
        found = found.where(Batch.id.in_(list(numbers)))
    for name, side in (("since", Batch.done_at.__ge__), ("until", Batch.done_at.__lt__)):
        if arguments.get(name):
            found = found.where(side(_moment(arguments[name], context)))
    with context.store.read() as session:
        batches = list(session.scalars(found))
        session.expunge_all()
    if missing := set(numbers or ()) - {batch.id for batch in batches}:
        raise NotFoundError(
            f"There is no batch {min(missing)} that was scored. `detector jobs list` shows the last ones."
        )
    return batches


def _moment(text: str, context: Context) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"Expected a time such as 2026-03-01T12:00, received {text!r}.") from None
    return moment.replace(tzinfo=context.now.tzinfo) if moment.tzinfo is None else moment


def _around(scoring: Scoring, batch: Batch) -> AdjacentBatches:
    """The batches before and after one, as far as their rows are there, and what names the rows that it scored."""
    found = sa.select(Batch).where(Batch.source == scoring.source, Batch.state == "done", Batch.purpose == "score")
    with scoring.store.read() as session:
        batches = list(session.scalars(found.order_by(Batch.id)))
        session.expunge_all()

    def opened(others: Iterable[Batch]) -> Iterator[tuple[InputBatch, datetime]]:
        for other in others:
            if not scoring.followed.can_replay(other.window):
                return
            yield _opened(scoring, other), other.claimed_at

    return AdjacentBatches(
        before=opened(each for each in reversed(batches) if each.id < batch.id),
        after=opened(each for each in batches if each.id > batch.id),
        scored=scoring.sink.keys_of(batch.id),
    )


def _opened(scoring: Scoring, batch: Batch) -> InputBatch:
    """All rows of the window of a batch; late ones of a table are in that where the cursor places them."""
    return scoring.followed.open({**batch.window, "backfill": True})


def _rows_of(scoring: Scoring, batch: Batch) -> InputBatch | None:
    """The rows that a batch scored, again; without keys all that it read; None if no key has scores."""
    key = scoring.scorer.schema.key
    rows = scoring.followed.open(scoring.followed.replayed(batch.window))
    if key is None:
        return rows
    keys = scoring.sink.keys_of(batch.id)
    if not keys:
        return None

    def only_those(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        count = 0
        for frame in frames:
            chosen = frame[read_names(frame[key]).astype(str).isin(keys)]
            chosen.index = pd.RangeIndex(count, count + len(chosen))
            count += len(chosen)
            if len(chosen):
                yield chosen
        rows.facts.rows = count

    return rows.map(only_those)


def _record(context: Context, action: str, *, batches: int, rows: int, **note: Any) -> Audit:
    arguments = {name: value for name, value in context.arguments.items() if name not in ("actor", "reason")}
    return Audit(
        at=context.now,
        actor=str(context.arguments.get("actor") or who()),
        action=action,
        reason=str(context.arguments.get("reason") or ""),
        arguments=arguments | note,
        batches=batches,
        rows=rows,
    )


def _begin_trail(context: Context, action: str) -> int:
    """Write down that it was asked for, before anything is done; the number of the record."""
    with context.store.write() as session:
        record = _record(context, action, batches=0, rows=0)
        session.add(record)
        session.flush()
        return record.id
