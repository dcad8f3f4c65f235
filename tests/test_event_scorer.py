"""Events scored on request: the numbers of the batch job, and each event counts once, whichever way it comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.soak import Site
from detector.cleaning.plain import NotPlainError
from detector.errors import SchemaError
from pipelines.config import load_config
from pipelines.scoring.event_scorer import BusyError
from pipelines.service.forget import forget
from pipelines.store import open_store
from pipelines.store.access_tables import HeldEvent
from tests import payment_sites
from tests.desks import Desk, framed_events, risks, score_one
from tests.payment_sites import LATER, PAYMENTS, put, scores, settle
from tests.service_sites import score

home, trained = payment_sites.home, payment_sites.trained

NEW = PAYMENTS.iloc[750:830]


@pytest.fixture
def desk(home: Path) -> Any:
    config = settle(home)
    store = open_store(config.service.store)
    yield Desk(config, store)
    store.close()


def same(found: pd.Series, wanted: pd.Series) -> None:
    pd.testing.assert_series_equal(found, wanted.loc[found.index], check_names=False, rtol=1e-12)


def test_numbers_are_those_of_the_batch(desk: Desk) -> None:
    """Asked before the source brings them, together or one by one, and after: the batch says the same of each."""
    later = PAYMENTS.iloc[830:900]
    dry = risks(desk.ask(NEW).scores)
    kept = desk.one_by_one(NEW, keep=True)
    ahead = risks(desk.ask(later).scores)  # counts those that are held
    put(desk.folder, "a", NEW.sample(frac=1, random_state=1))
    assert desk.batch() == len(NEW)
    wanted = scores(desk.folder)
    behind = risks(desk.ask(later).scores)

    same(dry, wanted)
    same(kept, wanted)
    same(ahead, behind)
    assert desk.event_scorer.held.frame(now=LATER).empty
    put(desk.folder, "b", later)
    desk.batch()
    same(ahead, scores(desk.folder))


def test_events_held_before_features_needed_a_column_still_count(desk: Desk) -> None:
    """They were held as the features of that time needed them, and those that serve now need more."""
    later = PAYMENTS.iloc[830:840]
    without = risks(desk.ask(later).scores)
    desk.ask(NEW, keep=True)
    with desk.store.write() as session:
        for held in session.scalars(sa.select(HeldEvent)):
            held.row = {name: value for name, value in held.row.items() if name != "merchant_category"}

    found = Desk(desk.config, desk.store)
    together, single = risks(found.ask(later).scores), risks(found.ask(later.iloc[[0]]).scores)

    assert together.index.equals(without.index)
    assert (together != without).any()
    assert single.iloc[0] == together.loc[single.index[0]]


def test_event_that_the_source_brought_counts_once(desk: Desk) -> None:
    """Asked again with the same key, it is not in its own past; nor is it when it was held before."""
    last = NEW.iloc[[-1]]
    first = desk.one_by_one(last, keep=True)
    again = desk.one_by_one(last, keep=True)
    put(desk.folder, "a", last)
    desk.batch()
    after = risks(desk.ask(last).scores)
    other = risks(desk.ask(last.assign(transaction_id="another")).scores)

    assert first.tolist() == again.tolist() == after.tolist()
    assert desk.ask(last, keep=True).held == 0
    assert desk.event_scorer.held.frame(now=LATER).empty  # it is in the past, and the source will not bring it again
    assert other.to_numpy() != after.to_numpy()  # a second payment at the same moment has one more before it


def test_text_is_read_in_the_declared_form(home: Path) -> None:
    """A client that sends what the bank's file holds gets the numbers of the file: "1.234" is no 1.234."""
    amount, time = {"thousands": ".", "decimal": ","}, {"date": "day first"}
    config = settle(home, source={"path": "in/*.parquet", "formats": {"amount": amount, "time": time}})
    store = open_store(config.service.store)
    desk = Desk(config, store)
    rows = NEW.iloc[:3].assign(amount=[1234.0, 1234.5, 7.0])
    written = rows.assign(
        amount=["1.234", "1.234,50", 7.0], time=rows["time"].dt.strftime("%d.%m.%Y %H:%M:%S.%f").tolist()
    )

    for keep in (False, True):  # kept ones are read again as held events
        same(risks(desk.ask(written, keep=keep).scores), risks(desk.ask(rows).scores))
    with pytest.raises(NotPlainError):
        score_one(desk.event_scorer, framed_events(written).iloc[0].to_dict(), now=LATER, keep=False)
    refused = desk.ask(written.iloc[[0]].assign(amount="12.5")).refused
    assert refused == {0: "amount: '12.5 (not as 1.234,56)' is not a number"}
    store.close()


def test_dry_run_leaves_nothing(desk: Desk) -> None:
    """What is asked without keeping changes no later answer, and the database holds nothing of it."""
    first = desk.one_by_one(NEW.iloc[:5], keep=False)
    for _ in range(3):
        desk.ask(NEW.iloc[:5])

    assert desk.one_by_one(NEW.iloc[:5], keep=False).tolist() == first.tolist()
    assert desk.event_scorer.held.frame(now=LATER).empty


def test_restart_forgets_no_held_event(desk: Desk) -> None:
    """Another process counts what this one held."""
    desk.one_by_one(NEW.iloc[:40], keep=True)
    rest = NEW.iloc[40:]

    fresh = Desk(desk.config, desk.store)
    other = Desk(settle(desk.folder, name="other"), desk.store)

    found, alike, apart = (risks(each.ask(rest).scores).tolist() for each in (desk, fresh, other))
    assert found == alike
    assert found != apart


def test_what_was_forgotten_is_counted_no_more(desk: Desk) -> None:
    """Held events are not counted at every request: whoever deletes some leaves a trail, and that is seen."""
    rest = NEW.iloc[40:]
    desk.one_by_one(NEW.iloc[:40], keep=True)
    held = risks(desk.ask(rest).scores).tolist()
    for card in NEW.iloc[:40]["card_id"].unique()[:3]:
        forget(desk.config, desk.store, card, actor="ann", reason="asked for", now=LATER)

    found = risks(desk.ask(rest).scores).tolist()

    assert found != held
    assert found == risks(Desk(desk.config, desk.store).ask(rest).scores).tolist()
    assert len(desk.event_scorer.held.frame(now=LATER)) < 40


def test_failed_batch_is_counted_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that fails after its features were measured is undone, and answers stay what they were."""
    rest = NEW.iloc[40:]
    desk.one_by_one(NEW.iloc[:40], keep=True)
    before = risks(desk.ask(rest).scores)
    put(desk.folder, "a", NEW.iloc[:40])

    def away(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.scoring.batch_transaction.Scoring._commit", away)
        with pytest.raises(OSError, match="full"):
            desk.batch()
        meanwhile = risks(desk.ask(rest).scores)
    desk.batch()

    assert before.tolist() == meanwhile.tolist() == risks(desk.ask(rest).scores).tolist()


def test_events_that_cannot_be_scored_say_why(desk: Desk) -> None:
    """Each by its place; the others are scored."""
    put(desk.folder, "a", NEW.iloc[:40])
    desk.batch()
    rows = framed_events(NEW.iloc[40:43])
    rows["amount"] = rows["amount"].astype(object)
    rows.loc[1, "amount"] = "12 euros"
    rows.loc[2, "time"] = "2020-01-01T00:00:00"

    found = desk.event_scorer.score(rows, now=LATER, explain=True, keep=True)

    assert found.scores.index.tolist() == [0]
    assert "amount" in found.refused[1]
    assert "too late" in found.refused[2]
    assert found.held == 1
    assert found.scores["reasons"].iloc[0]
    assert np.isfinite(found.scores["p_value"]).all()
    with pytest.raises(SchemaError, match="amount"):
        desk.event_scorer.score(rows.drop(columns="amount"), now=LATER, explain=False, keep=False)


def test_only_the_leader_knows_the_past(desk: Desk) -> None:
    """An instance that waits says so, rather than to answer by an old past."""
    desk.leads = False

    with pytest.raises(BusyError, match="Another instance leads"):
        desk.ask(NEW.iloc[:1])


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tiny_bundle, "files to files", policy={"budget": {"rows": 3, "per": "day"}})


def test_budget_of_the_day_counts_what_batches_flagged(site: Site) -> None:
    """Once a day's budget is used up, nothing more of that day is flagged on request; of another day it is."""
    config = load_config(site.folder)
    store = open_store(config.service.store)
    desk = Desk(config, store)
    extreme = pd.DataFrame({"id": [900], "at": ["2026-01-01T20:00:00"], "amount": [900.0], "fee": [50.0]})
    try:
        before = desk.event_scorer.score(extreme, now=LATER, explain=False, keep=False).scores
        site.add(60)
        score(site)
        after = desk.event_scorer.score(extreme, now=LATER, explain=False, keep=False).scores
        tomorrow = desk.event_scorer.score(
            extreme.assign(at="2026-01-02T20:00:00"), now=LATER, explain=False, keep=False
        ).scores
    finally:
        store.close()

    assert [bool(each["flagged"].iloc[0]) for each in (before, after, tomorrow)] == [True, False, True]
    assert before["risk"].tolist() == after["risk"].tolist() == tomorrow["risk"].tolist()


def test_without_features_any_instance_answers(site: Site) -> None:
    """There is no past to know, and nothing to hold."""
    config = load_config(site.folder)
    store = open_store(config.service.store)
    desk = Desk(config, store)
    desk.leads = False
    rows = pd.DataFrame({"id": [1, 1], "at": ["2026-01-01"] * 2, "amount": [40.0, 41.0], "fee": [1.0, None]})
    try:
        found = desk.event_scorer.score(rows, now=LATER, explain=True, keep=True)
    finally:
        store.close()

    assert found.scores.index.tolist() == [0]
    assert "key 1 appears again" in found.refused[1]
    assert found.held == 0
