"""Buckets of entities: which one a row belongs to, and the part of the past that goes there with it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.arrays import Integers
from detector.features import FeatureSet, History, integers, load_history, save_history
from detector.features.join import entity_names

By = tuple[str, ...]


def buckets_of(rows: pd.DataFrame, by: By, buckets: int) -> Integers:
    """The bucket of each row's entity; rows without one are spread."""
    entity = integers.groups(rows, by)
    known = np.flatnonzero(entity >= 0)
    found = rows.index.to_numpy() % buckets
    if len(known):
        _, first, inverse = np.unique(entity[known], return_index=True, return_inverse=True)
        found[known] = _bucket_of(entity_names(rows, by, known[first]), buckets)[inverse]
    return np.asarray(found, dtype=np.int64)


def _bucket_of(names: list[str], buckets: int) -> Integers:
    hashed = pd.util.hash_array(np.array(names, dtype=object), categorize=False)
    return np.asarray((hashed % np.uint64(buckets)).astype(np.int64))


def pasts(history: History, by: By, buckets: int) -> pa.Table:
    """The past of the entities of each bucket, as a file: only the task that needs it is sent it."""
    features = replace(history.features, features=tuple(history.features.groups[by]), calendar=())
    store = history.stores[by]
    parts: dict[int, History] = {}
    names = list(store.entities)
    for name, bucket in zip(names, _bucket_of(names, buckets).tolist() if names else [], strict=True):
        part = parts.setdefault(bucket, empty_past(history, features))
        part.stores[by].put(name, store.entities[name], store.tails.get(name, ()))
    content = [_content_of(part) for part in parts.values()]
    return pa.table({"bucket": pa.array(parts, pa.int64()), "past": pa.array(content, pa.binary())})


def _content_of(history: History) -> bytes:
    with tempfile.TemporaryDirectory(prefix="detector-past-") as folder:
        return save_history(history, Path(folder) / "past.npz").read_bytes()


def history_of(content: bytes) -> History:
    """The inverse of what ``pasts`` does with the past of one bucket."""
    with tempfile.TemporaryDirectory(prefix="detector-past-") as folder:
        path = Path(folder) / "past.npz"
        path.write_bytes(content)
        return load_history(path)


def empty_past(history: History, features: FeatureSet) -> History:
    """A past that ends where another does, and in which nothing is known of any entity."""
    found = History(features)
    found.lateness, found.latest = history.lateness, history.latest
    return found
