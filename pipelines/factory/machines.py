"""Of many machines that share a model, those it learns from."""

from __future__ import annotations

import numpy as np
import pandas as pd

from detector.cleaning.values import read_names
from detector.detectors.series.groups import group_of
from pipelines.config import Config
from pipelines.sources import Source


def some_machines(source: Source, config: Config) -> Source:
    """The rows of as many machines of each kind as are to be learnt from; all if it is not said, or there are no more.

    They are drawn by their names alone, so that a later training draws them again.
    """
    most, entity = config.series.learn_from, config.columns.entity
    if config.kind != "sensors" or most is None or entity is None:
        return source
    names: set[str] = set()
    for frame in source.batches(columns=[entity]):
        names.update(read_names(frame[entity]).dropna().astype(str))
    kinds: dict[str, set[str]] = {}
    for name in names:
        kinds.setdefault(group_of(name, config.series.group_by or "$^"), set()).add(name)
    chosen = {name for kind in kinds.values() for name in drawn(kind, most)}
    return source if chosen == names else source.only(entity, chosen)


def drawn(names: set[str], most: int) -> set[str]:
    """That many of the names, as if at random, and the same of the same names.

    >>> sorted(drawn({"a", "b", "c", "d"}, 2)), sorted(drawn({"a", "b", "c"}, 2))
    (['c', 'd'], ['b', 'c'])
    """
    listed = np.array(sorted(names), dtype=object)
    return set(listed[np.argsort(pd.util.hash_array(listed), kind="stable")[:most]])
