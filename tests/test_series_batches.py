"""Sensors in the service: batch by batch, with the scores of the whole series, alerts, silence and recovery."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.groups import group_numbers
from detector.persist.bundle import save
from pipelines.scoring.replay import backfill
from pipelines.store import SeriesTail
from pipelines.store.alert_tables import Alert
from tests.sensor_sites import PUMPS, SensorSite, bundle_of, detector, minute, pump_rows
from tests.series_examples import SMALL
from tests.service_sites import context, opened, score


@pytest.fixture(scope="session")
def trailing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved detector that judges rows by those before them."""
    return bundle_of(tmp_path_factory.mktemp("trailing"))


@pytest.fixture(scope="session")
def centred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved detector that judges rows by those on both sides."""
    return bundle_of(tmp_path_factory.mktemp("centred"), trailing=False)


def alerts(site: SensorSite) -> list[tuple[str, str, str]]:
    """Kind, machine and first reason of each alert."""
    with opened(site) as store, store.read() as session:
        found = session.scalars(sa.select(Alert).order_by(Alert.created_at, Alert.kind)).all()
        return [(each.kind, each.label, (each.facts.get("reasons") or [{}])[0].get("feature", "")) for each in found]


def test_batches_have_the_scores_of_the_whole_series(trailing: Path, tmp_path: Path) -> None:
    """However the rows are cut, every row is scored when it comes, as it would be in one piece."""
    site = SensorSite(tmp_path / "site", trailing)

    for rows in (3, 40, 1, 77, 30):
        site.add(rows)
        score(site)

    found = site.scores()
    assert list(found.columns) == [
        "id", "when", "pump", "risk", "p_value", "flagged", "severity", "reasons", "reasons_json",
        "reconstruction",
        "model_version", "scored_at", "batch",
    ]  # fmt: skip
    assert len(found) == 151
    assert site.scored_as_whole(detector().scorer_)


def test_rows_wait_for_those_that_come_after_them(centred: Path, tmp_path: Path) -> None:
    """A detector that looks to both sides scores a row once it can; what it kept moves with the batch."""
    site = SensorSite(tmp_path / "site", centred)

    for _ in range(4):
        site.add(40)
        score(site)

    assert len(site.scores()) == 160 - 2 * 15
    assert site.scored_as_whole(detector(trailing=False).scorer_)
    with opened(site) as store, store.read() as session:
        assert [tail.batch for tail in session.scalars(sa.select(SeriesTail))] == [4]


@pytest.mark.parametrize("shares", [False, True])
def test_a_table_takes_the_scores_of_rows_that_waited(centred: Path, tmp_path: Path, shares: bool) -> None:
    """In the database of the state, or in another one."""
    site = SensorSite(tmp_path / "site", centred, "files to table", shares=shares)
    for _ in range(3):
        site.add(40)
        assert score(site).outcome == "done"

    assert len(site.scored()) == 120 - 2 * 15
    assert set(site.scored().values()) == {1}


def test_machines_are_scored_some_at_a_time(centred: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, what is said of each, and kept of it, is as if all had been scored at once."""
    found = []
    for most in (10**6, 30):
        monkeypatch.setattr("pipelines.scoring.series.group_numbers", partial(group_numbers, most=most))
        site = SensorSite(tmp_path / str(most), centred)
        site.rows = pump_rows(60, names=("a", "b", "c", "d"))
        for _ in range(3):
            site.add(80)
            score(site)
        found.append(site.scores().drop(columns="scored_at"))

    pd.testing.assert_frame_equal(*found)
    assert len(found[0]) == 240 - 4 * 15


def test_a_fault_becomes_an_alert_and_its_end_a_recovery(trailing: Path, tmp_path: Path) -> None:
    """One alert however many batches the event lasts, with the sensor at fault, and one notice when it is over."""
    site = SensorSite(tmp_path / "site", trailing)
    site.rows.loc[(site.rows["pump"] == "a") & site.rows["when"].between(minute(40), minute(60)), "flow"] += 60.0

    for _ in range(6):
        site.add(40)
        score(site)

    assert alerts(site) == [("opened", "a", "flow"), ("recovered", "a", "")]


def test_a_silent_machine_is_reported_when_others_report(trailing: Path, tmp_path: Path) -> None:
    """There is no row to flag; it is reported once, and that it is well when it reads again."""
    site = SensorSite(tmp_path / "site", trailing)
    rows = pump_rows(180)
    silent = (rows["pump"] == "b") & rows["when"].between(minute(50), minute(110))

    for begin in range(0, 180, 30):
        part = rows["when"].between(minute(begin), minute(begin + 29)) & ~silent
        site.put(rows[part])
        score(site)

    assert alerts(site) == [("opened", "b", "silence"), ("recovered", "b", "")]
    with opened(site) as store, store.read() as session:
        (first,) = session.scalars(sa.select(Alert).where(Alert.kind == "opened")).one().facts["reasons"]
    assert (first["observed"], first["expected"]) == ("of 40 min since 2026-03-01 00:49", "a reading every 1 min")
    assert len(site.scores()) == (~silent).sum()


def test_a_machine_alone_is_reported_silent_by_the_clock(trailing: Path, tmp_path: Path) -> None:
    """With `silent_by_clock`, also if no row comes at all."""
    site = SensorSite(tmp_path / "site", trailing, series={"silent_by_clock": True})
    site.put(pump_rows(30))
    score(site, now=minute(31).tz_localize("UTC").to_pydatetime())
    assert alerts(site) == []

    score(site, now=minute(60).tz_localize("UTC").to_pydatetime())
    score(site, now=minute(61).tz_localize("UTC").to_pydatetime())

    assert alerts(site) == [("opened", "a", "silence"), ("opened", "b", "silence")]


def test_without_the_clock_a_quiet_source_is_no_alert(trailing: Path, tmp_path: Path) -> None:
    """Files may come once a day."""
    site = SensorSite(tmp_path / "site", trailing)
    site.put(pump_rows(30))
    score(site)

    score(site)

    assert alerts(site) == []


def test_rows_that_cannot_be_scored_are_quarantined_with_the_reason(trailing: Path, tmp_path: Path) -> None:
    """Late rows, repeated ones, the future, a key that came before; all others are scored."""
    site = SensorSite(tmp_path / "site", trailing)
    rows = pump_rows(60)
    site.put(rows.iloc[:60])
    score(site)
    odd = rows.iloc[60:64].copy()
    odd["when"] = [minute(3), minute(29), pd.Timestamp("2199-01-01"), minute(60)]
    odd["id"] = [900, 901, 902, 58]

    site.put(pd.concat([odd, rows.iloc[64:]]))
    score(site)

    assert site.quarantined()["reason"].tolist() == [
        "when: 2199-01-01 00:00:00 lies in the future; is the clock of its machine right?",
        "id: key 58 appears again (first in an earlier batch)",
        "when: 2026-03-01 00:03:00 is before 2026-03-01 00:29:00, the newest reading of its series in an earlier batch",
        "when: the series has a reading of 2026-03-01 00:29:00 from an earlier batch",
    ]
    assert len(site.scores()) == 60 + 56


def test_a_machine_none_of_whose_rows_can_be_used_is_named(
    trailing: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no row that waits or is scored, so its silence would be told only once it had been heard before."""
    site = SensorSite(tmp_path / "site", trailing)
    rows = pump_rows(60)
    rows["when"] = rows["when"].mask(rows["pump"] == "b", pd.Timestamp("2199-01-01"))

    site.put(rows)
    score(site)

    assert "No row of b could be used: all are in the quarantine" in caplog.text


def test_a_machine_never_seen_keeps_nobody_else(tmp_path: Path) -> None:
    """With a model each, its rows are quarantined until the next training."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path, models="entity"))
    site.put(pump_rows(20, names=("a", "new")))

    outcome = score(site)

    assert outcome.facts["scored"] == 20
    assert site.quarantined()["reason"].str.contains("'new' has no model: train again with its rows").sum() == 20


def test_a_new_machine_of_a_shared_model_is_scored_once_it_has_a_window(trailing: Path, tmp_path: Path) -> None:
    """Its first rows wait."""
    site = SensorSite(tmp_path / "site", trailing)
    site.put(pump_rows(5))
    first = score(site)
    site.put(pump_rows(9).iloc[10:])

    second = score(site)

    assert (first.facts["scored"], second.facts["scored"]) == (0, 18)


def test_a_file_without_a_sensor_is_quarantined(trailing: Path, tmp_path: Path) -> None:
    """The note names it and the column."""
    site = SensorSite(tmp_path / "site", trailing)
    site.put(pump_rows(30).drop(columns="flow"))

    outcome = score(site)

    assert outcome.outcome == "skipped"
    assert "00001.csv" in outcome.note
    assert "flow" in outcome.note


def test_backfill_scores_what_was_left_out_by_itself(centred: Path, tmp_path: Path) -> None:
    """Older rows neither wait nor move what is kept; so all of them are scored at once."""
    service = {"store": "sqlite:///service.db", "settle": 0, "start": "new", "port": 0}
    site = SensorSite(tmp_path / "site", centred, service=service)
    site.add(80)
    score(site)
    site.add(80)
    score(site)

    with opened(site) as store:
        done = backfill(context(site, store))

    assert done.facts["scored"] == 80
    assert len(site.scores()) == 80 + 80 - 2 * 15
    with opened(site) as store, store.read() as session:
        assert [tail.batch for tail in session.scalars(sa.select(SeriesTail))] == [1]


@pytest.mark.parametrize("budget", [{"rows": 3, "per": "day"}, {"rows": 3, "per": "batch"}])
def test_budgets_hold_over_the_batches_of_a_day(trailing: Path, tmp_path: Path, budget: dict[str, Any]) -> None:
    """A budget a day counts what other batches have flagged; one a batch does not."""
    site = SensorSite(tmp_path / "site", trailing, policy={"budget": budget})
    for _ in range(2):
        site.add(40)
        score(site)

    assert int(site.scores()["flagged"].sum()) == (3 if budget["per"] == "day" else 6)


def test_another_detector_goes_on_with_the_rows_kept(trailing: Path, tmp_path: Path) -> None:
    """A promotion loses no row and scores none twice, whatever sensors the new detector has."""
    other = bundle_of(tmp_path / "other", smoothing=1.0)
    site = SensorSite(tmp_path / "site", trailing)
    site.add(60)
    score(site)
    path = site.folder / "detector.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(str(trailing), str(other)), encoding="utf-8")
    site.add(60)

    score(site)

    found = site.scores()
    assert found["id"].tolist() == list(range(120))
    expected = detector(smoothing=1.0).scorer_.measure(site.rows.iloc[:120])["risk"]
    np.testing.assert_allclose(found["risk"].iloc[60:], expected.iloc[60:], rtol=1e-4, atol=1e-5)


def test_rows_without_a_key_are_named_by_their_file_and_number(tmp_path: Path) -> None:
    """Also those that waited, which are reported with another batch than they came in."""
    keyless = SequenceDetector(**SMALL, schema=replace(PUMPS, key=None)).fit(pump_rows(400))
    bundle = save(keyless.scorer_, tmp_path / "bundle")
    site = SensorSite(tmp_path / "site", bundle, columns={"time": "when", "entity": "pump", "ignore": ["id"]})
    site.add(40)
    score(site)
    site.add(40)
    score(site)

    files = [pd.read_parquet(file) for file in sorted((site.folder / "scores").glob("*.parquet"))]
    assert [len(file) for file in files] == [40 - 2 * 15, 40]
    second = files[1]
    assert second["file"].tolist() == ["00001.csv"] * 30 + ["00002.csv"] * 10
    assert sorted(second["row"].iloc[:30]) == [*range(10, 40)]
    assert second["when"].min() == minute(5)
