import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.cleaning.clean import Cleaned, clean
from detector.cleaning.quarantine import quarantine
from detector.cleaning.reader import ColumnReader
from detector.cleaning.values import read_numbers
from detector.errors import DataError, SchemaError
from detector.schema import Schema

SCHEMA = Schema(
    key="id",
    time="when",
    entity="card",
    label="fraud",
    numeric=("amount",),
    boolean=("online",),
    datetime=("opened",),
    categorical=("shop",),
)


def _table(**changes: Any) -> pd.DataFrame:
    """Four good rows, with some columns replaced."""
    columns = {
        "id": [10, 11, 12, 13],
        "when": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"],
        "card": ["a", "a", None, "b"],
        "fraud": [0, 1, None, 0],
        "amount": [1.0, 2.0, None, 4.0],
        "online": ["yes", "no", None, "t"],
        "opened": ["2020-01-01", None, "2020-01-03", "2020-01-04"],
        "shop": ["x", " x", None, "y"],
    }
    return pd.DataFrame(columns | changes)


def test_clean_types_every_column() -> None:
    """Good rows come out typed, role columns first, and nothing is quarantined."""
    cleaned = clean(_table(extra=1), SCHEMA, labelled=True)

    assert list(cleaned.rows.columns) == ["id", "when", "card", "fraud", "amount", "online", "opened", "shop"]
    assert [str(kind) for kind in cleaned.rows.dtypes] == [
        *["int64", "datetime64[us]", "str", "float64", "float64", "float64", "datetime64[us]", "str"]
    ]
    assert cleaned.rows["online"].tolist()[:2] == [1.0, 0.0]
    assert cleaned.rows["shop"].tolist()[:2] == ["x", "x"]
    assert cleaned.rows.loc[2].isna().tolist() == [False, False, True, True, True, True, False, True]
    assert cleaned.quarantine.empty
    assert cleaned.reasons() == {}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", "abc", "amount: 'abc' is not a number"),
        ("amount", "inf", "amount: 'inf' is infinite"),
        ("amount", -np.inf, "amount: -inf is infinite"),
        ("online", "maybe", "online: 'maybe' is neither true nor false"),
        ("opened", "31/01/2024", "opened: '31/01/2024' is not a date"),
        ("when", "soon", "when: 'soon' is not a date"),
        ("when", None, "when: the time is missing"),
        ("id", None, "id: the key is missing"),
        ("id", " ", "id: the key is missing"),
        ("fraud", "perhaps", "fraud: 'perhaps' is neither 0 nor 1"),
        ("fraud", 2, "fraud: 2 is neither 0 nor 1"),
        ("amount", "x" * 60, f"amount: '{'x' * 39}… is not a number"),
    ],
)
def test_clean_quarantines_a_bad_value_with_its_reason(column: str, value: Any, reason: str) -> None:
    """One impossible value costs one row, and the reason names column and value."""
    table = _table()
    table[column] = table[column].astype(object)
    table.loc[1, column] = value

    cleaned = clean(table, SCHEMA, labelled=True)

    assert cleaned.rows.index.tolist() == [0, 2, 3]
    assert cleaned.quarantine["row"].tolist() == [1]
    assert cleaned.quarantine["reason"].tolist() == [reason]
    assert sum(cleaned.reasons().values()) == 1


@pytest.mark.parametrize("column", ["id", "card"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("A" * 10_000_000, f"'{'A' * 39}… has more than 10,000 characters"),
        ("a\0b", r"'a\x00b' holds a NUL character"),
    ],
    ids=["long", "nul"],
)
def test_clean_quarantines_names_that_stop_a_database(column: str, value: str, reason: str) -> None:
    """A key or an entity of megabytes, or with a NUL, would have its whole batch refused again and again."""
    cleaned = clean(_table(**{column: ["k", value, None if column == "card" else "l", "m"]}), SCHEMA)

    assert cleaned.quarantine["reason"].tolist() == [f"{column}: {reason}"]
    assert len(cleaned.rows) == 3


def test_clean_joins_the_reasons_of_one_row() -> None:
    """Whoever repairs a row sees all that is wrong with it at once."""
    table = _table(amount=["1", "x", "y", "4"], online=["yes", "z", "no", "no"])

    cleaned = clean(table, SCHEMA)

    assert cleaned.quarantine["reason"].tolist() == [
        "amount: 'x' is not a number; online: 'z' is neither true nor false",
        "amount: 'y' is not a number",
    ]
    assert cleaned.reasons() == {"amount: not a number": 2, "online: not true or false": 1}


def test_clean_gives_quarantined_rows_back_as_they_came() -> None:
    """The quarantine holds the source's own values, columns without a meaning included."""
    table = _table(amount=["1", "x", "3", "4"], extra=[1, 2, 3, 4], row=["p", "q", "r", "s"], source_row="t")

    quarantine = clean(table, SCHEMA).quarantine

    assert quarantine.columns[:2].tolist() == ["row", "reason"]
    came = ["row", "amount", "when", "extra", "source_row", "source_source_row"]
    assert quarantine.loc[0, came].tolist() == [1, "x", "2024-01-02", 2, "t", "q"]


def test_quarantine_says_where_rows_stood_and_keeps_their_index() -> None:
    """The position may be another than the index, and text stays text where there are no rows."""
    rows = pd.DataFrame({"reason": ["r", "s"]}, index=[5, 3])

    found = quarantine(rows, ["bad", "worse"], positions=np.array([-1, 8]))

    assert found.to_dict("index") == {
        5: {"row": -1, "reason": "bad", "source_reason": "r"},
        3: {"row": 8, "reason": "worse", "source_reason": "s"},
    }
    assert quarantine(rows[:0], []).dtypes["reason"] == "str"


def test_clean_keeps_the_first_of_a_repeated_key() -> None:
    """A key's later appearances leave, and say where the first is."""
    cleaned = clean(_table(id=[17, 18, 17, 17.0]), SCHEMA)

    assert cleaned.rows["id"].tolist() == [17, 18]
    assert cleaned.quarantine["reason"].tolist() == ["id: key 17 appears again (first at row 0)"] * 2
    assert cleaned.reasons() == {"id: repeated key": 2}


def test_clean_does_not_lose_a_good_row_to_a_bad_namesake() -> None:
    """If a key's first row is bad, its second is the one to keep."""
    cleaned = clean(_table(id=["a", "a", "b", "a"], amount=["x", "2", "3", "4"]), SCHEMA)

    assert cleaned.rows.index.tolist() == [1, 2]
    assert cleaned.quarantine["reason"].tolist() == [
        "amount: 'x' is not a number",
        "id: key a appears again (first at row 1)",
    ]


def test_clean_can_keep_repeated_keys() -> None:
    """Where a table may hold a key twice, both rows are scored."""
    cleaned = clean(_table(id=[1, 1, 1, 1]), SCHEMA, drop_duplicates=False)

    assert len(cleaned.rows) == 4


def test_clean_keeps_equal_rows_without_a_key() -> None:
    """Two equal sensor readings are two readings."""
    cleaned = clean(pd.DataFrame({"a": [1.0, 1.0]}), Schema(numeric=("a",)))

    assert len(cleaned.rows) == 2


def test_clean_counts_positions_from_the_offset() -> None:
    """In a later batch the positions are those in the whole table."""
    cleaned = clean(_table(id=[1, 2, 1, 3], amount=["1", "x", "3", "4"]), SCHEMA, positions=pd.RangeIndex(1000, 1004))

    assert cleaned.rows.index.tolist() == [1000, 1003]
    assert cleaned.quarantine["row"].tolist() == [1001, 1002]
    assert cleaned.quarantine["reason"].tolist()[1] == "id: key 1 appears again (first at row 1000)"


def test_clean_ignores_the_index_the_frame_came_with() -> None:
    """Positions count from the top, also after a filter or a shuffle."""
    cleaned = clean(_table(amount=["1", "x", "3", "4"]).set_index(pd.Index([5, 5, 7, 8])), SCHEMA)

    assert cleaned.rows.index.tolist() == [0, 2, 3]
    assert cleaned.quarantine["row"].tolist() == [1]


def test_clean_reads_a_label_where_it_can_when_none_is_needed() -> None:
    """Scoring does not stop at a label, whether it is absent or unreadable."""
    unreadable = clean(_table(fraud=["fraud", "1", None, "0"]), SCHEMA)
    absent = clean(_table().drop(columns="fraud"), SCHEMA)

    assert unreadable.rows["fraud"].isna().tolist() == [True, False, True, False]
    assert "fraud" not in absent.rows
    assert len(absent.rows) == 4


def test_clean_lets_the_time_be_a_feature() -> None:
    """A time column that is a feature as well stands once, and must be there."""
    cleaned = clean(pd.DataFrame({"when": ["2024-01-01", None]}), Schema(time="when", datetime=("when",)))

    assert list(cleaned.rows.columns) == ["when"]
    assert cleaned.quarantine["reason"].tolist() == ["when: the time is missing"]


def test_clean_takes_an_array_without_names() -> None:
    """Numbered columns are found by their number's text."""
    rows = clean(pd.DataFrame([[1.0, 2.0]]), Schema(numeric=("0", "1"))).rows

    assert rows.to_numpy().tolist() == [[1.0, 2.0]]


def test_clean_types_an_empty_frame() -> None:
    """No rows is the caller's business; they come back typed."""
    cleaned = clean(_table().iloc[:0], SCHEMA, labelled=True)

    assert len(cleaned.rows) == len(cleaned.quarantine) == 0
    assert cleaned.rows["amount"].dtype == np.float64
    assert cleaned.rows["when"].dtype == "datetime64[us]"
    assert cleaned.quarantine.columns[:2].tolist() == ["row", "reason"]


def test_clean_survives_a_table_of_bad_rows() -> None:
    """Every row may be bad."""
    cleaned = clean(_table(amount=["a", "b", "c", "d"]), SCHEMA)

    assert cleaned.rows.empty
    assert cleaned.rows["amount"].dtype == np.float64
    assert len(cleaned.quarantine) == 4


def test_clean_takes_a_hundred_thousand_categories() -> None:
    """A column of unique texts is slow for nobody and loses nothing."""
    names = [f"shop {i}" for i in range(100_000)]

    rows = clean(pd.DataFrame({"shop": names}), Schema(categorical=("shop",))).rows

    assert rows["shop"].tolist() == names


def test_clean_leaves_the_frame_alone() -> None:
    """What goes in is not changed, not even through the rows that come out."""
    table = _table()
    before = table.copy(deep=True)

    rows = clean(table, SCHEMA).rows
    rows.loc[0, "amount"] = 99.0

    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        ([[1.0]], DataError, "expected a pandas DataFrame, got list. Convert it"),
        (_table().rename(columns={"amount": "amuont"}), SchemaError, "'amount' is missing.*'amuont'"),
        (_table().rename(columns={"shop": "online"}), SchemaError, "two columns named 'online'"),
        (_table().drop(columns="fraud"), SchemaError, "'fraud' is missing"),
        (
            _table(amount=pd.Timestamp("2024-01-01")),
            SchemaError,
            r"'amount' should hold a number.*datetime64",
        ),
        (_table(when=True), SchemaError, "'when' should hold a date in each row, but its type is bool"),
    ],
)
def test_clean_refuses_what_no_row_can_repair(frame: Any, error: type[Exception], message: str) -> None:
    """A fault of the whole table is one error, not a million quarantined rows."""
    with pytest.raises(error, match=message):
        clean(frame, SCHEMA, labelled=True)


def test_clean_passes_typed_numbers_through() -> None:
    """Numbers that are typed already cost nothing: they are looked at, not copied."""
    frame = pd.DataFrame({f"f{i}": np.full(100_000, float(i)) for i in range(30)})
    started = time.perf_counter()

    cleaned = clean(frame, Schema(numeric=tuple(frame.columns)))

    # Under 0.01 s on an idle machine; a loop over rows would take far longer than the limit.
    assert time.perf_counter() - started < 1.0
    assert np.shares_memory(cleaned.rows["f0"].to_numpy(), frame["f0"].to_numpy())


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.one_of(st.none(), st.integers(0, 8), st.sampled_from(["a", "b", ""])),
            "amount": st.one_of(st.none(), st.floats(), st.booleans(), st.sampled_from(["1.5", "x", "NA", ""])),
            "when": st.sampled_from(["2024-01-01", "2024-01-02T03:04:05Z", "x", None, 1.7e9, 3]),
            "shop": st.one_of(st.none(), st.text(max_size=3), st.integers(0, 3)),
        }
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, drop=st.booleans())
def test_clean_never_loses_a_row(rows: list[dict[str, Any]], drop: bool) -> None:
    """Each row is in one of the two parts, in its order, and kept rows hold what the source held."""
    table = pd.DataFrame(rows, columns=["id", "amount", "when", "shop"], dtype=object)
    schema = Schema(key="id", time="when", numeric=("amount",), categorical=("shop",))

    cleaned = clean(table, schema, drop_duplicates=drop)

    kept, quarantine = cleaned.rows.index.tolist(), cleaned.quarantine["row"].tolist()
    assert sorted(kept + quarantine) == list(range(len(table)))
    assert kept == sorted(kept)
    assert quarantine == sorted(quarantine)
    assert all(cleaned.quarantine["reason"])
    assert not cleaned.rows[["id", "when"]].isna().any(axis=None)
    assert not drop or cleaned.rows["id"].is_unique
    for position in kept:
        source, amount = rows[position], cleaned.rows.loc[position, "amount"]
        assert cleaned.rows.loc[position, "id"] == str(source["id"])
        given = source["amount"] if source["amount"] not in (None, "NA", "") else float("nan")
        assert amount == float(given) or (np.isnan(amount) and np.isnan(float(given)))


def test_reasons_come_with_the_most_frequent_first() -> None:
    """A report starts with what is worth repairing."""
    counted = Cleaned(pd.DataFrame(), pd.DataFrame(), counts={"a: infinite": 1, "b: not a date": 5}).reasons()

    assert list(counted) == ["b: not a date", "a: infinite"]


def test_columns_that_were_read_before_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What features have read, ``clean`` takes over: not once rows were taken out, or of a column that is new."""
    read: list[Any] = []

    def read_and_note(column: pd.Series) -> Any:
        read.append(column.name)
        return read_numbers(column)

    monkeypatch.setattr("detector.cleaning.reader.read_numbers", read_and_note)
    frame = pd.DataFrame({"id": [1, 2], "amount": ["3", "x"]}, index=[5, 7])
    schema = Schema(key="id", numeric=("amount", "count"))
    reader = ColumnReader(frame)
    reader.numbers("amount")
    measured = frame.assign(count=[1.0, 2.0])

    whole = clean(measured, schema, positions=measured.index, reader=reader.over(measured))
    once = list(read)
    part = clean(measured[:1], schema, positions=measured.index[:1], reader=reader.over(measured[:1]))

    assert whole.rows["count"].to_dict() == {5: 1.0}
    assert whole.quarantine["row"].tolist() == [7]
    assert once == ["amount", "count"]
    assert part.rows["amount"].to_dict() == {5: 3.0}
    assert read == once * 2
