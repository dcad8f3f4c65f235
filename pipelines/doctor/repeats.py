"""Whether a file holds rows of the one before it, as an export of everything does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from detector.cleaning.values import read_names
from detector.errors import DetectorError
from pipelines.config import Config
from pipelines.doctor.check import Check
from pipelines.doctor.formats import share_of
from pipelines.sources import open_source
from pipelines.sources.files import find_files

MOST_ROWS = 2_000_000
"""Of a file; larger ones are not looked at."""


def check_repeats(config: Config) -> Iterator[Check]:
    """What the service would score again; nothing where scores go to a table, in which a key has them once."""
    path, key = config.source.path, config.columns.key
    if path is None or key is None or config.output.path is None:
        return
    try:
        files = find_files(path)[-2:]
        if len(files) < 2:
            return
        before, last = (_names(config, file, key) for file in files)
    except DetectorError:  # which another check says
        return
    again = last.isin(before.dropna())
    if again.any():
        older, newer = (file.name for file in files)
        found = f"{share_of(again)} of the rows of {newer} have keys of {older}: coming later, they are scored again"
        advice = "Export what is new alone, or write scores to a table, where a key has them once: `output.url`."
        yield Check("source.path", "warning", found, advice)


def _names(config: Config, file: Path, key: str) -> pd.Series:
    source = open_source(config.source.at(str(file)))
    if (source.estimate() or 0) > MOST_ROWS:
        return pd.Series([], dtype="str")
    return read_names(source.read(columns=[key])[key])
