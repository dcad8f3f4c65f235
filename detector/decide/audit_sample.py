"""Rows sampled for people to look at although nothing flags them, so that what is missed can be estimated.

Who only looks at what was flagged never hears of what was not. A row sampled with a known chance stands for one over
that chance of the rows like it (Horvitz and Thompson, JASA 1952).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.errors import SettingError, ShapeError


@dataclass(frozen=True)
class AuditSample:
    """Which rows are sampled. A row's name decides, so that the same row is sampled whenever it is scored again.

    - ``rows``: how many are to be sampled on average.
    - ``among``: of how many; by default of those that are scored together.
    - ``random_state``: another one samples other rows.

    Raises ``SettingError`` if a number is not positive.

    >>> AuditSample(rows=5, among=1_000).chance(80), AuditSample(rows=5).chance(80)
    (0.005, 0.0625)
    """

    rows: float
    among: int | None = None
    random_state: int = 0

    def __post_init__(self) -> None:
        if not self.rows > 0 or (self.among is not None and self.among < 1):
            raise SettingError(
                f"An exploration draws some rows of some. Expected positive numbers, received rows={self.rows}, "
                f"among={self.among}."
            )

    def chance(self, n_rows: int) -> float:
        """With what probability each of some rows is sampled, if it is not flagged."""
        return min(1.0, self.rows / max(self.among or n_rows, 1))

    def uniform(self, names: Iterable[object]) -> Floats:
        """A number in [0, 1) for each row; rows below their chance are sampled.

        >>> bool((AuditSample(rows=1).uniform([7, 8]) == AuditSample(rows=1).uniform(["7", "8"])).all())
        True
        """
        seed = str(self.random_state).encode()[:64]
        texts = (str(name).encode(errors="surrogatepass") for name in names)
        hashes = b"".join(blake2b(text, digest_size=8, key=seed).digest() for text in texts)
        return np.asarray((np.frombuffer(hashes, dtype="<u8") >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def missed(truth: NDArray[np.floating], chance: NDArray[np.floating]) -> float:
    """About how many anomalies there are among all rows that could have been sampled.

    ``truth`` is 1 anomalous, 0 normal, NaN unknown, of each row sampled; the known ones stand for the others.
    ``chance`` is with what probability it was sampled. Raises ``ShapeError`` if there is not one chance a row, or one
    is zero.

    >>> missed(np.array([1.0, 0.0, 0.0]), np.array([0.1, 0.1, 0.1]))
    10.0
    """
    if np.shape(truth) != np.shape(chance) or not np.all(np.asarray(chance) > 0):
        raise ShapeError(
            f"Expected one positive chance for each of {len(truth)} drawn rows, received {np.shape(chance)}, the "
            f"least {np.min(chance, initial=1.0):g}."
        )
    stands_for, known = 1.0 / np.asarray(chance, dtype=np.float64), ~np.isnan(truth)
    if not known.any():
        return float("nan")
    return float((np.asarray(truth) * stands_for)[known].sum() * (stands_for.sum() / stands_for[known].sum()))
