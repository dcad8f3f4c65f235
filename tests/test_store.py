"""The service's state, in SQLite and in PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from benchmarks.soak import KILLED, Site, run
from detector.errors import StoreError
from pipelines.scoring import batch_transaction
from pipelines.service.leader import Leadership
from pipelines.store import Base, Batch, Cursor, DueTime, Run, Store, open_store
from pipelines.store import access_tables as _access_tables  # noqa: F401 - they are in the same database
from pipelines.store import alert_tables as _alert_tables  # noqa: F401 - they are in the same database
from pipelines.store import rule_tables as _rule_tables  # noqa: F401 - they are in the same database
from pipelines.store.engine import HEAD, MIGRATIONS
from tests.postgres_server import PostgresServer
from tests.service_sites import opened, put, score

pytestmark = pytest.mark.usefixtures("migrating")


@pytest.fixture
def store(each_store: Store) -> Store:
    return each_store


def test_tables_are_what_the_migrations_make(store: Store) -> None:
    """Nothing would be generated for a next migration."""
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert store.revision() == HEAD


def test_head_is_the_newest_migration() -> None:
    """The shortcut that leaves Alembic out at start knows the right one."""
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_other_tests_begin_with_what_the_migrations_make(
    tmp_path: Path, migrated_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their shortcut, a copied file, holds the same tables and the same version."""
    made, copied = open_store(f"sqlite:///{tmp_path}/made.db"), Store(f"sqlite:///{tmp_path}/copied.db")
    monkeypatch.undo()

    copied.upgrade()

    schemas = []
    for store in (made, copied):
        with store.read() as session:
            schemas.append(session.execute(sa.text("SELECT type, name, sql FROM sqlite_master ORDER BY name")).all())
        assert store.revision() == HEAD
        store.close()
    assert schemas[0] == schemas[1] != []


def test_upgrade_can_be_repeated(store: Store) -> None:
    """A second start changes nothing."""
    with store.write() as session:
        session.add(Cursor(source="a", position={"number": 1}, rows=1, moved_at=datetime.now(UTC)))

    store.upgrade()

    with store.read() as session:
        assert session.get_one(Cursor, "a").position == {"number": 1}


def go_back(store: Store, revision: str) -> None:
    """Have the tables be as an earlier version left them."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def test_jobs_that_were_pickled_are_dropped_and_keep_their_times(store: Store) -> None:
    """A state of the version that let APScheduler keep its jobs is brought up to date without reading a pickle."""
    go_back(store, "0003")
    metadata = sa.MetaData()
    old = sa.Table(  # as APScheduler makes it
        "apscheduler_jobs",
        metadata,
        sa.Column("id", sa.Unicode(191), primary_key=True),
        sa.Column("next_run_time", sa.Float(25), index=True),
        sa.Column("job_state", sa.LargeBinary, nullable=False),
    )
    metadata.create_all(store.engine)
    moment = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    with store.engine.begin() as connection:
        rows = [{"id": "score", "next_run_time": moment.timestamp()}, {"id": "drift", "next_run_time": None}]
        connection.execute(sa.insert(old), [row | {"job_state": b"no pickle"} for row in rows])

    store.upgrade()

    with store.read() as session:
        assert not sa.inspect(session.connection()).has_table("apscheduler_jobs")
        (found,) = session.scalars(sa.select(DueTime))
        assert (found.job, found.due_at, found.settings) == ("score", moment, {})


def test_state_of_a_newer_version_is_refused(store: Store) -> None:
    """The message says what to install or restore."""
    with store.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(StoreError, match=r"written by a newer version .*restore the backup"):
        store.upgrade()


def test_times_keep_their_moment(store: Store) -> None:
    """A time comes back as UTC, whatever zone it was given in."""
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    with store.write() as session:
        session.add(Run(job="score", trigger="", instance="", started_at=moment, outcome="done", facts={}))

    with store.read() as session:
        found = session.scalars(sa.select(Run.started_at)).one()

    assert found == moment
    assert found.tzinfo == UTC


def test_failed_transaction_keeps_nothing(store: Store) -> None:
    """All of it, or nothing."""

    def fail() -> None:
        with store.write() as session:
            session.add(Cursor(source="a", rows=1, moved_at=datetime.now(UTC)))
            session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()

    with store.read() as session:
        assert session.get(Cursor, "a") is None


def test_leadership_works(store: Store) -> None:
    """The lease does the same in both databases."""
    first, second = (Leadership(store, seconds=0.05, instance=name) for name in ("a", "b"))

    assert [first.lead(), second.lead(), first.lead()] == [True, False, True]
    first.release()
    assert second.lead()


def test_sqlite_writes_ahead_and_waits(tmp_path: Path) -> None:
    """Readers are not held up by a writer; a power cut loses nothing that was committed."""
    store = open_store(f"sqlite:///{tmp_path}/service.db")
    with store.read() as session:
        found = {name: session.execute(sa.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")}
    store.close()

    assert found == {"journal_mode": "wal", "synchronous": 2}


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("mysql+pymysql://ann:secret@localhost/x", "SQLite or PostgreSQL|needs the Python package"),
        ("sqlite:////nowhere/at/all/service.db", "There is no folder"),
    ],
)
def test_place_that_cannot_be_is_refused(url: str, match: str) -> None:
    """The message names the setting, and no password."""
    with pytest.raises((StoreError, ImportError), match=match) as caught:
        open_store(url)

    assert "secret" not in str(caught.value)


def test_same_database_is_reported(tmp_path: Path) -> None:
    """One transaction can hold scores and cursor only in one database."""
    store = Store(f"sqlite:///{tmp_path}/a.db")

    assert store.is_same_database(f"sqlite:///{tmp_path}/../{tmp_path.name}/a.db")
    assert not store.is_same_database(f"sqlite:///{tmp_path}/b.db")
    assert not store.is_same_database("postgresql://localhost/a")
    store.close()


class PostgresSite(Site):
    """A site whose state and scores are in PostgreSQL."""

    def counts(self) -> tuple[int, int, int]:
        """Rows, different keys, open batches."""
        with opened(self) as store, store.read() as session:
            try:
                rows, keys = session.execute(sa.text("SELECT count(*), count(DISTINCT id) FROM scores")).one()
            except sa.exc.ProgrammingError:
                session.rollback()
                rows = keys = 0
            open_batches = session.scalar(sa.select(sa.func.count()).where(Batch.state != "done"))
        return int(rows), int(keys), int(open_batches or 0)


@pytest.fixture
def postgres_site(postgres: PostgresServer, tiny_bundle: Path, tmp_path: Path) -> PostgresSite:
    url = postgres.url(f"site_{abs(hash(tmp_path))}")
    return PostgresSite(tmp_path / "site", tiny_bundle, "files to table", shares=True, store=url)


@pytest.mark.parametrize("point", ["score.claimed", "landing.insert", "score.committing", "score.committed"])
def test_killed_run_on_postgresql(postgres_site: PostgresSite, point: str) -> None:
    """As with SQLite: after SIGKILL the next run scores every row once."""
    put(postgres_site, "a.parquet", 0, 50)

    assert run(postgres_site.folder, f"{point}:1") == KILLED
    put(postgres_site, "b.parquet", 50, 20)
    assert run(postgres_site.folder) == 0

    assert postgres_site.counts() == (70, 70, 0)


@pytest.mark.parametrize("point", ["score.computed", "score.moving"])
def test_database_restart_in_the_middle(
    postgres: PostgresServer, postgres_site: PostgresSite, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """A run whose database is restarted under it goes on or fails; the next one works, and every row is scored once."""
    put(postgres_site, "a.parquet", 0, 50)
    reached = batch_transaction.failpoint

    def restart(name: str) -> None:
        reached(name)
        if name == point:
            postgres.stop()
            postgres.start()

    monkeypatch.setattr(batch_transaction, "failpoint", restart)
    outcomes: list[Any] = []
    try:
        outcomes.append(score(postgres_site).rows)
    except StoreError as error:
        outcomes.append(str(error))
    monkeypatch.undo()
    score(postgres_site)

    assert outcomes[0] == 50 or "cannot be used" in outcomes[0]
    assert (point == "score.moving") == isinstance(outcomes[0], str)
    assert postgres_site.counts() == (50, 50, 0)


def _unversioned(file: Path) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("DELETE FROM alembic_version")
    connection.close()


def _emptied(file: Path) -> None:
    file.write_bytes(b"")
    os.utime(file, (0, 0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_emptied, "is an empty file, as a full disk may leave it. Restore a backup"),
        (
            lambda file: file.write_bytes(b"hello " * 10_000),
            "not a database. Is `service.store` the right file",
        ),
        (lambda file: os.truncate(file, 20_000), "malformed. Restore a backup"),
        (_unversioned, "does not say its version: it is damaged. Restore a backup"),
    ],
    ids=["empty", "text", "cut", "no version"],
)
def test_damaged_state_says_what_to_do(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    """It is neither used nor made anew without a word."""
    url, file = f"sqlite:///{tmp_path}/service.db", tmp_path / "service.db"
    open_store(url).close()
    damage(file)
    size = file.stat().st_size

    with pytest.raises(StoreError, match=message):
        open_store(url)

    assert file.stat().st_size == size
