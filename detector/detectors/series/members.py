"""Fit the members of a model of series, each row scored by members that did not learn from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.encoders import EncoderChoice
from detector.detectors.series.model import ModelledSeries
from detector.detectors.series.recipe import Prepared
from detector.members.forecast import Forecast
from detector.members.isolation_forest import Trees
from detector.members.window_forest import WindowForest
from detector.members.window_network import WindowNetwork
from detector.members.window_pca import WindowPCA
from detector.onnx.graph import joined
from detector.onnx.parity import largest_difference
from detector.series.segmented_windows import LaidWindows, cross_fit, fold_of_rows, thinned
from detector.training.settings import OnStep

MAX_SAMPLES = 256
MOST_ROWS = 2000
PROBE = 256


@dataclass(frozen=True)
class TrainingSeries:
    """Steps to learn from.

    - ``values``, (n_steps, n_sensors): NaN where missing.
    - ``observed``, (n_steps, n_sensors): where a reading came.
    - ``segment``, ``codes``, (n_steps,): which unbroken segment, and which series, each step belongs to.
    - ``usable``, (n_steps,): false for steps known to be anomalous; no window that touches one is learnt from.
    - ``name``: whose they are, for messages; empty if it is plain.
    """

    values: Floats
    observed: Flags
    segment: Counts
    codes: Counts
    usable: Flags
    name: str = ""

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class FittedMembers:
    """Members, and how far each training row is from what they expect. Made by ``fit_members``.

    - ``scored``, (n_rows,): the rows whose errors are those of rows not learnt from.
    - ``errors``, (n_rows, n_moving_sensors), or (n_rows, 1) for the forest: NaN where no usable window covers a row.
    - ``pca``, ``network``, ``forecast``, ``forest``: see ``SeriesModel``.
    - ``facts``, ``history``, ``message``: see ``FittedSeries``.
    """

    scored: Flags
    errors: dict[str, Floats]
    pca: WindowPCA | None = None
    network: WindowNetwork | None = None
    forecast: Forecast | None = None
    forest: WindowForest | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""


def silent(what: str, done: int, planned: int) -> None:
    """Tell nobody how far fitting is."""


def fit_members(
    series: TrainingSeries, prepared: Prepared, *, encoder: EncoderChoice | None, random_state: int, on_step: OnStep
) -> FittedMembers:
    """Fit the members that the recipe names, and the principal components always; see ``fit_series``.

    Raises ``DataError`` if there are too few usable windows.
    """
    recipe, n = prepared.recipe, len(series)
    nothing = np.empty((n, 0))
    found = FittedMembers(series.usable, {"reconstruction": nothing, "forecast": nothing, "forest": np.zeros((n, 1))})
    if not prepared.scaling.moving.any():
        return found
    on_step("window-PCA", 0, 1)
    squares, pca = _fit_components(series, prepared, signed=False)
    found.pca, found.errors["reconstruction"] = pca, squares
    if recipe.signed:
        found.errors["reconstruction"], _ = _fit_components(series, prepared, signed=True)
    learnt = prepared.residuals(pca, pca=pca, signed=False, chosen=prepared.laid.learnable(series.usable))
    found.facts = {
        "components": pca.code,
        "reconstruction_error_train": float(np.nanmean(learnt[series.usable])),
        "reconstruction_error_holdout": float(np.nanmean(squares[series.usable])),
    }
    if encoder is not None and "reconstruction" in recipe.members:
        _fit_encoder(found, series, prepared, pca, squares, encoder=encoder, random_state=random_state, on_step=on_step)
    if "forecast" in recipe.members:
        on_step("forecast", 0, 1)
        errors, found.forecast = _fit_forecast(series, prepared)
        found.errors["forecast"] = errors if recipe.signed else errors**2
    if "forest" in recipe.members:
        on_step("isolation forest", 0, 1)
        found.errors["forest"], found.forest = _fit_forest(series, prepared, squares, random_state=random_state)
    return found


def _fit_components(series: TrainingSeries, prepared: Prepared, *, signed: bool) -> tuple[Floats, WindowPCA]:
    def fit(laid: LaidWindows, chosen: Flags) -> WindowPCA:
        return WindowPCA.fit(laid, chosen, variance=prepared.recipe.variance)

    def errors(model: WindowPCA, _: LaidWindows, chosen: Flags) -> Floats:
        return prepared.residuals(model, pca=model, signed=signed, chosen=chosen)

    return cross_fit(prepared.laid, series.usable, prepared.recipe.folds, fit=fit, errors=errors)


def _fit_forecast(series: TrainingSeries, prepared: Prepared) -> tuple[Floats, Forecast]:
    def errors(model: Forecast, laid: LaidWindows, chosen: Flags) -> Floats:
        return model.errors(laid, chosen)

    return cross_fit(prepared.ahead, series.usable, prepared.recipe.folds, fit=Forecast.fit, errors=errors)


def _fit_forest(
    series: TrainingSeries, prepared: Prepared, squares: Floats, *, random_state: int
) -> tuple[Floats, WindowForest]:
    recipe = prepared.recipe
    features = prepared.features(squares)

    def fit(_: LaidWindows, chosen: Flags) -> WindowForest:
        return fit_forest(features[chosen], trees=recipe.trees, random_state=random_state)

    def errors(model: WindowForest, laid: LaidWindows, chosen: Flags) -> Floats:
        return model.scores(features, laid, how=recipe.how, chosen=chosen)

    return cross_fit(prepared.laid, series.usable, recipe.folds, fit=fit, errors=errors)


def _fit_encoder(
    found: FittedMembers,
    series: TrainingSeries,
    prepared: Prepared,
    pca: WindowPCA,
    squares: Floats,
    *,
    encoder: EncoderChoice,
    random_state: int,
    on_step: OnStep,
) -> None:
    """Keep a neural encoder if it rebuilds the last fold, which it did not see, better than components do."""
    usable, laid, folds = series.usable, prepared.laid, prepared.recipe.folds
    held_out = fold_of_rows(len(usable), folds) == folds - 1
    learnt = laid.learnable(usable & ~held_out)
    fitted = encoder.fit(laid, learnt, code=pca.code, random_state=random_state, on_step=on_step)
    if fitted.network is not None:
        chosen = laid.learnable(usable) & ~laid.clear_of(held_out)
        own = prepared.residuals(fitted.network, pca=pca, signed=False, chosen=chosen)
        both = held_out & usable & ~np.isnan(own[:, 0]) & ~np.isnan(squares[:, 0])
        error, floor = (float(values[both].mean()) if both.any() else np.inf for values in (own, squares))
        fitted = fitted.compared(error, floor, whose=series.name, fall_back=encoder.fall_back)
    found.network, found.history, found.message = fitted.network, fitted.history, fitted.message
    found.facts |= fitted.facts
    if fitted.network is None:
        return
    in_sample = prepared.residuals(fitted.network, pca=pca, signed=False, chosen=learnt)[~held_out & usable]
    found.facts |= {"reconstruction_error_train": float(np.nanmean(in_sample)), "reconstruction_error_holdout": error}
    found.scored = usable & held_out
    if prepared.recipe.signed:
        own = prepared.residuals(fitted.network, pca=pca, signed=True, chosen=chosen)
    found.errors["reconstruction"] = own


def fit_forest(features: NDArray[np.float32], *, trees: int, random_state: int) -> WindowForest:
    """Grow trees on the features of windows, one window a row, and prove their ONNX graph.

    Raises ``ParityError`` if the ONNX graph answers differently from scikit-learn.

    >>> features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    >>> fit_forest(features, trees=10, random_state=0).trees.feature.shape[0]
    10
    """
    forest = IsolationForest(
        n_estimators=trees, max_samples=min(MAX_SAMPLES, len(features)), random_state=random_state
    ).fit(features)
    grown = Trees.from_forest(forest)
    graph = joined({"forest": grown.to_onnx()}, ["forest"])
    probe = features[:PROBE]
    answered: NDArray[Any] = -(2.0 ** graph.run({"table": probe})["forest"][:, 0].astype(np.float64))
    largest_difference({"forest": forest.score_samples(probe)}, {"forest": answered}, source="scikit-learn")
    return WindowForest(grown, graph)


def forest_baseline(seen: ModelledSeries, scored: Flags) -> Floats:
    """What each sensor adds to the forest's score in normal rows, so that what is beyond it sums to the score's excess.

    Of the rows that count as normal (``scored``), 2,000 are looked at.
    """
    model, sample = seen.model, thinned(scored, MOST_ROWS)
    baseline = np.zeros(len(model.scaling.known))
    if model.forest is None:
        return baseline
    parts = seen.forest_by_sensor(sample)[sample]
    apart = seen.parts["forest"][sample, 0] - parts.sum(axis=1)  # the same constant in each row
    baseline = np.asarray(parts.mean(axis=0), dtype=np.float64)
    location = float(model.fusion.location[model.members.index("forest")])
    moving = model.scaling.moving
    baseline[moving] += (location - float(np.median(apart)) - baseline.sum()) / moving.sum()
    return baseline
