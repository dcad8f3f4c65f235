"""From cleaned rows to a scorer: regular series, one model for all or one an entity, and the facts of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from detector.arrays import Counts, Flags
from detector.detectors.series.encoders import EncoderChoice
from detector.detectors.series.fit import FittedSeries, fit_series
from detector.detectors.series.members import OnStep, TrainingSeries, silent
from detector.detectors.series.recipe import SeriesRecipe
from detector.detectors.series.scorer import SequenceScorer, Short, places_by_entity
from detector.errors import DataError
from detector.schema import Schema
from detector.series.resample import RegularSeries, regularise
from detector.series.sampling import Sampling


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
    tell: OnStep | None = None,
) -> tuple[SequenceScorer, dict[Any, FittedSeries]]:
    """Fit all models.

    Parameters
    ----------
    rows : DataFrame
        As ``clean`` returns them.
    schema : Schema
        Their meaning; rows whose label is 1 are not learnt from.
    recipe : SeriesRecipe
        Settings of each model.
    name, sampling, shared, short
        See ``SequenceScorer``. An interval that is not given is that of the rows.
    encoder, random_state, tell
        See ``fit_series``.

    Returns
    -------
    SequenceScorer
        The fitted detector.
    dict of entity to FittedSeries
        Each model and what was noticed on the way.

    Raises
    ------
    DataError
        If there are too few rows, a series is shorter than a window, or the sampling policy rejects something.
    """
    if not len(rows):
        raise DataError("No row can be read: received n_samples = 0. Give rows with readings.")
    if schema.time is not None and len(rows) == 1 and sampling.every is None:
        raise DataError("One row is no series: received n_samples = 1. Give the rows before it as well.")
    series = regularise(rows, schema, sampling)
    usable = _usable(series, rows, schema)
    fitted = {
        entity: fit_series(
            _training(series, usable, place, name="" if shared else repr(entity)),
            recipe,
            encoder=encoder,
            random_state=random_state,
            tell=tell or silent,
        )
        for entity, place in places_by_entity(series, shared=shared).items()
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
        stretch=series.segment[place],
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
