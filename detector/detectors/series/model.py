"""A fitted model of series, and what it says of each step of some."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.series.prepared import Prepared, Spectra
from detector.detectors.series.recipe import PHASE, SeriesRecipe
from detector.members.forecast import Forecast
from detector.members.phase import Phase
from detector.members.residuals import ResidualRule
from detector.members.window_forest import WindowForest
from detector.members.window_network import WindowNetwork
from detector.members.window_pca import WindowPCA, expected_values
from detector.series.flatline import FlatlineRule
from detector.series.scaling import SeriesScaling
from detector.series.segments import near, reach, smooth, smooth_at
from detector.series.staleness import StalenessRule, measure_staleness


@dataclass(frozen=True)
class SeriesModel:
    """What one entity, or all that share it, are scored by. Made by ``detector.detectors.series.fit``.

    - ``recipe``: how it was made.
    - ``length``: rows in a window.
    - ``stride``: how many times as far a long window reaches.
    - ``scaling``: how readings are scaled.
    - ``pca``: the linear floor; ``None`` if no sensor moved.
    - ``network``: the neural encoder that takes its place in the reconstruction, if it beat it.
    - ``long``, ``spectra``, ``forecast``, ``forest``, ``phase``: those members, if there are.
    - ``rules``: what residuals are usual, for all members but the forest.
    - ``fusion``: how members' scores are standardised.
    - ``shares``, (n_members,): what each member counts; they sum to 1.
    - ``baseline``, (n_sensors,): what each sensor adds to each member's score in normal rows.
    - ``staleness``: how long each sensor is usually silent.
    - ``flatline``: for how long each usually shows one value.
    - ``calibrator``: risk to p-value, from rows that were not learnt from.
    - ``threshold``: the risk above which a step is flagged, if nothing else is said.
    - ``facts``: what was found while fitting.
    - ``ceilings``, (n_sensors,) each, of the forest (1,): what a neighbour's score by each member counts at most where
      a step's own is not larger, see ``ModelledSeries.own_risk``; without, as much as it is.
    """

    recipe: SeriesRecipe
    length: int
    stride: int
    scaling: SeriesScaling
    pca: WindowPCA | None
    network: WindowNetwork | None
    long: WindowPCA | None
    spectra: Spectra | None
    forecast: Forecast | None
    forest: WindowForest | None
    phase: Phase | None
    rules: dict[str, ResidualRule]
    fusion: Fusion
    shares: Floats
    baseline: dict[str, Floats]
    staleness: StalenessRule
    flatline: FlatlineRule
    calibrator: Calibrator
    threshold: float
    facts: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, Floats] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        """Their names."""
        return self.recipe.members

    @property
    def gains(self) -> Floats:
        """What one unit of each member's score adds to the risk."""
        return np.asarray(self.shares / self.fusion.scale)

    @property
    def alarm(self) -> float:
        """What a sensor that is silent for too long adds to the risk: more than one sensor can by what it reads.

        And more than lies between any two normal rows, so that the silence alone is enough to flag one.
        """
        risk = self.calibrator.risk
        most = sum(
            gain * rule.cap / max(1, int(rule.known.sum()))
            for gain, name in zip(self.gains.tolist(), self.members, strict=True)
            if (rule := self.rules.get(name)) is not None
        )
        return float(1.0 + max(most, risk[-1] - risk[0]))

    @property
    def stuck_alarm(self) -> float:
        """What a sensor that has stuck for as long as is no news adds to the risk; each time as long, as much again.

        More than lies between any two normal rows, so that it is enough to flag a row by itself.
        """
        return float(1.0 + self.calibrator.risk[-1] - self.calibrator.risk[0])

    @property
    def memory(self) -> int:
        """How many steps before a step bear on its risk, as long as no sensor has been silent or has stuck."""
        return max(self._reach, self._long_reach(0)) + (self.recipe.lags if self.forecast else 0)

    @property
    def ahead(self) -> int:
        """How many steps after a step bear on its risk."""
        since = self.recipe.long_since(self.length, self.stride)
        return 0 if self.recipe.trailing else max(self._reach, self._long_reach(since))

    @property
    def _reach(self) -> int:
        return self.recipe.rows_around(self.length)

    def _long_reach(self, since: int) -> int:
        if self.long is None:
            return 0
        return self.stride * (self.length - 1 - since) + self.stride - 1 + reach(self.smoothing)

    @property
    def smoothing(self) -> float:
        """Rows in which the weight of a neighbour falls to 1/e."""
        return self.recipe.smoothing or 0.0


class ModelledSeries:
    """Steps of one or several series, as one model sees them.

    - ``model``: the model.
    - ``values``, (n_steps, n_sensors): NaN where missing.
    - ``observed``, (n_steps, n_sensors): where a reading came.
    - ``segment``, ``codes``, (n_steps,): which unbroken segment, and which series, each step belongs to.
    - ``times``, (n_steps,): of each step, where there are times.
    - ``may_stick``, (n_sensors,): the sensors of which it is not told that they stick; by default of none.
    - ``excused``, (n_steps,): where no reading can come; see ``RegularSeries``.
    """

    def __init__(
        self,
        model: SeriesModel,
        values: Floats,
        *,
        observed: Flags,
        segment: Counts,
        codes: Counts,
        times: NDArray[np.datetime64] | None = None,
        may_stick: Flags | None = None,
        excused: Flags | None = None,
    ) -> None:
        self.model, self.segment, self.times, self.may_stick = model, segment, times, may_stick
        self.values, self.observed = values, observed
        self.overdue = model.staleness.beyond(measure_staleness(observed, codes, excused))
        self.prepared = Prepared(values, segment, model.scaling, model.recipe, model.length, model.stride, self.overdue)

    @cached_property
    def scores(self) -> Floats:
        """Each member's z-score, of shape (n_steps, n_members)."""
        summed = np.column_stack([self.parts[name].sum(axis=1) for name in self.model.members])
        return self.model.fusion.standardise(self._smooth(summed))

    @cached_property
    def risk(self) -> Floats:
        """One risk a step: the members' mean by weight, and the alarm of each sensor that is silent, or sticks."""
        return np.asarray(self.scores @ self.model.shares + self._alarms.sum(axis=1))

    def own_risk(self, steps: Counts) -> Floats:
        """The risk of some steps, to which others near by add no more than the model's ceilings.

        However far off a reading is, what ends with it is then no event of the hours after.
        """
        model = self.model
        if not model.ceilings:  # of an earlier version: there is nothing to tell an echo by
            return np.asarray(self.risk[steps])
        summed = [self.smoothed(steps, name, ceiling=model.ceilings.get(name)).sum(axis=1) for name in model.members]
        z = model.fusion.standardise(np.column_stack(summed))
        return np.asarray(z @ model.shares + self._alarms[steps].sum(axis=1))

    @property
    def _alarms(self) -> Floats:
        return np.asarray(self.model.alarm * self.overdue + self.model.stuck_alarm * self.stuck)

    @cached_property
    def stuck(self) -> Floats:
        """By how much each sensor has shown one value for too long; 0 where it has not; see ``FlatlineRule.excess``."""
        found = self.model.flatline.excess(self.values, self.observed, self.segment, ahead=self.model.ahead)
        return found if self.may_stick is None else np.where(self.may_stick, 0.0, found)

    @cached_property
    def expected(self) -> Floats:
        """What each sensor should have read, in its own unit; NaN for one that never read in training."""
        model, prepared = self.model, self.prepared
        if model.pca is None:
            return model.scaling.unscale(np.empty((len(prepared.scaled), 0)))
        rebuilder = model.network or model.pca
        return model.scaling.unscale(expected_values(rebuilder, prepared.laid, how=model.recipe.how, pca=model.pca))

    def contributions(self, wanted: Flags | None = None) -> Floats:
        """What each sensor adds to the risk of each step, which is their sum; only for the steps wanted, if given."""
        model = self.model
        total = self._alarms
        steps = np.arange(len(total)) if wanted is None else np.flatnonzero(wanted)
        for gain, name in zip(model.gains, model.members, strict=True):
            parts = self.forest_by_sensor(wanted)[steps] if name == "forest" else self.smoothed(steps, name)
            total[steps] += gain * (parts - model.baseline[name])
        return total

    @cached_property
    def _squares(self) -> Floats:
        """Squared residuals of the moving sensors by the principal components, which the forest looks at."""
        assert self.model.pca is not None
        return self.prepared.residuals(self.model.pca, pca=self.model.pca, signed=False)

    @cached_property
    def _features(self) -> NDArray[np.float32]:
        return self.prepared.features(self._squares)

    @cached_property
    def parts(self) -> dict[str, Floats]:
        """Each member's score, neither smoothed nor standardised: by sensor, but the forest's in one column."""
        return {
            name: self._forest() if name == "forest" else self._scored(name, self._errors(name))
            for name in self.model.members
        }

    def _errors(self, name: str) -> Floats:
        model, prepared, signed = self.model, self.prepared, self.model.recipe.signed
        nothing = np.empty((len(prepared.scaled), 0))
        if name == "spectrum":
            return prepared.widen_energies(nothing if model.spectra is None else prepared.oscillation(model.spectra))
        if name == PHASE:
            if model.phase is None or self.times is None:
                return prepared.widen_energies(nothing)
            return prepared.widen_energies(model.phase.errors(prepared.moving, self.times))
        if model.pca is None:
            return prepared.widen(nothing, signed=signed)
        if name == "long":
            assert model.long is not None
            errors = prepared.slow.to_rows(prepared.slow_residuals(model.long, signed=signed))
            return prepared.widen(errors, signed=signed)
        if name == "forecast":
            assert model.forecast is not None
            errors = prepared.forecast_errors(model.forecast, signed=signed, chosen=prepared.ahead.whole)
            return prepared.widen(errors, signed=signed)
        if model.network is None and not signed:
            return prepared.widen(self._squares, signed=False)
        rebuilder = model.network or model.pca
        return prepared.widen(prepared.residuals(rebuilder, pca=model.pca, signed=signed), signed=signed)

    def _scored(self, name: str, errors: Floats) -> Floats:
        return self.model.rules[name].parts(errors, self.observed & ~np.isnan(errors))

    def _forest(self) -> Floats:
        model, prepared = self.model, self.prepared
        if model.forest is None:
            return np.zeros((len(prepared.scaled), 1))
        laid = prepared.laid
        found = model.forest.scores(self._features, laid, how=model.recipe.how, chosen=laid.whole)
        ordinary = model.fusion.location[model.members.index("forest")]
        return np.where(np.isnan(found), ordinary, found)

    def forest_by_sensor(self, wanted: Flags | None) -> Floats:
        """What each sensor adds to the forest's score of the steps wanted, up to a constant."""
        model, prepared = self.model, self.prepared
        parts = np.zeros(prepared.scaled.shape)
        if model.forest is None:
            return parts
        moving, chosen = model.scaling.moving, prepared.laid.whole
        if wanted is not None:
            chosen &= ~prepared.laid.clear_of(near(wanted, self.segment, reach(model.smoothing)))
        found = model.forest.contributions(self._features, prepared.laid, how=model.recipe.how, chosen=chosen)
        parts[:, moving] = self._smooth(np.where(np.isnan(found), model.baseline["forest"][moving], found))
        return parts

    def _smooth(self, values: Floats) -> Floats:
        return smooth(values, self.segment, self.model.smoothing, trailing=self.model.recipe.trailing)

    def smoothed(self, steps: Counts, name: str, *, ceiling: Floats | None = None) -> Floats:
        """A member's score of some steps, smoothed, by sensor."""
        rows, trailing = self.model.smoothing, self.model.recipe.trailing
        return smooth_at(steps, self.parts[name], self.segment, rows, trailing=trailing, ceiling=ceiling)
