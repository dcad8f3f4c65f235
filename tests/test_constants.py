"""Columns that never varied in training: any other value is at least as surprising as an unseen category."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.plain import plain_row
from detector.decide.calibrate import Calibrator
from detector.decide.policy import Policy
from detector.detectors.table.detector import TabularDetector
from detector.encoding.constants import Constants
from detector.explain.reason import in_words
from detector.metrics.drift import Profile
from detector.persist import bundle
from detector.schema import Schema
from pipelines.doctor.proposal import proposal_of

SCHEMA = Schema(
    numeric=("a", "b", "limit", "fee"),
    boolean=("live",),
    categorical=("kind", "country", "code"),
    datetime=("since",),
)
USUAL = {"limit": 1.0, "fee": np.nan, "live": 1.0, "country": "DE", "code": None, "since": pd.Timestamp("2020-01-01")}
OTHERS = {
    "limit": (7.0, "limit 7, expected 1 as always"),
    "fee": (3.5, "fee 3.5, expected missing as always"),
    "live": (0.0, "live false, expected true as always"),
    "country": ("FR", "country FR, expected DE as always"),
    "code": ("X", "code X, expected missing as always"),
    "since": (pd.Timestamp("2021-06-01"), "since 2021-06-01 00:00:00, expected 2020-01-01 00:00:00 as always"),
}


def draw(n: int, seed: int) -> pd.DataFrame:
    """Cleaned rows, of which two columns of numbers and one category vary."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"])
    frame["kind"] = pd.Series(rng.choice(["x", "y", "z"], n), dtype="str")
    for name, value in USUAL.items():
        frame[name] = pd.Series([value] * n, dtype="str" if name in ("country", "code") else None)
    return frame.astype({"since": "datetime64[us]"})


@pytest.fixture(scope="module")
def detector() -> TabularDetector:
    """Of rows with six constants, two of them always missing."""
    return TabularDetector(schema=SCHEMA, members=("forest", "neighbours"), trees=30).fit(draw(600, 0))


@pytest.mark.parametrize("name", OTHERS)
def test_value_other_than_the_only_one_is_riskier_than_all_that_was_seen(detector: TabularDetector, name: str) -> None:
    """Its p-value is that of the riskiest rows, and the reason says what it always was."""
    scorer, rows = detector.scorer_, draw(20, 1)
    before = scorer.measure(rows)
    value, said = OTHERS[name]
    rows[name] = pd.Series([value] * 20, dtype=rows[name].dtype)

    scores = scorer.score(rows, Policy(quantile=0.99))

    assert scores["p_value"].max() <= 1 / (scorer.calibrator.size + 1)
    assert scores["flagged"].all()
    assert (scores["risk"] > before["risk"]).all()
    assert all(in_words(each).startswith(f"{said}; ") for each in scores["reasons"])


def test_other_value_is_at_least_as_surprising_as_an_unseen_category(detector: TabularDetector) -> None:
    """Row by row, in the same detector."""
    rows = draw(50, 2)

    unseen = detector.scorer_.measure(rows.assign(kind="never"))
    other = detector.scorer_.measure(rows.assign(country="FR"))

    assert (other["risk"] >= unseen["risk"]).mean() > 0.9
    assert other["p_value"].mean() <= unseen["p_value"].mean()


def test_two_columns_that_moved_are_riskier_than_one(detector: TabularDetector) -> None:
    """Each adds its part, and both are named."""
    rows = draw(5, 3).assign(country="FR")
    both = rows.assign(limit=7.0)

    one, two = detector.scorer_.measure(rows), detector.scorer_.measure(both)

    assert (two["risk"] > one["risk"]).all()
    assert [reason.feature for reason in detector.scorer_.explain(both)[0][:2]] == ["limit", "country"]


def test_rows_without_such_a_value_keep_their_scores_to_the_bit(detector: TabularDetector) -> None:
    """Beside rows that moved, and whatever rounding made of the constant."""
    rows = draw(30, 4)
    before = detector.scorer_.measure(rows)
    mixed = rows.assign(limit=np.where(np.arange(30) < 10, 7.0, np.float64(np.float32(1.0)) + 1e-10))

    after = detector.scorer_.measure(mixed)

    pd.testing.assert_frame_equal(after[10:], before[10:], check_exact=True)
    alone = detector.scorer_.measure(mixed.iloc[[3]])
    pd.testing.assert_frame_equal(alone, after.iloc[[3]], check_exact=True)


def test_training_row_that_moved_is_not_taken_for_the_one_that_was_learnt(detector: TabularDetector) -> None:
    """All that members read of it is alike."""
    rows = draw(600, 0).head(20).assign(country="FR")

    measures, learnt = detector.scorer_.recalled(rows)

    assert not learnt.any()
    assert (measures["p_value"] <= 1 / (detector.scorer_.calibrator.size + 1)).all()


def test_row_by_itself_and_a_saved_detector_say_the_same(detector: TabularDetector, tmp_path: Path) -> None:
    """A cell of a plain row is compared as a column's is, and a bundle remembers what was constant."""
    rows = draw(4, 5).assign(limit=[7.0, 1.0, np.nan, 1.0], country=["DE", "FR", "DE", "DE"])
    plain = [
        plain_row(
            {name: None if pd.isna(value) else value for name, value in row.items()} | {"since": "2020-01-01T00:00:00"},
            SCHEMA,
        )
        for row in rows.drop(columns="since").to_dict("records")
    ]
    expected = detector.scorer_.measure(rows)["risk"].to_numpy()

    bundle.save(detector.scorer_, tmp_path / "bundle")
    loaded = bundle.load(tmp_path / "bundle")

    assert detector.scorer_.measure_plain(plain).risk.tolist() == expected.tolist()
    assert loaded.measure(rows)["risk"].tolist() == expected.tolist()
    assert (expected[:3] > expected[3]).all()


def test_number_that_was_missing_or_the_same_moves_and_its_gap_does_not() -> None:
    """A gap was seen; another number never was."""
    rows = pd.DataFrame({"rate": [0.001, np.nan, 0.001], "kind": ["a", None, "a"]})

    constants = Constants.fit(rows, Schema(numeric=("rate",), categorical=("kind",)))

    assert [each.name for each in constants.columns] == ["rate"]  # a category has a code of its own for what is unseen
    moved = constants.moved(pd.DataFrame({"rate": [0.001, np.nan, 0.002]}))
    assert moved is not None
    assert moved.ravel().tolist() == [False, False, True]


def test_feature_of_which_only_more_is_suspicious_moves_up_alone() -> None:
    """Fewer than ever is no news, nor is a gap."""
    schema = Schema(numeric=("n",))
    constants = Constants.fit(pd.DataFrame({"n": [2.0, 2.0]}), schema, is_rising=lambda name: name == "n")

    moved = constants.moved(pd.DataFrame({"n": [1.0, 2.0, 3.0, np.nan]}))

    assert moved is not None
    assert moved.ravel().tolist() == [False, False, True, False]


def test_feature_of_the_past_may_come_to_have_one() -> None:
    """In training no card had come before: that one comes again is no news. Another value than the only one is."""
    rows = draw(300, 0).assign(a_ratio_7d_by_card=np.nan, a_mean_7d_by_card=3.0)
    schema = Schema(numeric=("a", "b", "a_ratio_7d_by_card", "a_mean_7d_by_card"))
    scorer = TabularDetector(schema=schema, members=("forest", "neighbours"), trees=10).fit(rows).scorer_

    fresh = draw(4, 1).assign(a_ratio_7d_by_card=[1.0, np.nan, np.nan, np.nan], a_mean_7d_by_card=[3.0, 3.0, np.nan, 5])

    moved = scorer.columns.constants.moved(fresh)
    assert moved is not None
    assert moved.ravel().tolist() == [False, False, False, True]


def test_what_varies_in_rows_kept_back_is_no_constant() -> None:
    """Rows that members did not learn from have been seen, too."""
    rows = draw(600, 0)
    rows.loc[rows.sample(4, random_state=0).index, "limit"] = 2.0
    detector = TabularDetector(schema=SCHEMA, members=("forest", "neighbours"), trees=10).fit(rows)

    assert "limit" not in [each.name for each in detector.scorer_.columns.constants.columns]


def test_beyond_all_leaves_other_risks_and_passes_the_largest() -> None:
    """The least risky row comes just beyond the largest."""
    calibrator = Calibrator(np.arange(100.0))

    risk = calibrator.beyond_all(np.array([-5.0, 3.0, 60.0]), np.array([1, 0, 2]))

    assert risk.tolist() == [100.0, 3.0, 161.0]


def test_rows_that_alone_change_a_column_calibrate_those_that_change_another() -> None:
    """They come where a new row of their kind comes, and what was largest before stays the step."""
    risk, times = np.arange(100.0), np.zeros(100, dtype=np.int64)
    times[[3, 70]] = 1
    calibrator = Calibrator.learn(risk).with_lifted(risk, times)

    again = Calibrator.from_state(calibrator.state())

    new = again.beyond_all(np.array([0.0, 80.0]), np.array([1, 1]))
    assert new.tolist() == [100.0, 130.5]
    assert again.p_value(new[:1]).tolist() == [3 / 101]
    assert Calibrator.learn(risk).with_lifted(risk, 0 * times).lifts is None


def test_many_columns_that_hardly_ever_change_break_no_promise() -> None:
    """Each changes in one row of 2,000: of 30 such columns, some are constant in training and change soon after."""
    rng = np.random.default_rng(0)
    names = [f"rare{n}" for n in range(30)]

    def rows(n: int) -> pd.DataFrame:
        flips = pd.DataFrame((rng.random((n, 30)) < 1 / 2_000).astype(float), columns=names)
        return flips.assign(a=rng.normal(size=n), b=rng.normal(size=n))

    detector = TabularDetector(members=("forest", "neighbours"), trees=10).fit(rows(1_000))
    new = rows(4_000)

    moved = detector.scorer_.columns.constants.moved(new)
    p_value = detector.scorer_.measure(new)["p_value"].to_numpy()

    assert moved is not None
    assert moved.any(axis=1).mean() > 0.005
    assert (p_value <= 0.002).mean() < 0.004
    assert (p_value[moved.any(axis=1)] <= 0.02).all()


@pytest.mark.parametrize(
    ("usual", "other"),
    [([1.0] * 5000, 7.0), ([np.nan] * 5000, 7.0), (["DE"] * 5000, "FR"), ([None] * 5000, "FR")],
    ids=["number", "missing number", "category", "missing category"],
)
def test_drift_sees_a_constant_that_moves_in_one_row_of_fifty(usual: list[object], other: object) -> None:
    """A column that varies may change in so few rows by chance; one that never varied does not."""
    numbers = isinstance(other, float)
    kind = None if numbers else "str"
    profile = (Profile.of_numbers if numbers else Profile.of_levels)("x", pd.Series(usual, dtype=kind))
    batch = usual[:490] + [other] * 10

    moved = profile.shift(pd.Series(batch, dtype=kind), psi=0.2, effect=0.5)
    same = profile.shift(pd.Series(usual[:500], dtype=kind), psi=0.2, effect=0.5)

    assert moved.moved
    assert not same.moved


def test_drift_passes_over_rounding_of_a_constant() -> None:
    """In the reference and in the batch."""
    for usual in ([0.1] * 500, [0.1, 0.1 + 1e-12] * 250):
        profile = Profile.of_numbers("x", usual)

        assert not profile.shift(pd.Series([float(np.float32(0.1))] * 300), psi=0.2, effect=0.5).moved
        assert profile.shift(pd.Series([0.2] * 300), psi=0.2, effect=0.5).moved


def test_init_proposes_columns_of_one_value_but_not_those_about_the_file() -> None:
    """A limit that never changed is a feature; a label that was never set, or the date of the export, is none."""
    n = 200
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(size=n).round(2),
            "limit": ["1.0"] * n,
            "country": ["DE"] * n,
            "booked": (pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**7, n), unit="s")).astype(str),
            "exported": ["2026-01-31"] * n,
            "batch_id": ["17"] * n,
            "is_fraud": ["0"] * n,
            "note": [None] * n,
        }
    )

    parts = {choice.column: choice.part for choice in proposal_of(frame).choices}

    assert parts["limit"] == "numeric"
    assert parts["country"] == "categorical"
    assert {parts[name] for name in ("exported", "batch_id", "is_fraud", "note")} == {"ignore"}
