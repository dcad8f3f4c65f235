"""One sensor apart from the others: what they lead one to expect of it, and how much of a fault is gone without it.

A window that holds a fault is rebuilt askew: its components follow the fault and take healthy sensors along. So each
sensor is hidden for the time of an event in turn, and put in anew as the rest lets one expect. Without the one at fault
the window is usual again (reconstruction-based contributions: Alcala and Qin, Automatica 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detector.arrays import Counts, Flags, Floats
from detector.detectors.series.model import ModelledSeries
from detector.members.window_pca import HiddenValues, WindowPCA

MOST_WINDOWS = 96
"""Of those that an event touches, so many are looked at. Fewer, and a short part of a long event is not seen."""


@dataclass(frozen=True)
class EventWindows:
    """The windows over some steps of a series. Make one with ``EventWindows.over``; ``None`` if none can be laid.

    - ``pca``: the components by which they are looked at.
    - ``windows``, (n_windows, length, n_moving): scaled.
    - ``step``, (n_windows, length): the step of each of their rows; -1 for one that stands in.
    - ``inside``, (n_windows, length): the rows that belong to the event.
    - ``scale``, (n_moving,): what a squared residual of each sensor is measured in.
    """

    pca: WindowPCA
    windows: Floats
    step: Counts
    inside: Flags
    scale: Floats

    @classmethod
    def over(cls, seen: ModelledSeries, steps: Flags) -> EventWindows | None:
        """Windows that touch these steps, evenly thinned: every step is in one of them."""
        model, laid = seen.model, seen.prepared.laid
        if model.pca is None or not len(laid.windows):
            return None
        touched = np.flatnonzero(~laid.clear_of(steps))
        if not len(touched):
            return None
        spaced = max(1, min(len(touched) // MOST_WINDOWS, model.length // 2))
        touched = np.unique(np.append(touched[::spaced], touched[-1]))
        return cls._of(seen, laid.windows.starts[touched], lambda step: (step >= 0) & steps[step])

    @classmethod
    def around(cls, seen: ModelledSeries, steps: Counts, aside: int) -> EventWindows | None:
        """One window for each of these steps, which stands in its middle, or with a trailing model at its end.

        The time of the event is that step and ``aside`` steps to either side, or before it.
        """
        model, laid = seen.model, seen.prepared.laid
        if model.pca is None or not len(steps):
            return None
        own, trailing = laid.own[steps], model.recipe.trailing
        starts = laid.windows.starts
        which = np.searchsorted(starts, own - (model.length - 1 if trailing else model.length // 2))
        which -= (which == len(starts)) | (starts[np.minimum(which, len(starts) - 1)] > own)
        near, ahead = steps[:, None], 0 if trailing else aside
        return cls._of(seen, starts[which], lambda step: (step >= near - aside) & (step <= near + ahead) & (step >= 0))

    @classmethod
    def _of(cls, seen: ModelledSeries, starts: Counts, inside: Callable[[Counts], Flags]) -> EventWindows:
        model, laid = seen.model, seen.prepared.laid
        assert model.pca is not None
        rows = starts[:, None] + np.arange(model.length)
        true = np.full(len(laid.source), -1, dtype=np.int64)
        true[laid.own] = np.arange(len(laid.own))
        step = true[rows]
        moving, rule = model.scaling.moving, model.rules.get("reconstruction")
        scale = np.full(int(moving.sum()), model.recipe.deviation_floor**2)
        if rule is not None and rule.precision is None:
            scale = rule.deviation[moving]
        windows = laid.values[rows].astype(np.float64)
        if laid.missing is not None and (doubtful := laid.missing[rows]).any():
            flat = windows.reshape(len(windows), -1).astype(np.float32)
            windows = model.pca.complete(flat, doubtful.reshape(flat.shape)).reshape(windows.shape).astype(np.float64)
        return cls(model.pca, windows, step, inside(step), scale)

    def without(self, sensors: Counts) -> Floats:
        """The windows with these sensors, by their places among the moving ones, put in anew where the event is."""
        filled = self.windows.copy()
        length, n_sensors = self.windows.shape[1:]
        centre = self.pca.centre.astype(np.float64).reshape(length, n_sensors)
        patterns, which = np.unique(self.inside, axis=0, return_inverse=True)
        for number, gone in enumerate(patterns):
            if not gone.any():
                continue
            own, rows = np.flatnonzero(which.ravel() == number), np.flatnonzero(gone)
            place, hidden = np.ix_(own, rows, sensors), (rows[:, None] * n_sensors + sensors).ravel()
            known = (self.windows[place] - centre[np.ix_(rows, sensors)]).reshape(len(own), -1)
            seen = self._codes[own] - known @ self._expectation.directions[hidden]
            expected = self._expectation.given(seen, hidden).reshape(len(own), len(rows), -1)
            filled[place] = expected + centre[np.ix_(rows, sensors)]
        return filled

    @cached_property
    def _expectation(self) -> HiddenValues:
        return HiddenValues.of(self.pca)

    @cached_property
    def _codes(self) -> Floats:
        """What all sensors of each window add up to along the components."""
        centred = self.windows.reshape(len(self.windows), -1) - self.pca.centre.astype(np.float64)
        return np.asarray(centred @ self._expectation.directions)

    def strangeness(self, windows: Floats) -> Floats:
        """How badly each window is rebuilt in the time of the event: the mean of squared residuals in usual ones."""
        flat = windows.reshape(len(windows), -1).astype(np.float32)
        residuals = (flat - self.pca.rebuild(flat)).reshape(windows.shape)
        inside = self.inside[..., None]
        found = (np.where(inside, residuals, 0.0) ** 2 / self.scale).sum(axis=(1, 2))
        return np.asarray(found / np.maximum(self.inside.sum(axis=1) * len(self.scale), 1))

    def explained(self, sensors: Counts) -> Floats:
        """The share of the strangeness that goes with each of these sensors; 0 for one that adds to it."""
        weight = self.inside.sum(axis=1)
        whole = max(float(self.strangeness(self.windows) @ weight), np.finfo(float).tiny)
        gone = [float(self.strangeness(self.without(np.array([sensor]))) @ weight) for sensor in sensors]
        return np.clip(1.0 - np.array(gone) / whole, 0.0, 1.0)

    def expected(self, sensor: int, n_steps: int) -> Floats:
        """What the rest lets one expect of a sensor in each step, in ranges; NaN where no window covers."""
        filled = self.without(np.array([sensor]))[..., sensor]
        true = self.step >= 0
        total = np.bincount(self.step[true], weights=filled[true], minlength=n_steps)
        count = np.bincount(self.step[true], minlength=n_steps)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)
