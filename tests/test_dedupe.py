from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.dedupe import KeyLedger

Batches = list[list[int]]
BATCHES = st.lists(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20), unique=True), max_size=12)


def repeats(batches: list[pd.Series]) -> list[list[bool]]:
    ledger = KeyLedger()
    return [ledger.repeats(batch).tolist() for batch in batches]


def oracle(batches: list[list[object]]) -> list[list[bool]]:
    """The same with a set."""
    seen: set[object] = set()
    found = []
    for batch in batches:
        found.append([key in seen for key in batch])
        seen.update(batch)
    return found


@given(BATCHES)
def test_ledger_agrees_with_a_set_on_integers(batches: Batches) -> None:
    """Whatever the order, the sign and the size of the batches."""
    assert repeats([pd.Series(batch, dtype="int64") for batch in batches]) == oracle(batches)


@given(BATCHES)
def test_ledger_agrees_with_a_set_on_text(batches: Batches) -> None:
    """Text keys are compared by a hash of 64 bits."""
    texts = [[f"T{key}" for key in batch] for batch in batches]

    assert repeats([pd.Series(batch, dtype="str") for batch in texts]) == oracle(texts)


@pytest.mark.parametrize(
    "keys",
    [
        pd.Series([2**63, 2**64 - 1], dtype="uint64"),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])),
        pd.Series([True, False]),
        pd.Series([1.5, 2.5]),
    ],
    ids=lambda keys: str(keys.dtype),
)
def test_ledger_takes_keys_of_any_type(keys: pd.Series) -> None:
    """A key that came is known again, and no other."""
    assert repeats([keys, keys[:1]]) == [[False, False], [True]]


def test_ledger_keeps_few_runs_of_many_batches() -> None:
    """A lookup stays quick: a thousand batches lie in about ten sorted runs."""
    rng = np.random.default_rng(0)
    keys = rng.permutation(20_000).reshape(1000, 20)
    ledger = KeyLedger()

    found = [ledger.repeats(pd.Series(batch)).any() for batch in keys]

    assert not any(found)
    assert len(ledger._runs) <= 15
    assert ledger.repeats(pd.Series(keys[::100, 0])).all()
