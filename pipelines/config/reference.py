"""Every setting as Markdown: ``python -m pipelines.config.reference FILE`` writes the page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import Config

INTRODUCTION = """\
# Configuration

One YAML file says what is read, learned, flagged and written. `detector init DIR --template table` writes one
with all of this as comments. `detector doctor FILE` checks it.

- An unknown key is an error, and the message names the nearest key.
- Relative paths are relative to the folder of the file; `~` is the home folder.
- `${NAME}` in a path or an address is the environment variable of that name. Keep passwords there.

This page is written by `make settings` from the same text.
"""

_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def render() -> str:
    """Return the page that documents every setting.

    >>> "| `random_state` | whole number, at least 0 | `0` |" in render()
    True
    """
    schema = Config.model_json_schema()
    return "\n".join([INTRODUCTION, *_section(schema, schema.get("$defs", {}), path="", defaults={})])


def _section(
    model: Mapping[str, Any], models: Mapping[str, Any], *, path: str, defaults: Mapping[str, Any]
) -> Iterator[str]:
    required = model.get("required", [])
    inner: list[tuple[str, str]] = []
    rows: list[str] = []
    for name, field in model["properties"].items():
        target = _reference(field)
        if target is not None:
            inner.append((name, target))
            continue
        if (each := _reference(_each(field))) is not None and models[each]["properties"]:
            inner.append((name, each))
        default = "required" if name in required else _default(defaults.get(name, field.get("default")))
        rows.append(f"| `{name}` | {_values(field)} | {default} | {field['description']} |")
    if rows:
        yield from ("| Key | Values | Default | Meaning |", "|---|---|---|---|")
        yield from (" ".join(row.split()) for row in rows)
        yield ""
    for name, target in inner:
        place = f"{path}.{name}".lstrip(".")
        field, section = model["properties"][name], models[target]
        several = _reference(field) is None
        yield from (f"{'#' * (place.count('.') + 2)} {place}{', each' if several else ''}", "")
        about = section["description"] if several else field.get("description") or section["description"]
        yield from (" ".join(about.split()), "")
        own = {} if several else defaults.get(name, field.get("default")) or {}
        yield from _section(section, models, path=place, defaults=own)


def _each(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """What each entry of a list or a mapping is; nothing where there are no entries."""
    found = field.get("items") or field.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def _reference(field: Mapping[str, Any]) -> str | None:
    for choice in (field, *field.get("anyOf", []), *field.get("allOf", [])):
        if "$ref" in choice:
            return str(choice["$ref"]).rsplit("/", 1)[-1]
    return None


def _values(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_values(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_values(field.get('items', {})).replace('number', 'numbers').replace('text', 'names')}"
    kind = "path" if field.get("format") == "path" else _KINDS.get(field.get("type", ""), "text")
    bounds = [words.format(f"{field[key]:g}") for key, words in _BOUNDS.items() if key in field]
    return ", ".join([kind, *bounds])


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
