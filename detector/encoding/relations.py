"""Exact relations between numeric columns: a tax that is 19 % of a net amount, a total that is a sum of its parts.

A row that breaks one may be ordinary in every column and near other rows, so that members which compare rows as a whole
hardly see it. ``detector.encoding.find_relations`` finds relations that nearly all training rows keep up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from detector.arrays import Flags, Floats

PRODUCT, SUM, LEAST = "product", "sum", "least"
SLACK = 2.0
"""Rounding errors that a row may be off by: parts of a sum may have been rounded, each and by other rules."""
ROUNDING = 1e-6
"""What numbers without a last digit may be off by, as a share of their size."""


@dataclass(frozen=True)
class Relation:
    """One column made of others, up to rounding.

    - ``kind``: "product" (one of ``factors`` times the product of the terms), "sum" (of the terms, each times its
      factor, and of ``constant``), or "least" (the target is at least ``constant``).
    - ``target``: the column; ``terms``: those it is made of.
    - ``rounding``: how far each column's values, the target's first, may be from what they stand for.
    - ``broken``: the share of the training rows that break it.
    - ``weight``: how far breaking it lifts a risk, as a share of what something does that no training row showed.

    >>> tax = Relation(PRODUCT, "tax", ("net",), (0.19, 0.07), rounding=(0.01, 0.0))
    >>> tax.breaks(np.array([[19.0, 100.0], [7.0, 100.0], [0.0, 100.0], [np.nan, 100.0]])).tolist()
    [False, False, True, False]
    >>> tax.formula, tax.expected(np.array([[0.0, 100.0]]), "tax").round(2).tolist()
    ('tax = 0.19 or 0.07 × net', [7.0])
    """

    kind: str
    target: str
    terms: tuple[str, ...]
    factors: tuple[float, ...]
    constant: float = 0.0
    rounding: tuple[float, ...] = ()
    broken: float = 0.0
    weight: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Target and terms."""
        return (self.target, *self.terms)

    @property
    def n_ways(self) -> int:
        """In how many ways it can be kept."""
        return len(self.factors) if self.kind == PRODUCT else 1

    def breaks(self, values: Floats) -> Flags:
        """Which rows break it; ``values``, (n_rows, 1 + n_terms): of target and terms. A row with a gap does not."""
        if self.kind == LEAST:
            return np.asarray(values[:, 0] < self.constant)
        with np.errstate(over="ignore", invalid="ignore"):
            made = self._made(values[:, 1:])
            off = np.abs(values[:, :1] - made) - SLACK * self._rounding(values, made)
            return np.asarray((off > 0).all(axis=1))

    def expected(self, values: Floats, column: str) -> Floats:
        """What a column should be by the others, shape (n_rows,): of several factors, by the one that comes nearest.

        NaN where nothing follows, as from a factor of 0.
        """
        place = self.columns.index(column)
        others, factors = np.delete(values, place, axis=1), np.array(self.factors)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if place == 0:
                found = self._made(others)
            elif self.kind == SUM:
                rest = others[:, 1:] @ np.delete(factors, place - 1) + self.constant
                found = ((others[:, 0] - rest) / factors[place - 1])[:, None]
            else:
                found = others[:, :1] / (others[:, 1:].prod(axis=1)[:, None] * factors)
            away = np.where(np.isfinite(found), np.abs(found - values[:, [place]]), np.inf)
        nearest = away.argmin(axis=1)[:, None]
        found = np.where(np.isfinite(found), found, np.nan)
        return np.asarray(np.take_along_axis(found, nearest, axis=1)[:, 0])

    @property
    def formula(self) -> str:
        """The relation in words.

        >>> Relation(SUM, "total", ("net", "rebate"), (1.0, -1.0), constant=4.9).formula
        'total = net + 4.9 - rebate'
        """
        if self.kind == LEAST:
            return f"{self.target} at least {self.constant:.6g}"
        if self.kind == PRODUCT:
            rates = " or ".join(f"{factor:.6g}" for factor in self.factors)
            return f"{self.target} = {'' if rates == '1' else f'{rates} × '}{' × '.join(self.terms)}"
        parts = [
            (factor, name if abs(factor) == 1 else f"{abs(factor):.6g} × {name}")
            for factor, name in zip(self.factors, self.terms, strict=True)
        ]
        parts += [(self.constant, f"{abs(self.constant):.6g}")] if self.constant else []
        said = " ".join(f"{'-' if factor < 0 else '+'} {text}" for factor, text in sorted(parts, key=_is_taken_off))
        return f"{self.target} = {said.removeprefix('+ ')}"

    def _made(self, terms: Floats) -> Floats:
        """The target by the terms, shape (n_rows, n_factors), or (n_rows, 1) of a sum."""
        factors = np.array(self.factors)
        if self.kind == SUM:
            return np.asarray(terms @ factors + self.constant)[:, None]
        return np.asarray(terms.prod(axis=1)[:, None] * factors)

    def _rounding(self, values: Floats, made: Floats) -> Floats:
        """How far rounding takes the target from what the terms make of it, of the shape of ``made``."""
        own, *of_terms = self.rounding or (0.0,) * values.shape[1]
        factors = np.abs(np.array(self.factors))
        if self.kind == SUM:
            largest = np.abs(values).max(axis=1)[:, None]
            return np.asarray(own + float(factors @ np.array(of_terms)) + ROUNDING * largest)
        terms = np.abs(values[:, 1:])
        slopes = np.column_stack([np.delete(terms, place, axis=1).prod(axis=1) for place in range(terms.shape[1])])
        return np.asarray(own + (slopes @ np.array(of_terms))[:, None] * factors + ROUNDING * np.abs(made))


@dataclass(frozen=True)
class Relations:
    """The relations of a table.

    >>> table = Relations((Relation(SUM, "gross", ("net", "tax"), (1.0, 1.0), rounding=(0.01, 0.0, 0.0)),))
    >>> table.broken(np.array([[1.0, 0.2, 1.2], [1.0, 0.2, 1.0]]), {"net": 0, "tax": 1, "gross": 2}).ravel().tolist()
    [False, True]
    """

    found: tuple[Relation, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def broken(self, numeric: Floats, places: Mapping[str, int]) -> Flags | None:
        """Which of them each row breaks, shape (n_rows, n_relations); None if there are none.

        - ``numeric``, (n_rows, n_columns): in the units of the table; ``places``: which column is called what.
        """
        if not self.found:
            return None
        return np.column_stack([each.breaks(numeric[:, [places[n] for n in each.columns]]) for each in self.found])

    def weight(self, broken: Flags) -> Floats:
        """How far what each row breaks lifts its risk, shape (n_rows,).

        One wrong cell breaks all relations that its column is in, so they do not add up.
        """
        return np.asarray((broken * np.array([each.weight for each in self.found])).max(axis=1))

    def weighted(self, weights: Sequence[float]) -> Self:
        """The same with other weights."""
        return replace(self, found=tuple(replace(each, weight=w) for each, w in zip(self.found, weights, strict=True)))

    def at_fault(self, broken: Flags) -> tuple[Relation, str]:
        """Of what one row breaks, shape (n_relations,): a relation and the column that is most likely wrong.

        It is in most of the relations that are broken and, of several, in fewest of those that are kept; then a target.
        """
        wrong = [each for each, is_broken in zip(self.found, broken, strict=True) if is_broken]
        kept = [each for each, is_broken in zip(self.found, broken, strict=True) if not is_broken]

        def blame(name: str) -> tuple[int, int]:
            return sum(name in each.columns for each in wrong), -sum(name in each.columns for each in kept)

        columns = dict.fromkeys([each.target for each in wrong] + [name for each in wrong for name in each.terms])
        column = max(columns, key=blame)
        return min((each for each in wrong if column in each.columns), key=lambda each: each.n_ways), column

    def state(self) -> list[dict[str, Any]]:
        """Plain values, for JSON."""
        return [asdict(each) for each in self.found]

    @classmethod
    def from_state(cls, values: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of ``state``; nothing is what bundles say that knew none."""
        listed = ("terms", "factors", "rounding")
        return cls(tuple(Relation(**{**each, **{name: tuple(each[name]) for name in listed}}) for each in values))


def _is_taken_off(part: tuple[float, str]) -> bool:
    return part[0] < 0
