"""Rows that come again, as in an export of everything: skipped where they are unchanged, scored where they are not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.soak import KILLED, Site, draw, run
from detector.schema import Schema
from pipelines.config import OutputSection, load_config
from pipelines.ingest import row_memory
from pipelines.ingest.row_marks import VALUES, Marks, RowMarker, differ, found_in, in_order, marks_of_keys
from pipelines.ingest.row_memory import RowMemory
from pipelines.scoring.replay import backfill, replay
from pipelines.service.retention import delete_old
from pipelines.sinks.batch_files import open_batch_sink
from pipelines.store import Batch, KnownRows, Store
from tests import payment_sites
from tests.payment_sites import PAYMENTS, expected, scores, settle
from tests.payment_sites import put as put_payments
from tests.payment_sites import run as run_payments
from tests.service_sites import back_date, context, opened, score

home, trained = payment_sites.home, payment_sites.trained
SCHEMA = Schema(key="id", time="at", entity="card", numeric=("amount",), categorical=("kind",), label="fraud")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tiny_bundle, "files to files")


@pytest.fixture
def store(each_store: Store) -> Store:
    return each_store


def figure(store: Store, what: sa.ColumnElement[int]) -> int:
    """One figure of what is known."""
    with store.read() as session:
        return int(session.scalar(sa.select(what)) or 0)


def export(site: Site, name: str, rows: pd.DataFrame) -> None:
    path = site.input / f"{name}.csv"
    rows.to_csv(path, index=False)
    back_date(path, 10.0)


def batches(site: Site) -> list[tuple[int, int, int, int, int]]:
    """Rows, scored, quarantined, repeated and corrected of each batch."""
    with opened(site) as store, store.read() as session:
        found = session.scalars(sa.select(Batch).order_by(Batch.id))
        return [(each.rows, each.scored, each.quarantined, each.repeated, each.corrected) for each in found]


ROWS = draw(300, first=0, seed=1)


def test_export_of_everything_is_scored_once(site: Site) -> None:
    """Each file holds all rows of the one before it; what is skipped is counted and told."""
    export(site, "week-1", ROWS[:100])
    score(site)
    export(site, "week-2", ROWS[:150])

    outcome = score(site)

    assert outcome.note.startswith("scored 50 of 150 rows, flagged")
    assert outcome.note.endswith("; skipped 100 rows that came before unchanged")
    assert outcome.facts["repeated"] == 100
    assert batches(site) == [(100, 100, 0, 0, 0), (150, 50, 0, 100, 0)]
    assert site.scored() == Counter(range(150))


def test_files_that_overlap_in_one_batch_are_scored_once(site: Site) -> None:
    """As at the first start on a folder of exports: nothing of them is quarantined."""
    export(site, "week-1", ROWS[:100])
    export(site, "week-2", ROWS[50:150])
    export(site, "week-3", ROWS[:200])

    score(site)

    assert batches(site) == [(400, 200, 0, 200, 0)]
    assert site.scored() == Counter(range(200))


def test_file_of_rows_that_all_came_before(site: Site) -> None:
    """It makes a batch of nothing, and no trouble."""
    export(site, "all", ROWS)
    score(site)
    export(site, "half", ROWS[:150])

    outcome = score(site)

    assert (outcome.outcome, outcome.facts["scored"], outcome.facts["repeated"]) == ("done", 0, 150)


def test_key_that_comes_twice_in_one_file_is_quarantined(site: Site) -> None:
    """Within one export it names no row, which people must be told."""
    export(site, "twice", pd.concat([ROWS[:100], ROWS[:10]]))

    score(site)

    assert batches(site) == [(110, 100, 10, 0, 0)]


def test_correction_is_scored_again_once(site: Site) -> None:
    """A row with other values is another version of it: both have scores, and the export after that is no news."""
    export(site, "week-1", ROWS[:100])
    score(site)
    corrected = ROWS[:100].assign(fee=ROWS["fee"].where(ROWS["id"] >= 3, 7.0))
    export(site, "week-2", corrected)

    outcome = score(site)

    assert outcome.note.endswith(
        "skipped 97 rows that came before unchanged; 3 of the scored rows came before with other values"
    )
    export(site, "week-3", pd.concat([corrected, ROWS[100:101]]))
    score(site)
    assert batches(site)[1:] == [(100, 3, 0, 97, 3), (101, 1, 0, 100, 0)]
    assert site.scored() == Counter(range(101)) + Counter(range(3))


def test_table_of_scores_keeps_the_first_and_tells_of_a_correction_once(tiny_bundle: Path, tmp_path: Path) -> None:
    """A key has one score of a detector there: rows that are unchanged are skipped, corrections quarantined once."""
    site = Site(tmp_path / "site", tiny_bundle, "files to table")
    export(site, "week-1", ROWS[:100])
    score(site)
    corrected = ROWS[:110].assign(fee=ROWS["fee"].where(ROWS["id"] >= 3, 7.0))
    for week in ("week-2", "week-3"):
        export(site, week, corrected.assign(unread=week))
        score(site)

    assert batches(site)[1:] == [(110, 10, 3, 97, 0), (110, 0, 0, 110, 0)]
    assert site.scored() == Counter(map(str, range(110)))


def test_quarantined_row_has_its_chance_in_the_next_export(site: Site) -> None:
    """It was not scored, so it is not known."""
    export(site, "week-1", ROWS[:100].assign(at=ROWS["at"].where(ROWS["id"] >= 5)))
    score(site)
    export(site, "week-2", ROWS[:100])

    score(site)

    assert batches(site) == [(100, 95, 5, 0, 0), (100, 5, 0, 95, 0)]


def test_export_that_replaces_the_one_before(tiny_bundle: Path, tmp_path: Path) -> None:
    """Of one file that is overwritten each week, newest row first, ``replaced: rescore`` scores what is new."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"replaced": "rescore"})
    for end in (100, 150):
        export(site, "claims", ROWS[:end][::-1])
        score(site)

    assert [each[3] for each in batches(site)] == [0, 100]
    assert site.scored() == Counter(range(150))


POINTS = ["score.read", "score.computed", "landing.renamed", "score.moving", "score.committing", "score.committed"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_run_skips_no_row_that_has_no_score(site: Site, point: str) -> None:
    """What is known is kept with the scores or not at all, wherever the process dies."""
    export(site, "week-1", ROWS[:100])
    score(site)
    export(site, "week-2", ROWS[:200])

    assert run(site.folder, f"{point}:1") == KILLED
    export(site, "week-3", ROWS)
    assert run(site.folder) == 0

    assert site.scored() == Counter(range(300))
    assert site.count_open() == 0


def test_rows_of_another_store(tiny_bundle: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With PostgreSQL as with SQLite."""
    url = request.getfixturevalue("postgres").url(f"exports_{abs(hash(tmp_path))}")
    site = Site(tmp_path / "site", tiny_bundle, "files to files", store=url)
    for end in (100, 150, 300):
        export(site, f"until-{end}", ROWS[:end])
        score(site)

    assert [each[3] for each in batches(site)] == [0, 100, 150]
    assert site.scored() == Counter(range(300))


def test_rows_of_an_earlier_version_are_known(site: Site) -> None:
    """After an upgrade the first export is compared by keys alone, and nothing is scored again."""
    export(site, "week-1", ROWS[:100])
    score(site)
    with opened(site) as store, store.write() as session:
        session.execute(sa.delete(KnownRows))
    for week in (2, 3):
        export(site, f"week-{week}", ROWS[: 50 * week + 50].assign(fee=7.0))
        score(site)

    assert site.scored() == Counter(range(200))
    assert [each[3:] for each in batches(site)] == [(0, 0), (100, 0), (150, 0)]


def test_broken_file_of_scores_stops_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Where the keys of an earlier version cannot be read, the log says so; those of other batches are known."""
    for name, rows in (("a", ROWS[:50]), ("b", ROWS[50:100])):
        export(site, name, rows)
        score(site)
    with opened(site) as store, store.write() as session:
        session.execute(sa.delete(KnownRows))
    next((site.folder / "scores").glob("batch-00000001*")).write_bytes(b"broken")
    export(site, "all", ROWS)

    outcome = score(site)

    assert outcome.facts["repeated"] == 50
    assert "rows of batch 1 are scored again if they come again" in caplog.text


@pytest.mark.parametrize("output", ["scores.csv", "scores.parquet", "scores.db"])
def test_scores_without_a_key_name_no_row(site: Site, store: Store, output: str) -> None:
    """As of a detector that had none: they are in nobody's way."""
    place = site.folder / output
    found = {"url": f"sqlite:///{place}", "table": "scores"} if output == "scores.db" else {"path": str(place)}
    config = load_config(site.folder)
    config = config.model_copy(update={"output": OutputSection.model_validate(found)})
    frame = pd.DataFrame({"file": ["a.csv"], "row": [0], "model_version": "x", "batch": 1})
    for key in (None, "id"):
        sink = open_batch_sink(config, store, Schema(key=key, numeric=("amount",)))
        if key is None:
            staged = sink.stage(iter([frame]), batch=1, version="x", folder=site.folder)
            sink.deliver(staged)
            with store.write() as session:
                sink.commit(staged, session, now=NOW)
                sink.show(staged)

        assert sink.keys_of(1) == (set() if key else {"a.csv 0"})


def test_rows_left_out_at_the_start_are_known(tiny_bundle: Path, tmp_path: Path) -> None:
    """``start: new`` leaves them out of the next export, too, until a backfill scores them."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"start": "new"})
    export(site, "week-1", ROWS[:100])
    score(site)
    export(site, "week-2", ROWS[:150])
    score(site)
    assert site.scored() == Counter(range(100, 150))

    with opened(site) as store:
        backfill(context(site, store))

    assert site.scored() == Counter(range(150))


def test_backfilled_rows_are_known(site: Site) -> None:
    """What a backfill scores comes no second time."""
    export(site, "a", ROWS[:100])
    score(site)
    late = site.input / "b.csv"
    late.write_text("id,at\n")
    back_date(late, 10.0)
    score(site)
    export(site, "b", ROWS[100:200])
    with opened(site) as store:
        backfill(context(site, store, arguments={"files": ["b.csv"]}))
    export(site, "all", ROWS)

    score(site)

    assert site.scored() == Counter(range(300))


def test_replay_scores_what_the_batch_had_scored(site: Site) -> None:
    """And no row more, though the file holds some."""
    export(site, "week-1", ROWS[:100])
    score(site)
    export(site, "week-2", ROWS[:150])
    score(site)

    with opened(site) as store:
        outcome = replay(context(site, store, arguments={"batches": [2]}))

    assert (outcome.facts["scored"], outcome.facts["quarantined"]) == (50, 0)
    assert site.scored() == Counter(range(150))


def test_rows_are_scored_again_if_that_is_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    """Nothing is remembered then, and what was known is not believed later."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"repeated_rows": "score"})
    export(site, "week-1", ROWS[:100])
    score(site)
    export(site, "week-2", ROWS[:100].assign(more=1))

    score(site)

    assert batches(site) == [(100, 100, 0, 0, 0)] * 2
    with opened(site) as store, store.read() as session:
        assert session.scalars(sa.select(KnownRows)).all() == []


def test_table_skips_rows_if_that_is_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    """As with a cursor that says when a row was touched: by itself a table goes on from a position, and all is news."""
    import sqlite3

    for setting, again in ((None, 100), ("skip", 0)):
        settings: dict[str, object] = {"cursor": "touched", "lateness": 0, "repeated_rows": setting}
        site = Site(tmp_path / str(setting), tiny_bundle, "table to files", settings=settings)
        for touched in (1, 2):
            with sqlite3.connect(site.folder / "source.db") as connection:
                ROWS[:100].assign(touched=touched).to_sql("rows", connection, if_exists="replace", index=False)
            connection.close()
            score(site)

        assert batches(site)[1][1] == again


def test_other_columns_are_compared_by_key_alone(site: Site, store: Store) -> None:
    """A detector that has learnt from another column makes no correction of every row."""
    before, after = (RowMarker(Schema(key="id", numeric=names), key="id") for names in (("fee",), ("amount", "fee")))
    old = RowMemory(store, "s", columns=before.columns)
    with store.write() as session:
        old.add(session, before.marks(ROWS, day=1)[0], since=0)
    marks, new = after.marks(ROWS, day=2)[0], RowMemory(store, "s", columns=after.columns)

    def none_differs() -> bool:
        known, values = new.look_up(marks)
        return bool(known.all() and not differ(values, marks[VALUES]).any())

    assert none_differs()
    with store.write() as session:
        new.add(session, marks_of(range(1_000, 1_200)), since=0)
    assert figure(store, sa.func.count(KnownRows.run.distinct())) == 1
    assert none_differs()


def test_values_are_compared_as_they_are_read() -> None:
    """How a file writes a value is no correction; a label is none, nor is an empty column that is new."""
    marker = RowMarker(SCHEMA, key="id", also=("shop",))
    typed = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "at": pd.to_datetime(["2026-01-01T10:00", "2026-01-02T00:00", "2026-01-03T00:00"]),
            "card": [7, 8, 9],
            "amount": [1.5, 0.0, np.nan],
            "kind": ["a", None, "c"],
        }
    )
    text = pd.DataFrame(
        {
            "id": ["1", " 2", "3"],
            "at": ["2026-01-01T10:00:00", "2026-01-02", "2026-01-03T01:00:00+01:00"],
            "card": ["7", "8", "9"],
            "amount": ["1.50", "-0", "NA"],
            "kind": ["a ", "", "c"],
            "fraud": ["1", "0", ""],
            "shop": ["", "", ""],
        }
    )

    np.testing.assert_array_equal(marker.marks(typed, day=1)[0], marker.marks(text, day=1)[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [("at", "2026-01-01T10:00:01"), ("card", "8"), ("amount", "1.51"), ("amount", ""), ("kind", "b"), ("shop", "x")],
)
def test_every_value_that_is_scored_counts(name: str, value: str) -> None:
    """Another value of any column that a score or a rule looks at makes a correction."""
    marker = RowMarker(SCHEMA, key="id", also=("shop",))
    row = {"id": "1", "at": "2026-01-01T10:00:00", "card": "7", "amount": "1.5", "kind": "a", "shop": ""}

    before, after = (marker.marks(pd.DataFrame([each]), day=1)[0] for each in (row, row | {name: value}))

    assert differ(before[VALUES], after[VALUES]).all()
    assert found_in(before, after)[0].all()


def test_hashes_stay_what_they_are() -> None:
    """They lie in databases: another hash would make every row new."""
    row = {"id": "A-1", "at": "2026-01-01", "card": "7", "amount": "1.5", "kind": "é", "shop": ""}
    marker = RowMarker(SCHEMA, key="id", also=("shop",))

    found = marker.marks(pd.DataFrame([row]), day=20_000)[0][:, 0]

    assert [f"{int(each):016x}" for each in found] == HASHES
    assert marker.columns == COLUMNS


HASHES = ["c61475cc70aa1eb6", "44d1a062a562f9e3", "343b0ab974384e20"]
COLUMNS = "4b442ea5db17f0bb"


def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows, so that a small memory has many."""
    monkeypatch.setattr(row_memory, "MOST_ROWS", 8)
    monkeypatch.setattr(row_memory, "PARTS_AT_ONCE", 3)
    monkeypatch.setattr(row_memory, "MOST_CACHED", 500)


def marks_of(keys: Any, *, day: int = 1) -> Marks:
    return marks_of_keys(map(str, keys), day=day)


def test_memory_is_a_set(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes of batches, it knows what was added and nothing else, in few runs."""
    in_memory(monkeypatch)
    memory, rng, known = RowMemory(store, "s"), np.random.default_rng(2), set[int]()
    for _ in range(30):
        keys = rng.integers(0, 3_000, rng.integers(1, 150)).tolist()
        found, _ = memory.look_up(marks_of(keys))
        assert found.tolist() == [key in known for key in keys]
        with store.write() as session:
            memory.add(session, marks_of(keys), since=0)
        known.update(keys)

    assert figure(store, sa.func.count(KnownRows.run.distinct())) <= 8
    assert figure(store, sa.func.max(KnownRows.rows)) <= 40
    assert figure(store, sa.func.sum(KnownRows.rows)) >= len(known)
    assert not RowMemory(store, "another").look_up(marks_of([1, 2]))[0].any()


def test_later_mark_of_a_key_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both where the runs are joined and where they are not."""
    in_memory(monkeypatch)
    memory = RowMemory(store, "s")
    for number, keys in enumerate([range(200), range(3), range(150)], start=1):
        with store.write() as session:
            memory.add(session, marks_of(keys, day=number), since=0)
        _, values = memory.look_up(marks_of([1]))
        assert values.tolist() == [number]


def test_what_was_undone_is_not_known(store: Store) -> None:
    """A transaction that fails leaves nothing behind, in memory neither."""
    memory = RowMemory(store, "s")
    with store.write() as session:
        memory.add(session, marks_of([1]), since=0)
        session.rollback()

    assert memory.is_empty
    assert not memory.look_up(marks_of([1]))[0].any()


def test_rows_are_forgotten_after_their_days(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the day on which they came last; where few are over their time by a little, they wait."""
    in_memory(monkeypatch)
    memory = RowMemory(store, "s")
    with store.write() as session:
        memory.add(session, np.hstack([marks_of(range(50), day=10), marks_of(range(50, 60), day=20)]), since=0)

    assert memory.let_go(since=11, slack=1) == 0
    assert memory.let_go(since=13, slack=1) == 50
    assert RowMemory(store, "s").look_up(marks_of(range(60)))[0].tolist() == [False] * 50 + [True] * 10
    assert memory.let_go(since=99, slack=1) == 10
    assert RowMemory(store, "s").is_empty


def test_row_in_every_export_is_known_for_ever(site: Site) -> None:
    """It is the row that does not come again whose time runs out; ``housekeeping`` lets that go."""
    first = datetime.now(UTC)
    export(site, "week-0", ROWS[:100])
    score(site, now=first)
    for week in range(1, 20):
        now = first + timedelta(days=7 * week)
        export(site, "export", ROWS[: 100 + week].iloc[10:].assign(unread=week))
        (site.input / "export.csv").rename(site.input / f"week-{week}.csv")
        score(site, now=now)
        with opened(site) as store:
            delete_old(context(site, store, now=now))

    assert site.scored() == Counter(range(119))
    with opened(site) as store:
        assert figure(store, sa.func.count(KnownRows.run.distinct())) < 6
        known = RowMemory(store, load_config(site.folder).name).look_up(marks_of(range(20)))[0]
    assert known.tolist() == [False] * 10 + [True] * 10


def test_keys_are_forgotten_where_asked(store: Store) -> None:
    """``detector forget`` lets an entity's go; a dry run counts them."""
    memory = RowMemory(store, "s")
    with store.write() as session:
        memory.add(session, marks_of(range(100)), since=0)

    assert memory.forget(marks_of([5, 6, 500]), dry=True) == 2
    assert memory.forget(marks_of([5, 6, 500]), dry=False) == 2
    assert memory.forget(marks_of([5, 6, 500]), dry=True) == 0


def test_two_keys_with_half_a_hash_in_common_lose_no_row() -> None:
    """One of them is not found, so its row is scored again."""
    one, other = marks_of([1]), marks_of([2])
    other[0] = one[0]

    known = in_order(np.hstack([one, other]))

    assert found_in(known, one)[0].tolist() == [True]
    assert found_in(known, other)[0].tolist() == [False]


def test_export_with_features_is_late_for_nothing(home: Path) -> None:
    """Rows are measured once, as if only new ones had come: none of the old ones is too late, or counted again."""
    config = settle(home)
    for end in (900, 1_200, 1_500):
        put_payments(home, f"until-{end}", PAYMENTS.iloc[750:end])
        outcome = run_payments(config)
        assert outcome.facts["quarantined"] == 0
        assert outcome.facts["repeated"] == max(0, end - 300 - 750) if end > 900 else True

    pd.testing.assert_series_equal(
        scores(home), expected(config, 750, before=PAYMENTS.iloc[:750]), check_names=False, rtol=1e-6
    )


def test_label_that_came_later_makes_no_correction(home: Path) -> None:
    """An export has what is known by now; no score changes by that."""
    config = settle(home)
    put_payments(home, "a", PAYMENTS.iloc[750:1_000].assign(is_fraud=None))
    run_payments(config)
    put_payments(home, "b", PAYMENTS.iloc[750:1_000])

    outcome = run_payments(config)

    assert (outcome.facts["repeated"], outcome.facts["corrected"]) == (250, 0)


def test_correction_that_is_too_late_is_told_once(home: Path) -> None:
    """Its features are those of its time, which is over: it is set aside, and the next export says nothing of it."""
    config = settle(home)
    rows = PAYMENTS.iloc[750:1_000]
    put_payments(home, "a", rows)
    run_payments(config)
    corrected = rows.assign(amount=rows["amount"].where(np.arange(250) != 5, 12.5))
    put_payments(home, "b", corrected)
    late = run_payments(config).facts
    put_payments(home, "c", pd.concat([corrected, PAYMENTS.iloc[1_000:1_010]]))

    again = run_payments(config).facts

    assert (late["quarantined"], late["corrected"], late["repeated"]) == (1, 0, 249)
    assert (again["quarantined"], again["scored"], again["repeated"]) == (0, 10, 250)
