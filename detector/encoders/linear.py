"""Principal components, from which the linear path of an autoencoder starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 5000


def principal_components(
    rows: NDArray[np.float32], code: int, *, random_state: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two matrices: rows @ first is a whitened code, code @ second the best linear reconstruction.

    Missing values count as 0, the mean. More than 5,000 rows are sampled down. Components that the rows do not have
    are zeros.

    >>> there, back = principal_components(np.array([[-2.0, 0], [2, 0]], dtype=np.float32), 2, random_state=0)
    >>> np.abs(there).round(3).tolist(), np.abs(back).round(3).tolist()
    ([[0.5, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    from sklearn.decomposition import PCA

    n_rows, width = rows.shape
    if n_rows > MOST_ROWS:
        rows = rows[np.random.default_rng(random_state).choice(n_rows, MOST_ROWS, replace=False)]
    clean: NDArray[Any] = np.nan_to_num(rows.astype(np.float64))
    found = PCA(min(code, *clean.shape), random_state=random_state).fit(clean - clean.mean(axis=0))
    deviation = np.sqrt(np.square(clean @ found.components_.T).mean(axis=0))
    real = deviation > 1e-6
    there, back = np.zeros((width, code)), np.zeros((code, width))
    n_found = len(deviation)
    there[:, :n_found] = np.where(real, found.components_.T / np.where(real, deviation, 1.0), 0.0)
    back[:n_found] = np.where(real[:, None], found.components_ * deviation[:, None], 0.0)
    return there.astype(np.float32), back.astype(np.float32)
