"""Fit the members of a table: each on the rows it may learn from, and its scores of all rows as if it had not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Floats, Places
from detector.detectors.table.bulk import BulkSigns
from detector.detectors.table.neighbours import know_all, know_learnt, scores_of
from detector.detectors.table.prepared import MOST_PROBE_ROWS, Prepared, Scorer, grow_forest, taken
from detector.detectors.table.recipe import AUTOENCODER, FOREST, NEIGHBOURS, SEQUENCE, Recipe
from detector.detectors.table.surprise import surprise_of
from detector.encoders.events import EventAutoencoder
from detector.encoders.table import FittedNetwork
from detector.encoding.encoded import Encoded
from detector.errors import SettingError
from detector.members.event_sequence import EventWindow, Steps
from detector.members.isolation_forest import Trees
from detector.members.novelty import SCORES, KnownRows
from detector.members.novelty_graph import graph_of
from detector.members.rare_values import RARE_VALUES
from detector.onnx.graph import joined
from detector.onnx.parity import largest_difference

if TYPE_CHECKING:
    import onnx

TYPICAL, HIGH = 0.5, 0.9
LEAST_COMPARED = 10
"""Rows trained on, and rows kept back, without which nothing is said of how much lower the first score."""
MOST_STRETCHED = 4.0
"""How much wider scores become at most. On tables of 100 to 800 rows it was 1.2 in the median and 3.2 at most; without
a bound, rows that are nearly all alike would put the others anywhere."""


@dataclass
class FittedMembers:
    """What was fitted.

    - ``scores``: of the rows that calibrate, by members that have not seen them.
    - ``parts``: the pieces of the graph.
    - ``bulk``: how far each row lies from the bulk, and whether it is suspicious.
    - ``known``: known rows of all that are trusted; ``elsewhere``: of those alone that networks learn from.
    """

    forest: IsolationForest
    trees: Trees
    scores: dict[str, Floats]
    parts: dict[str, onnx.ModelProto]
    bulk: BulkSigns
    network: FittedNetwork | None = None
    surprises: Scorer | None = None
    known: KnownRows | None = None
    elsewhere: KnownRows | None = None
    window: EventWindow | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def trusted(self) -> Flags:
        """Rows that a network may learn from, shape (n_rows,)."""
        return ~self.bulk.suspicious

    def trained(self, prepared: Prepared) -> Places:
        """Places of the rows that the autoencoder learns from."""
        return prepared.learnt[self.trusted[prepared.learnt]]


def fit_members(prepared: Prepared, recipe: Recipe, networks: FittedMembers | None = None) -> FittedMembers:
    """Fit every member of the recipe; raises as ``detector.detectors.table.fit.assemble`` says.

    ``networks`` are members that learnt from these rows, whose networks and bulk stay.
    """
    learnt, views = prepared.learnt, prepared.views
    if AUTOENCODER in recipe.members and networks is None and (earlier := _earlier_weights(recipe)) is not None:
        recipe.autoencoder.check_initial(views, prepared.columns.cardinalities, earlier)
    recipe.report("isolation forest")
    forest = grow_forest(views["table"][learnt], recipe)
    trees = Trees.from_forest(forest)
    isolation = _alike(trees.out_of_bag(forest, views["table"], learnt), prepared.marks)
    if networks is None:
        bulk = BulkSigns.learn(
            views,
            isolation,
            learnt,
            cardinalities=prepared.columns.cardinalities,
            scored=lambda network: prepared.scorer_of(network)(prepared.encoded),
            recipe=recipe,
        )
    else:
        bulk = networks.bulk
    fitted = FittedMembers(
        forest=forest,
        trees=trees,
        scores={FOREST: isolation[prepared.calibrating]},
        parts={"prepare": prepared.prepare},
        bulk=bulk,
    )
    fitted.metrics |= {"rows_fitted": int(fitted.trusted[learnt].sum()), "rows_suspicious": int(bulk.suspicious.sum())}
    with ThreadPoolExecutor(2) as pool:  # small networks leave much of a second core
        if NEIGHBOURS in recipe.members:
            knowing, learning = (
                pool.submit(know_all, prepared, bulk, recipe),
                pool.submit(know_learnt, prepared, bulk, recipe),
            )
        if AUTOENCODER in recipe.members:
            network = _fit_network(prepared, fitted, recipe) if networks is None else networks.network
            assert network is not None  # members that learnt from these rows have the same recipe
            _add_network(prepared, fitted, network)
            fitted.metrics |= {"code_size": recipe.autoencoder.code, "epochs": len(network.history["loss"])}
        if FOREST in recipe.members:
            fitted.parts[FOREST] = trees.to_onnx()
        if NEIGHBOURS in recipe.members:
            recipe.report(NEIGHBOURS)
            known, scores = knowing.result()
            _add_known(prepared, fitted, known, scores)
            fitted.elsewhere = learning.result()
    fitted.metrics |= _parity(prepared, fitted, recipe, networks)
    return fitted


def fit_sequence(prepared: Prepared, fitted: FittedMembers, steps: Steps, recipe: Recipe) -> Prepared:
    """Fit the member that reads a row among the events before it; returns the rows with these."""
    trained = fitted.trained(prepared)
    at = prepared.calibrating
    fitted.window = EventWindow.fit(prepared.rows.iloc[trained], steps)
    prepared = replace(prepared, encoded=replace(prepared.encoded, window=fitted.window.encode(prepared.rows)))
    own, curves, parity = _sequence(fitted.window, prepared.encoded, trained, prepared.kept_back, recipe)
    fitted.history |= {f"sequence_{name}": curve for name, curve in curves.items()}
    fitted.parts |= own
    fitted.metrics["parity_sequence"] = parity
    found = joined(fitted.parts, [SEQUENCE]).run(prepared.encoded.take(at).inputs())[SEQUENCE]
    fitted.scores[SEQUENCE] = as_held_out(
        found[:, 0].astype(np.float64), np.isin(at, trained), np.isin(at, prepared.kept_back)
    )
    return prepared


def _fit_network(prepared: Prepared, fitted: FittedMembers, recipe: Recipe) -> FittedNetwork:
    return recipe.autoencoder.fit(
        taken(prepared.views, fitted.trained(prepared)),
        prepared.columns.cardinalities,
        probe=taken(prepared.views, prepared.probe),
        random_state=recipe.random_state,
        initial=_earlier_weights(recipe),
        on_epoch=lambda done, planned: recipe.report(AUTOENCODER, done, planned),
    )


def _add_network(prepared: Prepared, fitted: FittedMembers, network: FittedNetwork) -> None:
    surprise = surprise_of(network, prepared.columns, len(prepared.learnt))
    fitted.network, fitted.history = network, dict(network.history)
    fitted.parts |= {AUTOENCODER: network.scorer, "surprise": surprise}
    fitted.surprises = prepared.scorer_of(network)
    at = prepared.calibrating
    score = as_held_out(
        fitted.surprises(prepared.encoded.take(at)),
        np.isin(at, fitted.trained(prepared)),
        np.isin(at, prepared.kept_back),
        has_learnt_likes(prepared.marks, fitted.trained(prepared))[at],
    )
    fitted.scores[AUTOENCODER] = _alike(score, prepared.marks[at])


def _add_known(prepared: Prepared, fitted: FittedMembers, known: KnownRows, scores: dict[str, Floats]) -> None:
    fitted.known = known
    fitted.scores |= scores
    fitted.parts["known"] = graph_of(known)
    if prepared.columns.levels:
        fitted.parts[RARE_VALUES] = known.rare.to_onnx(len(known.range))


def as_held_out(score: Floats, trained: Flags, kept_back: Flags, known: Flags | None = None) -> Floats:
    """Scores of a network as if it had been trained on none of the rows.

    Rows it was trained on score lower, by what it has learnt by heart. Their scores are moved and stretched so that
    median and spread above it are those of rows kept back; what it says of single rows stays.

    - ``known``, (n_rows,): rows whose like the network was trained on, too. It would know them without themselves, so
      their scores stay, and say nothing of those that it would not know.
    """
    if known is not None:
        trained, kept_back = trained & ~known, kept_back & ~known
    inside, outside = score[trained], score[kept_back]
    if min(len(inside), len(outside)) < LEAST_COMPARED:
        return score
    (inner, inner_high), (outer, outer_high) = (np.quantile(part, [TYPICAL, HIGH]) for part in (inside, outside))
    stretch = (outer_high - outer) / (inner_high - inner) if inner_high > inner and outer_high > outer else 1.0
    moved = score.copy()
    moved[trained] = outer + min(stretch, MOST_STRETCHED) * (inside - inner)
    return moved


def has_learnt_likes(marks: NDArray[np.uint64], trained: Places) -> Flags:
    """Whether a row that is alike, other than itself, is among the trained ones, (n_rows,)."""
    _, place, count = np.unique(marks, return_inverse=True, return_counts=True)
    seen = np.bincount(place[trained], minlength=len(count))
    own = np.bincount(trained, minlength=len(marks))
    return np.asarray(seen[place] > own)


def _alike(score: Floats, marks: NDArray[np.uint64]) -> Floats:
    """The mean score of rows that are alike: else it would differ by which trees and networks have seen which of them.

    A table of few different rows would seem to have groups of rows apart from all others.
    """
    _, place, count = np.unique(marks, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(place, weights=score) / count)[place])


def _sequence(
    window: EventWindow, encoded: Encoded, learnt: Places, kept_back: Places, recipe: Recipe
) -> tuple[dict[str, onnx.ModelProto], dict[str, list[float]], float]:
    """The parts of the graph that judge a row among the events before it, the training curves, and the parity."""
    prepare = window.to_onnx()
    steps = joined({"window": prepare}, ["steps"])
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
    found = joined({SEQUENCE: network.scorer}, ["residual"]).run({"steps": probe})
    parity = largest_difference(
        {"sequence": network.probe_residual}, {"sequence": found["residual"]}, source="the Keras network"
    )
    parts = {"window": prepare, SEQUENCE: network.scorer, "blame": window.score_onnx(settings.own_weight)}
    return parts, network.history, parity


def _earlier_weights(recipe: Recipe) -> dict[str, NDArray[np.float32]] | None:
    if recipe.warm_start is None:
        return None
    if not recipe.warm_start.weights:
        raise SettingError("The earlier detector has no autoencoder to start from. Train without a warm start.")
    return recipe.warm_start.weights


def _parity(
    prepared: Prepared, fitted: FittedMembers, recipe: Recipe, networks: FittedMembers | None
) -> dict[str, float]:
    """Largest differences between the graph and the models it came from; raises if one is not small.

    That of ``networks`` which are not new is known.
    """
    held_out = taken(prepared.views, prepared.probe)
    found = joined(fitted.parts).run(prepared.encoded.take(prepared.probe).inputs())
    pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    most: dict[str, float] = {}
    earlier: dict[str, float] = {}
    if fitted.network is not None and networks is None:
        pairs["parity_autoencoder"] = fitted.network.probe_error, found["error"]
    elif networks is not None:
        earlier["parity_autoencoder"] = networks.metrics["parity_autoencoder"]
    if FOREST in recipe.members:
        normality = -(2.0 ** found["forest"][:, 0].astype(np.float64))
        pairs["parity_forest"] = fitted.forest.score_samples(held_out["table"]), normality
    if fitted.known is not None:
        known = scores_of(fitted.known, held_out)
        pairs |= {f"parity_{name}": (known[name], found[name][:, 0]) for name in known if name in found}
        most = {f"parity_{name}": fitted.known.rounding for name in SCORES}
    return earlier | {
        name: largest_difference({name: wanted}, {name: given}, most=most.get(name))
        for name, (wanted, given) in pairs.items()
    }
