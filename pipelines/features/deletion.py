"""Take one entity out of what is kept for features: the past of training and of the service, and held events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from detector.atomic import whole_file
from detector.errors import BundleError
from detector.features import load_history
from pipelines.config import Config
from pipelines.features import stored_history
from pipelines.features.engine import PAST, ROWS, history_folder
from pipelines.store import Store
from pipelines.store.access_tables import HeldEvent


def delete_past_of(config: Config, entity: str, keys: set[str], *, dry: bool) -> dict[str, int]:
    """Forget what an entity did before; how many keys of pasts, and rows that are kept beside them.

    - ``entity``: as text.
    - ``keys``: of its rows.

    No instance may hold the past in memory meanwhile.

    Raises ``BundleError`` if a file is broken.
    """
    column, folder, pasts, rows = str(config.columns.entity), history_folder(config), 0, 0
    own = {path.with_suffix("") for path in (folder / config.name).glob("past-*")}
    for path in _there(*(stored_history.find(place) for place in (folder / PAST, *sorted(own)))):
        history = load_history(path)
        found = history.drop(column, entity)
        pasts += found
        if found and not dry:
            stored_history.keep(history, path.with_suffix(""), most=math.inf, purge=True)
    if not dry:
        for path in (*stored_history.leftovers(folder), *stored_history.leftovers(folder / config.name)):
            stored_history.remove(path)
    for path in _there(folder / ROWS, *sorted((folder / config.name).glob("batch-*.parquet"))):
        rows += _filter(path, column, entity, config.columns.key, keys, dry=dry)
    return {"feature histories": pasts, "rows in feature histories": rows}


def delete_held(config: Config, store: Store, entity: str, *, dry: bool) -> tuple[int, set[str]]:
    """Delete the events of an entity that were scored on request and wait for the source; how many, and their keys."""
    with store.write() as session:
        held = session.scalars(sa.select(HeldEvent).where(HeldEvent.source == config.name)).all()
        ours = [each for each in held if str(each.row.get(str(config.columns.entity))).strip() == entity]
        keys = {each.key for each in ours}
        if not dry:
            for each in ours:
                session.delete(each)
    return len(ours), keys


def _there(*paths: Path) -> Iterator[Path]:
    yield from (path for path in paths if path.exists())


def _filter(path: Path, column: str, entity: str, key: str | None, keys: set[str], *, dry: bool) -> int:
    try:
        rows = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is broken ({type(error).__name__}). Train again.") from error
    ours = pd.Series(data=False, index=rows.index)
    if column in rows:
        ours |= rows[column].astype(str).str.strip() == entity
    if key in rows:
        ours |= rows[key].astype(str).str.strip().isin(keys)
    if ours.any() and not dry:
        with whole_file(path) as file:
            rows[~ours].to_parquet(file)
    return int(ours.sum())
