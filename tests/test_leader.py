"""Who leads: one at a time, for as long as it lives, whatever the clocks say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector.errors import StoreError
from pipelines.service.leader import Leadership, instance_name, is_dead
from pipelines.store import Lease, Store, open_store


@dataclass
class Clock:
    """A monotonic clock that stands still until it is moved."""

    seconds: float = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.seconds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path}/service.db")
    yield store
    store.close()


def two(store: Store, clock: Clock) -> tuple[Leadership, Leadership]:
    first, second = (Leadership(store, seconds=15, instance=name, clock=clock) for name in ("a", "b"))
    return first, second


def test_second_takes_over_within_the_lease(store: Store) -> None:
    """A leader that gives no sign of life is succeeded after its lease, not before."""
    clock = Clock()
    first, second = two(store, clock)

    assert [first.lead(), second.lead()] == [True, False]
    clock.seconds += 14.9
    assert not second.lead()
    clock.seconds += 0.2
    assert second.lead()
    assert second.term == 2


def test_a_sign_of_life_keeps_the_lead(store: Store) -> None:
    """As long as the leader is heard of, nobody takes over."""
    clock = Clock()
    first, second = two(store, clock)
    first.lead()

    for _ in range(10):
        clock.seconds += 10
        assert first.lead()
        assert not second.lead()


def test_clock_set_back_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wall clock is asked: neither an hour back nor an hour ahead gives or keeps the lead."""
    clock = Clock()
    first, second = two(store, clock)
    first.lead()
    second.lead()
    now = time.time()

    monkeypatch.setattr(time, "time", lambda: now - 3_600)
    assert not second.lead()
    monkeypatch.setattr(time, "time", lambda: now + 3_600)
    assert not second.lead()
    clock.seconds += 15.1
    assert second.lead()


def test_leader_that_was_held_up_can_commit_nothing(store: Store) -> None:
    """Its transaction fails, and it knows that it does not lead."""
    clock = Clock()
    first, second = two(store, clock)
    first.lead()
    second.lead()
    clock.seconds += 20
    second.lead()

    def work() -> None:
        with store.write() as session:
            session.add(Lease(name="work", holder="a", term=0, beat=0))
            first.fence(session)

    with pytest.raises(StoreError, match="Another instance has taken over from a"):
        work()

    assert not first.is_leader
    assert not first.lead()
    with store.read() as session:
        assert session.get(Lease, "work") is None
    with store.write() as session:
        second.fence(session)


def test_release_lets_another_take_over_at_once(store: Store) -> None:
    """After an orderly end nobody waits."""
    first, second = two(store, Clock())
    first.lead()
    first.release()
    first.release()

    assert second.lead()


def test_two_that_begin_at_once_are_one_leader(store: Store) -> None:
    """Of many that ask at the same moment one leads."""
    leaders = [Leadership(store, seconds=15, instance=str(number)) for number in range(8)]
    threads = [threading.Thread(target=leader.lead) for leader in leaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(leader.is_leader for leader in leaders) == 1


def test_process_of_this_machine_that_is_gone_is_succeeded_at_once(store: Store) -> None:
    """A restart on the same machine need not wait for the lease of the process that was killed."""
    code = "from pipelines.service.leader import instance_name; print(instance_name(), flush=True); input()"
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    Leadership(store, seconds=1_000, instance=name).lead()
    second = Leadership(store, seconds=1_000)

    assert not second.lead()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert second.lead()


@pytest.mark.parametrize("name", ["a", "host/1/elsewhere/5", "host/x/y/z", ""])
def test_an_instance_elsewhere_is_never_called_dead(name: str) -> None:
    """What cannot be told from here is not told."""
    assert not is_dead(name)
    assert not is_dead(instance_name())


def test_what_began_under_an_earlier_term_is_never_committed(store: Store) -> None:
    """Held up, succeeded, and leading again: work from before the pause stays undone, new work goes on."""
    clock = Clock()
    first, second = two(store, clock)
    first.lead()
    before = first.fence_of_term()
    second.lead()  # sees the beat for the first time
    clock.seconds += 16
    second.lead()
    second.release()
    first.lead()
    first.lead()
    assert (first.term, first.is_leader) == (3, True)

    with store.write() as session, pytest.raises(StoreError, match="taken over"):
        before(session)
    with store.write() as session:
        first.fence_of_term()(session)
    assert first.is_leader
