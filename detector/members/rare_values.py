"""The member of categories one by one: how rare each value of a row is among the known rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Places

if TYPE_CHECKING:
    import onnx

RARE_VALUES = "rare_values"
SMOOTHING = 0.5
"""Added to each count. Smaller, and a value never seen outweighs all else; larger, and rare values look common."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class RareValues:
    """How rare values are: minus the logarithm of their share of the known rows, in nats.

    Summed over a row they are its score, by what is known of each column alone (as attribute value frequency, Koufakou
    et al., ICTAI 2007, in logarithms). They also say how far apart two values are: a mismatch of rare values tells more
    than one of common ones (Boriah, Chandola and Kumar, SDM 2008).

    - ``count``, (n_indicators,): in how many of the known rows an indicator (a column of a one-hot category, or of
      missing cells) is set.
    - ``known``: of how many.
    """

    count: Floats
    known: int

    @classmethod
    def fit(cls, indicators: Rows) -> Self:
        """Count the indicators of known rows, shape (n_rows, n_indicators); those above 0 are set."""
        return cls((indicators > 0).sum(axis=0).astype(np.float64), len(indicators))

    @property
    def information(self) -> Floats:
        """Of each indicator that is set, in nats."""
        return _information(self.count, self.known)

    def contributions(self, indicators: Rows, own: Places | None = None) -> Floats:
        """What each indicator adds to the score, shape (n_rows, n_indicators).

        ``own``, (n_rows,), is 0 or more where the row is one of the known ones, which then does not count itself.
        """
        found = np.where(indicators > 0, self.information, 0.0)
        if own is not None and self.known > 1:
            less = _information(np.maximum(self.count - 1, 0), self.known - 1)
            found = np.where((own >= 0)[:, None], np.where(indicators > 0, less, 0.0), found)
        return found

    def to_onnx(self, n_numeric: int) -> onnx.ModelProto:
        """``space``, of which the first ``n_numeric`` columns are no indicators → ``rare_values`` (n, 1)."""
        from detector.onnx import text as onnx_text

        width = n_numeric + len(self.count)
        constants: dict[str, NDArray[Any] | np.generic] = {
            "from": np.array([n_numeric]),
            "to": np.array([width]),
            "axis": np.array([1]),
            "nought": np.float32(0),
            "information": self.information.astype(np.float32)[:, None],
        }
        lines = [
            "indicators = Slice (space, from, to, axis)",
            "above = Greater (indicators, nought)",
            "are_set = Cast <to = 1> (above)",
            f"{RARE_VALUES} = MatMul (are_set, information)",
        ]
        return onnx_text.model(
            RARE_VALUES, [f"float[n, {width}] space"], [f"float[n, 1] {RARE_VALUES}"], lines, constants
        )


def _information(count: Floats, known: int) -> Floats:
    return np.asarray(-np.log((count + SMOOTHING) / (known + 2 * SMOOTHING)))
