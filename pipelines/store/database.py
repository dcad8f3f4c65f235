"""Databases by URL: how to connect, and how to say what went wrong without a password in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from detector.errors import MissingExtraError, SettingError, SinkError, SourceError, nearest
from pipelines.config.values import hide_password

Failure = type[SourceError] | type[SinkError]

BUSY_SECONDS = 30
"""How long another program that writes to an SQLite file is waited for."""

_PLAIN_POSTGRES = ("postgresql", "postgres")
_SAID_ALREADY = re.compile(
    r"(connection failed: )?connection to server at \S+( \(\S+\))?, port \d+ failed: |\n\tIs the server running[^?]*\?"
)
"""What PostgreSQL's client says around a cause: the address, and to look whether the server runs."""
_SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "key")


class Database:
    """A database and how to name it in a message.

    - ``url``: any SQLAlchemy URL. A plain ``postgresql://`` is taken with psycopg 3.
    - ``create``: whether an SQLite file that does not exist may be created.

    Raises ``SettingError`` if the URL cannot be read or names an unknown kind of database; ``MissingExtraError`` if the
    driver is not installed; ``SourceError`` or ``SinkError`` if an SQLite file is not there.
    """

    def __init__(self, url: str, *, failure: Failure = SourceError, create: bool = False) -> None:
        self.url = _parse(url)
        self.name = hide_password(self.url.render_as_string(hide_password=False))
        self.failure = failure
        if (problem := _sqlite_problem(self.url, create=create)) is not None:
            raise failure(problem)
        try:
            waits = {"timeout": BUSY_SECONDS} if self.url.get_backend_name() == "sqlite" else {}
            self.engine: Engine = sa.create_engine(self.url, connect_args=waits)
        except NoSuchModuleError:
            raise SettingError(
                f"{self.name} names an unknown kind of database, {self.url.drivername!r}. "
                f"Known are sqlite, postgresql, mysql, mssql, oracle, and others by their own packages."
            ) from None
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{self.name} needs the Python package {error.name!r}. Install it: pip install {error.name}."
            ) from None
        if self.url.get_backend_name() == "sqlite":
            _begin_explicitly(self.engine)

    @property
    def is_missing_file(self) -> bool:
        """Whether this is an SQLite file that the first connection would create."""
        file = _sqlite_file(self.url)
        return file is not None and not file.exists()

    def table(self, connection: Connection, name: str) -> sa.Table | None:
        """A table or view as it is, or None if there is none of this name; ``schema.table`` is understood."""
        inspector = sa.inspect(connection)
        schema, _, short = name.rpartition(".")
        for space, title in ((None, name), (schema, short)):
            if (space is None or space) and inspector.has_table(title, schema=space):
                return sa.Table(title, sa.MetaData(), schema=space, autoload_with=connection)
        return None

    def unknown_table(self, connection: Connection, name: str) -> str:
        """What to say of a table that is not there."""
        inspector = sa.inspect(connection)
        schema = name.rpartition(".")[0] or None
        try:
            known = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
        except (SQLAlchemyError, NotImplementedError):
            known = []
        hint = nearest(name.rpartition(".")[2], known)
        return f"There is no table {name!r} in {self.name}. {hint}"

    def cause(self, error: Exception) -> str:
        """What a driver said, in one line, without the passwords of the URL."""
        text = str(getattr(error, "orig", None) or error)
        text = " ".join(_SAID_ALREADY.sub("", text.split("\n[SQL:")[0]).split())
        for secret in _secrets(self.url):
            text = text.replace(secret, "***")
        return text[:500].rstrip(".?! ")

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """One connection; what is not committed in it is undone.

        Raises ``SourceError`` or ``SinkError`` if the database cannot be reached.
        """
        try:
            connection = self.engine.connect()
        except SQLAlchemyError as error:
            raise self.failure(
                f"{self.name} cannot be reached: {self.cause(error)}. Check that it runs, and the host, the "
                f"port, the user and the password."
            ) from None
        try:
            yield connection
        finally:
            connection.close()
            self.engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingError(
            "The database URL cannot be read. Expected kind://user:password@host:port/name, such as "
            "sqlite:///data.db; write an @, : or / inside a password as %40, %3A or %2F, or use ${NAME}."
        ) from None
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in _PLAIN_POSTGRES else parsed


def _sqlite_file(url: URL) -> Path | None:
    file = url.database
    if url.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return None
    return Path(file)


def _sqlite_problem(url: URL, *, create: bool) -> str | None:
    path = _sqlite_file(url)
    if path is None:
        return None
    if path.is_dir():
        return f"{path} is a folder. Expected an SQLite file."
    if path.exists() or (create and path.parent.is_dir()):
        return None
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} for the SQLite file {path.name}. Create it first."
    known = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    return f"There is no SQLite file {path}. {nearest(path.name, known)}"


def _begin_explicitly(engine: Engine) -> None:
    """Make SQLite's CREATE TABLE part of the transaction; its Python driver would commit it at once."""

    @sa.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")


def _secrets(url: URL) -> Iterable[str]:
    """What must not be shown; a password of one or two letters would star out half of a message."""
    if url.password and len(url.password) > 2:
        yield str(url.password)
    for name, value in url.query.items():
        if any(word in name.lower() for word in _SECRET_WORDS):
            yield from (value,) if isinstance(value, str) else value
