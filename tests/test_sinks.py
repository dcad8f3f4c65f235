from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from detector.errors import SettingError, SinkError
from detector.schema import Schema
from pipelines.config import Config, OutputSection
from pipelines.sinks.batch_files import open_batch_sink
from pipelines.sinks.files import FileSink, Sink, open_sink
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.sinks.sql import SqlSink
from pipelines.store import Store


def verdicts(start: int = 0, rows: int = 3) -> pd.DataFrame:
    numbers = np.arange(start, start + rows)
    return pd.DataFrame(
        {
            "id": numbers,
            "time": pd.to_datetime("2024-01-31") + pd.to_timedelta(numbers, unit="h"),
            "risk": numbers / 7,
            "flagged": numbers % 2 == 1,
            "reasons": [f'amount {n}, expected "2"' if n else "" for n in numbers],
        },
        index=numbers + 100,
    )


def fill(sink: Sink, *frames: pd.DataFrame, power_cut: bool = False) -> None:
    with sink:
        for frame in frames:
            sink.write(frame)
        if power_cut:
            raise RuntimeError("power cut")


def sink_to(place: str, tmp_path: Path) -> Sink:
    if place == "sql":
        return open_sink(OutputSection(url=f"sqlite:///{tmp_path}/out.db", table="scores"))
    return open_sink(OutputSection(path=str(tmp_path / "new" / place)))


def read_back(place: str, tmp_path: Path) -> pd.DataFrame:
    if place == "sql":
        connection = sqlite3.connect(tmp_path / "out.db")
        frame = pd.read_sql("SELECT * FROM scores", connection)
        connection.close()
    elif place.endswith(".parquet"):
        frame = pd.read_parquet(tmp_path / "new" / place)
    else:
        frame = pd.read_csv(tmp_path / "new" / place, sep="\t" if place.endswith(".tsv") else ",")
        frame["reasons"] = frame["reasons"].fillna("")
    frame["time"] = pd.to_datetime(frame["time"])
    frame["flagged"] = frame["flagged"].astype(bool)
    return frame


PLACES = ["scores.parquet", "scores.csv", "scores.tsv", "sql"]


@pytest.mark.parametrize("place", PLACES)
def test_sink_holds_what_was_written(place: str, tmp_path: Path) -> None:
    """Batches come back as one table with the same values, without the index, in folders made on the way."""
    with sink_to(place, tmp_path) as sink:
        sink.write(verdicts())
        sink.write(verdicts(3))

    expected = pd.concat([verdicts(), verdicts(3)], ignore_index=True)
    pd.testing.assert_frame_equal(read_back(place, tmp_path), expected, check_dtype=False)
    assert sink.rows == 6


@pytest.mark.parametrize("place", PLACES)
def test_sink_of_a_failed_job_leaves_nothing(place: str, tmp_path: Path) -> None:
    """If the job fails, neither a half result nor a temporary file stays, and an older result is untouched."""
    with sink_to(place, tmp_path) as sink:
        sink.write(verdicts())

    with pytest.raises(RuntimeError, match="power cut"):
        fill(sink_to(place, tmp_path), verdicts(3), power_cut=True)

    assert len(read_back(place, tmp_path)) == 3
    assert len(list((tmp_path if place == "sql" else tmp_path / "new").iterdir())) == 1


def test_sql_table_of_a_failed_job_is_not_created(tmp_path: Path) -> None:
    """Creating the table is part of the transaction."""
    with pytest.raises(RuntimeError, match="power cut"):
        fill(sink_to("sql", tmp_path), verdicts(), power_cut=True)

    connection = sqlite3.connect(tmp_path / "out.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("place", PLACES[:2])
def test_file_appears_only_when_whole(place: str, tmp_path: Path) -> None:
    """While rows are written there is no file of that name yet."""
    with sink_to(place, tmp_path) as sink:
        sink.write(verdicts())
        assert not (tmp_path / "new" / place).exists()

    assert (tmp_path / "new" / place).exists()


@pytest.mark.parametrize("place", PLACES[:3])
def test_file_is_replaced(place: str, tmp_path: Path) -> None:
    """A second run replaces the file of the first."""
    for start in (0, 10):
        with sink_to(place, tmp_path) as sink:
            sink.write(verdicts(start))

    assert read_back(place, tmp_path)["id"].tolist() == [10, 11, 12]


def test_table_is_appended_to(tmp_path: Path) -> None:
    """A second run adds its rows to the table of the first."""
    for start in (0, 10):
        with sink_to("sql", tmp_path) as sink:
            sink.write(verdicts(start))

    assert read_back("sql", tmp_path)["id"].tolist() == [0, 1, 2, 10, 11, 12]


def test_gaps_stay_gaps(tmp_path: Path) -> None:
    """Missing keys, times and numbers are null in the database."""
    frame = verdicts().assign(id=pd.array([1, None, 3], dtype="Int64"), risk=[0.5, np.nan, 1.0])
    frame.loc[101, "time"] = pd.NaT

    with sink_to("sql", tmp_path) as sink:
        sink.write(frame)

    assert read_back("sql", tmp_path).loc[1, ["id", "time", "risk"]].isna().all()


def test_column_that_is_empty_at_first_can_be_text_later(tmp_path: Path) -> None:
    """The first batch does not make a column unusable for the next."""
    with FileSink(tmp_path / "a.parquet") as sink:
        sink.write(pd.DataFrame({"x": [1], "note": [None]}))
        sink.write(pd.DataFrame({"x": [2], "note": ["b"]}))

    assert pq.read_table(tmp_path / "a.parquet").column("note").to_pylist() == [None, "b"]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (pd.DataFrame({"x": ["a"]}), r"changed its type between batches"),
        (pd.DataFrame({"y": [1]}), r"need the same columns. Expected \['x'\], received \['y'\]"),
        (pd.DataFrame({"x": [1, "a"]}), r"holds values of several types"),
    ],
)
def test_batches_must_fit_each_other(tmp_path: Path, later: pd.DataFrame, message: str) -> None:
    """A later batch of other columns or types is an error, and nothing is left."""
    with pytest.raises(SinkError, match=message):
        fill(FileSink(tmp_path / "a.parquet"), pd.DataFrame({"x": [1]}), later)

    assert list(tmp_path.iterdir()) == []


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    """A file without columns would be no file."""
    with pytest.raises(SinkError, match="Nothing was written to"), FileSink(tmp_path / "a.csv"):
        pass

    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_a_table_of_no_rows(tmp_path: Path) -> None:
    """A frame without rows still says which columns there are."""
    with FileSink(tmp_path / "a.parquet") as sink:
        sink.write(verdicts(rows=0))

    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_suffix_must_be_known() -> None:
    """The suffix decides the format, so an unknown one is an error."""
    with pytest.raises(SettingError, match=r"to a .parquet or a .csv file, received 'a.xlsx'"):
        open_sink(OutputSection(path="a.xlsx"))


def test_folder_is_no_file(tmp_path: Path) -> None:
    """A folder that looks like a file is an error that says so."""
    (tmp_path / "a.csv").mkdir()

    with pytest.raises(SinkError, match=r"a.csv is a folder. Name a file in it"):
        FileSink(tmp_path / "a.csv")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in the way of a folder is named before any work is done."""
    (tmp_path / "x").write_text("")

    with (
        pytest.raises(SinkError, match=r"cannot be written: .*Choose another place"),
        FileSink(tmp_path / "x" / "a.csv"),
    ):
        pass


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("id INTEGER, time DATETIME, risk REAL, flagged BOOLEAN", r"no column 'reasons'"),
        (
            "id TEXT, time DATETIME, risk TEXT, flagged BOOLEAN, reasons TEXT",
            r"TEXT in 'id', which is to hold a number; TEXT in 'risk'",
        ),
        (
            "id INTEGER, time DATETIME, risk REAL, flagged BOOLEAN, reasons TEXT, team TEXT NOT NULL",
            r"a column 'team' that must be filled",
        ),
    ],
)
def test_table_that_does_not_fit(tmp_path: Path, definition: str, message: str) -> None:
    """A table with other columns or types is an error that names all of them."""
    connection = sqlite3.connect(tmp_path / "out.db")
    connection.execute(f"CREATE TABLE scores ({definition})")
    connection.close()

    with pytest.raises(SinkError, match=message), sink_to("sql", tmp_path) as sink:
        sink.write(verdicts())


def test_table_that_fits_well_enough(tmp_path: Path) -> None:
    """Its own key, defaults, another order and integers for booleans do no harm."""
    connection = sqlite3.connect(tmp_path / "out.db")
    connection.execute(
        "CREATE TABLE scores (n INTEGER PRIMARY KEY, reasons VARCHAR(200), id BIGINT, risk FLOAT, "
        "flagged INTEGER, time TIMESTAMP, made TEXT NOT NULL DEFAULT 'now')"
    )
    connection.close()

    with sink_to("sql", tmp_path) as sink:
        sink.write(verdicts())

    assert len(read_back("sql", tmp_path)) == 3


def test_broken_rule_of_the_database_keeps_nothing(tmp_path: Path) -> None:
    """If the database refuses a later row, the rows before it are not kept either."""
    connection = sqlite3.connect(tmp_path / "out.db")
    connection.execute("CREATE TABLE scores (id INTEGER UNIQUE, time DATETIME, risk REAL, flagged INT, reasons TEXT)")
    connection.close()

    with pytest.raises(SinkError, match=r"UNIQUE constraint failed: scores.id. Nothing was kept"):
        fill(sink_to("sql", tmp_path), verdicts(), verdicts(2))

    assert read_back("sql", tmp_path).empty


def test_unreachable_database_hides_the_password() -> None:
    """A server that does not answer is a sink error without the password."""
    sink = SqlSink("postgresql://ann:s3cret@127.0.0.1:9/bank?connect_timeout=2", table="x")

    with pytest.raises(SinkError, match="cannot be reached") as caught, sink:
        pass

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in sink.describe()


def test_folder_of_a_new_database_must_exist(tmp_path: Path) -> None:
    """A database in a folder that is not there is an error that names the folder."""
    with pytest.raises(SinkError, match=r"There is no folder .*nowhere"):
        SqlSink(f"sqlite:///{tmp_path}/nowhere/out.db", table="x")


def bad_rows(row: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"row": [row], "reason": ["amount: 'x' is not a number"], "id": [7], "amount": ["x"]})


def test_quarantine_keeps_rows_as_they_came(tmp_path: Path) -> None:
    """Rows of several batches and lines without columns share one file."""
    file = tmp_path / "bad.csv"

    with QuarantineSink(file, columns=["id", "amount"]) as sink:
        sink.write(pd.DataFrame({"row": pd.array([None], dtype="Int64"), "reason": ["line 3: 2 fields"]}))
        sink.write(bad_rows())
        sink.write(bad_rows(9).assign(id=["0x1"]))

    assert sink.rows == 3
    assert file.read_text().splitlines() == [
        '"row","reason","id","amount"',
        ',"line 3: 2 fields",,',
        '"3","amount: \'x\' is not a number","7","x"',
        '"9","amount: \'x\' is not a number","0x1","x"',
    ]


def test_quarantine_without_rows_is_no_file(tmp_path: Path) -> None:
    """A clean run writes no file, and takes away the one of an earlier run."""
    file = tmp_path / "bad.csv"
    with QuarantineSink(file, columns=["id", "amount"]) as sink:
        sink.write(bad_rows())
    assert file.exists()

    with QuarantineSink(file, columns=["id", "amount"]) as sink:
        sink.write(bad_rows().head(0))

    assert sink.rows == 0
    assert not file.exists()


def test_quarantine_that_is_added_to_counts_what_is_new(tmp_path: Path) -> None:
    """A row that is there stays, comes in no second time, wherever it now stood, and is no new reason."""
    file = tmp_path / "bad.csv"
    with QuarantineSink(file, columns=["id", "amount"]) as sink:
        sink.write(bad_rows())

    with QuarantineSink(file, columns=["id", "amount"], adds=True) as sink:
        sink.write(pd.concat([bad_rows(0), bad_rows(1).assign(id=[8])], ignore_index=True))

    assert sink.rows == 2
    assert sink.reasons == {"amount: … is not a number": 1}
    assert pd.read_csv(file)["id"].tolist() == [7, 8]


def test_quarantine_of_a_failed_job_changes_nothing(tmp_path: Path) -> None:
    """If the job fails, the file of an earlier run stays."""
    file = tmp_path / "bad.csv"
    file.write_text("old")

    with pytest.raises(RuntimeError, match="power cut"):
        fill(QuarantineSink(file, columns=["id"]), bad_rows(), power_cut=True)

    assert file.read_text() == "old"


def test_quarantine_renames_columns_that_are_called_like_its_own(tmp_path: Path) -> None:
    """Original columns called row and reason are kept beside the quarantine's."""
    with QuarantineSink(tmp_path / "bad.csv", columns=["row", "x"]) as sink:
        sink.write(pd.DataFrame({"row": [1], "reason": ["r"], "source_row": ["77"], "x": [2]}))

    assert (tmp_path / "bad.csv").read_text().splitlines()[1] == '"1","r","77","2"'


def test_quarantine_is_csv() -> None:
    """Rows of all kinds of text fit CSV only."""
    with pytest.raises(SettingError, match=r"The quarantine is a .csv file"):
        QuarantineSink(Path("bad.parquet"))


def test_service_names_the_setting_whose_ending_says_no_kind_of_file(tmp_path: Path) -> None:
    """Not the hidden file that it was about to write."""
    config = Config.model_validate(
        {"source": {"path": "a.csv"}, "output": {"path": "scores"}}, context={"folder": tmp_path}
    )

    with pytest.raises(SettingError, match=r"`output.path` is .*/scores, .* such as scores.parquet"):
        open_batch_sink(config, Store("sqlite://"), Schema(numeric=("x",)))
