"""Rows that were learnt from are recognised, and have the risk they had before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.decide.policy import Policy
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.training_rows import LearntRows, marks_of
from detector.encoding.encoded import Encoded
from detector.persist import bundle
from detector.schema import Schema


def encoded(values: np.ndarray) -> Encoded:
    """Numbers alone."""
    return Encoded(np.asarray(values, dtype=np.float64), np.zeros((len(values), 0), np.int64))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Normal ones, each once."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(400, 3)), columns=list("abc")).assign(id=np.arange(400))


@pytest.fixture(scope="module")
def detector(rows: pd.DataFrame) -> TabularDetector:
    """Without a key: rows are known by their values."""
    schema = Schema(numeric=("a", "b", "c"))
    return TabularDetector(schema=schema, members=("forest", "neighbours")).fit(rows)


def test_row_keeps_the_risk_it_had_before_it_was_learnt_from(rows: pd.DataFrame, detector: TabularDetector) -> None:
    """The memory of novelty holds calibration rows by now, and yet they score as they did on calibration."""
    calibrator, learnt = detector.scorer_.calibrator, detector.scorer_.learnt
    assert learnt is not None

    measures, known = detector.scorer_.recalled(rows)

    assert known.sum() == calibrator.size + calibrator.trimmed == len(learnt)
    np.testing.assert_allclose(np.sort(measures["risk"][known > 0]), calibrator.risk)
    changed = rows[known > 0].assign(a=rows["a"][known > 0] + 1e-9)
    assert not detector.scorer_.recalled(changed)[1].any()


def test_recognition_does_not_depend_on_the_batch(rows: pd.DataFrame, detector: TabularDetector) -> None:
    """A row alone is recognised as it is among others."""
    together = detector.scorer_.measure(rows)
    alone = pd.concat([detector.scorer_.measure(rows.iloc[[at]]) for at in range(40)])

    pd.testing.assert_frame_equal(alone, together.iloc[:40], check_exact=True)


def test_recognition_survives_saving(rows: pd.DataFrame, detector: TabularDetector, tmp_path: Path) -> None:
    """A bundle holds marks and risks as arrays."""
    again = bundle.load(bundle.save(detector, tmp_path / "bundle"))

    pd.testing.assert_frame_equal(again.measure(rows), detector.scorer_.measure(rows), check_exact=True)


def test_rows_with_a_key_are_known_by_it(rows: pd.DataFrame) -> None:
    """A new row with the values of a training row is another row."""
    schema = Schema(key="id", numeric=("a", "b", "c"))
    scorer = TabularDetector(schema=schema, members=("neighbours",)).fit(rows).scorer_

    assert scorer.recalled(rows)[1].sum() == len(rows)
    assert not scorer.recalled(rows.assign(id=rows["id"] + 1000))[1].any()
    assert scorer.recalled(rows.assign(id=rows["id"].astype("str")))[1].sum() == len(rows)


def test_of_training_rows_that_are_alike_none_is_surely_recognised() -> None:
    """They have the least risk of them, and a new row may well be like them."""
    learnt = LearntRows.of(encoded([[1.0], [2.0], [2.0]]), np.array([5.0, 4.0, 3.0]), np.zeros(3, dtype=bool))

    risk, known = learnt.recall(encoded([[2.0], [1.0], [9.0]]), np.zeros(3))

    assert risk.tolist() == [3.0, 5.0, 0.0]
    assert known.tolist() == [0.5, 1.0, 0.0]


def test_marks_tell_rows_apart_that_differ_in_one_bit() -> None:
    """Of a million rows of whole numbers no two have one mark; the sign of zero and the kind of NaN do not count."""
    values = np.stack(np.meshgrid(np.arange(1000.0), np.arange(1000.0)), axis=-1).reshape(-1, 2)
    assert len(np.unique(marks_of(encoded(values)))) == len(values)

    odd = np.array([[0.0], [-0.0], [np.nan], [-np.nan]])
    first, second, third, fourth = marks_of(encoded(odd))
    assert first == second
    assert third == fourth


@pytest.fixture(scope="module")
def dirty() -> pd.DataFrame:
    """Rows of which the last are outliers far from all others, and from each other."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(2000, 3)), rng.choice([-1, 1], (190, 3)) * rng.uniform(30, 90, (190, 3))])
    return pd.DataFrame(values, columns=list("abc"))


def test_rows_apart_from_all_others_are_not_learnt_from(dirty: pd.DataFrame) -> None:
    """They leave training with a reason, members are fitted again, and the detector knows that it supposes much."""
    detector = TabularDetector(members=("forest", "neighbours"), calibration_share=0.5).fit(dirty)
    scorer, left = detector.scorer_, detector.left_out_

    assert len(left) >= 25
    assert (left["row"] >= 2000).all()
    assert left["reason"].str.contains("apart: lies with .* others apart from all other training rows").all()
    assert scorer.calibrator.trimmed >= len(left)
    assert scorer.metrics["rows_left_out_apart"] == len(left)
    assert scorer.metrics["calibration_trimmed"] == scorer.calibrator.trimmed
    assert scorer.metrics["calibration_promises"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_blatant_outliers_among_the_training_rows_are_flagged(seed: int) -> None:
    """Fit on rows, and flag the same, as in README: a rate of a tenth is not promised, and about met."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4000, 5))
    values[:60] += rng.normal(0, 12, size=(60, 5))
    table = pd.DataFrame(values, columns=list("abcde"))

    verdicts = (
        TabularDetector(members=("forest", "neighbours"), trees=50).fit(table).judge(table, policy=Policy(fdr=0.1))
    )

    flagged = verdicts.frame["flagged"].to_numpy()
    assert flagged[:60].sum() >= 57
    assert flagged[60:].sum() <= 9
    assert not verdicts.promised


def test_clean_rows_all_stay(rows: pd.DataFrame, detector: TabularDetector) -> None:
    """Where no group lies apart nothing leaves training, and a rate is a promise."""
    verdicts = detector.judge(rows + 0.01, policy=Policy(fdr=0.2))

    assert detector.left_out_.empty
    assert verdicts.promised
    assert set(verdicts.neighbours) == {"fdr 0.1", "fdr 0.4"}
