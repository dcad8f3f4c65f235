"""What a ``SequenceDetector`` is given → a frame and its meaning."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from detector.errors import SchemaError
from detector.schema import Schema

Input: TypeAlias = pd.DataFrame | NDArray[Any]


def read_input(detector: Any, X: Input, *, schema: Schema | None, reset: bool) -> tuple[pd.DataFrame, Schema]:
    """Return the frame as given if there is a schema; else one of numbers, checked as scikit-learn does.

    Parameters
    ----------
    detector : estimator
        Told its ``feature_names_in_`` and ``n_features_in_`` while fitting.
    X : DataFrame or array of shape (n_rows, n_columns)
        What the caller gave.
    schema : Schema or None
        The meaning of the columns, if the caller gave it.
    reset : bool
        Whether the detector is being fitted.

    Raises
    ------
    SchemaError
        If an array is given where there is a schema, or a column is no sensor where there is none.
    """
    if schema is not None:
        if not isinstance(X, pd.DataFrame):
            raise SchemaError(
                f"A detector with a schema expects a pandas DataFrame with named columns, received "
                f"{type(X).__name__}. Convert it, such as with pd.DataFrame(X, columns=[...])."
            )
        if reset:
            detector.feature_names_in_ = np.array([str(name) for name in X.columns], dtype=object)
            detector.n_features_in_ = X.shape[1]
        return X, schema
    if isinstance(X, pd.DataFrame):
        for name, dtype in X.dtypes.items():
            if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_object_dtype(dtype)):
                raise SchemaError(
                    f"Column {name!r} is of type {dtype}, which is no sensor. Name the time, the entity and the "
                    f"sensors with a schema."
                )
    values = validate_data(detector, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
    names = getattr(detector, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
    plain = Schema(numeric=tuple(str(name) for name in names))
    return pd.DataFrame(values, columns=list(plain.numeric)), plain
