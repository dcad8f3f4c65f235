"""Maintenance: read from a calendar file and from times of the clock on the wall, summer time included."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from detector.errors import SettingError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.gates import without_maintenance
from pipelines.factory.maintenance import calendar_of

YEAR = (pd.Timestamp("2026-01-01"), pd.Timestamp("2026-12-31"))


def config(**maintenance: object) -> Config:
    return Config.model_validate(
        {
            "kind": "sensors",
            "source": {"path": "a.csv"},
            "columns": {"time": "time", "entity": "machine"},
            "series": {"maintenance": {"timezone": "Europe/Berlin", **maintenance}},
        }
    )


def spans(text: str, folder: Path) -> list[tuple[str, str, str | None]]:
    file = folder / "calendar.csv"
    file.write_text(text, encoding="utf-8")
    calendar = calendar_of(config(calendar=str(file)))
    assert calendar is not None
    return [(str(span.first), str(span.last), span.entity) for span in calendar.spans(*YEAR)]


def test_calendar_is_read_in_its_time_zone(tmp_path: Path) -> None:
    """Times without a zone are those of the clock on the wall; one with a zone is what it says."""
    found = spans(
        "from,to,machine\n2026-05-03 06:00,2026-05-03 08:00,M1\n2026-06-01T00:00Z,2026-06-02T00:00Z,\n", tmp_path
    )

    assert found == [
        ("2026-05-03 04:00:00", "2026-05-03 06:00:00", "M1"),
        ("2026-06-01 00:00:00", "2026-06-02 00:00:00", None),
    ]


def test_hour_that_comes_twice_is_in_maintenance_both_times(tmp_path: Path) -> None:
    """On the night the clock is put back, 2 to 3 lasts two hours."""
    assert spans("from,to\n2026-10-25 02:00,2026-10-25 02:59\n", tmp_path) == [
        ("2026-10-25 00:00:00", "2026-10-25 01:59:00", None)
    ]


def test_calendar_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    """People write to it while the service runs."""
    spans("from,to\n2026-05-03 06:00,2026-05-03 08:00\n", tmp_path)

    assert len(spans("from,to\n2026-05-03 06:00,2026-05-03 08:00\n2026-05-04 06:00,2026-05-04 08:00\n", tmp_path)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("form,to\n", "no column 'from'. Did you mean 'form'"),
        ("from,to,machin\n", "column 'machin', which means nothing here. Did you mean 'machine'"),
        ("from,to\n2026-05-03,never\n", "line 2, to: expected a time such as 2026-05-03 06:00, received 'never'"),
        ("from,to\n2026-05-03,2026-05-02\n", "line 2: expected `to` after `from`"),
        ("from,to\n2026-05-03,2026-05-04,M1,x\n", "line 2 has more values than the first line has names"),
        ("", "no column 'from'"),
    ],
)
def test_bad_calendar_is_an_error_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    """A line that is passed over would be maintenance that nobody knows of."""
    with pytest.raises(SettingError, match=said):
        spans(text, tmp_path)


def test_missing_calendar_is_an_error(tmp_path: Path) -> None:
    """With the name of the file, and how one is written."""
    with pytest.raises(SettingError, match=r"nothing.csv: No such file.*from,to,machine,reason"):
        calendar_of(config(calendar=str(tmp_path / "nothing.csv")))


def test_recurring_maintenance_follows_the_clock_on_the_wall() -> None:
    """At six in the morning, in winter and in summer; the one that goes on at the beginning counts."""
    calendar = calendar_of(config(recurring=[{"when": "0 6 * * sun", "minutes": 120}]))
    assert calendar is not None

    found = calendar.spans(pd.Timestamp("2026-03-22 06:30"), pd.Timestamp("2026-03-30"))

    assert [str(span.first) for span in found] == ["2026-03-22 05:00:00", "2026-03-29 04:00:00"]


def test_recurring_maintenance_needs_crontab() -> None:
    """`every 5m` says not when it begins."""
    with pytest.raises(ValueError, match="five fields of crontab"):
        config(recurring=[{"when": "every 5m", "minutes": 1}])


def test_rows_in_maintenance_are_left_out_and_counted() -> None:
    """Of the machine that is named alone; a machine that there is not is said."""
    rows = pd.DataFrame(
        {
            "time": pd.to_datetime(["2026-03-22 04:59", "2026-03-22 05:00", "2026-03-22 05:00"]),
            "machine": ["a", "a", "b"],
            "heat": [1.0, 2.0, 3.0],
        }
    )
    schema = Schema(time="time", entity="machine", numeric=("heat",))
    planned = config(recurring=[{"when": "0 6 * * sun", "minutes": 9, "machine": name} for name in ("a", "bb")])

    kept, said = without_maintenance(rows, planned, schema)

    assert kept["heat"].tolist() == [1.0, 3.0]
    assert said is not None
    assert said.startswith("Left out of training, in maintenance: 1 row. `series.maintenance` names the machine 'bb'")


def test_unknown_sensor_is_found_before_training() -> None:
    """And not after an hour of it."""
    wrong = Config.model_validate(
        {"kind": "sensors", "source": {"path": "a.csv"}, "series": {"sensors": {"haet": {"direction": "up"}}}}
    )
    with pytest.raises(SettingError, match="'haet', which is no sensor. Did you mean 'heat'"):
        without_maintenance(pd.DataFrame({"heat": [1.0]}), wrong, Schema(numeric=("heat",)))


@pytest.mark.parametrize("limits", [[3, 1], [None, None]])
def test_range_without_meaning_is_refused(limits: list[float | None]) -> None:
    """When the file is read."""
    with pytest.raises(ValueError, match="`range` expected"):
        Config.model_validate({"source": {"path": "a.csv"}, "series": {"gates": {"range": limits}}})
