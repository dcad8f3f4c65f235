"""``detector init FILE``: look at a file or a folder of files, write a configuration, say what to check."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from detector.errors import SettingError, SinkError
from pipelines.config import FILE_NAME, SourceSection, load_config
from pipelines.config.data import FILENAME
from pipelines.doctor.check import MOST_NAMED
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import KEY, rank_of
from pipelines.doctor.formats import example
from pipelines.doctor.init_report import InitReport
from pipelines.doctor.proposal import WAIT, Proposal, proposal_of
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
ENOUGH = 1_200
"""Rows that tell a reading in a thousand apart: nine tenths of them calibrate."""
ENOUGH_OWN, MOST_OWN = 2_000, 10
"""Rows of a machine from which a model of its own learns enough, and machines whose models are trained in minutes."""
ROLES = ("key", "time", "entity", "label")
PASTS = (30, 7, 1)
SLOW = 7
"""Rows of an entity that are more days apart are compared and counted over a longer window."""
LONG_PASTS = (350, 195, 105, 45, 7, 1)
"""Between months: 90 days hold two monthly bills or three, by the month, and 105 always three."""
LEAST_IN_A_PAST = 3
"""So many rows of an entity a long window holds, in the mean."""
USUAL_SHARE, LEAST_SHARE = 4, 2
"""A window is proposed where the rows reach so many times as far: of its length, the first rows are not learnt from."""
KINDS = ("numeric", "categorical", "boolean", "datetime", "ignore")


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
    text = written(found, path, name=name_of(file), rows=len(frame), total=total, days=days, how=how)
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


@dataclass(frozen=True)
class Written:
    """How a file is written, where it is not the usual way."""

    encoding: str = "utf-8"
    header: int = 1

    def section(self, file: Path) -> SourceSection:
        """What a configuration says of it."""
        return SourceSection(path=str(file), encoding=self.encoding, header=None if self.header == 1 else self.header)


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


def written(found: Proposal, path: str, *, name: str, rows: int, total: int, days: float, how: Written) -> str:
    """The configuration as text, each line with its reason; the whole source has ``total`` rows, over ``days``."""
    lines = [*_lines(found, path, name, rows, days, how), *_series(found, total), "", "policy:", *_policy(found, total)]
    return "\n".join([*lines, "", "output:", "  path: scores.parquet"]) + "\n"


def _lines(found: Proposal, path: str, name: str, rows: int, days: float, how: Written) -> Iterator[str]:
    yield f"# Proposed by `detector init` after a look at {rows:,} rows. Correct what it got wrong; every setting is in"
    yield "# docs/configuration.md, and `detector doctor` checks this file against the rows."
    yield f"name: {_scalar(name)}"
    if found.kind == "sensors":
        yield _noted("kind: sensors", found.why)
    yield from ("", "source:", f"  path: {_scalar(path)}")
    if how.header > 1:
        yield _noted(f"  header: {how.header}", "the line that names the columns")
    if how.encoding != "utf-8":
        yield _noted(f"  encoding: {how.encoding}", "it is not utf-8")
    if forms := [(choice, choice.form) for choice in found.choices if choice.form is not None]:
        yield "  formats:"
        for choice, form in forms:
            given = ", ".join(f"{what}: {_scalar(value)}" for what, value in form.model_dump(exclude_none=True).items())
            yield _noted(f"    {_scalar(choice.column)}: {{{given}}}", choice.check)
    yield from ("", "columns:")
    for role in ROLES:
        for choice in found.named(role):
            yield _noted(f"  {role}: {_scalar(choice.column)}", choice.why)
    if found.entity_from is not None:
        yield _noted("  entity: machine", "files of the same time: each is of one")
        yield f"  entity_from: {found.entity_from}"
    for kind in KINDS:
        if choices := found.named(kind):
            yield f"  {kind}:"
            yield from (_noted(f"  - {_scalar(choice.column)}", choice.why) for choice in choices)
    yield from _names(found)
    yield from _features(found, days)


def _policy(found: Proposal, total: int) -> Iterator[str]:
    """What is flagged; ``total`` rows are there to learn from."""
    if found.kind == "table":  # a stricter quantile flags next to nothing where one training row in a hundred is odd
        per = "day" if found.role("time") else "batch"
        yield _noted("  quantile: 0.99", "flag what is rarer than one normal row in a hundred")
        yield _noted(f"  budget: {{rows: 20, per: {per}}}", "and never more than people can look at")
    elif total >= ENOUGH * (found.machines if _has_own_models(found, total) else 1):
        yield _noted("  quantile: 0.999", "flag what is rarer than one normal reading in a thousand")
    else:
        yield _noted("  quantile: 0.99", "one in a hundred: so few rows tell no rarer ones apart; with more, 0.999")


def _names(found: Proposal) -> Iterator[str]:
    called = {name: {"name": f"{name} added"} for name in found.counters}
    for name, unit in found.units.items():
        called[name] = called.get(name, {}) | {"unit": unit}
    if called:
        yield _noted("  names:", "what reasons call them")
    for name, given in called.items():
        yield f"    {_scalar(name)}: {{{', '.join(f'{what}: {_scalar(value)}' for what, value in given.items())}}}"


def _past(days: float, pace: float) -> str:
    """How far back to look: rows whose past is shorter than the window are not learnt from.

    >>> _past(365, 2), _past(39, 2), _past(8, 2), _past(1_095, 30), _past(334, 30)
    ('30d', '7d', '1d', '105d', '105d')
    """
    pasts, share = (LONG_PASTS, LEAST_SHARE) if pace > SLOW else (PASTS, USUAL_SHARE)
    fitting = [past for past in pasts if past * share <= days] or [pasts[-1]]
    enough = [past for past in fitting if past >= LEAST_IN_A_PAST * pace] if pace > SLOW else []
    return f"{min(enough, default=fitting[0])}d"


def _features(found: Proposal, days: float) -> Iterator[str]:
    entity, amount = found.role("entity"), found.amount
    if found.kind != "table" or not found.role("time") or not entity:
        return
    yield from ("", _noted("features:", "beside the entity's own past; docs/features.md has more"), "  history:")
    past = _past(days, found.pace)
    counts = ["1d", "7d"] if found.dated else ["1h", "1d"]
    windows = ", ".join([*counts, past] if found.pace > SLOW and past not in ("1d", "7d") else counts)
    for name in (entity, *found.counted):
        yield f"  - {_scalar(f'count by {_quoted(name)} over {windows}')}"
    for name in found.accounts:
        yield f"  - {_scalar(f'new of {_quoted(name)} by {_quoted(entity)} over {past}')}"
    if found.place is not None and not found.dated:
        where = ", ".join(map(_quoted, found.place))
        yield f"  - {_scalar(f'speed of {where} by {_quoted(entity)} over 1d')}"
    if amount:
        yield f"  - {_scalar(f'ratio of {_quoted(amount)} by {_quoted(entity)} over {past}')}"
    if amount and found.currency:
        yield _noted(
            f"  - {_scalar(f'ratio of {_quoted(amount)} by {_quoted(found.currency)} over {past}')}",
            "how much it is in its currency",
        )
    if amount and amount != "amount":
        yield f"  amount: {_scalar(amount)}"
    if amount and found.currency:
        yield f"  currency: {_scalar(found.currency)}"
        yield _noted("  mixed: apart", "amounts are compared within each currency only")


def _has_own_models(found: Proposal, total: int) -> bool:
    """Whether each machine is learnt by itself: none is like another, or each has rows enough."""
    return found.apart or (1 < found.machines <= MOST_OWN and total >= ENOUGH_OWN * found.machines)


def _series(found: Proposal, total: int) -> Iterator[str]:
    if found.kind != "sensors":
        return
    yield from ("", "series:")
    if found.apart:
        yield _noted("  models: entity", "one model for each sensor, as none is like another")
    elif _has_own_models(found, total):
        each = "one for each machine; `shared`: one for all, also for those to come, which must be alike"
        yield _noted("  models: entity", each)
    elif found.role("entity") or found.entity_from:
        yield _noted("  models: shared", "one model for all machines, which must be alike; else `entity`: one for each")
    if found.is_slow:
        yield _noted("  trailing: true", f"a score waits for no reading; without it for {found.waits}")
    else:
        yield _noted(f"  wait: {WAIT}", f"a score waits for {found.waits} readings; `trailing: true` waits for none")
    if found.sampled is not None or found.counters:
        yield "  sampling:"
    if (steps := found.sampled) is not None:
        yield "    # readings come when something changes: each step holds the last one, for `limit` steps at most"
        yield from (
            f"    every: {steps.every}",
            "    align: last",
            "    missing: previous",
            f"    limit: {steps.limit}",
        )
    if found.counters:
        names = ", ".join(_scalar(name) for name in found.counters)
        yield _noted(f"    counters: [{names}]", "what they add from reading to reading is looked at")


def _noted(line: str, note: str) -> str:
    return f"{line:<28} # {note}" if note else line


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"\w+", name) else f'"{name}"'


def _scalar(value: object) -> str:
    """A value as YAML: plain where nothing can be misread, else as JSON, which is YAML too."""
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_./-][\w ./-]*", text) and text.lower() not in _WORDS and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n", "~", ".inf", ".nan", "-"}
