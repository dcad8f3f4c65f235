"""Whether the places that the configuration names can be read and written."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from detector.errors import DetectorError, SourceError
from pipelines.config import Config, SourceSection
from pipelines.config.alert_channels import MissingSecret
from pipelines.config.values import hide_password
from pipelines.doctor.check import Check
from pipelines.progress import counted
from pipelines.sinks.files import CSV_SUFFIXES, PARQUET_SUFFIXES
from pipelines.sources.dialect import find_header
from pipelines.sources.files import find_files
from pipelines.sources.kinds import kind_of


def check_header(section: SourceSection) -> Iterator[Check]:
    """A warning where lines that are no header stand above it."""
    if section.path is None or section.header is not None:
        return
    with suppress(SourceError):
        file = find_files(section.path)[0]
        line = find_header(file, encoding=section.encoding) if kind_of(file) == "csv" else 1
        if line > 1:
            found = f"line {line} of {file} seems to name the columns, and what stands above it does not"
            yield Check("source.header", "warning", found, f"If so, write `header: {line}` below `source`.")


def check_output(config: Config) -> Iterator[Check]:
    """The file or table for the scores, and the quarantine file."""
    output = config.output
    if output.url is not None:
        yield _output_table(output.url, str(output.table))
    if output.path is not None:
        path = Path(output.path)
        if path.suffix.lower() not in CSV_SUFFIXES + PARQUET_SUFFIXES:
            yield Check("output.path", "problem", f"{path.name} is neither .parquet nor .csv", "Rename it.")
        else:
            yield _writable("output.path", path)
        yield from _not_the_source("output.path", path, config.source.path)
    quarantine = output.quarantine_path
    if quarantine.suffix.lower() not in CSV_SUFFIXES:
        yield Check("output.quarantine", "problem", f"{quarantine.name} is not .csv", "Rename it.")
    else:
        yield _writable("output.quarantine", quarantine)
    yield from _not_the_source("output.quarantine", quarantine, config.source.path)
    yield _writable("report", config.report)


def check_bundle(config: Config) -> Check:
    """The folder of the trained detector: whole, or able to be written."""
    folder = config.bundle
    if not folder.exists():
        found = _unwritable(folder)
        if found:
            return Check("bundle", "problem", found, "Choose another folder, or change its permissions.")
        return Check("bundle", "ok", f"{folder} is not there yet", "`detector train` writes it.")
    if not folder.is_dir():
        return Check("bundle", "problem", f"{folder} is a file", "Name a folder.")
    if not any(folder.iterdir()):
        return Check("bundle", "ok", f"{folder} is empty", "`detector train` fills it.")
    from detector.persist.bundle import load

    try:
        scorer = load(folder)
    except DetectorError as error:
        return Check("bundle", "problem", str(error), "Train again, or restore the folder.")
    found = f"{counted(len(scorer.schema.features), 'feature')}; members {', '.join(scorer.members)}"
    return Check("bundle", "ok", found)


def check_secrets(section: BaseModel, place: str = "alerts") -> Iterator[Check]:
    """Every secret of the alerts whose variable or file is not there: nothing can be sent without it."""
    for name in type(section).model_fields:
        value, here = getattr(section, name), f"{place}.{name}"
        if isinstance(value, BaseModel):
            yield from check_secrets(value, here)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, MissingSecret):
                advice = "`detector serve` needs it; commands that send nothing do not."
                yield Check(here, "problem", each.reason, advice)


def check_tracking(config: Config) -> Check:
    """The MLflow server or database."""
    if not config.tracking.enabled:
        return Check("tracking", "ok", "disabled")
    from pipelines.tracking import reachable

    trouble = reachable(config.tracking.uri)
    if trouble is not None:
        return Check("tracking.uri", "problem", trouble, "Correct it, or set `tracking.enabled: false`.")
    return Check("tracking.uri", "ok", hide_password(config.tracking.uri))


def _output_table(url: str, table: str) -> Check:
    from pipelines.store.database import Database

    try:
        database = Database(url, create=True)
        if database.is_missing_file:
            return Check("output.url", "ok", f"{database.name} will be created")
        with database.connect() as connection:
            there = database.table(connection, table) is not None
    except DetectorError as error:
        return Check("output.url", "problem", str(error), "Correct `output.url`.")
    state = "is there and is appended to" if there else "will be created"
    return Check("output.table", "ok", f"table {table} of {database.name} {state}")


def _writable(place: str, path: Path) -> Check:
    if path.is_dir():
        return Check(place, "problem", f"{path} is a folder", f"Name a file in it, such as {path / 'x'}.")
    found = _unwritable(path)
    if found:
        return Check(place, "problem", found, "Choose another place, or change its permissions.")
    return Check(place, "ok", f"{path} {'is there and is replaced' if path.exists() else 'can be written'}")


def _unwritable(path: Path) -> str | None:
    """Why a path cannot be created or replaced; None if it can."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is a file, not a folder"
    return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written by this user"


def _not_the_source(place: str, path: Path, source: str | None) -> Iterator[Check]:
    """A result that the next run would read as if it were input."""
    if source is None:
        return
    target, origin = Path(os.path.normpath(path.absolute())), Path(os.path.normpath(Path(source).absolute()))
    if target == origin:
        yield Check(place, "problem", f"{path} is the source itself", "Name another file.")
    elif (origin.is_dir() and target.parent == origin) or fnmatch.fnmatch(str(target), str(origin)):
        found = f"{path} lies among the source files, and the next run would read it"
        yield Check(place, "problem", found, "Name a file elsewhere.")
