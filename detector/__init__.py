"""Find, calibrate and explain anomalies in tables and in series of sensors.

Importing this package is cheap: a name is loaded when it is first used, and TensorFlow only while fitting.

>>> import detector
>>> detector.Schema(numeric=["amount"]).features
('amount',)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.decide.policy import Budget, Policy
    from detector.detectors.series.detector import SequenceDetector
    from detector.detectors.series.scorer import SequenceScorer
    from detector.detectors.series.verdicts import SeriesVerdicts
    from detector.detectors.table.detector import TabularDetector
    from detector.detectors.table.scorer import TabularScorer
    from detector.detectors.table.training_filters import Bounds, Filters
    from detector.detectors.table.verdicts import Verdicts
    from detector.errors import DetectorError
    from detector.explain.reason import Reason
    from detector.persist.bundle import load, save
    from detector.schema import Schema
    from detector.series.sampling import Sampling

__all__ = [
    "Bounds",
    "Budget",
    "DetectorError",
    "Filters",
    "Policy",
    "Reason",
    "Sampling",
    "Schema",
    "SequenceDetector",
    "SequenceScorer",
    "SeriesVerdicts",
    "TabularDetector",
    "TabularScorer",
    "Verdicts",
    "load",
    "save",
]

_HOMES = {
    "Bounds": "detectors.table.training_filters",
    "Budget": "decide.policy",
    "DetectorError": "errors",
    "Filters": "detectors.table.training_filters",
    "Policy": "decide.policy",
    "Reason": "explain.reason",
    "Sampling": "series.sampling",
    "Schema": "schema",
    "SequenceDetector": "detectors.series.detector",
    "SequenceScorer": "detectors.series.scorer",
    "SeriesVerdicts": "detectors.series.verdicts",
    "TabularDetector": "detectors.table.detector",
    "TabularScorer": "detectors.table.scorer",
    "Verdicts": "detectors.table.verdicts",
    "load": "persist.bundle",
    "save": "persist.bundle",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        try:
            return version("anomaly-detector")
        except PackageNotFoundError:
            return "0+unknown"
    if name in _HOMES:
        try:
            return getattr(import_module(f"detector.{_HOMES[name]}"), name)
        except ModuleNotFoundError as error:
            from detector.errors import missing_extra

            raise missing_extra(error) or error from error
    raise AttributeError(f"module 'detector' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
