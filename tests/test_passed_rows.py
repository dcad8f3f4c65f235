"""Rows behind the cursor are read in parts: what is known of them, and what others can look back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from pipelines.config import load_config
from pipelines.features.engine import FeatureEngine, feature_engine_of
from pipelines.features.passed_rows import known_rows, rows_of_the_same_entities
from tests import payment_sites
from tests.payment_sites import PAYMENTS, put, run, settle

home, trained = payment_sites.home, payment_sites.trained
PART = 50


def parts() -> Iterator[pd.DataFrame]:
    for begin in range(0, 500, PART):
        yield PAYMENTS.iloc[begin : begin + PART].reset_index(drop=True)


@pytest.fixture
def engine(home: Path) -> FeatureEngine:
    found = feature_engine_of(settle(home), trained=False)
    assert found is not None
    return found


def test_known_rows_come_with_those_of_their_moments(engine: FeatureEngine) -> None:
    """A fraud in one part, and a row of the same moment in another; nothing else is kept."""
    rows = PAYMENTS.iloc[:500].assign(is_fraud=0)
    fraud, beside = 30, 400
    rows.loc[rows.index[fraud], "is_fraud"] = 1
    rows.loc[rows.index[beside], ["time", "card_id", "merchant_category"]] = rows.iloc[fraud][
        ["time", "card_id", "merchant_category"]
    ].to_list()
    read = []

    def frames() -> Iterator[pd.DataFrame]:
        read.append("once")
        for begin in range(0, 500, PART):
            yield rows.iloc[begin : begin + PART]

    found = known_rows(engine, frames, None)

    assert found is not None
    assert found["transaction_id"].tolist() == rows["transaction_id"].iloc[[fraud, beside]].astype(str).tolist()
    assert len(read) == 2


def test_known_rows_are_few_where_times_are_days(engine: FeatureEngine) -> None:
    """All rows of a day are of one moment: only those of the same entity could be taken for the fraud."""
    rows = PAYMENTS.iloc[:500].assign(is_fraud=0, time=PAYMENTS["time"].iloc[:500].dt.normalize())
    rows.loc[rows.index[30], "is_fraud"] = 1
    ways = {engine.features.grouped_by(each) for each in engine.features.all if each.needs_label}
    same = [name for way in ways for name in way]

    found = known_rows(engine, lambda: iter([rows]), None)

    day = rows[rows["time"] == rows["time"].iloc[30]]
    assert found is not None
    assert 1 <= len(found) < len(day)
    assert (found[same].astype(str) == rows[same].iloc[30].astype(str)).any(axis="columns").all()


def test_what_no_feature_looks_back_to_is_not_known_any_more(engine: FeatureEngine) -> None:
    rows = PAYMENTS.iloc[:100].assign(is_fraud=0)
    rows.loc[rows.index[0], ["is_fraud", "time"]] = 1, rows["time"].min() - 2 * engine.reach
    assert known_rows(engine, lambda: iter([rows]), None) is None


def test_source_of_which_nothing_is_known_is_read_once(engine: FeatureEngine) -> None:
    read = []

    def frames() -> Iterator[pd.DataFrame]:
        read.append("once")
        yield PAYMENTS.iloc[:100].assign(is_fraud=0)

    assert known_rows(engine, frames, None) is None
    assert len(read) == 1


def test_rows_of_other_entities_and_times_are_let_go(engine: FeatureEngine) -> None:
    """Of each way to group rows, those that share its entity: the card of one feature, the merchant of another."""
    typed = engine.typed(PAYMENTS.iloc[:500])
    own = typed.iloc[[490]]
    since, until = typed["time"].iloc[100], typed["time"].iloc[490]

    found = rows_of_the_same_entities(engine, parts(), own, since=since, until=until)

    shared = pd.Series(False, index=typed.index)
    for by in engine.features.groups:
        shared |= (typed[list(by)] == own[list(by)].iloc[0]).all(axis="columns")
    wanted = typed[shared & typed["time"].between(since, until)]
    assert 1 < len(found) < 390
    assert found["transaction_id"].tolist() == wanted["transaction_id"].tolist()


def test_without_a_source_there_are_no_such_rows(engine: FeatureEngine) -> None:
    own = engine.typed(PAYMENTS.iloc[:3])
    found = rows_of_the_same_entities(engine, [], own, since=own["time"].min(), until=own["time"].max())
    assert found.empty
    assert set(found) == set(own)


def test_nobody_waits_while_the_source_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the past is read while others may look at the history."""
    from pipelines.features.feature_state import FeatureState

    settle(home)
    put(home, "part1", PAYMENTS.iloc[:1_000])
    held = []
    real = FeatureState._known_rows

    def watched(state: FeatureState, *given: object) -> pd.DataFrame | None:
        held.append(state.lock.locked())
        return real(state, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureState, "_known_rows", watched)
    run(load_config(home))

    assert held == [False]
