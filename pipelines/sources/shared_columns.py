"""The columns of several files that are read as one table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import reduce

import pyarrow as pa

from detector.errors import SourceError
from pipelines.sources.arrow import unify
from pipelines.sources.kinds import Part

log = logging.getLogger("detector.sources")

MOST_NAMED = 5


def shared_schema(parts: Sequence[Part], needs: Callable[[str], bool]) -> pa.Schema:
    """The columns that all files have, in the order of the first; those that it leaves out are named in the log.

    - ``needs``: whether a column of the first file must be in every other.

    Raises ``SourceError`` if a file lacks such a column; it says which.
    """
    first = parts[0]
    lacking: dict[str, str] = {}
    for other in parts[1:]:
        _check(first, other, needs)
        lacking |= {name: other.path.name for name in first.columns if name not in other.columns}
        lacking |= {name: first.path.name for name in other.columns if name not in first.columns}
    if lacking:
        named = ", ".join(f"{name!r} ({file} lacks it)" for name, file in list(lacking.items())[:MOST_NAMED])
        more = f" and {len(lacking) - MOST_NAMED:,} more" if len(lacking) > MOST_NAMED else ""
        log.warning("columns that not all files have are not read: %s%s", named, more)
    shared = [pa.schema([field for field in part.schema if field.name not in lacking]) for part in parts]
    return reduce(unify, shared)


def _check(first: Part, other: Part, needs: Callable[[str], bool]) -> None:
    missing = [name for name in first.columns if name not in other.columns and needs(name)]
    if not missing:
        return
    extra = [name for name in other.columns if name not in first.columns]
    also = f" and has {', '.join(map(repr, extra))} besides" if extra else ""
    raise SourceError(
        f"The files have different columns: compared with {first.path.name}, {other.path} "
        f"lacks {', '.join(map(repr, missing))}{also}. Move it away, name the files to read with a pattern, or list "
        f"what nobody needs under `columns.ignore`."
    )
