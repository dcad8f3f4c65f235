"""JSON objects as rows of text: a line of a file, or a message of a topic."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")
_READ = json.JSONDecoder(parse_float=str, parse_int=str).decode


def row_of(content: bytes) -> tuple[dict[str, Any] | None, str]:
    r"""The fields of a JSON object by name; without one, why there is none.

    Numbers stay as they are written. The fields of an object within it are named with a dot between, as pandas'
    ``json_normalize`` names them; a field that has such a name by itself comes first. Half a pair of surrogates, which
    JSON can escape and no text can hold, becomes U+FFFD, Unicode's mark for what is no character: the row is read all
    the same.

    >>> row_of(b'{"id": 7, "card": {"country": "DE", "limit": 1.50}}')
    ({'id': '7', 'card.country': 'DE', 'card.limit': '1.50'}, '')
    >>> row_of(b"[1]")
    (None, 'expected a JSON object, received list')
    """
    try:
        found = _READ(content.decode(json.detect_encoding(content)))
        if b"\\ud" in content.lower():
            found = json.loads(_HALVES.sub("\ufffd", json.dumps(found, ensure_ascii=False)))
        if not isinstance(found, dict):
            return None, f"expected a JSON object, received {type(found).__name__}"
        return flat(found), ""
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {str(error)[:200]}"


def flat(values: Mapping[str, Any], whole: Container[str] = ()) -> dict[str, Any]:
    """Fields of objects within an object as its own, but for those of ``whole``.

    >>> flat({"card": {"country": "DE"}, "card.country": "FR", "id": 7})
    {'card.country': 'FR', 'id': 7}
    """
    if dict not in map(type, values.values()):
        return dict(values)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name not in whole:
            _add_fields(found, value, f"{name}.")
        else:
            found[name] = value
    return found


def _add_fields(found: dict[str, Any], values: Mapping[str, Any], prefix: str) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _add_fields(found, value, f"{prefix}{name}.")
        else:
            found.setdefault(prefix + name, value)


def as_text(value: Any) -> str | None:
    """A field's value as text; a list is its JSON.

    >>> [as_text(value) for value in ("12.50", True, None, ["a"])]
    ['12.50', 'true', None, '["a"]']
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
