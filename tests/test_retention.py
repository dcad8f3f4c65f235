"""What is kept for how long: scores, alerts, the audit trail; deleted a part at a time, and nothing else with it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.soak import Site
from detector.errors import SettingError
from pipelines.alerts.feedback.answers import answer, find
from pipelines.alerts.review import notes
from pipelines.config import load_config
from pipelines.jobs.context import Context, JobOutcome, ProcessCache
from pipelines.scoring.what_if import what_if
from pipelines.service import retention
from pipelines.service.housekeeping import tidy
from pipelines.service.retention import delete_old
from pipelines.service.runs import run_job
from pipelines.sinks import deletion
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store import Audit, Run, ScoreFile, Store, open_store
from pipelines.store.access_tables import AlertNote
from pipelines.store.alert_tables import Alert, AlertGroup, Answer, Delivery, Silence
from pipelines.store.trail import write_down
from tests.alert_places import NOW, config_in, give, rows, run, store_in
from tests.service_sites import context, opened, put, score

DAY = timedelta(days=1)


def count(store: Store, table: Any, *where: Any) -> int:
    with store.read() as session:
        return int(session.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0)


def tidied(site: Site, now: datetime) -> JobOutcome:
    with opened(site) as store:
        return tidy(context(site, store, now=now))


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("way", ["files to files", "files to table"])
def test_old_scores_go_and_newer_ones_stay(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, shares: bool
) -> None:
    """Scores older than `keep_scores` leave files and tables; what was scored is not scored again."""
    monkeypatch.setattr(deletion, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(deletion, "FILES_AT_ONCE", 1)
    site = Site(tmp_path / "site", tiny_bundle, way, settings={"keep_scores": 10}, shares=shares)
    later = datetime.now(UTC) + 20 * DAY
    for number, now in ((0, later - 20 * DAY), (50, later - 19 * DAY), (100, later)):
        put(site, f"{number}.csv", number, 50)
        score(site, now=now)

    found = tidied(site, later)

    assert sorted(map(int, site.scored())) == list(range(100, 150))
    assert found.facts["deleted"]["scores"] == 100
    assert score(site, now=later).outcome == "skipped"
    with opened(site) as store:
        config = load_config(site.folder)
        assert len(stored_scores(config, store, ScoresQuery(("risk",)))) == 50
        assert count(store, ScoreFile) == (1 if way == "files to files" else 0)
    assert tidied(site, later).facts["deleted"]["scores"] == 0
    with opened(site) as store, store.read() as session:
        said = session.scalars(sa.select(Audit).where(Audit.action == "delete scores")).one()
        assert said.arguments == {"records": 100, "before": (later - 10 * DAY).isoformat()}


def test_what_if_counts_no_scores_that_are_gone(tiny_bundle: Path, tmp_path: Path) -> None:
    """What it read before is read anew, though no batch has come since."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"keep_scores": 10})
    later = datetime.now(UTC) + 20 * DAY
    for number, now in ((0, later - 20 * DAY), (50, later)):
        put(site, f"{number}.csv", number, 50)
        score(site, now=now)
    memory = ProcessCache()
    with opened(site) as store:
        given = context(site, store, now=later)

        def rows() -> int:
            asked = {"quantile": 0.5}
            today, _ = what_if(given.config, store, given.cache, changes=asked, days=9e3, now=later, memory=memory)
            return today.rows

        before = rows()
        run_job(given, "housekeeping", trigger="request", instance="here")

        assert (before, rows()) == (100, 50)


def test_rows_of_others_in_the_table_stay(tiny_bundle: Path, tmp_path: Path) -> None:
    """Rows that `detector score` wrote into the same table have no batch, and are not the service's to delete."""
    site = Site(tmp_path / "site", tiny_bundle, "files to table", settings={"keep_scores": 1}, shares=True)
    put(site, "a.csv", 0, 20)
    score(site)
    with opened(site) as store, store.write() as session:
        session.execute(sa.text("UPDATE scores SET batch = NULL WHERE id IN ('0', '1', '2')"))

    tidied(site, datetime.now(UTC) + 5 * DAY)

    assert sorted(map(int, site.scored())) == [0, 1, 2]


def test_old_quarantine_goes(tiny_bundle: Path, tmp_path: Path) -> None:
    """Rows that could not be used are kept as long as scores."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"keep_scores": 10})
    for number in (0, 50):
        frame = put(site, f"{number}.csv", number, 20).astype(object)
        frame.loc[3, "amount"] = "much"
        frame.to_csv(site.input / f"{number}.csv", index=False)
        score(site)
    first, second = sorted((site.folder / "scores.quarantine").iterdir())
    os.utime(first, (0, 0))

    tidied(site, datetime.now(UTC))

    assert not first.exists()
    assert second.exists()


def test_crash_between_manifest_and_file_loses_nothing_else(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the manifest knows no more does not count, and the next run moves it away."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"keep_scores": 1})
    put(site, "a.csv", 0, 20)
    score(site)

    def cut(paths: Any) -> int:
        return sum(1 for _ in paths) and pytest.fail("the power is cut")

    with monkeypatch.context() as cuts:
        cuts.setattr(deletion, "_remove", cut)
        with pytest.raises(pytest.fail.Exception):
            tidied(site, datetime.now(UTC) + 5 * DAY)
    assert len(site.scored()) == 20

    put(site, "b.csv", 20, 20)
    score(site)

    assert sorted(map(int, site.scored())) == list(range(20, 40))


def aged(tmp_path: Path, **service: Any) -> tuple[Any, Store]:
    """Three alerts: an old one with all that stands beside it, an old one on its way, and one of today."""
    config = config_in(tmp_path, log={"enabled": True})
    config = config.model_copy(update={"service": config.service.model_copy(update=service)})
    store = store_in(tmp_path)
    (old,) = give(store, config, rows(("card-1", 0, "high")), now=NOW)
    run(store, config, now=NOW)
    with store.write() as session:
        alert = find(session, old["id"])
        answer(session, alert, "fine", reason="x", who="ann", via="cli", config=config, now=NOW, snooze=True)
        notes.comment(session, alert, "called", who="ann", now=NOW)
    give(store, config, rows(("card-2", 0, "high")), now=NOW)
    today = rows(("card-3", 0, "high"))
    today["time"] += 100 * DAY
    give(store, config, today, now=NOW + 100 * DAY)
    return config, store


def test_old_alerts_go_with_what_stands_beside_them(tmp_path: Path) -> None:
    """Deliveries, verdicts, comments, silences and groups go along; what is on its way stays, and so does today."""
    config, store = aged(tmp_path, keep_alerts=30)

    found = delete_old(Context(config, store, NOW + 101 * DAY))

    assert found["alerts"] == 1
    with store.read() as session:
        assert sorted(session.scalars(sa.select(Alert.label))) == ["card-2", "card-3"]
    assert [count(store, table) for table in (Answer, AlertNote, Silence)] == [0, 0, 0]
    assert count(store, Delivery) == 2
    assert count(store, AlertGroup, AlertGroup.label == "card-3") == 1
    with store.read() as session:
        said = session.scalars(sa.select(Audit).where(Audit.action == "delete alerts")).one()
    assert (said.actor, said.arguments) == ("service", {"records": 1, "before": (NOW + 71 * DAY).isoformat()})


def test_alerts_and_scores_are_kept_unless_it_is_said(tmp_path: Path) -> None:
    """By default nothing but records of runs is deleted, and the audit trail after ten years."""
    config, store = aged(tmp_path)

    found = delete_old(Context(config, store, NOW + 3_000 * DAY))

    assert "alerts" not in found
    assert "scores" not in found
    assert found["audit records"] == 0
    assert count(store, Alert) == 3


@pytest.mark.parametrize(
    ("ran", "trigger", "kept"),
    [
        ((-2, -1), "schedule", 0),
        ((-2, 999, 999.5), "schedule", 1),
        ((-2,), "schedule", 1),
        ((-2, 999, 999.5), "command", 0),
        ((-2, 999, 999.5), "request", 0),
        ((-2, 960, 980), "schedule", 0),
    ],
    ids=["all the time", "since a day", "not since", "asked for by hand", "asked for", "for a month since"],
)
def test_clock_that_is_years_ahead_deletes_nothing(
    tmp_path: Path, ran: tuple[float, ...], trigger: str, kept: int
) -> None:
    """Unless somebody asks for it, or the service has run for as long as the leap may be."""
    config, store = config_in(tmp_path), open_store(f"sqlite:///{tmp_path}/s.db")
    config = config.model_copy(update={"service": config.service.model_copy(update={"keep_audit": 100})})
    now = NOW + 1_000 * DAY
    days = [*range(-900, -1, 20), *(range(0, 1_000, 20) if ran[-1] == -1 else ()), *ran]
    with store.write() as session:
        write_down(session, "promote", actor="ann", now=NOW)
        for day in days:
            started = NOW + day * DAY
            session.add(
                Run(job="score", trigger="schedule", instance="a", started_at=started, outcome="done", rows=0, facts={})
            )

    run_job(Context(config, store, now), "housekeeping", trigger=trigger, instance="a")

    assert count(store, Audit, Audit.action == "promote") == kept
    with store.read() as session:
        said = session.scalars(sa.select(Run).where(Run.job == "housekeeping")).one()
        assert said.outcome == "done"
        assert ("`detector jobs run housekeeping` deletes" in said.note) == bool(kept)
    store.close()


def test_audit_trail_is_kept_for_long_and_says_when_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records beyond `keep_audit` go, some at a time, and one says how many."""
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    config = config_in(tmp_path)
    config = config.model_copy(update={"service": config.service.model_copy(update={"keep_audit": 100})})
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    now = datetime.now(UTC)
    with store.write() as session:
        for days in (*range(101, 126), 50):
            write_down(session, "promote", actor="ann", now=now - days * DAY)

    found = delete_old(Context(config, store, now))

    assert found["audit records"] == 25
    with store.read() as session:
        young, said = session.scalars(sa.select(Audit).order_by(Audit.at)).all()
        assert young.action == "promote"
        assert (said.actor, said.action, said.arguments["records"]) == ("service", "delete audit records", 25)
    store.close()


def test_audit_trail_of_less_than_a_month_is_refused(tmp_path: Path) -> None:
    """The database would refuse to delete it."""
    config_in(tmp_path)
    file = tmp_path / "detector.yaml"
    file.write_text(file.read_text() + "service: {keep_audit: 7}\n")

    with pytest.raises(SettingError, match=r"service\.keep_audit: expected at least 30, received 7"):
        load_config(tmp_path)
