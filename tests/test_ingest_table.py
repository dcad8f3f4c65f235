"""A table that grows: the cursor, late rows, backfill and replay."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.soak import Site, draw
from detector.detectors.table.detector import TabularDetector
from detector.errors import NotFoundError, SchemaError, SettingError
from detector.persist.bundle import save
from detector.schema import Schema
from pipelines.jobs.catalogue import DELIVERIES
from pipelines.jobs.context import JobOutcome
from pipelines.scoring import replay
from pipelines.scoring.batch_transaction import Scoring
from pipelines.service.housekeeping import deliver, tidy
from pipelines.store import Audit, Batch, Cursor, RecentKey, Run
from tests.service_sites import context, opened, put, score

Build = Callable[..., Site]


@pytest.fixture
def build(tiny_bundle: Path, tmp_path: Path) -> Build:
    def _build(way: str = "table to files", *, bundle: Path = tiny_bundle, **given: Any) -> Site:
        return Site(tmp_path / "site", bundle, way, **given)

    return _build


def insert(site: Site, frame: pd.DataFrame) -> None:
    with closing(sqlite3.connect(site.folder / "source.db")) as connection:
        frame.to_sql("rows", connection, if_exists="append", index=False)


def keys(site: Site) -> list[int]:
    return sorted(int(key) for key in site.scored().elements())


def run(site: Site, job: Callable[..., JobOutcome], **arguments: Any) -> JobOutcome:
    with opened(site) as store:
        return job(context(site, store, arguments=arguments | {"actor": "ann", "reason": "asked"}))


def arrived(ids: list[int], seconds: list[float]) -> pd.DataFrame:
    """Rows with a time of arrival, in seconds after noon."""
    frame = pd.concat([draw(1, first=number, seed=number) for number in ids], ignore_index=True)
    return frame.assign(arrived=pd.Timestamp("2026-03-01 12:00") + pd.to_timedelta(seconds, unit="s"))


def test_rows_after_the_cursor_are_scored(build: Build) -> None:
    """Each run takes what has come since the last one."""
    site = build()
    insert(site, draw(30, first=0, seed=0))

    first, second = score(site), score(site)
    insert(site, draw(10, first=30, seed=1))
    third = score(site)

    assert (first.rows, second.outcome, third.rows) == (30, "skipped", 10)
    assert keys(site) == list(range(40))


@pytest.mark.parametrize("way", ["table to files", "table to table"])
def test_late_rows_are_scored_once_when_they_come(build: Build, way: str) -> None:
    """A row whose transaction ended late lies behind the cursor; it is found within the lateness, and only once."""
    site = build(way, settings={"cursor": "arrived", "lateness": 60})
    insert(site, arrived([0, 1, 2], [0, 50, 100]))
    score(site)
    insert(site, arrived([3], [70]))

    late, nothing = score(site), score(site)
    insert(site, arrived([4, 5], [90, 130]))
    both = score(site)

    assert (late.rows, nothing.outcome, both.rows) == (1, "skipped", 2)
    assert keys(site) == [0, 1, 2, 3, 4, 5]
    with opened(site) as store, store.read() as session:
        assert set(session.scalars(sa.select(RecentKey.key))) == {"2", "3", "4", "5"}


@pytest.mark.parametrize("way", ["table to files", "table to table"])
@pytest.mark.parametrize("cursor", ["arrived", "number"])
def test_rows_at_the_cursor_are_scored_once(build: Build, way: str, cursor: str) -> None:
    """Also by a clock of microseconds, or by numbers of 64 bits, which are rounded as numbers."""
    site = build(way, settings={"cursor": cursor, "lateness": 60})

    for number in range(20):
        frame = arrived([number], [number + 0.856613 + number * 0.012347])
        insert(site, frame.assign(number=2**60 + 7 * number))
        assert score(site).rows == 1

    assert keys(site) == list(range(20))
    with opened(site) as store, store.read() as session:
        assert sum(session.scalars(sa.select(Batch.quarantined))) == 0


def test_rows_later_than_allowed_are_counted_and_can_be_backfilled(build: Build) -> None:
    """They are not scored by themselves; housekeeping tells of them, and a backfill scores them, once."""
    site = build(settings={"cursor": "arrived", "lateness": 10})
    insert(site, arrived([0, 1], [0, 100]))
    score(site)
    with opened(site) as store:
        first = tidy(context(site, store))
        with store.write() as session:
            now = datetime.now(UTC)
            session.add(
                Run(
                    job="housekeeping", trigger="", instance="", started_at=now, outcome="done", facts=dict(first.facts)
                )
            )
    insert(site, arrived([2], [20]))

    assert score(site).outcome == "skipped"
    with opened(site) as store:
        second = tidy(context(site, store))
    assert second.gauges == {"rows_too_late": 1}
    assert "1 row came later" in second.note
    assert run(site, replay.backfill, since="2026-03-01T12:00", until="2026-03-01T12:00:50").facts["scored"] == 1
    assert run(site, replay.backfill).facts["scored"] == 0
    assert keys(site) == [0, 1, 2]


def test_rows_of_one_moment_are_never_parted(build: Build) -> None:
    """A batch ends where the column's value changes, or the rest of a moment would be left behind."""
    site = build(settings={"cursor": "arrived", "lateness": 0, "batch_rows": 3})
    insert(site, arrived(list(range(9)), [0, 0, 1, 1, 1, 1, 2, 2, 3]))

    found = score(site)

    assert found.facts["batches"] == 2
    assert keys(site) == list(range(9))


def test_backfill_scores_what_the_start_left_out(build: Build) -> None:
    """With ``start: new`` history is left alone until it is asked for; then it is scored once."""
    site = build("table to table", settings={"start": "new", "lateness": 0})
    insert(site, draw(20, first=0, seed=0))
    before = score(site)
    insert(site, draw(5, first=20, seed=1))
    after = score(site)

    found = run(site, replay.backfill, until="19")

    assert (before.outcome, after.rows, found.rows) == ("skipped", 5, 20)
    assert keys(site) == list(range(25))
    with opened(site) as store, store.read() as session:
        trail = session.scalars(sa.select(Audit)).one()
        assert (trail.actor, trail.reason, trail.action, trail.rows) == ("ann", "asked", "backfill", 20)
        assert trail.arguments == {"until": "19"}
        assert session.get_one(Cursor, "soak").position == {"column": "id", "number": 24}


def test_backfill_that_is_cut_short_leaves_its_trail(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asked is written down before anything is done; the open batch is scored by the next run."""
    site = build("table to table", settings={"start": "new", "lateness": 0})
    insert(site, draw(20, first=0, seed=0))
    score(site)
    with monkeypatch.context() as cut:
        cut.setattr(Scoring, "process", lambda *_, **__: pytest.fail("the power is cut"))
        with pytest.raises(pytest.fail.Exception, match="power is cut"):
            run(site, replay.backfill)

    assert score(site).rows == 20
    assert keys(site) == list(range(20))
    with opened(site) as store, store.read() as session:
        trail = session.scalars(sa.select(Audit)).one()
        assert (trail.actor, trail.action, trail.batches) == ("ann", "backfill", 0)


def test_backfill_of_files_takes_those_that_were_skipped(build: Build) -> None:
    """Files that were there at the first look are scored when asked for."""
    site = build("files to files", settings={"start": "new"})
    put(site, "old.csv", 0, 20)
    score(site)
    put(site, "new.csv", 20, 10)
    score(site)

    assert keys(site) == list(range(20, 30))
    assert run(site, replay.backfill).rows == 20
    assert keys(site) == list(range(30))
    assert run(site, replay.backfill, files=["new.csv"]).facts["scored"] == 0  # its rows have scores
    assert keys(site) == list(range(30))
    with pytest.raises(SettingError, match=r"no file 'nwe.csv'.*Did you mean 'new.csv'"):
        run(site, replay.backfill, files=["nwe.csv"])
    with pytest.raises(SettingError, match="Files have no position"):
        run(site, replay.backfill, since="3")


@pytest.mark.parametrize("way", ["files to files", "files to table", "table to files", "table to table"])
def test_replay_with_the_same_detector_changes_nothing(build: Build, way: str) -> None:
    """The same rows have the same scores, each once."""
    site = build(way)
    site.add(30)
    score(site)
    site.add(20)
    score(site)

    found = run(site, replay.replay)

    assert found.facts["batches"] == 2
    assert found.facts["scored"] == 50
    assert site.count() == {"lost": 0, "doubled": 0, "unknown": 0, "open": 0}
    with opened(site) as store, store.read() as session:
        assert [trail.action for trail in session.scalars(sa.select(Audit))] == ["replay", "replay"]


@pytest.mark.parametrize("way", ["files to files", "table to table"])
def test_replay_leaves_rows_that_could_not_be_used(build: Build, way: str) -> None:
    """Rows without scores are not scored again, so they stay in the quarantine, each once, and are counted."""
    site = build(way)
    rows = draw(30, first=0, seed=0).astype({"amount": object})
    rows.loc[[3, 4], "amount"] = ["1.2.3", "odd"]
    if way == "files to files":
        rows.to_csv(site.input / "a.csv", index=False)
        os.utime(site.input / "a.csv", (0, 0))
    else:
        insert(site, rows)
    assert score(site).facts["quarantined"] == 2
    (place,) = (site.folder / "scores.quarantine").glob("*.csv")
    before = place.read_text()

    found = [run(site, replay.replay) for _ in range(2)]

    assert place.read_text() == before
    assert [each.facts["scored"] for each in found] == [28, 28]
    with opened(site) as store, store.read() as session:
        batch = session.scalars(sa.select(Batch)).one()
        assert (batch.rows, batch.scored, batch.quarantined) == (30, 28, 2)


def test_replay_of_a_batch_without_scores_says_so(build: Build) -> None:
    """Scores that were deleted, or never were, are no "0 of 0 rows": what helps is named, and nothing is touched."""
    site = build("files to files")
    rows = draw(5, first=0, seed=0).astype({"amount": object}).assign(amount="odd")
    rows.to_csv(site.input / "a.csv", index=False)
    os.utime(site.input / "a.csv", (0, 0))
    score(site)

    found = run(site, replay.replay)

    assert "batch 1 was left as it is: no row of it has scores (any more): `detector backfill`" in found.note
    with opened(site) as store, store.read() as session:
        assert session.scalars(sa.select(Batch.quarantined)).all() == [5]
        assert session.scalars(sa.select(Audit)).all() == []


def test_replay_with_a_new_detector_stands_beside_the_old_scores(
    build: Build, tmp_path: Path, tiny_bundle: Path
) -> None:
    """A row has one score of each model version."""
    site = build("files to table", shares=True)
    site.add(30)
    score(site)
    schema = Schema(key="id", time="at", numeric=("amount", "fee"))
    other = TabularDetector(schema=schema, members=("forest",), trees=5).fit(draw(300, first=0, seed=2))
    config = site.folder / "detector.yaml"
    bundle = save(other.scorer_, tmp_path / "other")
    config.write_text(config.read_text().replace(str(tiny_bundle), str(bundle)))

    run(site, replay.replay, batches=[1])

    assert set(site.scored().values()) == {2}
    with opened(site) as store, store.read() as session:
        note = session.scalars(sa.select(Audit.arguments)).one()
        assert note["model_before"] != note["model_after"]
        assert session.get_one(Batch, 1).model_version == note["model_after"]
    with pytest.raises(NotFoundError, match="no batch 7 that was scored"):
        run(site, replay.replay, batches=[7])
    with pytest.raises(SettingError, match="Expected a time such as"):
        run(site, replay.replay, since="yesterday")
    assert run(site, replay.replay, until="2020-01-01").outcome == "skipped"


def test_replay_leaves_a_batch_whose_file_is_gone(build: Build) -> None:
    """Its scores stand."""
    site = build("files to files")
    put(site, "a.csv", 0, 20)
    score(site)
    (site.input / "a.csv").unlink()

    assert "batch 1 was left as it is" in run(site, replay.replay).note
    assert keys(site) == list(range(20))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"cursor": None}, SettingError, "`service.cursor` names no column"),
        ({"cursor": "idd"}, SchemaError, "Did you mean 'id'"),
        ({"cursor": "name"}, SettingError, "Expected numbers or times that grow"),
    ],
    ids=str,
)
def test_table_that_cannot_be_followed(
    build: Build, settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    """The message names the column and what to do."""
    site = build(settings=settings)
    insert(site, draw(3, first=0, seed=0).assign(name="x"))

    with pytest.raises(error, match=match):
        score(site)


def test_another_cursor_column_is_refused(build: Build) -> None:
    """How far the table was scored cannot be told by another column."""
    site = build()
    insert(site, arrived([0, 1], [0, 1]))
    score(site)
    config = site.folder / "detector.yaml"
    config.write_text(config.read_text().replace("cursor: id", "cursor: arrived"))

    with pytest.raises(SettingError, match="was 'id' so far and is 'arrived' now"):
        score(site)


def test_housekeeping_deletes_old_records_and_leftovers(build: Build) -> None:
    """What is older than ``keep_runs`` goes, also files that a crash left over."""
    site = build("files to files", settings={"keep_runs": 1})
    put(site, "a.csv", 0, 20)
    score(site)
    orphans = site.folder / "scores" / ".orphans"
    orphans.mkdir()
    (orphans / "batch-00000009-x.parquet").touch()
    import os

    os.utime(orphans / "batch-00000009-x.parquet", (0, 0))
    with opened(site) as store:
        old = datetime.now(UTC) - timedelta(days=3)
        with store.write() as session:
            session.add(Run(job="score", trigger="", instance="", started_at=old, outcome="done", facts={}))

        found = tidy(context(site, store))

    assert found.facts["runs_deleted"] == found.facts["files_deleted"] == 1


def test_deliver_gives_each_its_turn(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails keeps no other from sending; the run counts as failed."""

    def fail(_: object) -> int:
        raise SettingError("no address")

    site = build()
    with opened(site) as store:
        assert deliver(context(site, store)).note == "nothing is due to be sent"
        monkeypatch.setitem(DELIVERIES, "letters", fail)
        monkeypatch.setitem(DELIVERIES, "parcels", lambda _: 3)
        with pytest.raises(SettingError, match="no address"):
            deliver(context(site, store))
        monkeypatch.delitem(DELIVERIES, "letters")
        assert deliver(context(site, store)).note == "sent 3 parcels"
        monkeypatch.setitem(DELIVERIES, "letters", lambda _: JobOutcome(facts={"failed": {"hook": "it has trouble."}}))
        assert deliver(context(site, store)).note == "sent 3 parcels; not sent to hook: it has trouble."
        monkeypatch.delitem(DELIVERIES, "parcels")
        assert deliver(context(site, store)).note == "not sent to hook: it has trouble."
