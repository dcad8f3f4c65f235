"""Build the past of a source's entities from its rows: at once where they are few, else in parts and by processes."""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from detector.atomic import whole_folder
from detector.features import History
from pipelines.features import stored_history
from pipelines.features.engine import FeatureEngine
from pipelines.features.spool import BUCKETS, Spool
from pipelines.parent import end_with_parent

log = logging.getLogger("detector.features")

MOST_HELD = 2_000_000
"""Rows that are held at once: of more, the past is built in parts."""
PART = 250_000
MOST_PROCESSES = 4
"""Each takes about 300 MB beside what it works on."""

Made = TypeVar("Made")


def from_source(
    engine: FeatureEngine, frames: Iterable[pd.DataFrame], folder: Path, *, processes: int | None = None
) -> tuple[History | None, int]:
    """The past of all rows of a source, in whatever order, and how many rows there are; None if there are none.

    - ``frames``: as the source gives them.
    - ``folder``: where there is room for what does not fit memory: about 50 bytes a row for each way to group rows.
    - ``processes``: as many as there are processors, and no more than four, if not given.

    Raises ``OSError`` if the disk is full.
    """
    held: list[pd.DataFrame] = []
    rest, rows = iter(frames), 0
    for frame in rest:
        typed = engine.typed(frame)
        rows += len(typed)
        held.append(typed)
        if rows > MOST_HELD:
            return _in_parts(engine, held, rest, folder, processes or min(MOST_PROCESSES, _processors()))
    whole = pd.concat(held, ignore_index=True) if held else pd.DataFrame()
    if whole.empty:
        return None, 0
    whole = young(engine, whole[~engine.repeated(whole)])
    history = engine.empty()
    history.learn(whole)
    return history, len(whole)


def young(engine: FeatureEngine, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, as ``FeatureEngine.typed`` returns them, that features still look back to from the latest."""
    time = rows[engine.features.time]
    return rows[time > time.max() - engine.reach - engine.lateness]


def _in_parts(
    engine: FeatureEngine, held: list[pd.DataFrame], frames: Iterator[pd.DataFrame], folder: Path, processes: int
) -> tuple[History | None, int]:
    from detector.features.spill import ABOUT, about, into_memory, load_spilled, write_into

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rebuild-", suffix=".state", dir=folder) as place:
        spool = Spool(Path(place), engine.features, engine.history.lateness)
        worker = _Worker(_sent(engine), spool)
        with _Workers(worker, processes) as workers:
            rows, latest = 0, list[int]()
            held_rows = sum(map(len, held))
            let_go = (held.pop(0) for _ in range(len(held)))
            typed = ((_Worker.spool, part) for part in _positioned(let_go))
            raw = ((_Worker.spool_raw, part) for part in _positioned(frames, first=held_rows))
            for count, last in workers.each(chain(typed, raw)):
                rows += count
                latest += [] if last is None else [last]
            again = np.zeros(0, dtype=np.int64)
            if engine.features.key is not None:
                found = list(workers.each((_Worker.repeated, (bucket,)) for bucket in range(BUCKETS)))
                again = np.sort(np.concatenate([positions for positions, _ in found]))
                latest = [last for _, last in found if last is not None]
            if not latest:
                return None, 0
            np.save(Path(place) / "again.npy", again)
            tasks = product(range(len(spool.layouts)), range(BUCKETS))
            made = list(workers.each((_Worker.make, (*task, max(latest))) for task in tasks))
            files = [path for paths, _ in made for path in paths]
        history = engine.empty()
        history.latest = history.forgot_at = max(latest)
        built = folder / ".rebuilt.state"
        with whole_folder(built) as building:
            write_into(building, [(ABOUT, json.dumps(about(history)).encode())], [], files=files)
    history = load_spilled(built)
    if sum(held for _, held in made) < engine.most_bytes:
        into_memory(history)
        stored_history.remove(built)
    return history, rows - len(again)


class _Worker:
    """What a process does of it."""

    def __init__(self, engine: FeatureEngine, spool: Spool) -> None:
        self.engine = engine
        self._spool = spool
        self._again: Any = None

    def spool(self, frames: list[pd.DataFrame], first: int) -> tuple[int, int | None]:
        rows = pd.concat(frames, ignore_index=True)
        return len(rows), self._spool.add(rows, first)

    def spool_raw(self, frames: list[pd.DataFrame], first: int) -> tuple[int, int | None]:
        return self.spool([self.engine.typed(frame) for frame in frames], first)

    def repeated(self, bucket: int) -> tuple[Any, int | None]:
        return self._spool.repeated(bucket)

    def make(self, number: int, bucket: int, latest: int) -> tuple[list[Path], int]:
        if self._again is None:
            self._again = np.load(self._spool.folder / "again.npy", mmap_mode="r")
        return self._spool.make(number, bucket, latest=latest, again=self._again)


_worker: _Worker | None = None
"""Of a process that was started to work, and does nothing else."""


class _Workers:
    """What measures parts of the source: a pool of processes, or this one where only one is wanted."""

    def __init__(self, worker: _Worker, processes: int) -> None:
        self.worker = worker
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        if self.processes > 1:
            context = get_context("spawn")  # the service has threads, which a fork does not survive
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_begin, initargs=(self.worker,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, tasks: Iterable[tuple[Callable[..., Made], tuple[Any, ...]]]) -> Iterator[Made]:
        """What each task returns, in order; a few are under way at a time."""
        if self._pool is None:
            yield from (task(self.worker, *given) for task, given in tasks)
            return
        waiting: deque[Future[Made]] = deque()
        for task, given in tasks:
            waiting.append(self._pool.submit(_run, task, given))
            if len(waiting) > 2 * self.processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _begin(worker: _Worker) -> None:
    global _worker  # noqa: PLW0603 - a process of a pool has no other place
    _worker = worker
    end_with_parent()


def _run(task: Callable[..., Made], given: tuple[Any, ...]) -> Made:
    return task(_worker, *given)


def _positioned(frames: Iterable[pd.DataFrame], *, first: int = 0) -> Iterator[tuple[list[pd.DataFrame], int]]:
    """Frames in parts of some size, with the position of the first row of each part."""
    part: list[pd.DataFrame] = []
    rows = 0
    for frame in frames:
        part.append(frame)
        rows += len(frame)
        if rows >= PART:
            yield part, first
            first, part, rows = first + rows, [], 0
    if part:
        yield part, first


def _sent(engine: FeatureEngine) -> FeatureEngine:
    """The engine without a past, and with what was said of rows, read once."""
    found = copy.copy(engine)
    found.history = engine.empty()
    if engine.features.knows:
        _ = engine.reader.statements
    return found


def _processors() -> int:
    return len(os.sched_getaffinity(0))
