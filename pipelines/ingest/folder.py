"""A folder that grows: which of its files are scored, which wait, which are quarantined, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import SchemaError, SettingError, SourceError, nearest
from detector.schema import Schema
from pipelines.config import ServiceSection, SourceSection
from pipelines.ingest.batch import InputBatch, ReadFacts
from pipelines.ingest.contract import Lag, LeftOut, Proposal
from pipelines.ingest.copies import split_copies
from pipelines.ingest.file_changes import OPEN, RESTORED, UNREADABLE, Inspector, is_new
from pipelines.ingest.files import FileWindow, columns_of, frames_of
from pipelines.ingest.fingerprint import fingerprint
from pipelines.ingest.listing import FileStat, base_of, list_files, unreadable
from pipelines.store import SourceFile, Store
from pipelines.testing.failpoints import failpoint

log = logging.getLogger("detector.ingest")

MOST_FILES = 1_000


class FileRefusedError(SourceError):
    """One file of a window cannot be read; the others can."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class FollowedFolder:
    """Files, each scored once: whole, and once it has settled.

    - ``store``: Holds the manifest.
    - ``name``: Under which it is kept there.
    - ``source``: The folder, pattern or file, and how its CSV is written.
    - ``schema``: Columns that a file must have.
    - ``section``: When a file is read, and how many rows a batch has, about.
    - ``also``: Columns to read where a file has them.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        source: SourceSection,
        schema: Schema,
        section: ServiceSection,
        also: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.name = name
        self.source = source
        self.schema = schema
        self.section = section
        self.also = tuple(also)
        self.inspector = Inspector(source, schema, section)
        self.notices: list[str] = []

    @property
    def base(self) -> Path:
        """The folder that names start from."""
        return base_of(str(self.source.path))

    def propose(self, now: datetime) -> Proposal | None:
        """Look at every file, write down what is new about it, and propose those that are ready, in order."""
        seen = self._seen()
        found = list_files(str(self.source.path))
        news = {name: stat for name, stat in found.items() if is_new(stat, seen.get(name))}
        changes = self.inspector.look(
            news, self._known(list(news)), now, first_look=self.section.start == "new" and not seen
        )
        if self.schema.time is not None or self.schema.key is not None:  # else equal rows may be different ones
            with self.store.read() as session:
                changes.ready, copies = split_copies(session, self.name, changes.ready, base=self.base)
            changes.notes += copies
        changes.gone = [name for name, (_, _, state) in seen.items() if state in OPEN and name not in found]
        failpoint("score.looked")
        told = ("broken", "changed", UNREADABLE)
        self.notices = [f"{note['name']}: {note['reason']}" for note in changes.notes if note.get("state") in told]
        for reason in changes.unread:
            log.warning("%s", reason)
        if changes.notes or changes.gone:
            with self.store.write() as session:
                for note in changes.notes:
                    self._note(session, note, now)
                session.execute(
                    sa.delete(SourceFile).where(SourceFile.source == self.name, SourceFile.name.in_(changes.gone))
                )
        return self._proposal(changes.ready, now)

    def _seen(self) -> dict[str, tuple[int, int, str]]:
        """Size, time and state of every file in the manifest, which can be long: no more of them."""
        columns = sa.select(SourceFile.name, SourceFile.size, SourceFile.changed_ns, SourceFile.state)
        with self.store.read() as session:
            rows = session.execute(columns.where(SourceFile.source == self.name))
            return {name: (size, changed, state) for name, size, changed, state in rows}

    def _known(self, names: Sequence[str]) -> dict[str, SourceFile]:
        """All that is known of some files."""
        known: dict[str, SourceFile] = {}
        with self.store.read() as session:
            for start in range(0, len(names), MOST_FILES):
                chosen = self._files().where(SourceFile.name.in_(names[start : start + MOST_FILES]))
                known |= {file.name: file for file in session.scalars(chosen)}
            session.expunge_all()
        return known

    def _proposal(self, ready: list[tuple[FileStat, dict[str, Any]]], now: datetime) -> Proposal | None:
        entries: list[dict[str, Any]] = []
        rows = 0
        for stat, entry in ready[:MOST_FILES]:
            rows += max(1, (FileWindow(stat.path, self.source).estimate() or 0) - entry["from"])
            if entries and rows > self.section.batch_rows:
                break
            entries.append(entry)
        if not entries:
            return None
        window = {"files": entries}
        return Proposal(window, self._mark(window, now), is_last=len(entries) == len(ready))

    def left_out(self, wanted: LeftOut, now: datetime) -> list[Proposal]:
        """A window for each file that was never scored, or not as it is now; see ``FollowedSource``."""
        if wanted.since or wanted.until:
            raise SettingError(
                "Files have no position. Name them with --file, or leave it out for all that were skipped."
            )
        return [Proposal(window, self._mark(window, now)) for window in self._left_out(wanted.files)]

    def _left_out(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Windows of the files that were never scored, or not as they are now: those named, or all that were skipped.

        Of one that is named and was scored, the rows that have scores are left alone, by their key.

        Raises ``SettingError`` if a file that is named is not there, waits, or was scored and has no keys.
        """
        with self.store.read() as session:
            known = {file.name: file for file in session.scalars(self._files())}
            session.expunge_all()
        found = list_files(str(self.source.path))
        for name in names:
            if name not in found:
                raise SettingError(f"There is no file {name!r} in {self.base}. {nearest(name, found)}")
            state = known[name].state if name in known else "new"
            if state in ("new", "claimed", "waiting") or (state == "scored" and self.schema.key is None):
                raise SettingError(
                    f"{name} is {state}: only a file that was skipped, quarantined or changed can be backfilled, and "
                    f"with `columns.key` those rows of one that was scored which have no scores. It is scored again by "
                    f"`detector replay`."
                )
        chosen = names or [name for name, file in known.items() if file.state == "skipped" and name in found]
        windows = []
        for name in chosen:
            stat, file = found[name], known[name]
            self.schema.check(columns_of(stat.path, self.source))
            entry = {
                "name": name,
                "size": stat.size,
                "changed_ns": stat.changed_ns,
                "fingerprint": fingerprint(stat.path, size=stat.size),
                "from": 0,
                "generation": file.generation + (file.state == "changed"),
                "before": {column: getattr(file, column) for column in RESTORED},
            }
            windows.append({"files": [entry]})
        return windows

    def _mark(self, window: Mapping[str, Any], now: datetime) -> Callable[[Session, int], None]:
        """What marks the files of a window as taken."""

        def claim(session: Session, batch: int) -> None:
            for entry in window["files"]:
                self._note(session, entry | {"state": "claimed", "reason": "", "batch": batch}, now)

        return claim

    def is_intact(self, window: Mapping[str, Any]) -> bool:
        """Whether every file of it is as it was when it was claimed."""
        return all(self._is_intact(entry) for entry in window["files"])

    def can_replay(self, window: Mapping[str, Any]) -> bool:
        """Whether every file of it begins as it did when it was scored."""
        return self.is_intact(window)

    def replayed(self, window: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same rows of the same files."""
        return window

    def _is_intact(self, entry: Mapping[str, Any]) -> bool:
        path = self.base / entry["name"]
        try:
            state = path.stat()
            if (state.st_size, state.st_mtime_ns) == (entry["size"], entry["changed_ns"]):
                return True
            was_scored = "rows" in entry  # then what was appended since does not matter
            if state.st_size != entry["size"] and not (was_scored and state.st_size > entry["size"]):
                return False
            return bool(fingerprint(path, size=entry["size"]) == entry["fingerprint"])
        except OSError:
            return False

    def release(self, session: Session, window: Mapping[str, Any]) -> None:
        """Let the files be looked at anew, as they were known before."""
        for entry in window["files"]:
            file = session.scalars(self._files().where(SourceFile.name == entry["name"])).one_or_none()
            if file is None or file.state != "claimed":
                continue
            if entry["before"] is None:
                session.delete(file)
            for column, value in (entry["before"] or {}).items():
                setattr(file, column, value)

    def open(self, window: Mapping[str, Any]) -> InputBatch:
        """Read the files one after the other."""
        entries = window["files"]
        columns = columns_of(self.base / entries[0]["name"], self.source)
        return InputBatch(columns, lambda facts: self._frames(entries, facts))

    def _frames(self, entries: list[dict[str, Any]], facts: ReadFacts) -> Iterator[pd.DataFrame]:
        for entry in entries:
            facts.state["file"] = entry["name"]
            name = entry["name"] if entry["generation"] == 1 else f"{entry['name']}#{entry['generation']}"
            facts.spans.append((name, facts.rows, entry["from"]))
            try:
                window = FileWindow(self.base / entry["name"], self.source)
                for frame in frames_of(window, self.schema, also=self.also, skip=entry["from"], upto=entry.get("rows")):
                    frame.index = pd.RangeIndex(facts.rows, facts.rows + len(frame))
                    facts.rows += len(frame)
                    yield frame
            except (SourceError, SchemaError) as error:
                raise FileRefusedError(str(error), name=entry["name"]) from error
            facts.state.setdefault("rows", {})[entry["name"]] = window.rows
            if not window.rejected.empty:
                facts.rejected.append(window.rejected)
        facts.state.pop("file", None)

    def refuse(self, window: Mapping[str, Any], error: Exception, *, now: datetime) -> str | None:
        """Quarantine the file that could not be read; one whose first rows were scored keeps those scores."""
        entry = next((entry for entry in window["files"] if entry["name"] == getattr(error, "name", None)), None)
        if entry is None or not isinstance(error, FileRefusedError):
            return None
        state = "changed" if entry["from"] else UNREADABLE if unreadable(self.base / entry["name"]) else "broken"
        with self.store.write() as session:
            self._note(session, entry | {"state": state, "reason": str(error)}, now)
        return f"{entry['name']} is quarantined: {error}"

    def settle(self, session: Session, window: dict[str, Any], facts: ReadFacts, *, batch: int, now: datetime) -> None:
        """Mark the files as scored."""
        for entry in window["files"]:
            if not self._is_intact(entry):
                raise SourceError(
                    f"{self.base / entry['name']} changed while it was read; none of this batch was kept, and it is "
                    f"scored anew once the file has settled. Write to another name, then rename."
                )
            rows = entry["rows"] = facts.state["rows"][entry["name"]]
            self._note(session, entry | {"state": "scored", "reason": "", "rows": rows, "batch": batch}, now)

    def passed(self, window: Mapping[str, Any] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of the files that were scored or skipped and are still there."""
        own = {entry["name"]: entry for entry in (window or {"files": ()})["files"]}
        for name, state, rows in self._in_state("scored", "skipped"):
            parts = [(0, rows if state == "scored" else None)]
            if name in own:
                parts = [(0, own[name]["from"])]
                parts += [(own[name]["rows"], rows)] if "rows" in own[name] else []
            for skip, upto in parts:
                yield from self._rows_of(name, skip=skip, upto=upto)

    def skipped(self) -> Iterator[pd.DataFrame]:
        """The rows of the files that were left out at the start and are still there."""
        for name, _, _ in self._in_state("skipped"):
            yield from self._rows_of(name)

    def _in_state(self, *states: str) -> list[tuple[str, str, int]]:
        """Name, state and rows of the files in some states."""
        wanted = sa.select(SourceFile.name, SourceFile.state, SourceFile.rows).order_by(SourceFile.id)
        with self.store.read() as session:
            found = session.execute(wanted.where(SourceFile.source == self.name, SourceFile.state.in_(states)))
            return [(name, state, rows) for name, state, rows in found]

    def _rows_of(self, name: str, *, skip: int = 0, upto: int | None = None) -> Iterator[pd.DataFrame]:
        """The rows of a file, as far as it can be read."""
        try:
            window = FileWindow(self.base / name, self.source)
            yield from frames_of(window, self.schema, also=self.also, skip=skip, upto=upto)
        except (SourceError, SchemaError) as error:
            log.warning("%s is not in the past: %s", name, error)

    def lag(self, now: datetime) -> Lag:
        """How many files wait, and for how long the oldest of them has."""
        seen, found = self._seen(), list_files(str(self.source.path))
        waiting = [s for name, s in found.items() if is_new(s, seen.get(name)) or seen[name][2] == "claimed"]
        return Lag(len(waiting), max((s.age(now.timestamp()) for s in waiting), default=0.0))

    def _files(self) -> sa.Select[SourceFile]:
        return sa.select(SourceFile).where(SourceFile.source == self.name)

    def _note(self, session: Session, values: Mapping[str, Any], now: datetime) -> None:
        """Write down what is known of a file."""
        file = session.scalars(self._files().where(SourceFile.name == values["name"])).one_or_none()
        if file is None:
            file = SourceFile(source=self.name, name=values["name"], seen_at=now, rows=0, state="waiting")
            session.add(file)
        elif (file.size, file.changed_ns) != (values["size"], values["changed_ns"]):
            file.seen_at = now
        for column in ("size", "changed_ns", "fingerprint", "state", "reason", "rows", "generation", "batch"):
            if column in values:
                setattr(file, column, values[column])
