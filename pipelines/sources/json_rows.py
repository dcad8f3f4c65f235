"""JSON objects as rows of text: a line of a file, or a message of a topic."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")


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
        found = json.loads(content, parse_float=str, parse_int=str)
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
    own = {name: value for name, value in values.items() if name in whole or not isinstance(value, dict)}
    return own if len(own) == len(values) else dict(_fields(values, whole)) | own


def _fields(values: Mapping[str, Any], whole: Container[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and (prefix or name not in whole):
            yield from _fields(value, (), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_text(value: Any) -> str | None:
    """A field's value as text; a list is its JSON.

    >>> [as_text(value) for value in ("12.50", True, None, ["a"])]
    ['12.50', 'true', None, '["a"]']
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
