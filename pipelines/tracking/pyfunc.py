"""The registered model: what ``mlflow.pyfunc.load_model`` loads, without a pickle and without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from detector.cleaning.values import read_dates
from detector.decide.policy import Budget, Policy
from detector.detectors.series.verdicts import SeriesVerdicts
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.verdicts import Verdicts
from detector.errors import SettingError
from detector.explain.reason import reasons_in_words
from detector.features import Wording
from detector.persist import bundle
from detector.persist.bundle import Scorer

if TYPE_CHECKING:
    from pipelines.features.raw_rows import RawRows


class ScoredTable:
    """A fitted detector as MLflow calls it: a frame in, one line of scores for each of its rows out.

    - ``policy``: which rows to flag; without one, the detector's default.
    - ``raw``: reads raw rows and measures their features, where the detector needs that.
    """

    def __init__(self, scorer: Scorer, policy: Policy | None = None, raw: RawRows | None = None) -> None:
        self.scorer = scorer
        self.policy = policy
        self.raw = raw

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Score every row.

        - ``frame`` (n_rows, n_columns): raw rows, as ``detector score`` reads them; more columns are ignored. Features
          are measured of these rows and of the past that training left.
        - ``params``: taken because MLflow passes it; there are none.

        The index is that of ``frame``. A row that cannot be read has no risk and is not flagged; its severity is
        "quarantined" and its fault stands in ``reasons``.

        Raises ``SchemaError`` if a column is missing.
        """
        rows, faults = frame.reset_index(drop=True), pd.DataFrame({"row": [], "reason": []})
        words = Wording()
        if self.raw is not None:
            measured = self.raw.prepare(rows)
            rows, faults = measured.rows, measured.quarantine[["row", "reason"]]
            words = self.raw.wording
        verdicts = self._judged(rows.reset_index(drop=True), words)
        found = verdicts.quarantine[["row", "reason"]]
        found = found.assign(row=rows.index.to_numpy()[found["row"].to_numpy(dtype=np.int64)])
        faults = pd.concat([faults, found]) if len(faults) else found
        bad = np.zeros(len(frame), dtype=bool)
        bad[faults["row"].to_numpy(dtype=np.int64)] = True
        placed = verdicts.frame.set_axis(np.flatnonzero(~bad), axis="index").reindex(range(len(frame)))
        placed["flagged"] = placed["flagged"].eq(True)
        if bad.any():
            placed.loc[bad, "severity"] = "quarantined"
            placed.loc[bad, "reasons"] = faults.set_index("row")["reason"].astype(str)
            for name in placed.columns.intersection(frame.columns):
                given = frame[name].reset_index(drop=True)[bad]
                is_time = pd.api.types.is_datetime64_dtype(placed[name])
                placed.loc[bad, name] = read_dates(given)[0] if is_time else given.astype(object)
        return placed.set_axis(frame.index, axis="index")

    def _judged(self, rows: pd.DataFrame, words: Wording) -> Verdicts | SeriesVerdicts:
        if isinstance(self.scorer, TabularScorer):
            return self.scorer.judge(rows, policy=self.policy, wording=words)
        found = self.scorer.score_frame(rows, policy=self.policy)
        return replace(found, frame=reasons_in_words(words.scores(found.frame)))


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> ScoredTable:
    """MLflow's entry point: the bundle's folder, and the policy as `policy_to_config` wrote it."""
    folder = Path(data_path)
    raw = None
    if (folder / "input").is_dir():  # else the model needs none of what this imports
        from pipelines.features.raw_rows import RawRows

        raw = RawRows.load(folder)
    return ScoredTable(bundle.load(folder), policy_from_config(model_config or {}), raw)


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
