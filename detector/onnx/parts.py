"""What a fitted detector is made of when it is put away: facts, arrays and graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


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
