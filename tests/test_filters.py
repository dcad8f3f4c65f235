"""What leaves the training rows, and why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.training_filters import Bounds, Filters
from detector.errors import DataError, SchemaError, SettingError
from detector.schema import Schema

SCHEMA = Schema(numeric=("amount", "fee"))


@pytest.fixture
def rows() -> pd.DataFrame:
    """A line of 400 rows; the last four lie far off it, though each of their values is usual for one row or another."""
    rng = np.random.default_rng(1)
    amount = rng.uniform(0, 100, 400)
    rows = pd.DataFrame({"amount": amount, "fee": 0.02 * amount + rng.normal(0, 0.01, 400)})
    rows.loc[396:, "amount"] = [90.0, 95.0, 5.0, 2.0]
    rows.loc[396:, "fee"] = [0.1, 0.0, 1.9, 2.0]
    return rows


def test_rules_say_which_value_broke_them(rows: pd.DataFrame) -> None:
    """The first rule that a row breaks is its reason; a missing value breaks none."""
    rows.loc[0, "amount"] = -3.0
    rows.loc[1, ["amount", "fee"]] = [np.nan, 7.5]
    rules = {"amount": Bounds(least=0.0), "fee": Bounds(most=5.0)}

    filtered = Filters(rules=rules).apply(rows, SCHEMA)

    assert dict(zip(filtered.left["row"], filtered.left["reason"], strict=True)) == {
        0: "rule: amount -3 is below 0",
        1: "rule: fee 7.5 is above 5",
    }
    assert len(filtered.rows) == 398
    assert filtered.counts == {"rule": 2}


def test_density_takes_the_rows_that_no_single_value_betrays(rows: pd.DataFrame) -> None:
    """Off the line, though every value is usual."""
    filtered = Filters(density=0.01).apply(rows, SCHEMA)

    assert set(filtered.left["row"]) == {396, 397, 398, 399}
    assert set(filtered.left["reason"]) == {f"density: number {n} of 400 in unusualness" for n in (1, 2, 3, 4)}


def test_isolation_takes_its_share(rows: pd.DataFrame) -> None:
    """A value far beyond all others is the easiest to isolate."""
    rows.loc[7, "amount"] = 10_000.0

    filtered = Filters(isolation=0.01).apply(rows, SCHEMA)

    assert 7 in set(filtered.left["row"])
    assert len(filtered.left) <= 4
    assert filtered.counts.keys() == {"isolation forest"}


def test_filters_follow_each_other(rows: pd.DataFrame) -> None:
    """Each sees what the one before left; no row leaves twice, and none is lost."""
    rows.loc[0, "amount"] = -3.0
    filtered = Filters(rules={"amount": Bounds(least=0.0)}, isolation=0.02, density=0.02).apply(rows, SCHEMA)

    gone, kept = list(filtered.left["row"]), list(filtered.rows.index)
    assert sorted(gone + kept) == list(range(400))
    assert filtered.counts.keys() == {"rule", "isolation forest", "density"}


def test_equal_rows_share_their_fate() -> None:
    """Among ties none is singled out."""
    rows = pd.DataFrame({"amount": [1.0, 2.0] * 50, "fee": [0.0, 1.0] * 50})

    assert Filters(density=0.1).apply(rows, SCHEMA).left.empty


def test_detector_learns_without_them_and_says_so(rows: pd.DataFrame) -> None:
    """The rows and the metrics tell; a refit drops the riskiest of what the others left."""
    filters = Filters(rules={"amount": Bounds(most=94.9)}, density=0.005, refit=0.01)

    detector = TabularDetector(schema=SCHEMA, members=("forest",), trees=20, filters=filters).fit(rows)

    counts = detector.left_out_["reason"].str.partition(":")[0].value_counts()
    assert set(counts.index) == {"rule", "density", "trimmed refit"}
    assert detector.scorer_.metrics["rows_left_out_trimmed_refit"] == counts["trimmed refit"]
    used = detector.scorer_.metrics["rows_calibration"]
    assert used == 400 - len(detector.left_out_)


@pytest.mark.parametrize("changed", [{"isolation": 0.5}, {"density": -0.1}, {"refit": 1.0}])
def test_shares_without_meaning_are_refused(changed: dict[str, float]) -> None:
    """Half and more would not be cleaning."""
    with pytest.raises(SettingError, match=f"{next(iter(changed))} must lie in"):
        Filters(**changed)


def test_rules_without_meaning_are_refused(rows: pd.DataFrame) -> None:
    """No value between the bounds; an unknown column; a rule that nothing obeys."""
    with pytest.raises(SettingError, match="least <= most"):
        Bounds(least=2, most=1)
    with pytest.raises(SchemaError, match="'amuont', which is no numeric column. Did you mean 'amount'"):
        Filters(rules={"amuont": Bounds()}).apply(rows, SCHEMA)
    with pytest.raises(DataError, match="leave none of the 400 training rows .*Loosen"):
        Filters(rules={"amount": Bounds(least=1e9)}).apply(rows, SCHEMA)
