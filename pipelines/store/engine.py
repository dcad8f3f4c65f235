"""Open the service's state, and bring its tables up to date."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from detector.errors import SinkError, StoreError
from pipelines.disk import room
from pipelines.store.alert_tables import Answer
from pipelines.store.database import BUSY_SECONDS, Database
from pipelines.store.tables import Base

HEAD = "0011"
"""The newest migration; the tables are looked at with Alembic only if they do not have it."""

IDS_A_QUERY = 500
LOOKED_AT = 1_000
"""Rows of an index that SQLite looks at to tell how many there are of each value; all of a large one take long."""

NEW_SECONDS = 60.0
"""An empty file younger than that is one that another instance is just creating."""

RESTORE = "Restore a backup; or remove the file to begin anew, and all rows that are there are scored again."
_HINTS = {
    "readonly": "May this user write to the file, and to the folder that it is in?",
    "unable to open": "May this user write to the folder that it is in?",
    "is full": "Make room: nothing is lost meanwhile, and the service goes on by itself.",
    "disk I/O error": "Look whether the disk is full or fails, and whether files of this process may grow (ulimit -f).",
    "database is locked": f"Another process has been writing for more than {BUSY_SECONDS} seconds: try again later.",
    "malformed": RESTORE,
    "not a database": f"Is `service.store` the right file? {RESTORE}",
    "no such table": RESTORE,
}
_NO_ROOM = ("is full", "disk I/O error", "unable to open")
"""What SQLite says when it may be that a disk has no room left."""
MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 4_719_012_638  # any number, the same for all instances


class Store:
    """The service's state in a database.

    - ``url``: any SQLAlchemy URL of SQLite or PostgreSQL; an SQLite file is created when missing, and uses a
      write-ahead log.

    Raises ``StoreError`` if it is another kind of database, or an SQLite file that cannot be there.
    """

    def __init__(self, url: str) -> None:
        try:
            self._database = Database(url, failure=SinkError, create=True)
        except SinkError as error:
            raise StoreError(f"`service.store`: {error}") from None
        self.name = self._database.name
        self.url = self._database.url
        self.kind = self.url.get_backend_name()
        if self.kind not in ("sqlite", "postgresql"):
            raise StoreError(
                f"`service.store` must be SQLite or PostgreSQL, received {self.name}. "
                f"Name an SQLite file, such as sqlite:///service.db, or a PostgreSQL database."
            )
        self.engine = _sqlite(self.url) if self.kind == "sqlite" else _postgresql(self.url)

    def __repr__(self) -> str:
        return f"Store({self.name})"

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def analyze(self) -> None:
        """Have the database look how many rows have which values, by which it chooses indexes.

        Raises ``StoreError`` if the database cannot be reached or refuses.
        """
        with self.write() as session:
            if self.kind == "sqlite":
                session.execute(sa.text(f"PRAGMA analysis_limit = {LOOKED_AT}"))
            for table in Base.metadata.sorted_tables:
                session.execute(sa.text(f"ANALYZE {table.name}"))

    def is_same_database(self, url: str) -> bool:
        """Whether a URL names the database that the state is in, so that one transaction can hold both."""
        other = Database(url, failure=SinkError, create=True).url
        if self.kind != other.get_backend_name():
            return False
        if self.kind == "sqlite":
            return bool(self.url.database and other.database) and _real(self.url) == _real(other)
        return all(getattr(self.url, part) == getattr(other, part) for part in ("host", "port", "database", "username"))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that may write; all of it is kept, or nothing.

        Raises ``StoreError`` if the database cannot be reached or refuses.
        """
        with self._connection(reads_only=False) as connection, Session(connection) as session:
            yield session
            try:
                session.commit()
            except SQLAlchemyError as error:
                raise self.failure(error) from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One look at the state; what is changed in it is undone.

        Raises ``StoreError`` if the database cannot be reached or refuses.
        """
        with self.look() as connection, Session(connection) as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """The same for statements alone, which spares the time that a session takes.

        Raises ``StoreError`` if the database cannot be reached or refuses.
        """
        with self._connection(reads_only=True) as connection:
            yield connection

    def failure(self, error: SQLAlchemyError) -> StoreError:
        """The error to raise for one of the database's."""
        cause = self._database.cause(error)
        hints = [hint for words, hint in _HINTS.items() if words in cause]
        if self.kind == "sqlite" and any(words in cause for words in _NO_ROOM):
            hints.append(room([Path(str(self.url.database))]))
        return StoreError(" ".join([f"The service's state in {self.name} cannot be used: {cause}.", *hints]))

    @contextmanager
    def _connection(self, *, reads_only: bool) -> Iterator[Connection]:
        try:
            with self.engine.connect().execution_options(reads_only=reads_only) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self.failure(error) from error

    def _check_file(self) -> None:
        """Refuse an empty file, which SQLite would take for a new database: with it the scores' position is lost."""
        file = Path(str(self.url.database)) if self.kind == "sqlite" else None
        if file is None or not file.is_file():
            return
        found = file.stat()
        if found.st_size == 0 and time.time() - found.st_mtime > NEW_SECONDS:
            raise StoreError(
                f"The service's state in {self.name} is an empty file, as a full disk may leave it. {RESTORE}"
            )

    def revision(self) -> str | None:
        """The newest migration that the tables have had; None before the first."""
        with self.read() as session:
            if not sa.inspect(session.connection()).has_table("alembic_version"):
                return None
            found = session.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            if found is None and sa.inspect(session.connection()).has_table(Answer.__tablename__):
                raise StoreError(
                    f"The service's state in {self.name} does not say its version: it is damaged. {RESTORE}"
                )
        return None if found is None else str(found)

    def upgrade(self) -> None:
        """Bring the tables up to date; nothing happens if they are. Several instances may do so at once.

        Raises ``StoreError`` if the tables were made by a newer version, or cannot be changed.
        """
        self._check_file()
        if self.revision() == HEAD:
            return
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        try:
            with self.engine.begin() as connection:  # with SQLite, this waits for another instance that is at it
                if self.kind == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(
                f"The service's state in {self.name} was written by a newer version ({error}). "
                f"Install that version, or restore the backup made before the upgrade."
            ) from None
        except SQLAlchemyError as error:
            raise self.failure(error) from error


def open_store(url: str) -> Store:
    """Open the state and bring its tables up to date.

    Raises ``StoreError`` if it cannot be reached, or a newer version wrote it.
    """
    store = Store(url)
    store.upgrade()
    return store


def upsert(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or replace those that are there with the same primary key."""
    if not rows:
        return
    dialect = session.get_bind().dialect.name
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    keys = [column.name for column in sa.inspect(table).primary_key]
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=others), list(rows))


def chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """No more at once than a database takes in one query.

    >>> [len(some) for some in chunks(str(number) for number in range(700))]
    [500, 200]
    """
    every = list(ids)
    return (every[start : start + IDS_A_QUERY] for start in range(0, len(every), IDS_A_QUERY))


def _real(url: sa.URL) -> Path:
    return Path(str(url.database)).resolve()


def _sqlite(url: sa.URL) -> Engine:
    # Lists differ in length, so each connection would fill up with statements that are never used again.
    options = {"timeout": BUSY_SECONDS, "cached_statements": 16}
    engine = sa.create_engine(url, connect_args=options)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late for a consistent read
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # or a power cut could undo what a message has already said
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes then can fail at once when another writes: so writers say it first.
        reads_only = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: sa.URL) -> Engine:
    # A connection that a restart of the server has cut is noticed before it is used.
    return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})


def existing_store(url: str, *, writes: bool = False) -> Store | None:
    """The state that a service keeps at an address, if there is one; a command that only looks makes none.

    - ``writes``: bring the tables up to date; else the state of an earlier version is left as it is.

    Raises ``StoreError`` if it cannot be reached, or another version wrote it.
    """
    store = Store(url)
    if store.kind == "sqlite" and not Path(store.url.database or "").is_file():
        return None
    with store.read() as session:
        if not sa.inspect(session.connection()).has_table(Answer.__tablename__):
            return None
    revision = store.revision()
    if writes or str(revision) > HEAD:
        store.upgrade()  # which refuses the state of a newer version
    elif revision != HEAD:
        raise StoreError(
            f"The service's state in {store.name} is that of an earlier version: its tables are at {revision}, this "
            f"version's at {HEAD}. Stop that version if it still runs, back the state up, and start `detector serve`, "
            f"which brings the tables up to date."
        )
    return store
