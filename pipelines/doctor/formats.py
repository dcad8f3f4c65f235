"""Values that cannot be read: how many, whether they are a kind of their own, and the form that would read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from detector.arrays import Flags
from detector.schema import MISSING, are_codes, guess_kind
from pipelines.config.formats import FormatSection
from pipelines.doctor.check import Check, State
from pipelines.doctor.missing_words import words_of
from pipelines.progress import percent
from pipelines.sources.formats import as_written, read_form

MANY_LOST = 0.01
MOSTLY_UNREAD = 0.5
NEARLY_ALL = 0.95
TRIED, TRIED_FIRST = 20_000, 200
"""Of how many values forms are tried; of more, those that read none of the first few different ones are not."""
LEAST = 5
NEARLY_NONE, ALMOST_ALL = 0.1, 0.995

_NUMBERS = tuple(
    FormatSection.model_validate(form)
    for form in (
        {"decimal": ","},
        {"thousands": ",", "decimal": "."},
        {"thousands": ".", "decimal": ","},
        {"thousands": " ", "decimal": ","},
        {"thousands": " ", "decimal": "."},
        {"thousands": "'", "decimal": "."},
    )
)
_DAYS = ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d %Y", "%b %d, %Y", "%Y/%m/%d")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %I.%M.%S.%f %p")
_STAMPS = {14: FormatSection(date="%Y%m%d%H%M%S"), 12: FormatSection(date="%Y%m%d%H%M")}
"""Dates of digits alone, by how many there are: read leniently, seconds since 1970 would be a time of the year 1767."""
_LOGS = (
    *("%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z", "%d/%b/%Y:%H:%M:%S", "%a, %d %b %Y %H:%M:%S %z"),
    *("%a, %d %b %Y %H:%M:%S GMT", "%d %b %Y %H:%M:%S %z", "%Y%m%dT%H%M%S%z"),
)
"""As logs of web servers and headers of mails have them."""
_DATES = (
    *(FormatSection(date=date) for date in ("day first", "month first")),
    *(FormatSection(date=day + clock) for day in _DAYS for clock in _CLOCKS),
    *(FormatSection(date=date) for date in _LOGS),
)
_NUMBER_AND_UNIT = (
    r"^[+-]?(?:(?P<before>[$€£¥]|[A-Z]{3} )\s*)?(?P<number>[+-]?[0-9][0-9.,' \u00a0\u202f]*?)"
    r"(?:\s*(?P<behind>[%‰°µΩ€$£¥]\S*|\s[A-Za-zµΩ][^\s+()-]*))?$"
)
_ONE_FORM = "Have it written in one form; a value that fits two would be read wrongly."
_EPOCHS = ((1e11, 1e13, "milliseconds"), (1e14, 1e16, "microseconds"), (1e17, 1e19, "nanoseconds"))
"""Of the years 1973 to 2286; seconds of these are read as they are."""


def unread_check(place: str, title: str, column: pd.Series, unread: Flags, wanted: str) -> Check:
    """Values that cannot be read: a warning where they are few and of no kind, else a problem, with the way out.

    - ``title``: what the column is called: "'amount'".
    - ``wanted``: what each value should have been: "a number".
    """
    name, share = str(column.name), float(unread.mean())
    found = f"{title}: {share_of(unread)} is not {wanted}, such as {example(column[unread])}"
    advice, kind = _advice(name, column, unread, dates=wanted in ("a date", "a time"))
    if kind:
        found += f"; {kind}"
    state: State = "problem" if share > MANY_LOST or kind else "warning"
    if not advice and share > MOSTLY_UNREAD:
        advice = "List it under `categorical` or `ignore`, or name another column."
    return Check(place, state, found, advice or "These rows will go to the quarantine.")


def propose(column: pd.Series, *, dates: bool) -> list[tuple[FormatSection, float]]:
    """The forms that read the most values of a column, each with the share it reads.

    Of forms that read all values alike it is the simplest.

    >>> found = propose(pd.Series(["1,234.50", "12.5"], name="amount"), dates=False)
    >>> [(form.describe(), share) for form, share in found]
    [('as 1,234.56', 1.0)]
    >>> [form.date for form, _ in propose(pd.Series(["03.08.2026", "04.08.2026"]), dates=True)]
    ['day first', 'month first']
    """
    text = _text(column)
    if not text.str.contains(r"\d").any():  # no form reads a value without a digit
        return []
    times = text.value_counts(sort=False)
    best: list[tuple[FormatSection, float]] = []
    readings: list[pd.Series] = []
    different = times.index.to_series(index=range(len(times)))
    few = different.iloc[:: -(-len(different) // TRIED_FIRST)]
    forms = _dates(text) if dates else (*_NUMBERS, *_with_unit(different))
    for form in (form for form in forms if len(few) == len(different) or not read_form(few, form)[1].all()):
        read, misfit = read_form(different, form)
        share = float(times.to_numpy()[~misfit].sum()) / len(text)
        if best and share > best[0][1]:
            best, readings = [], []
        if share > 0 and (not best or share == best[0][1]) and not any(read.equals(other) for other in readings):
            best.append((form, share))
            readings.append(read)
    return best


def numbers_in_forms(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns of text that are nearly always numbers in a form of their own, read as numbers.

    >>> numbers_in_forms(pd.DataFrame({"pump": ["P1", "P2"], "flow": ["4,5", "12"]}))["flow"].tolist()
    [4.5, 12.0]
    """
    read: dict[str, pd.Series] = {}
    for name in map(str, frame.columns):
        column = frame[name]
        if guess_kind(column)[0] == "categorical" and not are_codes(column):
            found = propose(column, dates=False)
            if found and found[0][1] >= NEARLY_ALL:
                text = read_form(column.astype("str"), found[0][0])[0]
                read[name] = pd.to_numeric(text, errors="coerce")
    return read


def _with_unit(text: pd.Series) -> list[FormatSection]:
    """Forms of numbers with the unit that nearly all values share; none if there is no such unit."""
    parts = text.str.extract(_NUMBER_AND_UNIT)
    units = parts["behind"].fillna(parts["before"]).dropna()
    if units.empty or len(units) < NEARLY_ALL * len(text) or are_codes(parts["number"]):
        return []
    unit = str(units.mode()[0]).strip()
    plain = FormatSection(unit=unit)
    return [plain, *(form.model_copy(update={"unit": unit}) for form in _NUMBERS)]


def forms_of_text(name: str, column: pd.Series) -> Iterator[Check]:
    """A column taken for text, nearly all of whose values are numbers or dates in a form of their own."""
    for dates, kind in () if are_codes(column) else ((False, "numeric"), (True, "datetime")):
        found = propose(column, dates=dates)
        if found and found[0][1] >= NEARLY_ALL:
            forms = " or ".join(form.describe() for form, _ in found)
            text = f"{name!r} is taken for text, and {percent(found[0][1])} of it is {kind}, written {forms}"
            yield Check("columns.categorical", "warning", text, f"{_settings(name, found)}, and list it as {kind}.")
            return


def share_of(mask: pd.Series | Flags) -> str:
    """A share for people: two digits behind the point where it is small, or nearly all.

    >>> share_of(np.arange(2_000) < 3), share_of(np.arange(2_000) >= 3), share_of(np.ones(3, dtype=bool))
    ('0.15 %', '99.85 %', '100 %')
    """
    share = float(np.mean(mask))
    return percent(share, 0 if share in (0.0, 1.0) or NEARLY_NONE <= share <= ALMOST_ALL else 2)


def example(column: pd.Series) -> str:
    """The first value there is."""
    known = column.dropna()
    text = repr(as_written(str(known.iloc[0]))) if len(known) else "nothing"
    return text if len(text) <= 40 else text[:39] + "…"


def _advice(name: str, column: pd.Series, unread: Flags, *, dates: bool) -> tuple[str, str]:
    """What to do, and what kind of values they are, "" if they are none."""
    lost = _text(column[unread])
    if (gone := words_of(column)) and not lost.map(as_written).str.contains(r"\d").any():
        key = name if name.isidentifier() else json.dumps(name)
        listed = ", ".join(map(_scalar, gone))
        return f"If a value is missing there, say so: `source.formats: {{{key}: {{missing: [{listed}]}}}}`.", ""
    if (lost.map(as_written) != lost).any():
        return "They are in another form than `source.formats` says. Mend them, or the form.", ""
    found = propose(column[unread], dates=dates)
    if found and found[0][1] >= NEARLY_ALL:
        # those of them that read the other values as well: "12.5" decides what "1,234" is
        others = _text(column[~unread])
        chosen = [(form, share) for form, share in found if _reads(form, others)]
        if not chosen:
            forms = " or ".join(form.describe() for form, _ in found)
            return _ONE_FORM, f"it is mixed: they are written {forms}, the others are not"
        size = "" if dates or not _are_largest(column, unread) else ", and they are the largest"
        return f"{_settings(name, chosen)}.", f"they are written {' or '.join(f.describe() for f, _ in chosen)}{size}"
    if dates and found and len(mixed := _mixed(lost)) > 1:
        words = " and ".join(f"{percent(share)} {form.describe()}" for form, share in mixed)
        return _ONE_FORM, f"it is mixed: {words}"
    if not dates and _are_largest(column, unread):
        return "Write them without separators or units.", "they are the largest"
    return "", ""


def _reads(form: FormatSection, text: pd.Series) -> bool:
    return text.empty or 1 - float(read_form(text, form)[1].mean()) >= NEARLY_ALL


def _mixed(text: pd.Series) -> list[tuple[FormatSection, float]]:
    """Forms each of which reads some values that the others do not."""
    found: list[tuple[FormatSection, float]] = []
    total = len(text)
    while len(text) and len(found) < 3:
        best = propose(text, dates=True)
        if not best or best[0][1] * len(text) < LEAST:
            break
        found.append((best[0][0], best[0][1] * len(text) / total))
        text = text[read_form(text, best[0][0])[1]]
    return found


def _settings(name: str, found: Sequence[tuple[FormatSection, float]]) -> str:
    key = name if name.isidentifier() else json.dumps(name)
    given = [form.model_dump(exclude_defaults=True) for form, _ in found]
    texts = [", ".join(f"{what}: {_scalar(value)}" for what, value in form.items()) for form in given]
    wanted = " or ".join(f"`source.formats: {{{key}: {{{text}}}}}`" for text in texts)
    return f"Set {wanted}" + (", whichever is meant: the values fit both" if len(texts) > 1 else "")


def _scalar(value: str) -> str:
    return value if value.replace(" ", "").isalpha() else json.dumps(value)


def _text(column: pd.Series) -> pd.Series:
    text = column.dropna().astype(str).str.strip()
    text = text[~text.str.lower().isin(MISSING)]
    return text.iloc[:: max(1, len(text) // TRIED)]


def _dates(text: pd.Series) -> Sequence[FormatSection]:
    numbers = pd.to_numeric(text, errors="coerce").abs()
    if numbers.notna().mean() > NEARLY_ALL:
        return [form for digits, form in _STAMPS.items() if _are_stamps(text, digits, form)] or [
            FormatSection(date=unit) for low, high, unit in _EPOCHS if low <= numbers.median() < high
        ]
    return _DATES


def _are_stamps(text: pd.Series, digits: int, form: FormatSection) -> bool:
    """Whether nearly all are so many digits that are a date, which of numbers that count from 1970 hardly any are."""
    whole = text[text.str.fullmatch(rf"[0-9]{{{digits}}}")]
    return bool(len(whole) >= NEARLY_ALL * len(text) and _reads(form, whole))


def _are_largest(column: pd.Series, unread: Flags) -> bool:
    """Whether unreadable values have more digits than nearly all of those that can be read."""
    digits = column.astype(str).str.replace(r"\D", "", regex=True).str.len()
    read = digits[~unread & column.notna().to_numpy()]
    return bool(unread.sum() >= LEAST and len(read) and digits[unread].median() > read.quantile(0.99))
