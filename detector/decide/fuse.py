"""Member scores → one risk. The sign turns here, once: every member and the risk grow with anomaly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import ShapeError

RARITY = "rarity"
NOVELTY = "novelty"
ORDER = "order"
HINGE = 0.5
LEAST_SPREAD = 1e-6
"""Scores are float32 and of the order of 1: a spread below this, or this share of their size, is that of their last
bits. Larger, and a member that tells rows apart by little would lose its say."""
ORDER_HINGE = 3.0
ORDER_WEIGHT = 2.0


@dataclass(frozen=True)
class Fusion:
    """Rarity plus novelty.

    A row is rare if it lies far from the bulk of the training rows, and novel if nothing in training resembles it, be
    it bulk or oddity. Rarity is the mean of the rarity members' z-scores; z-scores keep the size of the tail, which
    ranks throw away. Novelty is what the novelty member's z-score has above ``hinge``. Where training was clean,
    novelty decides; where anomalies were among the training rows, their like is not novel, and rarity decides. No
    switch between the two cases is needed, and none was found that could tell them apart from the training rows.

    Order is what a member says that reads a row among the events before it. Histories are noisy, so it adds to the risk
    only what its z-score has above ``ORDER_HINGE``; in the mean of the others it would hide what they find.

    - ``members``: their names, in the order of the columns.
    - ``kinds``: "rarity", "novelty" or "order" for each.
    - ``location``, ``scale``, (n_members,): a member's score becomes ``(score - location) / scale``.
    - ``novelty_weight``: what novelty counts against rarity.
    - ``hinge``: the z-score at which novelty begins; held-out normal rows have a mean of 0.
    """

    members: tuple[str, ...]
    kinds: tuple[str, ...]
    location: Floats
    scale: Floats
    novelty_weight: float
    hinge: float = HINGE

    @classmethod
    def fit(
        cls,
        scores: NDArray[np.floating[Any]],
        members: tuple[str, ...],
        kinds: tuple[str, ...],
        *,
        novelty_weight: float,
    ) -> Self:
        """Learn location and scale of scores, shape (n_rows, n_members), from rows that no member was fitted on.

        A spread that is rounding is none, and is not divided by.
        """
        scores = np.asarray(scores, dtype=np.float64)
        location, scale = scores.mean(axis=0), scores.std(axis=0)
        rounding = LEAST_SPREAD * np.maximum(1.0, np.abs(scores).max(axis=0))
        return cls(members, kinds, location, np.where(scale > rounding, scale, 1.0), novelty_weight)

    def standardise(self, scores: NDArray[np.floating[Any]]) -> Floats:
        """Each member's z-score, shape (n_rows, n_members)."""
        if scores.ndim != 2 or scores.shape[1] != len(self.members):
            raise ShapeError(
                f"Expected one column for each of {', '.join(self.members)}, got an array of shape {scores.shape}. "
                f"Stack the members with np.column_stack."
            )
        return np.asarray((scores.astype(np.float64) - self.location) / self.scale)

    def risk(self, z: NDArray[np.floating[Any]]) -> Floats:
        """One risk a row from its z-scores, shape (n_rows,).

        >>> fusion = Fusion(("a", "b"), ("rarity", "novelty"), np.zeros(2), np.ones(2), 3.0)
        >>> fusion.risk(np.array([[1.0, 2.5], [1.0, -1.0]]))
        array([7., 1.])
        """
        return np.asarray(self.contributions(z).sum(axis=1))

    def contributions(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Each member's part of the risk, shape (n_rows, n_members)."""
        kinds = np.array(self.kinds)
        rare, novel, order = (kinds == kind for kind in (RARITY, NOVELTY, ORDER))
        parts = np.zeros(z.shape)
        parts[:, rare] = z[:, rare] / max(1, rare.sum())
        parts[:, novel] = self.novelty_weight * np.maximum(z[:, novel] - self.hinge, 0.0)
        parts[:, order] = ORDER_WEIGHT * np.maximum(z[:, order] - ORDER_HINGE, 0.0)
        return parts

    def state(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {name: getattr(self, name).tolist() for name in ("location", "scale")}
        return {
            "members": list(self.members),
            "kinds": list(self.kinds),
            "novelty_weight": self.novelty_weight,
            "hinge": self.hinge,
        } | values

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``state``."""
        return cls(
            members=tuple(values["members"]),
            kinds=tuple(values["kinds"]),
            location=np.array(values["location"], dtype=np.float64),
            scale=np.array(values["scale"], dtype=np.float64),
            novelty_weight=float(values["novelty_weight"]),
            hinge=float(values["hinge"]),
        )
