"""Which training rows the neighbours of a table know, and their scores of all rows as if they did not know them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Places
from detector.detectors.table.bulk import BulkSigns
from detector.detectors.table.prepared import Prepared, Views, taken
from detector.detectors.table.recipe import Recipe
from detector.members.novelty import SCORES, KnownRows
from detector.members.rare_values import RARE_VALUES

MOST_KNOWN = 5_000
"""Known rows that references stand for. More, and training takes longer; fewer, and references stand for few."""
MOST_SUSPICIOUS = 0.05
"""Suspicious rows that are remembered, as a share of the known ones; with more, scoring takes longer."""


def know_all(prepared: Prepared, bulk: BulkSigns, recipe: Recipe) -> tuple[KnownRows, dict[str, Floats]]:
    """Know a sample of all rows, and score those that calibrate, each without itself."""
    places = np.arange(len(bulk.suspicious))
    chosen, suspicious = _choose(places, bulk.suspicious, recipe)
    known, views = _know(prepared.views, chosen, suspicious, bulk, recipe), prepared.views
    own = np.full(len(places), -1)
    remembered = np.concatenate([chosen, suspicious])
    own[remembered] = np.arange(len(remembered))
    at = prepared.calibrating
    return known, scores_of(known, taken({"far": far_of(views), "space": views["space"]}, at), own[at])


def know_learnt(prepared: Prepared, bulk: BulkSigns, recipe: Recipe) -> KnownRows:
    """Know a sample of the rows that networks learn from, and none that was kept back from these."""
    return _know(prepared.views, *_choose(prepared.learnt, bulk.suspicious, recipe), bulk, recipe)


def scores_of(known: KnownRows, views: Views, own: Places | None = None) -> dict[str, Floats]:
    """The scores that known rows give to others, by name; ``own`` as ``KnownRows.distances`` takes it."""
    found = known.score(far_of(views), views["space"], own)
    counted = own if own is None else np.where(own < len(known.own), own, -1)
    rare = known.rare.contributions(views["space"][:, len(known.range) :], counted).sum(axis=1)
    return dict(zip(SCORES, found.T, strict=True)) | {RARE_VALUES: rare}


def far_of(views: Views) -> NDArray[np.float32]:
    """The undamped numbers; no columns if the table has none."""
    return views.get("far", np.zeros((len(views["space"]), 0), dtype=np.float32))


def _choose(places: Places, suspicious: Flags, recipe: Recipe) -> tuple[Places, Places]:
    """A random sample of the trusted rows at these places, in random order; and the suspicious ones, or a sample."""
    known, odd = (
        np.random.default_rng(recipe.random_state).permutation(places[which[places]])
        for which in (~suspicious, suspicious)
    )
    most_suspicious = max(1, int(MOST_SUSPICIOUS * recipe.references))
    return known[: max(MOST_KNOWN, recipe.references)], odd[:most_suspicious]


def _know(views: Views, chosen: Places, suspicious: Places, bulk: BulkSigns, recipe: Recipe) -> KnownRows:
    return KnownRows.fit(
        far_of(views),
        views["space"],
        chosen,
        contracted=recipe.kernel_references,
        references=recipe.references,
        suspicious=suspicious,
        rarity=bulk.rarity,
    )
