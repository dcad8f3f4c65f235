from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.schema import Schema
from pipelines.config import Config
from pipelines.doctor import Check, as_summary, as_table, examine
from pipelines.doctor.places import check_bundle
from pipelines.simulate import simulate_sensors
from pipelines.store import open_store


@pytest.fixture
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = 1_000
    return pd.DataFrame(
        {
            "id": [f"T{n:05}" for n in range(rows)],
            "time": pd.date_range("2024-01-01", periods=rows, freq="h").astype(str),
            "card": generator.integers(0, 50, rows),
            "amount": generator.gamma(2, 30, rows).round(2),
            "country": generator.choice(["DE", "FR", "AT"], rows),
            "fraud": generator.binomial(1, 0.02, rows),
        }
    )


COLUMNS = {"key": "id", "time": "time", "entity": "card", "label": "fraud"}


def config_for(folder: Path, frame: pd.DataFrame | None = None, **settings: Any) -> Config:
    if frame is not None:
        frame.to_csv(folder / "data.csv", index=False)
    given = {"source": {"path": "data.csv"}, "columns": COLUMNS, "tracking": {"enabled": False}} | settings
    return Config.model_validate(given, context={"folder": folder})


def found(checks: list[Check], place: str, state: str | None = None) -> str:
    return " | ".join(
        f"{check.found} > {check.advice}" for check in checks if check.place == place and state in (None, check.state)
    )


def test_one_of_a_thing_is_said_so(tmp_path: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as "1 column", "1 feature" and "only 1 row"."""
    config = config_for(tmp_path, frame[["amount"]].head(1), columns={})
    assert ": 1 column, 1 row" in found(examine(config), "source", "ok")
    assert found(examine(config), "source", "warning").startswith("only 1 row >")

    scorer = SimpleNamespace(schema=Schema(numeric=("amount",)), members=("forest",))
    monkeypatch.setattr("detector.persist.bundle.load", lambda _: scorer)
    config.bundle.mkdir()
    (config.bundle / "bundle.json").touch()
    assert check_bundle(config).found == "1 feature; members forest"


def test_sound_configuration_has_no_problem(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Where all is well, every check says ok and what it saw, and nothing is written."""
    config = config_for(tmp_path, frame)

    checks = examine(config)

    assert {check.state for check in checks} == {"ok"}
    assert "6 columns" in found(checks, "source")
    assert "2 to learn from: 1 numeric, 1 categorical" in found(checks, "columns")
    assert "2024-01-01 00:00 to 2024-02-11 15:00" in found(checks, "columns.time")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_all_problems_are_reported_at_once(tmp_path: Path, frame: pd.DataFrame) -> None:
    """One run names everything that is wrong, in all parts of the configuration."""
    (tmp_path / "bundle").write_text("")
    config = config_for(
        tmp_path,
        frame,
        columns={"key": "idd", "time": "tme", "numeric": ["amuont"], "ignore": ["cuntry"]},
        output={"path": "scores.xlsx"},
        policy={"quantile": 0.99999},
    )

    checks = examine(config)

    assert "no column 'idd' > Did you mean 'id'?" in found(checks, "columns.key", "problem")
    assert "no column 'tme' > Did you mean 'time'?" in found(checks, "columns.time", "problem")
    assert "no column 'amuont' > Did you mean 'amount'?" in found(checks, "columns.numeric", "problem")
    assert "no column 'cuntry' > Did you mean 'country'?" in found(checks, "columns.ignore", "problem")
    assert "neither .parquet nor .csv" in found(checks, "output.path", "problem")
    assert "is a file" in found(checks, "bundle", "problem")
    assert "with 1,000 rows to learn from, no quantile above 0.99889 can" in found(checks, "policy.quantile", "warning")


def test_rows_that_are_copies_as_a_whole_are_told_apart_from_a_bad_key(tmp_path: Path) -> None:
    """Of an export that has some rows again only the copies are set aside: a warning, and no other key is asked for."""
    frame = pd.DataFrame({"id": [f"R{n}" for n in range(100)], "amount": [n % 7 for n in range(100)]})
    frame = pd.concat([frame, frame.tail(40)], ignore_index=True)

    checks = examine(config_for(tmp_path, frame, columns={"key": "id", "numeric": ["amount"]}))

    assert "29 % repeated, 29 % in rows that are copies of others as a whole" in found(checks, "columns.key", "warning")


@pytest.mark.parametrize(
    ("column", "values", "place", "state", "text"),
    [
        ("id", lambda n: n // 2, "columns.key", "problem", "is the same in 50 % of the rows"),
        ("id", lambda n: "" if n == 3 else n, "columns.key", "warning", "0.10 % missing, 0 % repeated"),
        ("id", lambda n: 7 if n in (3, 4) else n, "columns.key", "warning", "0.20 % repeated"),
        ("time", lambda n: "noon", "columns.time", "problem", "100 % is not a time, such as 'noon'"),
        (
            "time",
            lambda n: "soon" if n < 500 else "2024-01-01",
            "columns.time",
            "problem",
            "50 % is not a time",
        ),
        ("card", lambda n: "" if n < 500 else n, "columns.entity", "warning", "50 % missing"),
        ("fraud", lambda n: 0, "columns.label", "warning", "0 anomalous, 1,000 normal"),
        ("fraud", lambda n: 1, "columns.label", "problem", "no normal row to learn from"),
        ("fraud", lambda n: int(n > 10), "columns.label", "warning", "is 1 the anomaly?"),
        ("fraud", lambda n: n % 3, "columns.label", "problem", "33 % unreadable, such as '2'"),
        ("fraud", lambda n: "" if n % 2 else n % 4 // 2, "columns.label", "ok", "50 % unknown"),
        ("amount", lambda n: "", "columns.numeric", "warning", "is always missing"),
        ("amount", lambda n: n % 9 if n < 100 else "", "columns.numeric", "warning", "90 % missing"),
        ("amount", lambda n: 5, "columns.numeric", "warning", "is always '5'"),
        ("amount", lambda n: n, "columns.numeric", "warning", "different in nearly every row"),
        ("amount", lambda n: "abc" if n == 7 else n % 9, "columns.numeric", "warning", "0.10 % is not a number"),
        ("amount", lambda n: 1e154 if n == 7 else n % 9, "columns.numeric", "warning", "holds 1e+154, far beyond"),
        ("amount", lambda n: "inf" if n == 7 else n % 9, "columns.numeric", "warning", "0.10 % infinite"),
        ("country", lambda n: f"c{n}", "columns.categorical", "warning", "different in nearly every row"),
    ],
)
def test_column_that_is_odd(
    tmp_path: Path, frame: pd.DataFrame, column: str, values: Any, place: str, state: str, text: str
) -> None:
    """What is odd about a column is reported as strongly as it matters."""
    frame[column] = [values(n) for n in range(len(frame))]

    assert text in found(examine(config_for(tmp_path, frame)), place, state)


def test_column_that_is_not_of_its_kind(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Words listed as numbers are a problem with a way out; the others are still checked."""
    config = config_for(tmp_path, frame, columns=COLUMNS | {"numeric": ["country"], "boolean": ["amount"]})

    checks = examine(config)

    assert "100 % is not a number" in found(checks, "columns.numeric", "problem")
    assert "is not true or false" in found(checks, "columns.boolean", "problem")


def test_dates_listed_as_numbers(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A typed column that can never be of its kind is a problem, not an exception."""
    frame.assign(when=pd.Timestamp("2024-01-01")).to_parquet(tmp_path / "data.parquet")
    config = config_for(tmp_path, source={"path": "data.parquet"}, columns={"numeric": ["when"]})

    assert "should hold a number" in found(examine(config), "columns.numeric", "problem")


def test_column_with_two_meanings(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A key that is a feature as well is a problem."""
    checks = examine(config_for(tmp_path, frame, columns={"key": "id", "categorical": ["id"]}))

    assert "is the key and a feature" in found(checks, "columns", "problem")


def test_no_feature_at_all(tmp_path: Path, frame: pd.DataFrame) -> None:
    """With everything left out there is nothing to learn from."""
    checks = examine(config_for(tmp_path, frame, columns={"others": "ignore"}))

    assert "no column is a feature" in found(checks, "columns", "problem")


def test_truth_among_the_features(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A column that looks like the label and is not named so would be learned from."""
    checks = examine(config_for(tmp_path, frame, columns={"key": "id", "time": "time"}))

    assert "the feature 'fraud' looks like the known truth > Set `label: fraud`" in found(checks, "columns.label")


def test_rules_that_fit_no_column_and_lists_that_are_not_there(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Both are found before a training, and not once rows are to be scored; features count as columns."""
    conditions = {"typed": "amuont > 5", "past": "amount_ratio_30d_by_card > 5", "open": "amount >"}
    config = config_for(
        tmp_path,
        frame,
        rules=[{"name": name, "when": when, "state": "live"} for name, when in conditions.items()],
        lists={"stolen": {"path": "stolen.txt"}, "mine": {"values": ["7"]}},
        features={"history": ["ratio of amount by card over 30d"]},
    )

    checks = examine(config)

    problems = found(checks, "rules", "problem")
    assert "'typed': There is no column 'amuont' for rules. Did you mean 'amount'?" in problems
    assert "'open': The rule is no condition" in problems
    assert found(checks, "rules", "ok").startswith("1 rule can be read")
    assert "The list 'stolen' cannot be read" in found(checks, "lists", "problem")
    assert found(checks, "lists", "ok").startswith("'mine': 1 value")


def test_source_that_is_not_there(tmp_path: Path) -> None:
    """Without a source the rest is still checked."""
    (tmp_path / "data.tsv").write_text("x")

    checks = examine(config_for(tmp_path))

    assert "no file or folder" in found(checks, "source.path", "problem")
    assert "Did you mean 'data.tsv'?" in found(checks, "source.path", "problem")
    assert found(checks, "output.path", "ok")


def test_lines_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    """Few rows are a warning; lines with a wrong number of fields a problem where they are more than a hundredth."""
    (tmp_path / "data.csv").write_text("a,b\n1,2\n3\n4,5\n")

    checks = examine(config_for(tmp_path, columns={}))

    assert "data.csv line 3: 1 field where the header has 2" in found(checks, "source", "problem")
    assert "only 2 rows" in found(checks, "source", "warning")


def test_long_source_is_scored_by_its_first_rows(
    tmp_path: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where reading all would take long, the first rows have to do."""
    monkeypatch.setattr("pipelines.doctor.SCAN_ROWS", 10)

    assert found(examine(config_for(tmp_path, frame), rows=20), "columns.time").startswith(
        "'time': 2024-01-01 00:00 to 2024-01-01 19:00"
    )


def test_budget_a_day_needs_a_time(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A budget for each day means nothing without a time column."""
    checks = examine(config_for(tmp_path, frame, columns={"key": "id"}, policy={"budget": {"rows": 5}}))

    assert "needs the time of each row" in found(checks, "policy.budget.per", "problem")


@pytest.mark.parametrize(
    ("source", "output"),
    [("data", {"path": "data/scores.csv"}), ("data/*.csv", {"path": "out.csv", "quarantine": "data/bad.csv"})],
)
def test_result_among_the_source_files(
    tmp_path: Path, frame: pd.DataFrame, source: str, output: dict[str, str]
) -> None:
    """A result that the next run would read as input is a problem."""
    (tmp_path / "data").mkdir()
    frame.to_csv(tmp_path / "data" / "a.csv", index=False)

    checks = examine(config_for(tmp_path, source={"path": source}, output=output))

    assert any("lies among the source files" in check.found for check in checks if check.state == "problem")


def test_place_that_is_a_folder_or_below_a_file(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A folder is no file, and a file is no folder."""
    (tmp_path / "report.html").mkdir()
    config = config_for(tmp_path, frame, output={"path": "data.csv/scores.csv"}, bundle="data.csv/bundle")

    checks = examine(config)

    assert "report.html is a folder" in found(checks, "report", "problem")
    assert "data.csv is a file, not a folder" in found(checks, "output.path", "problem")
    assert "data.csv is a file, not a folder" in found(checks, "bundle", "problem")


@pytest.mark.parametrize("there", [True, False])
def test_output_database_is_looked_at_and_not_created(tmp_path: Path, frame: pd.DataFrame, there: bool) -> None:
    """Whether the table is there is said; a database that is not there is not made by looking."""
    if there:
        connection = sqlite3.connect(tmp_path / "out.db")
        connection.execute("CREATE TABLE scores (x)")
        connection.close()
    config = config_for(tmp_path, frame, output={"url": "sqlite:///out.db", "table": "scores"})

    checks = examine(config)

    assert ("is there and is appended to" in found(checks, "output.table", "ok")) == there
    assert (tmp_path / "out.db").exists() == there


def test_output_database_that_does_not_answer(tmp_path: Path, frame: pd.DataFrame) -> None:
    """An unreachable database is a problem without its password."""
    url = "postgresql://ann:s3cret@127.0.0.1:9/x?connect_timeout=2"
    checks = examine(config_for(tmp_path, frame, output={"url": url, "table": "scores"}))

    assert "cannot be reached" in found(checks, "output.url", "problem")
    assert "s3cret" not in str(checks)


def test_tracking_that_does_not_answer(tmp_path: Path, frame: pd.DataFrame) -> None:
    """An unreachable MLflow server is a problem with a way out."""
    checks = examine(config_for(tmp_path, frame, tracking={"uri": "http://127.0.0.1:9"}))

    assert "tracking.enabled: false" in found(checks, "tracking.uri", "problem")


def test_tracking_database_can_be_new(tmp_path: Path, frame: pd.DataFrame) -> None:
    """The default, an SQLite file that is not there yet, is fine."""
    assert "mlflow.db" in found(examine(config_for(tmp_path, frame, tracking={})), "tracking.uri", "ok")


def test_bundle_is_loaded(tmp_path: Path, frame: pd.DataFrame) -> None:
    """A bundle that is damaged is a problem; one that is empty is not there yet."""
    (tmp_path / "bundle").mkdir()
    assert "is empty" in found(examine(config_for(tmp_path, frame)), "bundle", "ok")

    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps({"files": {}}))

    assert "Train again" in found(examine(config_for(tmp_path, frame)), "bundle", "problem")


def test_checks_are_printed_as_a_table() -> None:
    """The list has a row a check, and the summary counts them."""
    checks = [Check("a", "ok", "x"), Check("b", "problem", "[y]", "z"), Check("c", "problem", "w")]

    assert [row["where"] for row in as_table(checks).rows] == ["a", "b", "c"]
    assert as_summary(checks) == "1 ok, 0 warnings, 2 problems."


def test_features_are_measured_of_the_sample(tmp_path: Path, frame: pd.DataFrame) -> None:
    """How many there are and of whom; rows that cannot have any are counted, with the reason."""
    frame.loc[:9, "amount"] = -5.0
    settings = {"history": ["mean of amount by card over 7d"], "negative": "refuse"}

    checks = examine(config_for(tmp_path, frame, features=settings))

    text = found(checks, "features", "warning")
    assert text.startswith("1 feature measured by card; 1.00 % of the rows cannot have any (amount: ")


def test_a_misspelt_column_of_amounts_or_reports_is_reported(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Neither stops a training, so only the doctor can tell that rules and labels would silently count for nothing."""
    settings = {"history": ["risk by card over 7d"], "amount": "amonut", "reported": "tme"}

    checks = examine(config_for(tmp_path, frame, features=settings))

    assert "rules for amounts apply to nothing > Did you mean 'amount'?" in found(checks, "features.amount", "warning")
    assert "It may come later. Did you mean 'time'?" in found(checks, "features", "warning")


@pytest.mark.parametrize(
    ("history", "state", "text"),
    [
        ("mean of amuont by card over 7d", "problem", "no column 'amuont', of which amuont_mean_7d_by_card is made"),
        ("risk by card over 7d delay 1d", "warning", "no column 'fraud' yet"),
        ("max of country by card over 7d", "warning", "'country' holds no numbers, such as"),
    ],
)
def test_features_name_the_column_they_miss(
    tmp_path: Path, frame: pd.DataFrame, history: str, state: str, text: str
) -> None:
    """A label may come later; any other column may not."""
    checks = examine(config_for(tmp_path, frame.drop(columns="fraud"), features={"history": [history]}))

    assert text in found(checks, "features", state)


def test_features_name_the_reports_they_cannot_read(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Features made of labels need the reports too; a file that is not there is a problem, and no crash."""
    reports = {"source": {"path": "chargebacks.csv"}}
    features = {"history": ["frauds by card over 1d"]}

    checks = examine(config_for(tmp_path, frame, features=features, train={"head": {"reports": reports}}))

    assert "chargebacks.csv" in found(checks, "features", "problem")


@pytest.mark.parametrize(
    ("write", "advice", "kind"),
    [
        (lambda n: f"{n:,.2f}", '{amount: {thousands: ",", decimal: "."}}', "as 1,234.56, and they are the largest"),
        (
            lambda n: f"{n:,.2f}".translate({44: ".", 46: ","}),
            '{amount: {thousands: ".", decimal: ","}}',
            "as 1.234,56",
        ),
        (lambda n: f"{n:.2f} EUR" if n > 1000 else f"{n:.2f}", "written in one form", "are written as 1234.56 EUR"),
    ],
)
def test_doctor_proposes_the_form_of_numbers(
    tmp_path: Path, frame: pd.DataFrame, write: Any, advice: str, kind: str
) -> None:
    """Large amounts written in another form are a problem, however few, with the setting that reads them all."""
    frame["amount"] = [write(1234.5 + n if n in (3, 30, 300, 400, 500) else n % 90 + 0.25) for n in range(len(frame))]
    columns = COLUMNS | {"numeric": ["amount"]}

    text = found(examine(config_for(tmp_path, frame, columns=columns)), "columns.numeric", "problem")

    assert advice in text
    assert kind in text


def test_declared_form_of_doctor_is_read(tmp_path: Path, frame: pd.DataFrame) -> None:
    """With the proposed setting nothing is lost; a name of no column is reported."""
    frame["amount"] = [f"{n * 7.25:,.2f}" for n in range(len(frame))]
    frame["time"] = pd.to_datetime(frame["time"]).dt.strftime("%d.%m.%Y %H:%M")
    formats = {"amount": {"thousands": ","}, "time": {"date": "day first"}}

    sound = examine(config_for(tmp_path, frame, source={"path": "data.csv", "formats": formats}))
    lost = examine(config_for(tmp_path, source={"path": "data.csv", "formats": {"amuont": {"thousands": ","}}}))

    assert "'time' is read day first" in found(sound, "source.formats", "ok")
    assert not [check for check in sound if check.state == "problem"]
    assert "no column 'amuont' > Did you mean 'amount'?" in found(lost, "source.formats", "problem")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        ("%d.%m.%Y %H:%M", "they are written day first > Set `source.formats: {time: {date: day first}}`"),
        ("%m/%d/%Y %I:%M %p", "they are written month first"),
        ("%d-%b-%y %H:%M:%S", '{date: "%d-%b-%y %H:%M:%S"}'),
        ("ms", "they are written milliseconds since 1970 > Set `source.formats: {time: {date: milliseconds}}`"),
        ("both", "it is mixed: 64 % day first and 36 % month first > Have it written in one form"),
        ("unclear", "they are written day first or month first"),
    ],
)
def test_doctor_proposes_the_form_of_dates(tmp_path: Path, frame: pd.DataFrame, write: str, text: str) -> None:
    """Day first, month first or a count from 1970; where both would do it says so, and where none does."""
    time = pd.date_range("2024-01-13", periods=len(frame), freq="h")
    if write == "ms":
        frame["time"] = (time - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1)
    elif write == "both":
        frame["time"] = [f"{t:%d.%m.%Y}" if n % 2 else f"{t:%m/%d/%Y}" for n, t in enumerate(time)]
    elif write == "unclear":
        frame["time"] = [f"0{n % 9 + 1}.0{n % 7 + 1}.2024" for n in range(len(frame))]
    else:
        frame["time"] = time.strftime(write)

    assert text in found(examine(config_for(tmp_path, frame)), "columns.time", "problem")


def test_doctor_says_that_times_are_of_another_age(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Stamps of digits that a configuration takes for milliseconds lie in the year 2612."""
    frame["time"] = pd.to_datetime(frame["time"]).dt.strftime("%Y%m%d%H%M%S")
    source = {"path": "data.csv", "formats": {"time": {"date": "milliseconds"}}}

    checks = examine(config_for(tmp_path, frame, source=source))

    assert "Years far from ours" in found(checks, "columns.time", "problem")


@pytest.mark.parametrize(("days", "warns"), [(7, True), (60, False)])
def test_doctor_says_that_a_window_holds_no_past(tmp_path: Path, frame: pd.DataFrame, days: int, warns: bool) -> None:
    """Of bills of every four weeks, a week back there is none to compare with."""
    frame["time"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(frame)) // 50 * 28, unit="D")
    frame["card"] = np.arange(len(frame)) % 50
    features = {"history": [f"count by card over {days}d", f"ratio of amount by card over {days}d"]}

    checks = examine(config_for(tmp_path, frame, features=features))

    told = found(checks, "features", "warning")
    name = f"amount_ratio_{days}d_by_card"
    assert told == (
        f"{name} is missing in 100 % of the rows: card has too few within the window > "
        "Look further back: name a longer window behind `over`."
        if warns
        else ""
    )


def test_doctor_says_that_a_column_moves_on(tmp_path: Path, frame: pd.DataFrame) -> None:
    """In the next week every row would have a week that was never learnt; a weekday comes again."""
    time = pd.to_datetime(frame["time"])
    frame["week"] = time.dt.strftime("%G-W%V")
    frame["weekday"] = time.dt.day_name()

    told = found(examine(config_for(tmp_path, frame)), "columns.categorical", "warning")

    assert told.startswith("'week' moves on with time: 6 values, none of which came again >")
    assert "weekday" not in told


def test_doctor_says_which_kind_every_column_gets(tmp_path: Path, frame: pd.DataFrame) -> None:
    """And why, before training; numbers that are likely codes are asked about, and text that holds numbers."""
    frame["mcc"] = ["n/a" if n % 3 else 5411 + n % 20 for n in range(len(frame))]
    frame["fee"] = [f"{n},50" for n in range(len(frame))]
    columns = COLUMNS | {"categorical": ["country"]}

    checks = examine(config_for(tmp_path, frame, columns=columns))

    assert "'amount': numeric, guessed, as all values are numbers" in found(checks, "columns.numeric", "ok")
    assert "'country': categorical, as the configuration says" in found(checks, "columns.categorical", "ok")
    assert "'mcc': numeric, guessed" in found(checks, "columns.numeric", "warning")
    assert "list it under `columns.categorical`" in found(checks, "columns.numeric", "warning")
    assert "written as 1234,56" in found(checks, "columns.categorical", "warning")


@pytest.mark.parametrize(
    ("settings", "now", "warns"),
    [
        ({}, "2024-06-01", True),
        ({"service": {"start": "new"}}, "2024-06-01", False),
        ({}, "2023-12-31", False),
        (
            {"alerts": {"enabled": False, "webhook": {"url": "https://a.example/x", "secrets": ["${HOOK}"]}}},
            "2024-06-01",
            False,
        ),
        ({"alerts": {"file": {"path": "alerts.jsonl"}}}, "2024-06-01", False),
    ],
    ids=["old rows", "only new ones", "no old rows", "no alerts", "a file"],
)
def test_alerts_about_what_is_long_over_are_foretold(
    tmp_path: Path,
    frame: pd.DataFrame,
    settings: dict[str, Any],
    now: str,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first run, how many there are at most, where they go, and what avoids it."""
    monkeypatch.setenv("HOOK", f"whsec_{b64encode(bytes(32)).decode()}")
    channels = {"alerts": {"webhook": {"url": "https://a.example/x", "secrets": ["${HOOK}"]}, "a_day": 7}}

    checks = examine(config_for(tmp_path, frame, **(channels | settings)), now=datetime.fromisoformat(f"{now}T00:00Z"))

    said = found(checks, "service.start")
    assert bool(said) == warns
    if warns:
        assert "100 % of the rows are older" in said
        assert "up to 7 alerts about them and a digest go to webhook" in said
        assert "`service: {start: new}`; `detector backfill`" in said


def test_alerts_about_what_is_over_are_no_news_once_the_service_has_run(
    tmp_path: Path, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the old files have been scored."""
    monkeypatch.setenv("HOOK", f"whsec_{b64encode(bytes(32)).decode()}")
    config = config_for(tmp_path, frame, alerts={"webhook": {"url": "https://a.example/x", "secrets": ["${HOOK}"]}})
    open_store(str(config.service.store)).close()

    assert not found(examine(config), "service.start")


TABLE = {"url": "sqlite:///scores.db", "table": "scores"}
AGAIN = "80 % of the rows of week2.csv"


@pytest.mark.parametrize(
    ("begin", "given", "place", "state", "expected"),
    [
        (0, {}, "service.repeated_rows", "ok", f"{AGAIN} have keys of week1.csv: the service skips those that are un"),
        (800, {}, "service.repeated_rows", "ok", ""),
        (0, {"repeated_rows": "score"}, "service.repeated_rows", "warning", f"{AGAIN} have keys of week1.csv: coming"),
        (0, {"repeated_rows": "score", "output": TABLE}, "service.repeated_rows", "warning", ""),
        (0, {"key": None}, "columns.key", "warning", "are in week1.csv, too: coming later, they are scored again"),
        (0, {"key": None}, "columns.key", "warning", "`columns: {key: id}`, and train again. With a key, the service"),
        (800, {"key": None}, "columns.key", "warning", ""),
        (0, {"key": None, "time": None}, "columns.key", "warning", ""),
    ],
)
def test_export_that_holds_older_rows_is_told(
    tmp_path: Path, frame: pd.DataFrame, begin: int, given: dict[str, Any], place: str, state: str, expected: str
) -> None:
    """What the service does with them, and which column to name where it cannot tell them."""
    (tmp_path / "in").mkdir()
    frame.iloc[:800].to_csv(tmp_path / "in" / "week1.csv", index=False)
    frame.iloc[begin:].to_csv(tmp_path / "in" / "week2.csv", index=False)
    columns = {"key": given.get("key", "id"), "time": given.get("time", "time"), "label": "fraud"}
    service = {"service": {"repeated_rows": given["repeated_rows"]}} if "repeated_rows" in given else {}
    output = given.get("output", {"path": "scores.parquet"})

    checks = examine(config_for(tmp_path, source={"path": "in"}, columns=columns, output=output, **service))

    assert expected in found(checks, place, state)
    told = [check for check in checks if "week1.csv" in check.found and "week2.csv" in check.found]
    assert len(told) == bool(expected)


def test_file_that_is_there_twice_is_no_export(tmp_path: Path, frame: pd.DataFrame) -> None:
    """Of two files that are the same to the byte the service sets one aside, and says so itself."""
    (tmp_path / "in").mkdir()
    for name in ("week1.csv", "week2.csv"):
        frame.to_csv(tmp_path / "in" / name, index=False)

    checks = examine(config_for(tmp_path, source={"path": "in"}))

    assert not found(checks, "service.repeated_rows")


@pytest.mark.parametrize(("models", "warned"), [({"models": "shared"}, True), ({"models": "entity"}, False)])
@pytest.mark.parametrize("factor", [1.5, 100])
def test_machines_that_are_not_alike_do_not_share_a_model_unsaid(
    models: dict[str, str], warned: bool, factor: float, tmp_path: Path
) -> None:
    """A household's fault is nothing beside what a factory uses; machines of about one size are alike."""
    rows = simulate_sensors(2_000, seed=1, machines=2, sensors=3).iloc[:, :5]
    speed = rows["speed_rpm"].where(rows["machine"] == "M1", rows["speed_rpm"] * factor)
    rows.assign(speed_rpm=speed).to_parquet(tmp_path / "rows.parquet")
    config = Config.model_validate(
        {
            "kind": "sensors",
            "source": {"path": str(tmp_path / "rows.parquet")},
            "columns": {"time": "time", "entity": "machine"},
            "series": models,
        }
    )

    found = [check.found for check in examine(config) if check.place == "series.models"]

    assert len(found) == (warned and factor == 100)
    assert all("'speed_rpm': it usually is, of 'M1'" in text for text in found)


@pytest.mark.parametrize(
    ("factor", "floor", "n_rows", "warned"),
    [
        (1.0, 0.1, 2_000, False),
        (1e-6, 0.1, 2_000, True),
        (1e-6, 1e-9, 2_000, False),
        (1e-6, None, 1_800, True),
        (1e-6, None, 4_000, False),
    ],
)
def test_sensor_that_hardly_counts_for_its_unit_is_told(
    factor: float, floor: float | None, n_rows: int, warned: bool, tmp_path: Path
) -> None:
    """A floor under ranges is a share of the usual one: in a million times the unit a sensor lies far below it.

    By default there is one where a model has fewer than 1,000 rows.
    """
    rows = simulate_sensors(n_rows, seed=1, machines=2, sensors=3).iloc[:, :5]
    rows.assign(speed_rpm=rows["speed_rpm"] * factor).to_parquet(tmp_path / "rows.parquet")
    config = Config.model_validate(
        {
            "kind": "sensors",
            "source": {"path": str(tmp_path / "rows.parquet")},
            "columns": {"time": "time", "entity": "machine"},
            "series": {"models": "entity", "range_floor": floor},
        }
    )

    told = [check for check in examine(config) if check.place == "series.range_floor"]

    assert len(told) == warned
    assert all(check.found.startswith("'speed_rpm': it moves within") for check in told)
    assert all("or set `series.range_floor` to" in check.advice for check in told)


@pytest.mark.parametrize(("last", "is_told"), [("Total", True), ("X", True), ("A-300", False)])
def test_a_total_below_the_rows_is_named(
    tmp_path: Path, configure: Callable[..., Config], last: str, is_told: bool
) -> None:
    """It has as many fields as a row, and would be learnt from and scored as one."""
    keys = [*(f"A-{n}" for n in range(299)), last]
    pd.DataFrame({"id": keys, "amount": [*range(299), 44_551]}).to_csv(tmp_path / "rows.csv", index=False)
    config = configure(tmp_path, source={"path": "rows.csv"}, columns={"key": "id", "numeric": ["amount"]})

    told = [check for check in examine(config) if check.place == "columns.key" and check.state == "warning"]

    assert [repr(last) in check.found for check in told] == [True] * is_told
