"""What stands for a missing value, declared in `source.formats`: Bad, No Data, -9999."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipelines.config import SourceSection, load_config
from pipelines.config.formats import FormatSection
from pipelines.doctor import examine
from pipelines.doctor.init import init
from pipelines.doctor.missing_words import number_for_none, words_of
from pipelines.sources import open_source
from pipelines.sources.formats import events_with_formats, frame_with_formats, needs_form, with_formats

GONE = FormatSection(missing=["Bad", "No Data", "-9999"])


def plant(n: int, *, decimal: str = ".", units: bool = False) -> pd.DataFrame:
    """A historian's export: a pump by the minute, some readings of two sensors replaced by words."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"at": pd.date_range("2026-03-01", periods=n, freq="1min").astype("str")})
    for name, base in (("flow", 40.0), ("pressure", 6.0), ("heat", 55.0)):
        values = base * (1 + 0.02 * np.sin(np.arange(n) / 60) + 0.004 * rng.normal(size=n))
        frame[name] = [f"{value:.3f}".replace(".", decimal) for value in values]
    frame.loc[100:104, "flow"] = "Bad"
    frame.loc[200:201, "flow"] = "No Data"
    frame.loc[300:309, "heat"] = "I/O Timeout"
    if units:
        frame = pd.concat([pd.DataFrame([{"at": "", "flow": "m³/h", "pressure": "bar", "heat": "°C"}]), frame])
    return frame


@pytest.mark.parametrize("place", ["csv", "jsonl", "parquet", "sql"])
def test_declared_words_and_numbers_are_missing_in_every_source(tmp_path: Path, place: str) -> None:
    """Whatever their case and the form of the number; what is not declared stays, and the source's comma applies."""
    frame = pd.DataFrame({"flow": ["1,5", "bad ", "-9999", "-9999,0", "off"], "level": [1, -9999, 3, 4, 5]})
    formats = {"flow": {"missing": ["Bad", -9999]}, "level": {"missing": [-9999]}}
    section: dict[str, Any] = {"formats": formats, "decimal": ","}
    if place == "sql":
        url = f"sqlite:///{tmp_path}/data.db"
        frame = frame.assign(flow=frame["flow"].str.replace(",", "."))
        frame.to_sql("rows", sa.create_engine(url), index=False)
        section |= {"url": url, "table": "rows", "decimal": "."}
    else:
        path = tmp_path / f"data.{place}"
        section["path"] = str(path)
        match place:
            case "csv":
                frame.to_csv(path, index=False, sep=";")
            case "jsonl":
                frame.to_json(path, orient="records", lines=True)
            case _:
                frame.assign(flow=frame["flow"].str.replace(",", ".")).to_parquet(path)

    read = open_source(SourceSection(**section)).read(numeric=["level"])

    assert [None if pd.isna(each) else each for each in read["flow"]] == ["1.5", None, None, None, "off"]
    assert read["level"].isna().tolist() == [False, True, False, False, False]


def test_typed_columns_lose_what_is_declared_and_keep_their_type() -> None:
    """Numbers, dates that stand for none, and truths, which no word is."""
    late = pd.to_datetime(["2026-01-01", "9999-12-31"])
    table = pa.table(
        {
            "whole": pa.array([1, -9999]),
            "share": pa.array([0.5, -9999.0]),
            "until": pa.array(late).cast(pa.timestamp("us")),
            "zoned": pa.array(late).cast(pa.timestamp("us", tz="Europe/Berlin")),
            "open": pa.array([True, False]),
        }
    )
    form = FormatSection(missing=["Bad", "-9999", "9999-12-31"])

    found = with_formats(table, dict.fromkeys(table.column_names, form))

    assert found.schema == table.schema
    assert [found.column(name).null_count for name in found.column_names] == [1, 1, 1, 1, 0]


def test_events_of_json_lose_them_among_numbers_and_text() -> None:
    """Both ways that rows of several kinds come, and one event alone is known to need a look."""
    rows = pd.DataFrame({"flow": ["Bad", -9999, 1.5, None, "off"]}, dtype=object)

    for read in (frame_with_formats(rows, {"flow": GONE}), events_with_formats(rows, {"flow": GONE})):
        assert [None if pd.isna(each) else each for each in read["flow"]] == [None, None, 1.5, None, "off"]
    assert [needs_form(each, GONE) for each in ("bad", -9999.0, 1.5, "off", None, True)] == [True, True, *[False] * 4]


def test_init_and_doctor_agree_on_words_among_a_sensors_numbers(tmp_path: Path) -> None:
    """Words of one sensor are declared for all, written once; then no row is lost but the line of units."""
    plant(2_000, decimal=",", units=True).to_csv(tmp_path / "plant.csv", index=False, sep=";")

    begun = init(tmp_path / "plant.csv", folder=tmp_path / "project")

    text = begun.file.read_text(encoding="utf-8")
    assert text.count("missing: &missing [Bad, No Data, I/O Timeout]") == 1
    assert text.count("missing: *missing") == 2
    config = load_config(tmp_path / "project")
    assert {tuple(form.missing) for form in config.source.formats.values()} == {("Bad", "No Data", "I/O Timeout")}
    checks = examine(config)
    assert {each.state for each in checks if each.place.startswith("columns")} == {"ok"}
    assert [each.found for each in checks if each.state == "warning"] == ["the first row holds units and no values"]


def test_init_declares_words_of_a_log_of_readings(tmp_path: Path) -> None:
    """One reading a row: its value is missing where a word stands."""
    rows = plant(1_000).melt(id_vars="at", var_name="tag").sort_values("at", kind="stable")
    rows.to_csv(tmp_path / "log.csv", index=False)

    begun = init(tmp_path / "log.csv", folder=tmp_path / "project")

    assert "value: {missing: [I/O Timeout, Bad, No Data]}" in begun.file.read_text(encoding="utf-8")


@pytest.mark.parametrize("none", [-9999, 999.9, -200])
def test_a_number_that_stands_for_none_is_found(tmp_path: Path, none: float) -> None:
    """It is what init declares for sensors, and what doctor asks about in any table."""
    frame = plant(1_000)
    frame.loc[500:520, "pressure"] = str(none)
    frame.to_csv(tmp_path / "plant.csv", index=False)

    config = load_config(init(tmp_path / "plant.csv", folder=tmp_path / "project").file)

    assert {form.missing for form in config.source.formats.values()} == {("Bad", "No Data", str(none), "I/O Timeout")}
    assert not [each for each in examine(config) if each.state != "ok" and each.place.startswith("columns")]
    undeclared = config.model_copy(update={"source": config.source.model_copy(update={"formats": {}})})
    (found,) = [each for each in examine(undeclared) if "again and again" in each.found]
    assert f"{{pressure: {{missing: [{none}]}}}}" in found.advice


@pytest.mark.parametrize(
    "values", [[0.0] * 50 + [40.0, 41.0] * 50, [-5.0] * 3 + [-4.0, 9.0] * 50, [-9999.0, *[1.0] * 50]]
)
def test_a_number_that_may_be_measured_stands_for_itself(values: list[float]) -> None:
    """A machine that is off, a low among others as low, and one that comes once."""
    assert number_for_none(pd.Series(values)) is None


def test_doctor_says_how_a_word_is_declared(tmp_path: Path) -> None:
    """Beside a form as without one; a number in another form is no word."""
    frame = plant(600, decimal=",").assign(pressure="6,1")
    frame.loc[5, "pressure"] = "6.1.1"
    frame.to_csv(tmp_path / "plant.csv", index=False, sep=";")
    (tmp_path / "detector.yaml").write_text(
        "name: plant\nkind: sensors\nsource:\n  path: plant.csv\n  formats:\n    flow: {decimal: ','}\n"
        "    pressure: {decimal: ','}\n    heat: {decimal: ','}\n"
        "columns: {time: at, numeric: [flow, pressure, heat]}\n"
    )

    advice = {each.found: each.advice for each in examine(load_config(tmp_path)) if each.place == "columns.numeric"}

    flow = next(text for found, text in advice.items() if found.startswith("'flow': 1"))
    pressure = next(text for found, text in advice.items() if found.startswith("'pressure': 0"))
    assert "`source.formats: {flow: {missing: [Bad, No Data]}}`" in flow
    assert "another form" in pressure


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1.5", "Bad", "2", "3"], ("Bad",)),
        (["on", "off", "on", "1"], ()),
        (["1", "n/a", "2"], ()),
        (["1", *(f"w{letter}" for letter in "abcdefghi"), *map(str, range(30))], ()),
        ([1.0, 2.0], ()),
    ],
)
def test_words_are_few_and_among_numbers(values: list[Any], words: tuple[str, ...]) -> None:
    """Half the values of a state are words, and text of many kinds is no gap; what is missing anyway needs no word."""
    assert words_of(pd.Series(values)) == words
