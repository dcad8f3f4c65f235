"""What every encoder refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from detector.checks import as_whole
from detector.errors import DataError, SettingError, ShapeError


def check_numbers(estimator: Any, X: Any, *, reset: bool, allow_nan: bool = True, accept_sparse: bool = False) -> Any:
    """Validate rows as scikit-learn does, and raise this project's errors.

    Raises ``ShapeError`` if the rows differ in length, or from those fitted, or are not flat; ``DataError`` if they are
    not numbers, infinite, or too few.
    """
    if isinstance(X, list | tuple) and len(lengths := {len(row) for row in X if isinstance(row, Sequence)}) > 1:
        raise ShapeError(
            f"Expected rows of one length, received rows of {min(lengths)} to {max(lengths)} values. Pad short windows "
            f"with NaN; for token sequences use TokenAutoencoder."
        )
    shape: tuple[int, ...] = tuple(getattr(X, "shape", ()))
    if len(shape) > 2:
        raise ShapeError(
            f"Expected flat rows (n_rows, n_features), received shape {shape}. Flatten windows and images with "
            f"X.reshape(len(X), -1) and say their form by the estimator's parameters."
        )
    wanted = getattr(estimator, "n_features_in_", None)
    differs = not reset and len(shape) == 2 and shape[1] != wanted
    try:
        return validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if allow_nan else True,
            accept_sparse="csr" if accept_sparse else False,
            ensure_min_samples=2 if reset else 1,
        )
    except ValueError as error:
        raise (ShapeError if differs else DataError)(f"{error}") from error


def check_sizes(estimator: Any, *names: str) -> None:
    """Refuse sizes that are not positive whole numbers; a name may hold one or a tuple. Whole floats become ints."""
    for name in names:
        value = getattr(estimator, name)
        given = tuple(value) if isinstance(value, tuple | list) else (value,)
        sizes = tuple(as_whole(size) for size in given)
        if not all(size is not None and size >= 1 for size in sizes):
            raise SettingError(f"{name} must be positive whole numbers. Received: {name}={value!r}.")
        if any(size is not each for size, each in zip(sizes, given, strict=True)):
            object.__setattr__(estimator, name, sizes if isinstance(value, tuple | list) else sizes[0])


def check_not_negative(estimator: Any, *names: str) -> None:
    """Refuse negative numbers."""
    for name in names:
        if not getattr(estimator, name) >= 0:
            raise SettingError(f"{name} must not be negative. Received: {name}={getattr(estimator, name)!r}.")


def check_heads(estimator: Any) -> None:
    """Refuse a width that attention heads cannot share."""
    if estimator.units % estimator.heads:
        raise SettingError(
            f"units must be a multiple of heads. Received: units={estimator.units}, heads={estimator.heads}."
        )


def split_window(timesteps: int | None, n_features: int) -> tuple[int, int]:
    """Time steps and sensors of a flattened window; without ``timesteps`` it is one sensor's.

    Raises ``SettingError`` if ``timesteps`` is not a positive whole number; ``ShapeError`` if it does not divide the
    number of columns.

    >>> split_window(64, 512), split_window(None, 512)
    ((64, 8), (512, 1))
    """
    if timesteps is None:
        return n_features, 1
    if not isinstance(timesteps, int | np.integer) or timesteps < 1:
        raise SettingError(f"timesteps must be a positive whole number or None. Received: timesteps={timesteps!r}.")
    if n_features % timesteps:
        raise ShapeError(
            f"Expected windows of {timesteps} time steps flattened to rows of timesteps * sensors, received rows "
            f"of {n_features}, which {timesteps} does not divide. Flatten (n, timesteps, sensors) with "
            f"X.reshape(len(X), -1), and pad shorter windows with NaN."
        )
    return int(timesteps), n_features // int(timesteps)
