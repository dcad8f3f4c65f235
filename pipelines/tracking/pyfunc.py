"""The registered model: what ``mlflow.pyfunc.load_model`` loads, without a pickle and without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detector.decide.policy import Budget, Policy
from detector.errors import SettingError
from detector.persist import bundle
from detector.persist.bundle import Scorer


class ScoredTable:
    """A fitted detector as MLflow calls it: a frame in, one line of scores for each of its rows out.

    - ``policy``: which rows to flag; without one, the detector's default.
    """

    def __init__(self, scorer: Scorer, policy: Policy | None = None) -> None:
        self.scorer = scorer
        self.policy = policy

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Score every row.

        - ``frame`` (n_rows, n_columns): with the columns the detector was fitted on; others are ignored.
        - ``params``: taken because MLflow passes it; there are none.

        The index is that of ``frame``. A row that cannot be read has no risk and is not flagged; its severity is
        "quarantined" and its fault stands in ``reasons``.

        Raises ``SchemaError`` if a column is missing.
        """
        verdicts = self.scorer.judge(frame, policy=self.policy)
        faults = verdicts.quarantine
        bad = np.zeros(len(frame), dtype=bool)
        bad[faults["row"].to_numpy(dtype=np.int64)] = True
        placed = verdicts.frame.set_axis(np.flatnonzero(~bad), axis="index").reindex(range(len(frame)))
        placed["flagged"] = placed["flagged"].eq(True)
        if bad.any():
            placed.loc[bad, "severity"] = "quarantined"
            placed.loc[bad, "reasons"] = faults.set_index("row")["reason"].astype(str)
            for name in placed.columns.intersection(frame.columns):
                placed.loc[bad, name] = frame[name].to_numpy()[bad]
        return placed.set_axis(frame.index, axis="index")


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> ScoredTable:
    """MLflow's entry point: the bundle's folder, and the policy as `policy_to_config` wrote it."""
    return ScoredTable(bundle.load(Path(data_path)), policy_from_config(model_config or {}))


def policy_to_config(policy: Policy | None) -> dict[str, Any]:
    """The policy as plain values under one key, which a user of the model can override.

    >>> policy_to_config(Policy(fdr=0.1, budget=Budget(rows=50, per="day")))
    {'policy': {'budget': {'rows': 50, 'per': 'day'}, 'fdr': 0.1}}
    """
    values = {} if policy is None else asdict(policy)
    return {"policy": {name: value for name, value in values.items() if value is not None}}


def policy_from_config(values: Mapping[str, Any]) -> Policy | None:
    """The inverse of `policy_to_config`.

    >>> policy_from_config({"policy": {"quantile": 0.99}})
    Policy(quantile=0.99, budget=None, fdr=None)
    """
    rules = dict(values.get("policy") or {})
    budget = rules.pop("budget", None)
    try:
        if budget is not None:
            rules["budget"] = Budget(**budget)
        return Policy(**rules) if rules else None
    except TypeError as error:
        raise SettingError(f"A policy has quantile, fdr and budget. Received: {sorted(rules)}.") from error
