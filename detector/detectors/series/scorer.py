"""What is left of a sequence detector after training, and all that scoring needs: no TensorFlow, no scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.cleaning.clean import clean
from detector.cleaning.cleaned_only import cleaned_only
from detector.cleaning.quarantine import quarantine
from detector.decide.calibrate import Calibrator
from detector.decide.policy import Policy
from detector.detectors.series.events import EVENT_COLUMNS, MARGIN, curves_around, events_of
from detector.detectors.series.gating import gate_reach
from detector.detectors.series.groups import SHARED, group_of, places_by_entity
from detector.detectors.series.model import SeriesModel
from detector.detectors.series.recipe import PHASE
from detector.detectors.series.saved import models_of, parts_of
from detector.detectors.series.scored import ScoredSeries, refuse_short
from detector.detectors.series.verdicts import SeriesVerdicts
from detector.errors import DataError, SchemaError, SettingError, nearest
from detector.explain.reason import no_reasons, reasons_in_words
from detector.onnx.parts import Parts
from detector.schema import Schema
from detector.series.gates import Gates
from detector.series.readings import nameless
from detector.series.resample import RegularSeries, regularise
from detector.series.sampling import Sampling

Models = Literal["shared", "entity"]
Short = Literal["reject", "pad"]


@dataclass(frozen=True)
class SequenceScorer:
    """A fitted detector for series. Made by ``SequenceDetector.fit`` or ``bundle.load``.

    A row's risk depends on the rows around it, so series are scored whole; ``detector.detectors.series.stream``
    scores them part by part, by the rows that it keeps. With ``trailing`` models it depends on the rows before it
    alone.

    Parameters
    ----------
    name : str
        What it is called.
    schema : Schema
        Columns the table must have.
    sampling : Sampling
        What becomes of gaps, uneven times and missing values; with the interval of the training series.
    short : {"reject", "pad"}
        Whether a series shorter than a window is an error, or is scored as if its first row had lasted longer.
    shared : bool
        Whether all entities share one model.
    models : dict of str to SeriesModel
        By entity; under empty text where they share one.
    metrics : dict
        Facts recorded while fitting.
    gates : Gates
        Which deviations of a sensor are not flagged, and when nothing is. Set by who serves it; not in a bundle.
    group_by : str, optional
        A pattern: entities in whose names it finds the same text share a model, see ``group_of``.
    """

    name: str
    schema: Schema
    sampling: Sampling
    short: Short
    shared: bool
    models: dict[Any, SeriesModel]
    metrics: dict[str, Any] = field(default_factory=dict)
    gates: Gates = field(default_factory=Gates)
    group_by: str | None = None

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the members that all models have."""
        return tuple(name for name in next(iter(self.models.values())).members if name != PHASE)

    @property
    def sensors(self) -> tuple[str, ...]:
        """The columns that are read as sensors."""
        return self.schema.numeric + self.schema.boolean

    @property
    def calibrators(self) -> dict[Any, Calibrator]:
        """How each model's risk becomes a p-value."""
        return {entity: model.calibrator for entity, model in self.models.items()}

    @property
    def calibrator(self) -> Calibrator:
        """The shared model's; of several, the one with the fewest rows, whose p-values are the coarsest."""
        return min(self.calibrators.values(), key=lambda calibrator: calibrator.size)

    @property
    def thresholds(self) -> dict[Any, float]:
        """The risk above which each model flags a row if no policy is given."""
        return {entity: model.threshold for entity, model in self.models.items()}

    @property
    def memory(self) -> int:
        """How many steps before a row bear on its risk."""
        return max(model.memory for model in self.models.values())

    def with_name(self, name: str) -> SequenceScorer:
        """The same scorer under another name."""
        return replace(self, name=name)

    def with_gates(self, gates: Gates) -> SequenceScorer:
        """The same scorer that flags only what these let through.

        Raises ``SettingError`` if they name a sensor that it does not have.
        """
        gates.check(self.sensors)
        return replace(self, gates=gates)

    def gate_reach(self, model: SeriesModel) -> tuple[int, int]:
        """How many more steps before and after a step the decision on it depends on, because of gates."""
        every = self.sampling.interval
        return gate_reach(self.gates, model, self.sensors, 1.0 if every is None else every / 1e6)

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        models, interval = parts_of(self.models), self.sampling.interval
        facts = {
            "name": self.name,
            "schema": self.schema.to_dict(),
            "sampling": vars(self.sampling) | {"every": None if interval is None else f"{interval}us"},
            "short": self.short,
            "shared": self.shared,
            "group_by": self.group_by,
            "metrics": self.metrics,
        }
        return replace(models, facts=facts | models.facts)

    @classmethod
    def from_parts(cls, parts: Parts) -> SequenceScorer:
        """The inverse of ``to_parts``."""
        facts = parts.facts
        return cls(
            name=facts["name"],
            schema=Schema.from_dict(facts["schema"]),
            sampling=Sampling(**facts["sampling"]),
            short=facts["short"],
            shared=facts["shared"],
            group_by=facts.get("group_by"),
            models=models_of(parts),
            metrics=facts["metrics"],
        )

    def judge(self, frame: pd.DataFrame, *, policy: Policy | None = None, join: int = 0) -> SeriesVerdicts:
        """Clean, put on regular steps, score, flag and explain whole series.

        Parameters
        ----------
        frame : DataFrame
            The table as it comes.
        policy : Policy, optional
            Which steps to flag; a row is flagged with its step. Without one, steps whose risk is above the threshold
            declared in training.
        join : int
            Flagged segments with at most so many quiet steps between them are one event.

        Returns
        -------
        SeriesVerdicts
            ``events`` has ``entity`` (empty text where there is none), ``start``, ``end`` and ``peak``, as times or,
            where there are none, as positions of rows; ``steps``; ``risk``, ``p_value`` and ``severity`` at the peak;
            ``sensors``, the names of those at fault over the event, the most important first; ``reasons``, for each of
            them how far it went and what was expected, never outside its range in training; and ``text``, the same in
            words, with when the event began and how long it lasted. A step without a row, in a gap, can be flagged
            too, as when a sensor has been silent for too long.

        Raises
        ------
        SchemaError
            If a column is missing, or an entity has no model.
        DataError
            If no row is given, a series is shorter than a window, or the sampling policy rejects something. Rows none
            of which can be read, or has an entity, are all in ``quarantine``.
        SettingError
            If ``join`` is negative.
        """
        found = self.score_frame(frame, policy=policy, join=join)
        return replace(found, frame=reasons_in_words(found.frame))

    def score_frame(self, frame: pd.DataFrame, *, policy: Policy | None = None, join: int = 0) -> SeriesVerdicts:
        """As ``judge``, with a list of ``Reason`` for each row in the place of text; empty where it is not flagged."""
        check_join(join)
        cleaned = clean(frame, self.schema)
        without_entity = nameless(cleaned.rows, self.schema)
        if len(frame) and len(without_entity) == len(cleaned.rows):
            return self._nothing_scored(cleaned.rows.iloc[:0], _quarantined(frame, cleaned.quarantine, without_entity))
        scored = self.score_steps(cleaned.rows)
        decision = scored.decide(policy)
        flagged = decision.flagged
        return SeriesVerdicts(
            frame=self.of_rows(scored, cleaned.rows, flagged).sort_index().reset_index(drop=True),
            quarantine=_quarantined(frame, cleaned.quarantine, scored.series.quarantine),
            events=events_of(scored, flagged, join=join),
            held=decision.by_gate,
        )

    def of_rows(
        self, scored: ScoredSeries, rows: pd.DataFrame, flagged: Flags, *, explains: bool = True
    ) -> pd.DataFrame:
        """Scores of the cleaned rows that have a step, in the order of the steps, from decisions on the steps."""
        step, named = scored.series.step, self._named(rows.loc[scored.series.rows])
        return scored.row_scores(named, step, flagged[step], explains=explains)

    def score(self, rows: pd.DataFrame, policy: Policy | None, *, explains: bool = True) -> pd.DataFrame:
        """Scores of cleaned rows of whole series.

        Returns
        -------
        DataFrame
            As in ``SeriesVerdicts.frame``, in the order of ``rows``; ``reasons`` holds lists of ``Reason``. A row that
            has no step, such as the second of one time, has no risk and is not flagged.
        """
        scored = self.score_steps(rows)
        found = self.of_rows(scored, rows, scored.flagged(policy), explains=explains)
        if len(found) == len(rows):
            return found.loc[rows.index]
        return found.reindex(rows.index).assign(
            flagged=found["flagged"].reindex(rows.index, fill_value=False),
            reasons=found["reasons"].reindex(rows.index, fill_value=()),
        )

    def measure(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value and each member's z-score for cleaned rows of whole series.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them.

        Returns
        -------
        DataFrame
            In the order of ``rows``; NaN in a row that has no step, such as the second of one time.
        """
        scored = self.score_steps(rows)
        values = np.column_stack([scored.risk, scored.p_value, scored.scores])
        found = pd.DataFrame(
            scored.series.to_rows(values), index=scored.series.rows, columns=["risk", "p_value", *self.members]
        )
        return found.reindex(rows.index)

    def curves(self, frame: pd.DataFrame, events: pd.DataFrame | pd.Series, *, margin: int = MARGIN) -> pd.DataFrame:
        """What each sensor read and what it should have, around events: what a plot of an event needs.

        Parameters
        ----------
        frame : DataFrame
            The table that ``judge`` was given.
        events : DataFrame or Series
            Lines of ``judge(...).events``, or one of them.
        margin : int
            Steps before and after the event.

        Returns
        -------
        DataFrame
            One line a sensor and step: ``event`` (the line's index), ``entity``, ``sensor``, ``when``, ``observed``
            and ``expected`` in the sensor's unit, ``added``, the sensor's part of the risk within the event, and
            ``inside``, whether the step belongs to it.

        Raises
        ------
        SchemaError, DataError
            As ``judge``.
        """
        chosen = events.to_frame().T if isinstance(events, pd.Series) else events
        return curves_around(self.score_steps(clean(frame, self.schema).usable()), chosen, margin=margin)

    def can_score(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which cleaned rows belong to a series that has a model and is as long as its window."""
        entity = self.schema.entity
        whose = pd.Series(SHARED, index=rows.index) if entity is None else rows[entity]
        known = whose.notna() & whose.isin([name for name in whose.dropna().unique().tolist() if self.has_model(name)])
        if self.short == "pad":
            return np.asarray(known, dtype=bool)
        length = {name: self.model_of(name).length for name in whose[known].unique().tolist()}
        size = whose.groupby(whose.to_numpy(), sort=False).transform("size")
        return np.asarray(known & (size >= whose.map(length)), dtype=bool)

    @cleaned_only
    def score_steps(self, rows: pd.DataFrame) -> ScoredSeries:
        """Cleaned rows as their models see them."""
        if not len(rows):
            raise DataError("No row can be read: received n_samples = 0. Give rows with readings.")
        series = self.regular(rows)
        scored = self.series_steps(series)
        self._check_lengths(series)
        return scored

    def regular(self, rows: pd.DataFrame) -> RegularSeries:
        """Cleaned rows on regular steps; no window reaches from a time of maintenance out of it, or into one."""
        series = regularise(rows, self.schema, self.sampling)
        quiet = self.gates.is_quiet(series.times, series.entity)
        if not quiet.any():
            return series
        begins = np.append(False, (np.diff(series.segment) != 0) | (np.diff(quiet.astype(np.int8)) != 0))
        return replace(series, segment=np.cumsum(begins))

    def series_steps(self, series: RegularSeries) -> ScoredSeries:
        """Series on regular steps as their models see them, however short they are.

        Raises
        ------
        SchemaError
            If an entity has no model.
        """
        places = places_by_entity(series, shared=self.shared, group_by=self.group_by)
        found = [(self._model(name), place) for name, place in places.items()]
        return ScoredSeries(series, found, gates=self.gates)

    def model_of(self, entity: Any) -> SeriesModel:
        """What an entity is scored by.

        Raises
        ------
        SchemaError
            If it has no model.
        """
        return self._model(self._name_of(entity))

    def has_model(self, entity: Any) -> bool:
        """Whether an entity can be scored."""
        return self._name_of(entity) in self.models

    def _name_of(self, entity: Any) -> Any:
        """Under which its model is kept."""
        if self.group_by is not None:
            return group_of(entity, self.group_by)
        return SHARED if self.shared else entity

    def _model(self, name: Any) -> SeriesModel:
        if name not in self.models:
            raise SchemaError(
                f"No model was fitted for {name!r}. {nearest(str(name), map(str, self.models))} Fit again with "
                f"its rows, or choose models='shared'."
            )
        return self.models[name]

    def _check_lengths(self, series: RegularSeries) -> None:
        if self.short == "pad":
            return
        for entity, place in places_by_entity(series, shared=series.entities is None).items():
            refuse_short(series, entity, len(place), self.model_of(entity).length)

    def _nothing_scored(self, rows: pd.DataFrame, quarantined: pd.DataFrame) -> SeriesVerdicts:
        """What is said of rows none of which can be scored: no score, with the columns and types of scores."""
        scores = self._named(rows).assign(
            risk=0.0, p_value=0.0, flagged=False, severity="", reasons=no_reasons(0), **dict.fromkeys(self.members, 0.0)
        )
        return SeriesVerdicts(scores, quarantined, pd.DataFrame(columns=list(EVENT_COLUMNS)))

    def _named(self, rows: pd.DataFrame) -> pd.DataFrame:
        roles = self.schema.roles
        named = [roles[role] for role in ("key", "time", "entity") if role in roles]
        return rows[named].copy() if named else pd.DataFrame({"row": rows.index}, index=rows.index)


def check_join(join: int) -> None:
    """Refuse a negative pause between segments.

    >>> check_join(2)
    """
    if join < 0:
        raise SettingError(f"join must be at least 0. Received: join={join}.")


def _quarantined(frame: pd.DataFrame, unread: pd.DataFrame, unplaced: pd.DataFrame) -> pd.DataFrame:
    """Rows that could not be read and rows that have no step, as they came, in the order they came."""
    if unplaced.empty:
        return unread
    place = unplaced["row"].to_numpy()
    found = quarantine(frame.iloc[place], unplaced["reason"].tolist(), positions=place)
    return pd.concat([unread, found] if len(unread) else [found]).sort_values("row", ignore_index=True)
