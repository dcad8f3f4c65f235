"""Find, calibrate and explain anomalies in tables.

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
    from detector.policy import Budget, Policy
    from detector.schema import Schema
    from detector.scorer import TabularScorer, Verdicts
    from detector.tabular import TabularDetector

__all__ = [
    "Budget",
    "DetectorError",
    "Policy",
    "Reason",
    "Schema",
    "TabularDetector",
    "TabularScorer",
    "Verdicts",
    "load",
    "save",
]

_HOMES = {
    "Budget": "policy",
    "DetectorError": "errors",
    "Policy": "policy",
    "Reason": "explain",
    "Schema": "schema",
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
