"""How far each training row lies from the bulk of the others, by members that learn the bulk alone.

Training rows hold anomalies that nobody marked, and nothing that has learnt a row finds it novel. So training rows are
ranked by members that did not learn the most unusual: an isolation forest first, then an autoencoder and neighbours of
what it leaves. From rows that two of them agree about no network learns; to the neighbours they are suspicious.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Places
from detector.detectors.table.recipe import AUTOENCODER, NEIGHBOURS, Recipe
from detector.encoders.table import FittedNetwork, TableAutoencoder
from detector.members.neighbours import References

BULK_NEIGHBOURS = 20
SUSPICIOUS_SHARE = 0.01
"""Of the rows, those that forest and autoencoder (without one, forest and neighbours) both find among so many. Smaller,
and anomalies that resemble each other hide each other; larger, and rare normal rows are learnt from less."""
MOST_STEPS = 2_000
PROBE_ROWS = 1_000

Scored = Callable[[FittedNetwork], Floats]


@dataclass(frozen=True)
class BulkSigns:
    """What members of the bulk say of the training rows.

    - ``rarity``, (n_rows,): how far each lies from the bulk, in standard deviations; higher is more unusual.
    - ``suspicious``, (n_rows,): rows that no network is to learn from.
    - ``learnt``, (n_rows,): rows that a network learnt the bulk from.
    """

    rarity: Floats
    suspicious: Flags
    learnt: Flags

    def without(self, gone: Flags) -> BulkSigns:
        """The same of the rows that are left."""
        return BulkSigns(self.rarity[~gone], self.suspicious[~gone], self.learnt[~gone])

    @classmethod
    def learn(
        cls,
        views: dict[str, NDArray[np.float32]],
        forest: Floats,
        learnt: Places,
        *,
        cardinalities: tuple[int, ...],
        scored: Scored,
        recipe: Recipe,
    ) -> BulkSigns:
        """Rank rows.

        - ``views``: all rows as ``detector.encoding.onnx`` prepares them.
        - ``forest``, (n_rows,): out-of-bag scores of the isolation forest.
        - ``learnt``: the places of the rows that members may learn from.
        - ``scored``: scores all rows by a network.
        """
        ranked = learnt[np.argsort(forest[learnt], kind="stable")]
        bulk = np.sort(ranked[: max(2, len(ranked) - int(recipe.clean_share * len(ranked)))])
        scores: dict[str, Floats] = {}
        none, seen = np.zeros(len(forest), dtype=bool), np.zeros(len(forest), dtype=bool)
        with ThreadPoolExecutor(1) as pool:  # a small network leaves much of a second core
            if NEIGHBOURS in recipe.members:
                distances = pool.submit(_distances, views["space"], bulk, recipe.clean_references)
            if AUTOENCODER in recipe.members and "values" in views:  # of categories alone it takes minutes, in vain
                seen[bulk] = True
                scores[AUTOENCODER] = scored(_network(views, bulk, cardinalities, recipe))
            if NEIGHBOURS in recipe.members:
                scores[NEIGHBOURS] = np.log(distances.result() + 1e-6)
        if not scores:
            return cls(_standardised(forest), none, none)
        first = next(iter(scores.values()))
        suspicious = _highest(forest, SUSPICIOUS_SHARE) & _highest(first, SUSPICIOUS_SHARE)
        return cls(np.mean([_standardised(score) for score in scores.values()], axis=0), suspicious, seen)


def _network(
    views: dict[str, NDArray[np.float32]], bulk: Places, cardinalities: tuple[int, ...], recipe: Recipe
) -> FittedNetwork:
    """A network that scores each number by the others: of all there are, it copies anomalies least."""
    training = replace(recipe.autoencoder.training, max_steps=min(MOST_STEPS, recipe.autoencoder.training.max_steps))
    settings: TableAutoencoder = replace(recipe.autoencoder, levels=0, training=training)
    taken = {name: view[bulk] for name, view in views.items()}
    return settings.fit(
        taken,
        cardinalities,
        probe={name: view[:PROBE_ROWS] for name, view in taken.items()},
        random_state=recipe.random_state,
        on_epoch=lambda done, planned: recipe.report("bulk", done, planned),
    )


def _distances(space: NDArray[np.float32], bulk: Places, references: int) -> Floats:
    """Mean distance to the nearest rows of a sample of the bulk; no row of the sample is its own neighbour."""
    chosen = bulk if len(bulk) <= references else np.sort(np.random.default_rng(0).choice(bulk, references, False))
    own = np.full(len(space), -1)
    own[chosen] = np.arange(len(chosen))
    return References.fit(space[chosen], references=references, k=BULK_NEIGHBOURS).score(space, own)


def _highest(scores: Floats, share: float) -> Flags:
    """The highest share of the scores; ties with the next one stay out."""
    count = int(share * len(scores))
    if not count:
        return np.zeros(len(scores), dtype=bool)
    return np.asarray(scores > np.sort(scores)[::-1][count])


def _standardised(scores: Floats) -> Floats:
    spread = scores.std()
    return np.asarray((scores - scores.mean()) / (spread if spread > 0 else 1.0))
