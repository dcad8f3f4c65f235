"""Events asked about at the same time: scored and held together, each as if it had come alone after those before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from detector.cleaning.plain import NotPlainError
from detector.errors import StoreError
from pipelines.features.held_by_entity import HeldRow
from pipelines.scoring.event_batcher import EventBatcher
from pipelines.scoring.one_event import EventRequest, ScoredEvent
from pipelines.store import open_store
from tests import payment_sites
from tests.desks import Desk, Event, plain_events, score_one
from tests.payment_sites import LATER, PAYMENTS, settle

home, trained = payment_sites.home, payment_sites.trained

Hold = Callable[[Mapping[str, HeldRow]], int]

EVENTS = plain_events(PAYMENTS.iloc[750:790])
SOON = 20


class Gate:
    """Holds events of a desk, each time once somebody lets it."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hold, self.began, self.free = desk.event_scorer.held.hold, threading.Event(), threading.Event()
        self.groups: list[list[str]] = []
        self.failing: list[Exception] = []
        monkeypatch.setattr(desk.event_scorer.held, "hold", self)

    def __call__(self, rows: Mapping[str, HeldRow]) -> int:
        """Hold events."""
        self.groups.append(list(rows))
        self.began.set()
        assert self.free.wait(SOON)
        if self.failing:
            raise self.failing.pop()
        return self.hold(rows)


@pytest.fixture
def desks(home: Path) -> Iterator[Callable[[str], Desk]]:
    """Desks by the name of their source, which know nothing of each other's events."""
    stores = []

    def desk(name: str) -> Desk:
        config = settle(home, name=name)
        stores.append(open_store(config.service.store))
        return Desk(config, stores[-1])

    yield desk
    for store in stores:
        store.close()


def asked(groups: EventBatcher, *events: Event, keep: bool = True) -> list[Future[ScoredEvent]]:
    """Events that are asked about, one right after the other."""
    return [groups.ask(EventRequest(event, keep, LATER)) for event in events]


def alone(desk: Desk, events: list[Event]) -> list[ScoredEvent]:
    """The same events, each once the one before is held."""
    return [score_one(desk.event_scorer, event, now=LATER, keep=True) for event in events]


def keys_of(desk: Desk) -> list[str]:
    """Held events, in their order."""
    return list(map(str, desk.event_scorer.held.frame(now=LATER).index))


def of_one_card(*numbers: str) -> list[Event]:
    """Payments of one card, a second apart, each of which changes what is said of the next."""
    return [
        EVENTS[0] | {"transaction_id": number, "time": f"{EVENTS[0]['time'][:17]}{second:02}"}
        for second, number in enumerate(numbers)
    ]


def test_groups_say_what_each_event_gets_alone(desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, in the order in which they came; those that came during a transaction share the next."""
    together, one_by_one = desks("together"), desks("alone")
    gate = Gate(together, monkeypatch)
    groups = EventBatcher(together.event_scorer)
    events = [*EVENTS[:20], *of_one_card("a", "b", "c", "a"), *EVENTS[20:]]

    first = asked(groups, events[0])
    assert gate.began.wait(SOON)
    rest = asked(groups, *events[1:])
    gate.free.set()
    found = [each.result(SOON) for each in (*first, *rest)]

    assert [(each.values, each.key, each.held) for each in found] == [
        (each.values, each.key, each.held) for each in alone(one_by_one, events)
    ]
    assert keys_of(together) == keys_of(one_by_one)
    assert gate.groups[0] == [events[0]["transaction_id"]]
    assert len(gate.groups) < len(events) / 4


def test_answers_wait_for_the_transactions_they_rest_on(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held event is answered once it is held, a dry run that counts it then too, and another one at once."""
    desk = desks("payments")
    gate = Gate(desk, monkeypatch)
    groups = EventBatcher(desk.event_scorer)
    own, same = of_one_card("own", "same")
    stranger = next(each for each in EVENTS if each["merchant_category"] != own["merchant_category"])

    (held,) = asked(groups, own)
    assert gate.began.wait(SOON)
    counting, other = (asked(groups, event, keep=False)[0] for event in (same, stranger))
    assert other.result(SOON).held == 0
    was_done = held.done(), counting.done()
    gate.free.set()

    assert was_done == (False, False)
    assert held.result(SOON).held == 1
    assert counting.result(SOON).values == score_one(desk.event_scorer, same, now=LATER, keep=False).values


def test_failed_transaction_fails_its_own_events(desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that came meanwhile had counted them: they are scored again, as if the failed ones had never come."""
    desk, other = desks("payments"), desks("other")
    gate = Gate(desk, monkeypatch)
    gate.failing = [StoreError("The disk is full.")]
    groups = EventBatcher(desk.event_scorer)
    lost, *rest = of_one_card("lost", "next", "last")

    failed, dry = (*asked(groups, lost), *asked(groups, rest[0], keep=False))
    assert gate.began.wait(SOON)
    found = asked(groups, *rest)
    gate.free.set()

    with pytest.raises(StoreError, match="disk is full"):
        failed.result(SOON)
    wanted = alone(other, rest)
    assert [each.result(SOON).values for each in found] == [each.values for each in wanted]
    assert dry.result(SOON).values == wanted[0].values
    assert keys_of(desk) == ["next", "last"]


def test_odd_events_and_refused_ones_leave_the_others_alone(desks: Callable[[str], Desk]) -> None:
    """One that takes a frame, and one whose sender may not ask, are handed back; neither is counted or held."""
    desk, other = desks("payments"), desks("other")
    groups = EventBatcher(desk.event_scorer)
    first, odd, barred, last = of_one_card("first", "odd", "barred", "last")

    found = [
        *asked(groups, first, odd | {"amount": " 3 "}),
        groups.ask(EventRequest(barred, keep=True, now=LATER, admits=lambda _, __: False)),
        *asked(groups, last),
    ]

    for each in found[1:3]:
        with pytest.raises(NotPlainError):
            each.result(SOON)
    assert [found[at].result(SOON).values for at in (0, 3)] == [each.values for each in alone(other, [first, last])]
    assert keys_of(desk) == ["first", "last"]


def test_fault_in_one_event_fails_that_one(
    desks: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where scoring breaks unexpectedly, its group is scored one by one."""
    from pipelines.scoring import one_event

    desk = desks("payments")
    decide = one_event._decided_one

    def breaks(*given: Any) -> ScoredEvent:
        if given[2].key == "bad":
            raise ZeroDivisionError
        return decide(*given)

    monkeypatch.setattr(one_event, "_decided_one", breaks)
    gate = Gate(desk, monkeypatch)
    groups = EventBatcher(desk.event_scorer)
    first, *rest = of_one_card("first", "good", "bad", "fine")
    (begun,) = asked(groups, first)
    assert gate.began.wait(SOON)
    found = asked(groups, *rest)
    gate.free.set()

    with pytest.raises(ZeroDivisionError):
        found[1].result(SOON)
    assert [each.result(SOON).held for each in (begun, found[0], found[2])] == [1, 1, 1]
    assert keys_of(desk) == ["first", "good", "fine"]
