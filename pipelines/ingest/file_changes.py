"""What has become of each file since the last look: it waits, is broken, has changed, or is ready to be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from detector.errors import SchemaError, SourceError
from detector.schema import Schema
from pipelines.config import ServiceSection, SourceSection
from pipelines.ingest.files import columns_of
from pipelines.ingest.fingerprint import ends_a_line, fingerprint
from pipelines.ingest.listing import FileStat, can_grow, unfinished, unreadable
from pipelines.store import SourceFile

UNREADABLE = "unreadable"
"""The state of a file that the system does not let be read: it is tried again, though nothing in it changes."""
OPEN = ("waiting", UNREADABLE)
"""Files in these states are looked at each time."""
DONE = ("scored", "changed")
RESTORED = ("size", "changed_ns", "fingerprint", "state", "reason", "rows", "generation", "batch")


@dataclass
class Changes:
    """What a look at the folder found: what to write down, and what is ready."""

    notes: list[dict[str, Any]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    ready: list[tuple[FileStat, dict[str, Any]]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Why files cannot be read that were scored before; what is known of them must stay."""


@dataclass(frozen=True)
class Inspector:
    """Looks at files by the settings of the service.

    - ``source``: The folder, pattern or file, and how its CSV is written.
    - ``schema``: Columns that a file must have.
    - ``section``: How long a file must be left alone, when one that is incomplete is broken, what becomes of one that
      is replaced.
    """

    source: SourceSection
    schema: Schema
    section: ServiceSection

    def look(
        self, news: Mapping[str, FileStat], known: Mapping[str, SourceFile], now: datetime, *, first_look: bool
    ) -> Changes:
        """What is to be written down of files that are new or not what they were, and which of them are ready."""
        changes = Changes()
        for name, stat in news.items():
            file = known.get(name)
            if file is not None and file.state == "claimed":
                continue
            if first_look:
                changes.notes.append(_as_note(stat, state="skipped", reason="there before the service started"))
                continue
            if (reason := self._wait_for(stat, file, now)) is not None:
                if file is None or (file.state in ("waiting", "broken", UNREADABLE) and _is_news(file, stat, reason)):
                    changes.notes.append(_as_note(stat, state="waiting", reason=reason))
                continue
            self._inspect(stat, file, now, changes)
        return changes

    def _wait_for(self, stat: FileStat, file: SourceFile | None, now: datetime) -> str | None:
        """Why a file is not looked into yet; None if it has settled."""
        age = stat.age(now.timestamp())
        if 0 <= age < self.section.settle:
            return "it has just been written to"
        if age < 0 and (file is None or not _same(file, stat) or file.seen_at == now):
            return "its time lies in the future: it is read once it is found unchanged"
        return None

    def _inspect(self, stat: FileStat, file: SourceFile | None, now: datetime, changes: Changes) -> None:
        """Find out of a file that has settled whether it is whole, and new."""
        age = stat.age(now.timestamp())
        waited = max(age, 0.0 if file is None else (now - file.seen_at).total_seconds())
        if reason := unreadable(stat.path):
            if file is not None and file.state in DONE:
                changes.unread.append(reason)
            elif file is None or file.state != UNREADABLE or _is_news(file, stat, reason):
                changes.notes.append(_as_note(stat, state=UNREADABLE, reason=reason))
            return
        if reason := unfinished(stat, age=waited, settle=self.section.settle):
            state = "broken" if waited >= self.section.broken_after else "waiting"
            if file is not None and file.state in DONE:
                state, reason = "changed", f"it was scored, and then changed into something unreadable: {reason}"
            if file is None or (file.state, file.reason) != (state, reason) or not _same(file, stat):
                changes.notes.append(_as_note(stat, state=state, reason=reason))
            return
        try:
            digest = fingerprint(stat.path, size=stat.size)
            entry = self._entry(stat, file, digest)
            if isinstance(entry, dict):
                self.schema.check(columns_of(stat.path, self.source))
        except (SourceError, SchemaError) as error:
            changes.notes.append(_as_note(stat, state="broken", reason=str(error)))
            return
        if isinstance(entry, dict):
            changes.ready.append((stat, entry))
        elif entry is not None:
            changes.notes.append(_as_note(stat, state="changed", reason=entry, fingerprint=digest))
        else:  # only its time has changed
            changes.notes.append(_as_note(stat, fingerprint=digest))

    def _entry(self, stat: FileStat, file: SourceFile | None, digest: str) -> dict[str, Any] | str | None:
        """What to read of it; or why not; or None if it is the same as before."""
        entry: dict[str, Any] = {
            "name": stat.name,
            "size": stat.size,
            "changed_ns": stat.changed_ns,
            "fingerprint": digest,
            "from": 0,
            "generation": 1 if file is None else file.generation,
            "before": None if file is None else {column: getattr(file, column) for column in RESTORED},
        }
        if file is None or file.state in ("waiting", "broken", "skipped", UNREADABLE):
            return entry
        if (file.size, file.fingerprint) == (stat.size, digest):
            return None
        if file.state == "scored" and stat.size > file.size and can_grow(stat.path):
            same_start = fingerprint(stat.path, size=file.size) == file.fingerprint
            if same_start and ends_a_line(stat.path, size=file.size):
                return entry | {"from": file.rows}
        if self.section.replaced == "rescore":
            return entry | {"generation": file.generation + 1}
        what = "truncated" if stat.size < file.size else "replaced"
        return (
            f"it was {what} after {file.rows:,} rows of it were scored; those scores stand, and what it holds now "
            f"is not scored. Give new rows a new name, or run: detector backfill CONFIG --file {stat.name}"
        )


def is_new(stat: FileStat, seen: tuple[int, int, str] | None) -> bool:
    """Whether a file must be looked into: it is unknown, waits, could not be read, or is not what it was."""
    return seen is None or seen[2] in OPEN or seen[:2] != (stat.size, stat.changed_ns)


def _same(file: SourceFile, stat: FileStat) -> bool:
    return (file.size, file.changed_ns) == (stat.size, stat.changed_ns)


def _is_news(file: SourceFile, stat: FileStat, reason: str) -> bool:
    return not _same(file, stat) or file.reason != reason


def _as_note(stat: FileStat, **values: Any) -> dict[str, Any]:
    return {"name": stat.name, "size": stat.size, "changed_ns": stat.changed_ns} | values
