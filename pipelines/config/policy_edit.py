"""Another policy in the text of a configuration; everything else of it stays as it is, comments too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from detector.errors import SettingError

KEY = "policy"


def with_policy(text: str, policy: Mapping[str, Any], note: str) -> str:
    """The text with another section ``policy``, and a note above it.

    - ``policy``: what the section says, as YAML can hold it.
    - ``note``: who wants it and why, one line.

    Raises ``SettingError`` if sections are not written below each other.

    >>> print(with_policy("name: a", {"fdr": 0.2}, "ann: few").strip())
    name: a
    <BLANKLINE>
    # ann: few
    policy:
      fdr: 0.2
    """
    section = f"# {' '.join(note.split())}\n{yaml.safe_dump({KEY: dict(policy)}, sort_keys=False, allow_unicode=True)}"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise SettingError("The sections of the file are not written below each other. Change `policy` by hand.")
    place = next(((key, value) for key, value in root.value if key.value == KEY), None)
    if place is None:
        return f"{text.rstrip()}\n\n{section}"
    begin, end = place[0].start_mark.index, place[1].end_mark.index
    lines = text[begin:end].splitlines(keepends=True)
    own = len(lines)
    while own > 1 and (not lines[own - 1].strip() or lines[own - 1].startswith("#")):
        own -= 1  # blank lines and comments before the next section
    rest = "".join(lines[own:]) + text[end:]
    return f"{text[:begin]}{section}{rest.removeprefix(chr(10)) if own == len(lines) else rest}"
