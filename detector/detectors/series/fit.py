"""Fit a detector of series: regular steps, one model for all or one an entity, members, calibration, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from detector.arrays import Counts, Flags
from detector.detectors.series.assemble import assemble_model
from detector.detectors.series.encoders import EncoderChoice
from detector.detectors.series.groups import places_by_entity
from detector.detectors.series.loud_stretch import LoudStretches
from detector.detectors.series.members import TrainingSeries, fit_members, silent
from detector.detectors.series.model import SeriesModel
from detector.detectors.series.planted import COPIES, Planted, plant, plant_other_times
from detector.detectors.series.prepared import Prepared
from detector.detectors.series.recipe import NO_PERIOD, PHASE, SeriesRecipe
from detector.detectors.series.scorer import SequenceScorer, Short
from detector.errors import DataError, SchemaError
from detector.members.phase import FoundRhythm, find_rhythm
from detector.schema import Schema, refuse_no_columns
from detector.series.resample import RegularSeries, regularise
from detector.series.rhythm import period_of
from detector.series.sampling import Sampling
from detector.series.segmented_windows import fold_of_rows
from detector.series.segments import bounds
from detector.training.settings import OnStep

LEAST_ROWS = 8
SIXTH = 6
"""The part of a period for which another time of it is planted."""
WINDOW_SHARE = 8
MOST_STRIDE = 4
STRIDE_SHARE = 6

Input: TypeAlias = pd.DataFrame | NDArray[Any]


@dataclass(frozen=True)
class FittedSeries:
    """A model and what was noticed on the way.

    - ``model``: the model.
    - ``history``: the neural encoder's training curves; empty without one.
    - ``message``: what the caller should know, such as that an encoder was not kept; or empty.
    - ``loud``: the stretches of training that alone make the threshold high; ``None`` if none do.
    """

    model: SeriesModel
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""
    loud: LoudStretches | None = None

    def naming(self, own: TrainingSeries, entities: pd.Index | None) -> FittedSeries:
        """The same, with the loud stretches' times and entities; ``entities`` are the names by code."""
        return self if self.loud is None else replace(self, loud=self.loud.named(entities, own.times))


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
    group_by: str | None = None,
) -> tuple[SequenceScorer, dict[Any, FittedSeries]]:
    """Fit all models on cleaned rows: the detector, and by entity each model with what was noticed on the way.

    Rows whose label is 1 are not learnt from. An interval that ``sampling`` does not give is that of the rows. For the
    other parameters see ``SequenceScorer`` and ``fit_series``. Raises ``DataError`` if there are too few rows, a series
    is shorter than a window, or the sampling policy rejects something.
    """
    series, training = training_series(rows, schema, sampling=sampling, shared=shared, group_by=group_by)
    fitted = {
        entity: fit_series(own, recipe, encoder=encoder, random_state=random_state, on_step=on_step or silent).naming(
            own, series.entities
        )
        for entity, own in training.items()
    }
    scorer = SequenceScorer(
        name=name,
        schema=schema,
        sampling=sampling if series.every is None else replace(sampling, every=series.every),
        short=short,
        shared=shared,
        group_by=group_by,
        models={entity: found.model for entity, found in fitted.items()},
        metrics=_metrics(fitted),
    )
    return scorer, fitted


def training_series(
    rows: pd.DataFrame, schema: Schema, *, sampling: Sampling, shared: bool, group_by: str | None = None
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
        for entity, place in places_by_entity(series, shared=shared, group_by=group_by).items()
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
        times=None if series.times is None else series.times[place],
        seconds=1.0 if series.every is None else series.every.total_seconds(),
    )


def _metrics(fitted: Mapping[Any, FittedSeries]) -> dict[str, Any]:
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
    return metrics


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
    (32, 2, 392)
    """
    recipe = recipe.resolved(int(series.usable.sum()))
    length = window_length(series, recipe)
    seen = np.where(series.observed & series.usable[:, None], series.values, np.nan)
    scaling = recipe.scaling_of(seen)
    stride = window_stride(series, length)
    rhythm = rhythm_of(series, scaling.scale(series.values, series.segment)[:, scaling.moving], recipe)
    if rhythm is not None:
        recipe = replace(recipe, members=(*recipe.members, PHASE))
    prepared = Prepared(series.values, series.segment, scaling, recipe, length, stride)
    planted: list[Planted] = []
    if recipe.weights is None and len(recipe.members) > 1 and scaling.moving.any():
        rng = np.random.default_rng(random_state)
        planted = [plant(prepared.moving, rng) for _ in range(COPIES)]
        if rhythm is not None and series.times is not None:
            part, rows = rhythm.rhythm.of(series.times), int(rhythm.rhythm.seconds / SIXTH / series.seconds)
            planted.append(plant_other_times(prepared.moving, part, series.codes, rng, rows=max(LEAST_ROWS, rows)))
    copies = [prepared.planted(copy.values) for copy in planted]
    found = fit_members(
        series,
        prepared,
        copies,
        encoder=encoder,
        random_state=random_state,
        on_step=on_step,
        rhythm=None if rhythm is None else rhythm.rhythm,
    )
    if rhythm is not None:
        found.facts |= {"period": rhythm.rhythm.name, "period_foretells": float(rhythm.gains.max())}
    kinds = [copy.kind for copy in planted]
    model = assemble_model(series, [prepared, *copies], kinds, found)
    return FittedSeries(model, found.history, found.message, found.loud)


def rhythm_of(series: TrainingSeries, moving: NDArray[np.float32], recipe: SeriesRecipe) -> FoundRhythm | None:
    """The rhythm that scaled readings of the moving sensors follow, if rows that it was not learnt from agree."""
    asked = recipe.period is not None or len(recipe.members) > 1
    if series.times is None or not asked or recipe.period == NO_PERIOD or not moving.size or not series.usable.any():
        return None
    read = np.asarray(series.observed.any(axis=1))
    values = np.where(read[:, None], moving.astype(np.float64), np.nan)
    return find_rhythm(
        values,
        series.times,
        series.usable,
        fold_of_rows(len(series), recipe.folds),
        every=series.seconds,
        zone=recipe.timezone,
        wanted=None if recipe.period is None else period_of(recipe.period),
    )


def window_stride(series: TrainingSeries, length: int) -> int:
    """How many times as far a long window reaches: at most 4 times, and at most a sixth of the training rows.

    Where gaps leave no room for long windows over half of the rows, less.
    """
    sizes = np.array([end - first for first, end in bounds(series.segment)])
    for stride in range(MOST_STRIDE, 1, -1):
        room = np.maximum(sizes - stride * length + 1, 0).sum()
        if STRIDE_SHARE * stride * length <= len(series) and room >= len(series) / 2:
            return stride
    return 1


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


def read_input(detector: Any, X: Input, *, schema: Schema | None, reset: bool) -> tuple[pd.DataFrame, Schema]:
    """Return the frame as given if there is a schema; else one of numbers, checked as scikit-learn does.

    While fitting (``reset``) the detector gets its ``feature_names_in_`` and ``n_features_in_``. Raises ``SchemaError``
    if an array is given where there is a schema, or where there is none a column is no sensor, or there is no column.
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
    refuse_no_columns(X)
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
