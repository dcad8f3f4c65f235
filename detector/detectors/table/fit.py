"""Fit the members on prepared rows and join them into one scorer: the way from rows to risk, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Places
from detector.checks import check_interval, check_least, one_of
from detector.decide.calibrate import TAILS
from detector.decide.fuse import NOVELTY, ORDER, RARITY, Fusion
from detector.detectors.table.calibration import calibrate
from detector.detectors.table.scorer import TabularScorer
from detector.encoders.events import EventAutoencoder
from detector.encoders.table import FittedNetwork, TableAutoencoder
from detector.encoding.onnx import to_onnx
from detector.encoding.table import Encoded, TableEncoder
from detector.errors import SchemaError, SettingError, nearest
from detector.members.event_sequence import EventWindow, Steps
from detector.members.isolation_forest import Trees
from detector.members.neighbours import References
from detector.onnx.graph import Graph
from detector.onnx.parity import largest_difference
from detector.schema import Schema
from detector.training.settings import OnStep

if TYPE_CHECKING:
    import onnx

MEMBERS = ("autoencoder", "forest", "neighbours")
SEQUENCE = "sequence"
MOST_CALIBRATION_ROWS = 50_000
MOST_BASELINE_ROWS = 2_000
MOST_PROBE_ROWS = 2_000
BULK_NEIGHBOURS = 20
FLOOR = 1e-3

Views = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Recipe:
    """How a table's members are fitted; the parameters are those of ``TabularDetector``.

    Raises
    ------
    SettingError
        If a parameter has no meaning.
    """

    members: tuple[str, ...]
    autoencoder: TableAutoencoder
    trees: int
    max_samples: int
    references: int
    clean_references: int
    clean_share: float
    novelty_weight: float
    calibration_share: float
    tail: str
    max_levels: int
    name: str
    random_state: int
    events: EventAutoencoder | None = None
    steps: Steps | None = None
    warm_start: TabularScorer | None = None
    on_step: OnStep | None = None

    def __post_init__(self) -> None:
        if not self.members or any(name not in (*MEMBERS, SEQUENCE) for name in self.members):
            raise SettingError(
                f"members must be some of {', '.join((*MEMBERS, SEQUENCE))}. Received: members={self.members!r}."
            )
        if SEQUENCE in self.members and self.steps is None:
            raise SettingError("The member sequence expected steps, received none. Say which columns are its events.")
        check_least(self, 1, "trees", "max_samples", "references", "clean_references", "max_levels")
        check_interval(self, "(0, 1)", "calibration_share")
        check_interval(self, "[0, 1)", "clean_share")
        one_of("tail", self.tail, TAILS)

    def report(self, what: str, done: int = 0, planned: int = 1) -> None:
        """Report progress to whoever asked for it."""
        if self.on_step is not None:
            self.on_step(what, done, planned)


def assemble(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> tuple[TabularScorer, dict[str, list[float]]]:
    """Fit every member on one part of the cleaned rows and calibrate them on the other.

    Returned with the scorer are the autoencoder's training curves by name; none without one. Raises ``DataError`` if no
    column varies, or training diverges; ``ParityError`` if the ONNX graph answers differently from Keras or
    scikit-learn; ``SchemaError`` if a column of the events is not numeric, or missing.
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
    fitted, held_out = _take(views, learnt), _take(views, kept_back)
    parts: dict[str, onnx.ModelProto] = {"prepare": prepare}
    kinds: dict[str, str] = {}
    metrics: dict[str, Any] = {"rows_fitted": len(learnt), "rows_calibration": len(kept_back)}
    metrics["rows_cleaned_out"] = int((~baseline).sum())
    forest = _forest(fitted["table"], recipe)
    trees = Trees.from_forest(forest)

    network, history = None, {}
    if "autoencoder" in recipe.members:
        network = recipe.autoencoder.fit(
            _take(fitted, baseline),
            columns.cardinalities,
            probe=held_out,
            random_state=recipe.random_state,
            initial=_earlier_weights(recipe),
            on_epoch=lambda done, planned: recipe.report("autoencoder", done, planned),
        )
        history = network.history
        parts |= {"autoencoder": network.scorer, "surprise": _surprise(network, columns, len(learnt))}
        kinds["autoencoder"] = RARITY
        metrics["code_size"] = recipe.autoencoder.code
        metrics["epochs"] = len(history["loss"])
    if "forest" in recipe.members:
        parts["forest"] = trees.to_onnx()
        kinds["forest"] = RARITY
    references = {}
    if "neighbours" in recipe.members:
        recipe.report("neighbours")
        bulk = References.fit(fitted["space"][baseline], references=recipe.clean_references, k=BULK_NEIGHBOURS)
        memory = References.fit(fitted["space"], references=recipe.references, k=1, weights=columns.space_weights)
        references = {"neighbours": bulk, "novelty": memory}
        kinds |= {"neighbours": RARITY, "novelty": NOVELTY}
        parts |= {name: member.to_onnx(name) for name, member in references.items()}

    window = None
    if steps is not None:
        window = EventWindow.fit(rows.iloc[learnt[baseline]], steps)
        encoded = replace(encoded, window=window.encode(rows))
        own, curves, metrics["parity_sequence"] = _sequence(window, encoded, learnt[baseline], kept_back, recipe)
        history |= {f"sequence_{name}": curve for name, curve in curves.items()}
        parts |= own
        kinds[SEQUENCE] = ORDER if kinds else RARITY

    recipe.report("calibration")
    names = tuple(kinds)
    found = _run(parts).run(encoded.take(kept_back).inputs())
    metrics |= _parity(found, held_out, network, forest if "forest" in recipe.members else None)
    scores = np.hstack([found[name] for name in names])
    fusion = Fusion.fit(scores, names, tuple(kinds.values()), novelty_weight=recipe.novelty_weight)
    z = fusion.standardise(scores)
    calibrator, known = calibrate(
        rows.iloc[kept_back],
        encoded.take(kept_back),
        z,
        fusion.risk(z),
        kinds=fusion.kinds,
        schema=schema,
        tail=recipe.tail,
    )
    metrics |= {} if calibrator.support is None else calibrator.support.facts()
    if references:
        references["novelty"] = references["novelty"].extended(held_out["space"], recipe.references)
        parts["novelty"] = references["novelty"].to_onnx("novelty")
    scorer = TabularScorer(
        name=recipe.name,
        schema=schema,
        columns=columns,
        graph=_run(parts, outputs=names),
        inside=_run(
            {name: part for name, part in parts.items() if name not in kinds or name in ("autoencoder", SEQUENCE)}
            | ({"encoder": network.encoder} if network is not None else {})
        ),
        decoder=_run({"decoder": network.decoder}) if network is not None else None,
        fusion=fusion,
        calibrator=calibrator,
        trees=trees if "forest" in recipe.members else None,
        references=references,
        window=window,
        weights=network.weights if network is not None else {},
        metrics=metrics,
        learnt=known,
    )
    sample = rows.iloc[kept_back[:MOST_BASELINE_ROWS]]
    scorer = replace(scorer, usual={name: parts.mean(axis=0) for name, parts in scorer.attributions(sample).items()})
    if network is not None:
        metrics |= _reconstruction(scorer, rows.iloc[learnt], rows.iloc[kept_back])
    return scorer, history


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
    return IsolationForest(
        n_estimators=recipe.trees, max_samples=min(recipe.max_samples, len(table)), random_state=recipe.random_state
    ).fit(table)


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
    found: Views, held_out: Views, network: FittedNetwork | None, forest: IsolationForest | None
) -> dict[str, float]:
    """Largest differences between the graph and the models it came from; raises if one is not small."""
    pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    if network is not None:
        pairs["parity_autoencoder"] = network.probe_error, found["error"]
    if forest is not None:
        normality = -(2.0 ** found["forest"][:, 0].astype(np.float64))
        pairs["parity_forest"] = forest.score_samples(held_out["table"]), normality
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
