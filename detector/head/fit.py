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

from detector.arrays import Flags, Floats, Places
from detector.checks import check_interval, check_least
from detector.decide.calibrate import Calibrator
from detector.errors import DataError
from detector.head.model import OUTPUT, Head, between_equals, boosting_to_onnx, inputs
from detector.onnx.graph import Graph, joined
from detector.onnx.parity import largest_difference

RESAMPLES = 100
MEASURES_LEFT_OUT = ("p_value",)
MOST_CALIBRATION_ROWS = 50_000


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is fitted.

    - ``trees``: boosted trees a model.
    - ``models``: models of different seeds, averaged; each tree sees a random half of the inputs if there are several.
    - ``learning_rate``: what each tree adds.
    - ``leaves``: most leaves of a tree.
    - ``regularisation``: what keeps leaves of few rows small.
    - ``folds``: later parts of the rows it must prove itself on, each after learning from all before it.
    - ``least_anomalies``: fewest known anomalies, below which nothing can be learnt.
    - ``calibration_share``: share of the rows known to be normal that the head does not learn from: they make its
      p-values. Rows not known yet are no part of them, or the frauds among those would take the smallest p-values away
      from others.

    Raises ``SettingError`` if one has no meaning.
    """

    trees: int = 100
    models: int = 1
    learning_rate: float = 0.05
    leaves: int = 16
    regularisation: float = 5.0
    folds: int = 2
    least_anomalies: int = 30
    calibration_share: float = 0.4

    def __post_init__(self) -> None:
        check_least(self, 1, "trees", "models", "folds", "least_anomalies")
        check_least(self, 2, "leaves")
        check_interval(self, "(0, 1]", "learning_rate")
        check_interval(self, "(0, 1)", "calibration_share")

    def fit(self, table: NDArray[np.float32], truth: Flags, random_state: int) -> list[HistGradientBoostingClassifier]:
        """Trees that learnt from rows; a column that is missing throughout counts as 0, for it cannot be binned.

        Rows have no weights: those that stand for others are put right when the log-odds are calibrated with weights,
        and scikit-learn bins weighted rows slowly.
        """
        empty = np.isnan(table).all(axis=0)
        filled = np.where(empty, np.float32(0), table) if empty.any() else table
        return [
            HistGradientBoostingClassifier(
                max_iter=self.trees,
                learning_rate=self.learning_rate,
                max_leaf_nodes=self.leaves,
                l2_regularization=self.regularisation,
                max_features=0.5 if self.models > 1 else 1.0,
                early_stopping=False,
                random_state=int(np.random.SeedSequence([random_state, number]).generate_state(1)[0]),
            ).fit(filled, truth)
            for number in range(self.models)
        ]


def fit_head(
    rows: pd.DataFrame,
    measures: pd.DataFrame,
    labels: pd.Series,
    time: pd.Series,
    *,
    columns: Sequence[str],
    known_at: pd.Series | None = None,
    weight: Floats | None = None,
    tail: str = "empirical",
    recipe: HeadRecipe | None = None,
    random_state: int = 0,
) -> Head:
    """Learn from labelled rows (1 anomalous, 0 normal, missing unknown), as far as labels were known when it is fitted.

    - ``rows``: cleaned, with features, and not learnt from by the members, or their scores are too good.
    - ``measures``: as ``TabularScorer.unsupervised`` returns them; risk and members' scores become inputs too.
    - ``time``: when each row happened: folds are later than what is learnt from.
    - ``columns``: numeric columns of ``rows`` to learn from.
    - ``known_at``: when each label became known; a fold is scored by what was known when it began. At once by default.
    - ``weight``: how many rows each stands for, where those not known to be anomalous are a sample.
    - ``tail``: see ``Calibrator``; empirical where there are too few rows for a Pareto tail.

    The head's ``facts`` are ``ap_head`` and ``ap_risk`` on the later rows with their 90 % intervals (``_low``,
    ``_high``), the same of the paired ``gain``, and ``serves``, whether ``gain_low`` is above zero. Raises
    ``DataError`` if there are too few anomalies, or none in the earlier or the later rows.
    """
    recipe = recipe or HeadRecipe()
    known = labels.notna().to_numpy()
    truth = labels.to_numpy(dtype=np.float64, na_value=0.0) == 1
    if truth.sum() < recipe.least_anomalies or (known & ~truth).sum() < 2:
        raise DataError(
            f"A head needs at least {recipe.least_anomalies} labelled anomalies and normal rows beside them, received "
            f"{int(truth.sum())} among {int(known.sum()):,} labelled rows. Label more rows, or lower least_anomalies."
        )
    names = (*columns, *(name for name in measures.columns if name not in MEASURES_LEFT_OUT))
    table = inputs(rows, measures, names)
    counts = np.ones(len(table)) if weight is None else np.asarray(weight, dtype=np.float64)
    kept_back = _kept_back(truth, known, recipe, random_state)
    learnt = known & ~kept_back
    later, raw = _later(table, truth, known, learnt, time, time if known_at is None else known_at, recipe, random_state)
    calibration = LogisticRegression(C=1e6).fit(raw[:, None], truth[later], sample_weight=counts[later])
    facts = _compare(raw, measures["risk"].to_numpy()[later], truth[later], counts[later], random_state)
    models = recipe.fit(table[learnt], truth[learnt], random_state)
    graph = _graph(models, table[learnt])
    slope, intercept = max(float(calibration.coef_[0, 0]), 1e-6), float(calibration.intercept_[0])
    normal = table[kept_back]
    risk = slope * graph.run({"rows": normal})[OUTPUT][:, 0].astype(np.float64) + intercept
    risk += between_equals(normal, names)
    calibrator = Calibrator(risk)
    if tail == "pareto" and calibrator.pareto is not None:
        calibrator = Calibrator(risk, tail=tail)
    facts |= {
        "rows_learnt": int(learnt.sum()),
        "anomalies_learnt": int(truth[learnt].sum()),
        "rows_later": len(later),
        "anomalies_later": int(truth[later].sum()),
        "rows_calibrated": calibrator.size,
    }
    empty = np.isnan(normal).all(axis=0)
    typical = np.full(len(names), np.nan)
    typical[~empty] = np.nanmedian(normal[:, ~empty], axis=0)
    return Head(names, graph, slope, intercept, calibrator, tuple(typical.tolist()), facts)


def _kept_back(truth: Flags, known: Flags, recipe: HeadRecipe, random_state: int) -> Flags:
    """A random share of the rows known to be normal; at least one is learnt from."""
    normal = np.flatnonzero(known & ~truth)
    size = min(MOST_CALIBRATION_ROWS, round(recipe.calibration_share * len(normal)), len(normal) - 1)
    kept = np.zeros(len(truth), dtype=bool)
    kept[np.random.default_rng(random_state).choice(normal, max(1, size), replace=False)] = True
    return kept


def _later(
    table: NDArray[np.float32],
    truth: Flags,
    known: Flags,
    learnt: Flags,
    time: pd.Series,
    known_at: pd.Series,
    recipe: HeadRecipe,
    random_state: int,
) -> tuple[Places, Floats]:
    """Labelled rows, and the log-odds that models of only what was known before give them."""
    when, since = time.to_numpy(), known_at.to_numpy()
    order = np.flatnonzero(known)[np.argsort(when[known], kind="stable")]
    parts = np.array_split(order, recipe.folds + 1)
    scored, log_odds = [], []
    for number in range(1, len(parts)):
        past = np.concatenate(parts[:number])
        if len(parts[number]):
            past = past[learnt[past] & (since[past] <= when[parts[number][0]])]
        if not truth[past].any() or truth[past].all():
            continue
        models = recipe.fit(table[past], truth[past], random_state)
        scored.append(parts[number])
        log_odds.append(np.mean([model.decision_function(table[parts[number]]) for model in models], axis=0))
    if not scored or not truth[np.concatenate(scored)].any() or truth[np.concatenate(scored)].all():
        raise DataError(
            f"A head needs anomalies among the earlier and the later labelled rows, and the earlier ones known when "
            f"the later happen; {int(truth[known].sum())} anomalies in all are no such."
        )
    return np.concatenate(scored), np.concatenate(log_odds)


def _compare(raw: Floats, risk: Floats, truth: Flags, weight: Floats, random_state: int) -> dict[str, Any]:
    """Average precision of both on the same later rows, and how sure the difference is."""
    rng = np.random.default_rng(random_state)
    head, members = _Ranked(raw, truth, weight), _Ranked(risk, truth, weight)
    found: dict[str, list[float]] = {"ap_head": [], "ap_risk": [], "gain": []}
    for _ in range(RESAMPLES):
        counts = np.bincount(rng.integers(0, len(truth), len(truth)), minlength=len(truth))
        if counts[truth].any():
            pair = head.precision(counts), members.precision(counts)
            for name, value in zip(found, (*pair, pair[0] - pair[1]), strict=True):
                found[name].append(value)
    once = np.ones(len(truth), dtype=np.intp)
    facts: dict[str, Any] = {"ap_head": head.precision(once), "ap_risk": members.precision(once)}
    facts["gain"] = facts["ap_head"] - facts["ap_risk"]
    for name, values in found.items():
        facts[f"{name}_low"], facts[f"{name}_high"] = (float(np.quantile(values, at)) for at in (0.05, 0.95))
    return facts | {"serves": facts["gain_low"] > 0}


class _Ranked:
    """Average precision of resampled rows; ties stand in the order of the rows."""

    def __init__(self, score: Floats, truth: Flags, weight: Floats) -> None:
        self._order = np.argsort(-score, kind="stable")
        self._truth, self._weight = truth[self._order], weight[self._order]

    def precision(self, counts: Places) -> float:
        weight = counts[self._order] * self._weight
        found = np.cumsum(weight * self._truth)
        precision = found / np.maximum(np.cumsum(weight), 1e-12)
        return float((precision * weight * self._truth).sum() / found[-1])


def _graph(models: Sequence[HistGradientBoostingClassifier], table: NDArray[np.float32]) -> Graph:
    graph = joined({OUTPUT: boosting_to_onnx(models, table.shape[1])}, [OUTPUT])
    sample = table[:: max(1, len(table) // 2_000)]
    wanted = np.mean([model.decision_function(sample) for model in models], axis=0)
    found = graph.run({"rows": sample})[OUTPUT][:, 0]
    largest_difference({"head": wanted}, {"head": found}, source="scikit-learn")
    return graph
