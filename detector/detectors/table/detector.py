"""The chain for tables as one scikit-learn outlier estimator."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data
from threadpoolctl import threadpool_limits

from detector.arrays import Flags, Floats
from detector.checks import check_interval, check_kind
from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.table.fit import assemble
from detector.detectors.table.recipe import MEMBERS, Recipe
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.training_filters import Filters
from detector.detectors.table.verdicts import Verdicts
from detector.encoders.events import EventAutoencoder
from detector.encoders.table import TableAutoencoder
from detector.errors import DataError, SchemaError, UnfittedError
from detector.explain.reason import Reason
from detector.members.event_sequence import Steps
from detector.schema import Schema, refuse_no_columns
from detector.training.settings import OnStep

MOST_ROWS_FOR_OFFSET = 20_000
LEAST_ROWS = 3


class UnfittedDetectorError(UnfittedError, NotFittedError):  # type: ignore[misc]  # scikit-learn ships no types
    """``UnfittedError`` for those who expect scikit-learn's."""


@dataclass(kw_only=True, eq=False, repr=False)
class TabularDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Find anomalies in a table: autoencoder, isolation forest and neighbours, joined and calibrated.

    Parameters
    ----------
    schema : Schema, optional
        What the columns mean. Without one, kinds are inferred from the frame, and every array column is numeric.
    members : tuple of str
        Which of "autoencoder", "forest", "neighbours", and "sequence", to join.
    autoencoder : TableAutoencoder, optional
        Its architecture and training; the defaults if not given.
    trees : int
        Trees of the isolation forest.
    max_samples : int
        Rows each tree is grown on.
    references : int
        Rows to remember at most, which stand for all that are known. Scoring time grows with it.
    kernel_references : int
        Of these, rows the contraction is measured with.
    clean_references : int
        Rows of the bulk that training rows are ranked by.
    filters : Filters, optional
        What is left out of training altogether; nothing if not given.
    clean_share : float
        Share of the training rows, those the forest finds most unusual, that the density member and
        the autoencoder do not learn from.
    calibration_share : float
        Share of the rows that networks do not learn from, at most 50,000 rows: their scores tell by how much those
        of the others are too low. Every row calibrates. Too small, and that is guessed from few rows; too big, and
        networks learn from few.
    calibrate_on : str
        "known": where at least half of the rows have a label, only those calibrate that are known to be normal; the
        others may hold anomalies that nobody has reported yet. "all": every row does.
    tail : str
        "extrapolated", "empirical" or "pareto", see ``Calibrator``.
    contamination : float
        Share of the training rows that ``predict`` calls anomalous, as everywhere in scikit-learn. ``judge`` does not
        use it: it decides by calibrated p-values and a policy.
    max_levels : int
        Levels kept of a categorical column.
    name : str
        What the detector is called.
    random_state : int
        Seeds everything.
    events : EventAutoencoder, optional
        How the member "sequence" is made and trained; the defaults if not given.
    steps : Steps, optional
        The columns that hold the events before each row, for that member or a head; other members do not read them.
    warm_start : TabularScorer, optional
        An earlier detector of the same columns and architecture, with whose weights the autoencoder starts.
    on_step : callable, optional
        Told (what, done, planned) while fitting.

    Attributes
    ----------
    scorer_ : TabularScorer
        All that scoring needs.
    history_ : dict of str to list of float
        Loss, held-out loss and learning rate of each epoch.
    left_out_ : DataFrame
        The rows that were not learnt from, because they cannot be read, because of ``filters`` or because they lie
        apart from all others: ``row``, their place in ``X``, and ``reason``.
    offset_ : float
        ``decision_function`` is ``score_samples`` minus this.

    >>> rng = np.random.default_rng(0)
    >>> rows = pd.DataFrame({"amount": rng.normal(40, 5, 300), "fee": rng.normal(1, 0.1, 300)})
    >>> detector = TabularDetector(members=("forest", "neighbours")).fit(rows)
    >>> detector.predict(pd.DataFrame({"amount": [41.0, 900.0], "fee": [1.0, 1.0]}))
    array([ 1, -1])
    """

    schema: Schema | None = None
    members: tuple[str, ...] = MEMBERS
    autoencoder: TableAutoencoder | None = None
    trees: int = 100
    max_samples: int = 256
    references: int = 2_000
    kernel_references: int = 2_000
    clean_references: int = 512
    filters: Filters | None = None
    clean_share: float = 0.25
    calibration_share: float = 0.2
    calibrate_on: str = "known"
    tail: str = "extrapolated"
    contamination: float = 0.01
    max_levels: int = 100
    name: str = "detector"
    random_state: int = 0
    events: EventAutoencoder | None = None
    steps: Steps | None = None
    warm_start: TabularScorer | None = None
    on_step: OnStep | None = None

    def fit(self, X: pd.DataFrame | NDArray[Any], y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn what is usual.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_columns)
            Training rows; those that cannot be read are left out, see ``left_out_``. Rows whose label says anomalous
            are not learnt from; for those without one see ``calibrate_on``.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        DataError
            If fewer than three usable rows are left, or no column varies.
        SchemaError
            If a column the schema names is missing, or an array is given where there is a schema.
        SettingError
            If a parameter has no meaning.
        """
        started = time.perf_counter()
        settings = {field.name: getattr(self, field.name) for field in fields(Recipe)}
        recipe = Recipe(**settings | {"autoencoder": self.autoencoder or TableAutoencoder()})
        check_interval(self, "(0, 0.5]", "contamination")
        check_kind(self, Schema, "schema")
        check_kind(self, Filters, "filters")
        frame = self._frame(X, reset=True)
        schema = self._schema
        cleaned = clean(frame, schema)
        rows = cleaned.usable(LEAST_ROWS)
        if schema.label is not None and schema.label in rows:
            rows = rows[~(rows[schema.label] == 1)]
        if len(rows) < LEAST_ROWS:
            raise DataError(
                f"Expected at least {LEAST_ROWS} usable rows, two to learn from and one to calibrate on; received "
                f"n_samples = {len(rows)}. Give more rows."
            )
        filters = self.filters or Filters()
        with threadpool_limits(limits=1, user_api="blas"):  # for small products, a second thread mostly waits
            filtered = filters.apply(rows, schema, random_state=recipe.random_state)
            made = assemble(filtered.rows, schema, recipe)
            if filters.refit:
                risk = made.scorer.measure(filtered.rows)["risk"].to_numpy()
                filtered = filtered.without_highest(risk, filters.refit, "trimmed refit")
                made = assemble(filtered.rows, schema, recipe)
            rows, apart = filtered.rows, made.scorer.lie_apart(filtered.rows)
            self.scorer_ = made.scorer
            if apart.any():  # what lies so far from all others would be known, and its like no news
                filtered = filtered.without(apart, _apart_reasons(apart))
                made = made.without(apart)
                self.scorer_ = made.scorer.with_trimmed(int(apart.sum()))
        self.history_ = made.history
        self.left_out_ = pd.concat(
            [cleaned.quarantine[list(filtered.left)].astype(object), filtered.left], ignore_index=True
        )
        counts = {f"rows_left_out_{what.replace(' ', '_')}": n for what, n in filtered.counts.items()}
        self.scorer_.metrics.update(counts, fit_seconds=time.perf_counter() - started)
        sample = rows.iloc[:: max(1, len(rows) // MOST_ROWS_FOR_OFFSET)]
        self.offset_ = float(np.percentile(-self.scorer_.measure(sample)["risk"], 100 * self.contamination))
        return self

    def judge(self, X: pd.DataFrame | NDArray[Any], *, policy: Policy | None = None) -> Verdicts:
        """Clean, score, flag and explain; see ``TabularScorer.judge``."""
        return self._fitted().judge(self._frame(X, reset=False), policy=policy)

    def risk(self, X: pd.DataFrame | NDArray[Any]) -> Floats:
        """Anomaly score of each row, higher is more anomalous; NaN where a row cannot be read."""
        return self._measured(X, "risk")

    def p_value(self, X: pd.DataFrame | NDArray[Any]) -> Floats:
        """Share of normal rows at least as unusual as each row; NaN where a row cannot be read."""
        return self._measured(X, "p_value")

    def score_samples(self, X: pd.DataFrame | NDArray[Any]) -> Floats:
        """Minus the risk: higher is more normal, as everywhere in scikit-learn."""
        return -self.risk(X)

    def decision_function(self, X: pd.DataFrame | NDArray[Any]) -> Floats:
        """``score_samples`` shifted so that rows below 0 are anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[np.int64]:
        """1 for normal rows, -1 for anomalous ones and those that cannot be read."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def explain(self, X: pd.DataFrame | NDArray[Any], *, top: int = 3) -> list[list[Reason]]:
        """Reasons for each readable row, most important first."""
        return self._fitted().explain(self._rows(X), top=top)

    def encode(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[np.float32]:
        """The autoencoder's code of each readable row, shape (n_rows, n_code)."""
        return self._fitted().encode(self._rows(X))

    def decode(self, code: NDArray[np.floating[Any]]) -> pd.DataFrame:
        """Codes back as a frame in the units of the table."""
        return self._fitted().decode(code)

    def reconstruct(self, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
        """What the autoencoder makes of each readable row, in the units of the table."""
        return self._fitted().reconstruct(self._rows(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fitted(self) -> TabularScorer:
        if not hasattr(self, "scorer_"):
            raise UnfittedDetectorError(
                "This TabularDetector is not fitted yet. Call fit before asking it for anything."
            )
        return self.scorer_

    def _measured(self, X: pd.DataFrame | NDArray[Any], name: str) -> Floats:
        scorer = self._fitted()
        frame = self._frame(X, reset=False)
        cleaned = clean(frame, self._schema, drop_duplicates=False)
        measured = np.full(len(frame), np.nan)
        measured[cleaned.rows.index] = scorer.measure(cleaned.rows)[name]
        return measured

    def _rows(self, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
        return clean(self._frame(X, reset=False), self._schema, drop_duplicates=False).rows

    def _frame(self, X: pd.DataFrame | NDArray[Any], *, reset: bool) -> pd.DataFrame:
        """The frame as given if there is a schema or the kinds are mixed; else checked as scikit-learn does."""
        if self.schema is None:
            refuse_no_columns(X)
        if isinstance(X, pd.DataFrame) and self._is_mixed(X):
            if reset:
                self.feature_names_in_ = np.array([str(name) for name in X.columns], dtype=object)
                self.n_features_in_ = X.shape[1]
                self._schema = self.schema or Schema.infer(X)
            return X
        if self.schema is not None or (not reset and self._schema.features != self._schema.numeric):
            has = "with a schema" if self.schema is not None else "that was fitted on columns of several kinds"
            raise SchemaError(
                f"A detector {has} expects a pandas DataFrame with named columns, received {type(X).__name__}. "
                f"Convert it, such as with pd.DataFrame(X, columns=[...])."
            )
        names = [str(name) for name in X.columns] if isinstance(X, pd.DataFrame) else []
        values = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        if reset:
            names = names or [f"x{i}" for i in range(values.shape[1])]
            self._schema = Schema(numeric=tuple(names))
        elif not set(self._schema.features) <= set(names):  # by position, as scikit-learn does
            names = list(getattr(self, "feature_names_in_", self._schema.numeric))
        return pd.DataFrame(values, columns=names)

    def _is_mixed(self, X: pd.DataFrame) -> bool:
        return self.schema is not None or not all(pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes)


def _apart_reasons(apart: Flags) -> NDArray[np.object_]:
    others = f"apart: lies with {apart.sum() - 1:,} others apart from all other training rows"
    return np.where(apart, others, "").astype(object)
