"""The configuration file that ``detector init`` writes: every key, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from detector.errors import SettingError, nearest
from pipelines.config import Config
from pipelines.config.reading import section_of

WIDTH = 100
HEADER = """\
# What the detector reads, learns, flags and writes. Every key is here, with its default.
# A key behind "# " is off; take the "# " away to use it.
# Paths are relative to this file. ${NAME} in a path or a URL is an environment variable: a place for
# passwords.
#
#   detector doctor detector.yaml     check this file and all that it names
#   detector train detector.yaml      learn
#   detector score detector.yaml      flag and explain
"""
TEMPLATES: dict[str, dict[str, Any]] = {
    "table": {"source": {"path": "data.csv"}},
}
_EXAMPLES: dict[str, Any] = {
    "source.url": "sqlite:///data.db",
    "source.table": "transactions",
    "source.query": "SELECT * FROM transactions WHERE day = CURRENT_DATE",
    "source.separator": ";",
    "columns.key": "transaction_id",
    "columns.time": "time",
    "columns.entity": "account_id",
    "columns.label": "fraud",
    "policy.quantile": 0.999,
    "policy.budget": {"rows": 100},
    "output.url": "sqlite:///data.db",
    "output.table": "scores",
    "output.quarantine": "quarantine.csv",
    "tracking.experiment": "transactions",
    "tracking.model": "transactions",
}


def render(template: str) -> str:
    """A commented configuration.

    Parameters
    ----------
    template : str
        One of ``TEMPLATES``.

    Raises
    ------
    SettingError
        If there is no such template.
    """
    if template not in TEMPLATES:
        raise SettingError(f"There is no template {template!r}. {nearest(template, TEMPLATES)}")
    return HEADER + "\n".join(_section(Config, TEMPLATES[template])) + "\n"


def _section(model: type[BaseModel], given: Mapping[str, Any], *, place: tuple[str, ...] = ()) -> Iterator[str]:
    """The lines of one section; what has no default is off, and shows an example."""
    margin = "  " * len(place)
    for name, field in model.model_fields.items():
        here = (*place, name)
        inner = section_of(field.annotation)
        value = given.get(name, _default(field))
        mark = margin
        if value is None:
            mark, value = f"{margin}# ", _EXAMPLES[".".join(here)]
        if not place or inner is not None:
            yield ""
        yield from (f"{margin}# {line}" for line in wrap(field.description or "", WIDTH - len(margin)))
        if inner is None:
            yield f"{mark}{name}: {_scalar(value)}"
        else:
            yield f"{mark}{name}:"
            values = value.model_dump() if isinstance(value, BaseModel) else value
            for line in _section(inner, values, place=here):
                yield f"{mark}{line.removeprefix(margin)}" if line else line


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _scalar(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    text = str(value)
    plain = text.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    return text if plain.isalnum() and not text[0].isdigit() else json.dumps(text)
