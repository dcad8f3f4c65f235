"""Member scores → one risk. The sign turns here, once: every member and the risk grow with anomaly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import ShapeError

LEAST_SPREAD = 1e-6
"""Scores are float32 and of the order of 1: a spread below this, or this share of their size, is that of their last
bits. Larger, and a member that tells rows apart by little would lose its say."""
ORDER_HINGE = 3.0
ORDER_WEIGHT = 2.0
NO_HINGE = -np.inf


@dataclass(frozen=True)
class Fusion:
    """The weighted sum of the members' z-scores, which keep the size of the tail that ranks throw away.

    A member with a hinge adds only what its z-score has above it. So does the one that reads a row among the events
    before it: histories are noisy, and in the sum of the others it would hide what they find.

    - ``members``: their names, in the order of the columns.
    - ``location``, ``scale``, (n_members,): a member's score becomes ``(score - location) / scale``.
    - ``weights``, (n_members,): what each counts; a weight too large lets one noisy member rule.
    - ``hinges``, (n_members,): the z-score from which on it counts; -inf for all of it.
    """

    members: tuple[str, ...]
    location: Floats
    scale: Floats
    weights: Floats
    hinges: Floats

    @classmethod
    def fit(cls, scores: NDArray[np.floating[Any]], members: tuple[str, ...]) -> Self:
        """Learn location and scale of scores, shape (n_rows, n_members), from rows that no member was fitted on.

        All members count alike, none with a hinge. A spread that is rounding is none, and is not divided by.
        """
        scores = np.asarray(scores, dtype=np.float64)
        location, scale = scores.mean(axis=0), scores.std(axis=0)
        rounding = LEAST_SPREAD * np.maximum(1.0, np.abs(scores).max(axis=0))
        n_members = len(members)
        return cls(
            members,
            location,
            np.where(scale > rounding, scale, 1.0),
            np.full(n_members, 1.0 / n_members),
            np.full(n_members, NO_HINGE),
        )

    def weighted(self, weights: Mapping[str, float], hinges: Mapping[str, float] | None = None) -> Self:
        """The same with other weights, and hinges, by member; members that are not named keep theirs."""
        hinges = hinges or {}
        return replace(
            self,
            weights=np.array([weights.get(name, own) for name, own in zip(self.members, self.weights, strict=True)]),
            hinges=np.array([hinges.get(name, own) for name, own in zip(self.members, self.hinges, strict=True)]),
        )

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

        >>> fusion = Fusion(("a", "b"), np.zeros(2), np.ones(2), np.array([1.0, 3.0]), np.array([-np.inf, 0.5]))
        >>> fusion.risk(np.array([[1.0, 2.5], [1.0, -1.0]]))
        array([7., 1.])
        """
        return np.asarray(self.contributions(z).sum(axis=1))

    def contributions(self, z: NDArray[np.floating[Any]]) -> Floats:
        """Each member's part of the risk, shape (n_rows, n_members)."""
        hinged = np.isfinite(self.hinges)
        beyond = np.where(hinged, np.maximum(z - np.where(hinged, self.hinges, 0.0), 0.0), z)
        return np.asarray(self.weights * beyond)

    def state(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {name: getattr(self, name).tolist() for name in ("location", "scale", "weights")}
        hinges = [None if np.isinf(hinge) else float(hinge) for hinge in self.hinges]
        return {"members": list(self.members), "hinges": hinges} | values

    @classmethod
    def from_state(cls, values: dict[str, Any]) -> Self:
        """The inverse of ``state``; reads that of version 0.1, too, where members had kinds in the place of weights."""
        values = _with_weights(values) if "kinds" in values else values
        arrays = {name: np.array(values[name], dtype=np.float64) for name in ("location", "scale", "weights")}
        hinges = np.array([NO_HINGE if hinge is None else hinge for hinge in values["hinges"]], dtype=np.float64)
        return cls(members=tuple(values["members"]), hinges=hinges, **arrays)


def _with_weights(values: dict[str, Any]) -> dict[str, Any]:
    kinds = values["kinds"]
    rare = 1.0 / max(1, kinds.count("rarity"))
    known = {
        "rarity": (rare, None),
        "novelty": (values["novelty_weight"], values["hinge"]),
        "order": (ORDER_WEIGHT, ORDER_HINGE),
    }
    weights, hinges = zip(*(known[kind] for kind in kinds), strict=True)
    return values | {"weights": list(weights), "hinges": list(hinges)}
