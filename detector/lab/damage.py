"""Rows made worse on purpose: noise, gaps, and values that do not belong together.

Rows are what encoders take: an array, where ``categorical`` names the columns that hold codes; a SciPy CSR array;
a list of token lists; or a mapping of branches to any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import DataError, SettingError

Categorical = Sequence[int] | Mapping[str, Sequence[int]]


def noisy(rows: Any, level: float, *, categorical: Categorical = (), random_state: int = 0) -> Any:
    """Add noise.

    Numbers get Gaussian noise of ``level`` deviations of their column. Of categories and tokens, a share ``level`` is
    replaced by one drawn from all rows. What is not zero in a CSR array is multiplied by one plus the noise.

    >>> noisy([[1, 2], [3]], 0.0)
    [[1, 2], [3]]
    """
    if level < 0:
        raise SettingError(f"level must not be negative. Received: level={level!r}.")
    rng = np.random.default_rng(random_state)

    def numbers(X: NDArray[Any], chosen: Sequence[int]) -> NDArray[Any]:
        worse = X + level * _deviation(X) * rng.normal(size=X.shape)
        for at in chosen:
            hit = rng.random(len(X)) < level
            worse[:, at] = np.where(hit, rng.permutation(X[:, at]), X[:, at])
        return worse

    def tokens(lists: list[list[Any]]) -> list[list[Any]]:
        pool = _pool(lists)
        return [[pool[rng.integers(len(pool))] if rng.random() < level else t for t in row] for row in lists]

    def sparse(X: Any) -> Any:
        worse = X.copy()
        worse.data = X.data * (1.0 + level * rng.normal(size=X.data.shape))
        return worse

    return _each_form(rows, categorical, numbers=numbers, tokens=tokens, sparse=sparse)


def incomplete(rows: Any, share: float, *, gap: float = np.nan, random_state: int = 0) -> Any:
    """Lose a share of the values: ``gap`` in an array, zero in a CSR array, left out of a token list.

    >>> incomplete(np.ones((1, 3)), 0.999)
    array([[nan, nan, nan]])
    """
    _check_share(share)
    rng = np.random.default_rng(random_state)

    def numbers(X: NDArray[Any], _: Sequence[int]) -> NDArray[Any]:
        return np.where(rng.random(X.shape) < share, gap, X)

    def tokens(lists: list[list[Any]]) -> list[list[Any]]:
        return [[token for token in row if rng.random() >= share] for row in lists]

    def sparse(X: Any) -> Any:
        worse = X.copy()
        worse.data = np.where(rng.random(X.data.shape) < share, 0.0, X.data)
        return worse

    return _each_form(rows, (), numbers=numbers, tokens=tokens, sparse=sparse)


def unrelated(rows: Any, *, random_state: int = 0) -> Any:
    """Rows whose values come each from another row: each is normal on its own, and they do not belong together.

    Token lists keep their lengths, and every token is drawn from all rows.

    >>> unrelated(np.array([[1, 10], [2, 20], [3, 30]])).tolist()
    [[3, 30], [1, 20], [2, 10]]
    """
    rng = np.random.default_rng(random_state)

    def numbers(X: NDArray[Any], _: Sequence[int]) -> NDArray[Any]:
        return rng.permuted(X, axis=0)

    def tokens(lists: list[list[Any]]) -> list[list[Any]]:
        pool = _pool(lists)
        return [[pool[at] for at in rng.integers(len(pool), size=len(row))] for row in lists]

    def sparse(X: Any) -> Any:
        columns = X.tocsc(copy=True)
        for start, stop in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
            columns.indices[start:stop] = np.sort(rng.choice(X.shape[0], stop - start, replace=False))
        return columns.tocsr()

    return _each_form(rows, (), numbers=numbers, tokens=tokens, sparse=sparse)


def contaminated(rows: Any, strange: Any, share: float, *, random_state: int = 0) -> Any:
    """Replace a share of the rows by strange ones, at least one unless the share is 0.

    Raises ``DataError`` if there are too few strange rows.

    >>> contaminated([[1], [2], [3], [4]], [[9]], 0.25)
    [[1], [2], [9], [4]]
    """
    _check_share(share)
    n_rows = count(rows)
    n_strange = min(max(1, round(share * n_rows)), n_rows) if share else 0
    if n_strange > count(strange):
        raise DataError(
            f"Contaminating {share:.0%} of {n_rows} rows needs {n_strange} strange rows, received {count(strange)}. "
            f"Give more of them, or a lower share."
        )
    order = np.arange(n_rows)
    order[np.random.default_rng(random_state).permutation(n_rows)[:n_strange]] = n_rows + np.arange(n_strange)
    return _taken_from(rows, strange, order)


def count(rows: Any) -> int:
    """How many rows there are, whatever their form.

    >>> count({"a": [[1], [2]]})
    2
    """
    if isinstance(rows, Mapping):
        return count(next(iter(rows.values())))
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)


def take(rows: Any, chosen: NDArray[np.integer[Any]]) -> Any:
    """Some rows, in the form they have.

    >>> take([[1], [2], [3]], np.array([2, 0]))
    [[3], [1]]
    """
    return _taken_from(rows, take_none(rows), chosen)


def take_none(rows: Any) -> Any:
    """No rows, in the form they have."""
    return {name: take_none(part) for name, part in rows.items()} if isinstance(rows, Mapping) else rows[:0]


def _taken_from(rows: Any, more: Any, order: NDArray[np.integer[Any]]) -> Any:
    """Rows by their place in the two sets, one after the other."""
    if isinstance(rows, Mapping):
        return {name: _taken_from(part, more[name], order) for name, part in rows.items()}
    if isinstance(rows, list | tuple):
        both = [*rows, *more]
        return [both[at] for at in order]
    if isinstance(rows, np.ndarray):
        return np.concatenate([rows, more])[order]
    from scipy.sparse import vstack

    return vstack([rows, more], format="csr")[order]


def _each_form(
    rows: Any,
    categorical: Categorical,
    *,
    numbers: Callable[[NDArray[Any], Sequence[int]], NDArray[Any]],
    tokens: Callable[[list[list[Any]]], list[list[Any]]],
    sparse: Callable[[Any], Any],
) -> Any:
    """Give rows to the function of their form, branches one by one."""
    if isinstance(rows, Mapping):
        by_branch = categorical if isinstance(categorical, Mapping) else {}
        return {
            name: _each_form(part, by_branch.get(name, ()), numbers=numbers, tokens=tokens, sparse=sparse)
            for name, part in rows.items()
        }
    if isinstance(rows, np.ndarray):
        return numbers(rows, () if isinstance(categorical, Mapping) else categorical)
    if isinstance(rows, list | tuple):
        return tokens([list(row) for row in rows])
    if hasattr(rows, "indptr"):
        return sparse(rows)
    raise DataError(
        f"Expected an array, a CSR array, token lists or a mapping of these, received {type(rows).__name__}. Turn a "
        f"frame into an array with to_numpy()."
    )


def _deviation(X: NDArray[Any]) -> Floats:
    """Standard deviation of each column's values that are there, 0 where there are none."""
    seen = ~np.isnan(X)
    n_seen = np.maximum(seen.sum(axis=0), 1)
    centre = np.where(seen, X, 0.0).sum(axis=0) / n_seen
    deviation: Floats = np.sqrt(np.square(np.where(seen, X - centre, 0.0)).sum(axis=0) / n_seen)
    return deviation


def _pool(lists: list[list[Any]]) -> list[Any]:
    return [token for row in lists for token in row]


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise SettingError(f"share must lie in [0, 1). Received: share={share!r}.")
