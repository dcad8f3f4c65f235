"""The proof that an ONNX graph says what the fitted model says that it was made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import ParityError

PARITY = 1e-3


def largest_difference(
    expected: Mapping[str, NDArray[Any]],
    received: Mapping[str, NDArray[Any]],
    *,
    source: str = "the fitted model",
    choices: Collection[str] = (),
    most: float | None = None,
) -> float:
    """How far two sets of answers are apart, relative to values above 1; of choices, the share that differs.

    ``source`` says what the fitted model is, for the message; ``choices`` are answers that are categories. Raises
    ``ParityError`` if the difference is not less than ``most``, by default ``PARITY``.

    >>> largest_difference({"code": np.array([1.0, 100.0])}, {"code": np.array([1.0, 100.05])})
    0.0005
    """
    most = PARITY if most is None else most
    worst = 0.0
    for name, wanted in expected.items():
        difference = np.abs(wanted - received[name]) / np.maximum(1.0, np.abs(wanted))
        largest = float(np.mean(difference > most) if name in choices else difference.max(initial=0.0))
        largest = round(largest, 9)
        if not largest < most:
            raise ParityError(
                f"The ONNX graph differs from {source} by {largest:.2g} ({name}); at most {most:g} is allowed. "
                f"Please report this with the versions of onnxruntime, keras and scikit-learn."
            )
        worst = max(worst, largest)
    return worst
