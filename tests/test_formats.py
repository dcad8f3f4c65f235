"""Numbers and dates that are written in a declared form."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site, draw
from detector.cleaning.values import read_dates, read_numbers
from detector.errors import SettingError
from pipelines.config import Config, SourceSection, load_config
from pipelines.config.formats import FormatSection
from pipelines.doctor.formats import propose
from pipelines.scoring.one_off import score
from pipelines.sources import open_source
from pipelines.sources.formats import as_written, events_with_formats, frame_with_formats, read_form
from pipelines.training.train import train
from tests.service_sites import score as score_new

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
NOON = dt.datetime(2026, 8, 3, 12, 0)  # noqa: DTZ001 - as columns of times hold it


@pytest.mark.parametrize(
    ("form", "written", "number"),
    [
        ({"thousands": ","}, "1,234.50", 1234.5),
        ({"thousands": ","}, "-1,234,567", -1234567.0),
        ({"thousands": ","}, "12,34,567.8", 1234567.8),
        ({"thousands": ","}, "1234.5", 1234.5),
        ({"thousands": ","}, "1,23", None),
        ({"thousands": ","}, "1.234,50", None),
        ({"thousands": "."}, "1.234,50", 1234.5),
        ({"thousands": "."}, "12.500", 12500.0),
        ({"thousands": "."}, "12.5", None),
        ({"thousands": " ", "decimal": ","}, "1 234\u00a0567,5", 1234567.5),
        ({"thousands": "'"}, "1’234'567.5", 1234567.5),
        ({"decimal": ","}, " 12,5 ", 12.5),
        ({"decimal": ","}, "12.5", None),
        ({"unit": "%"}, "12.5 %", 12.5),
        ({"unit": "%"}, "-7%", -7.0),
        ({"unit": "%"}, "12.5", None),
        ({"unit": "%"}, "12.5 °C", None),
        ({"unit": "$"}, "-$ 12.50", -12.5),
        ({"unit": "$"}, "$12$", None),
        ({"unit": "m3/h"}, "3 m3/h", 3.0),
        ({"unit": "€", "thousands": "."}, "1.234,50 €", 1234.5),
    ],
)
def test_a_number_is_read_in_its_declared_form_only(form: dict[str, Any], written: str, number: float | None) -> None:
    """What fits the form is that number; what does not is refused, even where it could be read otherwise."""
    read, misfit = read_form(pd.Series([written]), FormatSection(**form))

    assert misfit.tolist() == [number is None]
    if number is not None:
        assert read_numbers(read)[0].tolist() == [number]


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (["12 %", "7 %", "100 %"], "as 1234.56 %"),
        (["12,5 %", "7,0 %"], "as 1234,56 %"),
        (["71.3 °C", "-4.0 °C"], "as 1234.56 °C"),
        (["EUR 1.234,50", "EUR 7,00"], "as 1.234,56 EUR"),
        (["3.5 bar", "4 bar"], "as 1234.56 bar"),
        (["12 %", "71.3 °C"], None),
        (["R1", "R12"], None),
        (["001 A", "012 A"], None),
        (["12A", "13A"], None),
        (["5411-A", "5812-A"], None),
    ],
)
def test_a_unit_that_all_values_have_is_proposed(values: list[str], form: str | None) -> None:
    """Percentages were learnt as names, silently; names with one letter in front are no numbers."""
    found = propose(pd.Series(values * 20, name="x"), dates=False)

    assert [each.describe() for each, share in found if share == 1.0] == ([] if form is None else [form])


@pytest.mark.parametrize("unit", ["", "3", "-", "(x)", ","])
def test_a_unit_that_could_be_a_part_of_the_number_is_refused(unit: str) -> None:
    """So that no value has two readings."""
    with pytest.raises(ValueError, match="behind the numbers"):
        FormatSection(unit=unit)


@pytest.mark.parametrize(
    ("form", "written", "moment"),
    [
        ("day first", "03.08.2026 12:00", NOON),
        ("day first", "3/8/2026 12:00:00", NOON),
        ("day first", "08/13/2026", None),
        ("day first", "2026-08-03 12:00", NOON),
        ("month first", "08/03/2026 12:00 PM", NOON),
        ("month first", "08/03/2026 14:00+02:00", NOON),
        ("month first", "08/03/2026 13:00 PM", None),
        ("month first", "13.08.2026", None),
        ("milliseconds", "1785758400000", NOON),
        ("milliseconds", "1785758400000.0", NOON),
        ("seconds", "1785758400", NOON),
        ("seconds", "86400", dt.datetime(1970, 1, 2)),  # noqa: DTZ001
        ("microseconds", "1785758400000000", NOON),
        ("nanoseconds", "1785758400000000000", NOON),
        ("milliseconds", "99999999999999999999", None),
        ("%d.%m.%y %H:%M", "03.08.26 12:00", NOON),
        ("%d.%m.%y %H:%M", "03.08.26", None),
        ("%Y-%d-%m %H:%M", "2026-03-08 12:00", NOON),
        ("%Y-%d-%m %H:%M", "2026-08-13 12:00", None),
        ("%d/%b/%Y:%H:%M:%S %z", "03/Aug/2026:14:00:00 +0200", NOON),
        ("%Y%m%d%H%M%S", "20260803120000", NOON),
        ("%Y%m%d%H%M%S", "1785758400", None),
    ],
)
def test_a_date_is_read_in_its_declared_form_only(form: str, written: str, moment: dt.datetime | None) -> None:
    """Day and month are never swapped to make a value fit."""
    read, misfit = read_form(pd.Series([written]), FormatSection(date=form))

    assert misfit.tolist() == [moment is None]
    if moment is not None:
        assert read_dates(read)[0].tolist() == [pd.Timestamp(moment)]


@pytest.mark.parametrize(
    ("date", "written", "utc"),
    [
        (None, "2026-07-01 10:00:00", "2026-07-01 08:00"),
        (None, "2026-01-01", "2025-12-31 23:00"),
        (None, "2026-07-01T10:00:00Z", "2026-07-01 10:00"),
        (None, "2026-07-01T10:00:00+05:00", "2026-07-01 05:00"),
        (None, "1785751200", "2026-08-03 10:00"),
        (None, "2026-03-29 02:30", "2026-03-29 01:30"),
        (None, "2026-10-25 02:30", "2026-10-25 00:30"),
        (None, "9999-12-31", "9999-12-31 00:00"),
        (None, "yesterday", None),
        ("day first", "01.07.2026 10:00", "2026-07-01 08:00"),
        ("day first", "01-07-2026 10:00 +0200", "2026-07-01 08:00"),
        ("day first", "2026-07-01 10:00", "2026-07-01 08:00"),
        ("%d.%m.%Y %H:%M", "01.01.2026 10:00", "2026-01-01 09:00"),
    ],
)
def test_date_without_a_zone_is_by_the_clock_that_is_named(date: str | None, written: str, utc: str | None) -> None:
    """One that names a zone, or counts from 1970, is that moment; one that was read so is not moved again."""
    form = FormatSection(date=date, timezone="Europe/Berlin")

    read, misfit = read_form(pd.Series([written]), form)

    assert misfit[0] == (utc is None)
    if utc is not None:
        assert read_dates(read)[0][0] == pd.Timestamp(utc)
        assert read_form(read, form)[0][0] == read[0]


@pytest.mark.parametrize("place", ["csv", "parquet", "sql", "api"])
def test_every_door_takes_times_by_the_same_clock(tmp_path: Path, place: str) -> None:
    """Text and typed columns, of files, databases and the API; what has a zone keeps it."""
    formats = {"at": {"timezone": "Europe/Berlin"}}
    frame = pd.DataFrame({"at": pd.to_datetime(["2026-07-01 10:00", "2026-01-01 10:00"])})
    if place == "api":
        given = frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%S").astype(object).to_frame()
        read = events_with_formats(given, {"at": FormatSection(timezone="Europe/Berlin")})
    else:
        section: dict[str, Any] = {"path": str(tmp_path / f"data.{place}")}
        if place == "sql":
            section = {"url": f"sqlite:///{tmp_path}/data.db", "table": "rows"}
            frame.to_sql("rows", sa.create_engine(section["url"]), index=False)
        else:
            frame.to_csv(section["path"], index=False) if place == "csv" else frame.to_parquet(section["path"])
        read = open_source(SourceSection(**section, formats=formats)).read()

    assert read_dates(read["at"])[0].tolist() == [pd.Timestamp("2026-07-01 08:00"), pd.Timestamp("2026-01-01 09:00")]


def test_no_row_of_the_hour_that_clocks_repeat_is_lost(tmp_path: Path, tiny_bundle: Path) -> None:
    """The cursor of a table goes back an hour then; without a time zone only the last minute is looked at again."""
    site = Site(tmp_path / "site", tiny_bundle, "table to files", settings={"cursor": "at"})
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text())
    values["source"]["formats"] = {"at": {"timezone": "Europe/Berlin"}}
    file.write_text(yaml.safe_dump(values))
    engine = sa.create_engine(f"sqlite:///{site.folder}/source.db")
    hour = pd.date_range("2025-10-26 02:00", periods=60, freq="min")
    for first in (0, 60):
        draw(60, first=first, seed=0).assign(at=hour).to_sql("rows", engine, index=False, if_exists="append")
        score_new(site)

    assert sorted(int(key) for key in site.scored().elements()) == list(range(120))


def test_missing_values_stay_missing() -> None:
    """Words for missing fit every form."""
    for form in ({"thousands": "."}, {"date": "day first"}, {"date": "milliseconds"}):
        read, misfit = read_form(pd.Series(["", "NA", None, " null "]), FormatSection(**form))

        assert not misfit.any()
        assert read.fillna("").tolist() == ["", "NA", "", " null "]


@pytest.mark.parametrize(
    ("form", "given", "read"),
    [
        ({"thousands": ".", "decimal": ","}, ["1.234,5", 2.5, None], ["1234.5", 2.5, None]),
        ({"date": "milliseconds"}, [1785758400000, "1785758400000"], ["2026-08-03T12:00:00.000000"] * 2),
        (
            {"date": "day first"},
            ["03.08.2026", dt.date(2026, 8, 3)],
            ["2026-08-03T00:00:00.000000", dt.date(2026, 8, 3)],
        ),
        (
            {"timezone": "Europe/Berlin"},
            ["2026-08-03 14:00", NOON + dt.timedelta(hours=2)],
            ["2026-08-03T12:00:00.000000Z"] * 2,
        ),
    ],
)
def test_a_column_of_text_and_other_values_is_read_value_by_value(
    form: dict[str, Any], given: list[Any], read: list[Any]
) -> None:
    """Messages and sheets have both in one column; such a batch ended in an error of Arrow."""
    frame = pd.DataFrame({"value": given}, index=[7] * len(given), dtype=object)

    found = frame_with_formats(frame, {"value": FormatSection(**form)})

    assert found["value"].tolist() == read


@pytest.mark.parametrize("place", ["csv", "parquet", "sql"])
def test_every_source_reads_the_declared_forms(tmp_path: Path, place: str) -> None:
    """Files and databases alike; a value in another form says which form was wanted; the source's comma applies."""
    frame = pd.DataFrame(
        {"amount": ["1.234,50", "3,10", "12.5"], "fee": ["0,5", "1,5", "2,5"], "at": [1785758400000] * 3}
    )
    section: dict[str, Any] = {"formats": {"amount": {"thousands": "."}, "at": {"date": "milliseconds"}}}
    if place == "sql":
        url = f"sqlite:///{tmp_path}/data.db"
        frame.to_sql("rows", sa.create_engine(url), index=False)
        section |= {"url": url, "table": "rows"}
    else:
        path = tmp_path / f"data.{place}"
        frame.to_csv(path, index=False, sep=";") if place == "csv" else frame.to_parquet(path)
        section |= {"path": str(path), "decimal": ","}

    read = open_source(SourceSection(**section)).read(numeric=["amount", "fee"])

    assert read["amount"].tolist() == ["1234.50", "3.10", "12.5 (not as 1.234,56)"]
    assert as_written(read["amount"][2]) == "12.5"
    assert read_dates(read["at"])[0].tolist() == [pd.Timestamp(NOON)] * 3
    if place == "csv":
        assert read["fee"].tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{thousands: ',', decimal: ','}", "source.formats.amount: `thousands` and `decimal` are both ','"),
        ("{date: yesterday}", "source.formats.amount.date: expected day first, month first, seconds"),
        ("{date: '%H:%M'}", "a form with day, month and year"),
        ("{date: day first, thousands: ','}", "a column holds dates or numbers"),
        ("{}", "expected `thousands`, `decimal`, `unit`, `date`, `timezone` or `missing`"),
        ("{timezone: Europe/Berlin, decimal: ','}", "a column holds dates or numbers"),
        ("{timezone: Europe/Berlin, date: milliseconds}", "milliseconds count from 1970 in UTC"),
        ("{timezone: Berlin}", "source.formats.amount.timezone: "),
        ("{thousand: ','}", "source.formats.amount.thousand: is not a key. Did you mean 'thousands'?"),
        ("{thousands: ';'}", "source.formats.amount.thousands: expected"),
    ],
)
def test_a_form_that_means_nothing_is_refused(tmp_path: Path, form: str, message: str) -> None:
    """With the line, the place and what is known."""
    file = tmp_path / "detector.yaml"
    file.write_text(f"source:\n  path: data.csv\n  formats:\n    amount: {form}\n")

    with pytest.raises(SettingError, match=r"line \d: ") as caught:
        load_config(file)

    assert message in str(caught.value)


def test_declared_forms_are_read_in_training_and_scoring(
    tmp_path: Path, payments: pd.DataFrame, configure: Callable[..., Config]
) -> None:
    """Payments above a thousand are learnt from and scored; without the setting a loss of many is reported."""
    columns = {"key": "transaction_id", "time": "time", "entity": "card_id", "numeric": ["amount"], "others": "ignore"}
    members = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 10}}
    written = payments.assign(
        amount=[f"{60 * value:,.2f}" for value in payments["amount"]],
        time=payments["time"].dt.strftime("%d.%m.%Y %H:%M:%S"),
    )
    written.to_csv(tmp_path / "payments.csv", index=False)
    formats = {"amount": {"thousands": ","}, "time": {"date": "day first"}}
    settings: dict[str, Any] = {"columns": columns, "train": members}

    read = configure(tmp_path, source={"path": "payments.csv", "formats": formats}, **settings)
    whole, scored = train(read, now=NOW), score(read, now=NOW)
    only = {"time": {"date": "day first"}}
    lossy = train(configure(tmp_path, source={"path": "payments.csv", "formats": only}, **settings), now=NOW)

    assert whole.quarantined == scored.quarantined == 0
    assert pd.read_parquet(scored.output)["time"].tolist() == payments["time"].dt.floor("s").tolist()
    assert lossy.quarantined > 100
    assert any("amount: not a number" in note and "detector doctor" in note for note in lossy.notes)


def test_service_reads_the_declared_forms(tmp_path: Path, tiny_bundle: Path) -> None:
    """Files that come in and rows of a table alike, also where the formatted column is the one that grows."""
    found = {}
    for way in ("files to files", "table to files"):
        site = Site(tmp_path / way[:5], tiny_bundle, way, settings={"cursor": "at"})
        rows = draw(20, first=0, seed=0)
        at = (rows["at"] - pd.Timestamp(0)) // pd.Timedelta(milliseconds=1)
        rows = rows.assign(at=at, amount=[f"1.0{value:05.2f}".replace(".", "~") for value in rows["amount"]])
        rows["amount"] = rows["amount"].str.replace("~", ".", n=1).str.replace("~", ",")
        if way.startswith("files"):
            rows.to_csv(site.input / "a.csv", index=False)
        else:
            rows.to_sql("rows", sa.create_engine(f"sqlite:///{site.folder}/source.db"), index=False)
        file = site.folder / "detector.yaml"
        formats = {"at": {"date": "milliseconds"}, "amount": {"thousands": "."}}
        values = yaml.safe_load(file.read_text())
        values["source"]["formats"] = formats
        file.write_text(yaml.safe_dump(values))

        found[way] = score_new(site)

    assert [(outcome.rows, outcome.facts["quarantined"]) for outcome in found.values()] == [(20, 0), (20, 0)]
