"""`detector init FILE`: what a file is taken for, and a configuration that works as it is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from detector.errors import SchemaError, SourceError
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.doctor import examine
from pipelines.doctor.init import init
from pipelines.doctor.proposal import proposal_of
from pipelines.simulate import simulate_sensors, simulate_transactions


def parts(frame: pd.DataFrame) -> dict[str, str]:
    return {choice.column: choice.part for choice in proposal_of(frame).choices}


def test_payments_are_recognised() -> None:
    """Key, time, card and label; what is filled in after an investigation is left out, with the reason."""
    found = proposal_of(simulate_transactions(3_000, seed=2))

    assert found.kind == "table"
    assert {role: found.role(role) for role in ("key", "time", "entity", "label")} == {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
    }
    assert [each.column for each in found.named("ignore")] == ["device", "scenario", "reported_at"]
    assert "that one is new of card_id is a feature" in found.named("ignore")[0].why
    assert "filled in where is_fraud is 1" in found.named("ignore")[1].why
    assert "features.reported" in found.named("ignore")[2].check
    assert found.amount == "amount"
    assert {"channel", "merchant_category", "terminal_id"} <= {each.column for each in found.named("categorical")}


def test_codes_of_many_things_are_counted_and_are_no_numbers(tmp_path: Path) -> None:
    """A terminal's number means nothing as an amount; how often it comes does. The window fits the rows' reach."""
    rng = np.random.default_rng(0)
    when = pd.date_range("2026-01-01", periods=4_000, freq="15min")
    rows = pd.DataFrame({"no": range(4_000), "booked_at": when, "amount": rng.gamma(2, 20, 4_000).round(2)})
    rows = rows.assign(customer_id=rng.integers(0, 900, 4_000), terminal_id=rng.integers(0, 1_500, 4_000))
    file = tmp_path / "rows.csv"
    rows.to_csv(file, index=False)

    begun = init(file, folder=tmp_path)

    assert [each.column for each in begun.proposal.named("numeric")] == ["amount"]
    assert [each.column for each in begun.proposal.named("ignore")] == ["terminal_id"]
    config = load_config(tmp_path)
    assert config.features is not None
    assert list(config.features.history) == [
        "count by customer_id over 1h, 1d",
        "count by terminal_id over 1h, 1d",
        "ratio of amount by customer_id over 7d",
    ]


def test_events_of_days_are_not_counted_by_the_hour(tmp_path: Path) -> None:
    """Without a clock, all events of a day are of the same hour."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 90, 900)), unit="D")
    rows = pd.DataFrame(
        {"claim_id": range(900), "claimed_at": days.strftime("%d.%m.%Y"), "amount": rng.gamma(2, 20, 900)}
    )
    rows.assign(customer_id=rng.integers(0, 90, 900)).to_csv(tmp_path / "rows.csv", index=False)

    init(tmp_path / "rows.csv", folder=tmp_path)

    assert load_config(tmp_path).features.history[0] == "count by customer_id over 1d, 7d"


def test_german_names_of_labels_and_accounts_are_known() -> None:
    """What is known of fraud is nothing to learn from, and alerts are about an account."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "Umsatz-Nr.": [f"U{n:04d}" for n in range(600)],
            "Buchungstag": pd.date_range("2026-01-01", periods=600, freq="h").strftime("%d.%m.%Y %H:%M"),
            "Konto": rng.choice([f"DE{n:04d}" for n in range(40)], 600),
            "Betrag": [f"{x:.2f}".replace(".", ",") for x in rng.lognormal(3, 1, 600)],
            "Betrug": (rng.random(600) < 0.02).astype(int),
        }
    )

    found = proposal_of(frame)

    assert (found.role("label"), found.role("entity"), found.amount) == ("Betrug", "Konto", "Betrag")


def test_readings_of_machines_are_recognised() -> None:
    """Numbers in regular steps, a row a machine and minute."""
    found = proposal_of(simulate_sensors(3_000, seed=1, machines=3, sensors=5))

    assert (found.kind, found.role("time"), found.role("entity"), found.role("key")) == (
        "sensors",
        "time",
        "machine",
        None,
    )
    assert found.why == "5 columns of numbers, a row every 1 min"
    assert [each.column for each in found.named("ignore")] == ["anomaly_kind", "anomaly_sensor"]


def test_readings_of_machines_are_recognised_whatever_the_column_is_called() -> None:
    """A German export names machines in a column of its own, and days first."""
    rows = simulate_sensors(3_000, seed=1, machines=3, sensors=5)
    sensors = list(rows.columns[2:7])
    frame = pd.DataFrame(
        {"Zeit": pd.to_datetime(rows["time"]).dt.strftime("%d.%m.%Y %H:%M:%S"), "Bez.": rows["machine"]}
    )
    frame = frame.assign(**{name: rows[name] for name in sensors})

    found = proposal_of(frame)

    assert (found.kind, found.role("time"), found.role("entity")) == ("sensors", "Zeit", "Bez.")


def test_one_reading_a_row_is_said_to_belong_into_columns() -> None:
    """As a table, the values of all sensors would be one column of numbers that mean different things."""
    when = pd.date_range("2026-01-01", periods=200, freq="30s").astype(str)
    values = np.random.default_rng(0).normal([5, 40, 7, 90], 1, (200, 4))
    wide = pd.DataFrame(values, columns=list("abcd")).assign(time=when, machine=["m", "n"] * 100)
    rows = wide.melt(["time", "machine"], var_name="what", value_name="value")

    found = proposal_of(rows)

    (value,) = found.named("numeric")
    assert "one reading a row, every 1 min" in value.check
    assert "pivot_table(index=['time', 'machine'], columns='what', values='value')" in value.check
    shuffled = rows.assign(time=np.random.default_rng(1).permutation(rows["time"].to_numpy()))
    assert proposal_of(shuffled).named("numeric")[0].check == ""


def test_text_beside_sensors_is_left_out_with_a_word(tmp_path: Path) -> None:
    """Training refuses sensors that are text; a mode, an operator and a name of a product say nothing to it."""
    count = 1_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=count, freq="min")})
    frame = frame.assign(pressure=rng.normal(7, 1, count).round(2), status_code=rng.choice([0, 3, 17], count))
    for name, words in {"mode": ["LOAD", "IDLE"], "pump": ["On", "Off"], "by": ["Ida", "Max"]}.items():
        frame[name] = rng.choice(words, count)
    frame["heat"] = rng.integers(60, 64, count)
    frame["recipe"], frame["serviced"] = rng.choice(["P1", "P2"], count), "2026-01-0" + frame["time"].dt.day.astype(str)
    frame.to_csv(tmp_path / "rows.csv", index=False)

    found = init(tmp_path / "rows.csv", folder=tmp_path).proposal

    assert found.kind == "sensors"
    assert {each.column: each.part for each in found.choices} == {
        "time": "time",
        "pressure": "numeric",
        "status_code": "numeric",
        "mode": "ignore",
        "pump": "boolean",
        "by": "ignore",
        "heat": "numeric",
        "recipe": "ignore",
        "serviced": "ignore",
    }
    assert "nothing is learnt from it" in next(each.check for each in found.choices if each.column == "mode")
    assert [check for check in examine(load_config(tmp_path)) if check.state == "problem"] == []


@pytest.mark.parametrize("key", ["id", "uuid"])
def test_rows_that_a_clock_makes_are_readings_though_a_database_numbered_them(key: str) -> None:
    """Nobody pays every fifteen minutes to the second; of whole numbers, too."""
    when = pd.date_range("2026-01-01", periods=600, freq="15min")
    rng = np.random.default_rng(0)
    names = [f"{n:x}" for n in rng.integers(0, 2**60, 600)] if key == "uuid" else range(600)
    frame = pd.DataFrame({key: names, "time": when, "power": rng.normal(20, 3, 600).round(1)})
    frame = frame.assign(co2=rng.integers(400, 900, 600))

    found = proposal_of(frame)

    assert (found.kind, found.role("key")) == ("sensors", None)


def test_a_meter_is_proposed_as_a_counter(tmp_path: Path) -> None:
    """Where it stands was never learnt; it began anew at 5,000, and stands elsewhere for each building."""
    rng = np.random.default_rng(0)
    houses = []
    for name, start in (("north", 4_000), ("south", 90)):
        frame = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=900, freq="15min"), "building": name})
        used = rng.gamma(2, 2, 900)
        houses.append(frame.assign(power=(used * 4).round(1), energy=((start + used.cumsum()) % 5_000).round(1)))
    pd.concat(houses).sort_values("time", kind="stable").to_csv(tmp_path / "rows.csv", index=False)

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    config = load_config(tmp_path)
    assert (config.columns.entity, config.series.sampling.counters) == ("building", ("energy",))
    assert config.columns.names["energy"].name == "energy (added)"
    assert any("a meter" in choice.check for choice in begun.proposal.choices)
    assert [check for check in examine(config) if check.state != "ok" and "counter" in check.found] == []


@pytest.mark.parametrize(("days", "quantile"), [(2, 0.99), (20, 0.999)])
def test_two_days_of_readings_are_enough_to_begin(days: int, quantile: float, tmp_path: Path) -> None:
    """A quantile that no row can pass is not proposed, and what is kept apart for the review is a window at least."""
    count = days * 96
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": pd.date_range("2026-01-01", periods=count, freq="15min")})
    frame = frame.assign(power=rng.normal(20, 2, count).round(1), heat=rng.normal(50, 1, count).round(1))
    frame.to_csv(tmp_path / "rows.csv", index=False)

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    config = load_config(tmp_path)
    assert config.policy.quantile == quantile
    bad = [str(check) for check in examine(config) if check.state == "problem" or check.place == "policy.quantile"]
    assert bad == []
    assert "when 74 to 102 (18 h 30 min to 25 h 30 min) have come after it" in " ".join(begun.notes)


@pytest.mark.parametrize(
    ("form", "asks"), [("%Y-%m-%d %H:%M", True), ("%Y-%m-%dT%H:%MZ", False), ("%d.%m.%Y %H:%M", True)]
)
def test_whose_clock_tells_readings_is_asked_where_no_zone_is_named(form: str, asks: bool) -> None:
    """Summer time ends long after the first training; what reads days first goes on to."""
    when = pd.date_range("2026-01-20", periods=400, freq="15min")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": when.strftime(form), "a": rng.normal(5, 1, 400), "b": rng.normal(9, 1, 400)})

    (time,) = proposal_of(frame).named("time")

    assert ("timezone: Europe/Berlin}}`" in time.check) == asks
    assert ("{time: {date: day first, timezone" in time.check) == form.startswith("%d")


def test_a_line_of_units_below_the_header_gives_the_units(tmp_path: Path) -> None:
    """It is no row: forms are read without it, reasons have its units, and where it goes is said."""
    when = pd.date_range("2026-01-01", periods=700, freq="15min")
    rng = np.random.default_rng(0)
    heat, wet = (rng.normal(level, 1, 700).round(1) for level in (20, 40))
    rows = [
        f"{time:%d.%m.%Y %H:%M};{f'{a:.1f};{b:.1f}'.replace('.', ',')};Auto"
        for time, a, b in zip(when, heat, wet, strict=True)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["Zeit;Vorlauf;Feuchte;Status", ";°C;%rF;", *rows]), encoding="utf-8")

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    config = load_config(tmp_path)
    assert {name: given.unit for name, given in config.columns.names.items()} == {"Vorlauf": "°C", "Feuchte": "%rF"}
    assert next(each.why for each in begun.proposal.choices if each.column == "Vorlauf").startswith("100 %")
    assert any("holds units (°C, %rF)" in note for note in begun.notes)
    assert [check for check in examine(config) if check.state == "problem"] == []


def test_readings_at_uneven_times_are_put_on_steps(tmp_path: Path) -> None:
    """A row is written when one of two sensors changes, and holds only that one."""
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.cumsum(rng.choice([60, 500, 4_000], 3_000)), unit="s")
    heat, flow = (10 + np.sin(np.arange(3_000) / wave) + rng.normal(0, 0.02, 3_000) for wave in (40, 90))
    frame = pd.DataFrame({"time": when, "heat": heat.round(2), "flow": flow.round(2)})
    is_heat = rng.random(3_000) < 0.5
    frame.loc[is_heat, "flow"], frame.loc[~is_heat, "heat"] = np.nan, np.nan
    frame.to_csv(tmp_path / "rows.csv", index=False)

    init(tmp_path / "rows.csv", folder=tmp_path)

    config = load_config(tmp_path)
    sampling = config.series.sampling
    assert (config.kind, sampling.align, sampling.missing) == ("sensors", "last", "previous")
    assert sampling.every is not None
    assert sampling.limit * pd.Timedelta(sampling.every) > frame["time"].diff().max()
    assert [check for check in examine(config) if check.state == "problem"] == []


@pytest.mark.parametrize("written", ["by the clock", "on change"])
def test_one_reading_a_row_is_of_a_sensor_that_stands_for_itself(written: str, tmp_path: Path) -> None:
    """A log of points has a model each; one that is written on change holds the last value until the next one."""
    rng = np.random.default_rng(0)
    count = 1_500
    steps = np.full(count, 900) if written == "by the clock" else rng.choice([60, 500, 4_000], count)
    points = []
    for name, level in (("hall.temperature", 20), ("hall.co2", 600)):
        when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.cumsum(steps), unit="s")
        value = (level * (1 + 0.1 * np.sin(np.arange(count) / 30)) + rng.normal(0, 0.1, count)).round(1)
        points.append(pd.DataFrame({"id": range(count), "time": when, "point": name, "value": value, "ok": "Good"}))
    rows = pd.concat(points).sort_values("time", kind="stable").assign(id=range(2 * count))
    rows.loc[rows.index[5], "ok"] = "Bad"
    rows.to_csv(tmp_path / "log.csv", index=False)

    found = init(tmp_path / "log.csv", folder=tmp_path).proposal

    config = load_config(tmp_path)
    sampling = config.series.sampling
    assert (config.kind, config.columns.entity, config.series.models) == ("sensors", "point", "entity")
    assert "each row is one reading of one point" in found.why
    assert (sampling.align, sampling.missing) == (("last", "previous") if written == "on change" else ("steps", "mask"))
    assert [check for check in examine(config) if check.state == "problem"] == []


@pytest.mark.parametrize("shape", ["payments", "meters of machines"])
def test_one_number_a_row_is_no_log_where_rows_do_not_follow_on(shape: str) -> None:
    """Amounts by shop are drawn anew for each row; and no name alone says whose reading it is."""
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.cumsum(rng.integers(1, 900, 1_000)), unit="s")
    amount = rng.gamma(2, 20, 1_000).round(2)
    drift = (np.sin(np.arange(1_000) / 50) + 5).round(3)
    frame = pd.DataFrame({"time": when, "place": rng.choice(["a", "b"], 1_000), "what": rng.choice(["x", "y"], 1_000)})
    frame = frame.drop(columns="what").assign(amount=amount) if shape == "payments" else frame.assign(value=drift)

    assert proposal_of(frame).kind == "table"


@pytest.mark.parametrize(("form", "point"), [("{:.2f} °C", "."), ("{:.2f}", ","), ("{:.2f}", ".")])
def test_readings_are_recognised_however_numbers_are_written(form: str, point: str) -> None:
    """A German export of sensors is no table of payments, and a pump's pressure is not the name of a pump."""
    rows = simulate_sensors(3_000, seed=1, machines=3, sensors=5)
    sensors = list(rows.columns[2:7])
    frame = pd.DataFrame({"time": rows["time"].astype(str), "pump": rows["machine"]})
    for name in sensors:
        text = rows[name].map(form.format, na_action="ignore")
        frame[f"{name} of pump"] = text.str.replace(".", point)

    found = proposal_of(frame)

    assert (found.kind, found.role("entity")) == ("sensors", "pump")
    assert [choice.part for choice in found.choices] == ["time", "entity", *["numeric"] * 5]


@pytest.mark.parametrize(("steps", "kind"), [("regular", "sensors"), ("random", "table")])
def test_a_single_sensor_in_regular_steps_is_one(steps: str, kind: str) -> None:
    """A thermometer's rows follow each other; of payments at any time each stands for itself."""
    rng = np.random.default_rng(0)
    seconds = np.arange(1_000) * 300.0 if steps == "regular" else rng.uniform(0, 300_000, 1_000)
    when = pd.Timestamp("2026-04-01") + pd.to_timedelta(np.sort(seconds).round(), unit="s")

    found = proposal_of(pd.DataFrame({"time": when, "temperature": rng.normal(-20, 1, 1_000).round(1)}))

    assert (found.kind, found.role("entity")) == (kind, None)


@pytest.mark.parametrize("missing", [None, "", "NaN", "n/a"])
def test_a_missing_value_is_no_other_value(missing: str | None) -> None:
    """However it is written: a constant stays one, and a column of nothing holds nothing."""
    frame = pd.DataFrame({"id": range(100), "cores": ["8", *[missing] * 3] * 25, "host": [missing, None] * 50})

    choices = {choice.column: choice for choice in proposal_of(frame).choices}

    assert (choices["cores"].part, choices["cores"].why) == ("ignore", "it is missing or '8'")
    assert (choices["host"].part, choices["host"].why) == ("ignore", "it is always missing")


@pytest.mark.parametrize("together", [True, False])
def test_files_of_the_same_time_are_each_of_a_machine(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uneven seconds are regular enough; files one after the other are of one machine."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "rows").mkdir()
    for place, name in enumerate(("press-1", "press-2")):
        start = pd.Timestamp("2026-04-01") + pd.Timedelta(days=0 if together else 3 * place)
        when = start + pd.to_timedelta(np.arange(600) * 300 + rng.integers(0, 40, 600), unit="s")
        frame = pd.DataFrame({"time": when, "flow": rng.normal(5, 1, 600), "heat": rng.normal(40, 2, 600)})
        frame.to_csv(tmp_path / "rows" / f"{name}.csv", index=False)

    result = CliRunner().invoke(app, ["init", "rows"])

    assert result.exit_code == 0, result.output
    assert "sensors, because 2 columns of numbers, a row about every 5 min" in result.output
    config = load_config(tmp_path)
    expected = ("machine", "filename") if together else (None, None)
    assert (config.columns.entity, config.columns.entity_from) == expected
    assert [check for check in examine(config) if check.state == "problem"] == []


@pytest.mark.parametrize(
    ("machines", "rows", "models"), [(3, 2_500, "entity"), (3, 1_200, "shared"), (15, 2_500, "shared")]
)
@pytest.mark.parametrize("apart", [False, True], ids=["one file", "a file each"])
def test_machines_with_rows_enough_have_models_of_their_own(
    machines: int, rows: int, models: str, apart: bool, tmp_path: Path
) -> None:
    """Buildings of 18 and of 55 kW are not alike; few rows, or many machines, share a model."""
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-04-01") + pd.to_timedelta(np.arange(rows), unit="min")
    each = [
        pd.DataFrame(
            {"time": when, "machine": f"m{m}", "flow": rng.normal(5, 1, rows), "heat": rng.normal(40, 2, rows)}
        )
        for m in range(machines)
    ]
    (tmp_path / "rows").mkdir()
    for place, frame in enumerate(each if apart else [pd.concat(each).sort_values("time", kind="stable")]):
        frame.to_csv(tmp_path / "rows" / f"m{place}.csv", index=False)

    init(tmp_path / "rows", folder=tmp_path)

    assert load_config(tmp_path).series.models == models


@pytest.mark.parametrize("names", [("P1", "P2"), (7, 8)], ids=["text", "numbers"])
def test_a_column_that_is_another_in_each_file_names_the_machine(names: tuple[object, object], tmp_path: Path) -> None:
    """Files that come later may hold all machines, or be named otherwise; what is constant is no name."""
    rng = np.random.default_rng(0)
    (tmp_path / "rows").mkdir()
    for place, name in enumerate(names):
        when = pd.Timestamp("2026-04-01") + pd.to_timedelta(np.arange(600), unit="min")
        frame = pd.DataFrame({"time": when, "volts": 400 + 10 * place, "site": "north", "pump": name})
        frame = frame.assign(flow=rng.normal(5, 1, 600), heat=rng.normal(40, 2, 600))
        frame.to_csv(tmp_path / "rows" / f"export-{place}.csv", index=False)

    found = init(tmp_path / "rows", folder=tmp_path).proposal

    assert (found.role("entity"), found.entity_from) == ("pump", None)
    assert {each.column for each in found.named("ignore")} == {"site"}
    config = load_config(tmp_path)
    assert (config.columns.entity, config.series.models) == ("pump", "shared")
    assert [check for check in examine(config) if check.state == "problem"] == []


def test_a_windows_file_is_read_and_its_encoding_written(tmp_path: Path) -> None:
    """A bank's export is seldom utf-8: its encoding is proposed, to be checked; lines that are no rows are counted."""
    lines = ["Nr;Betrag;Empfänger", *(f"{n};{n % 7},50;Bäcker {n % 3}" for n in range(300)), "Summe"]
    (tmp_path / "rows.csv").write_bytes("\n".join(lines).encode("cp1252"))

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    assert load_config(tmp_path).source.encoding == "cp1252"
    assert begun.proposal.role("key") == "Nr"
    assert "not utf-8, and is read as cp1252" in begun.notes[0]
    assert "1 line cannot be read as rows" in begun.notes[1]
    (tmp_path / "rows.csv").write_bytes(b"Nr;Betrag\n1;\x81\xff")
    with pytest.raises(SourceError, match=r"not text in utf-8: line 2 holds the byte 0x81"):
        init(tmp_path / "rows.csv", folder=tmp_path, force=True)


def test_a_title_above_the_header_is_skipped(tmp_path: Path) -> None:
    """A report's title and the account it is of stand above its header; `doctor` finds it where nobody set the line."""
    lines = [
        "Report of November",
        ";Account:;DE00",
        "",
        "Nr;Amount;Shop",
        *(f"{n};{n % 7},50;s{n % 3}" for n in range(300)),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines))

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    assert load_config(tmp_path).source.header == 4
    assert [choice.column for choice in begun.proposal.choices] == ["Nr", "Amount", "Shop"]
    assert begun.notes == ("source.header: line 4 names the columns; the 3 lines above it are skipped, in every file",)
    checks = examine(load_config(tmp_path))
    assert not [check for check in checks if check.place == "source.header" or check.state == "problem"]

    (tmp_path / "detector.yaml").write_text((tmp_path / "detector.yaml").read_text().replace("  header: 4", "#"))
    (found,) = (check for check in examine(load_config(tmp_path)) if check.place == "source.header")
    assert (found.state, found.advice) == ("warning", "If so, write `header: 4` below `source`.")


def test_a_running_number_names_the_row_and_is_not_learnt() -> None:
    """Numbers to come lie beyond all that was seen; a text of many words is no better name."""
    texts = [f"please help with printer {n}" for n in range(100)]
    frame = pd.DataFrame({"line": range(7, 107), "ticket": range(5_000, 5_300, 3), "text": texts, "age": [30, 31] * 50})

    found = proposal_of(frame)

    assert {choice.column: choice.part for choice in found.choices} == {
        "line": "key",
        "ticket": "ignore",
        "text": "ignore",
        "age": "numeric",
    }


@pytest.mark.parametrize(
    ("name", "many", "part"),
    [("shop", 3, "categorical"), ("shop", 40, "entity"), ("customer", 3, "entity"), ("account_type", 3, "categorical")],
)
def test_a_few_things_are_names_to_learn(name: str, many: int, part: str) -> None:
    """Which of three shops it was belongs to a row; who the customer was does not, however few there are."""
    frame = pd.DataFrame({"amount": [n / 7 for n in range(400)], name: [f"n{n * 7 % many}" for n in range(400)]})
    assert proposal_of(frame).choices[1].part == part


def test_comments_that_few_rows_have_are_ignored() -> None:
    """Each is another one: there is nothing to learn from which it is."""
    comments = [f"dinner with client {n}" if n % 3 == 0 else None for n in range(600)]
    found = proposal_of(pd.DataFrame({"amount": [n / 7 for n in range(600)], "comment": comments}))
    assert found.choices[1].part == "ignore"


def test_amounts_of_several_currencies_are_compared_apart(tmp_path: Path) -> None:
    rows = simulate_transactions(900, seed=3)[["transaction_id", "time", "card_id", "amount"]]
    rows.assign(currency=["EUR", "EUR", "SEK"] * 300).to_csv(tmp_path / "rows.csv", index=False)

    init(tmp_path / "rows.csv", folder=tmp_path)

    features = load_config(tmp_path).features
    assert (features.currency, features.mixed) == ("currency", "apart")


def test_an_account_that_a_supplier_never_had_is_a_feature(tmp_path: Path) -> None:
    """Who diverts payments changes the account: bookkeeping's words for parties, amounts and codes are known."""
    rng = np.random.default_rng(0)
    supplier = rng.integers(0, 80, 2_000)
    rows = pd.DataFrame(
        {
            "Rechnung": [f"R{n}" for n in range(2_000)],
            "Datum": pd.date_range("2026-01-01", periods=2_000, freq="3h").strftime("%d.%m.%Y"),
            "Lieferant": [f"L{n}" for n in supplier],
            "IBAN": [f"DE{n:020d}" for n in supplier],
            "Netto": rng.lognormal(6, 1, 2_000).round(2),
            "Kostenstelle": 4_000 + supplier % 9,
        }
    )
    rows.to_csv(tmp_path / "rows.csv", index=False)

    found = init(tmp_path / "rows.csv", folder=tmp_path).proposal

    features = load_config(tmp_path).features
    assert (found.role("entity"), found.amount, features.amount) == ("Lieferant", "Netto", "Netto")
    assert "Kostenstelle" in [choice.column for choice in found.named("categorical")]
    assert "new of IBAN by Lieferant over 45d" in features.history
    (account,) = (choice for choice in found.choices if choice.column == "IBAN")
    assert (account.part, account.why.partition("that ")[2]) == ("ignore", "one is new of Lieferant is a feature below")


def test_columns_of_a_wide_table_share_a_line(tmp_path: Path) -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 60)), columns=[f"x{n}" for n in range(60)])
    rows.assign(shop=["a", "b"] * 25).to_csv(tmp_path / "rows.csv", index=False)

    shown = CliRunner().invoke(app, ["init", str(tmp_path / "rows.csv"), "--folder", str(tmp_path / "wide")]).output

    assert "x0 … x59" in shown
    assert "of 60 columns" in shown
    assert "x30" not in shown
    assert "x30" in (tmp_path / "wide" / "detector.yaml").read_text()


def test_results_do_not_go_among_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of rows, `detector init .` would make the scores a part of the source."""
    simulate_transactions(100, seed=2).to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["init", "."])

    assert result.exit_code == 2
    assert "results must not lie among them. Name another folder with --folder" in result.output
    assert not (tmp_path / "detector.yaml").exists()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([f"{n:,}.50" for n in range(900, 1_900)], "numeric"),
        ([10_000 + n % 40 for n in range(1_000)], "categorical"),
        ([f"customer writes {n}" for n in range(1_000)], "ignore"),
        (["same"] * 1_000, "categorical"),
        ([None] * 1_000, "ignore"),
        ([n * 37 % 1_000 / 7 for n in range(1_000)], "numeric"),
        ([True, False] * 500, "boolean"),
        ([f"{n % 40 * 50_021:08d}" for n in range(1_000)], "categorical"),
        ([f"{n * 10_007:08d}" for n in range(1_000)], "ignore"),
    ],
    ids=["separated thousands", "codes", "free text", "constant", "empty", "numbers", "flags", "padded", "many padded"],
)
def test_a_column_is_taken_for_what_it_is(values: list[object], part: str) -> None:
    """By its values and, for codes, its name."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"no": rng.permutation(1_000), "zip_code": values})

    assert parts(frame) == {"no": "key", "zip_code": part}


def test_a_bank_s_export_with_repeats_and_a_total_has_its_key_and_no_numbers_of_codes() -> None:
    """A number that names a payment, or an account with leading zeros, is nothing to learn sizes from."""
    frame = pd.DataFrame(
        {
            "Buchungs-Nr.": [f"{n:010d}" for n in range(1_000)],
            "Konto": [f"{n % 30 * 77:08d}" for n in range(1_000)],
            "Betrag (€)": [f"{n % 90},50" for n in range(1_000)],
        }
    )
    total = pd.DataFrame({"Buchungs-Nr.": ["Summe"], "Betrag (€)": ["44.550,00"]})
    frame = pd.concat([frame, frame.iloc[[5, 77]], total], ignore_index=True)

    found = proposal_of(frame)

    assert {choice.column: choice.part for choice in found.choices} == {
        "Buchungs-Nr.": "key",
        "Konto": "entity",
        "Betrag (€)": "numeric",
    }
    assert "2 rows repeat it or have none" in found.named("key")[0].check


@pytest.mark.parametrize(("copies", "part"), [(30, "key"), (300, "ignore")])
def test_rows_that_are_there_twice_do_not_hide_the_key(copies: int, part: str) -> None:
    """An export that has some rows again still has its key; where most are there again it may count anything."""
    frame = pd.DataFrame({"Schaden-Nr": [f"{n:05d}" for n in range(300)], "Betrag": [n * 1.5 for n in range(300)]})

    assert parts(pd.concat([frame, frame.tail(copies)], ignore_index=True))["Schaden-Nr"] == part


def test_a_form_is_proposed_and_a_doubtful_one_is_to_be_checked() -> None:
    """Days that could be months are said to be."""
    frame = pd.DataFrame(
        {
            "ref": [f"R{n}" for n in range(60)],
            "booked": ["03.04.2026", "05.06.2026", "07.08.2026"] * 20,
            "price": ["1.234,50", "12,00", "7,25"] * 20,
        }
    )

    choices = {choice.column: choice for choice in proposal_of(frame).choices}

    time, price = choices["booked"], choices["price"]
    assert (time.part, price.part) == ("time", "numeric")
    assert time.form is not None
    assert price.form is not None
    assert (time.form.date, price.form.describe()) == ("day first", "as 1.234,56")
    assert "month first too, such as '03.04.2026'" in time.check


def test_nothing_to_look_at() -> None:
    """A file without rows proposes nothing."""
    with pytest.raises(SchemaError, match="no rows"):
        proposal_of(pd.DataFrame({"a": []}))


@pytest.mark.parametrize("kind", ["payments", "machines", "european", "odd names"])
def test_what_is_written_works(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration loads, and the doctor finds no problem in it."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows 1.csv"
    if kind == "payments":
        simulate_transactions(3_000, seed=2).to_csv(file, index=False)
    elif kind == "machines":
        simulate_sensors(3_000, seed=1, machines=2, sensors=4).to_csv(file, index=False)
    elif kind == "european":
        rows = simulate_transactions(2_000, seed=2)
        dates = rows["time"].dt.strftime("%d.%m.%Y %H:%M")
        rows.assign(time=dates, amount=rows["amount"].map(lambda v: f"{v:.2f}".replace(".", ","))).to_csv(
            file, index=False, sep=";"
        )
    else:
        rows = simulate_transactions(2_000, seed=2)
        rows.rename(columns={"amount": "Amount: €", "card_id": "card #", "channel": "yes", "time": "# time"}).to_csv(
            file, index=False
        )

    result = CliRunner().invoke(app, ["init", str(file)])

    assert result.exit_code == 0, result.output
    assert "Then: detector doctor, detector train, detector score" in result.output
    config = load_config(tmp_path)
    assert config.kind == ("sensors" if kind == "machines" else "table")
    problems = [check for check in examine(config) if check.state == "problem"]
    assert problems == []


def test_init_replaces_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that is there stays; another folder, and JSON, are asked for."""
    monkeypatch.chdir(tmp_path)
    simulate_transactions(500, seed=2).to_parquet("payments.parquet")
    Path("detector.yaml").write_text("mine")

    refused = CliRunner().invoke(app, ["init", "payments.parquet"])
    made = CliRunner().invoke(app, ["init", "payments.parquet", "--folder", "new", "--json"])
    lost = CliRunner().invoke(app, ["init", "paymnts.csv"])

    assert refused.exit_code == 2
    assert "is there already. Name another folder with --folder" in " ".join(refused.output.split())
    assert Path("detector.yaml").read_text() == "mine"
    assert json.loads(made.stdout)["file"] == "new/detector.yaml"
    assert load_config(Path("new")).source.path == str(tmp_path / "payments.parquet")
    assert (lost.exit_code, Path("paymnts.csv").exists()) == (2, False)


@pytest.mark.parametrize(
    ("form", "written", "expected"),
    [
        ("%Y%m%d%H%M%S", None, "%Y%m%d%H%M%S"),
        ("%Y%m%d%H%M", None, "%Y%m%d%H%M"),
        ("%d/%b/%Y:%H:%M:%S +0200", None, "%d/%b/%Y:%H:%M:%S %z"),
        ("%a, %d %b %Y %H:%M:%S +0000", None, "%a, %d %b %Y %H:%M:%S %z"),
        ("%Y%m%dT%H%M%SZ", None, "%Y%m%dT%H%M%S%z"),
        ("%Y%m%d", None, None),
        (None, 1, None),
        (None, 1_000, "milliseconds"),
    ],
)
def test_times_of_logs_and_stamps_are_those_of_their_year(
    form: str | None, written: int | None, expected: str | None, tmp_path: Path
) -> None:
    """A stamp of digits is no count from 1970, which would lie in the year 2612, and seconds are no stamp of 1767."""
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-06-29") + pd.to_timedelta(np.sort(rng.integers(0, 9e6, 900)), unit="s")
    text = when.strftime(form) if form else ((when - pd.Timestamp(0)) // pd.Timedelta(seconds=1) * written).astype(str)
    rows = pd.DataFrame({"start_time": text, "cell": rng.choice(list("abc"), 900), "cost": rng.gamma(2, 3, 900)})
    rows.to_csv(tmp_path / "rows.csv", index=False)

    (time,) = init(tmp_path / "rows.csv", folder=tmp_path).proposal.named("time")

    assert (time.form.date if time.form else None) == expected
    (found,) = (check for check in examine(load_config(tmp_path)) if check.place == "columns.time")
    assert (found.state, "'start_time': 2026-06-2" in found.found) == ("ok", True)


def test_names_of_digits_and_letters_are_no_numbers_though_a_few_could_be() -> None:
    """Of names such as 4f3a09b1 some are "41e90022", which a program reads as an endless number."""
    rng = np.random.default_rng(0)
    devices = [f"{n:08x}" for n in rng.integers(0, 2**32, 300)] + ["41e90022", "1e5", "00000012"]
    frame = pd.DataFrame(
        {
            "token": [f"{n:016x}" for n in rng.integers(0, 2**62, 2_999)] + ["12e45678"],
            "at": pd.date_range("2026-01-01", periods=3_000, freq="7min"),
            "user": rng.choice([f"u{n}" for n in range(200)], 3_000),
            "device": rng.choice(devices, 3_000),
            "amount": rng.gamma(2, 20, 3_000).round(2),
        }
    )

    found = proposal_of(frame)

    assert (found.role("key"), found.role("entity"), found.counted) == ("token", "user", ("device",))


def flows(rows: int = 2_000, seed: int = 0) -> pd.DataFrame:
    """What a firewall logs: addresses, ports and sizes."""
    rng = np.random.default_rng(seed)
    host = rng.integers(0, 60, rows)
    return pd.DataFrame(
        {
            "ts": pd.date_range("2026-09-01", periods=rows, freq="2min"),
            "src_ip": [f"10.0.0.{n}" for n in host],
            "src_port": rng.integers(32_768, 61_000, rows),
            "dst_ip": [f"203.0.113.{n}" for n in host * 7 % 110],
            "dst_port": rng.choice([443, 53, 25], rows),
            "bytes_out": rng.lognormal(7, 2, rows).astype(int),
        }
    )


def test_addresses_and_ports_are_names(tmp_path: Path) -> None:
    """Who sends is whom alerts are about; a port is no amount, and that no column names a row is said."""
    flows().to_csv(tmp_path / "rows.csv", index=False)

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    assert {choice.column: choice.part for choice in begun.proposal.choices} == {
        "ts": "time",
        "src_ip": "entity",
        "src_port": "ignore",
        "dst_ip": "categorical",
        "dst_port": "categorical",
        "bytes_out": "numeric",
    }
    assert begun.notes[0].startswith("columns.key: no column is different in every row")
    history = load_config(tmp_path).features.history
    assert list(history) == ["count by src_ip over 1h, 1d", "count by dst_ip over 1h, 1d"]


def test_who_a_row_is_about_is_asked_where_no_name_tells(tmp_path: Path) -> None:
    """So is which column says when, if it is written in a way that is not known."""
    rows = flows().rename(columns={"src_ip": "from", "dst_ip": "to", "ts": "logged_at"})
    rows["logged_at"] = rows["logged_at"].dt.strftime("%Hh%M on %d %B %Y")

    notes = " | ".join(proposal_of(rows).notes)

    assert "columns.entity: no name of a column says who or what a row is about. If one of from, to does" in notes
    assert "columns.time: none was recognised. If logged_at says when, such as '00h00 on 01 September 2026'" in notes


def test_numbers_of_phones_and_devices_are_no_amounts() -> None:
    rng = np.random.default_rng(0)
    caller = rng.integers(0, 200, 3_000)
    rows = pd.DataFrame(
        {
            "caller": [f"+43660{n * 7_919:07d}" for n in caller],
            "equipment": [350_000_012_345_678 + n * 7_919 for n in caller],
            "start": pd.date_range("2026-06-01", periods=3_000, freq="5min"),
            "seconds": rng.lognormal(4, 1, 3_000).astype(int),
        }
    )

    found = proposal_of(rows.astype("str"))

    assert [choice.part for choice in found.choices] == ["entity", "categorical", "time", "numeric"]
    assert found.choices[1].why == "as many digits in each, and 200 different numbers"


def test_values_that_hold_several_name_no_row() -> None:
    places = [f"{{'lat': {48 + n / 1_000}, 'lon': 16.3}}" for n in range(500)]
    frame = pd.DataFrame(
        {"place": places, "amount": [n * 37 % 500 / 7 for n in range(500)], "tags": ["['a']", "[]"] * 250}
    )

    found = proposal_of(frame)

    assert (found.role("key"), [choice.part for choice in found.choices]) == (
        None,
        ["ignore", "numeric", "categorical"],
    )
    assert "each holds several values" in found.choices[0].why


def payroll(month: int, *, people: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(month)
    period = pd.Period("2025-01", "M") + month
    pay = 2_000.0 + np.arange(people) * 7 % 900
    return pd.DataFrame(
        {
            "Period": str(period),
            "Pay date": f"{period.end_time:%d.%m.%Y}",
            "Personnel no.": np.arange(people) + 100_001,
            "IBAN": [f"AT{n * 7_919:018d}" for n in range(people)],
            "Overtime": rng.gamma(2, 5, people).round(1),
            "Bonus": pay if period.month == 6 else 0.0,
            "Gross": (pay * rng.normal(1, 0.02, people)).round(2),
            "Department": rng.choice(["Sales", "IT"], people),
        }
    )


def test_a_folder_is_more_than_its_first_file(tmp_path: Path) -> None:
    """In the file of one month each person is there once, its month is a constant, and nobody has a bonus."""
    (tmp_path / "pay").mkdir()
    for month in range(12):
        file = tmp_path / "pay" / f"pay-{month:02d}.csv"
        payroll(month).to_csv(file, index=False, sep=";", decimal=",")

    begun = init(tmp_path / "pay", folder=tmp_path)

    found = begun.proposal
    assert (found.kind, found.role("key"), found.role("entity")) == ("table", None, "Personnel no.")
    choices = {choice.column: choice for choice in found.choices}
    assert (choices["Period"].part, choices["Bonus"].part) == ("ignore", "numeric")
    assert choices["Period"].why == "it moves on with time, 12 different so far: those to come are not learnt"
    assert list(load_config(tmp_path).features.history) == [
        'count by "Personnel no." over 1d, 7d, 105d',
        "count by IBAN over 1d, 7d, 105d",
        'new of IBAN by "Personnel no." over 105d',
        'ratio of Gross by "Personnel no." over 105d',
    ]
    assert [check for check in examine(load_config(tmp_path)) if check.state == "problem"] == []


def test_names_among_readings_are_left_out(tmp_path: Path) -> None:
    """A detector of sensors reads numbers alone, and refuses the rest."""
    rows = simulate_sensors(3_000, seed=1, machines=1, sensors=6).drop(columns=["anomaly_kind", "anomaly_sensor"])
    rows.assign(shift=["early", "late", "night"] * 1_000).to_csv(tmp_path / "rows.csv", index=False)

    found = init(tmp_path / "rows.csv", folder=tmp_path).proposal

    assert found.kind == "sensors"
    assert [check for check in examine(load_config(tmp_path)) if check.state == "problem"] == []


def test_how_much_an_amount_is_in_its_currency_is_a_feature(tmp_path: Path) -> None:
    """95,000 forints are a meal, 95,000 euros are none, and the customer may be new."""
    rows = simulate_transactions(900, seed=3)[["transaction_id", "time", "card_id", "amount"]]
    rows.assign(currency=["EUR", "EUR", "HUF"] * 300).to_csv(tmp_path / "rows.csv", index=False)

    init(tmp_path / "rows.csv", folder=tmp_path)

    assert any(line.startswith("ratio of amount by currency over") for line in load_config(tmp_path).features.history)


def test_a_label_that_few_rows_have_is_a_share_of_these() -> None:
    labels = [1.0] * 12 + [0.0] * 300 + [None] * 688
    (label,) = proposal_of(pd.DataFrame({"x": [n / 7 for n in range(1_000)], "fraud": labels})).named("label")
    assert label.why == "its name, and 3.85 % of the 312 rows that have one are 1"


def test_a_clock_beside_the_date_is_no_category(tmp_path: Path) -> None:
    """Each of its values is as far from the next as from any other; and rows of a day have no order without it."""
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(
        np.sort(np.random.default_rng(0).integers(0, 5e6, 900)), unit="s"
    )
    rows = pd.DataFrame({"no": range(900), "date": when.strftime("%d.%m.%Y"), "time": when.strftime("%H:%M")})
    rows.assign(amount=np.random.default_rng(1).gamma(2, 20, 900)).to_csv(tmp_path / "rows.csv", index=False)

    begun = init(tmp_path / "rows.csv", folder=tmp_path)

    assert [choice.part for choice in begun.proposal.choices] == ["key", "time", "ignore", "numeric"]
    assert begun.notes[0].startswith("columns.time: date has no clock. If time belongs to it, join both")


def test_how_fast_somebody_travels_is_a_feature(tmp_path: Path) -> None:
    """A login in Vienna and one in Singapore half an hour later are not by one person."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"at": pd.date_range("2026-03-02", periods=900, freq="17min"), "user": rng.integers(0, 90, 900)}
    )
    rows = rows.assign(lat=rng.normal(48, 0.1, 900).round(3), geo_lon=rng.normal(16, 0.1, 900).round(3), platform="web")
    rows.to_csv(tmp_path / "rows.csv", index=False)

    init(tmp_path / "rows.csv", folder=tmp_path)

    assert "speed of lat, geo_lon by user over 1d" in load_config(tmp_path).features.history
    assert not [check for check in examine(load_config(tmp_path)) if check.state == "problem"]


def test_the_time_is_of_the_date_that_spans_least() -> None:
    """Claims of a quarter are of policies of years; phone numbers are no seconds since 1970."""
    rng = np.random.default_rng(0)
    claimed = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, 600), unit="D")
    rows = pd.DataFrame({"began": claimed - pd.to_timedelta(rng.integers(20, 3_000, 600), unit="D"), "loss": claimed})
    rows["phone"] = [f"+4366{n:08d}" for n in rng.integers(10**7, 10**8, 600)]

    found = proposal_of(rows.astype("str"))

    assert found.role("time") == "loss"
    assert next(choice.part for choice in found.choices if choice.column == "began") == "datetime"
