"""From rows to one scorer: prepare, fit the members, weigh and join them, calibrate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.decide.fuse import ORDER_HINGE, ORDER_WEIGHT, Fusion
from detector.detectors.table.calibration import calibrate
from detector.detectors.table.members import FittedMembers, fit_members, fit_sequence
from detector.detectors.table.neighbours import scores_of
from detector.detectors.table.prepared import Prepared
from detector.detectors.table.recipe import AUTOENCODER, FOREST, NEIGHBOURS, SEQUENCE, Recipe
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.weighing import Weights, learn_weights
from detector.encoding.constants import alone
from detector.encoding.encoded import UNSEEN, Encoded
from detector.members.novelty import SCORES
from detector.members.rare_values import RARE_VALUES
from detector.onnx.graph import joined
from detector.schema import Schema

MOST_BASELINE_ROWS = 2_000
MOST_WEIGHING_ROWS = 1_000
MOST_LIFTED_ROWS = 50
HARDLY_LEARNT = 1e-3
"""A network that has learnt from so many of the rows that left, as a share of all it learnt from, need not be trained
again. More, and anomalies stay learnt; 0, and one such row in a million doubles the time of training."""


@dataclass(frozen=True)
class Assembled:
    """A scorer, and what it was made of.

    - ``history``: the autoencoder's training curves by name; none without one.
    """

    scorer: TabularScorer
    history: dict[str, list[float]]
    prepared: Prepared
    fitted: FittedMembers
    recipe: Recipe

    def without(self, gone: Flags) -> Assembled:
        """The same of the other rows. Networks that learnt from hardly any of those that are gone stay as they are."""
        schema, learnt = self.scorer.schema, self.fitted.bulk.learnt.copy()
        learnt[self.fitted.trained(self.prepared)] = True
        rest = self.prepared.without(gone, schema, self.recipe)
        is_learnt = learnt[gone].sum() > HARDLY_LEARNT * learnt.sum()
        if self.fitted.network is None or is_learnt or not len(rest.kept_back):
            return assemble(rest.rows, schema, self.recipe)
        return _assembled(rest, schema, self.recipe, replace(self.fitted, bulk=self.fitted.bulk.without(gone)))


def assemble(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> Assembled:
    """Fit every member on cleaned rows, and calibrate on the same rows by members that have not seen them.

    Distances leave each row out in turn, each row is scored by the trees that were not grown on it, and networks are
    held to the rows kept back from them. Raises ``DataError`` if no column varies, or training diverges;
    ``ParityError`` if the ONNX graph answers differently from Keras or scikit-learn; ``SchemaError`` if a column of the
    events is not numeric, or missing.
    """
    return _assembled(Prepared.of(rows, schema, recipe), schema, recipe)


def _assembled(prepared: Prepared, schema: Schema, recipe: Recipe, networks: FittedMembers | None = None) -> Assembled:
    """The same of prepared rows; ``networks`` as ``fit_members`` takes them."""
    rows, given = prepared.rows, prepared
    fitted = fit_members(prepared, recipe, networks)
    if SEQUENCE in recipe.members and recipe.steps is not None:
        prepared = fit_sequence(prepared, fitted, recipe.steps, recipe)
    recipe.report("weights")
    names = _score_names(recipe, categories=bool(prepared.columns.levels))
    at = prepared.calibrating
    scores = np.column_stack([fitted.scores[name] for name in names])
    fusion = _fusion(scores, names, prepared, fitted, recipe)
    recipe.report("calibration")
    risk = fusion.risk(fusion.standardise(scores))
    calibrator, recalled = calibrate(
        rows.iloc[at],
        prepared.encoded.take(at),
        risk,
        rarity=fitted.bulk.rarity[at],
        schema=schema,
        tail=recipe.tail,
    )
    support = {} if calibrator.support is None else calibrator.support.facts()
    network = fitted.network
    recipe.report("export")
    inside = {name: part for name, part in fitted.parts.items() if name not in (FOREST, "known")}
    scorer = TabularScorer(
        name=recipe.name,
        schema=schema,
        columns=prepared.columns,
        graph=joined(fitted.parts, names),
        inside=joined(inside | ({"encoder": network.encoder} if network is not None else {})),
        decoder=joined({"decoder": network.decoder}) if network is not None else None,
        fusion=fusion,
        calibrator=calibrator,
        trees=fitted.trees if FOREST in recipe.members else None,
        known=fitted.known,
        window=fitted.window,
        weights=network.weights if network is not None else {},
        metrics=fitted.metrics | {"rows_calibration": len(at)} | support,
        learnt=recalled,
    )
    scorer = _with_lift(scorer, prepared.encoded.take(prepared.kept_back[:MOST_LIFTED_ROWS]))
    scorer, lifted = _with_weights(scorer, prepared.encoded.take(at))
    lifted = lifted + alone(rows, schema)[at]
    scorer = replace(scorer, calibrator=calibrator.with_lifted(risk, lifted, least=scorer.columns.constants.lift))
    sample = rows.iloc[prepared.kept_back[:MOST_BASELINE_ROWS]]
    scorer = replace(scorer, usual={name: found.mean(axis=0) for name, found in scorer.attributions(sample).items()})
    if network is not None:
        scorer.metrics.update(_reconstruction(scorer, rows.iloc[prepared.learnt], rows.iloc[prepared.kept_back]))
    return Assembled(scorer, fitted.history, given, fitted, recipe)


def _with_lift(scorer: TabularScorer, rows: Encoded) -> TabularScorer:
    """The same scorer that knows how much a category never seen adds to a risk, where a column never varied."""
    constants, n_codes = scorer.columns.constants, rows.codes.shape[1]
    if not constants.columns or not n_codes or not len(rows) or scorer.window is not None:
        return scorer
    usual = scorer.fusion.risk(scorer.standardised(rows))
    unseen = [rows.codes.copy() for _ in range(n_codes)]
    for code, codes in enumerate(unseen):
        codes[:, code] = UNSEEN
    odd = Encoded(np.tile(rows.numeric, (n_codes, 1)), np.vstack(unseen))
    lift = float((scorer.fusion.risk(scorer.standardised(odd)) - np.tile(usual, n_codes)).max())
    return replace(scorer, columns=replace(scorer.columns, constants=replace(constants, lift=max(lift, 0.0))))


def _with_weights(scorer: TabularScorer, rows: Encoded) -> tuple[TabularScorer, Floats]:
    """The same scorer that knows how far breaking a relation lifts a risk, and how far each calibration row's is.

    What ``n`` rows broke lifts to where as many are riskier, and what none broke beyond all. Left out, a calibration
    row would find one row fewer that broke the same.
    """
    relations, calibrator = scorer.columns.relations, scorer.calibrator
    if rows.broken is None:
        return scorer, np.zeros(len(rows))
    step = max(calibrator.largest_step, scorer.columns.constants.lift)
    times = rows.broken.sum(axis=0)

    def weights(times: NDArray[np.int64]) -> list[float]:
        reached = np.quantile(calibrator.risk, 1 - times / len(rows)) - calibrator.median
        return [float(weight) for weight in np.where(times > 0, reached / step, 1.0)]

    left_out = relations.weighted(weights(np.maximum(times - 1, 0))).weight(rows.broken)
    columns = replace(scorer.columns, relations=relations.weighted(weights(times)))
    return replace(scorer, columns=columns), left_out


def _score_names(recipe: Recipe, *, categories: bool) -> tuple[str, ...]:
    """The names of the scores, in the order of their columns."""
    known = (*SCORES, RARE_VALUES) if categories else SCORES
    made = {AUTOENCODER: (AUTOENCODER,), FOREST: (FOREST,), NEIGHBOURS: known, SEQUENCE: (SEQUENCE,)}
    return tuple(score for member, found in made.items() if member in recipe.members for score in found)


def _fusion(
    scores: Floats, names: tuple[str, ...], prepared: Prepared, fitted: FittedMembers, recipe: Recipe
) -> Fusion:
    """Scores of rows joined by what each member tells; the record of it goes to the metrics."""
    fusion = Fusion.fit(scores, names)
    of_row = tuple(name for name in names if name != SEQUENCE)
    if not of_row:
        return fusion
    weighed = _weigh(of_row, prepared, fitted, recipe)
    fitted.metrics |= weighed.facts()
    fusion = fusion.weighted(weighed.weights)
    return fusion.weighted({SEQUENCE: ORDER_WEIGHT}, {SEQUENCE: ORDER_HINGE}) if SEQUENCE in names else fusion


def _weigh(names: tuple[str, ...], prepared: Prepared, fitted: FittedMembers, recipe: Recipe) -> Weights:
    """Weigh the members by rows kept back from all of them, from the known rows too."""

    def score(given: Encoded) -> Floats:
        seen = prepared.graph.run(given.inputs())
        made = {FOREST: np.log2(-fitted.forest.score_samples(seen["table"]))}
        if fitted.surprises is not None:
            made[AUTOENCODER] = fitted.surprises(given)
        if fitted.elsewhere is not None:
            made |= scores_of(fitted.elsewhere, seen)
        return np.column_stack([made[name] for name in names])

    sample = prepared.kept_back[fitted.trusted[prepared.kept_back]][:MOST_WEIGHING_ROWS]
    rows = Encoded(prepared.encoded.numeric[sample], prepared.encoded.codes[sample])
    return learn_weights(rows, score, names, random_state=recipe.random_state)


def _reconstruction(scorer: TabularScorer, learnt: pd.DataFrame, kept_back: pd.DataFrame) -> dict[str, float]:
    """Mean surprise a feature, in nats, on rows trained on and on rows kept back."""
    sample = learnt.iloc[:: max(1, len(learnt) // 10_000)]
    train = float(scorer.feature_errors(sample).to_numpy().mean())
    held_out = float(scorer.feature_errors(kept_back).to_numpy().mean())
    return {
        "reconstruction_error_train": train,
        "reconstruction_error_holdout": held_out,
        "generalisation_gap": held_out - train,
    }
