"""How far an encoder's rows are from the rows they stand for, by kind of column and by branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.arrays import Floats
from detector.encoders.estimator import dense_rows


def reconstruction_errors(encoder: Any, rows: Any, *, seen: Any = None) -> dict[str, float]:
    """Reconstruction error as a share: 0 is perfect, and 1 is no better than knowing nothing.

    Of numbers it is the variance left unexplained, each column or sensor scaled as the encoder scales it; of categories
    and tokens the share of wrong ones. ``error`` is the mean over the kinds, which follow as ``numbers``,
    ``categories``, ``tokens``; of a ``MultimodalAutoencoder`` with the branch before it, such as ``window numbers``.
    ``seen`` is what is put in, if that is damaged: the error then says how well damage is repaired.

    >>> class Halves:
    ...     def reconstruct(self, X):
    ...         return X / 2
    >>> reconstruction_errors(Halves(), np.array([[-2.0], [2.0]]))
    {'error': 0.25, 'numbers': 0.25}
    """
    found = _by_kind(encoder, rows, encoder.reconstruct(rows if seen is None else seen))
    return {"error": float(np.mean(list(found.values()))), **found}


def _by_kind(encoder: Any, wanted: Any, got: Any) -> dict[str, float]:
    branches = getattr(encoder, "branches_", None)
    if branches is not None:
        return {
            f"{name} {kind}": error
            for name, branch in branches.items()
            for kind, error in _by_kind(branch, wanted[name], got[name]).items()
        }
    if isinstance(got, list):
        return {"tokens": _share_of_wrong_tokens(wanted, got, getattr(encoder, "vocabulary_", None))}
    wanted = np.asarray(dense_rows(wanted), dtype=np.float64)
    codes = list(getattr(encoder, "categorical", ()))
    numbers = np.setdiff1d(np.arange(wanted.shape[1]), codes)
    errors = {}
    if len(numbers):
        errors["numbers"] = _unexplained(wanted[:, numbers], got[:, numbers], _scale(encoder, wanted.shape[1])[numbers])
    if codes:
        there = ~np.isnan(wanted[:, codes])
        errors["categories"] = float(np.mean((wanted[:, codes] != got[:, codes])[there])) if there.any() else 0.0
    return errors


def _unexplained(wanted: Floats, got: Floats, scale: Floats) -> float:
    """Squared residuals as a share of the squared deviations from the columns' means."""
    there = ~np.isnan(wanted)
    mean = np.where(there, wanted, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    left = np.square(np.where(there, (wanted - got) / scale, 0.0)).sum()
    whole = np.square(np.where(there, (wanted - mean) / scale, 0.0)).sum()
    return float(left / max(whole, np.finfo(np.float64).tiny)) if left else 0.0


def _scale(encoder: Any, n_columns: int) -> Floats:
    scaling = getattr(encoder, "scaling_", None)
    if scaling is None:
        return np.ones(n_columns)
    return np.tile(scaling.scale, n_columns // len(scaling.scale))


def _share_of_wrong_tokens(wanted: Sequence[Sequence[Any]], got: Sequence[Sequence[Any]], vocabulary: Any) -> float:
    """Of the places of either, the share where they differ. Of rows too long the end counts."""
    length = None if vocabulary is None else vocabulary.length
    wrong = places = 0
    for given, answer in zip(wanted, got, strict=True):
        kept = list(given)[-length:] if length else list(given)
        places += max(len(kept), len(answer))
        wrong += sum(a != b for a, b in zip(kept, answer, strict=False)) + abs(len(kept) - len(answer))
    return wrong / places if places else 0.0
