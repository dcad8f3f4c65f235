"""Values written in a declared form → as they are written everywhere else: 1234.56, 2026-01-31T10:00:00."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.arrays import Flags
from detector.cleaning.values import INFINITE, MOMENT, read_dates
from detector.schema import MISSING
from pipelines.config.formats import FormatSection
from pipelines.sources.arrow import to_frame

PER_SECOND = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
YEARS = (-62_135_596_800_000_000, 253_402_300_799_000_000)  # the years 1 to 9999, in microseconds
MIXED = ("mixed", "mixed-integer", "date")
"""What pandas calls a column of objects that may be of several kinds, which Arrow has no type for."""
_SEPARATORS = {",": ",", ".": r"\.", " ": "[ \u00a0\u202f]", "'": "['’]"}
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*"
_ISO_TEXT = "%Y-%m-%dT%H:%M:%S.%f"
_DAY = (
    r"(?P<first>[0-9]{1,2})[./-](?P<second>[0-9]{1,2})[./-](?P<year>[0-9]{4})"
    r"(?:[ ,T]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<rest>[0-9]{2}(?:\.[0-9]{1,6})?))?"
    r"(?: ?(?P<half>[AaPp][Mm]))?)?(?P<zone>Z| ?[+-][0-9]{2}:?[0-9]{2})?"
)
_EPOCH = r"[+-]?[0-9]+(?:\.[0-9]+)?"
_ZONE = r".*:[0-9]{2}(?:\.[0-9]+)? ?(?:[AaPp][Mm])?(?:Z| ?[+-][0-9]{2}:?[0-9]{2})"
_DIGITS_ALONE = "(?:%[YymdHMS])+"
_REACH = (2, 9_998)
"""The years whose times another zone keeps within those that can be written."""
_NOTE = re.compile(r" \((?:not|not as) [^()]*\)$")


def with_formats(table: pa.Table, formats: Mapping[str, FormatSection]) -> pa.Table:
    """The same rows with the columns of ``formats`` in the form that ``detector.cleaning`` reads.

    A value that is not in its form stays as it is, with a note of the form behind it, so that nothing reads it in
    another way. Typed dates and numbers stay as they are, save for whole numbers that count from 1970.
    """
    for name, form in formats.items():
        if name not in table.column_names:
            continue
        at, column = table.column_names.index(name), table.column(name)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            text = column.to_pandas().astype("str")
            read, misfit = read_form(text, form)
            noted = read.mask(misfit, text + f" (not {form.describe()})")
            table = table.set_column(at, name, pa.array(noted, type=pa.string(), from_pandas=True))
            continue
        if form.missing:
            declared = pa.array(_stands_for_missing(column.to_pandas(), form))
            column = pc.if_else(declared, pa.scalar(None, column.type), column)
            table = table.set_column(at, name, column)
        if form.date in PER_SECOND and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            table = table.set_column(at, name, _moments(column.to_pandas(), PER_SECOND[form.date]))
        elif form.timezone is not None and pa.types.is_timestamp(column.type) and column.type.tz is None:
            moments = in_utc(column.cast(pa.timestamp("us"), safe=False).to_pandas(), form.timezone)
            table = table.set_column(at, name, pa.array(moments).cast(pa.timestamp("us", tz="UTC")))
    return table


def frame_with_formats(frame: pd.DataFrame, formats: Mapping[str, FormatSection]) -> pd.DataFrame:
    """The same for a frame, whose columns may hold text and numbers at once, as JSON and sheets have them.

    >>> frame = pd.DataFrame({"amount": ["1.234,5", 1.5, None]}, dtype=object)
    >>> frame_with_formats(frame, {"amount": FormatSection(thousands=".", decimal=",")})["amount"].tolist()
    ['1234.5', 1.5, None]
    """
    names = [name for name in formats if name in frame.columns]
    mixed = [name for name in names if pd.api.types.infer_dtype(frame[name]) in MIXED]
    frame = events_with_formats(frame, {name: formats[name] for name in mixed})
    if not (names := [name for name in names if name not in mixed]):
        return frame
    table = with_formats(pa.Table.from_pandas(frame[names], preserve_index=False), formats)
    return frame.assign(**{name: to_frame(table.select([name]), frame.index)[name] for name in names})


def events_with_formats(events: pd.DataFrame, formats: Mapping[str, FormatSection]) -> pd.DataFrame:
    """The same for events of JSON, in which text and numbers may stand in one column: text is in the declared form.

    >>> events = pd.DataFrame({"amount": ["1.234", 1.5], "sent": [1785751200000, None]}, dtype=object)
    >>> formats = {"amount": FormatSection(thousands=".", decimal=","), "sent": FormatSection(date="milliseconds")}
    >>> events_with_formats(events, formats)["amount"].tolist()
    ['1234', 1.5]
    """
    changed: dict[str, pd.Series] = {}
    for name, form in formats.items():
        if name not in events.columns or not len(events):
            continue
        column = events[name].astype(object)
        chosen = column.map(partial(needs_form, form=form)).to_numpy(dtype=bool)
        if chosen.any():
            text = column[chosen].map(str).to_frame(name)
            changed[name] = column.copy()
            changed[name][chosen] = frame_with_formats(text, {name: form})[name].astype(object).to_numpy()
    return events.assign(**changed)


def needs_form(value: Any, form: FormatSection) -> bool:
    """Whether a value is read by the declared form: text is, numbers that count from 1970, and a clock's times.

    >>> [needs_form(each, FormatSection(decimal=",")) for each in ("12,5", 12.5, None)]
    [True, False, False]
    >>> needs_form("2026-08-13T10:15:00", FormatSection(date="day first"))
    False
    """
    if form.is_missing(value):
        return True
    if isinstance(value, str) and not form.is_plain:
        if form.timezone is not None and re.fullmatch(_ZONE, value) is None:
            return True
        return not form.is_date or (form.date or "").startswith("%Y") or re.fullmatch(MOMENT, value) is None
    if isinstance(value, datetime):
        return form.timezone is not None and value is not pd.NaT and value.tzinfo is None
    return form.date in PER_SECOND and isinstance(value, (int, float)) and not isinstance(value, bool)


def as_written(text: str) -> str:
    """A value without the note of the form that it is not in.

    >>> as_written("12.5 (not as 1.234,56)")
    '12.5'
    """
    return _NOTE.sub("", text)


def read_form(text: pd.Series, form: FormatSection) -> tuple[pd.Series, Flags]:
    """Text in the form that is read everywhere, and which values are not in the declared form.

    >>> read_form(pd.Series(["1.234,50", "12.5", "NA"]), FormatSection(thousands=".", decimal=","))[0].tolist()
    ['1234.50', '12.5', 'NA']
    >>> read_form(pd.Series(["13.08.2026 10:15", "08/13/2026"]), FormatSection(date="day first"))[1].tolist()
    [False, True]
    """
    trimmed = text.str.strip()
    absent = trimmed.isna().to_numpy() | trimmed.str.lower().isin(MISSING).to_numpy()
    if form.missing:
        declared = _stands_for_missing(trimmed, form)
        text, trimmed, absent = text.mask(declared), trimmed.mask(declared), absent | declared
    if form.is_plain:
        return text, np.zeros(len(text), dtype=bool)
    if not form.is_date:
        absent = absent | trimmed.str.lower().isin(INFINITE).to_numpy()
        fits, read = _numbers(trimmed, form.with_decimal("."))
        if form.missing_numbers:
            declared = fits & _stands_for_missing(read.where(fits), form)
            text, absent = text.mask(declared), absent | declared
    else:
        trimmed = trimmed.mask(absent)
        fits, read = (trimmed.notna().to_numpy(), trimmed) if form.date is None else _dates(trimmed, form.date)
        if form.timezone is not None:
            is_told = trimmed.str.fullmatch(_ZONE).to_numpy(dtype=bool, na_value=False)
            fits, read = _by_the_clock(read.where(fits), is_told, form.timezone)
    fits = fits & ~absent
    return text.mask(fits, read), ~fits & ~absent


def _stands_for_missing(values: pd.Series, form: FormatSection) -> Flags:
    """Which values the form says are missing: text in any case, and numbers however they are written."""
    if pd.api.types.is_datetime64_any_dtype(values):
        words = pd.Series(form.missing, dtype=object)
        moments = pd.to_datetime(words, errors="coerce", format="ISO8601", utc=True).dropna()
        zoned = values if values.dt.tz is not None else values.dt.tz_localize("UTC")
        return np.asarray(zoned.isin(moments.to_numpy()), dtype=bool)
    found = np.zeros(len(values), dtype=bool)
    if form.missing_numbers:
        found |= pd.to_numeric(values, errors="coerce").isin(form.missing_numbers).to_numpy(dtype=bool)
    if pd.api.types.is_string_dtype(values):
        found |= values.str.strip().str.lower().isin(form.missing_texts).to_numpy(dtype=bool)
    return found


def in_utc(times: pd.Series, zone: str) -> pd.Series:
    """Times that a zone's clock tells, in UTC.

    Of an hour that it repeats the first, and a time that it skips counts as an hour later. Years that are hardly any,
    such as 9999, stay as they are.

    >>> told = pd.Series(pd.to_datetime(["2026-03-29 02:30", "2026-10-25 02:30"]))
    >>> in_utc(told, "Europe/Berlin").astype("str").tolist()
    ['2026-03-29 01:30:00', '2026-10-25 00:30:00']
    """
    inside = times.dt.year.between(*_REACH)
    told = times.where(inside)
    first = np.ones(len(told), dtype=bool)
    local = told.dt.tz_localize(zone, ambiguous=first, nonexistent=pd.Timedelta(hours=1))
    return local.dt.tz_convert("UTC").dt.tz_localize(None).where(inside, times)


def _by_the_clock(text: pd.Series, is_told: Flags, zone: str) -> tuple[Flags, pd.Series]:
    """Dates as they are read everywhere, of a zone's clock but for those that name a zone or count from 1970."""
    moments, unread = read_dates(text.astype("str"))
    counts = text.str.fullmatch(_EPOCH).to_numpy(dtype=bool, na_value=False)
    moments = moments.where(is_told | counts, in_utc(moments, zone))
    return moments.notna().to_numpy() & ~unread, moments.dt.strftime(_ISO_TEXT + "Z").astype("str")


def _numbers(text: pd.Series, form: FormatSection) -> tuple[Flags, pd.Series]:
    decimal = _SEPARATORS[str(form.decimal)]
    whole = "[0-9]+"
    if form.thousands is not None:
        comma = _SEPARATORS[form.thousands]
        whole = f"(?:[0-9]{{1,3}}(?:{comma}[0-9]{{3}})+|[0-9]{{1,2}}(?:{comma}[0-9]{{2}})+{comma}[0-9]{{3}}|[0-9]+)"
    pattern = rf"[+-]?(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    if form.unit is not None:
        text = _without_unit(text, form.unit)
    fits = text.str.fullmatch(pattern).to_numpy(dtype=bool, na_value=False)
    if form.thousands is not None:
        text = text.str.replace(_SEPARATORS[form.thousands], "", regex=True)
    return fits, text.str.replace(decimal, ".", regex=True)


def _without_unit(text: pd.Series, unit: str) -> pd.Series:
    """Numbers without the unit behind or before them; missing where there is none.

    >>> _without_unit(pd.Series(["12 %", "-5%", "12", "12 °C"]), "%").tolist()
    ['12', '-5', nan, nan]
    >>> _without_unit(pd.Series(["-$12.50"]), "$").tolist()
    ['-12.50']
    """
    what = re.escape(unit)
    behind = text.str.extract(rf"^(.*?)\s*{what}$")[0]
    before = text.str.extract(rf"^([+-]?)\s*{what}\s*(.*)$")
    return behind.fillna(before[0] + before[1])


def _dates(text: pd.Series, form: str) -> tuple[Flags, pd.Series]:
    if form in PER_SECOND:
        digits = text.str.fullmatch(_EPOCH).to_numpy(dtype=bool, na_value=False)
        moments = _moments(text.where(digits), PER_SECOND[form]).to_pandas()
    elif form.endswith(" first"):
        moments = _by_parts(text, day_first=form.startswith("day"))
    else:
        if re.fullmatch(_DIGITS_ALONE, form):  # pandas fills up a few: "1785758400" would be of the year 1785
            text = text.where(text.str.len() == sum(4 if each == "Y" else 2 for each in form[1::2]))
        moments = pd.to_datetime(text, format=form, errors="coerce", utc=True).dt.tz_localize(None)
    found = pd.Series(moments.to_numpy(), index=text.index)
    fits, read = found.notna().to_numpy(), found.dt.strftime(_ISO_TEXT).astype("str")
    if not form.startswith("%Y"):
        iso = text.str.fullmatch(_ISO).to_numpy(dtype=bool, na_value=False) & ~fits
        fits, read = fits | iso, read.mask(iso, text)
    return fits, read


def _by_parts(text: pd.Series, *, day_first: bool) -> pd.Series:
    parts = text.str.extract(f"^{_DAY}$")
    day, month = ("first", "second") if day_first else ("second", "first")
    hour = parts["hour"].astype("float64")
    half = parts["half"].str.lower()
    hour = hour.mask(half.notna() & ~hour.between(1, 12))
    hour = hour.mask(half.notna(), hour % 12 + 12 * (half == "pm"))
    lost = (parts["hour"].notna() & hour.isna()).to_numpy()
    clock = hour.fillna(0).astype(int).astype("str").str.zfill(2) + ":" + parts["minute"].fillna("00")
    zone = parts["zone"].fillna("").str.strip()
    iso = parts["year"] + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2)
    iso = iso + "T" + clock + ":" + parts["rest"].fillna("00") + zone
    found = pd.to_datetime(iso.mask(lost), format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    return found.astype("datetime64[us]")


def _moments(numbers: pd.Series, per_second: int) -> pa.Array:
    """Times of numbers that count from 1970, to the microsecond; missing where that is no time."""
    known = numbers.notna().to_numpy()
    values = pd.to_numeric(numbers[known]).to_numpy()
    least, most = YEARS[0] / 1_000_000 * per_second, YEARS[1] / 1_000_000 * per_second
    inside = (values >= least) & (values <= most)
    values = values[inside]
    if values.dtype.kind in "iu" and per_second > 1_000_000:
        micros = values // (per_second // 1_000_000)
    elif values.dtype.kind in "iu":
        micros = values * (1_000_000 // per_second)
    else:
        micros = np.rint(values.astype(np.float64) * (1_000_000 / per_second))
    found = np.full(len(numbers), np.datetime64("NaT"), dtype="datetime64[us]")
    found[np.flatnonzero(known)[inside]] = micros.astype(np.int64).astype("datetime64[us]")
    return pa.array(found)
