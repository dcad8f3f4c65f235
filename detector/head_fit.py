"""Fit a head on labelled rows, cross-validated in time, and find out whether it may serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from detector.errors import DataError, ParityError, SettingError
from detector.graph import Graph
from detector.head import OUTPUT, Head, boosting_to_onnx, inputs

PARITY = 1e-3
RESAMPLES = 100
MEASURES_LEFT_OUT = ("p_value",)


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is fitted.

    Parameters
    ----------
    trees : int
        Boosted trees.
    learning_rate : float
        What each tree adds.
    leaves : int
        Most leaves of a tree.
    regularisation : float
        What keeps leaves of few rows small.
    folds : int
        Later parts of the rows it must prove itself on, each after learning from all before it.
    least_anomalies : int
        Fewest known anomalies, below which nothing can be learnt.

    Raises
    ------
    SettingError
        If one has no meaning.
    """

    trees: int = 100
    learning_rate: float = 0.05
    leaves: int = 16
    regularisation: float = 5.0
    folds: int = 2
    least_anomalies: int = 30

    def __post_init__(self) -> None:
        for name in ("trees", "folds", "least_anomalies"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}.")
        if not 0 < self.learning_rate <= 1:
            raise SettingError(f"learning_rate must lie in (0, 1]. Received: learning_rate={self.learning_rate}.")
        if self.leaves < 2:
            raise SettingError(f"leaves must be at least 2. Received: leaves={self.leaves}.")

    def model(self, random_state: int) -> HistGradientBoostingClassifier:
        """The unfitted trees."""
        return HistGradientBoostingClassifier(
            max_iter=self.trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            l2_regularization=self.regularisation,
            early_stopping=False,
            random_state=random_state,
        )


def fit_head(
    rows: pd.DataFrame,
    measures: pd.DataFrame,
    labels: pd.Series,
    time: pd.Series,
    *,
    columns: Sequence[str],
    recipe: HeadRecipe | None = None,
    random_state: int = 0,
) -> Head:
    """Learn from labelled rows.

    Parameters
    ----------
    rows : DataFrame
        Cleaned rows with their features.
    measures : DataFrame
        As ``TabularScorer.measure`` returns them; risk and members' scores become inputs too.
    labels : Series
        1 anomalous, 0 normal, missing unknown; only what was known when it is fitted.
    time : Series
        When each row happened: folds are later than what is learnt from.
    columns : sequence of str
        Numeric columns of ``rows`` to learn from.
    recipe : HeadRecipe, optional
        How.
    random_state : int
        Seeds the trees and the resampling.

    Returns
    -------
    Head
        With ``facts``: ``ap_head`` and ``ap_risk`` on the later rows, the lower end ``gain_least`` of a 90 % paired
        bootstrap interval of their difference, and ``serves``, whether that end is above zero.

    Raises
    ------
    DataError
        If there are too few anomalies, or none in the earlier or the later rows.
    """
    recipe = recipe or HeadRecipe()
    known = labels.notna().to_numpy()
    truth = (labels.to_numpy(dtype=np.float64, na_value=0.0) == 1)[known]
    if truth.sum() < recipe.least_anomalies or truth.all():
        raise DataError(
            f"A head needs at least {recipe.least_anomalies} labelled anomalies and normal rows beside them, received "
            f"{int(truth.sum())} among {len(truth):,} labelled rows. Wait for more verdicts."
        )
    names = (*columns, *(name for name in measures.columns if name not in MEASURES_LEFT_OUT))
    table = inputs(rows, measures, names)[known]
    risk = measures["risk"].to_numpy()[known]
    later, raw = _later(table, truth, time[known], recipe, random_state)
    calibration = LogisticRegression(C=1e6).fit(raw[:, None], truth[later])
    facts = _compare(raw, risk[later], truth[later], random_state)
    model = recipe.model(random_state).fit(_fillable(table), truth)
    graph = _graph(model, table)
    facts |= {"rows_learnt": len(table), "anomalies_learnt": int(truth.sum()), "rows_later": len(later)}
    slope, intercept = float(calibration.coef_[0, 0]), float(calibration.intercept_[0])
    return Head(names, graph, max(slope, 1e-6), intercept, facts)


def _later(
    table: NDArray[np.float32], truth: NDArray[np.bool_], time: pd.Series, recipe: HeadRecipe, random_state: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows that models of only earlier rows were asked about, and their answers in log-odds."""
    order = np.argsort(time.to_numpy(), kind="stable")
    parts = np.array_split(order, recipe.folds + 1)
    asked, answers = [], []
    for number in range(1, len(parts)):
        past = np.concatenate(parts[:number])
        if not truth[past].any() or truth[past].all():
            continue
        model = recipe.model(random_state).fit(_fillable(table[past]), truth[past])
        asked.append(parts[number])
        answers.append(model.decision_function(table[parts[number]]))
    if not asked or not truth[np.concatenate(asked)].any() or truth[np.concatenate(asked)].all():
        raise DataError("A head needs anomalies among the earlier and the later labelled rows. Wait for more verdicts.")
    return np.concatenate(asked), np.concatenate(answers)


def _fillable(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same rows with 0 in columns that are missing throughout: scikit-learn cannot bin those."""
    empty = np.isnan(table).all(axis=0)
    return np.where(empty, np.float32(0), table) if empty.any() else table


def _compare(
    raw: NDArray[np.float64], risk: NDArray[np.float64], truth: NDArray[np.bool_], random_state: int
) -> dict[str, Any]:
    """Average precision of both on the same later rows, and how sure the difference is."""
    rng = np.random.default_rng(random_state)
    gains = []
    for _ in range(RESAMPLES):
        weight = np.bincount(rng.integers(0, len(truth), len(truth)), minlength=len(truth))
        if weight[truth].any():
            gains.append(_precision(raw, truth, weight) - _precision(risk, truth, weight))
    least = float(np.quantile(gains, 0.05))
    return {
        "ap_head": float(average_precision_score(truth, raw)),
        "ap_risk": float(average_precision_score(truth, risk)),
        "gain_least": least,
        "serves": least > 0,
    }


def _precision(score: NDArray[np.float64], truth: NDArray[np.bool_], weight: NDArray[np.intp]) -> float:
    """Average precision of resampled rows; ties stand in the order of the rows."""
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(weight[order] * truth[order])
    precision = found / np.maximum(np.cumsum(weight[order]), 1)
    return float((precision * weight[order] * truth[order]).sum() / found[-1])


def _graph(model: HistGradientBoostingClassifier, table: NDArray[np.float32]) -> Graph:
    from detector import onnx_text

    graph = Graph(onnx_text.join({OUTPUT: boosting_to_onnx(model, table.shape[1])}, [OUTPUT]))
    sample = table[:: max(1, len(table) // 2_000)]
    difference = float(np.abs(graph.run({"rows": sample})[OUTPUT][:, 0] - model.decision_function(sample)).max())
    if not difference < PARITY:
        raise ParityError(
            f"The head's graph differs from scikit-learn by {difference:.2g}; at most {PARITY:g} is allowed. Please "
            f"report this with the versions of onnxruntime and scikit-learn."
        )
    return graph
