"""Fit the members of a model of series, each row scored by members that did not learn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.encoders import EncoderChoice, FittedEncoder
from detector.detectors.series.loud_stretch import LoudStretches
from detector.detectors.series.model import ModelledSeries
from detector.detectors.series.prepared import Prepared, Spectra
from detector.detectors.series.recipe import PHASE
from detector.members.forecast import Forecast
from detector.members.isolation_forest import Trees
from detector.members.phase import Phase
from detector.members.spectrum import Spectrum
from detector.members.window_forest import WindowForest
from detector.members.window_network import WindowNetwork
from detector.members.window_pca import WindowPCA
from detector.onnx.graph import joined
from detector.onnx.parity import largest_difference
from detector.series.rhythm import Rhythm
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
    - ``times``, (n_steps,): of each step, in UTC and without zone; ``None`` if there are none.
    - ``seconds``: between two steps; 1 without times.
    """

    values: Floats
    observed: Flags
    segment: Counts
    codes: Counts
    usable: Flags
    name: str = ""
    times: NDArray[np.datetime64] | None = None
    seconds: float = 1.0

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class FittedMembers:
    """Members, and how far each training row is from what they expect. Made by ``fit_members``.

    - ``errors``, (n_rows, n_moving_sensors), or (n_rows, 1) for the forest: those of rows not learnt from; NaN where no
      usable window covers a row. First those of the rows, then those of each copy with planted faults.
    - ``pca``, ``network``, ``long``, ``spectra``, ``forecast``, ``forest``, ``phase``: see ``SeriesModel``.
    - ``facts``, ``history``, ``message``, ``loud``: see ``FittedSeries``.
    """

    errors: dict[str, list[Floats]]
    pca: WindowPCA | None = None
    network: WindowNetwork | None = None
    long: WindowPCA | None = None
    spectra: Spectra | None = None
    forecast: Forecast | None = None
    forest: WindowForest | None = None
    phase: Phase | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""
    loud: LoudStretches | None = None


def silent(what: str, done: int, planned: int) -> None:
    """Tell nobody how far fitting is."""


def fit_members(
    series: TrainingSeries,
    prepared: Prepared,
    copies: Sequence[Prepared] = (),
    *,
    encoder: EncoderChoice | None,
    random_state: int,
    on_step: OnStep,
    rhythm: Rhythm | None = None,
) -> FittedMembers:
    """Fit the members that the recipe names, and the principal components always; see ``fit_series``.

    ``copies`` are the rows with planted faults, which the members see as they see rows that they did not learn from.
    Raises ``DataError`` if there are too few usable windows.
    """
    fitting = _Fitting(series, prepared, copies, random_state, on_step)
    found = fitting.members(encoder)
    if rhythm is not None:
        found.errors[PHASE], found.phase = fitting.phase(rhythm)
    return found


class _Fitting:
    """One series, the rows prepared of it, and copies with planted faults."""

    def __init__(
        self,
        series: TrainingSeries,
        prepared: Prepared,
        copies: Sequence[Prepared],
        random_state: int,
        on_step: OnStep,
    ) -> None:
        self.series, self.prepared, self.all = series, prepared, [prepared, *copies]
        self.random_state, self.on_step = random_state, on_step
        self.fold = fold_of_rows(len(series), prepared.recipe.folds)

    def members(self, encoder: EncoderChoice | None) -> FittedMembers:
        recipe, n = self.prepared.recipe, len(self.series)  # of which the phase comes after them
        shapes = {name: (n, 1 if name == "forest" else 0) for name in recipe.members}
        found = FittedMembers({name: [np.zeros(shape)] * len(self.all) for name, shape in shapes.items()})
        if not self.prepared.scaling.moving.any():
            return found
        self.on_step("window-PCA", 0, 1)
        squares = self._components(found)
        if encoder is not None and "reconstruction" in recipe.members:
            self._encoder(found, encoder, squares[0])
        if "long" in recipe.members:
            self.on_step("long windows", 0, 1)
            found.errors["long"], found.long = self._long()
        if "spectrum" in recipe.members:
            self.on_step("spectrum", 0, 1)
            found.errors["spectrum"], found.spectra = self._spectrum()
        if "forecast" in recipe.members:
            self.on_step("forecast", 0, 1)
            found.errors["forecast"], found.forecast = self._forecast()
        if "forest" in recipe.members:
            self.on_step("isolation forest", 0, 1)
            found.errors["forest"], found.forest = self._forest(squares)
        return found

    def phase(self, rhythm: Rhythm) -> tuple[list[Floats], Phase]:
        """Fit what is usual at each time; rows, and copies, against what is usual by rows of other folds."""
        times, usable = self.series.times, self.series.usable
        assert times is not None
        moving = self.prepared.moving
        found = [np.zeros(moving.shape) for _ in self.all]
        for number in range(int(self.fold.max()) + 1):
            inside, apart = self.fold == number, (self.fold != number) & usable
            model = Phase.fit(moving[apart], times[apart], rhythm)
            for errors, rows in zip(found, self.all, strict=True):
                errors[inside] = model.errors(rows.moving[inside], times[inside])
        return found, Phase.fit(moving[usable], times[usable], rhythm)

    def _components(self, found: FittedMembers) -> list[Floats]:
        """Fit the principal components; the squared residuals of rows and copies."""
        prepared, usable, signed = self.prepared, self.series.usable, self.prepared.recipe.signed

        def fit(laid: LaidWindows, chosen: Flags) -> WindowPCA:
            return WindowPCA.fit(laid, chosen, variance=prepared.recipe.variance)

        def errors(rows: Prepared, signed: bool) -> Callable[[WindowPCA, Flags], Floats]:
            return lambda model, chosen: rows.residuals(model, pca=model, signed=signed, chosen=chosen)

        measures = [errors(rows, signed) for signed in {False, signed} for rows in self.all]
        measured, pca = cross_fit(prepared.laid, usable, self.fold, fit=fit, errors=measures)
        squares, own = measured[: len(self.all)], measured[-len(self.all) :]
        found.pca = pca
        if "reconstruction" in found.errors:
            found.errors["reconstruction"] = own
        learnt = prepared.residuals(pca, pca=pca, signed=False, chosen=prepared.laid.learnable(usable))
        found.facts = {
            "components": pca.code,
            "reconstruction_error_train": float(np.nanmean(learnt[usable])),
            "reconstruction_error_holdout": float(np.nanmean(squares[0][usable])),
        }
        return squares

    def _long(self) -> tuple[list[Floats], WindowPCA]:
        prepared, slow = self.prepared, self.prepared.slow
        usable = slow.usable(self.series.usable, self.series.segment, prepared.stride)

        def fit(laid: LaidWindows, chosen: Flags) -> WindowPCA:
            return WindowPCA.fit(laid, chosen, variance=prepared.recipe.variance)

        def errors(rows: Prepared) -> Callable[[WindowPCA, Flags], Floats]:
            return lambda model, chosen: rows.slow_residuals(model, signed=prepared.recipe.signed, chosen=chosen)

        measures = [errors(rows) for rows in self.all]
        found, model = cross_fit(slow.laid, usable, self.fold[slow.order], fit=fit, errors=measures)
        return [slow.to_rows(one) for one in found], model

    def _spectrum(self) -> tuple[list[Floats], Spectra]:
        prepared = self.prepared
        resolution = prepared.scaling.resolution[prepared.scaling.moving]

        def fit(laid: LaidWindows, chosen: Flags) -> Spectrum:
            return Spectrum.fit(laid, chosen, resolution=resolution)

        def of(pick: Callable[[Prepared], LaidWindows]) -> tuple[list[Floats], Spectrum]:
            def errors(laid: LaidWindows) -> Callable[[Spectrum, Flags], Floats]:
                return lambda model, chosen: model.errors(laid, how=prepared.recipe.how, chosen=chosen)

            measures = [errors(pick(rows)) for rows in self.all]
            return cross_fit(pick(prepared), self.series.usable, self.fold, fit=fit, errors=measures)

        (first, whole), (second, half) = of(lambda rows: rows.laid), of(lambda rows: rows.half)
        return [(one + other) / 2 for one, other in zip(first, second, strict=True)], Spectra(whole, half)

    def _forecast(self) -> tuple[list[Floats], Forecast]:
        signed = self.prepared.recipe.signed

        def errors(rows: Prepared) -> Callable[[Forecast, Flags], Floats]:
            return lambda model, chosen: rows.forecast_errors(model, signed=signed, chosen=chosen)

        measures = [errors(rows) for rows in self.all]
        return cross_fit(self.prepared.ahead, self.series.usable, self.fold, fit=Forecast.fit, errors=measures)

    def _forest(self, squares: Sequence[Floats]) -> tuple[list[Floats], WindowForest]:
        recipe = self.prepared.recipe
        features = [rows.features(own) for rows, own in zip(self.all, squares, strict=True)]

        def fit(_: LaidWindows, chosen: Flags) -> WindowForest:
            return fit_forest(features[0][chosen], trees=recipe.trees, random_state=self.random_state)

        def errors(rows: Prepared, own: NDArray[np.float32]) -> Callable[[WindowForest, Flags], Floats]:
            return lambda model, chosen: model.scores(own, rows.laid, how=recipe.how, chosen=chosen)

        measures = [errors(rows, own) for rows, own in zip(self.all, features, strict=True)]
        return cross_fit(self.prepared.laid, self.series.usable, self.fold, fit=fit, errors=measures)

    def _encoder(self, found: FittedMembers, encoder: EncoderChoice, squares: Floats) -> None:
        """Keep a neural encoder if it rebuilds rows that it did not see better than components do.

        Fold by fold, as components are: so it is calibrated on as many rows.
        """
        prepared, usable, pca = self.prepared, self.series.usable, found.pca
        assert pca is not None
        fits: list[FittedEncoder] = []

        def fit(laid: LaidWindows, chosen: Flags) -> WindowNetwork | None:
            fits.append(encoder.fit(laid, chosen, code=pca.code, random_state=self.random_state, on_step=self.on_step))
            return fits[-1].network

        def errors(rows: Prepared, signed: bool) -> Callable[[WindowNetwork | None, Flags], Floats]:
            def measure(model: WindowNetwork | None, chosen: Flags) -> Floats:
                if model is None:
                    return np.full((len(usable), 1), np.nan)
                return rows.residuals(model, pca=pca, signed=signed, chosen=chosen)

            return measure

        signed = prepared.recipe.signed
        measures = [errors(rows, signed) for signed in {False, signed} for rows in self.all]
        measured, network = cross_fit(prepared.laid, usable, self.fold, fit=fit, errors=measures)
        fitted, own = fits[-1], measured[0]
        if network is not None:
            both = usable & ~np.isnan(own).any(axis=1) & ~np.isnan(squares).any(axis=1)
            error, floor = (float(values[both].mean()) if both.any() else np.inf for values in (own, squares))
            fitted = fitted.compared(error, floor, whose=self.series.name, fall_back=encoder.fall_back)
        found.network, found.history, found.message = fitted.network, fitted.history, fitted.message
        found.facts |= fitted.facts
        if fitted.network is None:
            return
        learnt = prepared.residuals(fitted.network, pca=pca, signed=False, chosen=prepared.laid.learnable(usable))
        found.facts |= {
            "reconstruction_error_train": float(np.nanmean(learnt[usable])),
            "reconstruction_error_holdout": error,
        }
        found.errors["reconstruction"] = measured[-len(self.all) :]


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
    apart = seen.smoothed(np.flatnonzero(sample), "forest")[:, 0] - parts.sum(axis=1)  # the same constant in each row
    baseline = np.asarray(parts.mean(axis=0), dtype=np.float64)
    location = float(model.fusion.location[model.members.index("forest")])
    moving = model.scaling.moving
    baseline[moving] += (location - float(np.median(apart)) - baseline.sum()) / moving.sum()
    return baseline
