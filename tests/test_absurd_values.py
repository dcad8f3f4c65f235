"""One absurd value in a column must cost neither the training nor the other columns."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.table.detector import TabularDetector
from detector.encoders.table import TableAutoencoder
from detector.encoding.statistics import location_and_scale
from detector.head.model import inputs
from detector.schema import Schema
from detector.training.settings import Training

ROWS = 400


@pytest.mark.parametrize("usual", ["constant", "nearly constant", "varying"])
@pytest.mark.parametrize("absurd", [(1e154,), (1e200, -1e200), (1.7e308,), (1.7e308, 1.7e308, -1.7e308)])
def test_training_survives_an_absurd_value(usual: str, absurd: tuple[float, ...]) -> None:
    """Every risk is finite, nothing overflows, and an odd amount is still the riskiest of the sound rows."""
    rng = np.random.default_rng(0)
    fee = {"constant": np.ones(ROWS), "nearly constant": np.where(np.arange(ROWS) == 5, 2.0, 1.0)}
    frame = pd.DataFrame({"amount": rng.normal(40, 5, ROWS), "fee": fee.get(usual, rng.normal(1, 0.1, ROWS))})
    frame.loc[[77, 177, 277][: len(absurd)], "fee"] = absurd
    network = TableAutoencoder(hidden=(8,), code=2, training=Training(epochs=1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = TabularDetector(schema=Schema(numeric=("amount", "fee")), autoencoder=network, trees=20).fit(frame)
        risk = detector.judge(pd.DataFrame({"amount": [40.0, 400.0, 40.0], "fee": [1.0, 1.0, absurd[0]]})).frame["risk"]

    assert np.isfinite(risk).all()
    assert risk[1] > risk[0]


def test_an_event_of_an_absurd_reading_is_told() -> None:
    """Its square is no number, which was a warning; it is written in powers of ten."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"when": pd.date_range("2026-01-01", periods=ROWS, freq="min"), "heat": rng.normal(40, 1, ROWS)}
    )
    detector = SequenceDetector(
        schema=Schema(time="when", numeric=("heat",)), members=("reconstruction",), window=8, smoothing=0.0
    ).fit(rows)
    rows.loc[200, "heat"] = 1e300

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events = detector.judge(rows).events

    assert events["text"].str.contains("heat up to 1e+300", regex=False).any()


def test_centre_and_scale_of_huge_numbers_are_those_of_small_ones() -> None:
    """Scaled down and up again; sums and squares of such numbers would be none."""
    small = np.random.default_rng(1).normal(5, 1, (200, 1))

    centre, scale = location_and_scale(small, np.ones(200, dtype=bool))
    huge = location_and_scale(small * 1e305, np.ones(200, dtype=bool))

    assert huge[0] / 1e305 == pytest.approx(centre)
    assert huge[1] / 1e305 == pytest.approx(scale)


def test_a_head_reads_absurd_values() -> None:
    """Its trees know no infinity; a missing value stays missing."""
    rows = pd.DataFrame({"fee": [1.0, 1e200, -1.7e308, np.nan]})

    table = inputs(rows, rows[[]], ("fee",))

    assert np.isfinite(table[:3]).all()
    assert np.isnan(table[3, 0])


@pytest.mark.parametrize("absurd", [1e154, 1.7e308])
def test_sensors_survive_an_absurd_value(absurd: float) -> None:
    """A reading of a broken sensor is no end of the training."""
    rng = np.random.default_rng(2)
    steps = np.arange(600)
    frame = pd.DataFrame({"heat": np.sin(steps / 10) + rng.normal(0, 0.05, 600), "flag": np.ones(600)})
    frame.loc[300, "flag"] = absurd

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        risk = SequenceDetector().fit(frame).risk(frame)

    assert np.isfinite(risk).all()
