"""What a fitted detector is made of when it is put away: facts, arrays and graphs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,  # also of too deep a nesting, and of a file with a password
    MemoryError,
)
"""What reading arrays and JSON from a file that somebody has tampered with may raise."""

MOST_BYTES, MOST_TIMES = 1 << 28, 50


@dataclass(frozen=True)
class Parts:
    """A detector in three kinds of parts, none of which can run code.

    - ``facts``: what JSON can hold.
    - ``arrays``: numbers and text, no objects.
    - ``graphs``: serialised ONNX models.
    """

    facts: dict[str, Any]
    arrays: Arrays
    graphs: dict[str, bytes]

    def part(self, name: str) -> Arrays:
        """The arrays that were put under a name.

        >>> Parts({}, under("trees", {"depth": np.ones(2)}), {}).part("trees")
        {'depth': array([1., 1.])}
        """
        start = f"{name}/"
        return {key.removeprefix(start): array for key, array in self.arrays.items() if key.startswith(start)}


def under(name: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays with a name in front of theirs."""
    return {f"{name}/{key}": np.asarray(array) for key, array in arrays.items()}


def check_unpacked(path: Path) -> None:
    """Raise ``ValueError`` for an .npz file that would fill the memory: a few megabytes can unpack to any size.

    Numbers that mean something shrink a few times; 256 MB, or 50 times the file, are beyond all that was seen.
    """
    with zipfile.ZipFile(path) as packed:
        unpacked = sum(each.file_size for each in packed.infolist())
    allowed = MOST_BYTES + MOST_TIMES * path.stat().st_size
    if unpacked > allowed:
        raise ValueError(f"it unpacks to {unpacked / 1e6:,.0f} MB, more than {allowed / 1e6:,.0f} MB")
