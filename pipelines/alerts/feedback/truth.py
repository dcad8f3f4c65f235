"""What people said of alerts as labels of rows, for evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from detector.metrics.ranking import read_labels
from detector.schema import Schema
from pipelines.alerts.feedback.answers import labels, precision
from pipelines.alerts.grouping.audit_sample import DRAWN
from pipelines.config import Config
from pipelines.store import existing_store


def with_answers(frame: pd.DataFrame, schema: Schema, answered: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows with answers among their labels, and how many rows were answered.

    A row is anomalous if the label column or a person says so; "fine" counts where the label column says nothing.

    Parameters
    ----------
    frame : DataFrame
        Rows as they were read; they may lack the label column.
    schema : Schema
        Names the key and the label.
    answered : DataFrame
        As ``labels`` returns it.

    >>> rows = pd.DataFrame({"id": [1, 2, 3], "fraud": [0, None, None]})
    >>> said = pd.DataFrame({"key": ["1", "2"], "label": [1, 0]})
    >>> with_answers(rows, Schema(key="id", label="fraud"), said)[0]["fraud"].tolist()
    [1.0, 0.0, nan]
    """
    if schema.key is None or schema.label is None or answered.empty or schema.key not in frame:
        return frame, 0
    said = frame[schema.key].astype("str").map(answered.set_index("key")["label"]).to_numpy(dtype=np.float64)
    known = read_labels(frame[schema.label]) if schema.label in frame else np.full(len(frame), np.nan)
    joined = np.where(np.isnan(known), said, np.where(said == 1, 1.0, known))
    return frame.assign(**{schema.label: joined}), int((~np.isnan(said)).sum())


def answered_rows(config: Config) -> pd.DataFrame:
    """The rows that people have judged; see ``labels``."""
    store = existing_store(config.service.store)
    if store is None:
        return pd.DataFrame({"key": [], "label": []})
    with store.read() as session:
        return labels(session, source=config.name)


def realised(config: Config) -> str | None:
    """In one line how many answered alerts were right; None if nobody has answered."""
    store = existing_store(config.service.store)
    if store is None:
        return None
    with store.read() as session:
        found = precision(session, source=config.name)
    once = found[(found["answered"] > 0) & (found["reason"] != DRAWN)]
    if once.empty:
        return None
    parts = [
        f"{channel} {fraud} of {answered}"
        for channel, answered, fraud in once.groupby("channel")[["answered", "fraud"]].sum().itertuples(name=None)
    ]
    return f"Alerts that people answered and that were fraud: {', '.join(parts)}."
