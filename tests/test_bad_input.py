"""Bad input through the command line: a message or a quarantined row each time, never a traceback, no good row lost."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from detector.errors import SettingError
from pipelines.cli import app
from pipelines.training import review

ROOT = Path(__file__).parents[1]
ROWS = 300
COLUMNS = {"key": "id", "time": "time", "label": "fraud", "numeric": ["amount"]}
MEMBERS = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 20}}
FAILURE, USAGE = 1, 2

Table = pd.DataFrame
Configure = Callable[..., Any]


@dataclass(frozen=True)
class Said:
    """What a command printed, with line ends as spaces."""

    exit_code: int
    output: str
    errors: str

    def __post_init__(self) -> None:
        assert "Traceback" not in self.output + self.errors
        assert "unexpected" not in self.errors


def detector(*arguments: str | Path) -> Said:
    """Run a command in this process."""
    result = CliRunner(env={"DETECTOR_DEBUG": None}).invoke(app, [str(argument) for argument in arguments])
    return Said(result.exit_code, result.stdout, result.stderr)


def good(rows: int = ROWS, *, seed: int = 0) -> Table:
    """A table without a fault."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(rows) + 1000 * seed,
            "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 10 * 86400, rows)), unit="s"),
            "amount": rng.lognormal(3, 0.5, rows).round(2),
            "fee": rng.normal(1, 0.1, rows).round(3),
            "country": rng.choice(["de", "fr", "pl"], rows),
            "online": rng.random(rows) < 0.3,
            "fraud": (rng.random(rows) < 0.05).astype(int),
        }
    )


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})


@pytest.fixture
def project(tmp_path: Path, configure: Configure) -> Callable[..., Path]:
    """Make a folder with a configuration and ``table.csv``, given as a table, text or bytes."""

    def _project(table: Table | str | bytes, **sections: Any) -> Path:
        if isinstance(table, Table):
            table.to_csv(tmp_path / "table.csv", index=False)
        else:
            (tmp_path / "table.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        values = {"source": {"path": "table.csv"}, "columns": COLUMNS, "train": MEMBERS} | sections
        with suppress(SettingError):  # for the command to find
            configure(tmp_path, **values)
        return tmp_path

    return _project


@pytest.fixture(scope="module")
def trained_table(tmp_path_factory: pytest.TempPathFactory, configure: Configure) -> Path:
    """A folder with a detector trained on a good table."""
    folder = tmp_path_factory.mktemp("table")
    good().to_csv(folder / "table.csv", index=False)
    configure(folder, source={"path": "table.csv"}, columns=COLUMNS, train=MEMBERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(review, "figures", lambda *_, **__: {})
        assert detector("train", folder).exit_code == 0
    return folder


@pytest.fixture
def ready(trained_table: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained_table, tmp_path / "ready"))


def quarantined(file: Path) -> Table:
    """The quarantine, or an empty table."""
    return pd.read_csv(file) if file.exists() else pd.DataFrame({"row": [], "reason": []})


def changed(column: str, values: dict[int, Any], table: Table | None = None) -> Table:
    """A good table with other values in some rows of a column."""
    table = (good() if table is None else table).astype({column: object})
    for row, value in values.items():
        table.loc[row, column] = value
    return table


# Training: what no detector can be made of.

HEADER = ",".join(good(1).columns) + "\n"
UNTRAINABLE: dict[str, tuple[Any, dict[str, Any], int, str]] = {
    "misspelt column": (
        good(),
        {"columns": COLUMNS | {"numeric": ["amuont"]}},
        USAGE,
        "Column 'amuont' is missing from the table. Did you mean 'amount'?",
    ),
    "misspelt key": (good(), {"columns": {"key": "idd"}}, USAGE, "'idd' is missing from the table. Did you mean 'id'?"),
    "missing label": (
        good().drop(columns="fraud"),
        {},
        USAGE,
        "Column 'fraud' is missing from the table. Known: amount, country, fee, id, online, time.",
    ),
    "column with two roles": (good(), {"columns": {"key": "id", "time": "id"}}, USAGE, "'id' is the key and the time"),
    "unknown key": (
        good(),
        {"train": {"autoencoder": {"training": {"epoch": 2}}}},
        USAGE,
        "train.autoencoder.training.epoch: is not a key. Did you mean 'epochs'?",
    ),
    "unknown section": (good(), {"polcy": {"fdr": 0.1}}, USAGE, "polcy: is not a key. Did you mean 'policy'?"),
    "rate out of range": (good(), {"policy": {"fdr": 2.0}}, USAGE, "policy.fdr: expected"),
    "unknown encoding": (
        good(),
        {"source": {"path": "table.csv", "encoding": "utf-9"}},
        USAGE,
        "source.encoding: expected an encoding such as utf-8, latin-1 or cp1252, received 'utf-9'",
    ),
    "name of a score": (
        good().rename(columns={"id": "risk"}),
        {"columns": COLUMNS | {"key": "risk"}},
        USAGE,
        "The key column is named 'risk', and so is a column of the scores",
    ),
    "budget without time": (
        good(),
        {"columns": {"key": "id"}, "policy": {"budget": {"rows": 3}}},
        USAGE,
        "`policy.budget` is per day, but `columns.time` names no column",
    ),
    "no bytes": (b"", {}, FAILURE, "table.csv is empty: it has no bytes at all"),
    "blank lines": ("\n\n", {}, FAILURE, "table.csv is empty: it has no header and no rows"),
    "header only": (HEADER, {}, FAILURE, "table.csv has columns but no rows. Check what was to fill it."),
    "no header": ("1.5,de\n2.5,fr\n", {}, USAGE, "Column 'id' is missing from the table. Known: 1.5, de."),
    "two columns of one name": ("id,x,x\n1,2,3\n", {}, FAILURE, "has two columns named 'x'. Rename one"),
    "other encoding": (
        good().assign(country="Österreich").to_csv(index=False).encode("cp1252"),
        {},
        FAILURE,
        "table.csv is not text in utf-8: line 2 holds the byte 0xD6. Set `source.encoding`",
    ),
    "not a table": (
        b"PK\x03\x04" + bytes(100),
        {},
        FAILURE,
        "table.csv is a zip or an Excel file. Expected CSV, Parq",
    ),
    "one row": (good(1), {}, FAILURE, "Expected at least 3 usable rows to learn from, received 1. Give more rows."),
    "two rows": (good(2), {}, FAILURE, "Expected at least 3 usable rows to learn from, received 2."),
    "all anomalous": (good().assign(fraud=1), {}, FAILURE, "received 0: 'fraud' calls the others anomalous (1)."),
    "other labels": (
        good().assign(fraud="legit"),
        {},
        FAILURE,
        "received 0. Left out: fraud: not 0 or 1 (300 rows). See each in",
    ),
    "no date": (good().assign(time="soon"), {}, FAILURE, "Left out: time: not a date (300 rows)."),
    "no number": (good().assign(amount="much"), {}, FAILURE, "Left out: amount: not a number (300 rows)."),
    "nothing varies": (
        good().assign(amount=1.0, fee=2.0, country="de", online=True),
        {"columns": {"key": "id", "label": "fraud", "ignore": ["time"]}},
        FAILURE,
        "No column varies, so there is nothing to learn (amount: always 1; fee: always 2; online: always 1; country",
    ),
    "nothing but missing": (
        good().assign(amount=None, fee=None, country=None, online=None),
        {"columns": {"key": "id", "label": "fraud", "ignore": ["time"]}},
        FAILURE,
        "amount: always missing",
    ),
    "date as a number": (
        good(),
        {"columns": {"key": "id", "numeric": ["time"]}},
        FAILURE,
        "Left out: time: not a number (300 rows)",
    ),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_training_says_what_is_wrong(project: Callable[..., Path], case: str) -> None:
    """An error with what to do, and no bundle is made."""
    table, sections, exit_code, message = UNTRAINABLE[case]
    folder = project(table, **sections)

    said = detector("train", folder)

    assert message in said.errors
    assert said.exit_code == exit_code
    assert not (folder / "bundle").exists()
    assert not (folder / "report.html").exists()


# Training: what costs a row or a column, and nothing else.

LOSSY: dict[str, tuple[Table, list[int], str]] = {
    "infinities": (changed("amount", {3: np.inf, 4: -np.inf}), [3, 4], "is infinite"),
    "text among numbers": (changed("amount", {2: "much", 9: "3,50"}), [2, 9], "is not a number"),
    "unreadable dates": (changed("time", {1: "yesterday", 2: "2026-13-45"}), [1, 2], "is not a date"),
    "missing times": (changed("time", {5: None}), [5], "the time is missing"),
    "repeated keys": (changed("id", {5: 4, 299: 4}), [5, 299], "key 4 appears again (first at row 4)"),
    "missing keys": (changed("id", {7: None}), [7], "the key is missing"),
    "other labels": (changed("fraud", {1: "maybe", 2: 7}), [1, 2], "is neither 0 nor 1"),
    "words for missing": (changed("amount", {1: "NA", 2: "", 3: "null"}), [], ""),
    "numbers as text": (good().assign(amount=good()["amount"].map(" {} ".format)), [], ""),
    "yes and no": (good().assign(fraud=good()["fraud"].map({0: "no", 1: "yes"})), [], ""),
}


@pytest.mark.parametrize("case", LOSSY)
def test_bad_rows_cost_themselves_only(project: Callable[..., Path], case: str) -> None:
    """Training and scoring quarantine the same rows, with the reason, and use all others."""
    table, bad, reason = LOSSY[case]
    folder = project(table)

    trained = detector("train", folder)
    scored = detector("score", folder)

    assert (trained.exit_code, scored.exit_code) == (0, 0), trained.errors + scored.errors
    kept = quarantined(folder / "bundle.quarantine.csv")
    assert kept["row"].tolist() == bad
    assert all(reason in text for text in kept["reason"])
    unlabelled = [] if case == "other labels" else bad  # scoring reads no label
    assert quarantined(folder / "scores.quarantine.csv")["row"].tolist() == unlabelled
    assert len(pd.read_parquet(folder / "scores.parquet")) == ROWS - len(unlabelled)
    assert f"Scored {ROWS - len(unlabelled)} of {ROWS} rows" in scored.output
    if bad:
        count = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
        assert f"{count} could not be used; see why in" in trained.output


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [("amount", None, "always missing"), ("amount", 5.0, "always 5"), ("country", "de", "always de")],
)
def test_columns_without_content_are_left_out(project: Callable[..., Path], column: str, value: Any, why: str) -> None:
    """A column that is all missing or constant is named, and the others are enough."""
    folder = project(good().assign(**{column: value}))

    trained = detector("train", folder)
    scored = detector("score", folder)

    assert trained.exit_code == scored.exit_code == 0
    assert f"{column} ({why})" in trained.output
    assert len(pd.read_parquet(folder / "scores.parquet")) == ROWS


def test_tiny_table(project: Callable[..., Path]) -> None:
    """Thirty rows are enough to learn from, and what lies far beyond them can pass the default policy."""
    folder = project(good(30), columns={"key": "id"})

    trained = detector("train", folder)
    scored = detector("score", folder)

    assert trained.exit_code == scored.exit_code == 0
    assert "Trained on 27 rows" in trained.output
    assert "no row can pass" not in trained.output + scored.output


def test_very_wide_table(project: Callable[..., Path]) -> None:
    """Five hundred columns, one of them bad in two rows."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(150, 500)), columns=[f"c{n}" for n in range(500)])
    folder = project(changed("c7", {1: "x", 2: "y"}, table), columns={})

    trained = detector("train", folder)
    scored = detector("score", folder)

    assert (trained.exit_code, scored.exit_code) == (0, 0), trained.errors + scored.errors
    assert quarantined(folder / "scores.quarantine.csv")["row"].tolist() == [1, 2]


def test_hundred_thousand_categories_stay_quick(project: Callable[..., Path]) -> None:
    """A category of its own for every row: the most frequent are kept, and nothing grows with their number."""
    rng = np.random.default_rng(0)
    names = [f"shop {n}" for n in range(100_000)]
    folder = project(pd.DataFrame({"amount": rng.normal(size=100_000), "shop": names}), columns={})
    started = time.perf_counter()

    trained = detector("train", folder)
    scored = detector("score", folder)

    assert trained.exit_code == scored.exit_code == 0
    assert "Scored 100,000 of 100,000 rows" in scored.output
    assert time.perf_counter() - started < 60  # about 4 seconds on an idle machine
    assert sum(file.stat().st_size for file in (folder / "bundle").iterdir()) < 2_000_000


def test_times_with_a_zone(project: Callable[..., Path]) -> None:
    """They become UTC, in training and in scoring, whatever zone they came in."""
    table = good()
    zoned = table.assign(time=table["time"].dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata"))
    folder = project(table, columns=COLUMNS | {"datetime": ["time"]})
    assert detector("train", folder).exit_code == 0
    scores = {}
    for name, given in {"plain.csv": table, "zoned.csv": zoned, "zoned.parquet": zoned}.items():
        file, output = new_file(folder, given, name), folder / f"{name}.scores.csv"
        assert detector("score", folder, "--input", file, "--output", output).exit_code == 0
        scores[name] = pd.read_csv(output).drop(columns="scored_at")

    pd.testing.assert_frame_equal(scores["zoned.csv"], scores["plain.csv"])
    pd.testing.assert_frame_equal(scores["zoned.parquet"], scores["plain.csv"])


# Scoring: the detector is there, the input is not what it was trained on.

FRESH = good(50, seed=1)
UNSCORABLE: dict[str, tuple[Any, int, str]] = {
    "missing column": (
        FRESH.drop(columns="amount"),
        USAGE,
        "Column 'amount' is missing from the table. Known: country, fee, fraud, id, online, time.",
    ),
    "renamed column": (
        FRESH.rename(columns={"amount": "Amount"}),
        USAGE,
        "Column 'amount' is missing from the table. Did you mean 'Amount'?",
    ),
    "no bytes": (b"", FAILURE, "new.csv is empty: it has no bytes at all"),
    "header only": (HEADER, FAILURE, "new.csv has columns but no rows"),
    "other encoding": (
        FRESH.assign(country="Ö").to_csv(index=False).encode("latin-1"),
        FAILURE,
        "not text in utf-8: line 2 holds the byte 0xD6",
    ),
}


def new_file(folder: Path, table: Table | str | bytes, name: str = "new.csv") -> Path:
    file = folder / name
    if isinstance(table, Table):
        table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file)
    else:
        file.write_bytes(table if isinstance(table, bytes) else table.encode())
    return file


@pytest.mark.parametrize("case", UNSCORABLE)
def test_scoring_says_what_is_wrong(ready: Path, case: str) -> None:
    """An error with what to do; the scores of yesterday stay."""
    table, exit_code, message = UNSCORABLE[case]
    assert detector("score", ready).exit_code == 0
    before = (ready / "scores.parquet").read_bytes()

    said = detector("score", ready, "--input", new_file(ready, table))

    assert message in said.errors
    assert said.exit_code == exit_code
    assert (ready / "scores.parquet").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_parquet(ready: Path, damage: str) -> None:
    """A file that was not copied whole, or that lost bytes in the middle."""
    file = new_file(ready, FRESH, "new.parquet")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:100] + bytes(300) + content[400:])

    said = detector("score", ready, "--input", file)

    assert "new.parquet is not a whole Parquet file: it is truncated or damaged" in said.errors
    assert said.exit_code == FAILURE
    assert not (ready / "scores.parquet").exists()


def test_number_column_that_became_dates(ready: Path) -> None:
    """A typed file whose column can never be read names the column and its type."""
    file = new_file(ready, FRESH.assign(amount=FRESH["time"]), "new.parquet")

    said = detector("score", ready, "--input", file)

    assert "Column 'amount' should hold a number in each row, but its type is datetime64" in said.errors
    assert said.exit_code == USAGE


SCORABLE: dict[str, tuple[Table, list[int], str]] = {
    "one row": (FRESH.head(1), [], ""),
    "text in one number": (changed("amount", {3: "much"}, FRESH), [3], "amount: 'much' is not a number"),
    "text in all numbers": (FRESH.assign(amount="much"), list(range(50)), "amount: 'much' is not a number"),
    "infinity": (changed("fee", {3: "inf"}, FRESH), [3], "fee: inf"),
    "new category": (changed("country", {3: "zz"}, FRESH), [], ""),
    "all missing": (FRESH.assign(amount=None), [], ""),
    "no label": (FRESH.drop(columns="fraud"), [], ""),
    "other order and more columns": (FRESH.assign(more="?")[[*reversed(FRESH.columns), "more"]], [], ""),
    "two faults in one row": (
        changed("online", {3: "perhaps"}, changed("amount", {3: "much"}, FRESH)),
        [3],
        "amount: 'much' is not a number; online: 'perhaps' is neither true nor false",
    ),
}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("case", SCORABLE)
def test_scoring_loses_no_good_row(ready: Path, case: str, kind: str) -> None:
    """What can be scored is; the rest is in quarantine with its reason, even if nothing is left."""
    table, bad, reason = SCORABLE[case]
    if kind == "parquet":
        table = table.astype({name: "str" for name in table.columns if table[name].dtype == object})

    said = detector("score", ready, "--input", new_file(ready, table, f"new.{kind}"))

    assert said.exit_code == 0, said.errors
    scores, faults = pd.read_parquet(ready / "scores.parquet"), quarantined(ready / "scores.quarantine.csv")
    assert faults["row"].tolist() == bad
    assert all(reason in text for text in faults["reason"])
    assert scores["id"].astype(int).tolist() == table["id"].drop(bad).tolist()
    assert f"Scored {len(scores)} of {len(table)} row" in said.output


def test_bad_lines_of_a_csv(ready: Path) -> None:
    """Lines with too few or too many fields are quarantined by their line; an open quote takes no others along."""
    lines = FRESH.to_csv(index=False).splitlines()
    lines[5] += ",more"
    lines[9] = "1,2"
    lines[20] = lines[20].replace(",", ',"', 1)

    said = detector("score", ready, "--input", new_file(ready, "\n".join(lines)))

    assert said.exit_code == 0
    reasons = quarantined(ready / "scores.quarantine.csv")["reason"]
    assert sorted(int(re.search(r"line (\d+)", reason)[1]) for reason in reasons) == [6, 10, 21]  # type: ignore[index]
    assert len(pd.read_parquet(ready / "scores.parquet")) == 47
    assert "Scored 47 of 50 rows" in said.output


def test_folder_whose_later_file_lacks_a_column(ready: Path) -> None:
    """The file that differs is named, and how."""
    folder = ready / "days"
    folder.mkdir()
    new_file(folder, FRESH, "a.csv")
    new_file(folder, FRESH.drop(columns="fee"), "b.csv")

    said = detector("score", ready, "--input", folder)

    assert f"compared with a.csv, {folder}/b.csv lacks 'fee'" in said.errors
    assert said.exit_code == FAILURE


def test_folder_whose_later_file_has_a_new_column(ready: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing stops, as nothing stops in the service; the column and the file that lacks it are named."""
    folder = ready / "days"
    folder.mkdir()
    new_file(folder, FRESH, "a.csv")
    new_file(folder, FRESH.assign(id=FRESH["id"] + 1_000, tip=1)[[*reversed(FRESH.columns), "tip"]], "b.csv")

    said = detector("score", ready, "--input", folder)

    assert said.exit_code == 0, said.errors
    assert f"Scored {2 * len(FRESH)} of {2 * len(FRESH)} rows" in said.output
    assert "'tip' (a.csv lacks it)" in caplog.text


@pytest.mark.parametrize(
    ("input_", "message"),
    [
        ("nwe.csv", "There is no file or folder {folder}/nwe.csv. In {folder}: Did you mean 'new.csv'?"),
        ("*.pq", "No file matches {folder}/*.pq."),
        ("bundle", "The folder {folder}/bundle holds no CSV, Parquet or JSON lines file."),
    ],
)
def test_input_that_is_not_there(ready: Path, input_: str, message: str) -> None:
    """The nearest file is named."""
    new_file(ready, FRESH)

    said = detector("score", ready, "--input", ready / input_)

    assert message.format(folder=ready) in said.errors
    assert said.exit_code == FAILURE


@pytest.mark.parametrize(
    ("output", "exit_code", "message"),
    [
        ("table.csv/scores.csv", FAILURE, "table.csv/scores.csv cannot be written: {folder}/table.csv is a file."),
        ("scores.xlsx", USAGE, "Results go to a .parquet or a .csv file"),
        ("days.csv", FAILURE, "days.csv is a folder. Name a file in it"),
        ("table.csv", USAGE, "The input and the output are the same file"),
    ],
)
def test_output_that_cannot_be_written(ready: Path, output: str, exit_code: int, message: str) -> None:
    """Said before any row is read; the input is never written over."""
    (ready / "days.csv").mkdir()
    before = (ready / "table.csv").read_bytes()

    said = detector("score", ready, "--output", ready / output)

    assert message.format(folder=ready) in said.errors
    assert said.exit_code == exit_code
    assert (ready / "table.csv").read_bytes() == before


# The bundle.


@pytest.mark.parametrize("name", ["arrays.npz", "bundle.json", "graph.onnx", "inside.onnx"])
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_bundle_with_a_changed_byte(ready: Path, command: str, name: str) -> None:
    """Any byte of any file: the file is named."""
    file = ready / "bundle" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))

    said = detector(command, ready, "--input", ready / "table.csv")

    assert re.search(rf"bundle/{re.escape(name)} (has changed since it was saved|is damaged)", said.errors)
    assert "train again" in said.errors
    assert said.exit_code == FAILURE


@pytest.mark.parametrize("command", ["score", "evaluate"])
@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("bundle", "bundle holds no trained detector (no bundle.json). Run `detector train` first."),
        ("bundle/graph.onnx", "bundle/graph.onnx is missing from the bundle."),
    ],
)
def test_bundle_that_is_missing(ready: Path, command: str, gone: str, message: str) -> None:
    """Nothing was trained, or a part was not copied."""
    shutil.move(ready / gone, ready / "away")

    said = detector(command, ready, "--input", ready / "table.csv")

    assert message in said.errors
    assert said.exit_code == FAILURE


def test_training_does_not_write_over_a_folder_of_something_else(ready: Path, configure: Configure) -> None:
    """``bundle`` names a folder with other files in it: they stay."""
    (ready / "photos").mkdir()
    (ready / "photos" / "one.jpg").write_bytes(b"1")
    configure(ready, source={"path": "table.csv"}, columns=COLUMNS, train=MEMBERS, bundle="photos")

    said = detector("train", ready)

    assert "photos exists and is not a bundle. Name another folder" in said.errors
    assert said.exit_code == FAILURE
    assert (ready / "photos" / "one.jpg").exists()


# Labels at evaluation.


@pytest.mark.parametrize(
    ("labels", "exit_code", "message"),
    [
        (1, FAILURE, "'fraud' holds no known anomaly or no known normal row among the 50 rows read"),
        (0, FAILURE, "Label some of both (1 anomalous, 0 normal)."),
        (None, FAILURE, "Label some of both (1 anomalous, 0 normal)."),
        ("legit", FAILURE, "None of the 50 rows can be used: fraud: not 0 or 1 (50 rows). Mend them."),
    ],
)
def test_evaluation_needs_labels_of_both_kinds(ready: Path, labels: Any, exit_code: int, message: str) -> None:
    """What the label column holds, and what it should."""
    said = detector("evaluate", ready, "--input", new_file(ready, FRESH.assign(fraud=labels)))

    assert message in said.errors
    assert said.exit_code == exit_code


# Databases.

SECRET = "geheim"
DATABASES: dict[str, tuple[dict[str, str], int, str]] = {
    "no server": (
        {"url": f"postgresql://ann:{SECRET}@localhost:1/bank", "table": "t"},
        FAILURE,
        "ann:***@localhost:1/bank cannot be reached: ",
    ),
    "unknown host": (
        {"url": f"postgresql://ann:{SECRET}@no-such-host.invalid/bank", "table": "t"},
        FAILURE,
        "ann:***@no-such-host.invalid/bank cannot be reached: ",
    ),
    "unknown kind": ({"url": f"bank://ann:{SECRET}@x", "table": "t"}, USAGE, "unknown kind of database, 'bank'"),
    "no file": ({"url": "sqlite:///bnk.db", "table": "t"}, FAILURE, "There is no SQLite file"),
    "no table": ({"url": "sqlite:///bank.db", "table": "paymnts"}, FAILURE, "Did you mean 'payments'?"),
    "wrong query": ({"url": "sqlite:///bank.db", "query": "SELECT FROM 1"}, FAILURE, 'near "FROM": syntax error'),
    "changing query": ({"url": "sqlite:///bank.db", "query": "DELETE FROM payments"}, FAILURE, "must be a SELECT"),
    "no such column": (
        {"url": "sqlite:///bank.db", "query": "SELECT id, time, fee, fraud FROM payments"},
        USAGE,
        "Column 'amount' is missing from the table.",
    ),
    "no rows": (
        {"url": "sqlite:///bank.db", "query": "SELECT * FROM payments WHERE id < 0"},
        FAILURE,
        "has columns but no rows",
    ),
}


@pytest.mark.parametrize("command", ["train", "score"])
@pytest.mark.parametrize("case", DATABASES)
def test_database_that_cannot_be_read(ready: Path, configure: Configure, case: str, command: str) -> None:
    """The driver's words without the password, and what to check."""
    source, exit_code, message = DATABASES[case]
    connection = sqlite3.connect(ready / "bank.db")
    good().to_sql("payments", connection, index=False)
    connection.close()
    configure(ready, source=source, columns=COLUMNS, train=MEMBERS)

    said = detector(command, ready)

    assert message in said.errors
    assert SECRET not in said.errors + said.output
    assert said.exit_code == exit_code


def test_database_with_mixed_values(ready: Path, configure: Configure) -> None:
    """SQLite keeps any type in any column: text among numbers costs its row only."""
    connection = sqlite3.connect(ready / "bank.db")
    changed("amount", {3: "much"}, FRESH).astype({"time": "str"}).to_sql("payments", connection, index=False)
    connection.close()
    configure(ready, source={"url": "sqlite:///bank.db", "table": "payments"}, columns=COLUMNS, train=MEMBERS)

    said = detector("score", ready)

    assert said.exit_code == 0
    assert quarantined(ready / "scores.quarantine.csv")["reason"].tolist() == ["amount: 'much' is not a number"]
    assert len(pd.read_parquet(ready / "scores.parquet")) == 49


def test_output_table_of_another_shape(ready: Path, configure: Configure) -> None:
    """A table that is there and cannot hold the scores is left as it is."""
    connection = sqlite3.connect(ready / "bank.db")
    connection.execute("CREATE TABLE scores (name TEXT)")
    connection.commit()
    configure(
        ready,
        source={"path": "table.csv"},
        columns=COLUMNS,
        train=MEMBERS,
        output={"url": "sqlite:///bank.db", "table": "scores"},
    )

    said = detector("score", ready)

    assert "does not fit: it has no column 'id'" in said.errors
    assert "Set `output.table` to another name" in said.errors
    assert said.exit_code == FAILURE
    assert connection.execute("SELECT * FROM scores").fetchall() == []
    connection.close()


# The configuration itself.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty. Write a configuration with `detector init"),
        ("source: [", "line 1: not valid YAML"),
        ("id,amount\n1,2\n", "expected keys such as `source:`"),
        ("name: x\n", "line 1: source: is required."),
        ("source: {path: a.csv, url: 'sqlite:///b.db'}\n", "Give one of the three."),
        ("source: {path: a.csv}\nsource: {path: b.csv}\n", "line 2: not valid YAML: the key 'source' is given twice"),
        ("source: {path: '${NO_SUCH_PLACE}/a.csv'}\n", "NO_SUCH_PLACE"),
        ("source: {path: ${PLACE}/a.csv}\n", "line 1: not valid YAML: expected ',' or '}', but got '{'. Put the value"),
    ],
    ids=["empty", "not YAML", "not keys", "no source", "two sources", "a key twice", "no variable", "no quotes"],
)
def test_configuration_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    """The file and the line are named."""
    (tmp_path / "detector.yaml").write_text(text, encoding="utf-8")

    said = detector("train", tmp_path)

    assert message in said.errors
    assert said.exit_code == USAGE


def test_configuration_that_is_not_there(tmp_path: Path) -> None:
    """The way to one is named, for the folder that was meant."""
    said = detector("train", tmp_path / "paymnts")

    assert f"Write one with `detector init {tmp_path / 'paymnts'}`" in said.errors
    assert said.exit_code == USAGE


# Once more as a user does it, in a process of its own.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["score", "{folder}", "--input", "{folder}/bad.csv"], 0, "Scored 49 of 50 rows"),
        (["score", "{folder}", "--input", "{folder}/empty.csv"], FAILURE, "empty.csv is empty"),
        (["score", "{folder}", "--inptu", "x"], USAGE, "No such option: --inptu"),
        (["train", "{folder}/nothing.yaml"], USAGE, "There is no configuration"),
    ],
    ids=["quarantine", "failure", "option", "configuration"],
)
def test_exit_codes_of_a_process(ready: Path, arguments: list[str], exit_code: int, message: str) -> None:
    """What the shell sees, with every Python warning an error."""
    new_file(ready, changed("amount", {3: "much"}, FRESH), "bad.csv")
    new_file(ready, b"", "empty.csv")

    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *(argument.format(folder=ready) for argument in arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == exit_code, done.stderr
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
