"""What fitting an encoder and scoring with it take: seconds and memory."""

from __future__ import annotations

import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from detector.lab.damage import count, take
from detector.training.loop import keras_session

TIMED_ROWS = 4096
TIMED_RUNS = 3


@dataclass(frozen=True)
class Fitted:
    """A fitted encoder and what fitting it took.

    - ``training_seconds``: wall time, without the import of TensorFlow.
    - ``peak_memory_mb``: how much the memory of this process grew at most, in MiB. On Linux that of this fit; elsewhere
      only growth beyond the highest mark so far is seen.
    """

    encoder: Any
    training_seconds: float
    peak_memory_mb: float


def fit_measured(encoder: Any, train: Any) -> Fitted:
    """Fit a copy of an encoder, with stopwatch and eyes on the memory."""
    with keras_session(0):
        pass  # TensorFlow is imported before anything is measured
    before = _memory(reset=True)
    started = time.perf_counter()
    made = clone(encoder).fit(train)
    seconds = time.perf_counter() - started
    return Fitted(made, seconds, max(0.0, _memory() - before))


def rows_per_second(encoder: Any, rows: Any) -> float:
    """How many rows an encoder scores a second: the best of some runs over enough rows to be timed."""
    many = take(rows, np.arange(max(TIMED_ROWS, count(rows))) % count(rows))
    seconds = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        encoder.score_samples(many)
        seconds.append(time.perf_counter() - started)
    return count(many) / min(seconds)


def _memory(*, reset: bool = False) -> float:
    """MiB of this process: the peak since the last reset, or with ``reset`` those it holds now."""
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if reset:
        with suppress(OSError):  # a container may forbid it: the peak is then that of the whole process
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    wanted = "VmRSS:" if reset else "VmHWM:"
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(wanted))
    return int(line.split()[1]) / 1024
