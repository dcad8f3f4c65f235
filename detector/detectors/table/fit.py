"""Fit the members on prepared rows and join them into one scorer: the way from rows to risk, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Floats, Places
from detector.decide.fuse import ORDER_HINGE, ORDER_WEIGHT, Fusion
from detector.detectors.table.bulk import Bulk
from detector.detectors.table.calibration import calibrate
from detector.detectors.table.recipe import AUTOENCODER, FOREST, MEMBERS, NEIGHBOURS, SEQUENCE, Recipe
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.weighing import Weights, learn_weights
from detector.encoders.events import EventAutoencoder
from detector.encoders.table import FittedNetwork
from detector.encoding.onnx import to_onnx
from detector.encoding.table import Encoded, TableEncoder
from detector.errors import SchemaError, SettingError, nearest
from detector.members.event_sequence import EventWindow, Steps
from detector.members.isolation_forest import Trees
from detector.members.known_rows import SCORES, KnownRows
from detector.onnx.graph import Graph
from detector.onnx.parity import largest_difference
from detector.schema import Schema

if TYPE_CHECKING:
    import onnx

__all__ = ["MEMBERS", "Recipe", "assemble"]

MOST_CALIBRATION_ROWS = 50_000
MOST_BASELINE_ROWS = 2_000
MOST_PROBE_ROWS = 2_000
MOST_WEIGHING_ROWS = 1_000
FLOOR = 1e-3
TYPICAL, HIGH = 0.5, 0.9
NEAR = -3.0

Views = dict[str, NDArray[np.float32]]


def assemble(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> tuple[TabularScorer, dict[str, list[float]]]:
    """Fit every member on cleaned rows, and calibrate on the same rows by members that have not seen them.

    Distances leave each row out in turn, each row is scored by the trees that were not grown on it, and networks are
    held to the rows kept back from them. Returned with the scorer are the autoencoder's training curves by name; none
    without one. Raises ``DataError`` if no column varies, or training diverges; ``ParityError`` if the ONNX graph
    answers differently from Keras or scikit-learn; ``SchemaError`` if a column of the events is not numeric, or
    missing.
    """
    learnt, kept_back = _split(len(rows), recipe)
    recipe.report("isolation forest")
    steps = recipe.steps if SEQUENCE in recipe.members else None
    of_rows = schema if steps is None else _of_rows(schema, steps)
    baseline = _baseline_rows(rows.iloc[learnt], of_rows, recipe)
    columns = TableEncoder.fit(rows.iloc[learnt], of_rows, baseline=baseline, max_levels=recipe.max_levels)
    encoded = columns.encode(rows)
    prepare = to_onnx(columns)
    views = _run({"prepare": prepare}).run(encoded.inputs())
    held_out = _take(views, kept_back)
    parts: dict[str, onnx.ModelProto] = {"prepare": prepare}
    forest = _forest(views["table"][learnt], recipe)
    trees = Trees.from_forest(forest)
    scores: dict[str, Floats] = {FOREST: trees.out_of_bag(forest, views["table"], learnt)}

    def surprises(network: FittedNetwork, given: Encoded) -> Floats:
        """The network's score of encoded rows."""
        made = {"prepare": prepare, "network": network.scorer, "surprise": _surprise(network, columns, len(learnt))}
        return _run(made, outputs=[AUTOENCODER]).run(given.inputs())[AUTOENCODER][:, 0].astype(np.float64)

    bulk = Bulk.learn(
        views,
        scores[FOREST],
        learnt,
        cardinalities=columns.cardinalities,
        scored=lambda network: surprises(network, encoded),
        recipe=recipe,
    )
    trusted = ~bulk.suspicious
    metrics: dict[str, Any] = {"rows_fitted": int(trusted[learnt].sum()), "rows_suspicious": int((~trusted).sum())}

    network, history = None, {}
    if AUTOENCODER in recipe.members:
        network = recipe.autoencoder.fit(
            _take(views, learnt[trusted[learnt]]),
            columns.cardinalities,
            probe=held_out,
            random_state=recipe.random_state,
            initial=_earlier_weights(recipe),
            on_epoch=lambda done, planned: recipe.report(AUTOENCODER, done, planned),
        )
        history = network.history
        parts |= {AUTOENCODER: network.scorer, "surprise": _surprise(network, columns, len(learnt))}
        scores[AUTOENCODER] = _as_held_out(surprises(network, encoded), learnt[trusted[learnt]], kept_back)
        metrics["code_size"] = recipe.autoencoder.code
        metrics["epochs"] = len(history["loss"])
    if FOREST in recipe.members:
        parts[FOREST] = trees.to_onnx()
    known = None
    if NEIGHBOURS in recipe.members:
        recipe.report(NEIGHBOURS)
        known, found = _known(views, np.flatnonzero(trusted), recipe)
        scores |= dict(zip(SCORES, found.T, strict=True))
        parts["known"] = known.to_onnx()

    window = None
    if steps is not None:
        usual = learnt[trusted[learnt]]
        window = EventWindow.fit(rows.iloc[usual], steps)
        encoded = replace(encoded, window=window.encode(rows))
        own, curves, metrics["parity_sequence"] = _sequence(window, encoded, usual, kept_back, recipe)
        history |= {f"sequence_{name}": curve for name, curve in curves.items()}
        parts |= own

    recipe.report("calibration")
    names = _members_in_order(recipe)
    of_row = tuple(name for name in names if name != SEQUENCE)
    if SEQUENCE in names:
        found_all = _run(parts).run(encoded.inputs(), [SEQUENCE])[SEQUENCE][:, 0].astype(np.float64)
        scores[SEQUENCE] = _as_held_out(found_all, learnt[trusted[learnt]], kept_back)
    metrics |= _parity(
        _run(parts).run(encoded.take(kept_back).inputs()),
        held_out,
        network,
        forest if FOREST in recipe.members else None,
        known,
    )

    def outside(given: Encoded) -> Floats:
        """Scores of rows by members that know none of those kept back."""
        seen = _run({"prepare": prepare}).run(given.inputs())
        made = {FOREST: np.log2(-forest.score_samples(seen["table"]))}
        if network is not None:
            made[AUTOENCODER] = surprises(network, given)
        if known is not None:
            made |= dict(zip(SCORES, elsewhere.score(_far(seen), seen["space"]).T, strict=True))
        return np.column_stack([made[name] for name in of_row])

    weighed: Weights | None = None
    if of_row:
        if known is not None:
            elsewhere, _ = _known(_take(views, learnt), np.flatnonzero(trusted[learnt]), recipe)
        sample = kept_back[trusted[kept_back]][:MOST_WEIGHING_ROWS]
        plain = Encoded(encoded.numeric[sample], encoded.codes[sample])
        weighed = learn_weights(plain, outside, of_row, random_state=recipe.random_state)
        metrics |= weighed.facts()
    at = _calibration_rows(len(rows), recipe)
    found_scores = np.column_stack([scores[name][at] for name in names])
    fusion = Fusion.fit(found_scores, names).weighted(weighed.weights if weighed is not None else {})
    if SEQUENCE in names and of_row:
        fusion = fusion.weighted({SEQUENCE: ORDER_WEIGHT}, {SEQUENCE: ORDER_HINGE})
    metrics["rows_calibration"] = len(at)
    calibrator, recalled = calibrate(
        rows.iloc[at],
        encoded.take(at),
        fusion.risk(fusion.standardise(found_scores)),
        rarity=bulk.rarity[at],
        schema=schema,
        tail=recipe.tail,
    )
    metrics |= {} if calibrator.support is None else calibrator.support.facts()
    scorer = TabularScorer(
        name=recipe.name,
        schema=schema,
        columns=columns,
        graph=_run(parts, outputs=names),
        inside=_run(
            {name: part for name, part in parts.items() if name not in (FOREST, "known")}
            | ({"encoder": network.encoder} if network is not None else {})
        ),
        decoder=_run({"decoder": network.decoder}) if network is not None else None,
        fusion=fusion,
        calibrator=calibrator,
        trees=trees if FOREST in recipe.members else None,
        references={},
        known=known,
        window=window,
        weights=network.weights if network is not None else {},
        metrics=metrics,
        learnt=recalled,
    )
    sample_rows = rows.iloc[kept_back[:MOST_BASELINE_ROWS]]
    usual_parts = {name: found.mean(axis=0) for name, found in scorer.attributions(sample_rows).items()}
    scorer = replace(scorer, usual=usual_parts)
    if network is not None:
        metrics |= _reconstruction(scorer, rows.iloc[learnt], rows.iloc[kept_back])
    return scorer, history


def _members_in_order(recipe: Recipe) -> tuple[str, ...]:
    """The names of the scores, in the order of their columns."""
    made = {AUTOENCODER: (AUTOENCODER,), FOREST: (FOREST,), NEIGHBOURS: SCORES, SEQUENCE: (SEQUENCE,)}
    return tuple(score for member, found in made.items() if member in recipe.members for score in found)


def _calibration_rows(n_rows: int, recipe: Recipe) -> Places:
    if n_rows <= MOST_CALIBRATION_ROWS:
        return np.arange(n_rows)
    chosen = np.random.default_rng(recipe.random_state).choice(n_rows, MOST_CALIBRATION_ROWS, replace=False)
    return np.sort(chosen)


def _far(views: Views) -> NDArray[np.float32]:
    """The undamped numbers; no columns if the table has none."""
    return views.get("far", np.zeros((len(views["space"]), 0), dtype=np.float32))


def _known(views: Views, trusted: Places, recipe: Recipe) -> tuple[KnownRows, Floats]:
    """Known rows, a random sample of the trusted, and the scores of all rows, each without itself."""
    order = np.random.default_rng(recipe.random_state).permutation(trusted)[: recipe.references]
    known = KnownRows.fit(_far(views), views["space"], order, contracted=recipe.kernel_references)
    own = np.full(len(views["space"]), -1)
    own[order] = np.arange(len(order))
    return known, known.score(_far(views), views["space"], own)


def _as_held_out(score: Floats, trained: Places, kept_back: Places) -> Floats:
    """Scores of a network as if it had been trained on none of the rows.

    Rows it was trained on score lower, by what it has learnt by heart. Their scores are moved and stretched so that
    median and spread above it are those of rows kept back; what it says of single rows stays.
    """
    (inner, inner_high), (outer, outer_high) = (np.quantile(score[at], [TYPICAL, HIGH]) for at in (trained, kept_back))
    stretch = (outer_high - outer) / (inner_high - inner) if inner_high > inner and outer_high > outer else 1.0
    moved = score.copy()
    moved[trained] = outer + stretch * (score[trained] - inner)
    return moved


def _of_rows(schema: Schema, steps: Steps) -> Schema:
    """The columns that are features of the row itself."""
    for name in steps.columns:
        if name is not None and name not in schema.numeric:
            raise SchemaError(f"The events of a row need the numeric column {name!r}. {nearest(name, schema.numeric)}")
    return schema.without(steps.beside)


def _sequence(
    window: EventWindow, encoded: Encoded, learnt: Places, kept_back: Places, recipe: Recipe
) -> tuple[dict[str, onnx.ModelProto], dict[str, list[float]], float]:
    """The parts of the graph that judge a row among the events before it, the training curves, and the parity."""
    prepare = window.to_onnx()
    steps = _run({"window": prepare}, outputs=["steps"])
    fitted, held_out = (
        steps.run({"window": encoded.take(at).inputs()["window"]})["steps"] for at in (learnt, kept_back)
    )
    settings = recipe.events or EventAutoencoder()
    probe = held_out[:MOST_PROBE_ROWS]
    network = settings.fit(
        fitted,
        timesteps=window.steps.length,
        probe=probe,
        random_state=recipe.random_state,
        on_epoch=lambda done, planned: recipe.report(SEQUENCE, done, planned),
    )
    found = _run({SEQUENCE: network.scorer}, outputs=["residual"]).run({"steps": probe})
    parity = largest_difference(
        {"sequence": network.probe_residual}, {"sequence": found["residual"]}, source="the Keras network"
    )
    parts = {"window": prepare, SEQUENCE: network.scorer, "blame": window.score_onnx(settings.own_weight)}
    return parts, network.history, parity


def _split(n_rows: int, recipe: Recipe) -> tuple[Places, Places]:
    order = np.random.default_rng(recipe.random_state).permutation(n_rows)
    n_held_out = max(1, min(MOST_CALIBRATION_ROWS, round(recipe.calibration_share * n_rows)))
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def _forest(table: NDArray[np.float32], recipe: Recipe) -> IsolationForest:
    """At most half of the rows a tree: those it was not grown on are scored by it."""
    most = max(1, min(recipe.max_samples, len(table) // 2))
    return IsolationForest(n_estimators=recipe.trees, max_samples=most, random_state=recipe.random_state).fit(table)


def _earlier_weights(recipe: Recipe) -> dict[str, NDArray[np.float32]] | None:
    if recipe.warm_start is None:
        return None
    if not recipe.warm_start.weights:
        raise SettingError("The earlier detector has no autoencoder to start from. Train without a warm start.")
    return recipe.warm_start.weights


def _baseline_rows(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> Flags:
    """All rows but the share that a first forest finds most unusual."""
    columns = TableEncoder.fit(rows, schema, max_levels=recipe.max_levels)
    table = _run({"prepare": to_onnx(columns)}).run(columns.encode(rows).inputs(), ["table"])["table"]
    normality = _forest(table, recipe).score_samples(table)
    baseline = np.ones(len(rows), dtype=bool)
    baseline[np.argsort(normality, kind="stable")[: int(recipe.clean_share * len(rows))]] = False
    return baseline


def _surprise(network: FittedNetwork, columns: TableEncoder, n_rows: int) -> onnx.ModelProto:
    """``error`` → ``surprise`` of each input in nats, and its logarithm summed as the member's score.

    A number's residual counts as under one Gaussian for all columns, whose variance is the mean squared residual of
    rows the network was not trained on; a category by its cross-entropy; a missing cell by how rare gaps are in
    its column.
    """
    from detector.onnx import text as onnx_text

    n_numeric, n_labels = len(columns.centre), len(columns.levels)
    variance = max(float(network.probe_error[:, :n_numeric].mean()), 1e-6) if n_numeric else 1.0
    constants: dict[str, Any] = {
        "weight": np.array([0.5 / variance] * n_numeric + [1.0] * n_labels, dtype=np.float32),
        "floor": np.float32(FLOOR),
        "share": np.full((n_numeric + n_labels, 1), 1 / (n_numeric + n_labels), dtype=np.float32),
    }
    lines = ["weighted = Mul (error, weight)"]
    inputs = [f"float[n, {n_numeric + n_labels}] error"]
    if n_numeric:
        cost = np.hstack([np.diag(columns.missing_surprise(n_rows)), np.zeros((n_numeric, n_labels), dtype=np.float32)])
        constants["cost"] = cost.astype(np.float32)
        inputs.append(f"float[n, {n_numeric}] missing")
        lines += ["gap = MatMul (missing, cost)", "surprise = Add (weighted, gap)"]
    else:
        lines.append("surprise = Identity (weighted)")
    lines += [
        "mean = MatMul (surprise, share)",
        "lifted = Add (mean, floor)",
        "autoencoder = Log (lifted)",
    ]
    outputs = [f"float[n, {n_numeric + n_labels}] surprise", "float[n, 1] autoencoder"]
    return onnx_text.model("surprise", inputs, outputs, lines, constants)


def _parity(
    found: Views,
    held_out: Views,
    network: FittedNetwork | None,
    forest: IsolationForest | None,
    known: KnownRows | None,
) -> dict[str, float]:
    """Largest differences between the graph and the models it came from; raises if one is not small."""
    pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    if network is not None:
        pairs["parity_autoencoder"] = network.probe_error, found["error"]
    if forest is not None:
        normality = -(2.0 ** found["forest"][:, 0].astype(np.float64))
        pairs["parity_forest"] = forest.score_samples(held_out["table"]), normality
    if known is not None:
        new = found["neighbours"][:, 0] > NEAR  # of others, the last bits of a distance that is nought
        wanted = known.score(_far(held_out), held_out["space"])[new]
        pairs["parity_neighbours"] = wanted, np.column_stack([found[name][new, 0] for name in SCORES])
    return {name: largest_difference({name: wanted}, {name: given}) for name, (wanted, given) in pairs.items()}


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


def _run(parts: dict[str, onnx.ModelProto], *, outputs: Sequence[str] = ()) -> Graph:
    from detector.onnx import text as onnx_text

    every = [output.name for part in parts.values() for output in part.graph.output]
    return Graph(onnx_text.join(parts, outputs or every))


def _take(views: Views, rows: NDArray[Any]) -> Views:
    return {name: view[rows] for name, view in views.items()}
