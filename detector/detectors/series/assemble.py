"""A model assembled of fitted members: what residuals are usual, what each member counts, calibration, threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detector.arrays import Counts, Flags, Floats
from detector.decide.calibrate import RISK_RESOLUTION, Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.series.loud_stretch import find_loud_stretches
from detector.detectors.series.members import FittedMembers, TrainingSeries, forest_baseline
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.detectors.series.planted import learn_shares, separation
from detector.detectors.series.prepared import Prepared
from detector.detectors.series.recipe import PHASE
from detector.errors import DataError
from detector.members.residuals import ResidualRule
from detector.series.flatline import FlatlineRule
from detector.series.segments import smooth
from detector.series.staleness import StalenessRule

ENERGIES = ("spectrum", PHASE)
"""Members whose errors are in usual ones already, not in ranges."""
LEAST_OFF = 0.01
"""The share of rows below which those that are not rebuilt to the last digit count as none."""
CEILING = 5.0
"""So many times as far from the mean as the 0.99 quantile of training rows, a step's score counts for its neighbours.
Smaller, and less of a fault's own rows is told; larger, and the hours around a large one are told with it."""
LEAST_DEVIATION = 0.1**0.5
"""The root of the least spread of the spectrum's errors."""


def assemble_model(
    series: TrainingSeries, rows: Sequence[Prepared], kinds: Sequence[Counts], found: FittedMembers
) -> SeriesModel:
    """The model, calibrated on the rows that were scored by members that did not learn from them.

    ``rows`` are those, and copies with planted faults of those ``kinds``, from which comes what each member counts.
    ``found`` gets the stretches that the threshold rests on.
    """
    prepared, recipe = rows[0], rows[0].recipe
    names = recipe.members
    known = [~np.isnan(found.errors[name][0]).any(axis=1) for name in names]
    scored = series.usable & np.column_stack(known).all(axis=1)
    if not scored.any():
        raise DataError("No training row is left to calibrate on. Give more normal rows, or choose fewer folds.")
    rules = _rules(series, prepared, found, scored)
    scores = [_score(series, own, found, scored, rules, place) for place, own in enumerate(rows)]
    parts = scores[0]
    summed = [np.column_stack([one[name].sum(axis=1) for name in names]) for one in scores]
    fusion = Fusion.fit(summed[0], names)
    z, *disturbed = [fusion.standardise(one) for one in summed]
    shares, facts = recipe.shares, {}
    if kinds:
        faults, kind = np.vstack(disturbed), np.concatenate([one[scored] for one in kinds])
        prior = recipe.prior(int(series.usable.sum()) / prepared.length)
        clear = _within_resolution(prepared, found, scored)
        shares = np.array(names) == "reconstruction" if clear else learn_shares(faults, kind, prior)
        shares = shares.astype(np.float64)
        facts = {f"separation_{name}": separation(faults[:, place], kind) for place, name in enumerate(names)}
    risk = z @ shares
    steps = np.flatnonzero(scored)
    found.loud = find_loud_stretches(risk, steps, series.codes[steps], recipe, length=prepared.length)
    n_sensors = series.values.shape[1]
    model = SeriesModel(
        recipe=recipe,
        length=prepared.length,
        stride=prepared.stride,
        scaling=prepared.scaling,
        pca=found.pca,
        network=found.network,
        long=found.long,
        spectra=found.spectra,
        forecast=found.forecast,
        forest=found.forest,
        phase=found.phase,
        rules=rules,
        fusion=fusion,
        shares=shares,
        baseline={name: np.zeros(n_sensors) if name == "forest" else parts[name].mean(axis=0) for name in names},
        staleness=StalenessRule.learn(series.observed, series.codes),
        flatline=FlatlineRule.learn(series.values, series.observed & series.usable[:, None], series.segment),
        calibrator=Calibrator(recipe.cautious(risk), resolution=RISK_RESOLUTION),
        threshold=recipe.threshold(risk) + RISK_RESOLUTION,
        facts=_facts(series, prepared, found, scored)
        | facts
        | {f"weight_{name}": float(share) for name, share in zip(names, shares, strict=True)}
        | {f"threshold_{name}": recipe.threshold(z[:, place]) + RISK_RESOLUTION for place, name in enumerate(names)},
        ceilings={name: _ceiling(own) for name, own in parts.items()},
    )
    if model.forest is None:
        return model
    seen = ModelledSeries(
        model, series.values, observed=series.observed, segment=series.segment, codes=series.codes, times=series.times
    )
    return replace(model, baseline=model.baseline | {"forest": forest_baseline(seen, scored)})


def _ceiling(parts: Floats) -> Floats:
    """What a step's score counts at most for its neighbours, of what training rows have."""
    mean = parts.mean(axis=0)
    return np.asarray(mean + CEILING * (np.quantile(parts, 0.99, axis=0) - mean))


def _within_resolution(prepared: Prepared, found: FittedMembers, scored: Flags) -> bool:
    """Whether windows are rebuilt to the last digit: then what other members see beside it is rounding.

    Not where components rebuild noise as well as anything else, as of few rows of sensors that are copies.
    """
    if "reconstruction" not in found.errors or found.pca is None or found.pca.rebuilds_anything(prepared.length):
        return False
    errors = np.where(scored[:, None], found.errors["reconstruction"][0], 0.0)
    off = prepared.widen(errors, signed=prepared.recipe.signed) != 0
    return bool(off.any(axis=1)[scored].mean() < LEAST_OFF)


def _rules(series: TrainingSeries, prepared: Prepared, found: FittedMembers, scored: Flags) -> dict[str, ResidualRule]:
    """The rules by which residuals become scores."""
    recipe, seen = prepared.recipe, series.observed & scored[:, None]
    rules: dict[str, ResidualRule] = {}
    for name in recipe.members:
        if name != "forest":
            errors = np.where(scored[:, None], found.errors[name][0], 0.0)
            energies = name in ENERGIES
            rules[name] = ResidualRule.fit(
                prepared.widen_energies(errors) if energies else prepared.widen(errors, signed=recipe.signed),
                seen,
                kind="z" if energies else recipe.residuals,
                known=prepared.scaling.known,
                floor=LEAST_DEVIATION if energies else recipe.deviation_floor,
                cap=recipe.z_cap,
            )
    return rules


def _score(
    series: TrainingSeries,
    prepared: Prepared,
    found: FittedMembers,
    scored: Flags,
    rules: Mapping[str, ResidualRule],
    place: int,
) -> dict[str, Floats]:
    """Each member's score of the rows scored, by sensor; of the rows, or of a copy of them."""
    recipe = prepared.recipe
    assert recipe.smoothing is not None
    # Rows next to each other are smoothed together only if all of them were scored.
    together = 2 * series.segment + scored
    seen = series.observed & scored[:, None]
    parts: dict[str, Floats] = {}
    for name in recipe.members:
        errors = np.where(scored[:, None], np.nan_to_num(found.errors[name][place]), 0.0)
        if name in ENERGIES:
            errors = rules[name].parts(prepared.widen_energies(errors), seen)
        elif name != "forest":
            errors = rules[name].parts(prepared.widen(errors, signed=recipe.signed), seen)
        parts[name] = smooth(errors, together, recipe.smoothing, trailing=recipe.trailing)[scored]
    return parts


def _facts(series: TrainingSeries, prepared: Prepared, found: FittedMembers, scored: Flags) -> dict[str, Any]:
    facts = {
        "rows_fitted": int(series.usable.sum()),
        "rows_calibration": int(scored.sum()),
        "window": prepared.length,
        "long_window": prepared.length * prepared.stride,
        "smoothing": float(prepared.recipe.smoothing or 0.0),
        **found.facts,
    }
    if "reconstruction_error_train" in facts:
        facts["generalisation_gap"] = facts["reconstruction_error_holdout"] - facts["reconstruction_error_train"]
    return facts
