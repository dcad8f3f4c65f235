"""Files that hold what another file held, byte for byte: sent twice under two names, or renamed."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.ingest.fingerprint import WHOLE
from pipelines.ingest.listing import FileStat
from pipelines.store import SourceFile

Ready = tuple[FileStat, dict[str, Any]]


def split_copies(
    session: Session, source: str, ready: Sequence[Ready], *, base: Path
) -> tuple[list[Ready], list[dict[str, Any]]]:
    """Files that are ready and hold rows of their own, and what is to be written down of the others.

    A copy of a file that is there is quarantined. One whose first name is gone was renamed: it counts as scored.
    """
    own: dict[tuple[int, str], Path] = {}
    kept: list[Ready] = []
    notes: list[dict[str, Any]] = []
    for stat, entry in ready:
        note = None
        if entry["from"] == 0 and entry["generation"] == 1:
            note = _note(session, source, stat, entry, own, base=base)
        if note is None:
            kept.append((stat, entry))
            own[stat.size, entry["fingerprint"]] = stat.path
        else:
            notes.append(note)
    return kept, notes


def _note(
    session: Session,
    source: str,
    stat: FileStat,
    entry: Mapping[str, Any],
    own: Mapping[tuple[int, str], Path],
    *,
    base: Path,
) -> dict[str, Any] | None:
    facts = {name: entry[name] for name in ("name", "size", "changed_ns", "fingerprint")}
    twin = own.get((stat.size, entry["fingerprint"]))
    if twin is not None and filecmp.cmp(twin, stat.path, shallow=False):
        return facts | {"state": "broken", "reason": _as_copy(twin.name)}
    known = sa.select(SourceFile).where(
        SourceFile.source == source,
        SourceFile.state.in_(("scored", "claimed")),
        SourceFile.size == stat.size,
        SourceFile.fingerprint == entry["fingerprint"],
        SourceFile.name != stat.name,
    )
    for file in session.scalars(known.order_by(SourceFile.id)):
        place = base / file.name
        if place.is_file():
            if (file.rows or file.state == "claimed") and filecmp.cmp(place, stat.path, shallow=False):
                return facts | {"state": "broken", "reason": _as_copy(file.name)}
        elif file.state == "scored" and stat.size <= WHOLE:
            reason = f"it was scored as {file.name}"
            return facts | {"state": "scored", "reason": reason, "rows": file.rows, "batch": file.batch}
    return None


def _as_copy(twin: str) -> str:
    return f"it holds the same as {twin}, byte for byte, whose rows are scored once. Remove it"
