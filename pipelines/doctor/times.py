"""Which column of a file says when, and what its times say."""

from __future__ import annotations

import math

import pandas as pd

from detector.cleaning.values import read_dates
from detector.schema import guess_kind
from pipelines.config.formats import FormatSection
from pipelines.doctor.choice import Choice
from pipelines.doctor.column_names import TIME
from pipelines.doctor.formats import NEARLY_ALL, example, propose
from pipelines.progress import percent
from pipelines.sources.formats import read_form

THESE_TIMES = (1990, 2100)
MISREAD_DAYS = 365
"""Seconds and milliseconds of our times, read as thousandths of what they are, are days after the first of 1970."""
CLOCK = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?(?: ?[AaPp][Mm])?"
LEAST_MOVES, ROWS_A_MOVE = 4, 10


def time_of(frame: pd.DataFrame) -> Choice | None:
    """The column that says when: of several the one named so, without gaps, with a clock, of the shortest time.

    Rows of a quarter hold policies that began in ten years. Of columns of about the same time, the one of most times.
    """
    found: list[tuple[tuple[bool, bool, bool, int, float], Choice]] = []
    for name in map(str, frame.columns):
        column = frame[name]
        kind, why = guess_kind(column)
        form, check = None, ""
        is_number = kind == "numeric" or bool(column.dropna().astype("str").str.fullmatch(r"\+?[0-9]+").all())
        if kind != "datetime":
            if is_number and not TIME.search(name):
                continue
            forms = propose(column, dates=True)
            if is_number and _are_dates_as_they_are(column):
                why = f"its name, and its numbers are dates, such as {example(column)}"
            elif not forms or forms[0][1] < NEARLY_ALL:
                continue
            else:
                form, why = forms[0][0], f"{percent(forms[0][1])} are dates, written {forms[0][0].describe()}"
                if len(forms) > 1:
                    check = f"they would fit {forms[1][0].describe()} too, such as {example(column)}"
        distinct = column.nunique() / max(len(column), 1)
        days, dated = reach(times_of(column, form))
        rank = (bool(TIME.search(name)), not bool(column.isna().any()), not dated)
        score = (*rank, -round(math.log2(days + 1)), distinct)
        found.append((score, Choice(name, "time", why, check or "it must say when it happened", form)))
    return max(found, key=lambda each: each[0])[1] if found else None


def _are_dates_as_they_are(column: pd.Series) -> bool:
    """Whether nearly all numbers are days such as 20260131, or seconds since 1970, of these times."""
    years = read_dates(column)[0].dt.year
    return bool(years.between(*THESE_TIMES).sum() >= NEARLY_ALL * max(column.count(), 1))


def are_misread(when: pd.Series) -> bool:
    """Whether times are such as only a wrong form gives: of the years to come, or of the days from which stamps count.

    >>> are_misread(pd.Series(pd.to_datetime(["1812-03-01"]))), are_misread(pd.Series(pd.to_datetime(["1970-01-20"])))
    (False, True)
    """
    middle = when.dropna().median()
    return bool(middle.year > THESE_TIMES[1] or 0 <= (middle - pd.Timestamp(0)).days < MISREAD_DAYS)


def is_clock(column: pd.Series) -> bool:
    """Whether values are times of a day, without the day.

    >>> is_clock(pd.Series(["08:15:00", "23:59", None])), is_clock(pd.Series(["2026-01-31 08:15", "1:0"]))
    (True, False)
    """
    known = column.dropna().astype("str").str.strip()
    return bool(len(known) and known.str.fullmatch(CLOCK).mean() >= NEARLY_ALL)


def times_of(column: pd.Series, form: FormatSection | None) -> pd.Series:
    """The times of a column that is written in a form; without those that cannot be read."""
    return read_dates(column if form is None else read_form(column.astype("str"), form)[0])[0].dropna()


def reach(when: pd.Series) -> tuple[float, bool]:
    """How many days times span, and whether they are days, without a clock."""
    if when.empty:
        return 0.0, False
    return (when.max() - when.min()) / pd.Timedelta(days=1), bool((when == when.dt.normalize()).all())


def moves_on(column: pd.Series, when: pd.Series) -> bool:
    """Whether each value is of a stretch of time and does not come again, as of a month's name: others will follow.

    Of numbers these must grow or fall as well: a price may come again.

    >>> when = pd.Series(pd.date_range("2026-01-01", periods=120))
    >>> moves_on(when.dt.strftime("%Y-%m"), when), moves_on(when.dt.day_name(), when)
    (True, False)
    """
    values = column.dropna().reindex(when.index).dropna()
    many = values.nunique()
    if not LEAST_MOVES <= many <= len(values) / ROWS_A_MOVE:
        return False
    spans = when.loc[values.index].groupby(values).agg(["min", "max"]).sort_values("min")
    apart = bool((spans["min"].to_numpy()[1:] > spans["max"].to_numpy()[:-1]).all())
    if not apart or guess_kind(column)[0] != "numeric":
        return apart
    steps = pd.to_numeric(pd.Series(spans.index), errors="coerce").diff().dropna()
    return bool((steps > 0).all() or (steps < 0).all())
