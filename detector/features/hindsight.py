"""What rows to learn from look like where the data begin: their labels count as if they had been known at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from detector.features.events import NEVER
from detector.features.feature_set import FeatureSet
from detector.features.integers import times

KNOWN_TODAY = "known today"


def compute_to_learn(features: FeatureSet, rows: pd.DataFrame, *, now: pd.Timestamp) -> pd.DataFrame:
    """Add the features to rows that a detector is to learn from.

    They are what ``FeatureSet.compute`` says, but for rows before any label had counted: there every share of known
    frauds is empty, however many frauds are known today, and who learns from them alone never finds out what such a
    share means. Their features made of labels are measured in hindsight: all windows of labels are moved by the
    shortest delay, and a label counts from the moment of its row. No row's own label counts, nor a later one's.

    Not for rows that are to be scored: at their time nobody knew.

    Parameters
    ----------
    features : FeatureSet
        With or without features made of labels.
    rows : DataFrame
        As for ``FeatureSet.compute``.
    now : Timestamp
        When is learnt, in UTC; labels that do not count by then are not known.

    Returns
    -------
    DataFrame
        The same rows in the same order with a float64 column for each feature.

    >>> features = FeatureSet(("frauds by shop over 7d delay 7d",), time="time", label="fraud")
    >>> days = pd.to_datetime(["2024-01-01", "2024-01-03", "2024-01-11"])
    >>> rows = pd.DataFrame({"time": days, "shop": "s", "fraud": 1})
    >>> features.compute(rows)["frauds_7d_by_shop_delay_7d"].tolist()
    [0.0, 0.0, 2.0]
    >>> compute_to_learn(features, rows, now=pd.Timestamp("2024-01-12"))["frauds_7d_by_shop_delay_7d"].tolist()
    [0.0, 1.0, 2.0]
    """
    measured = features.compute(rows)
    made_of_labels = tuple(feature for feature in features.all if feature.needs_label)
    if not made_of_labels:
        return measured
    wait = min(feature.delay for feature in made_of_labels)
    time, today = times(rows[features.time]), times(pd.Series([now]))[0] - wait
    known, taken_back, again = features.turns_of(rows, time)
    fraud = (known <= today) & ((taken_back > today) | (again <= today))
    blind = time < known.min(initial=NEVER - wait) + wait
    if not (fraud & blind).any():
        return measured
    early = replace(
        features,
        features=tuple(replace(feature, delay=feature.delay - wait) for feature in made_of_labels),
        calendar=(),
        label=KNOWN_TODAY,
        reported=None,
        turns=None,
    )
    needed = rows.loc[blind, [name for name in early.needs if name != KNOWN_TODAY]]
    found = early.compute(needed.assign(**{KNOWN_TODAY: fraud[blind].astype(np.float64)}))
    names = [feature.name for feature in made_of_labels]
    measured.loc[blind, names] = found[list(early.names)].to_numpy()
    return measured
