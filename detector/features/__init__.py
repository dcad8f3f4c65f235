"""Point-in-time features: what a row looks like beside the past of its card, account, terminal or device."""

from __future__ import annotations

from detector.features.feature import Feature
from detector.features.feature_set import FeatureSet
from detector.features.hindsight import compute_to_learn
from detector.features.history import History
from detector.features.money import Money
from detector.features.storage import load_history, save_history
from detector.features.wording import Wording
from detector.features.words import ColumnWords, in_own_words

__all__ = [
    "ColumnWords",
    "Feature",
    "FeatureSet",
    "History",
    "Money",
    "Wording",
    "compute_to_learn",
    "in_own_words",
    "load_history",
    "save_history",
]
