"""Input that cannot be used, told to people: rows of a batch above a share, and whole files."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from pipelines.alerts.outbox.service_alerts import Trouble, is_open, report, report_over, reported_at
from pipelines.config import Config
from pipelines.ingest.known_files import broken_files
from pipelines.jobs.context import Context
from pipelines.progress import counted
from pipelines.sinks.quarantine import why, without_values
from pipelines.store import Batch

log = logging.getLogger("detector.score")

ROWS, FILES = "unusable rows", "unusable files"
MOST_LISTED = 5
MOST_USUAL = 0.5
"""Where more of the rows cannot be used, nobody can want to hear no more of it."""
WAYS_OUT = {
    "too late, the latest row": "Rows that often come so late: `features: {lateness: SECONDS}`. These, sent again, are "
    "as late: `detector backfill --file NAME` scores those of a file.",
    "the newest reading of its series": "Look whether the clock of the machine was set back. Readings that often come "
    "so late: `series: {late_minutes: MINUTES}`; these, sent again, are as late.",
    "lies in the future": "Look whether a clock is ahead, and which zone times are in: without one they are in UTC.",
    "appears again": "Look whether these rows were sent before; then nothing is lost. Else `columns: {key: …}` names "
    "no row: choose another column, or leave it out.",
    "has a reading of this time": "Look whether these readings were sent before; then nothing is lost. Else several "
    "machines may be read as one: `columns: {entity: …}`.",
    "where the header has": "Have the file written whole, and fields quoted that hold the separator.",
}
"""What to do, by a part of the reason; for all others see ``_way_out``."""
NOT_LOST = (
    "too late, the latest row",
    "the newest reading of its series",
    "appears again",
    "has a reading of this time",
)
"""Reasons whose ways out say themselves what becomes of these rows."""


def are_too_many(batch: Batch, config: Config) -> bool:
    """Whether more of a batch's rows could not be used than is usual: a column may have changed its format."""
    return batch.quarantined > config.service.most_quarantined * _new_rows(batch)


def _new_rows(batch: Batch) -> int:
    """The rows of a batch without those that came before; one at least."""
    return max(batch.rows - batch.repeated, 1)


def warn_of_rows(batch: Batch, reasons: Counter[str], quarantine: Path, *, config: Config) -> None:
    """Say in the log if there were too many."""
    if are_too_many(batch, config):
        log.warning(
            "batch %d: %d of %d rows could not be used: %s. They are in %s",
            batch.id,
            batch.quarantined,
            _new_rows(batch),
            why(reasons),
            quarantine,
            extra={"batch": batch.id, "quarantined": batch.quarantined},
        )


def report_rows(
    session: Session, batch: Batch, reasons: Counter[str], quarantine: Path, *, config: Config, now: datetime
) -> None:
    """Have it reported if there were too many, or that this is over; in the transaction of the batch's scores."""
    if are_too_many(batch, config):
        report(session, trouble_of_rows(batch, reasons, quarantine, config), config=config, now=now)
    elif batch.rows:
        report_over(session, ROWS, config=config, now=now)


def report_files(context: Context, notices: Sequence[str], *, has_scored: bool) -> None:
    """Have files reported that were set aside, or that files are scored and none that was is left.

    Files that were set aside soon after a report are reported in the next, all that are left together.
    """
    config, now = context.config, context.now
    with context.store.read() as session:
        was_open = is_open(session, FILES, config=config)
        told_at = reported_at(session, FILES, config=config)
        broken = broken_files(session, config) if was_open or notices else []
    if not notices and not was_open:
        return
    has_news = bool(notices) or any(told_at is None or since > told_at for _, _, since in broken)
    is_over = not notices and not broken and has_scored
    if not has_news and not is_over:
        return
    known = [f"{name}: {reason}" for name, reason, _ in reversed(broken)]
    lines = list(dict.fromkeys([*notices, *known]))
    with context.store.write() as session:
        if is_over:
            report_over(session, FILES, config=config, now=now)
        else:
            report(session, _files(lines, config), config=config, now=now, has_news=has_news)
        context.fence(session)


def trouble_of_rows(batch: Batch, reasons: Counter[str], quarantine: Path, config: Config) -> Trouble:
    """What is told of a batch too many rows of which could not be used."""
    rows = _new_rows(batch)
    share, files = batch.quarantined / rows, _files_of(batch.window)
    places = {"Batch": str(batch.id), "Files": _listed(files), "Quarantine": str(quarantine)}
    top = reasons.most_common(MOST_LISTED)
    reason = top[0][0] if top else ""
    column = reason.partition(": ")[0] if ": " in reason else "COLUMN"
    text = (
        f"{batch.quarantined:,} of {counted(rows)} ({100 * share:.3g} %) of batch {batch.id} of {config.name} "
        f"could not be used, more than the {100 * config.service.most_quarantined:.3g} % of `service.most_quarantined`"
    )
    return Trouble(
        cause=ROWS,
        label="rows that cannot be used",
        severity="high",
        text=f"{text}; mainly {top[0][0]}" if top else text,
        todo=" ".join(
            part
            for part in (
                "Look at the quarantine file.",
                _way_out(column, reason),
                _way_back(reason, files, config),
                ""
                if share > MOST_USUAL
                else f"If so many are usual: `service: {{most_quarantined: {1.2 * share:.2g}}}`.",
            )
            if part
        ),
        lines=[f"{reason} ({counted(count)})" for reason, count in top],
        columns={name: value for name, value in places.items() if value},
        figures={
            "batch": batch.id,
            "quarantined": batch.quarantined,
            "rows": rows,
            "share": round(share, 4),
            "files": files[:MOST_LISTED],
        },
        rows=batch.quarantined,
    )


def _way_out(column: str, reason: str) -> str:
    """What to do about the most frequent reason why rows could not be used."""
    found = next((advice for part, advice in WAYS_OUT.items() if part in reason), None)
    return found or (
        f"Numbers or dates in another form: `source: {{formats: {{{column}: …}}}}` (`detector doctor` proposes the one "
        f"that fits). Columns with other names: `columns`."
    )


def _way_back(reason: str, files: Sequence[str], config: Config) -> str:
    """How rows that can be used once the cause is gone are scored after all; empty if nothing was lost."""
    if any(part in reason for part in NOT_LOST):
        return ""
    if config.columns.key is None or config.source.topic is not None or config.kind == "sensors":
        return "Rows that can be used then are scored when they come in again, as by a file of another name."
    if files:
        more = " …" if len(files) > 1 else ""
        return f"Then `detector backfill --file {shlex.quote(files[0])}{more}` scores the rows that have no scores."
    return "Then `detector backfill --since POSITION` scores the rows that have no scores."


def _files(notices: Sequence[str], config: Config) -> Trouble:
    shown = [
        without_values(notice, config) if config.alerts.mask else notice for notice in notices
    ]  # they may name values
    if config.source.topic is not None:
        return Trouble(
            cause=FILES,
            label="messages that were lost",
            severity="high",
            text=f"{config.name} has lost messages before it could score them: {shown[0]}",
            todo="See in `detector jobs list` when it scored last. Have the topic keep messages for longer than it may "
            "stand still (retention.ms). What is lost can be scored from a file: `detector score --input`.",
            lines=shown,
            figures={"partitions": len(notices)},
        )
    return Trouble(
        cause=FILES,
        label="files that cannot be used",
        severity="high",
        text=f"{config.name} cannot use {counted(len(notices), 'file')} of its input: {shown[0]}",
        todo="Write the file anew, whole and with the columns that `detector doctor` names; it is then scored. If it "
        "does not belong there, `source.path` can be a pattern that leaves it out.",
        lines=shown,
        figures={"files": len(notices)},
    )


def _files_of(window: Mapping[str, Any]) -> list[str]:
    """The names of a batch's files; none if it came from a table."""
    return [str(entry["name"]) for entry in window.get("files", ())]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more
