"""What a change of a rule was, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEFAULTS = {"severity": "medium", "tag": "", "by": 1.0, "reason": ""}


def change_in_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What has changed, field by field; of a new rule all that it says.

    >>> change_in_words({"when": "a > 1", "state": "shadow"}, {"when": "a > 2", "state": "shadow"})
    'when: a > 1 → a > 2'
    >>> change_in_words({}, {"when": "a > 1", "state": "shadow", "tag": ""})
    'when: a > 1; state: shadow'
    """
    if not after:
        return f"gone; it said: {before.get('when', '')}"
    parts = []
    for name, value in after.items():
        if not before:
            parts += [f"{name}: {value}"] if value != _DEFAULTS.get(name) else []
        elif before.get(name) != value:
            parts.append(f"{name}: {_said(before.get(name))} → {_said(value)}")
    return "; ".join(parts) or "nothing"


def _said(value: Any) -> str:
    return "nothing" if value in (None, "") else str(value)
