"""Run a fitted detector's ONNX graph. The one module that imports ONNX Runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detector.errors import BundleError

if TYPE_CHECKING:
    import onnx

BLOCK = 16
"""Rows computed together. One row costs as much as so many, so a larger block answers a single event later; a smaller
one ends in the middle of what a processor adds at once, where sums may come out otherwise."""
MANY = 16
"""Blocks computed as one where rows are many. More, and what belongs together leaves the processor's cache; fewer, and
more of the time goes into calls."""

MOSTLY = 0.75
"""The last rows are computed as many, filled up, where they are at least this share of as many: then it is sooner than
block by block."""

_HELPERS = ThreadPoolExecutor(32, thread_name_prefix="graph")
"""For all graphs of a process; threads are begun as they are needed, so more than it has cores cost nothing."""
Part = list[NDArray[np.float32]]


class Graph:
    """An ONNX model that scores rows in blocks of fixed sizes.

    A float32 sum or logarithm may depend in its last digits on the shape it is computed in, so a row scored alone and
    the same row scored among a million would differ. Every block here has the same shape, the last one padded. ``MANY``
    of them are computed as one only where that gives every row the same to the last bit, which is seen on the first
    rows that are many. So a row's result does not depend on the batch it arrives in.

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
        self._joins: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), block=self.block, threads=self.threads), (self.content,)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Compute outputs, all or those named, for rows; inputs go by the graph's names, shape (n_rows, ...)."""
        names = list(outputs or self.outputs)
        n_rows, most = len(next(iter(inputs.values()))), MANY * self.block
        joins = n_rows >= most and self._can_join(inputs)

        def compute(start: int) -> Part:
            some = {name: array[start : start + most] for name, array in inputs.items()}
            return self._compute(some, names, most if joins and n_rows - start >= MOSTLY * most else self.block)

        parts = _shared_out(compute, range(0, max(n_rows, 1), most), threads=self.threads)
        return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)}

    def _compute(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], block: int) -> Part:
        """Outputs of rows, in blocks of one size."""
        n_rows = len(next(iter(inputs.values())))
        parts = [
            self._session.run(names, {name: _padded(array[at : at + block], block) for name, array in inputs.items()})
            for at in range(0, max(n_rows, 1), block)
        ]
        if len(parts) > 1:
            return [np.concatenate(each)[:n_rows] for each in zip(*parts, strict=True)]
        return [each[:n_rows] for each in parts[0]]

    def _can_join(self, inputs: Mapping[str, NDArray[Any]]) -> bool:
        """Whether ``MANY`` blocks computed as one give each of their rows the same as one by one."""
        if self._joins is None:
            most = MANY * self.block
            first = {name: array[:most] for name, array in inputs.items()}
            single, whole = (self._compute(first, self.outputs, size) for size in (self.block, most))
            self._joins = all(map(partial(np.array_equal, equal_nan=True), single, whole))
        return self._joins


def _shared_out(compute: Callable[[int], Part], starts: Sequence[int], *, threads: int) -> list[Part]:
    """What is computed from each start on, by this thread and those helpers that have nothing else to do.

    To start threads for each call would take as long as hundreds of rows. A helper that has not begun when nothing is
    left is not waited for: in a process that was forked, there is none.
    """
    left, found = deque(starts), dict[int, Part]()

    def work() -> None:
        while True:
            try:
                start = left.popleft()
            except IndexError:
                return
            found[start] = compute(start)

    helpers = [_HELPERS.submit(work) for _ in range(min(threads, len(starts)) - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    return [found[start] for start in starts]


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
