import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.cleaning.values import read_booleans, read_categories, read_dates, read_names, read_numbers
from detector.errors import SchemaError

BAD = object()
DAY = dt.datetime(2024, 1, 31)  # noqa: DTZ001  what is tested has no zone


def _arrow(values: list[Any], kind: pa.DataType) -> pd.Series:
    return pd.Series(pa.array(values, kind), dtype=pd.ArrowDtype(kind))


def _read(read: Callable[[pd.Series], tuple[pd.Series, Any]], value: Any) -> Any:
    """Read one value; BAD where it cannot be read, None where it is missing."""
    values, unread = read(pd.Series([value]))
    if unread[0]:
        assert pd.isna(values[0])
        return BAD
    return None if pd.isna(values[0]) else values[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(12.5, 12.5), (True, 1.0), (np.int8(3), 3.0), (Decimal("1.5"), 1.5), (2**70, 2.0**70), (b"4", 4.0)],
        *[("12.5", 12.5), (" 3 ", 3.0), ("1e3", 1000.0), ("-.5", -0.5), ("5.", 5.0), ("+1E-2", 0.01)],
        *[(text, None) for text in ("", "  ", "NA", "nan", "null", "None", "N/A", "<NA>", "NaT")],
        *[(None, None), (pd.NA, None), (float("nan"), None), (Decimal("NaN"), None)],
        *[("inf", np.inf), ("-Infinity", -np.inf), ("1e999", np.inf), (float("-inf"), -np.inf)],
        *[(text, BAD) for text in ("abc", "1,000", "1_000", "0x1A", "1 2", "--1", "1e", "True", "12:30", "３")],
        *[([1], BAD), (1j, SchemaError), (DAY, SchemaError), (pd.Timedelta("1h"), SchemaError)],
    ],
)
def test_read_numbers_reads_one_value(value: Any, expected: Any) -> None:
    """Numbers and plain text that is one are read; anything doubtful is not."""
    if expected is SchemaError:
        with pytest.raises(SchemaError, match="should hold a number in each row, but its type is"):
            _read(read_numbers, value)
    else:
        assert _read(read_numbers, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(value, 1.0) for value in (True, 1, 1.0, "1", "1.0", "true", "TRUE", " t ", "yes", "Y", "On", np.True_)],
        *[(value, 0.0) for value in (False, 0, 0.0, "0", "false", "F", "no", "n", "OFF", Decimal(0))],
        *[(value, None) for value in (None, "", "NA", float("nan"))],
        *[(value, BAD) for value in (2, -1, 0.5, "2", "maybe", "open", float("inf"), "inf")],
        (DAY, SchemaError),
    ],
)
def test_read_booleans_reads_one_value(value: Any, expected: Any) -> None:
    """The usual spellings of true and false become 1 and 0."""
    if expected is SchemaError:
        with pytest.raises(SchemaError, match="should hold true or false in each row"):
            _read(read_booleans, value)
    else:
        assert _read(read_booleans, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(value, DAY) for value in (DAY, DAY.date(), np.datetime64("2024-01-31"), "2024-01-31", 20240131)],
        *[(value, DAY) for value in (" 20240131 ", "2024-01-31T00:00:00Z", "2024-01-31 02:00+02:00")],
        *[(value, DAY) for value in (1706659200, 1706659200.0, "1706659200", "1.7066592e9")],
        (pd.Timestamp("2024-01-31 01:00", tz="Europe/Berlin"), DAY),
        ("2024-01-31T00:00:00.123456789", DAY.replace(microsecond=123456)),
        ("9999-12-31", DAY.replace(9999, 12)),
        *[(value, None) for value in (None, "", "NaT", "null", pd.NaT, float("nan"))],
        *[(value, BAD) for value in ("31/01/2024", "2024-02-30", "20240230", 20240230, "now", "today", "x")],
        *[(value, BAD) for value in (5, 2024, "2024", -1.0, 1706659200000, "1706659200000", float("inf"))],
        (True, SchemaError),
        (pd.Period("2024-01"), SchemaError),
    ],
)
def test_read_dates_reads_one_value(value: Any, expected: Any) -> None:
    """Dates are UTC; a number is read where it can mean only one thing; never the clock."""
    if expected is SchemaError:
        with pytest.raises(SchemaError, match="should hold a date in each row"):
            _read(read_dates, value)
    else:
        assert _read(read_dates, value) == expected


@pytest.mark.parametrize(
    "text",
    [
        *["2024-01-31", "2024-01-31T10", "2024-01-31 10:11", "2024-01-31T10:11:12.5", "2024-01-31T10:11:12.1234567"],
        *["2024-01-31T10:11:12Z", "2024-01-31 10:11:12-23:59", "2024-01-31T10:11:12+02", "2024-01-31T10:11:12+0200"],
        *["2024-01-31T10:11:12+25:00", "2024-01-31T24:00:00", "2024-01-31T23:59:60", "2024-01-31T10:11:12,5"],
        *["0000-01-01", "0001-01-01", "0001-01-01T00:00:00+01:00", "1600-02-29", "1900-02-29", "9999-12-31T23:59:59"],
        *["10000-01-01", "2024-1-1", "2024-W05-1", "20240131T101112", "2024-01-31T", "2024-01-31 ", "", "NA"],
    ],
)
def test_a_date_means_the_same_beside_others(text: str) -> None:
    """Alone in its column, with another of its form, and among those of other forms and what is none."""
    alone = read_dates(pd.Series([text], dtype="str"))

    for others in ([text], ["2024-01-31T10:11:12Z"], ["x", "31.01.2024", "2024-01-31"]):
        values, unread = read_dates(pd.Series([text, *others], dtype="str"))
        assert (str(values[0]), unread[0]) == (str(alone[0][0]), alone[1][0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1.0, "1", " 1 ", Decimal("1.00"), b"1"], ["1"] * 6),
        ([1.0, None, -0.0, 0.5], ["1", None, "0", "0.5"]),
        (["a ", "", " ", None, "NA"], ["a", None, None, None, "NA"]),
        ([True, False], ["True", "False"]),
        ([True, 1, "True"], ["True", "1", "True"]),
        ([dt.date(2024, 1, 31), DAY], ["2024-01-31", "2024-01-31"]),
        (
            pd.to_datetime(["2024-01-31", "2024-01-31 10:00"], format="ISO8601"),
            ["2024-01-31", "2024-01-31T10:00:00"],
        ),
        (pd.Categorical([2, 1, None]), ["2", "1", None]),
        (pd.Categorical(["a", "b ", None]), ["a", "b", None]),
        ([float("inf"), 1e300, 2**70], ["inf", "1e+300", str(2**70)]),
        ([Decimal("1.50"), Decimal("Infinity")], ["1.5", "Infinity"]),
        ([], []),
    ],
)
def test_read_categories_gives_one_text_per_value(values: Any, expected: list[str | None]) -> None:
    """A category does not change its name with the type its column happened to come in."""
    read = read_categories(pd.Series(values))

    assert read.dtype == "str"
    assert [None if pd.isna(value) else value for value in read] == expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pd.Series([3, 4]), "int64", [3, 4]),
        (pd.Series([3.0, 4.0]), "int64", [3, 4]),
        (pd.Series([3.0, None]), "Int64", [3, None]),
        (pd.Series([3.5, None]), "float64", [3.5, None]),
        (pd.Series([1e300]), "float64", [1e300]),
        (pd.Series([float("inf")]), "float64", [float("inf")]),
        (pd.Series([" a", "", None, "NA"]), "str", ["a", None, None, "NA"]),
        (pd.Series(["C019    ", "C019", "007", " 7"]), "str", ["C019", "C019", "007", "7"]),
        (pd.Series(["b ", " b", None], dtype="category"), "str", ["b", "b", None]),
        (pd.Series([1, "1", None, b"x"], dtype=object), "str", ["1", "1", None, "x"]),
        (pd.Series(["b", None], dtype="category"), "str", ["b", None]),
        (_arrow([3.0, None], pa.float64()), "Int64", [3, None]),
    ],
)
def test_read_names_keeps_typed_names(values: pd.Series, kind: str, expected: list[Any]) -> None:
    """A key of integers stays one, with or without gaps; mixed keys become text."""
    read = read_names(values)

    assert read.dtype == kind
    assert [None if pd.isna(value) else value for value in read] == expected


@pytest.mark.parametrize(
    ("read", "column", "expected"),
    [
        (read_numbers, pd.Series([1, None], dtype="Int64"), [1.0, None]),
        (read_numbers, pd.Series([0.5], dtype="float32"), [0.5]),
        (read_numbers, pd.Series(["1", None], dtype="category"), [1.0, None]),
        (read_numbers, _arrow([Decimal("1.5"), None], pa.decimal128(5, 2)), [1.5, None]),
        (read_numbers, _arrow([True, None], pa.bool_()), [1.0, None]),
        (read_booleans, pd.Series([True, None], dtype="boolean"), [1.0, None]),
        (read_booleans, pd.Series(["yes", None], dtype="category"), [1.0, None]),
        (read_booleans, _arrow([False, None], pa.bool_()), [0.0, None]),
        (read_dates, pd.Series(["2024-01-31", None], dtype="category"), [DAY, None]),
        (read_dates, pd.Series([20240131, None], dtype="Int64"), [DAY, None]),
        (read_dates, _arrow([DAY.date(), None], pa.date32()), [DAY, None]),
        (read_dates, _arrow([DAY, None], pa.timestamp("ms", "UTC")), [DAY, None]),
    ],
)
def test_readers_take_every_column_type(read: Any, column: pd.Series, expected: list[Any]) -> None:
    """Nullable, categorical and Arrow columns read like plain ones."""
    values, unread = read(column)

    assert not unread.any()
    assert values.dtype in (np.float64, np.dtype("datetime64[us]"))
    assert [None if pd.isna(value) else value for value in values] == expected


@pytest.mark.parametrize("read", [read_numbers, read_booleans, read_dates])
def test_readers_take_an_empty_column(read: Any) -> None:
    """No rows in, no rows out, typed all the same."""
    for column in (pd.Series([], dtype=object), pd.Series([], dtype="str"), pd.Series([None], dtype=object)):
        values, unread = read(column)

        assert len(values) == len(unread) == len(column)
        assert not unread.any()
        assert values.dtype != object


def test_a_float_column_is_not_copied() -> None:
    """Typed columns cost nothing: a million rows of them pass through."""
    column = pd.Series([1.0, np.nan])

    assert read_numbers(column)[0] is column


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.decimals(allow_nan=False),
    st.text(max_size=4),
    st.sampled_from(["1.5", "1e3", "2024-01-31", "2024-01-31T10:00:00.123456789+02:00", "20240131", "yes", "now"]),
)


@pytest.mark.parametrize("read", [read_numbers, read_booleans, read_dates])
@settings(max_examples=30, deadline=None)
@given(cells=st.lists(CELLS, min_size=1, max_size=6))
def test_a_value_reads_the_same_in_any_company(read: Any, cells: list[Any]) -> None:
    """What a value means does not depend on the batch it arrives in."""
    together, unread = read(pd.Series(cells, dtype=object))

    for i, cell in enumerate(cells):
        alone, unread_alone = read(pd.Series([cell], dtype=object))
        assert unread_alone[0] == unread[i]
        assert alone[0] == together[i] or (pd.isna(alone[0]) and pd.isna(together[i]))


@settings(max_examples=50, deadline=None)
@given(number=st.floats(allow_nan=False))
def test_a_number_as_text_is_that_number(number: float) -> None:
    """Nothing is lost between a number and its text."""
    assert _read(read_numbers, repr(number)) == number


@settings(max_examples=50, deadline=None)
@given(
    moment=st.datetimes(),
    zone=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-5))]),
)
def test_a_time_as_text_is_that_time(moment: dt.datetime, zone: dt.tzinfo) -> None:
    """Nothing is lost between a time and its ISO text, whatever the zone."""
    if 1 < moment.year < 9999:
        aware = moment.replace(tzinfo=zone)
        utc = aware.astimezone(dt.UTC).replace(tzinfo=None)

        assert _read(read_dates, aware.isoformat()) == utc
        assert _read(read_dates, moment.isoformat()) == moment


FULL = [
    "2024-01-31T10:00:00",
    "2024-01-31 10:00:00.5",
    "2024-01-31T10:00:00Z",
    "2024-02-30T10:00:00",
    "2024-01-31T10:00:00.123456+05:30",
    "0000-01-01T00:00:00",
    "9999-12-31T23:59:59-10:00",
]


def test_full_dates_alone_are_read_as_among_others() -> None:
    """A column of nothing but dates in full goes a shorter way, to the same moments and the same faults."""
    alone, unread = read_dates(pd.Series(FULL))
    among, unread_too = read_dates(pd.Series([*FULL, " 2024-01-31 "]))

    assert alone.tolist() == among[:-1].tolist()
    assert unread.tolist() == unread_too[:-1].tolist()
    assert unread.sum() >= 1
