"""Progress of everything that takes longer than a moment, on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]
OnPhase = Callable[[str, int, int], None]

SILENT = logging.CRITICAL + 1

_log = logging.getLogger("detector.progress")
_on_screen: ContextVar[Progress | None] = ContextVar("_on_screen", default=None)


def be_quiet() -> None:
    """Show nothing from now on in this process: a service has a log instead."""
    _log.setLevel(SILENT)


def counted(count: int, what: str = "row") -> str:
    """A number of rows, or of something else, in words.

    >>> counted(1), counted(20_000, "event")
    ('1 row', '20,000 events')
    """
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def percent(share: float, digits: int = 0) -> str:
    """A share in words.

    >>> percent(0.5), percent(0.0123, 2)
    ('50 %', '1.23 %')
    """
    return f"{100 * share:.{digits}f} %"


@contextmanager
def progress(label: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
    """Show how far a piece of work has come, while the ``with`` block runs.

    On a terminal it is a bar, or a spinner if the total is unknown; blocks inside each other share the
    screen. Elsewhere (a log file, cron) it is one line at the start and one at the end.

    - ``label``: what is being done: "Scoring".
    - ``total``: how many steps there are, or about how many; zero and None mean unknown.

    Yields what is to be called with the number of steps done since the last call.

    >>> with progress("Scoring", total=3) as advance:
    ...     advance(3)
    """
    done = 0
    started = time.monotonic()

    def count(steps: int) -> None:
        nonlocal done
        done += steps

    if _log.level == SILENT:
        yield count
        return
    if not sys.stderr.isatty():
        print(f"{label} …", file=sys.stderr, flush=True)  # noqa: T201 - standard error is where it belongs
        yield count
        seconds = time.monotonic() - started
        said = f"{counted(done, unit.removesuffix('s'))} in " if done else ""
        print(f"{label}: {said}{seconds:.1f} s", file=sys.stderr, flush=True)  # noqa: T201
        return
    with _bar() as bar:
        task = bar.add_task(label, total=total or None)

        def advance(steps: int) -> None:
            count(steps)
            _update(bar, task, done)

        yield advance
        bar.update(task, total=done or 1, completed=done or 1)


@contextmanager
def phases(label: str, *, unit: str) -> Iterator[OnPhase]:
    """Show work of several phases: on a terminal the name of the one in hand, and its steps where it counts any.

    Yields what is to be called with the phase, how many of its steps are done, and how many there are.

    >>> with phases("Training", unit="epochs") as step:
    ...     step("forest", 0, 1)
    ...     step("autoencoder", 1, 30)
    """
    phase, last = "", 0
    inner: TaskID | None = None
    watched = _log.level != SILENT and sys.stderr.isatty()
    with progress(label, unit=unit) as advance, _bar() if watched else nullcontext() as bar:

        def step(what: str, done: int, planned: int) -> None:
            nonlocal phase, last, inner
            counts = planned > 1
            if what != phase or done < last:
                phase, last = what, 0
                if bar is not None:
                    if inner is not None:
                        bar.remove_task(inner)
                    inner = bar.add_task(f"  {what}", total=planned if counts else None)
            if counts and bar is not None and inner is not None:
                bar.update(inner, completed=done)
            elif counts:
                advance(done - last)
            last = done

        yield step
        if bar is not None and inner is not None:
            bar.remove_task(inner)


@contextmanager
def _bar() -> Iterator[Progress]:
    """The bar that this thread has on the screen, or a new one."""
    if (shown := _on_screen.get()) is not None:
        yield shown
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _WhereCounted(BarColumn()),
        _WhereCounted(MofNCompleteColumn()),
        TimeElapsedColumn(),
        _WhereCounted(TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        _on_screen.set(bar)
        try:
            yield bar
        finally:
            _on_screen.set(None)


class _WhereCounted(ProgressColumn):
    """A column for work whose total is known; of other work it says nothing, rather than "0/?"."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self.column = column

    def render(self, task: Task) -> RenderableType:
        """What the column says, or nothing."""
        return Text() if task.total is None or self._is_uncounted(task) else self.column(task)

    @staticmethod
    def _is_uncounted(task: Task) -> bool:
        """Whether it was one step, which nobody counted."""
        return task.finished and task.total == 1


def _update(bar: Progress, task: TaskID, done: int) -> None:
    """Show what is done; a total that was guessed too low grows with it."""
    total = bar.tasks[bar.task_ids.index(task)].total
    bar.update(task, completed=done, total=total if total is None else max(total, done))
