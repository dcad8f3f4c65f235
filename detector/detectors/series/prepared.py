"""Rows of series prepared for the members: scaled, with windows of each kind laid over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.detectors.series.recipe import SeriesRecipe
from detector.members.forecast import Forecast
from detector.members.spectrum import LEAST_SPREAD, Spectrum
from detector.members.window_forest import window_features
from detector.members.window_pca import Rebuilder, WindowPCA, expected_values, squared_errors
from detector.resolution import beyond
from detector.series.scaling import SeriesScaling
from detector.series.segmented_windows import LaidWindows
from detector.series.slow_rows import SlowRows

LEAST_WINDOW = 2


@dataclass(frozen=True)
class Spectra:
    """The usual energies of whole windows and of half ones."""

    whole: Spectrum
    half: Spectrum


class Prepared:
    """Scaled rows with windows laid over them, for fitting and for scoring.

    - ``values``, (n_rows, n_sensors): NaN where missing.
    - ``segment``, (n_rows,): which unbroken segment each row belongs to.
    - ``scaling``: how.
    - ``recipe``: settings.
    - ``length``: rows in a window.
    - ``stride``: how many times as far a long window reaches.
    - ``overdue``, (n_rows, n_sensors): where a sensor is silent for so long that its last value is no longer believed.
    """

    def __init__(
        self,
        values: Floats,
        segment: NDArray[Any],
        scaling: SeriesScaling,
        recipe: SeriesRecipe,
        length: int,
        stride: int,
        overdue: Flags | None = None,
    ) -> None:
        self.segment, self.scaling, self.recipe, self.length, self.stride = segment, scaling, recipe, length, stride
        self.missing = None if overdue is None else overdue[:, scaling.moving]
        self.scaled = scaling.scale(values, segment)
        self.moving = np.ascontiguousarray(self.scaled[:, scaling.moving])

    def planted(self, moving: NDArray[np.float32]) -> Self:
        """The same rows with other values of the moving sensors."""
        other = object.__new__(type(self))
        kept = ("segment", "scaling", "recipe", "length", "stride", "missing", "scaled")
        vars(other).update({name: getattr(self, name) for name in kept} | {"moving": moving})
        return other

    @cached_property
    def laid(self) -> LaidWindows:
        """The windows over the moving sensors."""
        return self._lay(self.length)

    @cached_property
    def half(self) -> LaidWindows:
        """Windows half as long."""
        return self._lay(max(LEAST_WINDOW, self.length // 2))

    @cached_property
    def slow(self) -> SlowRows:
        """Windows that reach further, over averages."""
        lead = self.recipe.trailing
        return SlowRows.lay(self.moving, self.segment, self.length, stride=self.stride, lead=lead, missing=self.missing)

    @cached_property
    def ahead(self) -> LaidWindows:
        """A window for each row, of the rows it is forecast from and itself."""
        return LaidWindows.lay(self.moving, self.segment, self.recipe.lags + 1, lead=True)

    def residuals(self, model: Rebuilder, *, pca: WindowPCA, signed: bool, chosen: Flags | None = None) -> Floats:
        """Squared residuals of the moving sensors, or, ``signed``, residuals; NaN where no chosen window covers."""
        if not signed:
            return squared_errors(model, self.laid, how=self.recipe.how, pca=pca, chosen=chosen)
        return self.moving - expected_values(model, self.laid, how=self.recipe.how, pca=pca, chosen=chosen)

    def slow_residuals(self, model: WindowPCA, *, signed: bool, chosen: Flags | None = None) -> Floats:
        """As ``residuals``, of the averages by long windows; ``chosen`` and what is returned are of ``slow.laid``."""
        laid, how = self.slow.laid, self.recipe.how
        since = self.recipe.long_since(self.length, self.stride)
        if not signed:
            return squared_errors(model, laid, how=how, pca=model, chosen=chosen, since=since)
        residuals = laid.values[laid.own] - expected_values(model, laid, how=how, pca=model, chosen=chosen, since=since)
        residuals[~self.slow.full[self.slow.order]] *= 0.0  # an average that is cut is not believed
        return residuals

    def forecast_errors(self, model: Forecast, *, signed: bool, chosen: Flags) -> Floats:
        """Squared residuals of the forecast, or, ``signed``, residuals."""
        errors = model.errors(self.ahead, chosen)
        return errors if signed else errors**2

    def oscillation(self, spectra: Spectra) -> Floats:
        """How far each moving sensor's energies are from the usual ones; NaN where no window of true rows covers."""
        whole, half = (
            spectrum.errors(laid, how=self.recipe.how, chosen=laid.whole)
            for spectrum, laid in ((spectra.whole, self.laid), (spectra.half, self.half))
        )
        return np.asarray((whole + half) / 2)

    def widen(self, errors: Floats, *, signed: bool) -> Floats:
        """What errors have beyond the sensors' resolution, for all sensors.

        A constant one deviates from its value, one that never read has none.
        """
        wide = self.scaled.astype(np.float64)
        wide = wide if signed else wide**2
        wide[:, self.scaling.moving] = errors
        return beyond(wide, self.scaling.resolution, signed=signed)

    def widen_energies(self, errors: Floats) -> Floats:
        """The same for the spectrum's errors, in which a resolution is reckoned already.

        A constant sensor that moves counts as much as it does where windows are rebuilt.
        """
        constant = beyond(self.scaled.astype(np.float64) ** 2, self.scaling.resolution, signed=False)
        wide = constant * (LEAST_SPREAD / self.recipe.deviation_floor) ** 2
        wide[:, self.scaling.moving] = errors
        return wide

    def features(self, squares: Floats) -> NDArray[np.float32]:
        """What the forest looks at: windows, and the moving sensors' squared residuals beyond their resolution."""
        resolution = self.scaling.resolution[self.scaling.moving]
        return window_features(self.laid, beyond(squares, resolution, signed=False))

    def _lay(self, length: int) -> LaidWindows:
        return LaidWindows.lay(self.moving, self.segment, length, lead=self.recipe.trailing, missing=self.missing)
