"""Who of several instances runs the jobs: a row in the database that its holder keeps changing.

No clock of any machine is compared with another's, nor with its own past: the leader counts up ``beat`` in the row, and
another instance takes over once it has seen the same ``beat`` for the whole lease, measured by its own monotonic clock.
Setting a clock back changes nothing. Each takeover counts up ``term``; a leader that was only held up finds, in the
transaction of whatever it wants to commit, that the term is no longer its own, and keeps nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from detector.errors import StoreError
from pipelines.store import Lease, Store
from pipelines.testing.failpoints import failpoint

NAME = "service"
BEATS = 3
"""Signs of life within one lease."""


class Leadership:
    """One instance's part in deciding who leads.

    - ``seconds``: the lease: how long a leader may be silent.

    >>> from pipelines.store import open_store
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = open_store(f"sqlite:///{folder}/service.db")
    ...     first, second = (Leadership(store, seconds=15, instance=name) for name in ("a", "b"))
    ...     first.lead(), second.lead()
    (True, False)
    """

    def __init__(
        self,
        store: Store,
        *,
        seconds: float,
        instance: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.seconds = seconds
        self.instance = instance or instance_name()
        self.clock = clock
        self.term: int | None = None
        self._seen: tuple[int, int] | None = None
        self._seen_at = 0.0

    @property
    def is_leader(self) -> bool:
        """Whether this instance led when it last looked."""
        return self.term is not None

    def lead(self) -> bool:
        """Give a sign of life if this instance leads, take over if nobody does; whether it leads now.

        Raises ``StoreError`` if the database cannot be asked. Who led before may go on: nothing is committed without
        asking.
        """
        with self.store.write() as session:
            if self.term is not None:
                try:
                    self.fence(session)
                except StoreError:
                    return False
                return True
            lease = session.get(Lease, NAME)
            if lease is None:
                return self._begin(session)
            if not self._is_free(lease):
                return False
            taken = (
                sa.update(Lease)
                .where(Lease.name == NAME, Lease.term == lease.term, Lease.beat == lease.beat)
                .values(holder=self.instance, term=lease.term + 1, beat=lease.beat + 1)
            )
            term = lease.term + 1
            if not _changed(session, taken):
                return False
        self.term = term
        failpoint("leader.begun")
        return True

    def fence(self, session: Session) -> None:
        """Give a sign of life in a transaction that is about to be committed.

        Raises ``StoreError`` if another instance leads now; the transaction must not be committed.
        """
        try:
            self.fence_of_term()(session)
        except StoreError:
            self.term = None
            raise

    def fence_of_term(self) -> Callable[[Session], None]:
        """A fence for work that begins now: it holds for this term alone.

        An instance that was held up, and leads again, has another term. What it had in hand before was taken over by
        whoever led meanwhile, so none of it may be committed.
        """
        term = self.term

        def fence(session: Session) -> None:
            mine = sa.update(Lease).where(Lease.name == NAME, Lease.holder == self.instance, Lease.term == term)
            if term is None or not _changed(session, mine.values(beat=Lease.beat + 1)):
                raise StoreError(
                    f"Another instance has taken over from {self.instance}; what this one had in hand was not kept."
                )

        return fence

    def release(self) -> None:
        """Let another instance take over at once."""
        if self.term is None:
            return
        with self.store.write() as session:
            mine = sa.update(Lease).where(Lease.name == NAME, Lease.holder == self.instance, Lease.term == self.term)
            session.execute(mine.values(holder="", beat=Lease.beat + 1))
        self.term = None

    def _begin(self, session: Session) -> bool:
        session.add(Lease(name=NAME, holder=self.instance, term=1, beat=1))
        try:
            session.commit()
        except (IntegrityError, SQLAlchemyError):
            session.rollback()
            return False
        self.term = 1
        failpoint("leader.begun")
        return True

    def _is_free(self, lease: Lease) -> bool:
        if not lease.holder or is_dead(lease.holder):
            return True
        now = self.clock()
        if self._seen != (lease.term, lease.beat):
            self._seen, self._seen_at = (lease.term, lease.beat), now
        return now - self._seen_at >= self.seconds


@contextmanager
def beating(leadership: Leadership) -> Iterator[None]:
    """Give signs of life meanwhile, and let go of the lease at the end."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(leadership.seconds / BEATS):
            try:
                if leadership.is_leader:
                    leadership.lead()
            except StoreError:
                continue  # the next transaction that is fenced finds out

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        leadership.release()


def instance_name() -> str:
    """Machine, process and start of the process, as text.

    The machine is named by its boot and its process namespace, so that two containers are two machines.
    """
    return f"{socket.gethostname()}/{os.getpid()}/{_place()}/{_started(os.getpid())}"


def is_dead(instance: str) -> bool:
    """Whether an instance ran here and is gone for certain; False if that cannot be told.

    >>> is_dead(instance_name())
    False
    """
    parts = instance.split("/")
    if len(parts) != 4 or not _place() or parts[2] != _place() or not parts[1].isdecimal():
        return False
    return _started(int(parts[1])) != parts[3]


def _place() -> str:
    """The current boot of this machine, and the namespace in which process numbers mean something; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path
    except OSError:
        return ""
    return f"{boot[:13]}-{space.strip('pid:[]')}"


def _started(process: int) -> str:
    """When a process began, in ticks since the machine did; empty if there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def _changed(session: Session, statement: sa.Update) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return isinstance(result, CursorResult) and result.rowcount == 1
