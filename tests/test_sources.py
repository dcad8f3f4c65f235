from __future__ import annotations

import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from detector.errors import MissingExtraError, SchemaError, SettingError, SourceError
from pipelines.config import ColumnsSection, SourceSection
from pipelines.sources import Source, open_source
from pipelines.sources.arrow import plain_type, unify
from pipelines.sources.dialect import find_header
from tests.postgres_server import PostgresServer

Make = Callable[..., Source]


@pytest.fixture
def csv(tmp_path: Path) -> Make:
    def _make(text: str | bytes, *, name: str = "data.csv", **settings: Any) -> Source:
        file = tmp_path / name
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return open_source(SourceSection(path=str(file), **settings))

    return _make


def opened(path: Path | str, **settings: Any) -> Source:
    return open_source(SourceSection(path=str(path), **settings))


def sql(url: str, **settings: Any) -> Source:
    return open_source(SourceSection(url=url, **settings))


def values(source: Source, column: str) -> list[Any]:
    return source.read()[column].tolist()


# CSV


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_separator_is_found(csv: Make, separator: str) -> None:
    """The separator is the one by which the lines have as many fields as the header."""
    rows = [["id", "text", "x"], ["1", '"a, b; c"', "2"], ["3", "d", "4"]]

    source = csv("\n".join(separator.join(row) for row in rows) + "\n")

    assert source.columns() == ["id", "text", "x"]
    assert values(source, "text") == ["a, b; c", "d"]


def test_csv_separator_is_a_setting(csv: Make) -> None:
    """A separator nobody would guess can be named."""
    assert csv("a~b\n1~2\n", separator="~").columns() == ["a", "b"]


TITLED = "Report;of 2026\n\n;Account:;DE00\nid;text;x\n1;a;2\n3;b\n5;c;6\n"


def test_csv_header_below_a_title_is_a_setting(csv: Make) -> None:
    """What stands above the header is skipped; lines that do not fit are told by their place in the file."""
    source = csv(TITLED, header=4)

    assert source.columns() == ["id", "text", "x"]
    assert values(source, "text") == ["a", "c"]
    assert source.rejected["reason"].tolist() == ["data.csv line 6: 2 fields where the header has 3: 3;b"]


def test_csv_header_that_is_not_there(csv: Make) -> None:
    with pytest.raises(SourceError, match=r"has no line 40, which `source.header` calls its header. Correct it."):
        csv(TITLED, header=40)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TITLED, 4),
        ("Report;;\n;;\nid;amount;shop\n1;2,5;x\n2;3,5;y\n", 3),
        ('"Report";"of"\n"Name";"Booked";"Amount"\n"Lee, A";"01.01.2026";"-1,50"\n"Lee, B";"01.01.2026";"9"\n', 2),
        ("Report, written by hand\r\n\r\nid;amount\r\n1;2.5\r\n2;3.5\r\n", 3),
        ("a,b\n1,2\n3,4\n", 1),
        ("first;second\n1,5;2,5\n3,5;4,5\n", 1),
        (",a,b\n0,1,2\n1,3,4\n", 1),
        ("1,2\n3,4\n", 1),
        ("id,2025,2026\nx,y,z\nx,y,z\n", 1),
        ("a,b,c\n1,2\n1,2\n1,2\n1,2,3\n", 1),
        ("name,city\nA,B\nC,D\n", 1),
        ("Report\n\namount\n1\n2\n", 1),
    ],
)
def test_csv_header_is_found_where_a_title_stands_above_it(tmp_path: Path, text: str, line: int) -> None:
    """By the number of fields; the first line is taken for the header where nothing speaks against it."""
    (tmp_path / "rows.csv").write_bytes(text.encode())
    assert find_header(tmp_path / "rows.csv", encoding="utf-8") == line


def test_csv_text_is_kept_as_it_is(csv: Make) -> None:
    """Leading zeros and long numbers survive, and only empty fields are missing."""
    frame = csv('id,big,country\n007,12345678901234567890,NA\n008,1,""\n').read()

    assert frame["id"].tolist() == ["007", "008"]
    assert frame["big"].tolist() == ["12345678901234567890", "1"]
    assert frame["country"].isna().tolist() == [False, True]


def test_csv_type_does_not_depend_on_the_batch(csv: Make) -> None:
    """A column that looks like numbers at first and turns to text later is text from the start."""
    source = csv("shop\n" + "1\n" * 5 + "x\n")

    assert [batch["shop"].tolist() for batch in source.batches(3)] == [["1", "1", "1"], ["1", "1", "x"]]


def test_csv_numeric_columns_are_parsed_where_they_can_be(csv: Make) -> None:
    """Words for missing are missing; a value that is no number leaves its batch as text, so nothing is lost."""
    source = csv("x\n 1.5\nNA\n2e3\nabc\n")

    first, second = source.batches(2, numeric=["x"])

    assert first["x"].tolist()[0] == 1.5
    assert np.isnan(first["x"].tolist()[1])
    assert second["x"].tolist() == ["2e3", "abc"]


def test_csv_wrong_number_of_fields_is_reported_and_the_rest_kept(csv: Make) -> None:
    """Lines that do not fit are named with their place, also after quoted and empty lines."""
    source = csv('a,b,c\n1,2,3\n4,5\n"x\ny",8,9\n\n1,2,3,4\n7,8,9\n')

    assert values(source, "a") == ["1", "x\ny", "7"]
    assert source.rejected["reason"].tolist() == [
        "data.csv line 3: 2 fields where the header has 3: 4,5",
        "data.csv line 7: 4 fields where the header has 3: 1,2,3,4",
    ]
    assert source.rejected["row"].isna().all()


def test_csv_rejected_lines_are_of_the_last_read(csv: Make) -> None:
    """Reading twice does not report a line twice."""
    source = csv("a,b\n1,2\n3\n4,5\n")

    source.read()
    source.read()

    assert len(source.rejected) == 1


@pytest.mark.parametrize(
    ("text", "kept", "reported"),
    [
        ('1,2,3\n4,"5,6\n7,8,9\n1,2,3\n', ["2", "8", "2"], '4,"5,6'),
        ('1,2,3\n4,"5,6\n7,8,9\n1,"Lee, A",3\n2,3,4\n', ["2", "3", "8", "Lee, A"], '4,"5,6'),
        ('1,2,3\n4,"Smith,6\n1,"Lee",3\n2,3,4\n', ["2", "3", "Lee"], '4,"Smith,6'),
        ('1,2,3\n4,"Smith,6\n5,x,7\n1,"Lee",3\n2,3,4\n', ["2", "3", "x", "Lee"], '4,"Smith,6'),
    ],
    ids=["to the end", "wrong number of fields", "right number by chance", "with lines between"],
)
@pytest.mark.parametrize("line_end", ["\n", "\r"])
def test_csv_stray_quote_swallows_no_good_row(
    csv: Make, text: str, kept: list[str], reported: str, line_end: str
) -> None:
    """A quote that is never closed costs its own line, not those after it."""
    source = csv(("a,b,c\n" + text).replace("\n", line_end))

    assert sorted(values(source, "b")) == sorted(kept)
    assert source.rejected["reason"].tolist() == [f"data.csv line 3: a quote is opened and not closed: {reported}"]


@pytest.mark.parametrize("value", ['Dear A,\nthe "big" one', "x\ny", 'a "b"', 'one,\ntwo "three"'])
def test_csv_quoted_line_ends_are_kept(csv: Make, value: str) -> None:
    """Line ends, separators and doubled quotes inside quotes belong to the value."""
    quoted = value.replace('"', '""')

    source = csv(f'a,b\n1,"{quoted}"\n2,x\n')

    assert values(source, "b") == [value, "x"]
    assert source.rejected.empty


@pytest.mark.parametrize("above", ["", "\r", "sep=;\r"])
def test_csv_lines_of_an_old_mac_are_rows(csv: Make, above: str) -> None:
    """Carriage returns alone end lines; bad ones are named, as in other files."""
    lines = ["a;b", "1;x", "5;6;7", '8;"two\nlines"', "9;y"]

    source = csv(above + "\r".join(lines) + "\r")
    rows = source.read()

    assert rows["a"].astype(int).tolist() == [1, 8, 9]
    assert rows["b"].tolist() == ["x", "two\nlines", "y"]
    (reason,) = source.rejected["reason"]
    assert reason == f"data.csv line {3 + above.count(chr(13))}: 3 fields where the header has 2: 5;6;7"


def test_csv_value_of_megabytes_is_an_error_with_its_line(tmp_path: Path) -> None:
    """What it is, and where; no quote is blamed alone."""
    file = tmp_path / "data.csv"
    file.write_text("id,name\n1,a\n2," + "A" * 10_000_000 + "\n3,b\n")

    with pytest.raises(SourceError, match=r"data.csv line 3: a value is longer than 1 MB.* Shorten the value"):
        open_source(SourceSection(path=str(file))).read()


def test_csv_stray_quote_that_swallows_a_block_is_an_error(csv: Make) -> None:
    """A quote that swallows too much to be sorted out is named with its line."""
    source = csv('a,b,c\n1,"x\ny",3\n4,"Smith,6\n' + "1,2,3\n" * 500_000)

    with pytest.raises(SourceError, match=r"data.csv line 4: a value is longer than 1 MB, or a quote is opened"):
        source.read()


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("a,b\n1,é\n".encode("utf-8-sig"), {}),
        ("a,b\n1,é\n".encode("utf-16"), {}),
        ("a,b\n1,é\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("a,b\r\n1,é\r\n".encode("cp1252"), {"encoding": "cp1252"}),
        ("\n\na,b\n1,é\n".encode(), {}),
        (" a , b \n1,é\n".encode(), {}),
        ("a,b\n1,é".encode(), {}),
    ],
    ids=[
        "BOM",
        "UTF-16",
        "latin-1",
        "cp1252 and CRLF",
        "blank lines",
        "spaces in the header",
        "no last line end",
    ],
)
def test_csv_encodings_and_edges(csv: Make, data: bytes, settings: dict[str, str]) -> None:
    """Byte order marks, other encodings, blank first lines and a missing last line end change nothing."""
    frame = csv(data, **settings).read()

    assert frame.to_dict("list") == {"a": ["1"], "b": ["é"]}


def test_csv_decimal_comma_is_a_setting(csv: Make) -> None:
    """With ``decimal: ","`` numbers get a point, and other text keeps its commas."""
    frame = csv("x;t\n-2,5;a,b\n1,5e3;c\n", decimal=",").read(numeric=["x"])

    assert frame["x"].tolist() == [-2.5, 1500.0]
    assert frame["t"].tolist() == ["a,b", "c"]


def test_csv_compressed_by_its_name(csv: Make) -> None:
    """A .csv.gz is decompressed while it is read."""
    assert len(csv(gzip.compress(b"a,b\n1,2\n" * 50), name="data.csv.gz").read()) == 99


def test_csv_column_without_a_name_is_called_after_its_place(csv: Make) -> None:
    """The nameless first column that pandas writes gets a name."""
    assert csv(",b\n0,2\n").columns() == ["column_1", "b"]


def test_csv_of_one_column_ignores_empty_lines(csv: Make) -> None:
    """In a single column an empty line is not a row."""
    assert values(csv("x\n1\n\n2\n"), "x") == ["1", "2"]


def test_csv_estimate_is_near(csv: Make) -> None:
    """The guess for the progress bar is within a tenth of the truth; the exact count is not known."""
    source = csv("a,b\n" + "".join(f"{n},{n * 7}\n" for n in range(50_000)))

    assert source.count() is None
    assert source.estimate() == pytest.approx(50_000, rel=0.1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"data.csv is empty: it has no bytes at all"),
        (b"\n\n", r"data.csv is empty: it has no header and no rows"),
        (b"a,b\n", r"data.csv has columns but no rows"),
        (b"a,b", r"data.csv has columns but no rows"),
        (b"a,a\n1,2\n", r"has two columns named 'a'"),
        (b"0.5,1.2\n1,2\n", r"has no header: its first line is 0.5, 1.2"),
        (b"a,b\n1,\xe9\n", r"is not text in utf-8: line 2 holds the byte 0xE9. Set `source.encoding`"),
        (b"a,b\n" + b"1,2\n" * 100_000 + b"1,\xe9\n", r"line 100002 holds the byte 0xE9"),
        (b"a,b\n1,2,3\n4,5,6\n", r"Most lines of .*data.csv do not have the 2 fields of its header"),
        (b"PK\x03\x04xxxx", r"is a zip or an Excel file"),
        (b"a\x00\x01,b\n", r"is not text. Expected CSV, Parquet or JSON lines"),
    ],
)
def test_csv_that_cannot_be_read(csv: Make, data: bytes, message: str) -> None:
    """What is wrong with a file is said with its name and what to do."""
    with pytest.raises(SourceError, match=message):
        csv(data).read()


def test_csv_mostly_bad_lines_stop_early(csv: Make) -> None:
    """A wrong header is an error, not a million reports."""
    with pytest.raises(SourceError, match="Most lines"):
        csv("a,b\n1,2\n" + "1,2,3\n" * 50_000).read()


@pytest.mark.parametrize("cut", [5, 60])
def test_csv_damaged_gzip_is_named(csv: Make, cut: int) -> None:
    """A compressed file that breaks off is an error, not a shorter table."""
    data = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(200_000)))

    with pytest.raises(SourceError, match=r"data.csv.gz cannot be read"):
        csv(data[:-cut], name="data.csv.gz").read()


# Parquet


@pytest.fixture
def table() -> pa.Table:
    return pa.table({"id": range(10), "x": [n / 2 for n in range(10)], "t": [f"t{n}" for n in range(10)]})


def test_parquet_batches_are_exact_and_numbered(tmp_path: Path, table: pa.Table) -> None:
    """Batches have the size asked for across row groups, and the index is the row's place."""
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)

    batches = list(opened(tmp_path / "a.parquet").batches(4))

    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert pd.concat(batches)["id"].tolist() == list(range(10))


def test_parquet_columns_can_be_chosen(tmp_path: Path, table: pa.Table) -> None:
    """Only the columns asked for are read, in that order."""
    pq.write_table(table, tmp_path / "a.parquet")

    assert list(opened(tmp_path / "a.parquet").read(columns=["x", "id"]).columns) == ["x", "id"]


def test_unknown_column_names_the_nearest(tmp_path: Path, table: pa.Table) -> None:
    """A column that is not there is named together with the nearest."""
    pq.write_table(table.rename_columns(["id", "amount", "t"]), tmp_path / "a.parquet")

    with pytest.raises(SchemaError, match=r"'amuont' is not in .*a.parquet. Did you mean 'amount'\?"):
        opened(tmp_path / "a.parquet").read(columns=["amuont"])


def test_parquet_limit_and_count(tmp_path: Path, table: pa.Table) -> None:
    """The first rows can be read alone, and the number of rows is known without reading."""
    pq.write_table(table, tmp_path / "a.parquet")
    source = opened(tmp_path / "a.parquet")

    assert (source.count(), source.estimate()) == (10, 10)
    assert source.read(limit=4)["id"].tolist() == [0, 1, 2, 3]


def test_parquet_types_become_plain(tmp_path: Path) -> None:
    """Every type of Parquet arrives as one of a few, the same in each batch, with whole numbers whole."""
    day = date(2024, 1, 31)
    pq.write_table(
        pa.table(
            {
                "whole": pa.array([2**60 + 1, None]),
                "small": pa.array([1, 2], pa.int8()),
                "price": pa.array([Decimal("1.25"), None]),
                "number": pa.array([Decimal(17), Decimal(18)], pa.decimal128(12, 0)),
                "day": pa.array([day, None]),
                "flag": pa.array([True, None]),
                "kind": pa.array(["a", "b"]).dictionary_encode(),
                "raw": pa.array([b"ab", None]),
                "list": pa.array([[1, 2], None]),
                "wait": pa.array([1500, None], pa.duration("ms")),
                "none": pa.nulls(2),
            }
        ),
        tmp_path / "a.parquet",
    )

    frame = opened(tmp_path / "a.parquet").read()

    assert frame.dtypes.astype(str).to_dict() == {
        "whole": "Int64",
        "small": "int64",
        "price": "float64",
        "number": "int64",
        "day": "datetime64[us]",
        "flag": "boolean",
        "kind": "str",
        "raw": "str",
        "list": "str",
        "wait": "float64",
        "none": "float64",
    }
    assert frame.loc[0].to_dict() == {
        "whole": 2**60 + 1,
        "small": 1,
        "price": 1.25,
        "number": 17,
        "day": pd.Timestamp(day),
        "flag": True,
        "kind": "a",
        "raw": "ab",
        "list": "[1, 2]",
        "wait": 1.5,
        "none": pytest.approx(np.nan, nan_ok=True),
    }
    assert frame.loc[1].drop(["small", "number", "kind"]).isna().all()


def test_parquet_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    """The unnamed index that pandas saves is left out; the metadata of pandas changes nothing."""
    pd.DataFrame({"x": [1, 2]}, index=[7, 9]).to_parquet(tmp_path / "a.parquet")

    frame = opened(tmp_path / "a.parquet").read()

    assert frame.to_dict("list") == {"x": [1, 2]}
    assert frame.index.tolist() == [0, 1]


def test_parquet_without_its_suffix_is_known_by_its_bytes(tmp_path: Path, table: pa.Table) -> None:
    """The first bytes tell a Parquet file whose name does not."""
    pq.write_table(table, tmp_path / "data.bin")

    assert opened(tmp_path / "data.bin").count() == 10


def test_parquet_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Reading in batches holds batches, not the file; Arrow's own reading ahead once held all of it."""
    rows = np.random.default_rng(0).random(1_000_000)
    pq.write_table(pa.table({f"x{n}": rows for n in range(8)}), tmp_path / "a.parquet", use_dictionary=False)
    code = (
        "import sys, pyarrow as pa; from pipelines.config import SourceSection;"
        "from pipelines.sources import open_source; source = open_source(SourceSection(path=sys.argv[1]));"
        "print(sum(len(batch) for batch in source.batches(20_000)), pa.default_memory_pool().max_memory())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.parquet")],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    count, peak = map(int, done.stdout.split())
    assert count == 1_000_000
    assert peak < 32e6


@pytest.mark.parametrize("cut", [1, 8, 200])
def test_parquet_truncated_is_named(tmp_path: Path, table: pa.Table, cut: int) -> None:
    """A file that breaks off is an error that says so."""
    pq.write_table(table, tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-cut])

    with pytest.raises(SourceError, match=r"a.parquet is not a whole Parquet file"):
        opened(tmp_path / "a.parquet")


def test_parquet_damaged_inside_is_named(tmp_path: Path) -> None:
    """A file whose end is whole and whose pages are not is an error when it is read."""
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(5000)}), tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:40] = b"\xff" * 36
    (tmp_path / "a.parquet").write_bytes(bytes(data))

    with pytest.raises(SourceError, match=r"a.parquet is not a whole Parquet file"):
        opened(tmp_path / "a.parquet").read()


def test_parquet_without_rows_is_named(tmp_path: Path, table: pa.Table) -> None:
    """No rows are an error, since a job on them would do nothing."""
    pq.write_table(table.slice(0, 0), tmp_path / "a.parquet")

    with pytest.raises(SourceError, match=r"a.parquet has columns but no rows"):
        opened(tmp_path / "a.parquet").read()


# Folders and patterns


def test_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Files of a folder are one table; hidden and marked ones and other kinds are passed over."""
    (tmp_path / "b.csv").write_text("y,x\n9,3\n")
    (tmp_path / "a.csv").write_text("x,y\n1,7\n2,8\n")
    (tmp_path / ".hidden.csv").write_text("z\n1\n")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "notes.md").write_text("text")

    source = opened(tmp_path)

    assert source.read().to_dict("list") == {"x": ["1", "2", "3"], "y": ["7", "8", "9"]}
    assert source.describe() == f"{tmp_path} (2 files)"


def test_pattern_chooses_files(tmp_path: Path) -> None:
    """A pattern may reach into subfolders."""
    for day in (1, 2):
        (tmp_path / f"d{day}").mkdir()
        (tmp_path / f"d{day}" / "x.csv").write_text(f"a,b\n{day},0\n")

    assert values(opened(tmp_path / "**" / "*.csv"), "a") == ["1", "2"]


def test_types_of_files_are_joined(tmp_path: Path) -> None:
    """A column that is whole in one file and not in the next has one type for all."""
    pq.write_table(pa.table({"x": [1, 2], "k": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.5], "k": ["A7"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"x": pa.nulls(1), "k": pa.nulls(1)}), tmp_path / "c.parquet")

    first, second = opened(tmp_path).batches(2)

    assert first.dtypes.astype(str).tolist() == ["float64", "str"]
    assert first["k"].tolist() == ["1", "2"]
    assert second["k"].tolist()[0] == "A7"


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({"data.csv": "a\n1"}, "dta.csv", r"no file or folder .*dta.csv. In .*Did you mean 'data.csv'\?"),
        ({"in/data.csv": "a\n1"}, "im/data.csv", r"There is no folder .*im. .*in"),
        ({"data.csv": "a\n1"}, "data.csv/x", r"data.csv is a file, not a folder"),
        (
            {"data.csv": "a\n1"},
            "data*.parquet",
            r"No file matches .*data\*.parquet. In .*the nearest names are data.csv",
        ),
        ({"notes.md": "x"}, ".", r"holds no CSV, Parquet or JSON lines file"),
        (
            {"sub/data.csv": "a\n1"},
            ".",
            r"holds no CSV, Parquet or JSON lines file. Its subfolders do: use .*\*\*/\*.csv",
        ),
        ({"a.csv": "x,y\n1,2", "b.csv": "x,z\n1,2"}, ".", r"b.csv lacks 'y' and has 'z' besides"),
        (
            {"a.csv": "x\n1", "a.parquet": "x"},
            ".",
            r"holds a.csv and a.parquet, which are probably the same rows. Name .*\*.csv or .*\*.parquet",
        ),
        ({"a.csv": "x\n1", "b.csv": ""}, ".", r"b.csv is empty"),
        ({"a.json": "[{}]"}, "a.json", r"is JSON whose first line is no object. Expected CSV, Parquet or JSON lines"),
        ({"a.csv": "x\n1", "b.jsonl": "{}"}, ".", r"b.jsonl has no line with a JSON object that has fields"),
        ({"a.jsonl": "{}"}, "a.jsonl", r"a.jsonl has no line with a JSON object that has fields"),
        ({"a.jsonl": "[\n1,\n"}, "a.jsonl", r"has no line with a JSON object .* first line is not JSON: Expecting"),
        ({"a.jsonl": "\n \n"}, "a.jsonl", r"a.jsonl is empty: it has no lines"),
    ],
)
def test_place_that_cannot_be_read(tmp_path: Path, files: dict[str, str], path: str, message: str) -> None:
    """What is wrong with a path is said, and what is there instead."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    with pytest.raises(SourceError, match=message):
        opened(tmp_path / path)


def test_a_file_of_json_can_be_saved_as_the_error_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that it names makes a table of nested objects, which is read."""
    (tmp_path / "a.json").write_text('[{"x": {"y": 1}}]')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as error:
        opened(tmp_path / "a.json")

    subprocess.run([sys.executable, "-c", f"import json, pandas as pd\n{str(error.value).split('`')[1]}"], check=True)

    assert opened(tmp_path / "a.parquet").read()["x.y"].tolist() == [1]


@pytest.mark.parametrize("first", ["sep=|", '"sep=|"', "\n\nSEP=|\n"])
def test_line_of_excel_above_the_header_is_none(tmp_path: Path, first: str) -> None:
    """It names the separator, which need not be the likeliest one."""
    (tmp_path / "a.csv").write_text(f"{first}\na|b,c,d\n1|2,3,4\n5|6\n")

    source = opened(tmp_path / "a.csv")

    assert source.columns() == ["a", "b,c,d"]
    assert source.read()["a"].tolist() == ["1", "5"]


def test_file_with_lines_above_its_header_is_refused(tmp_path: Path) -> None:
    """One line of a preamble looks like the only row, and all rows like bad lines."""
    rows = "".join(f"{n};{n};x\n" for n in range(20))
    (tmp_path / "a.csv").write_text(f"Statement;2026\nAccount;17\n\nid;amount;shop\n{rows}")

    with pytest.raises(SourceError, match=r"Most lines of .* do not have the 2 fields.*say in `source.header`"):
        opened(tmp_path / "a.csv").read()


def test_column_that_nothing_needs_may_be_missing_from_a_file(tmp_path: Path) -> None:
    """What the configuration ignores may come and go; what it names must be in each file."""
    (tmp_path / "a.csv").write_text("x,note\n1,a\n")
    (tmp_path / "b.csv").write_text("new,x\n5,2\n")
    section = SourceSection(path=str(tmp_path))
    section.with_columns(ColumnsSection(numeric=("x",), ignore=("note",)))

    source = open_source(section)

    assert source.columns() == ["x"]
    assert source.read()["x"].tolist() == ["1", "2"]
    section.with_columns(ColumnsSection(numeric=("x", "note")))
    with pytest.raises(SourceError, match=r"b.csv lacks 'note' and has 'new' besides"):
        open_source(section)


def test_sample_is_drawn_from_all_rows(tmp_path: Path) -> None:
    """A sample reaches to the end, keeps the order, and is the same for the same seed."""
    pq.write_table(pa.table({"x": range(200_000)}), tmp_path / "a.parquet", row_group_size=7_000)
    source = opened(tmp_path / "a.parquet")
    seen: list[int] = []

    sample = source.sample(1_000, random_state=3, advance=seen.append)

    assert len(sample) == 1_000
    assert sample["x"].is_monotonic_increasing
    assert (sample.index == sample["x"]).all()
    assert sample["x"].mean() == pytest.approx(100_000, rel=0.1)
    assert sample["x"].equals(source.sample(1_000, random_state=3)["x"])
    assert not sample["x"].equals(source.sample(1_000, random_state=4)["x"])
    assert sum(seen) == 200_000


def test_sample_of_fewer_rows_is_all(tmp_path: Path, table: pa.Table) -> None:
    """Asking for more rows than there are gives all of them."""
    pq.write_table(table, tmp_path / "a.parquet")

    assert opened(tmp_path / "a.parquet").sample(100)["id"].tolist() == list(range(10))


def test_batch_of_no_rows_is_refused(tmp_path: Path, table: pa.Table) -> None:
    """A batch size of zero would never end."""
    pq.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(SourceError, match="at least one row, received size=0"):
        next(opened(tmp_path / "a.parquet").batches(0))


# SQL


@pytest.fixture
def url(tmp_path: Path) -> str:
    file = tmp_path / "bank.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE payments (id INTEGER, amount REAL, shop TEXT, mixed, raw BLOB)")
        connection.executemany(
            "INSERT INTO payments VALUES (?, ?, ?, ?, ?)",
            [(n, None if n == 1 else n * 1.5, f"s{n}", n if n < 2 else "t", b"ab" if n else None) for n in range(5)],
        )
        connection.execute("CREATE VIEW big AS SELECT * FROM payments WHERE amount > 2")
        connection.execute("CREATE TABLE empty (x INTEGER)")
    connection.close()
    return f"sqlite:///{file}"


@pytest.mark.parametrize("name", ["payments", "main.payments"])
def test_sql_table_is_read(url: str, name: str) -> None:
    """A table is read in batches, with the types its values have."""
    source = sql(url, table=name)

    first, second, third = source.batches(2)

    assert (source.count(), source.estimate()) == (5, 5)
    assert [len(first), len(second), len(third)] == [2, 2, 1]
    assert first["amount"].tolist()[0] == 0.0
    assert first["amount"].isna().tolist() == [False, True]
    assert second["raw"].tolist() == ["ab", "ab"]
    assert third.index.tolist() == [4]


def test_sql_values_of_several_types_become_text(url: str) -> None:
    """SQLite allows numbers and words in a column; together they are text."""
    assert sql(url, table="payments").read()["mixed"].tolist() == ["0", "1", "t", "t", "t"]


def test_sql_view_and_columns(url: str) -> None:
    """A view is as good as a table, and columns can be chosen."""
    assert sql(url, table="big").read(columns=["shop", "id"]).to_dict("list") == {
        "shop": ["s2", "s3", "s4"],
        "id": [2, 3, 4],
    }


def test_sql_query_is_taken_literally(url: str) -> None:
    """Colons and percent signs in a query are not parameters, and a final semicolon does no harm."""
    source = sql(url, query="SELECT id, ':x' AS colon, 'a%b' AS percent, 'a;b' AS x FROM payments WHERE id < 2; ")

    assert source.count() is None
    expected = {"id": [0, 1], "colon": [":x", ":x"], "percent": ["a%b", "a%b"], "x": ["a;b", "a;b"]}
    assert source.read().to_dict("list") == expected
    assert source.describe().startswith('query "SELECT id')


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": "paymnts"}, r"no table 'paymnts' in sqlite:.*bank.db. Did you mean 'payments'\?"),
        ({"table": "empty"}, r"has columns but no rows"),
        ({"query": "SELECT FROM 1"}, r"failed: near \"FROM\": syntax error. It was: SELECT FROM 1"),
        ({"query": "SELEC 1"}, r"`source.query` must be a SELECT, received 'SELEC 1'"),
        ({"query": "SELECT no_such FROM payments"}, r"no such column: no_such"),
        ({"query": "-- tidy up\nDROP TABLE payments"}, r"`source.query` must be a SELECT, received '-- tidy"),
        ({"query": "PRAGMA foreign_keys = on"}, r"`source.query` must be a SELECT, received 'PRAGMA"),
        ({"query": "ATTACH '/tmp/other.db' AS other"}, r"`source.query` must be a SELECT, received .ATTACH"),
        ({"query": "DETACH main"}, r"`source.query` must be a SELECT"),
        ({"query": "BEGIN"}, r"`source.query` must be a SELECT"),
        ({"query": "SELECT 1; DROP TABLE payments"}, r"`source.query` must be one SELECT, received several"),
        ({"query": "WITH x AS (SELECT 1) DELETE FROM payments RETURNING id"}, r"readonly database"),
        ({"query": "SELECT id, id FROM payments"}, r"two columns named 'id'. Rename one: SELECT x AS y"),
    ],
)
def test_sql_that_cannot_be_read(url: str, settings: dict[str, str], message: str) -> None:
    """What the database objects to is said in one line."""
    with pytest.raises(SourceError, match=message):
        sql(url, **settings).read()


def test_postgresql_is_read_with_a_connection_that_cannot_write(postgres: PostgresServer, tmp_path: Path) -> None:
    """Also where a change hides in a SELECT."""
    url = postgres.url(f"reads_{abs(hash(tmp_path))}")
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE payments (id int)")
        connection.exec_driver_sql("INSERT INTO payments VALUES (1), (2)")
        connection.exec_driver_sql("CREATE SEQUENCE numbers")
    engine.dispose()

    with pytest.raises(SourceError, match="read-only transaction"):
        sql(url, query="SELECT nextval('numbers') AS id").read()  # no transaction would undo it
    assert sql(url, query="SELECT id FROM payments ORDER BY id").read()["id"].tolist() == [1, 2]
    assert sql(url, table="payments").count() == 2


@pytest.mark.parametrize("word", ["DELETE FROM payments RETURNING id", "/* x */ (DELETE FROM payments)"])
def test_sql_query_changes_nothing(url: str, word: str) -> None:
    """A source never changes what it reads."""
    with pytest.raises(SourceError, match="must be a SELECT"):
        sql(url, query=word)

    assert sql(url, table="payments").count() == 5


def test_sql_missing_file_names_the_nearest_and_is_not_created(url: str, tmp_path: Path) -> None:
    """SQLite would create the file; reading must not."""
    with pytest.raises(SourceError, match=r"no SQLite file .*bank.dbb. Did you mean 'bank.db'\?"):
        sql(url.replace("bank.db", "bank.dbb"), table="x")

    assert not (tmp_path / "bank.dbb").exists()


def test_sql_file_that_is_no_database(tmp_path: Path) -> None:
    """Another file is an error that says so."""
    (tmp_path / "x.db").write_text("text" * 1000)

    with pytest.raises(SourceError, match="file is not a database"):
        sql(f"sqlite:///{tmp_path}/x.db", table="x")


def test_sql_unreachable_database_hides_the_password() -> None:
    """A server that does not answer is an error with its address and without its password."""
    with pytest.raises(SourceError, match=r"bank\S* cannot be reached: Connection refused\. ") as caught:
        sql("postgresql://ann:s3cret@127.0.0.1:9/bank?connect_timeout=2", table="x")

    assert str(caught.value).count("127.0.0.1") == 1
    assert "ann:***@127.0.0.1:9" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("oracl://ann:s3cret@db/x", SettingError, r"unknown kind of database, 'oracl'"),
        ("postgresql://ann:s3cret@db:port/x", SettingError, r"The database URL cannot be read"),
        ("firebird://db/x", SettingError, r"unknown kind of database"),
    ],
)
def test_sql_url_that_means_nothing(url: str, error: type[Exception], message: str) -> None:
    """A URL that cannot be understood is a setting to correct, and is not repeated with its password."""
    with pytest.raises(error, match=message) as caught:
        sql(url, table="x")

    assert "s3cret" not in str(caught.value)


def test_sql_missing_driver_is_named() -> None:
    """A driver that is not installed is named with the command that installs it."""
    pytest.importorskip("sqlalchemy")
    try:
        import pymssql  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="needs the Python package 'pymssql'. Install it"):
            sql("mssql+pymssql://db/x", table="x")


# Types


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (pa.int16(), pa.int64()),
        (pa.float16(), pa.float64()),
        (pa.float32(), pa.float32()),
        (pa.decimal128(30, 0), pa.string()),
        (pa.large_string(), pa.string()),
        (pa.struct([("a", pa.int8())]), pa.string()),
        (pa.time64("us"), pa.string()),
        (pa.timestamp("ns", tz="UTC"), pa.timestamp("ns", tz="UTC")),
    ],
    ids=str,
)
def test_plain_type(kind: pa.DataType, plain: pa.DataType) -> None:
    """Each type is read as the plain type that loses nothing."""
    assert plain_type(kind) == plain


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.null(), pa.int64(), pa.int64()),
        (pa.timestamp("ns"), pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("ns", tz="UTC"), pa.timestamp("ns"), pa.string()),
        (pa.bool_(), pa.int64(), pa.string()),
    ],
    ids=str,
)
def test_unify_is_symmetric(first: pa.DataType, second: pa.DataType, both: pa.DataType) -> None:
    """Two types are joined in the narrowest that holds both, whichever comes first."""
    one, other = pa.schema([("x", first)]), pa.schema([("x", second)])

    assert unify(one, other).field("x").type == unify(other, one).field("x").type == both


def test_times_with_zones_keep_them(tmp_path: Path) -> None:
    """A time with a zone arrives with it."""
    when = datetime.fromisoformat("2024-01-31T10:00:00+02:00")
    pq.write_table(pa.table({"t": pa.array([when])}), tmp_path / "a.parquet")

    assert opened(tmp_path / "a.parquet").read()["t"][0] == when


def test_a_folder_of_several_kinds_is_one_table(tmp_path: Path) -> None:
    """As the service reads it: a sender that changes from CSV to JSON lines must not stop what learns again."""
    pd.DataFrame({"id": ["1"], "x": ["1.5"]}).to_csv(tmp_path / "2026-01.csv", index=False)
    (tmp_path / "2026-02.jsonl").write_text('{"id": "2", "x": 2.5}\n')
    pd.DataFrame({"id": ["3"], "x": [3.5]}).to_parquet(tmp_path / "2026-03.parquet")

    read = open_source(SourceSection(path=str(tmp_path))).read(numeric=["x"])

    assert read["id"].tolist() == ["1", "2", "3"]
    assert read["x"].tolist() == [1.5, 2.5, 3.5]
