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
from detector.checks import check_interval, check_least, check_whole
from detector.decide.calibrate import Calibrator
from detector.errors import DataError
from detector.head.events import EVENTS
from detector.head.fit_events import EventRecipe
from detector.head.labelled import LabelledRows
from detector.head.model import OUTPUT, Head, between_equals, boosting_to_onnx, inputs
from detector.onnx.graph import Graph, joined
from detector.onnx.parity import largest_difference

RESAMPLES = 100
MEASURES_LEFT_OUT = ("p_value",)
MOST_CALIBRATION_ROWS = 50_000
EVENT_PARTS = 4
"""Parts, one later than the other, of which the last decides whether the events before a row are of use. Fewer, and the
networks that score the earlier ones learn from few rows; more, and the last holds few anomalies, at more networks."""


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
        check_whole(self, "trees", "models", "folds", "leaves")
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
    news: Floats | None = None,
    tail: str = "empirical",
    recipe: HeadRecipe | None = None,
    events: EventRecipe | None = None,
    random_state: int = 0,
) -> Head:
    """Learn from labelled rows (1 anomalous, 0 normal, missing unknown), as far as labels were known when it is fitted.

    - ``rows``: cleaned, with features, and not learnt from by the members, or their scores are too good.
    - ``measures``: as ``TabularScorer.unsupervised`` returns them, and what ``for_head`` adds; all but the p-value
      become inputs, too.
    - ``time``: when each row happened: folds are later than what is learnt from.
    - ``columns``: numeric columns of ``rows`` to learn from.
    - ``known_at``: when each label became known; a fold is scored by what was known when it began. At once by default.
    - ``weight``: how many rows each stands for, where those not known to be anomalous are a sample.
    - ``news``: how many things each shows that no row did which the members learnt from, as ``TableModel.news`` counts
      them. New rows are lifted for them, so those that calibrate are, too. None by default.
    - ``tail``: see ``Calibrator``; empirical where there are too few rows for a Pareto tail.
    - ``events``: how a network reads each row among the events before it. Its score becomes one more input, if on the
      last quarter of the rows the head ranks better with it; ``facts`` then hold ``ap_with_events``,
      ``ap_without_events``, their paired ``events_gain`` with its 90 % interval, and ``events_serve``.

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
    labelled = LabelledRows(truth, known, known & ~kept_back, time, time if known_at is None else known_at)
    later, raw = _later(table, labelled, labelled.parts(recipe.folds + 1), recipe, random_state)
    risk, normal, score = measures["risk"].to_numpy(), table[kept_back], None
    facts = _compare(raw, risk[later], truth[later], counts[later], random_state)
    if events is not None:
        read = _read_events(rows, table, labelled, counts, events, recipe, random_state)
        facts |= read.facts
        if read.serve:
            table, later, raw, alone = read.table, read.later, read.raw, facts["serves"]
            facts |= _compare(raw, risk[later], truth[later], counts[later], random_state)
            facts["serves"] |= alone  # the last part alone may be too small to prove what all the later rows did
            score, facts["events_parity"] = events.fit(rows[labelled.learnt], truth[labelled.learnt], random_state)
            normal = _beside(normal, score.score(rows[kept_back]))
            names = (*names, EVENTS)
    calibration = LogisticRegression(C=1e6).fit(raw[:, None], truth[later], sample_weight=counts[later])
    models = recipe.fit(table[labelled.learnt], truth[labelled.learnt], random_state)
    graph = _graph(models, table[labelled.learnt])
    slope, intercept = max(float(calibration.coef_[0, 0]), 1e-6), float(calibration.intercept_[0])
    normal_risk = slope * graph.run({"rows": normal})[OUTPUT][:, 0].astype(np.float64) + intercept
    normal_risk += between_equals(normal, names)
    calibrator = _calibrator(normal_risk, tail)
    if news is not None:
        calibrator = calibrator.with_lifted(normal_risk, news[kept_back])
    facts |= {
        "rows_learnt": int(labelled.learnt.sum()),
        "anomalies_learnt": int(truth[labelled.learnt].sum()),
        "rows_later": len(later),
        "anomalies_later": int(truth[later].sum()),
        "rows_calibrated": calibrator.size,
    }
    return Head(names, graph, slope, intercept, calibrator, _typical(normal), score, facts)


def _calibrator(risk: Floats, tail: str) -> Calibrator:
    calibrator = Calibrator(risk)
    return Calibrator(risk, tail=tail) if tail == "pareto" and calibrator.pareto is not None else calibrator


def _typical(table: NDArray[np.float32]) -> tuple[float, ...]:
    """The median of each column; missing where all is."""
    empty = np.isnan(table).all(axis=0)
    typical = np.full(table.shape[1], np.nan)
    typical[~empty] = np.nanmedian(table[:, ~empty], axis=0)
    return tuple(typical.tolist())


def _kept_back(truth: Flags, known: Flags, recipe: HeadRecipe, random_state: int) -> Flags:
    """A random share of the rows known to be normal; at least one is learnt from."""
    normal = np.flatnonzero(known & ~truth)
    size = min(MOST_CALIBRATION_ROWS, round(recipe.calibration_share * len(normal)), len(normal) - 1)
    kept = np.zeros(len(truth), dtype=bool)
    kept[np.random.default_rng(random_state).choice(normal, max(1, size), replace=False)] = True
    return kept


def _later(
    table: NDArray[np.float32],
    labelled: LabelledRows,
    parts: list[Places],
    recipe: HeadRecipe,
    random_state: int,
    *,
    first: int = 1,
) -> tuple[Places, Floats]:
    """The rows from a part on, and the log-odds that models of only what was known before each part give them."""
    truth, scored, log_odds = labelled.truth, [], []
    for number in range(first, len(parts)):
        past = labelled.before(parts, number)
        if not labelled.has_both(past):
            continue
        models = recipe.fit(table[past], truth[past], random_state)
        scored.append(parts[number])
        log_odds.append(np.mean([model.decision_function(table[parts[number]]) for model in models], axis=0))
    if not scored or not labelled.has_both(np.concatenate(scored)):
        raise DataError(
            f"A head needs anomalies among the earlier and the later labelled rows, and the earlier ones known when "
            f"the later happen; {int(truth.sum())} anomalies in all are no such."
        )
    return np.concatenate(scored), np.concatenate(log_odds)


@dataclass(frozen=True)
class _EventsRead:
    """What the score of the events before a row adds on the last part; rows and log-odds as ``_later`` gives them."""

    facts: dict[str, Any]
    table: NDArray[np.float32]
    later: Places
    raw: Floats

    @property
    def serve(self) -> bool:
        return bool(self.facts["events_serve"])


def _read_events(
    rows: pd.DataFrame,
    table: NDArray[np.float32],
    labelled: LabelledRows,
    counts: Floats,
    events: EventRecipe,
    recipe: HeadRecipe,
    random_state: int,
) -> _EventsRead:
    parts = labelled.parts(EVENT_PARTS)
    wider = _beside(table, events.held_out(rows, labelled, parts, random_state))
    try:
        later, without = _later(table, labelled, parts, recipe, random_state, first=EVENT_PARTS - 1)
    except DataError:
        return _EventsRead({"events_serve": False}, table, np.array([], dtype=np.intp), np.array([]))
    _, raw = _later(wider, labelled, parts, recipe, random_state, first=EVENT_PARTS - 1)
    found = _compare(raw, without, labelled.truth[later], counts[later], random_state)
    facts = {
        "ap_with_events": found["ap_head"],
        "ap_without_events": found["ap_risk"],
        **{f"events_{name}": found[name] for name in ("gain", "gain_low", "gain_high")},
        "events_serve": found["serves"],
    }
    return _EventsRead(facts, wider, later, raw)


def _beside(table: NDArray[np.float32], score: Floats) -> NDArray[np.float32]:
    return np.column_stack([table, score.astype(np.float32)])


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
