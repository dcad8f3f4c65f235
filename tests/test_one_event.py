"""One event without a frame around it: exactly the numbers of the way by frames, which are those of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.soak import Site
from detector.cleaning.clean import clean
from detector.cleaning.plain import NotPlainError, plain_row
from detector.schema import Schema
from pipelines.config import load_config
from pipelines.features.plain_frame import framed
from pipelines.store import open_store
from pipelines.training.train import train
from tests import payment_sites
from tests.desks import Desk, Event, plain_events, score_one
from tests.payment_sites import LATER, PAYMENTS, put, settle

home, trained = payment_sites.home, payment_sites.trained

SAID = ("risk", "p_value", "flagged", "severity", "decided_by")


def odd(event: Event, number: int) -> Event:
    """The same event, or one with something unusual about it."""
    changes: list[Event] = [
        {},
        {"amount": -event["amount"]},
        {"amount": None},
        {"amount": 0},
        {"amount": round(event["amount"])},
        {"amount": f" {event['amount']} "},
        {"time": event["time"].replace(" ", "T") + "+02:00"},
        {"time": event["time"] + ".25"},
        {"time": "now"},
        {"card_id": None},
        {"card_id": "nobody knows"},
        {"card_id": f" {event['card_id']}"},
        {"card_id": 7},
        {"transaction_id": number},
        {"merchant_category": None},
        {"merchant_category": 5411},
        {"amount": 1e9},
        {"time": "2020-01-01T00:00:00"},
        {"time": "2030-01-01T00:00:00"},
    ]
    return event | changes[number % len(changes)]


def by_frames(desk: Desk, event: Event) -> tuple[list[Any], str] | str:
    """What the way by frames says of an event, or why it refuses it."""
    found = desk.event_scorer.score(framed([event]), now=LATER, explain=False, keep=False)
    if found.refused:
        return found.refused[0]
    line = found.scores.iloc[0]
    key = None if desk.config.columns.key is None else line[desk.config.columns.key]
    return [line[name] for name in SAID], str(key)  # beside held ones with text for a key, a number is text as well


def compare(desk: Desk, events: list[Event]) -> int:
    """Ask both ways about each event, and have every third counted from then on; how many took the fast path."""
    short = 0
    for number, event in enumerate(events):
        wanted = by_frames(desk, event)
        try:
            found = score_one(desk.event_scorer, event, now=LATER, keep=number % 3 == 0)
        except NotPlainError:
            if number % 3 == 0:
                desk.event_scorer.score(framed([event]), now=LATER, explain=False, keep=True)
            continue
        short += 1
        assert ([found.values[name] for name in SAID], str(found.key)) == wanted, event
    return short


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"policy": {"budget": {"rows": 2, "per": "day"}}},
        {"policy": {"fdr": 0.2}, "features": {"lateness": 86_400, "negative": "skip", "zero": "refuse"}},
    ],
    ids=["quantile", "budget", "late"],
)
def test_both_ways_agree_to_the_last_bit(home: Path, sections: Event) -> None:
    """Of plain events and odd ones, known entities and new ones, with others held beside and after a batch."""
    given = settle(home, **{name: {**_settings(home)[name], **value} for name, value in sections.items()})
    if "features" in sections:
        train_again(home)
    store = open_store(given.service.store)
    desk = Desk(given, store)
    rows = plain_events(PAYMENTS.iloc[750:1_100])
    try:
        first = compare(desk, rows[:60])
        put(home, "a", PAYMENTS.iloc[750:850])
        desk.batch()
        later = compare(desk, [odd(event, number) for number, event in enumerate(rows[100:214])])
    finally:
        store.close()

    assert first == 60
    assert 114 // 3 < later < 114


def _settings(folder: Path) -> Event:
    import yaml

    found: Event = yaml.safe_load((folder / "detector.yaml").read_text())
    return found


def train_again(folder: Path) -> None:
    config = load_config(folder)
    (folder / "detector.yaml").write_text(
        (folder / "detector.yaml").read_text().replace("in/*.parquet", "past.parquet"), encoding="utf-8"
    )
    train(load_config(folder), now=LATER)
    (folder / "detector.yaml").write_text(
        (folder / "detector.yaml").read_text().replace("past.parquet", "in/*.parquet"), encoding="utf-8"
    )
    assert config.bundle.exists()


def test_without_features(tiny_bundle: Path, tmp_path: Path) -> None:
    """There is no past to know; the numbers are the same."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", policy={"budget": {"rows": 3, "per": "day"}})
    config = load_config(site.folder)
    store = open_store(config.service.store)
    desk = Desk(config, store)
    random = np.random.default_rng(0)
    events = [
        {"id": number, "at": f"2026-01-0{1 + number % 9}T20:00:00", "amount": float(amount), "fee": None}
        for number, amount in enumerate(random.exponential(40, 40))
    ]
    try:
        assert compare(desk, events) == len(events)
    finally:
        store.close()


@pytest.mark.parametrize(
    "value",
    ["12", " a", "a ", "", "NA", "é", "a\u00a0", "a\x1f", 3, 2**60, 2**70, -0.0, 1.5, 1e400, True, None, "\ud800"],
)
def test_cells_are_those_of_clean(value: Any) -> None:
    """Every value of JSON, in a column of each kind: cleaned alike, or left to ``clean``."""
    kinds = {"numeric": "n", "boolean": "b", "categorical": "c", "entity": "e", "key": "k", "datetime": "d"}
    for kind, name in kinds.items():
        schema = Schema(**{kind: name if kind in ("entity", "key") else (name,)})
        try:
            found = plain_row({name: value}, schema)[name]
        except NotPlainError:
            continue
        cleaned = clean(framed([{name: value}]), schema)
        assert len(cleaned.rows) == 1, (kind, value)
        wanted = cleaned.rows[name].iloc[0]
        assert (found is None and pd.isna(wanted)) or found == wanted or (found != found and wanted != wanted)


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-31T10:00:00", "2024-01-31 10:00:00.5", "2024-01-31T10:00:00Z", "2024-02-30T10:00:00",
        "2024-01-31T10:00:00.123456+05:30", "1950-01-01T00:00:00-08:00", "9999-12-31T23:59:59", "2024-01-31", "now",
    ],
)  # fmt: skip
def test_moments_are_those_of_clean(text: str) -> None:
    """Dates in full are read alike, everything else is left to ``clean``."""
    try:
        found = plain_row({"at": text}, Schema(time="at"))["at"]
    except NotPlainError:
        return
    cleaned = clean(framed([{"at": text}]), Schema(time="at"))
    assert np.datetime64(found, "us") == cleaned.rows["at"].to_numpy()[0]
