"""Whether a file holds rows of the one before it, as an export of everything does."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from detector.cleaning.values import read_names
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.formats import share_of
from pipelines.doctor.names import key_of
from pipelines.sources import open_source
from pipelines.sources.files import find_files

SCAN_ROWS = 2_000_000
"""Files with more rows are not read as a whole."""


def check_repeats(config: Config) -> Iterator[Check]:
    """What becomes of rows that the last file has of the one before it, in the service.

    Nothing where the two are the same to the byte, one of which it sets aside, or a table of scores has keys once.
    """
    path, key = config.source.path, config.columns.key
    if path is None:
        return
    try:
        files = find_files(path)[-2:]
        if len(files) < 2 or filecmp.cmp(files[0], files[1], shallow=False):
            return
        before, last = (_read(config, file, [key] if key is not None else None) for file in files)
    except (DetectorError, OSError):  # which another check says
        return
    older, newer = (file.name for file in files)
    if key is None:
        yield from _without_key(config, before, last, older, newer)
        return
    again = read_names(last[key]).isin(read_names(before[key]).dropna())
    if not again.any():
        return
    found = f"{share_of(again)} of the rows of {newer} have keys of {older}"
    if config.skips_repeated_rows:
        found += ": the service skips those that are unchanged, and scores the others again"
        yield Check("service.repeated_rows", "ok", found)
    elif config.output.path is not None:
        advice = "Leave out `service.repeated_rows: score`, or export what is new alone."
        yield Check("service.repeated_rows", "warning", f"{found}: coming later, they are scored again", advice)


def _without_key(config: Config, before: pd.DataFrame, last: pd.DataFrame, older: str, newer: str) -> Iterator[Check]:
    """Rows that are the same as a whole; without a time, equal rows may be different ones."""
    names = [name for name in before.columns if name in last.columns]
    if config.kind != "table" or config.columns.time not in names:
        return
    rows = pd.MultiIndex.from_frame(last[names].astype(str))
    again = rows.isin(pd.MultiIndex.from_frame(before[names].astype(str)))
    if not again.any():
        return
    found = f"{share_of(again)} of the rows of {newer} are in {older}, too: coming later, they are scored again"
    choice = key_of(last.drop(columns=[config.columns.time]), last.duplicated())
    advice = "Export what is new alone, or name a column that names a row in `columns.key`."
    if choice is not None:
        advice = f"Name the column that names a row, `columns: {{key: {choice.column}}}`, and train again."
    yield Check("columns.key", "warning", found, f"{advice} With a key, the service skips rows that came before.")


def _read(config: Config, file: Path, columns: list[str] | None) -> pd.DataFrame:
    source = open_source(config.source.at(str(file)))
    return source.read(columns=columns, limit=0 if (source.estimate() or 0) > SCAN_ROWS else None)
