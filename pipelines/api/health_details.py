"""What an operator looks at once a service is up: columns that drift, why rows were set aside, room on the disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.config import Config
from pipelines.sinks.quarantine import kind_of, quarantine_folder
from pipelines.store import Run

MOST_ROWS = 20_000
"""Rows of a batch's quarantine that are looked at; of more, the first tell the reasons."""


def drift_of(session: Session) -> dict[str, Any] | None:
    """The last look for drift: when, in a sentence, and what moved most; None if nothing was compared yet."""
    wanted = sa.select(Run).where(Run.job == "drift", Run.outcome == "done").order_by(Run.id.desc()).limit(1)
    run = session.scalars(wanted).first()
    if run is None:
        return None
    return {"at": run.started_at.isoformat(), "note": run.note, "columns": run.facts.get("columns", [])}


def set_aside_of(config: Config, batches: Sequence[int]) -> list[dict[str, Any]]:
    """Why rows of batches are in the quarantine, the most frequent reason first; of those whose file is still there."""
    found: Counter[str] = Counter()
    columns = [name for name in (*config.columns.numeric, *config.columns.categorical) if name]
    for batch in batches:
        file = quarantine_folder(config) / f"batch-{batch:08d}.csv"
        if file.is_file():
            reasons = pd.read_csv(file, usecols=["reason"], dtype="str", nrows=MOST_ROWS)["reason"].dropna()
            found.update(kind_of(str(reason), columns=columns) for reason in reasons)
    return [{"reason": reason, "rows": rows} for reason, rows in found.most_common(10)]


def disk_of(config: Config) -> list[dict[str, Any]]:
    """How much room there is where the service writes, each disk once."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for place in (config.bundle.parent, quarantine_folder(config)):
        folder = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
        room = shutil.disk_usage(folder)
        free = {"folder": str(Path(folder)), "free_gb": round(room.free / 1e9, 1)}
        found.setdefault((folder.stat().st_dev, room.total), free | {"free_share": round(room.free / room.total, 3)})
    return list(found.values())
