"""Rows to learn from where the data begin: their labels count in hindsight, and nobody's own or later label does."""

import numpy as np
import pandas as pd
import pytest

from detector.features import FeatureSet, compute_to_learn

LINES = ("frauds by shop over 5d, 20d delay 3d", "risk by shop over 20d delay 4d", "count by shop over 5d")
FEATURES = FeatureSet(LINES, time="time", key="id", label="fraud", calendar=("hour",))
LABEL_MADE = [feature.name for feature in FEATURES.all if feature.needs_label]
NOW = pd.Timestamp("2024-02-01")


def payments(size=400, *, seed=0):
    rng = np.random.default_rng(seed)
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 30 * 86_400, size), unit="s")
    rows = pd.DataFrame({"id": np.arange(size), "time": time, "shop": rng.choice(list("abc"), size)})
    return rows.assign(fraud=(rng.random(size) < 0.3).astype(float))


def test_rows_before_any_label_counted_are_measured_in_hindsight():
    """There the windows of labels are moved by the shortest delay; all else, and all later rows, are as they were."""
    rows = payments()
    measured, learnt = FEATURES.compute(rows), compute_to_learn(FEATURES, rows, now=NOW)
    moved = FeatureSet(
        ("frauds by shop over 5d, 20d", "risk by shop over 20d delay 1d"), time="time", key="id", label="fraud"
    ).compute(rows)

    blind = rows["time"] < rows.loc[rows["fraud"] == 1, "time"].min() + pd.Timedelta(days=3)

    assert 20 < blind.sum() < 100
    np.testing.assert_array_equal(
        learnt.loc[blind, LABEL_MADE],
        moved.loc[blind, ["frauds_5d_by_shop", "frauds_20d_by_shop", "risk_20d_by_shop_delay_1d"]],
    )
    assert learnt.loc[blind, LABEL_MADE[0]].max() > measured.loc[blind, LABEL_MADE[0]].max()
    pd.testing.assert_frame_equal(learnt[~blind], measured[~blind])
    pd.testing.assert_frame_equal(learnt.drop(columns=LABEL_MADE), measured.drop(columns=LABEL_MADE))


@pytest.mark.parametrize("chosen", [3, 25, 60])
def test_hindsight_knows_neither_the_rows_own_label_nor_a_later_row(chosen):
    """Turning the labels of a row and of all later ones changes nothing of it."""
    rows = payments().sort_values("time", ignore_index=True)
    turned = rows.copy()
    turned.loc[chosen:, "fraud"] = 1 - turned.loc[chosen:, "fraud"]

    before, after = (compute_to_learn(FEATURES, each, now=NOW).loc[:chosen, LABEL_MADE] for each in (rows, turned))

    pd.testing.assert_frame_equal(before, after)


def test_a_label_not_known_yet_is_not_learnt_from():
    """A report that comes after the training changes nothing, though its row is among the first."""
    features = FeatureSet(LINES, time="time", key="id", label="fraud", reported="reported")
    rows = payments().sort_values("time", ignore_index=True)
    rows["reported"] = (rows["time"] + pd.Timedelta(days=2)).where(rows["fraud"] == 1)
    first = rows.index[rows["fraud"] == 1][0]
    late = rows.copy()
    late.loc[first, "reported"] = NOW + pd.Timedelta(days=1)
    never = rows.copy()
    never.loc[first, ["fraud", "reported"]] = [0.0, pd.NaT]

    pd.testing.assert_frame_equal(
        compute_to_learn(features, late, now=NOW)[LABEL_MADE],
        compute_to_learn(features, never, now=NOW)[LABEL_MADE],
    )


def test_what_was_taken_back_is_not_learnt_from():
    """Of a truth that turned the last word by then counts."""
    turns = ("known", "back", "again")
    features = FeatureSet(LINES, time="time", key="id", turns=turns)
    rows = payments().sort_values("time", ignore_index=True)
    rows["known"], rows["back"], rows["again"] = rows["time"].where(rows["fraud"] == 1), pd.NaT, pd.NaT
    first = rows.index[rows["fraud"] == 1][0]
    versions = [rows.copy() for _ in range(3)]
    versions[1].loc[first, "back"] = versions[2].loc[first, "back"] = rows["time"].iloc[50]
    versions[2].loc[first, "again"] = rows["time"].iloc[60]
    never = rows.copy()
    never.loc[first, "known"] = pd.NaT

    as_fraud, taken_back, again = (compute_to_learn(features, each, now=NOW)[LABEL_MADE[0]] for each in versions)

    early = (rows["time"] < rows["time"].iloc[0] + pd.Timedelta(days=3)).to_numpy()
    np.testing.assert_array_equal(as_fraud[early], again[early])
    np.testing.assert_array_equal(taken_back[early], compute_to_learn(features, never, now=NOW)[LABEL_MADE[0]][early])
    assert as_fraud[early].sum() > taken_back[early].sum()


def test_without_known_frauds_rows_are_as_they_were():
    """So they are where the features are not made of labels, and where no label counts yet."""
    rows = payments()
    unlabelled = FeatureSet(LINES[2:], time="time", key="id", label="fraud", calendar=("hour",))
    early = rows["time"].min() + pd.Timedelta(days=1)

    pd.testing.assert_frame_equal(compute_to_learn(unlabelled, rows, now=NOW), unlabelled.compute(rows))
    pd.testing.assert_frame_equal(compute_to_learn(FEATURES, rows, now=early), FEATURES.compute(rows))
    honest = rows.assign(fraud=0.0)
    pd.testing.assert_frame_equal(compute_to_learn(FEATURES, honest, now=NOW), FEATURES.compute(honest))


def test_other_columns_stand_in_nobodys_way():
    """A table may have columns named like what hindsight measures on the way."""
    rows = payments()
    others = {"frauds_5d_by_shop": "mine", "known today": "mine"}

    found = compute_to_learn(FEATURES, rows.assign(**others), now=NOW)

    pd.testing.assert_frame_equal(found[LABEL_MADE], compute_to_learn(FEATURES, rows, now=NOW)[LABEL_MADE])
    assert (found[list(others)] == "mine").all(axis=None)
