"""Faults planted in rows of training, and what each member counts by how well it tells them from the others.

Members see the planted rows as they see the true ones: by models that did not learn from them. No label is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from detector.arrays import Counts, Floats

KINDS = ("spike", "drift", "level", "stuck", "lost correlation", "change of frequency", "noise", "another time")
ANOTHER_TIME = len(KINDS)
"""Planted only where readings follow the time of the day."""
COPIES = 2
PRIOR = 12.0
"""What is held of the members beforehand, as a number of votes. Fewer, and the weights hang on the faults drawn; more,
and nothing is learnt from them."""
VOTES = 4
SHIFTS = 8
LEAST_CHANGE = 0.02
LEAST_ROWS = 4
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Planted:
    """A copy of rows with faults: their values, (n_rows, n_sensors), and the kind of each row, 0 for none."""

    values: NDArray[np.float32]
    kind: Counts


def plant(values: NDArray[np.float32], rng: np.random.Generator) -> Planted:
    """Plant faults of every kind, one after the other, in scaled rows of shape (n_rows, n_sensors).

    >>> planted = plant(np.random.default_rng(0).random((2000, 3), dtype=np.float32), np.random.default_rng(1))
    >>> sorted(set(planted.kind.tolist())), bool(0.2 < (planted.kind > 0).mean() < 0.5)
    ([0, 1, 2, 3, 4, 5, 6, 7], True)
    """
    n = len(values)
    changed, kind = values.copy(), np.zeros(n, dtype=np.int64)
    order: list[int] = []
    row = int(rng.integers(5, n // 60 + 7))
    while row < n - 4:
        order = order or rng.permutation(len(KINDS) - 1).tolist()
        number = order.pop()
        longest = max(9, min(128, n // 12))
        rows = (
            int(rng.integers(1, 4))
            if KINDS[number] == "spike"
            else int(np.exp(rng.uniform(np.log(8), np.log(longest))))
        )
        end = min(n, row + rows)
        _disturb(changed, values, KINDS[number], row, end, rng)
        moved = np.abs(changed[row:end] - values[row:end]).max(axis=1) > LEAST_CHANGE
        kind[row:end] = np.where(moved, number + 1, 0)
        row = end + int(rng.integers(max(8, end - row), max(9, int(2.5 * (end - row)) + 20)))
    return Planted(changed, kind)


def plant_other_times(
    values: NDArray[np.float32], part: Counts, codes: Counts, rng: np.random.Generator, *, rows: int
) -> Planted:
    """Plant rows of another time of the day, or kind of day, of the same series: about a tenth of all.

    ``part`` is the part of the rhythm that each row is in, ``codes`` whose it is, ``rows`` how long a fault lasts.

    >>> values = np.arange(400, dtype=np.float32)[:, None] % 20
    >>> planted = plant_other_times(values, np.arange(400) % 20, np.zeros(400), np.random.default_rng(0), rows=10)
    >>> bool(0 < (planted.kind > 0).mean() < 0.2)
    True
    """
    n = len(values)
    changed, kind = values.copy(), np.zeros(n, dtype=np.int64)
    row = int(rng.integers(0, 5 * rows))
    while row + rows <= n:
        for _ in range(SHIFTS):
            other = int(rng.integers(0, n - rows + 1))
            own, source = slice(row, row + rows), slice(other, other + rows)
            alike = codes[own] == codes[source]
            if alike.all() and (part[own] != part[source]).all():
                changed[own] = values[source]
                moved = np.abs(changed[own] - values[own]).max(axis=1) > LEAST_CHANGE
                kind[own] = np.where(moved, ANOTHER_TIME, 0)
                break
        row += rows + int(rng.integers(5 * rows, 10 * rows))
    return Planted(changed, kind)


def _disturb(
    changed: NDArray[np.float32], values: NDArray[np.float32], kind: str, row: int, end: int, rng: np.random.Generator
) -> None:
    """One fault in the rows from one to another; in one sensor, or in some."""
    n, sensors = values.shape
    many = 1 if rng.random() < 0.5 else int(rng.integers(1, sensors + 1))
    which = rng.choice(sensors, many, replace=False)
    spread = np.maximum(values[:, which].std(axis=0), LEAST_CHANGE)
    size = np.exp(rng.uniform(np.log(0.7), np.log(5))) * spread * rng.choice([-1, 1], many)
    rows = end - row
    part = np.ix_(np.arange(row, end), which)
    if kind == "spike":
        changed[part] += 2 * size
    elif kind == "level":
        changed[part] += size
    elif kind == "drift":
        changed[part] += size * np.linspace(0, 1.5, rows)[:, None]
    elif kind == "noise":
        changed[part] += 0.7 * np.abs(size) * rng.normal(size=(rows, many))
    elif kind == "stuck":
        changed[part] = values[row, which]
    elif kind == "lost correlation":
        other = int(rng.integers(0, n - rows + 1))
        changed[part] = values[other : other + rows, which]
    else:
        pace = float(rng.choice([0.5, 2.0, 3.0]))
        source = np.clip((row + np.arange(rows) * pace).astype(int), 0, n - 1)
        changed[part] = values[source][:, which]


def separation(scores: Floats, kind: Counts) -> float:
    """How well scores tell planted faults from other rows: average precision of each kind, averaged.

    >>> separation(np.arange(40.0), np.repeat([0, 2], [30, 10]))
    1.0
    """
    found = []
    for number in range(1, len(KINDS) + 1):
        own = kind == number
        rows = own | (kind == 0)
        if own.sum() >= LEAST_ROWS:
            found.append(average_precision_score(own[rows], scores[rows]))
    return float(np.mean(found)) if found else 0.0


def learn_shares(z: Floats, kind: Counts, prior: Floats) -> Floats:
    """What each member counts: the prior, and votes for those that add most to telling planted faults apart.

    Each vote goes to the member with which the mean by all votes so far separates best (Caruana et al., Ensemble
    Selection from Libraries of Models, ICML 2004). ``z`` are z-scores of shape (n_rows, n_members).

    >>> good, bad = np.repeat([0.0, 9.0], [30, 10]), np.zeros(40)
    >>> learn_shares(np.column_stack([good, bad]), np.repeat([0, 1], [30, 10]), np.array([1.0, 1.0])).tolist()
    [0.625, 0.375]
    """
    z, kind = z[:MOST_ROWS], kind[:MOST_ROWS]
    votes = PRIOR * prior / prior.sum()
    if (kind > 0).any():
        for _ in range(VOTES):
            gains = [separation(z @ votes + z[:, member], kind) for member in range(len(votes))]
            votes[int(np.argmax(gains))] += 1.0
    return np.asarray(votes / votes.sum())
