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
    from detector.bundle import load, save
    from detector.errors import DetectorError
    from detector.explain import Reason
    from detector.filters import Bounds, Filters
    from detector.policy import Budget, Policy
    from detector.sampling import Sampling
    from detector.schema import Schema
    from detector.scorer import TabularScorer, Verdicts
    from detector.sequence import SequenceDetector
    from detector.series_scorer import SequenceScorer, SeriesVerdicts
    from detector.tabular import TabularDetector

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
    "Bounds": "filters",
    "Budget": "policy",
    "DetectorError": "errors",
    "Filters": "filters",
    "Policy": "policy",
    "Reason": "explain",
    "Sampling": "sampling",
    "Schema": "schema",
    "SequenceDetector": "sequence",
    "SequenceScorer": "series_scorer",
    "SeriesVerdicts": "series_scorer",
    "TabularDetector": "tabular",
    "TabularScorer": "scorer",
    "Verdicts": "scorer",
    "load": "bundle",
    "save": "bundle",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        try:
            return version("anomaly-detector")
        except PackageNotFoundError:
            return "0+unknown"
    if name in _HOMES:
        return getattr(import_module(f"detector.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'detector' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
