"""The chain for sensor series as one scikit-learn outlier estimator."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError

from detector.arrays import Floats
from detector.checks import check_interval, check_kind, check_seed
from detector.cleaning.clean import clean
from detector.decide.policy import Policy
from detector.detectors.series.encoders import EncoderChoice
from detector.detectors.series.events import MARGIN, events_of
from detector.detectors.series.fit import FittedSeries, Input, fit_scorer, read_input
from detector.detectors.series.groups import SHARED
from detector.detectors.series.recipe import MEMBERS, SeriesRecipe
from detector.detectors.series.scored import ScoredSeries
from detector.detectors.series.scorer import Models, SequenceScorer, Short, check_join
from detector.detectors.series.verdicts import SeriesVerdicts
from detector.errors import SchemaError, SettingError, UnfittedError, nearest
from detector.members.residuals import Residuals
from detector.schema import Schema
from detector.series.sampling import Sampling
from detector.training.settings import OnStep, Training


class UnfittedSequenceError(UnfittedError, NotFittedError):  # type: ignore[misc]  # scikit-learn ships no types
    """``UnfittedError`` for those who expect scikit-learn's."""


class FallBackWarning(UserWarning):
    """A neural encoder did not beat the principal components, which are used in its place."""


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Find anomalies in sensor series: windows against a model of normal ones, sensor by sensor, calibrated.

    A row's risk depends on the rows around it, so a series is scored as a whole: the same row scored in another batch
    has another risk. With ``trailing`` it depends on the rows before it alone; a batch must then begin at the
    beginning, or ``scorer_.memory`` steps earlier, and rows that come later change nothing. The order of an array's
    rows, or of a frame's without a time column, is the order of time.

    Parameters
    ----------
    schema : Schema, optional
        Which columns are the time, the entity and the sensors (numeric or boolean); other columns are passed over.
        Rows whose label is 1 are not learnt from. Without a schema every column is a sensor of one series.
    sampling : Sampling, optional
        What becomes of gaps, uneven or unsorted times, repeats and missing values. An interval that is not given is
        that of the training rows, for scoring too.
    models : {"shared", "entity"}
        One model for all entities, which must then be alike; or one an entity, each with its own threshold.
    short : {"reject", "pad"}
        Whether a series shorter than a window is an error, or is scored as if its first row had lasted longer. A
        short segment between two gaps is always scored so.
    members : tuple of str
        What scores a row: "reconstruction" of windows; the same of "long" ones, of averaged rows; each sensor's
        "spectrum"; an isolation "forest" on each sensor's level, spread, trend and residual in windows; a one-step
        "forecast". What each counts is learnt from planted faults.
    encoder : str or autoencoder, optional
        What rebuilds windows: "conv1d", "lstm", "gru", "transformer" or "variational", or an unfitted autoencoder of
        ``detector.encoders``. Without one: principal components, the floor. Either is fitted
        fold by fold and calibrated on all rows, so an encoder takes as many fits as there are folds, and one.
    fall_back : bool
        Whether the floor is used if the encoder does not beat it on the rows held out; a warning says so.
    training : Training, optional
        How an encoder that is named is trained.
    weights, residuals, window, variance, range_floor, reach, folds, deviation_floor, z_cap, smoothing, trailing, wait
        See ``SeriesRecipe``.
    trees, lags, quantile, period, timezone
        Likewise.
    contamination : float
        Share of the training rows that ``predict`` calls anomalous, as everywhere in scikit-learn. ``judge`` does not
        use it: it decides by the declared threshold, or by calibrated p-values and a policy.
    name : str
        What the detector is called.
    random_state : int
        Seeds forest and encoder; nothing else is random.
    group_by : str, optional
        A pattern that finds the kind of an entity in its name, such as "^([a-z]+)-" for press-17: those of one kind
        share a model, instead of all.
    on_step : callable, optional
        Told (what, done, planned) while fitting.

    Attributes
    ----------
    scorer_ : SequenceScorer
        All that scoring needs.
    sensors_ : tuple of str
        The sensors, in the order of ``contributions``.
    threshold_ : float, or dict by entity
        The risk above which ``judge`` flags a row, by the declared rule and from the training rows alone.
    offset_ : float
        ``decision_function`` is ``score_samples`` minus this.
    history_ : dict of str to list of float
        Loss, held-out loss and learning rate of each epoch of a neural encoder that is used; of several, under
        ``"<entity>: loss"`` and so on.
    messages_ : tuple of str
        What was noticed while fitting, such as that an encoder was not kept.
    loud_stretches_ : tuple of LoudStretches
        Of each model that has some, the few stretches of training that alone make its threshold twice as high or more:
        a fault or a holiday that should not be learnt from, perhaps.

    Notes
    -----
    A sensor that is missing adds nothing to the risk of a row, until it has been silent for longer than usual in
    training: then it adds more than any training row had. A sensor that never read in training is passed over; one
    that was constant is expected to stay so. One that shows the same value for more than twice as many readings as ever
    in training, and more than 8, adds more than any training row had, too, unless it often stood still there.

    >>> time = np.arange(600.0)
    >>> rows = np.column_stack([np.sin(time / 5), np.cos(time / 5), np.sin(time / 5 + 1)])
    >>> detector = SequenceDetector(window=16).fit(rows[:400])
    >>> rows[500:520, 1] = 0.0
    >>> events = detector.judge(rows).events
    >>> len(events), events["sensors"][0].split(", ")[0], bool(500 <= events["peak"][0] < 520)
    (1, 'x1', True)
    """

    schema: Schema | None = None
    sampling: Sampling | None = None
    models: Models = "shared"
    short: Short = "reject"
    members: tuple[str, ...] = MEMBERS
    weights: Mapping[str, float] | None = None
    encoder: Any = None
    fall_back: bool = True
    training: Training | None = None
    residuals: Residuals = "z"
    window: int = 32
    variance: float = 0.95
    range_floor: float | None = None
    reach: float = 10.0
    folds: int = 5
    deviation_floor: float = 0.05
    z_cap: float = 100.0
    smoothing: float | None = None
    trailing: bool = False
    wait: int | None = None
    trees: int = 100
    lags: int = 8
    quantile: float = 0.99
    period: str | None = None
    timezone: str = "UTC"
    contamination: float = 0.01
    name: str = "detector"
    random_state: int = 0
    group_by: str | None = None
    on_step: OnStep | None = None

    def fit(self, X: Input, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn what is usual.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_columns)
            Mostly normal rows.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        SettingError
            If a parameter has no meaning.
        SchemaError
            If a column is missing, is no sensor, or an array is given where there is a schema.
        DataError
            If there are too few rows, a series is shorter than a window, or the sampling policy rejects something.
        """
        started = time.perf_counter()
        recipe = SeriesRecipe(**{field.name: getattr(self, field.name) for field in fields(SeriesRecipe)})
        self._check_settings()
        choice = None
        if self.encoder is not None:
            choice = EncoderChoice(self.encoder, fall_back=self.fall_back, training=self.training)
        rows = clean(self._frame(X, reset=True), self._schema).usable()
        self.scorer_, fitted = fit_scorer(
            rows,
            self._schema,
            recipe,
            name=self.name,
            sampling=self.sampling or Sampling(),
            shared=self.shares_one_model,
            group_by=self.group_by,
            short=self.short,
            encoder=choice,
            random_state=self.random_state,
            on_step=self.on_step,
        )
        self.sensors_ = self.scorer_.sensors
        self._report_messages(fitted)
        risk = self.scorer_.measure(rows)["risk"].dropna()
        self.offset_ = float(np.percentile(-risk, 100 * self.contamination))
        self.scorer_.metrics["fit_seconds"] = time.perf_counter() - started
        return self

    @property
    def shares_one_model(self) -> bool:
        """Whether all entities do."""
        return self.models == "shared" and self.group_by is None

    @property
    def threshold_(self) -> float | dict[Any, float]:
        """The risk above which ``judge`` flags a row; by entity where each has a model."""
        if not hasattr(self, "scorer_"):
            raise AttributeError("threshold_ is known after fit. Call fit first.")
        found = self.scorer_.thresholds
        return found[SHARED] if self.scorer_.shared else found

    def judge(self, X: Input, *, policy: Policy | None = None, join: int = 0) -> SeriesVerdicts:
        """Clean, score, flag and explain; see ``SequenceScorer.judge``."""
        return self._fitted().judge(self._frame(X, reset=False), policy=policy, join=join)

    def events(self, X: Input, *, policy: Policy | None = None, join: int = 0) -> pd.DataFrame:
        """The flagged segments, one line each; see ``SequenceScorer.judge``."""
        check_join(join)
        scored, _ = self._scored(X)
        return events_of(scored, scored.flagged(policy), join=join)

    def curves(self, X: Input, events: pd.DataFrame | pd.Series, *, margin: int = MARGIN) -> pd.DataFrame:
        """What each sensor read and what it should have, around events; see ``SequenceScorer.curves``."""
        return self._fitted().curves(self._frame(X, reset=False), events, margin=margin)

    def risk(self, X: Input) -> Floats:
        """Anomaly score of each row, higher is more anomalous; NaN where a row cannot be read.

        Parameters
        ----------
        X : DataFrame or array of shape (n_rows, n_columns)
            Whole series, see the class.

        Raises
        ------
        SchemaError
            If a sensor is missing or new, or an entity has no model.
        DataError
            If there are no rows, a series is shorter than a window, or the sampling policy rejects something.
        """
        scored, n_rows = self._scored(X)
        return _by_row(scored, scored.risk, n_rows)

    def p_value(self, X: Input) -> Floats:
        """Share of normal rows at least as unusual as each row; NaN where a row cannot be read.

        Conformal, by training rows that the models did not learn from. Approximate: neighbouring rows are alike, and
        the model that scores was fitted on a little more.
        """
        scored, n_rows = self._scored(X)
        return _by_row(scored, scored.p_value, n_rows)

    def score_samples(self, X: Input) -> Floats:
        """Minus the risk: higher is more normal, as everywhere in scikit-learn."""
        return -self.risk(X)

    def decision_function(self, X: Input) -> Floats:
        """``score_samples`` shifted so that rows below 0 are anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Input) -> NDArray[np.int64]:
        """1 for normal rows, -1 for anomalous ones and those that cannot be read."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def contributions(self, X: Input) -> pd.DataFrame:
        """What each sensor adds to each row's risk; a row's contributions sum to its risk."""
        scored, n_rows = self._scored(X)
        return pd.DataFrame(_by_row(scored, scored.contributions(), n_rows), columns=list(self.sensors_))

    def expected(self, X: Input) -> pd.DataFrame:
        """What each sensor should have read in each row, in its own unit; NaN if it never read in training."""
        scored, n_rows = self._scored(X)
        return pd.DataFrame(_by_row(scored, scored.expected, n_rows), columns=list(self.sensors_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _check_settings(self) -> None:
        for name, known in (("models", get_args(Models)), ("short", get_args(Short))):
            if (value := getattr(self, name)) not in known:
                raise SettingError(f"SequenceDetector knows no {name}={value!r}. {nearest(str(value), known)}")
        check_seed(self)
        check_interval(self, "(0, 0.5]", "contamination")
        check_kind(self, Schema, "schema")
        check_kind(self, Sampling, "sampling")
        if not self.shares_one_model and (self.schema is None or self.schema.entity is None):
            raise SettingError(
                "models='entity' needs a schema that names the entity column. Name it, or share a model."
            )
        others = () if self.schema is None else self.schema.categorical + self.schema.datetime
        if strange := sorted({*others} - {self.schema.time if self.schema is not None else None}):
            raise SchemaError(
                f"A SequenceDetector reads numeric and boolean sensors, but the schema lists {strange} as text or "
                f"dates. Leave them out of the schema."
            )

    def _report_messages(self, fitted: Mapping[Any, FittedSeries]) -> None:
        self.messages_ = tuple(found.message for found in fitted.values() if found.message)
        self.loud_stretches_ = tuple(found.loud for found in fitted.values() if found.loud is not None)
        self.scorer_.metrics["messages"] = list(self.messages_)
        shared = self.scorer_.shared
        self.history_ = {
            name if shared else f"{entity}: {name}": curve
            for entity, found in fitted.items()
            for name, curve in found.history.items()
        }
        for message in self.messages_:
            warnings.warn(message, FallBackWarning, stacklevel=3)

    def _fitted(self) -> SequenceScorer:
        if not hasattr(self, "scorer_"):
            raise UnfittedSequenceError(
                "This SequenceDetector is not fitted yet. Call fit before asking it for anything."
            )
        return self.scorer_

    def _scored(self, X: Input) -> tuple[ScoredSeries, int]:
        scorer = self._fitted()
        frame = self._frame(X, reset=False)
        return scorer.score_steps(clean(frame, self._schema, drop_duplicates=False).usable()), len(frame)

    def _frame(self, X: Input, *, reset: bool) -> pd.DataFrame:
        frame, schema = read_input(self, X, schema=self.schema, reset=reset)
        if reset:
            self._schema = schema
        return frame


def _by_row(scored: ScoredSeries, values: Floats, n_rows: int) -> Floats:
    """What is known for each step, for each row as it came; NaN for those in quarantine."""
    rows = np.full((n_rows, *values.shape[1:]), np.nan)
    rows[scored.series.rows.to_numpy()] = scored.series.to_rows(values)
    return rows
