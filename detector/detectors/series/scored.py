"""Whole series as their models see them: risk, p-value, decision and reasons of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Counts, Flags, Floats
from detector.decide.days import Used
from detector.decide.policy import Policy
from detector.decide.severity import severity
from detector.detectors.series.blame import first_of
from detector.detectors.series.event_reasons import beyond_limit
from detector.detectors.series.gating import ECHO, MAINTENANCE, NAMES, OPEN, GatedDecision, Gating
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.detectors.series.reasons import SensorReadings
from detector.detectors.series.recipe import PHASE
from detector.errors import DataError
from detector.explain.reason import Reason, no_reasons, reading
from detector.series.gates import Gates
from detector.series.resample import RegularSeries

HIGH = 1e-4
"""The p-value from which on a step is of high severity."""


@dataclass(frozen=True)
class Part:
    """The steps that one model scores, and their places among all."""

    place: Counts
    seen: ModelledSeries

    @property
    def model(self) -> SeriesModel:
        """Their model."""
        return self.seen.model


class ScoredSeries:
    """Series, each step scored by its model.

    Parameters
    ----------
    series : RegularSeries
        All of them.
    parts : sequence of (SeriesModel, array)
        Each model, and the steps it scores.
    gates : Gates, optional
        Which deviations of a sensor are not flagged, and when nothing is.
    """

    def __init__(
        self, series: RegularSeries, parts: Sequence[tuple[SeriesModel, Counts]], *, gates: Gates | None = None
    ) -> None:
        self.series, self.gates = series, gates or Gates()
        may_stick = np.array([not self.gates.of(name).stuck for name in series.sensors], dtype=bool)
        self.members = tuple(name for name in parts[0][0].members if name != PHASE)  # not each model has one
        self.parts = [
            Part(
                place,
                ModelledSeries(
                    model,
                    series.values[place],
                    observed=series.observed[place],
                    segment=series.segment[place],
                    codes=series.codes[place],
                    times=None if series.times is None else series.times[place],
                    may_stick=may_stick,
                    excused=None if series.excused is None else series.excused[place],
                ),
            )
            for model, place in parts
        ]

    @cached_property
    def risk(self) -> Floats:
        """Of each step."""
        return self._gather(np.empty(len(self.series)), lambda part: part.seen.risk)

    @cached_property
    def scores(self) -> Floats:
        """Each member's z-score of each step."""
        return self._gather(
            np.empty((len(self.series), len(self.members))), lambda part: part.seen.scores[:, : len(self.members)]
        )

    @cached_property
    def p_value(self) -> Floats:
        """Of each step, by its own model's calibration."""
        empty = np.empty(len(self.series))
        return self._gather(empty, lambda part: part.model.calibrator.p_value(part.seen.risk))

    @cached_property
    def threshold(self) -> Floats:
        """What each step's risk is compared with, if no policy is given."""
        return self._gather(np.empty(len(self.series)), lambda part: part.model.threshold)

    @cached_property
    def expected(self) -> Floats:
        """What each sensor should have read, in its own unit."""
        return self._gather(np.empty(self.series.values.shape), lambda part: part.seen.expected)

    def contributions(self, wanted: Flags | None = None) -> Floats:
        """What each sensor adds to each step's risk, which is their sum; only of the steps wanted, if given."""
        empty = np.empty(self.series.values.shape)
        return self._gather(empty, lambda part: part.seen.contributions(None if wanted is None else wanted[part.place]))

    def row_scores(self, named: pd.DataFrame, step: Counts, flagged: Flags, *, explains: bool = True) -> pd.DataFrame:
        """Scores of rows by their steps.

        Parameters
        ----------
        named : DataFrame of shape (n_rows, ...)
            What names the rows; the scores follow these columns.
        step : array of shape (n_rows,)
            The step of each row.
        flagged : boolean array of shape (n_rows,)
            The decision on each row.
        explains : bool
            Whether flagged rows get reasons.
        """
        steps = np.zeros(len(self.series), dtype=bool)
        steps[step[flagged]] = True
        severe = self.severity(steps)
        reasons = no_reasons(len(step))
        found = self.reasons(steps) if explains else {}
        for place in np.flatnonzero(flagged & explains).tolist():
            reasons[place] = found[int(step[place])]
        scores = named.copy()
        scores["risk"], scores["p_value"], scores["flagged"] = self.risk[step], self.p_value[step], flagged
        scores["severity"] = np.where(flagged, severe[step], "")
        scores["reasons"] = reasons
        members = pd.DataFrame(self.scores[step], index=named.index, columns=list(self.members))
        return pd.concat([scores, members], axis=1)

    def flagged(self, policy: Policy | None) -> Flags:
        """Which steps are flagged, see ``decide``."""
        return self.decide(policy).flagged

    def decide(
        self,
        policy: Policy | None,
        *,
        step: Counts | None = None,
        day: NDArray[np.datetime64] | None = None,
        used: Used | None = None,
    ) -> GatedDecision:
        """Which of some steps are flagged, or of rows by their steps; by default of all steps.

        The policy decides; without one, whether the risk is above the threshold. What it flags is decided on again by
        its own risk, lest the hours around a large fault be flagged with it, and by what of that is left without the
        sensors that gates hold back. A reading outside its limits is flagged
        whatever the policy says; in maintenance nothing is. ``day`` and ``used`` as for ``Policy.decide``.
        """
        step = np.arange(len(self.series)) if step is None else step
        day = self.series.times if day is None and len(step) == len(self.series) else day
        p_value, risk = self.p_value[step], self.risk[step]

        def by_policy(p_value: Floats, risk: Floats) -> Flags:
            if policy is None:
                return np.asarray(risk > self.threshold[step])
            return Policy.checked(policy).decide(p_value, risk, day=day, used=used)

        raw = by_policy(p_value, risk)
        quiet, why = self.quiet[step], np.full(len(step), "", dtype=object)
        why[quiet] = MAINTENANCE
        p_value, risk = np.where(quiet, 1.0, p_value), np.where(quiet, -np.inf, risk)
        chosen, gated = by_policy(p_value, risk) if quiet.any() else raw, np.zeros(len(step), dtype=bool)
        while (fresh := np.flatnonzero(chosen & ~gated)).size:
            gated[fresh] = True
            p_value[fresh], risk[fresh], why[fresh] = self._let_through(step[fresh])
            chosen = by_policy(p_value, risk)
        outside = self.outside[step].any(axis=1)
        flagged = (chosen | outside) & ~quiet
        held = (raw & ~flagged) | (outside & quiet)
        return GatedDecision(flagged, held, held & (why == ECHO), Counter(str(each) for each in why[held] if each))

    @cached_property
    def gatings(self) -> list[Gating]:
        """Of each part, if anything of a sensor may be held back."""
        gates = [self.gates.of(name) for name in self.series.sensors]
        found = [Gating(part.seen, gates, self.seconds) for part in self.parts]
        return found if any(gating.active for gating in found) else []

    @property
    def seconds(self) -> float:
        """Between two steps; 1 where there are no times."""
        return 1.0 if self.series.every is None else self.series.every.total_seconds()

    @cached_property
    def quiet(self) -> Flags:
        """The steps in maintenance."""
        return self.gates.is_quiet(self.series.times, self.series.entity)

    @cached_property
    def outside(self) -> Flags:
        """Where a sensor reads beyond its limits, (n_steps, n_sensors)."""
        found = np.zeros(self.series.values.shape, dtype=bool)
        for sensor, name in enumerate(self.series.sensors):
            gate = self.gates.of(name)
            if gate.has_range:
                values, seen = self.series.values[:, sensor], self.series.observed[:, sensor]
                found[:, sensor] = seen & ((values < gate.low) | (values > gate.high))
        return found

    def _let_through(self, steps: Counts) -> tuple[Floats, Floats, NDArray[np.object_]]:
        """What is left of p-value and risk of these steps, and what holds back of each, in words."""
        p_value, risk = self.p_value[steps], self.risk[steps]
        why = np.full(len(steps), "", dtype=object)
        wanted = np.zeros(len(self.series), dtype=bool)
        wanted[steps] = True
        parts = self.contributions(wanted)[steps] if self.gatings else np.empty((len(steps), 0))
        for number, part in enumerate(self.parts):
            own = np.flatnonzero(np.isin(steps, part.place))
            if not len(own):
                continue
            inside = np.searchsorted(part.place, steps[own])
            left = np.minimum(risk[own], part.seen.own_risk(inside))
            why[own[left < risk[own]]] = ECHO
            if self.gatings:
                gating = self.gatings[number]
                shut = gating.shut(inside)
                left = gating.left(inside, shut, parts[own], left)
                most = np.argmax(np.where(shut > OPEN, parts[own], -np.inf), axis=1)
                for line, sensor, code in zip(own, most, shut[np.arange(len(own)), most], strict=True):
                    why[line] = f"{self.series.sensors[sensor]}: {NAMES[code]}" if code else why[line]
            p_value[own], risk[own] = part.model.calibrator.p_value(left), left
        return p_value, risk, why

    def severity(self, flagged: Flags) -> Any:
        """How severe each flagged step is, by p-values that go on beyond the calibration rows where they can.

        A reading outside its limits is high at least.
        """
        p_value = self.p_value.copy()
        for part in self.parts:
            own = part.place[flagged[part.place]]
            if part.model.calibrator.pareto is not None and len(own):
                p_value[own] = part.model.calibrator.p_value(self.risk[own], tail="pareto")
        p_value[self.outside.any(axis=1)] = np.minimum(p_value[self.outside.any(axis=1)], HIGH)
        return severity(p_value, flagged)

    @cached_property
    def readings(self) -> SensorReadings:
        """What the sensors read beside what was learnt of them."""
        overdue, stuck = (np.zeros(self.series.values.shape, dtype=bool) for _ in range(2))
        for part in self.parts:
            overdue[part.place], stuck[part.place] = part.seen.overdue, part.seen.stuck > 0
        models = [(part.model, part.place) for part in self.parts]
        return SensorReadings.of(self.series, self.expected, overdue, stuck, models)

    def reasons(self, wanted: Flags) -> dict[int, list[Reason]]:
        """Which sensors each of those steps is to blame on, the most important first."""
        steps = np.flatnonzero(wanted)
        if not len(steps):
            return {}
        parts = self.contributions(wanted)
        found = {
            step: self.readings.at_step(step, first_of(parts[step], self.outside[step])) for step in steps.tolist()
        }
        return {step: self._with_limits(reasons, step) for step, reasons in found.items()}

    def _with_limits(self, reasons: list[Reason], step: int) -> list[Reason]:
        """Reasons of a step which say what limit a reading is beyond."""
        if not self.outside[step].any():
            return reasons
        said = []
        for reason in reasons:
            sensor = self.series.sensors.index(reason.feature)
            value = float(self.series.values[step, sensor])
            limit = beyond_limit(self.gates.of(reason.feature), value) if self.outside[step, sensor] else ""
            said.append(replace(reason, observed=f"{reading(value)}, {limit}", is_phrase=True) if limit else reason)
        return said

    @cached_property
    def when(self) -> Any:
        """The time of each step; without times, the position of its row."""
        if self.series.times is not None:
            return self.series.times
        rows = np.empty(len(self.series), dtype=np.int64)
        rows[self.series.step] = self.series.rows.to_numpy()  # without times each row is a step of its own
        return rows

    def _gather(self, into: Floats, of_part: Callable[[Part], Any]) -> Floats:
        for part in self.parts:
            into[part.place] = of_part(part)
        return into


def refuse_short(series: RegularSeries, entity: Any, rows: int, length: int) -> None:
    """Raise ``DataError`` if a series has fewer rows than a window."""
    if rows < length:
        whose = f"The series of {entity!r}" if series.entities is not None else "The series"
        raise DataError(
            f"{whose} has {rows} rows, a window {length}; received n_samples = {rows}. Give more rows, choose a "
            f"shorter window, or short='pad'."
        )
