"""A run of many batches: time goes on, another detector is promoted, and the source never rests."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.soak import Site, draw
from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save
from detector.schema import Schema
from pipelines.scoring import job
from pipelines.scoring.batch_transaction import Scoring
from pipelines.store import Batch
from tests.service_sites import opened, put, score

Build = Callable[..., Site]


@pytest.fixture
def build(tiny_bundle: Path, tmp_path: Path) -> Build:
    def _build(way: str, *, bundle: Path = tiny_bundle, **settings: object) -> Site:
        return Site(tmp_path / "site", bundle, way, settings=settings)

    return _build


def after_each_batch(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Have something happen once a batch is scored."""
    run = Scoring.run

    def watched(self: Scoring, batch: Batch) -> str | None:
        found = run(self, batch)
        then()
        return found

    monkeypatch.setattr(Scoring, "run", watched)


def insert(site: Site, *, first: int, rows: int) -> None:
    with closing(sqlite3.connect(site.folder / "source.db")) as connection:
        draw(rows, first=first, seed=first).to_sql("rows", connection, if_exists="append", index=False)


def batches(site: Site) -> list[Batch]:
    with opened(site) as store, store.read() as session:
        found = list(session.scalars(sa.select(Batch).order_by(Batch.id)))
        session.expunge_all()
    return found


def test_source_that_never_rests_leaves_the_rest_to_the_next_run(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends once it has scored what was there, though rows come all the time: the schedule decides how often."""
    site = build("table to files", batch_rows=10)
    insert(site, first=0, rows=25)
    more = iter(range(25, 40))
    after_each_batch(monkeypatch, lambda: insert(site, first=next(more), rows=1))

    first, second = score(site), score(site)

    assert (first.rows, first.facts["batches"]) == (27, 3)
    assert (second.rows, second.facts["batches"]) == (1, 1)


def test_files_that_come_meanwhile_are_for_the_next_run(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of files, of which a new one has always settled."""
    site = build("files to files")
    put(site, "0.csv", 0, 10)
    more = iter(range(1, 10))
    after_each_batch(monkeypatch, lambda: put(site, f"{(number := next(more))}.csv", 10 * number, 10))

    assert [score(site).rows for _ in range(3)] == [10, 10, 10]


def test_promotion_counts_from_the_next_batch(
    build: Build, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever rolls back while a backlog is scored does not wait for its end."""
    link = tmp_path / "bundle"
    link.symlink_to(tiny_bundle)
    schema = Schema(key="id", time="at", numeric=("amount", "fee"))
    other = TabularDetector(schema=schema, members=("forest",), trees=5).fit(draw(300, first=0, seed=2))
    better = save(other.scorer_, tmp_path / "better")
    site = build("files to files", bundle=link, batch_rows=20)
    for number in range(4):
        put(site, f"{number}.csv", 20 * number, 20)

    def promote() -> None:
        link.unlink()
        link.symlink_to(better)

    after_each_batch(monkeypatch, promote)

    found = score(site)

    versions = [batch.model_version for batch in batches(site)]
    assert versions[0] != versions[1]
    assert versions[1:] == [versions[1]] * 3
    assert found.facts["scored"] == 80
    assert site.count()["doubled"] == 0


def test_each_batch_is_scored_at_its_own_time(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the rows of a long run would seem to come from the future, and be quarantined."""
    site = build("files to files", batch_rows=20)
    for number in range(3):
        put(site, f"{number}.csv", 20 * number, 20)
    hours = itertools.count(0, 3_600)
    monkeypatch.setattr(job.time, "monotonic", lambda: float(next(hours)))

    score(site)

    first, *later = [batch.done_at for batch in batches(site)]
    assert first is not None
    assert [moment - first for moment in later if moment] == [timedelta(hours=1), timedelta(hours=2)]
