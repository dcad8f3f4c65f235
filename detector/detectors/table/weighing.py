"""What each member counts, learnt from normal rows alone: how well it tells them from anomalies made of them.

Anomalies nobody has seen cannot be learnt from, but rows can be spoilt in the ways in which rows are anomalous: cells
that do not belong together, values off by a little, values far out. A logistic regression of such rows against rows as
they are says what each member adds to the others. It is held to a prior, because what was made up is not what will
come: on labelled tables the evidence alone lost to the prior, because spoilt cells are what an autoencoder is best at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from detector.arrays import Flags, Floats
from detector.detectors.table.recipe import FOREST
from detector.encoding.encoded import Encoded
from detector.encoding.statistics import LARGEST
from detector.members.novelty import SCORES
from detector.members.rare_values import RARE_VALUES

APART = {"neighbours": 0.5, "contraction": 0.5, "autoencoder": 0.1, "forest": 0.02, "rare_values": 1.0}
"""The prior where forest and neighbours disagree about normal rows: they lie in groups that the forest cuts through."""
AGREED = APART | {"autoencoder": 0.5, "forest": 0.5}
"""The prior where they agree: then no member sees a structure that the others miss, and their errors average out."""
AGREEMENT = (0.65, 0.75)
"""Rank correlation of forest and neighbours over normal rows up to which they disagree, and from which on they agree.
Of 0.6 to 0.8, these did best on labelled tables outside the group that they were measured on."""
STRENGTH = 0.3
"""How hard weights are pulled to the prior. Smaller, they follow what was made up; larger, they do not learn."""
FOLDS = 5
LEAST_ROWS = 20
LARGEST_Z = (-6.0, 12.0)
"""Beyond these a z-score says nothing more, and would rule the regression."""
MANY_CELLS, FEW_CELLS = 0.3, 0.1
JITTER = 0.5
"""In interquartile ranges."""

Scores = Callable[[Encoded], Floats]


@dataclass(frozen=True)
class Weights:
    """What was learnt of the members.

    - ``weights``: of each, together 1.
    - ``spread``: its standard deviation over folds of the rows.
    - ``power``: AUROC of each member for each kind of spoilt rows: 0.5 tells nothing.
    - ``agreement``: rank correlation of forest and neighbours over normal rows; 0 without either.
    """

    weights: dict[str, float]
    spread: dict[str, float]
    power: dict[str, dict[str, float]]
    agreement: float = 0.0

    def facts(self) -> dict[str, float]:
        """For the record of the training."""
        found = {f"weight_{name}": weight for name, weight in self.weights.items()}
        found |= {f"weight_spread_{name}": spread for name, spread in self.spread.items()}
        found["agreement_forest_neighbours"] = self.agreement
        return found | {
            f"power_{name}_{kind}": power for name, kinds in self.power.items() for kind, power in kinds.items()
        }


def prior_weights(members: tuple[str, ...], *, agreement: float = 0.0, categories: float = 1.0) -> dict[str, float]:
    """The prior of the members there are, together 1.

    ``agreement`` is the rank correlation of forest and neighbours over normal rows, ``categories`` the share of the
    columns that are: what looks at categories alone counts by it.

    >>> prior_weights(("neighbours", "contraction"))
    {'neighbours': 0.5, 'contraction': 0.5}
    """
    low, high = AGREEMENT
    agreed = min(1.0, max(0.0, (agreement - low) / (high - low)))
    prior = {name: (1 - agreed) * APART[name] + agreed * AGREED[name] for name in members}
    prior |= {name: categories * prior[name] for name in members if name == RARE_VALUES}
    return {name: weight / sum(prior.values()) for name, weight in prior.items()}


def learn_weights(rows: Encoded, scores: Scores, members: tuple[str, ...], *, random_state: int) -> Weights:
    """Weigh members by normal rows that none of them was fitted on; too few rows, or one member, leave the prior.

    ``scores`` gives each member's score of encoded rows, (n_rows, n_members), by members that know none of ``rows``.
    """
    n_codes = rows.codes.shape[1]
    categories = n_codes / max(1, n_codes + rows.numeric.shape[1])
    if len(members) == 1 or len(rows) < LEAST_ROWS:
        return Weights(prior_weights(members, categories=categories), dict.fromkeys(members, 0.0), {})
    rng = np.random.default_rng(random_state)
    normal = scores(rows)
    agreement = _agreement(dict(zip(members, normal.T, strict=True)))
    prior = prior_weights(members, agreement=agreement, categories=categories)
    location, scale = normal.mean(axis=0), normal.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    normal = (normal - location) / scale
    spoilt = {kind: (scores(made) - location) / scale for kind, made in spoil(rows, rng).items()}
    power = {
        name: {kind: _auroc(normal[:, i], found[:, i]) for kind, found in spoilt.items()}
        for i, name in enumerate(members)
    }
    wanted = np.array([prior[name] for name in members])
    fold = rng.permutation(len(rows)) % FOLDS
    parts = [
        _regress(normal[fold != out], np.vstack([found[fold != out] for found in spoilt.values()]), wanted)
        for out in range(FOLDS)
    ]
    mean, spread = np.mean(parts, axis=0), np.std(parts, axis=0)
    return Weights(
        {name: float(mean[i]) for i, name in enumerate(members)},
        {name: float(spread[i]) for i, name in enumerate(members)},
        power,
        agreement,
    )


def spoil(rows: Encoded, rng: np.random.Generator) -> dict[str, Encoded]:
    """Anomalies made of normal rows, as many of each kind as there are rows; kinds only where there is what they spoil.

    - ``shuffled``: every column from another row. ``many_cells``, ``few_cells``: 30 % or 10 % of them.
    - ``rare``: 10 % of the categories replaced by any of their values, however rare.
    - ``jitter``: noise of half an interquartile range on each number.
    - ``tails``: one number in ten moved outwards by one to four standard deviations.
    - ``scaled``: the whole row one and a half to three times as far from the middle.
    """
    n_rows, n_numeric = rows.numeric.shape
    n_codes = rows.codes.shape[1]
    columns = n_numeric + n_codes
    numeric = np.column_stack([rows.numeric[rng.permutation(n_rows), j] for j in range(n_numeric)] or [rows.numeric])
    codes = np.column_stack([rows.codes[rng.permutation(n_rows), j] for j in range(n_codes)] or [rows.codes])

    def some(share: float, n_columns: int) -> Flags:
        chosen = rng.random((n_rows, n_columns)) < share
        chosen[np.arange(n_rows), rng.integers(0, n_columns, n_rows)] = True
        return chosen

    def cells(share: float) -> Encoded:
        chosen = some(share, columns)
        return Encoded(
            np.where(chosen[:, :n_numeric], numeric, rows.numeric), np.where(chosen[:, n_numeric:], codes, rows.codes)
        )

    made = {"shuffled": Encoded(numeric, codes), "many_cells": cells(MANY_CELLS), "few_cells": cells(FEW_CELLS)}
    if n_codes:
        anything = np.column_stack([rng.choice(np.unique(column), n_rows) for column in rows.codes.T])
        made["rare"] = Encoded(rows.numeric, np.where(some(FEW_CELLS, n_codes), anything, rows.codes))
    if not n_numeric:
        return made
    with np.errstate(over="ignore", invalid="ignore"):  # a number near the largest there is has no deviation
        known = np.where(np.isnan(rows.numeric).all(axis=0), 0.0, rows.numeric)
        low, middle, high = (np.nan_to_num(part) for part in np.nanpercentile(known, [25, 50, 75], axis=0))
        deviation = np.nan_to_num(np.nanstd(known, axis=0), posinf=0.0)
        width = np.nan_to_num(np.where(high > low, high - low, deviation), posinf=0.0)
    noise = JITTER * width * rng.normal(size=rows.numeric.shape)
    chosen = some(FEW_CELLS, n_numeric)
    outwards = np.where(rows.numeric >= middle, 1.0, -1.0) * deviation * rng.uniform(1, 4, rows.numeric.shape)
    with np.errstate(over="ignore"):
        stretched = middle + (rows.numeric - middle) * rng.uniform(1.5, 3.0, (n_rows, 1))
    numbers = {
        "jitter": rows.numeric + noise,
        "tails": np.where(chosen, rows.numeric + outwards, rows.numeric),
        "scaled": np.clip(stretched, -LARGEST, LARGEST),
    }
    return made | {kind: Encoded(values, rows.codes) for kind, values in numbers.items()}


def _regress(normal: Floats, spoilt: Floats, prior: Floats) -> Floats:
    """Weights, none negative, together 1, of a logistic regression in which both classes count alike."""
    X = np.clip(np.vstack([normal, spoilt]), *LARGEST_Z)
    y = np.repeat([0.0, 1.0], [len(normal), len(spoilt)])
    share = np.repeat([0.5 / len(normal), 0.5 / len(spoilt)], [len(normal), len(spoilt)])

    def loss(at: Floats) -> tuple[float, Floats]:
        weights, logit = at[:-1], X @ at[:-1] + at[-1]
        error = share * (1 / (1 + np.exp(-logit)) - y)
        away = weights - prior
        value = (share * (np.logaddexp(0, logit) - y * logit)).sum() + STRENGTH * (away**2).sum()
        return float(value), np.append(X.T @ error + 2 * STRENGTH * away, error.sum())

    bounds = [(0, None)] * len(prior) + [(None, None)]
    found = minimize(loss, np.append(prior, 0.0), jac=True, bounds=bounds, method="L-BFGS-B").x[:-1]
    total = found.sum()
    return np.asarray(found / total if total > 0 else prior)


def _agreement(scores: dict[str, Floats]) -> float:
    """The rank correlation of the forest's scores and the sum of the neighbours'."""
    distances = [scores[name] for name in SCORES if name in scores]
    if FOREST not in scores or not distances:
        return 0.0
    both = scores[FOREST], np.sum(distances, axis=0)
    return float(spearmanr(*both).statistic) if all(np.ptp(ranked) > 0 for ranked in both) else 0.0


def _auroc(normal: Floats, spoilt: Floats) -> float:
    truth = np.repeat([0, 1], [len(normal), len(spoilt)])
    return float(roc_auc_score(truth, np.concatenate([normal, spoilt])))
