"""``detector init FILE``: look at a file or a folder of files, write a configuration, say what to check."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from detector.errors import SettingError, SinkError
from pipelines.config import FILE_NAME, load_config
from pipelines.config.data import FILENAME
from pipelines.doctor.check import MOST_NAMED
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import KEY, rank_of
from pipelines.doctor.formats import example
from pipelines.doctor.init_report import InitReport
from pipelines.doctor.proposal import Proposal, proposal_of
from pipelines.doctor.proposal_yaml import Written, as_yaml
from pipelines.doctor.repeats import SCAN_ROWS
from pipelines.doctor.times import times_of
from pipelines.doctor.unit_line import units_of
from pipelines.progress import counted
from pipelines.sources import Source, open_source
from pipelines.sources.dialect import UndecodableError, find_header
from pipelines.sources.files import find_files
from pipelines.sources.kinds import kind_of

LOOKED_AT = 20_000
MOST_FILES = 12
WINDOWS = "cp1252"


def init(file: Path, *, folder: Path, force: bool = False) -> InitReport:
    """Look at a file and write the configuration for it.

    - ``file``: or a folder of such files; the first is looked at. If they are readings of the same time, each is of a
      machine of its own.
    - ``folder``: where to; made if it does not exist.

    Raises ``SettingError`` if there is a configuration already, or it would lie among the rows; ``SourceError`` if the
    file cannot be read; ``SinkError`` if the folder cannot be written to.
    """
    if file.is_dir() and folder.resolve() == file.resolve():
        raise SettingError(
            f"{file} holds the rows, and results must not lie among them. Name another folder with --folder, such as "
            f"`--folder {file.resolve().parent}`."
        )
    target = folder / FILE_NAME
    if target.exists() and not force:
        raise SettingError(f"{target} is there already. Name another folder with --folder, or add --force.")
    files = find_files(str(file))
    source, frame, how = _look(files[0])
    units = units_of(frame)
    spread = _spread(source, len(frame)) if len(files) == 1 else None  # of several, rows of each are looked at
    found = replace(proposal_of(frame.iloc[1:] if units else frame, spread), units=units)
    path = os.path.relpath(file, folder)
    days = found.days * max(1.0, (source.estimate() or 0) / len(frame))
    if found.kind == "sensors":
        found = _with_machines(found, frame, files)
    elif len(files) > 1:
        frame = _some_of_each(files, how, frame)
        found = proposal_of(frame)
        days = found.days
    total = (source.estimate() or len(frame)) * len(files)
    text = as_yaml(found, path, name=name_of(file), rows=len(frame), total=total, days=days, how=how)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = target.read_text(encoding="utf-8") if target.exists() else None
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"{target} cannot be written: {error.strerror}. Name another folder with --folder.") from error
    try:
        load_config(target)
    except SettingError:
        if before is not None:
            target.write_text(before, encoding="utf-8")
        else:
            target.unlink()
        raise
    return InitReport(target, len(frame), found, (*found.notes, *_notes(source, how, units), *_waiting(found)))


def _look(file: Path) -> tuple[Source, pd.DataFrame, Written]:
    """A file, its first rows, and how it is written."""
    try:
        return _read(file, "utf-8")
    except UndecodableError:
        with suppress(UndecodableError):
            return _read(file, WINDOWS)
        raise


def _read(file: Path, encoding: str) -> tuple[Source, pd.DataFrame, Written]:
    how = Written(encoding, find_header(file, encoding=encoding) if kind_of(file) == "csv" else 1)
    source = open_source(how.section(file))
    return source, source.read(limit=LOOKED_AT), how


def _spread(source: Source, looked_at: int) -> pd.DataFrame | None:
    """Rows from the first of a file to the last, if the first are not all and reading all is quick."""
    total = source.estimate() or 0
    return source.sample(LOOKED_AT) if looked_at < total <= SCAN_ROWS and looked_at == LOOKED_AT else None


def _some_of_each(files: Sequence[Path], how: Written, first: pd.DataFrame) -> pd.DataFrame:
    """Rows of files from the first to the last: what is so in one, such as its month, need not be so in all."""
    chosen = [files[place * (len(files) - 1) // (MOST_FILES - 1)] for place in range(MOST_FILES)]
    chosen = list(dict.fromkeys(chosen))
    rows = LOOKED_AT // len(chosen)
    frames = [open_source(how.section(file)).read(limit=rows).reindex(columns=first.columns) for file in chosen]
    return pd.concat(frames, ignore_index=True)


def _notes(source: Source, how: Written, units: Mapping[str, str]) -> Iterator[str]:
    if units:
        some = ", ".join(list(units.values())[:MOST_NAMED])
        yield f"the first row holds units ({some}) and no values: it goes to the quarantine, of every file"
    if how.header > 1:
        above = "the line above it is" if how.header == 2 else f"the {how.header - 1} lines above it are"
        yield f"source.header: line {how.header} names the columns; {above} skipped, in every file"
    if how.encoding != "utf-8":
        yield f"source.encoding: the file is not utf-8, and is read as {how.encoding}; look at its umlauts and signs"
    if lines := source.rejected["reason"].tolist():
        yield f"{counted(len(lines), 'line')} cannot be read as rows, for the quarantine: {lines[0]}"


def _waiting(found: Proposal) -> Iterator[str]:
    if found.kind == "sensors":
        late = f"when {found.waits} have come after it"
        yield (
            f"series.trailing: a reading is scored as it comes; without it more is found, but {late}"
            if found.is_slow
            else f"series.wait: the service scores a reading {late}; `trailing: true` scores it at once, and finds less"
        )


def _with_machines(found: Proposal, frame: pd.DataFrame, files: Sequence[Path]) -> Proposal:
    """Rows of the same time in several files are those of machines, named by a column or by the file.

    By the first two files, if no column of the first names machines.
    """
    time = next(iter(found.named("time")), None)
    if len(files) < 2 or time is None or found.role("entity") is not None:
        return found
    other = _look(files[1])[1]
    first, second = (times_of(each[time.column], time.form) for each in (frame, other))
    if not (second.min() < first.max() and first.min() < second.max()):
        return found
    names = [each for each in found.choices if each.part != "time" and _names_a_file(each, frame, other)]
    if not names:
        return replace(found, entity_from=FILENAME, machines=len(files))
    machine = Choice(
        names[0].column, "entity", f"files of the same time: each has one, as {example(frame[names[0].column])}"
    )
    choices = [machine if each is names[0] else each for each in found.choices]
    return replace(found, choices=choices, machines=len(files))


def _names_a_file(choice: Choice, frame: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether all rows of a file have one name, and all of another file another one."""
    name = choice.column
    is_name = choice.part == "ignore" or KEY.search(name) or rank_of(name) is not None
    if not is_name or name not in other or frame[name].isna().any() or other[name].isna().any():
        return False
    return bool(frame[name].nunique() == other[name].nunique() == 1 and frame[name].iloc[0] != other[name].iloc[0])


def name_of(file: Path) -> str:
    """A name for the detector.

    >>> name_of(Path("Payments 2026 (new).csv"))
    'payments-2026-new'
    """
    return re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-") or "detector"
