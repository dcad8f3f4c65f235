from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from detector.errors import BundleError, DataError, SettingError
from detector.metrics.drift import FEWEST_A_LEVEL, Reference, persistent, stability_index
from detector.schema import Schema

SCHEMA = Schema(numeric=("amount", "balance"), categorical=("country",), boolean=("online",))


def payments(n: int, seed: int) -> pd.DataFrame:
    """Rows as ``clean`` returns them."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": rng.lognormal(3, 1, n),
            "balance": np.where(rng.random(n) < 0.1, np.nan, rng.normal(0, 1, n)),
            "country": rng.choice(["de", "fr", "pl"], n, p=[0.6, 0.35, 0.05]),
            "online": (rng.random(n) < 0.3).astype(float),
        }
    )


def scores(n: int, seed: int, *, lift: float = 0.0) -> dict[str, np.ndarray]:
    """Risks, and p-values as a calibrated detector gives them."""
    rng = np.random.default_rng(seed)
    return {"risk": rng.normal(lift, 1, n), "p_value": rng.uniform(0, 1, n)}


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of 5,000 rows."""
    return Reference.of(payments(5000, 0), SCHEMA, **scores(2000, 0))


def moved(reference: Reference, rows: pd.DataFrame, **given: np.ndarray) -> set[str]:
    """The names of what moved."""
    return {shift.name for shift in reference.compare(rows, **(scores(len(rows), 1) | given)) if shift.moved}


def test_reference_survives_json(reference: Reference) -> None:
    """It is kept in the bundle's manifest, so plain values must be enough."""
    assert Reference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference


def test_damaged_reference_is_named() -> None:
    """A manifest that was edited by hand says what to do."""
    with pytest.raises(BundleError, match="reference for drift cannot be used"):
        Reference.from_dict({"rows": 3})


def test_reference_keeps_no_rare_level() -> None:
    """A level that stands for few rows could name a person."""
    rows = payments(500, 0)
    rows.loc[: FEWEST_A_LEVEL - 2, "country"] = "ann smith"

    text = json.dumps(Reference.of(rows, SCHEMA, **scores(500, 0)).to_dict())

    assert "ann smith" not in text
    assert '"de"' in text


@pytest.mark.parametrize("n", [10, 50, 200, 1000, 20_000])
def test_rows_of_the_same_kind_do_not_move(reference: Reference, n: int) -> None:
    """Chance alone moves nothing, however small the batch: at most one column of 120 in 20 batches."""
    found = [moved(reference, payments(n, seed), **scores(n, seed)) for seed in range(1, 21)]

    assert sum(map(len, found)) <= 1


def test_shifted_numbers_are_found(reference: Reference) -> None:
    """Only the column that moved is named."""
    rows = payments(1000, 2)
    rows["amount"] *= 3

    assert moved(reference, rows) == {"amount"}


def test_wider_spread_is_found_though_the_mean_stays(reference: Reference) -> None:
    """The effect size sees only the centre; the stability index sees the shape."""
    rows = payments(2000, 2)
    rows["balance"] *= 3

    shift = next(each for each in reference.compare(rows, **scores(2000, 1)) if each.name == "balance")

    assert shift.moved
    assert abs(shift.effect) < shift.effect_limit < 1
    assert shift.psi > shift.psi_limit


def test_missing_values_and_new_levels_are_found(reference: Reference) -> None:
    """A feed that breaks loses values; a new market brings levels."""
    rows = payments(1000, 2)
    rows.loc[:499, "balance"] = np.nan
    rows.loc[:399, "country"] = "us"

    assert moved(reference, rows) == {"balance", "country"}


def test_one_absurd_number_moves_nothing(reference: Reference) -> None:
    """One row of a thousand is no drift, whatever it says."""
    rows = payments(1000, 2)
    rows.loc[0, "amount"] = 1e12

    assert moved(reference, rows) == set()


def test_constant_column_that_begins_to_vary_is_found() -> None:
    """There is no spread to measure in, but there are bins."""
    schema = Schema(numeric=("fee",))
    reference = Reference.of(pd.DataFrame({"fee": np.ones(500)}), schema, **scores(500, 0))

    for value in (0.5, 2.0):
        rows = pd.DataFrame({"fee": np.where(np.arange(300) % 2 == 0, 1.0, value)})
        assert moved(reference, rows) == {"fee"}
    assert moved(reference, pd.DataFrame({"fee": np.ones(300)})) == set()


def test_column_without_a_value_moves_when_values_come() -> None:
    """A column that was empty in training is no reason to fail."""
    schema = Schema(numeric=("fee",))
    reference = Reference.of(pd.DataFrame({"fee": np.full(500, np.nan)}), schema, **scores(500, 0))

    assert moved(reference, pd.DataFrame({"fee": np.full(300, np.nan)})) == set()
    assert moved(reference, pd.DataFrame({"fee": np.ones(300)})) == {"fee"}


def test_risk_and_alerts_move_with_the_detector(reference: Reference) -> None:
    """Three times the alerts are found, also where a budget would hide them."""
    rows = payments(3000, 2)
    p_value = scores(3000, 3)["p_value"]
    p_value[:60] = 0.001

    assert moved(reference, rows, p_value=p_value) == {"alerts"}
    assert moved(reference, rows, **scores(3000, 3, lift=1.0)) == {"risk"}


def test_no_rows_is_an_error(reference: Reference) -> None:
    """Nothing can be said of nothing."""
    with pytest.raises(DataError, match="at least one row"):
        reference.compare(payments(0, 0), risk=[], p_value=[])


def test_stability_index_has_no_direction_and_needs_equal_counts() -> None:
    """Jeffreys' divergence is the same both ways, but for the smoothing."""
    there, back = stability_index([50, 950], [500, 500]), stability_index([500, 500], [50, 950])
    assert there == pytest.approx(back, rel=0.02)
    assert there == pytest.approx((0.5 - 0.05) * np.log(0.5 / 0.05) + (0.5 - 0.95) * np.log(0.5 / 0.95), rel=0.02)
    with pytest.raises(SettingError, match="as many counts"):
        stability_index([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([], False),
        ([True], False),
        ([True, True, True], True),
        ([True, True, True, False], False),
        ([True, False, True, False, True], True),
        ([True, True, False, False, False, True], False),
    ],
)
def test_drift_must_persist(checks: list[bool], expected: bool) -> None:
    """Three of the last five, and the latest one among them."""
    assert persistent(checks, batches=5, needed=3) is expected
