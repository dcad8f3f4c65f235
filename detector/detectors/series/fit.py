"""Fit a detector of series: regular steps, one model for all or one an entity, members, calibration, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from detector.arrays import Counts, Flags, Floats
from detector.decide.calibrate import RISK_RESOLUTION, Calibrator
from detector.decide.fuse import Fusion
from detector.detectors.series.encoders import EncoderChoice
from detector.detectors.series.members import FittedMembers, TrainingSeries, fit_members, forest_baseline, silent
from detector.detectors.series.model import ModelledSeries, SeriesModel
from detector.detectors.series.recipe import Prepared, SeriesRecipe
from detector.detectors.series.scorer import SequenceScorer, Short, places_by_entity
from detector.errors import DataError, SchemaError
from detector.members.residuals import ResidualRule
from detector.schema import Schema
from detector.series.resample import RegularSeries, regularise
from detector.series.sampling import Sampling
from detector.series.scaling import SeriesScaling
from detector.series.segments import bounds, smooth
from detector.series.staleness import StalenessRule
from detector.training.settings import OnStep

LEAST_ROWS = 8
WINDOW_SHARE = 8

Input: TypeAlias = pd.DataFrame | NDArray[Any]


@dataclass(frozen=True)
class FittedSeries:
    """A model and what was noticed on the way.

    - ``model``: the model.
    - ``history``: the neural encoder's training curves; empty without one.
    - ``message``: what the caller should know, such as that an encoder was not kept; or empty.
    """

    model: SeriesModel
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""


def fit_scorer(
    rows: pd.DataFrame,
    schema: Schema,
    recipe: SeriesRecipe,
    *,
    name: str,
    sampling: Sampling,
    shared: bool,
    short: Short,
    encoder: EncoderChoice | None = None,
    random_state: int = 0,
    on_step: OnStep | None = None,
) -> tuple[SequenceScorer, dict[Any, FittedSeries]]:
    """Fit all models on cleaned rows: the detector, and by entity each model with what was noticed on the way.

    Rows whose label is 1 are not learnt from. An interval that ``sampling`` does not give is that of the rows. For the
    other parameters see ``SequenceScorer`` and ``fit_series``. Raises ``DataError`` if there are too few rows, a series
    is shorter than a window, or the sampling policy rejects something.
    """
    series, training = training_series(rows, schema, sampling=sampling, shared=shared)
    fitted = {
        entity: fit_series(own, recipe, encoder=encoder, random_state=random_state, on_step=on_step or silent)
        for entity, own in training.items()
    }
    scorer = SequenceScorer(
        name=name,
        schema=schema,
        sampling=sampling if series.every is None else replace(sampling, every=series.every),
        short=short,
        shared=shared,
        models={entity: found.model for entity, found in fitted.items()},
        metrics=_metrics(fitted, recipe),
    )
    return scorer, fitted


def training_series(
    rows: pd.DataFrame, schema: Schema, *, sampling: Sampling, shared: bool
) -> tuple[RegularSeries, dict[Any, TrainingSeries]]:
    """Cleaned rows on regular steps, and by entity what its model learns from.

    Raises ``DataError`` if there are too few rows, or the sampling policy rejects something.
    """
    if not len(rows):
        raise DataError("No row can be read: received n_samples = 0. Give rows with readings.")
    if schema.time is not None and len(rows) == 1 and sampling.every is None:
        raise DataError("One row is no series: received n_samples = 1. Give the rows before it as well.")
    series = regularise(rows, schema, sampling)
    usable = _usable(series, rows, schema)
    return series, {
        entity: _training(series, usable, place, name="" if shared else repr(entity))
        for entity, place in places_by_entity(series, shared=shared).items()
    }


def _usable(series: RegularSeries, rows: pd.DataFrame, schema: Schema) -> Flags:
    """The steps no row of which is known to be anomalous."""
    usable: Flags = np.ones(len(series), dtype=bool)
    if schema.label is not None and schema.label in rows:
        usable[series.step[(rows[schema.label].loc[series.rows] == 1).to_numpy()]] = False
    return usable


def _training(series: RegularSeries, usable: Flags, place: Counts, *, name: str) -> TrainingSeries:
    return TrainingSeries(
        values=series.values[place],
        observed=series.observed[place],
        segment=series.segment[place],
        codes=series.codes[place],
        usable=usable[place],
        name=name,
    )


def _metrics(fitted: Mapping[Any, FittedSeries], recipe: SeriesRecipe) -> dict[str, Any]:
    """The facts of the model; of several, sums of counts of rows, and means of other numbers."""
    facts = [found.model.facts for found in fitted.values()]
    metrics: dict[str, Any] = {"models": len(facts)}
    for name in dict.fromkeys(name for known in facts for name in known):
        values = [known[name] for known in facts if name in known]
        if isinstance(values[0], str):
            metrics[name] = ", ".join(sorted(set(values)))
        else:
            metrics[name] = sum(values) if name.startswith("rows_") else sum(values) / len(values)
            metrics[name] = type(values[0])(metrics[name])
    shares = dict(zip(recipe.members, recipe.shares.tolist(), strict=True))
    return metrics | {f"weight_{member}": share for member, share in shares.items()}


def fit_series(
    series: TrainingSeries,
    recipe: SeriesRecipe,
    *,
    encoder: EncoderChoice | None = None,
    random_state: int = 0,
    on_step: OnStep = silent,
) -> FittedSeries:
    """Fit one model on mostly normal steps.

    With an ``encoder``, that one rebuilds windows if it beats the principal components. ``on_step`` is called with what
    is fitted, how much is done, and how much is planned. Raises ``DataError`` if there are fewer than 8 rows, no
    segment as long as a window, no sensor that reads, or too few usable windows.

    >>> wave = np.sin(np.arange(400.0) / 5)[:, None] * [1.0, 3.0]
    >>> one, every = np.zeros(400, dtype=np.int64), np.full((400, 2), True)
    >>> model = fit_series(TrainingSeries(wave, every, one, one, every[:, 0]), SeriesRecipe()).model
    >>> model.length, model.facts["components"], model.facts["rows_calibration"]
    (32, 2, 400)
    """
    length = window_length(series, recipe)
    seen = np.where(series.observed & series.usable[:, None], series.values, np.nan)
    scaling = SeriesScaling.fit(
        seen, range_floor=recipe.range_floor, reach=recipe.reach, coarsest=recipe.deviation_floor
    )
    prepared = Prepared(series.values, series.segment, scaling, recipe, length)
    found = fit_members(series, prepared, encoder=encoder, random_state=random_state, on_step=on_step)
    return FittedSeries(_join(series, prepared, found), found.history, found.message)


def window_length(series: TrainingSeries, recipe: SeriesRecipe) -> int:
    """The window, shortened where there are few rows.

    Raises ``DataError`` if there are fewer than 8 rows, or no segment is as long as a window.
    """
    if len(series) < LEAST_ROWS:
        whose = f" of {series.name}" if series.name else ""
        raise DataError(
            f"A model expected at least {LEAST_ROWS} training rows in order of time; received n_samples = "
            f"{len(series)}{whose}. Give more rows{', or let entities share a model' if whose else ''}."
        )
    length = int(min(recipe.window, max(2, len(series) // WINDOW_SHARE)))
    longest = max(end - first for first, end in bounds(series.segment))
    if longest < length:
        raise DataError(
            f"A window has {length} rows, but the longest unbroken stretch of the training rows {longest}. Choose a "
            f"shorter window, or let longer gaps be bridged, such as with Sampling(limit=...)."
        )
    return length


def _join(series: TrainingSeries, prepared: Prepared, found: FittedMembers) -> SeriesModel:
    """The model, calibrated on the rows that were scored by members that did not learn from them."""
    recipe, names = prepared.recipe, prepared.recipe.members
    known = [~np.isnan(found.errors[name]).any(axis=1) for name in names]
    scored = found.scored & np.column_stack(known).all(axis=1)
    if not scored.any():
        raise DataError("No training row is left to calibrate on. Give more normal rows, or choose fewer folds.")
    parts, rules = _score(series, prepared, found, scored)
    scores = np.column_stack([parts[name].sum(axis=1) for name in names])
    fusion = Fusion.fit(scores, names)
    z = fusion.standardise(scores)
    risk = z @ recipe.shares
    alone = np.quantile(z, recipe.quantile, axis=0) + RISK_RESOLUTION
    n_sensors = series.values.shape[1]
    model = SeriesModel(
        recipe=recipe,
        length=prepared.length,
        scaling=prepared.scaling,
        pca=found.pca,
        network=found.network,
        forecast=found.forecast,
        forest=found.forest,
        rules=rules,
        fusion=fusion,
        baseline={name: np.zeros(n_sensors) if name == "forest" else parts[name].mean(axis=0) for name in names},
        staleness=StalenessRule.learn(series.observed, series.codes),
        calibrator=Calibrator(risk, resolution=RISK_RESOLUTION),
        threshold=float(np.quantile(risk, recipe.quantile)) + RISK_RESOLUTION,
        facts=_facts(series, prepared, found, scored)
        | {f"threshold_{name}": float(value) for name, value in zip(names, alone, strict=True)},
    )
    if model.forest is None:
        return model
    seen = ModelledSeries(model, series.values, observed=series.observed, segment=series.segment, codes=series.codes)
    return replace(model, baseline=model.baseline | {"forest": forest_baseline(seen, scored)})


def _score(
    series: TrainingSeries, prepared: Prepared, found: FittedMembers, scored: Flags
) -> tuple[dict[str, Floats], dict[str, ResidualRule]]:
    """Each member's score of the rows scored, by sensor, and the rules by which residuals became scores."""
    recipe, scaling = prepared.recipe, prepared.scaling
    # Rows next to each other are smoothed together only if all of them were scored.
    together = 2 * series.segment + scored
    seen = series.observed & scored[:, None]
    parts: dict[str, Floats] = {}
    rules: dict[str, ResidualRule] = {}
    for name in recipe.members:
        errors = np.where(scored[:, None], found.errors[name], 0.0)
        if name != "forest":
            errors = prepared.widen(errors, signed=recipe.signed)
            rules[name] = ResidualRule.fit(
                errors,
                seen,
                kind=recipe.residuals,
                known=scaling.known,
                floor=recipe.deviation_floor,
                cap=recipe.z_cap,
            )
            errors = rules[name].parts(errors, seen)
        parts[name] = smooth(errors, together, recipe.smoothing, trailing=recipe.trailing)[scored]
    return parts, rules


def _facts(series: TrainingSeries, prepared: Prepared, found: FittedMembers, scored: Flags) -> dict[str, Any]:
    facts = {
        "rows_fitted": int(series.usable.sum()),
        "rows_calibration": int(scored.sum()),
        "window": prepared.length,
        **found.facts,
    }
    if "reconstruction_error_train" in facts:
        facts["generalisation_gap"] = facts["reconstruction_error_holdout"] - facts["reconstruction_error_train"]
    return facts


def read_input(detector: Any, X: Input, *, schema: Schema | None, reset: bool) -> tuple[pd.DataFrame, Schema]:
    """Return the frame as given if there is a schema; else one of numbers, checked as scikit-learn does.

    While fitting (``reset``) the detector gets its ``feature_names_in_`` and ``n_features_in_``. Raises ``SchemaError``
    if an array is given where there is a schema, or a column is no sensor where there is none.
    """
    if schema is not None:
        if not isinstance(X, pd.DataFrame):
            raise SchemaError(
                f"A detector with a schema expects a pandas DataFrame with named columns, received "
                f"{type(X).__name__}. Convert it, such as with pd.DataFrame(X, columns=[...])."
            )
        if reset:
            detector.feature_names_in_ = np.array([str(name) for name in X.columns], dtype=object)
            detector.n_features_in_ = X.shape[1]
        return X, schema
    if isinstance(X, pd.DataFrame):
        for name, dtype in X.dtypes.items():
            if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_object_dtype(dtype)):
                raise SchemaError(
                    f"Column {name!r} is of type {dtype}, which is no sensor. Name the time, the entity and the "
                    f"sensors with a schema."
                )
    values = validate_data(detector, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
    names = getattr(detector, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
    plain = Schema(numeric=tuple(str(name) for name in names))
    return pd.DataFrame(values, columns=list(plain.numeric)), plain
