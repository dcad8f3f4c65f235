"""What a tracking URI points to: whether it answers, where its files go, how a person opens it.

Nothing here imports MLflow, so ``detector doctor`` and error messages stay fast.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks")
_SQLITE_HEADER = b"SQLite format 3\0"


def reachable(uri: str, *, timeout: float = 3.0) -> str | None:
    """Say what is wrong with a tracking URI, or None if it can be used.

    - ``uri``: ``sqlite:///path``, ``http(s)://server``, ``postgresql://...`` (or another database), or a folder.
    - ``timeout``: seconds to wait for an answer.

    >>> reachable("htp://tracking")
    "htp://tracking is no tracking URI: the scheme 'htp' is unknown. Use sqlite:///FILE or http(s)://SERVER."
    """
    scheme = scheme_of(uri)
    if scheme in ("http", "https"):
        return _server_fault(uri, timeout)
    if scheme == "sqlite":
        return _sqlite_fault(local_path(uri))
    if scheme in ("", "file"):
        return _folder_fault(local_path(uri))
    if scheme in DATABASES:
        return _database_fault(uri, timeout)
    if scheme == "databricks":
        return None
    return (
        f"{mask_passwords(uri)} is no tracking URI: the scheme {scheme!r} is unknown. "
        f"Use sqlite:///FILE or http(s)://SERVER."
    )


def scheme_of(uri: str) -> str:
    """The kind of store, without a driver: ``postgresql+psycopg://`` is ``postgresql``.

    >>> scheme_of("postgresql+psycopg://db/mlflow"), scheme_of("runs")
    ('postgresql', '')
    """
    return urlsplit(uri).scheme.split("+")[0].lower() if ":" in uri else ""


def local_path(uri: str) -> Path:
    """The file or folder of a local store.

    >>> local_path("sqlite:////var/lib/detector/mlflow.db")
    PosixPath('/var/lib/detector/mlflow.db')
    """
    scheme = scheme_of(uri)
    if scheme == "sqlite":
        return Path(unquote(uri.split("?")[0].split(":///", 1)[-1])).resolve()
    return Path(unquote(urlsplit(uri).path) if scheme == "file" else uri).resolve()


def artifact_root(uri: str) -> str | None:
    """Where the files of a new experiment go, or None where the store decides itself.

    For a SQLite file it is the folder ``mlartifacts`` beside it; MLflow alone would write to the folder
    the process happens to run in.

    >>> artifact_root("sqlite:////var/lib/detector/mlflow.db")
    'file:///var/lib/detector/mlartifacts'
    """
    if scheme_of(uri) == "sqlite":
        return (local_path(uri).parent / "mlartifacts").as_uri()
    return None


def open_command(uri: str) -> str | None:
    """The command that opens a local store in a browser; None for a server, which has an address.

    >>> open_command("sqlite:////srv/mlflow.db")
    'mlflow ui --backend-store-uri sqlite:////srv/mlflow.db'
    """
    if scheme_of(uri) in ("http", "https", "databricks"):
        return None
    shown = f"sqlite:///{local_path(uri)}" if scheme_of(uri) == "sqlite" else mask_passwords(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def mask_passwords(text: str) -> str:
    """Hide the passwords of all URLs in a text.

    >>> mask_passwords("postgresql://ann:s3cret@db/mlflow")
    'postgresql://ann:***@db/mlflow'
    """
    return re.sub(r"(\w[\w+.-]*://[^\s:/@]*):[^\s/@]+(?:@[^\s/@]*)*@", r"\1:***@", text)


def _server_fault(uri: str, timeout: float) -> str | None:
    place = mask_passwords(uri)
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        if error.code < 500:  # it answers; the path may be closed or missing behind a proxy
            return None
        return f"The MLflow server at {place} answers with status {error.code}. See its log."
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"No MLflow server answers at {place} ({reason}). Start it, or correct 'tracking.uri'."


def _sqlite_fault(path: Path) -> str | None:
    if path.is_dir():
        return f"{path} is a folder, expected an SQLite file. Name a file in it, such as {path / 'mlflow.db'}."
    if not path.exists():
        return _folder_fault(path.parent)
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path} cannot be read and written by this user. Change its permissions."
    with path.open("rb") as file:
        start = file.read(len(_SQLITE_HEADER))
    if start and start != _SQLITE_HEADER:
        return f"{path} is not an SQLite file. Name another file in 'tracking.uri', or move this one away."
    return None


def _folder_fault(path: Path) -> str | None:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        return f"{existing} is a file, expected a folder. Correct 'tracking.uri'."
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written by this user. Change its permissions, or correct 'tracking.uri'."
    return None


def _database_fault(uri: str, timeout: float) -> str | None:
    from sqlalchemy import create_engine, exc

    place = mask_passwords(uri)
    keyword = "timeout" if scheme_of(uri) == "mssql" else "connect_timeout"
    try:
        engine = create_engine(uri, connect_args={keyword: max(1, round(timeout))})
        engine.connect().close()
    except (exc.SQLAlchemyError, ImportError) as error:
        reason = mask_passwords(str(getattr(error, "orig", None) or error).strip().splitlines()[0])
        return f"The database {place} does not answer ({reason}). Start it, or correct 'tracking.uri'."
    engine.dispose()
    return None
