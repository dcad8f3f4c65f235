"""What one column of a file is taken for."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.formats import FormatSection


@dataclass(frozen=True)
class Choice:
    """What a column is taken for.

    - ``part``: a role ("key", "time", "entity", "label"), a kind, or "ignore".
    - ``check``: what a person should make sure of, if anything.
    - ``form``: how its values are written, where it is not the usual way.
    """

    column: str
    part: str
    why: str
    check: str = ""
    form: FormatSection | None = None
