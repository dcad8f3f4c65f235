"""Small series for the tests of the sequence family: three sensors of one wave, as arrays and as frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.encoders import FittedEncoder
from detector.detectors.series.fit import FittedSeries, fit_series
from detector.detectors.series.members import TrainingSeries
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.detectors.series.recipe import MEMBERS, SeriesRecipe
from detector.encoders.conv1d import Conv1dAutoencoder
from detector.schema import Schema
from detector.training.settings import Training

START = pd.Timestamp("2026-03-01")
SENSORS = ["heat", "flow", "power"]
SCHEMA = Schema(time="when", numeric=tuple(SENSORS))
PUMPS = Schema(time="when", entity="pump", numeric=tuple(SENSORS))
SMALL: dict[str, Any] = {"window": 8, "smoothing": 2.0, "members": ("reconstruction",)}


def waves(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Three sensors of one wave, in other units, and a little noise."""
    time = np.arange(float(n))
    noise = 0.02 * np.random.default_rng(seed).normal(size=(n, 3))
    phases = np.column_stack([np.sin(time / 4), np.cos(time / 4), np.sin(time / 4 + 1)])
    return (phases + noise) * [1, 10, 5] + [0, 50, 9]


def readings(n: int, seed: int = 0, *, pump: str | None = None) -> pd.DataFrame:
    """The same as a frame, a reading a minute."""
    frame = pd.DataFrame(waves(n, seed), columns=SENSORS)
    frame.insert(0, "when", START + pd.to_timedelta(np.arange(n), unit="min"))
    if pump is not None:
        frame.insert(1, "pump", pump)
    return frame


def small(**changed: Any) -> SequenceDetector:
    """A detector of short windows."""
    return SequenceDetector(**(SMALL | {"trees": 10, "lags": 3} | changed))


@dataclass(frozen=True)
class KnownNetwork:
    """Stands in for a network: rebuilds windows as they are, plus an error."""

    off: float

    def rebuild(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Off by the same everywhere."""
        return X + np.float32(self.off)


@dataclass(frozen=True)
class KnownEncoder:
    """Stands in for an encoder."""

    off: float
    fall_back: bool = True

    def fit(self, *given: Any, **_: Any) -> FittedEncoder:
        """Learn nothing."""
        network: Any = KnownNetwork(self.off)
        return FittedEncoder("known", network, {"loss": [1.0]}, {"encoder_asked": "known"})


@cache
def networked() -> SequenceDetector:
    """All members, windows rebuilt by a neural encoder; fitted once, tests must not change it."""
    brief = Training(epochs=1, least_steps=10, batch_size=32, holdout=0.0)
    encoder = Conv1dAutoencoder(code=3, filters=(4,), training=brief)
    detector = small(schema=SCHEMA, members=MEMBERS, encoder=encoder, fall_back=False, name="mixed")
    return detector.fit(readings(200))


def recipe(**changed: Any) -> SeriesRecipe:
    """Settings of short windows."""
    return SeriesRecipe(**(SMALL | {"trees": 10, "lags": 3} | changed))


def one(n: int) -> NDArray[np.int64]:
    """One segment."""
    return np.zeros(n, dtype=np.int64)


def training(values: NDArray[np.float64], **given: Any) -> TrainingSeries:
    """One series to learn from."""
    n = len(values)
    found: dict[str, Any] = {"observed": ~np.isnan(values), "segment": one(n), "codes": one(n)}
    return TrainingSeries(values=values, **(found | {"usable": np.full(n, True)} | given))


def fit(values: NDArray[np.float64], settings: SeriesRecipe | None = None, **given: Any) -> SeriesModel:
    """A model of one series."""
    fitted: FittedSeries = fit_series(training(values, **given), settings or recipe())
    return fitted.model


def seen(model: SeriesModel, values: NDArray[np.float64], **given: Any) -> ModelledSeries:
    """One series as a model sees it."""
    n = len(values)
    found: dict[str, Any] = {"observed": ~np.isnan(values), "segment": one(n), "codes": one(n)}
    return ModelledSeries(model, values, **(found | given))
