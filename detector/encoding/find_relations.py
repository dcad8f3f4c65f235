"""Find exact relations between the numeric columns of training rows; see ``detector.encoding.relations``.

Candidates are products and sums of columns. Each is tried on a few hundred rows; what holds there is counted on all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import numpy as np

from detector.arrays import Flags, Floats
from detector.encoding.relations import LEAST, PRODUCT, ROUNDING, SUM, Relation, Relations

MOST_BROKEN = 0.01
"""The share of the rows that may break a relation. Smaller, and a few wrong rows in training hide it; larger, and
breaking it is hardly news."""
EXCEPTIONS = 3.0
"""How many times as many of a few rows may break one."""
MOST_BY_CHANCE = 0.1
"""The share of rows that may keep a relation if one column is another row's. Larger, and columns of few values seem to
be related; smaller, and rates of which one is common are missed."""
LEAST_ROWS = 200
"""Fewer, and what all rows keep may be chance."""
MOST_FACTORS, LEAST_FACTOR_SHARE = 5, 0.01
"""Rates of a product, and the share of rows that each has at least. Of more, or rarer, hardly a value is wrong."""
FIRST_ROWS, TRIED_ROWS, SUMMED_ROWS, LOOKED_AT = 50, 400, 1_000, 5_000
LEAST_VALUES, LEAST_RATIOS = 20, 30
"""Of the rows that are tried. Fewer different values, or fewer ratios, come about by chance."""
MOST_IN_PAIRS, MOST_IN_TRIPLES = 300, 40
MOST_RELATIONS = 30
MOST_MISSING = 0.1
MOST_DIGITS = 6
TELLING = 0.1
"""A ratio counts if rounding makes it no less certain than by this share."""
STEPS = 15
COUNTS_FOR_NOTHING, OFF_BY, NO_SUM = 1e-4, 1e-2, 0.1
"""As shares of the target's spread: a term that moves it less is none; what is farther off in the end is no exact sum,
and what is that far off by least squares need not be looked at again."""
FAR_OUT = 20.0
"""In spreads of a column: such values would draw the sum towards themselves."""
PLAIN_DIGITS = 4


def find_relations(numeric: Floats, names: Sequence[str], *, random_state: int = 0) -> Relations:
    """Those that nearly all rows keep.

    - ``numeric``, (n_rows, n_columns): NaN where missing.
    - ``random_state``: which rows are tried first.

    >>> net = np.exp(np.random.default_rng(0).normal(size=300)).round(2)
    >>> found = find_relations(np.column_stack([net, (0.19 * net).round(2)]), ["net", "tax"])
    >>> [each.formula for each in found.found]
    ['tax = 0.19 × net']
    """
    if len(numeric) < LEAST_ROWS or len(names) < 2:
        return Relations()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of huge values, which are related to none
        table = _Table.of(numeric, names, random_state)
        found = _fewest(table.products())
        multiples = {each.target for each in found if len(each.terms) == each.n_ways == 1}
        found += table.sums([c for c in table.varied if table.names[c] not in multiples])
    return Relations(tuple(sorted(found, key=lambda each: (each.broken, each.n_ways))[:MOST_RELATIONS]))


def find_bounds(numeric: Floats, names: Sequence[str]) -> tuple[Relation, ...]:
    """Which columns, such as days from one date to another, are hardly ever below 0.

    - ``numeric``, (n_rows, n_columns): NaN where missing.

    >>> [each.formula for each in find_bounds(np.arange(300.0)[:, None], ["days from sent to paid"])]
    ['days from sent to paid at least 0']
    """
    found = []
    for name, column in zip(names, numeric.T, strict=True):
        bound = Relation(LEAST, name, (), ())
        broken = float(bound.breaks(column[:, None]).mean())
        if (~np.isnan(column)).sum() >= LEAST_ROWS and broken <= MOST_BROKEN:
            found.append(replace(bound, broken=broken))
    return tuple(found)


@dataclass(frozen=True)
class _Table:
    """Rows among which relations are looked for.

    - ``few``, (up to 400, n_columns): rows that are tried first.
    - ``digit``: the last digit each column is written with, 0 if there is none.
    - ``varied``, ``many``: columns of more than two values, and of so many that a ratio says something.
    """

    numeric: Floats
    names: Sequence[str]
    few: Floats
    digit: Sequence[float]
    varied: Sequence[int]
    many: Sequence[int]
    rng: np.random.Generator

    @classmethod
    def of(cls, numeric: Floats, names: Sequence[str], random_state: int) -> Self:
        """Look at what the columns hold."""
        rng = np.random.default_rng(random_state)
        few = numeric[rng.permutation(len(numeric))[:TRIED_ROWS]]
        varied = [c for c in range(len(names)) if _count(few[:, c]) > 2][:MOST_IN_PAIRS]
        return cls(
            numeric,
            names,
            few,
            digit=[_last_digit(numeric[:, c]) for c in range(len(names))],
            varied=varied,
            many=[c for c in varied if _count(few[:, c]) >= LEAST_VALUES],
            rng=rng,
        )

    def rounding(self, column: int) -> float:
        """How far a value may be from what it stands for; whole numbers are counted, not rounded."""
        return self.digit[column] if self.digit[column] < 1 else 0.0

    def products(self) -> Iterator[Relation]:
        """Columns that are one of few factors times another column, or times the product of two."""
        made: list[tuple[int, ...]] = [(c,) for c in self.many]
        if len(self.varied) <= MOST_IN_TRIPLES:
            made += combinations(self.varied, 2)
        if not made:
            return
        products = np.column_stack([self.few[:, list(terms)].prod(axis=1) for terms in made])
        off = np.column_stack([self._off(terms) for terms in made])
        for target in self.many:
            places = np.flatnonzero([target not in terms for terms in made])
            for rows in (FIRST_ROWS, TRIED_ROWS):
                tried = self.few[:rows, target], self.digit[target], products[:rows, places], off[:rows, places]
                places = places[_has_few_ratios(*tried)]
            for place in places:
                if (found := self._product(target, made[place], products[:, place], off[:, place])) is not None:
                    yield found

    def _off(self, terms: tuple[int, ...]) -> Floats:
        """How far rounding takes a column, or the product of two."""
        if len(terms) == 1:
            return np.full(len(self.few), self.rounding(terms[0]))
        a, b = terms
        return np.abs(self.few[:, a]) * self.rounding(b) + np.abs(self.few[:, b]) * self.rounding(a)

    def _product(self, target: int, terms: tuple[int, ...], product: Floats, off: Floats) -> Relation | None:
        factors = _factors(*_ratios(self.few[:, target], self.digit[target], product[:, None], off[:, None]))
        if not factors:
            return None
        return self._kept(self._relation(PRODUCT, target, terms, factors), self.few)

    def sums(self, columns: Sequence[int]) -> Iterator[Relation]:
        """Columns that are the sum of two others; then those that are sums of more, or of multiples."""
        columns = [c for c in columns if np.isnan(self.few[:, c]).mean() <= MOST_MISSING]
        rows = self.numeric[self.rng.permutation(len(self.numeric))[:SUMMED_ROWS]]
        rows = rows[~np.isnan(rows[:, columns]).any(axis=1)]
        if len(rows) < LEAST_ROWS or not 1 < len(columns) <= MOST_IN_TRIPLES:
            return
        left = list(columns)
        for target, pair in self._sums_of_two(columns, rows[:TRIED_ROWS]):
            if (found := self._kept(self._relation(SUM, target, pair, (1.0, 1.0)), rows)) is not None:
                left = [c for c in left if c != target]
                yield found
        longer: dict[frozenset[str], Relation] = {}
        for target in [c for c in left if c in self.many]:
            others = [c for c in left if c != target]
            weights, constant = _fit_sum(rows[:, others], rows[:, target])
            terms = tuple(c for c, weight in zip(others, weights, strict=True) if weight)
            if not terms or (len(terms) == 1 and not constant):
                continue
            factors = tuple(weight for weight in weights.tolist() if weight)
            if (found := self._kept(self._relation(SUM, target, terms, factors, constant), rows)) is not None:
                named = frozenset(found.columns)
                longer[named] = min(longer.get(named, found), found, key=self._unlike_total)
        yield from longer.values()

    def _sums_of_two(self, columns: Sequence[int], rows: Floats) -> list[tuple[int, tuple[int, int]]]:
        """Each column that is the sum of two others in nearly all rows, with these."""
        pairs = list(combinations(columns, 2))
        made = np.column_stack([rows[:, a] + rows[:, b] for a, b in pairs])
        found = []
        for target in [c for c in columns if c in self.many]:
            own = rows[:, [target]]
            near = np.abs(own - made) <= 1.01 * self.digit[target] + ROUNDING * np.abs(own)
            kept = np.flatnonzero(near.mean(axis=0) >= 1 - EXCEPTIONS * MOST_BROKEN)
            found += [(target, pairs[place]) for place in kept if target not in pairs[place]]
        return found

    def _relation(
        self, kind: str, target: int, terms: Sequence[int], factors: tuple[float, ...], constant: float = 0.0
    ) -> Relation:
        """Columns as a relation: a sum of whole numbers is exact, and so is one that takes each term as it is."""
        is_counted = all(self.digit[c] >= 1 for c in (target, *terms)) and all(f.is_integer() for f in factors)
        own = 0.0 if is_counted else self.digit[target]
        off = [self.rounding(c) for c in terms]
        if kind == SUM:
            off = [0.0 if abs(f) == 1 else each for each, f in zip(off, factors, strict=True)]
        named = tuple(self.names[c] for c in terms)
        return Relation(kind, self.names[target], named, factors, constant, rounding=(own, *off))

    def _unlike_total(self, relation: Relation) -> tuple[int, float]:
        """Least of a total that is made of its parts: few are taken off, and it is large."""
        size = np.nanmedian(np.abs(self.few[:, self.names.index(relation.target)]))
        return sum(factor < 0 for factor in relation.factors), -float(size)

    def _kept(self, relation: Relation, tried: Floats) -> Relation | None:
        """The relation if nearly all rows keep it, and few would by chance."""
        columns = [self.names.index(name) for name in relation.columns]
        tried = tried[:, columns]
        if relation.breaks(tried).mean() > EXCEPTIONS * MOST_BROKEN or not self._is_telling(relation, tried):
            return None
        broken = float(relation.breaks(self.numeric[:, columns]).mean())
        return replace(relation, broken=broken) if broken <= MOST_BROKEN else None

    def _is_telling(self, relation: Relation, tried: Floats) -> bool:
        """Whether most rows would break it if any one column were another row's."""
        tried = tried[~np.isnan(tried).any(axis=1)]
        if len(tried) < LEAST_RATIOS:
            return False
        for place in range(tried.shape[1]):
            shuffled = tried.copy()
            shuffled[:, place] = self.rng.permutation(tried[:, place])
            is_other = shuffled[:, place] != tried[:, place]
            if not is_other.any() or relation.breaks(shuffled[is_other]).mean() < 1 - MOST_BY_CHANCE:
                return False
        return True


def _count(values: Floats) -> int:
    return len(np.unique(values[~np.isnan(values)]))


def _last_digit(values: Floats) -> float:
    """The last digit that nearly all values are written with; 0 if there is none."""
    seen = values[np.isfinite(values)][:LOOKED_AT]
    for digits in range(MOST_DIGITS + 1):
        scaled = seen * 10.0**digits
        rounding = 1e-9 * np.maximum(np.abs(scaled), 1.0)
        if (np.abs(scaled - np.rint(scaled)) <= rounding).mean() >= 1 - MOST_BROKEN:
            return float(10.0**-digits)
    return 0.0


def _ratios(target: Floats, digit: float, products: Floats, off: Floats) -> tuple[Floats, Floats]:
    """Target by product, and how far rounding may take it, each of the shape of ``products``; NaN where uncertain."""
    ratios = target[:, None] / products
    errors = (digit + np.abs(ratios) * off) / np.abs(products) + ROUNDING * np.abs(ratios)
    certain = np.isfinite(ratios) & np.isfinite(errors) & ((errors <= TELLING * np.abs(ratios)) | (ratios == 0))
    return np.where(certain, ratios, np.nan), np.where(certain, errors, np.nan)


def _has_few_ratios(target: Floats, digit: float, products: Floats, off: Floats) -> Flags:
    """Of which products the target may be few multiples: sorted, its ratios have few gaps; exceptions make some."""
    ratios, errors = _ratios(target, digit, products, off)
    order = np.argsort(ratios, axis=0)
    ratios, errors = np.take_along_axis(ratios, order, axis=0), np.take_along_axis(errors, order, axis=0)
    gaps = (np.diff(ratios, axis=0) > errors[1:] + errors[:-1]).sum(axis=0)
    return np.asarray(gaps < MOST_FACTORS + EXCEPTIONS * MOST_BROKEN * len(target))


def _factors(ratios: Floats, errors: Floats) -> tuple[float, ...]:
    """The few values that ratios have up to their errors, the most frequent first; none if they are not few."""
    certain = ~np.isnan(ratios)
    ratios, errors = ratios[certain], errors[certain]
    if len(ratios) < LEAST_RATIOS:
        return ()
    order = np.argsort(ratios)
    ratios, errors = ratios[order], errors[order]
    ends = np.flatnonzero(np.diff(ratios) > errors[1:] + errors[:-1]) + 1
    groups = list(zip(np.split(ratios, ends), np.split(errors, ends), strict=True))
    groups = [group for group in groups if len(group[0]) >= max(2.0, LEAST_FACTOR_SHARE * len(ratios))]
    groups.sort(key=lambda group: -len(group[0]))
    factors = tuple(_plain(*group) for group in groups)
    return factors if len(factors) <= MOST_FACTORS and any(factors) else ()


def _plain(ratios: Floats, errors: Floats) -> float:
    """The number of fewest digits that as many ratios have, up to their errors, as have the most exact one."""
    exact = float(np.median(ratios[np.argsort(errors, kind="stable")[: len(ratios) // 4 + 1]]))
    kept = (np.abs(ratios - exact) <= errors).mean()
    rounded = (float(f"{exact:.{digits}g}") for digits in range(1, 9))
    return next((each for each in rounded if (np.abs(ratios - each) <= errors).mean() >= kept), exact)


def _fit_sum(terms: Floats, target: Floats) -> tuple[Floats, float]:
    """Plain factors of the terms, 0 of those that do not count, and the constant; all 0 if it is no exact sum.

    By least absolute deviations, which a few rows that break the sum do not move, as least squares with weights.
    """
    none = np.zeros(terms.shape[1]), 0.0
    every = np.column_stack([terms, target])
    centre, (low, high) = np.median(every, axis=0), np.percentile(every, [5, 95], axis=0)
    spread = np.where(high > low, high - low, every.std(axis=0))
    if not spread.all() or not np.isfinite(spread).all():
        return none
    scaled = (every - centre) / spread
    scaled = scaled[(np.abs(scaled) <= FAR_OUT).all(axis=1)]
    if len(scaled) < LEAST_ROWS:
        return none
    inputs, wanted = np.column_stack([scaled[:, :-1], np.ones(len(scaled))]), scaled[:, -1]
    weights, own = np.ones(len(scaled)), spread[-1]
    for _ in range(STEPS):
        root = np.sqrt(weights)
        found, *_ = np.linalg.lstsq(inputs * root[:, None], wanted * root, rcond=1e-10)
        off = np.abs(wanted - inputs @ found)
        if np.median(off) > NO_SUM:
            return none
        weights = 1 / np.maximum(off, 1e-9)
    if np.median(off) > OFF_BY:
        return none
    factors = np.where(np.abs(found[:-1]) < COUNTS_FOR_NOTHING, 0.0, found[:-1] * own / spread[:-1])
    plain = np.array([float(f"{factor:.{PLAIN_DIGITS}g}") for factor in factors])
    if (np.abs(plain - factors) > 1e-3 * np.abs(plain)).any():
        return none
    constant = float(np.median(target - terms @ plain))
    return plain, 0.0 if abs(constant) < 1e-3 * own else float(f"{constant:.8g}")


def _fewest(found: Iterator[Relation]) -> list[Relation]:
    """Of products those that say all: fewest factors first, none between columns that are joined by others already."""
    kept: list[Relation] = []
    joined: dict[str, set[str]] = {}

    def group(name: str) -> set[str]:
        return joined.setdefault(name, {name})

    for each in sorted(found, key=_simplest):
        columns = set(each.columns)
        if any(set(other.columns) <= columns or columns <= set(other.columns) for other in kept):
            continue  # such as a total that is 1 to 5 times the price, as the quantity is
        if any(group(each.target) is group(term) for term in each.terms):
            continue
        if len(each.terms) == 1:
            both = group(each.target) | group(each.terms[0])
            joined |= dict.fromkeys(both, both)
        kept.append(each)
    return kept


def _simplest(relation: Relation) -> tuple[int, int, float, float]:
    """First those with the fewest factors, of the fewest digits: 0.19 times the net amount, not 5.26 times the tax.

    Then those that leave least to rounding: twice a whole number, not half of one.
    """
    digits = [f"{factor:.8g}".replace(".", "").strip("0") for factor in relation.factors]
    return relation.n_ways, len("".join(digits)), relation.rounding[0], relation.broken
