"""The kinds of arrays that signatures name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Counts = NDArray[np.int64]
"""Whole numbers: how many, how long, which step."""
Codes = NDArray[np.int64]
"""The number of each row's entity; -1 where it is missing."""
Times = NDArray[np.int64]
"""Microseconds since 1970, UTC."""
Places = NDArray[np.intp]
"""Positions of rows, to index with."""
