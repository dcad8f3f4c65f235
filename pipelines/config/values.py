"""The kinds of value a setting can have that plain types do not say: places, addresses, shares."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from pipelines.cron import zone_of

DEFAULT_STORE = "sqlite:///service.db"
"""Where the service keeps its state, if nothing else is said."""

VERDICTS = (
    "risk",
    "p_value",
    "flagged",
    "severity",
    "reasons",
    "reasons_json",
    "unsupervised_risk",
    "decided_by",
    "explored",
    "chance",
    "rules_hit",
    "hidden_by",
    "rules_version",
)
"""The columns of the scores that say something of a row; no column of the table may have such a name."""

VARIABLE = _VARIABLE = re.compile(r"\$\{([^}]*)\}")
_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
_RELATIVE_SQLITE = re.compile(r"^(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)([^?]+)(.*)$")
_SECRET_KEYS = re.compile(r"([?&][^=&]*(?:password|passwd|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def _folder(info: ValidationInfo) -> Path | None:
    return info.context["folder"] if info.context else None


def _variable(name: str) -> str:
    if name not in os.environ:
        raise ValueError(
            f"the environment variable {name} is not set. Set it where this command runs (export {name}=…), or write "
            f"its value here."
        )
    return os.environ[name]


def _resolve(value: str, info: ValidationInfo) -> str:
    text = _VARIABLE.sub(lambda match: _variable(match[1]), value)
    if not text.strip():
        raise ValueError("expected a path, received empty text.")
    if _REMOTE.match(text):
        return text
    path, folder = Path(text).expanduser(), _folder(info)
    return str(path) if folder is None else os.path.normpath(folder / path)


def resolve_path(value: str, info: ValidationInfo) -> str:
    """Expand variables and ``~``, and take a relative path from the folder of the configuration file.

    An address such as s3a://bucket/rows, which Spark reads, stays as it is.
    """
    return _resolve(value, info)


def resolve_url(value: str, info: ValidationInfo) -> str:
    """Expand variables, and take a relative SQLite file from the folder of the configuration file.

    A variable in the place of a user or a password is escaped, so that it may hold ``@`` or ``/``.
    """
    scheme, mark, rest = value.partition("://")
    user, at, address = rest.rpartition("@")
    escaped = _VARIABLE.sub(lambda match: quote(_variable(match[1]), safe=""), user)
    text = _VARIABLE.sub(lambda match: _variable(match[1]), scheme + mark) + escaped + at
    text += _VARIABLE.sub(lambda match: _variable(match[1]), address)
    if "://" not in text and not text.startswith(("databricks", "file:", "jdbc:")):
        raise ValueError("expected a URL, such as sqlite:///data.db or postgresql://user:${PASSWORD}@host/name.")
    relative = _RELATIVE_SQLITE.match(text)
    folder = _folder(info)
    if relative and folder is not None:
        return f"{relative[1]}{os.path.normpath(folder / relative[2])}{relative[3]}"
    return text


def resolve_uri(value: str, info: ValidationInfo) -> str:
    """The same for a tracking server, where a plain path stands for a folder."""
    return resolve_url(value, info) if ":" in value or value == "databricks" else _resolve(value, info)


def hide_password(url: str) -> str:
    """The same URL, with stars for the password.

    >>> hide_password("postgresql://ann:secret@host/name?sslpassword=x")
    'postgresql://ann:***@host/name?sslpassword=***'
    """
    password = urlsplit(url).password
    shown = url.replace(f":{password}@", ":***@", 1) if password else url
    return _SECRET_KEYS.sub(r"\1***", shown)


def _known_zone(value: str) -> str:
    zone_of(value)
    return value


Location = Annotated[str, AfterValidator(resolve_path)]
"""A file, a folder or a pattern."""

Place = Annotated[Path, AfterValidator(lambda value, info: Path(_resolve(str(value), info)))]
"""A file or a folder, never a pattern."""

Url = Annotated[str, AfterValidator(resolve_url)]
"""The address of a database or a server; it may hold a password, so `Section` hides it."""

Uri = Annotated[str, AfterValidator(resolve_uri)]
"""The address of a tracking server; like `Url`, or a folder."""

Zone = Annotated[str, AfterValidator(_known_zone)]
"""The name of a time zone, such as Europe/Berlin."""

Share = Annotated[float, Field(gt=0, lt=1)]
"""A number between 0 and 1, both excluded."""


class Section(BaseModel):
    """A frozen group of settings without unknown keys; its ``repr`` shows no password."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            hidden = name in ("url", "uri") and isinstance(value, str)
            yield name, hide_password(value) if hidden else value
