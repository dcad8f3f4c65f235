"""Run a fitted detector's ONNX graph. The one module that imports ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detector.errors import BundleError

if TYPE_CHECKING:
    import onnx

BLOCK = 64
"""Rows computed together. One row costs as much as so many, so a larger block answers a single event later; a smaller
one spends more of its time on calls."""
TOGETHER = 8
"""Blocks that a thread computes one after the other; fewer, and threads hand over more often than they compute."""


class Graph:
    """An ONNX model that scores rows in blocks of one fixed size.

    A float32 sum or logarithm depends in its last digits on the shape it is computed in, so a row scored alone and
    the same row scored among a million would differ. Every block here has the same shape, the last one padded, so a
    row's result does not depend on the batch it arrives in.

    - ``content``: a serialised ONNX model.
    - ``block``: rows a block.
    - ``threads``: blocks computed at the same time.

    Raises ``BundleError`` if the content is not a model ONNX Runtime can run.
    """

    def __init__(self, content: bytes, *, block: int = BLOCK, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"The detector's graph cannot be loaded: {error}. Train the detector again.") from error
        self.content = content
        self.block = block
        self.threads = threads
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), block=self.block, threads=self.threads), (self.content,)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Compute outputs, all or those named, for rows; inputs go by the graph's names, shape (n_rows, ...)."""
        names = list(outputs or self.outputs)
        n_rows = len(next(iter(inputs.values())))
        starts = range(0, max(n_rows, 1), self.block)

        def compute(some: range) -> list[list[NDArray[np.float32]]]:
            return [block(start) for start in some]

        def block(start: int) -> list[NDArray[np.float32]]:
            cut = {name: _padded(array[start : start + self.block], self.block) for name, array in inputs.items()}
            kept = min(self.block, n_rows - start)
            return [result[:kept] for result in self._session.run(names, cut)]

        if len(starts) <= TOGETHER or self.threads == 1:
            parts = compute(starts)
        else:
            some = [starts[first : first + TOGETHER] for first in range(0, len(starts), TOGETHER)]
            with ThreadPoolExecutor(self.threads) as pool:
                parts = [part for done in pool.map(compute, some) for part in done]
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}


def _padded(rows: NDArray[Any], size: int) -> NDArray[Any]:
    if len(rows) == size:
        return rows
    padded = np.zeros((size, *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    return padded


def joined(parts: Mapping[str, onnx.ModelProto], outputs: Sequence[str] = ()) -> Graph:
    """Models that read what earlier ones wrote, as one graph with these outputs, or all; used while fitting."""
    from detector.onnx import text

    every = [output.name for part in parts.values() for output in part.graph.output]
    return Graph(text.join(parts, outputs or every))
