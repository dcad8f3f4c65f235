from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector.errors import DataError, SettingError, ShapeError
from detector.metrics.compare import precision_difference, rank_stability, recall_difference
from detector.metrics.inject import inject
from detector.metrics.ranking import ranking_metrics
from detector.schema import Schema

SCHEMA = Schema(numeric=("amount", "fee"), categorical=("country",), boolean=("online",))


def judged(n: int, seed: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, one in twenty anomalous, and risks of a detector of some skill."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.05).astype(float)
    return labels, rng.normal(0, 1, n) + skill * labels


def test_difference_is_that_of_the_two_precisions() -> None:
    """The estimate is the plain difference, ties and unknown labels included."""
    labels, champion = judged(2000, 0, 1.0)
    challenger = np.round(champion + labels, 1)
    labels[::7] = np.nan

    found = precision_difference(labels, champion, challenger, repeats=50)

    expected = ranking_metrics(labels, challenger)["ap"] - ranking_metrics(labels, champion)["ap"]
    assert found.estimate == pytest.approx(expected)
    assert found.low < found.estimate < found.high


def test_pairing_makes_the_interval_narrow() -> None:
    """Two detectors that agree but for a little are told apart where independent intervals would overlap."""
    labels, champion = judged(3000, 0, 1.5)
    challenger = champion + 0.3 * labels

    found = precision_difference(labels, champion, challenger)

    assert found.low > 0
    assert found.high - found.low < 0.1


def test_equal_detectors_have_no_sure_gain() -> None:
    """Of twenty pairs of equal skill, about one interval excludes zero."""
    wrong = 0
    for seed in range(20):
        labels, champion = judged(600, seed, 1.0)
        challenger = np.random.default_rng(100 + seed).normal(0, 1, 600) + labels
        found = precision_difference(labels, champion, challenger, repeats=200)
        wrong += found.low > 0

    assert wrong <= 2


def test_comparison_needs_both_classes_and_equal_lengths() -> None:
    """What cannot be compared says so."""
    with pytest.raises(DataError, match="known anomalies and known normal rows"):
        precision_difference([0, 0], [1, 2], [1, 2])
    with pytest.raises(ShapeError, match="one risk of each a label"):
        precision_difference([0, 1], [1, 2, 3], [1, 2])


def test_recall_difference_counts_what_only_one_catches() -> None:
    """60 caught by both, 30 by the challenger alone, 10 by the champion alone."""
    champion = np.arange(100) < 70
    challenger = (np.arange(100) < 60) | (np.arange(100) >= 70)

    found = recall_difference(champion, challenger)

    assert found.estimate == pytest.approx(0.2)
    assert 0 < found.low < 0.2 < found.high < 0.4
    with pytest.raises(DataError, match="at least one anomaly"):
        recall_difference([], [])
    with pytest.raises(ShapeError, match="same anomalies"):
        recall_difference([True], [True, False])


def test_rank_stability_is_spearmans() -> None:
    """Ranks only, ties shared; a risk that does not vary agrees with nothing."""
    rng = np.random.default_rng(0)
    first = np.round(rng.normal(0, 1, 500), 1)
    second = first + rng.normal(0, 1, 500)

    assert rank_stability(first, second) == pytest.approx(pd.Series(first).corr(pd.Series(second), method="spearman"))
    assert rank_stability(first, np.exp(first)) == pytest.approx(1.0)
    assert rank_stability(first, np.zeros(500)) == 0.0
    with pytest.raises(ShapeError, match="same rows"):
        rank_stability([1, 2], [1, 2, 3])


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A thousand rows with gaps; the fee follows the amount."""
    rng = np.random.default_rng(0)
    amount = rng.lognormal(3, 0.5, 1000)
    return pd.DataFrame(
        {
            "amount": amount,
            "fee": np.where(rng.random(1000) < 0.1, np.nan, 0.02 * amount),
            "country": rng.choice(["de", "fr", "pl"], 1000, p=[0.7, 0.29, 0.01]),
            "online": (rng.random(1000) < 0.2).astype(float),
        },
        index=np.arange(1000) * 3,
    )


def test_only_marked_rows_are_spoilt(rows: pd.DataFrame) -> None:
    """The others are as they were, nothing changes in place, and the seed decides."""
    before = rows.copy()

    spoilt, mark = inject(rows, SCHEMA, share=0.1, random_state=3)

    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(spoilt[~mark], rows[~mark])
    assert mark.sum() == 100
    differs = ((spoilt != rows) & ~(spoilt.isna() & rows.isna())).any(axis=1)
    assert differs[mark].mean() > 0.9
    assert spoilt["amount"].min() >= 0
    pd.testing.assert_frame_equal(spoilt, inject(rows, SCHEMA, share=0.1, random_state=3)[0])


@pytest.mark.parametrize(
    "schema",
    [
        Schema(numeric=("amount",)),
        Schema(categorical=("country",)),
        Schema(categorical=("country",), boolean=("online",)),
    ],
)
def test_any_kinds_of_columns_will_do(rows: pd.DataFrame, schema: Schema) -> None:
    """A table of numbers only, or of categories only, is spoilt in the ways it has."""
    spoilt, mark = inject(rows, schema, share=0.1)

    differs = (spoilt != rows) & ~(spoilt.isna() & rows.isna())
    assert differs.loc[mark, list(schema.features)].any(axis=None)
    assert not differs.drop(columns=list(schema.features)).any(axis=None)


def test_column_of_gaps_is_left_alone() -> None:
    """There is nothing to move a missing number by."""
    rows = pd.DataFrame({"amount": np.full(100, np.nan), "fee": np.arange(100.0)})

    spoilt, mark = inject(rows, Schema(numeric=("amount", "fee")))

    assert spoilt["amount"].isna().all()
    assert mark.sum() == 20


def test_injecting_needs_rows_and_a_share(rows: pd.DataFrame) -> None:
    """What cannot be spoilt says so."""
    with pytest.raises(DataError, match="at least two rows"):
        inject(rows.head(1), SCHEMA)
    with pytest.raises(SettingError, match="between 0 and 1"):
        inject(rows, SCHEMA, share=2.0)
