"""A fitted model of a table: what it keeps, and rows → members' z-scores, risk and p-value, each row by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.cleaning.cleaned_only import cleaned_only
from detector.cleaning.plain import NotPlainError
from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.decide.support import Support
from detector.detectors.table.training_rows import LearntRows, keys_of
from detector.encoding.encoded import Encoded
from detector.encoding.table import TableEncoder
from detector.errors import SettingError
from detector.head.model import Head
from detector.members.event_sequence import EventWindow
from detector.members.isolation_forest import Trees
from detector.members.neighbours import References
from detector.members.novelty import KnownRows
from detector.onnx.graph import Graph
from detector.schema import Schema

UNSUPERVISED = "unsupervised_risk"


@dataclass(frozen=True)
class RowRisks:
    """What is measured of rows.

    - ``risk``, ``p_value``, (n_rows,): as a policy takes them.
    - ``learnt``, (n_rows,): how surely each row was learnt from.
    """

    risk: Floats
    p_value: Floats
    learnt: Floats


@dataclass(frozen=True)
class TableModel:
    """The fitted parts of a detector for tables, and what they measure of each row.

    Parameters
    ----------
    name : str
        What it is called.
    schema : Schema
        Columns the table must have.
    columns : TableEncoder
        How rows become numbers.
    graph : Graph
        Scaler, autoencoder, forest and neighbours as one ONNX graph: rows → members' scores.
    inside : Graph
        The same scaler and autoencoder, rows → what reasons are made of: prepared rows, code, reconstruction, surprise.
    decoder : Graph or None
        Code → row; None without an autoencoder.
    fusion : Fusion
        How the members' scores become one risk.
    calibrator : Calibrator
        How a risk becomes a p-value.
    trees : Trees or None
        The forest again, for reasons.
    references : dict of str to References
        The neighbours of a detector of version 0.1 again, for reasons.
    known : KnownRows or None
        The known rows again, for reasons.
    window : EventWindow or None
        The row among the events before it, where a member reads these.
    usual : dict of str to array of shape (n_features,)
        What each feature adds to each member's score in rows the member was not fitted on: the level from which reasons
        count, or a column nobody can predict would be to blame for every row.
    weights : dict of str to array
        The autoencoder's, for a warm start of the next one; scoring does not use them.
    metrics : dict
        Facts recorded while fitting.
    learnt : LearntRows or None
        The training rows, each with the risk it has for members that did not learn from it.
    head : Head or None
        What labels taught. If it serves, ``risk`` and ``p_value`` are its own.
    """

    name: str
    schema: Schema
    columns: TableEncoder
    graph: Graph
    inside: Graph
    decoder: Graph | None
    fusion: Fusion
    calibrator: Calibrator
    trees: Trees | None
    references: dict[str, References] = field(default_factory=dict)
    known: KnownRows | None = None
    window: EventWindow | None = None
    usual: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    learnt: LearntRows | None = None
    head: Head | None = None

    @property
    def serving_head(self) -> Head | None:
        """The head, if it has proved itself."""
        return self.head if self.head is not None and self.head.serves else None

    @property
    def decided_by(self) -> str:
        """What the risk is of: ``members``, or the ``head``."""
        return "members" if self.serving_head is None else "head"

    @property
    def calibration(self) -> Calibrator:
        """How the risk that decides becomes a p-value: the serving head's calibrator, or the members'."""
        return self.calibrator if self.serving_head is None else self.serving_head.calibrator

    @property
    def step_of_moved(self) -> float:
        """How far a column that never varied lifts the risk that decides, where it moves."""
        own = self.columns.constants.lift if self.serving_head is None else 0.0
        return max(self.calibration.largest_step, own)

    @property
    def support(self) -> Support | None:
        """What a false discovery rate can rest on; None of a detector that knows of no fallback."""
        return self.calibration.support

    @property
    def members(self) -> tuple[str, ...]:
        """The members' names."""
        return self.fusion.members

    @cleaned_only
    def measure(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value, each member's z-score and the unsupervised risk of cleaned rows; a function of each row alone.

        Without a serving head, the unsupervised risk is the risk.
        """
        return self.recalled(rows)[0]

    def recalled(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """As ``measure``, and how surely each row was learnt from, from 0 to 1."""
        encoded = self.encoded(rows)
        measures, learnt = self._unsupervised(rows, encoded)
        head, alone = self.serving_head, measures["risk"]
        if head is not None:
            frame = pd.DataFrame(measures, index=rows.index)
            risk = head.calibrator.beyond_all(head.risk(rows, self.for_head(rows, frame)), self.steps_lifted(encoded))
            measures |= {"risk": risk, "p_value": head.calibrator.p_value(risk)}
        return pd.DataFrame(measures | {UNSUPERVISED: alone}, index=rows.index), learnt

    def p_value(self, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p-value of risks as they decide: of the head where one serves."""
        head = self.serving_head
        return (self.calibrator if head is None else head.calibrator).p_value(risk)

    @cleaned_only
    def unsupervised(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value and each member's z-score without the head, for cleaned rows.

        A row that was learnt from has the risk it has for members that did not; the z-scores are those of all members.
        """
        return pd.DataFrame(self._unsupervised(rows, self.encoded(rows))[0], index=rows.index)

    def for_head(self, rows: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
        """What a head reads beside the columns of cleaned rows: their measures, and the days between their dates."""
        return measures.assign(**{span.name: span.days(rows) for span in self.columns.spans})

    def _unsupervised(self, rows: pd.DataFrame, encoded: Encoded) -> tuple[dict[str, Floats], Floats]:
        """As ``unsupervised``, by name, and how surely each row was learnt from."""
        z, risk, learnt = self._measured(encoded, keys_of(rows, self.schema))
        measures = {"risk": risk, "p_value": self.calibrator.p_value(risk)}
        return measures | {name: z[:, i] for i, name in enumerate(self.members)}, learnt

    def _measured(self, encoded: Encoded, keys: NDArray[np.object_] | None) -> tuple[Floats, Floats, Floats]:
        """Each member's z-score, the risk, and how surely each row was learnt from, of encoded rows."""
        z = self.standardised(encoded)
        risk, learnt = self.fusion.risk(z), np.zeros(len(encoded))
        if self.learnt is not None:
            risk, learnt = self.learnt.recall(encoded, risk, keys)
        if encoded.moved is not None:
            learnt = np.where(encoded.moved.any(axis=1), 0.0, learnt)
        steps = self._steps_lifted(encoded)
        return z, self.calibrator.beyond_all(risk, steps, least=self.columns.constants.lift), learnt

    def steps_lifted(self, encoded: Encoded) -> Floats:
        """How many steps the risk that decides is lifted by what members hardly see; see ``Calibrator.beyond_all``."""
        return self._steps_lifted(encoded) if self.serving_head is None else self.news(encoded)

    def news(self, encoded: Encoded) -> Floats:
        """How many things each row shows that no training row did.

        A head is told of no others: labels say what a relation means that some rows broke.
        """
        return np.asarray(np.floor(self._steps_lifted(encoded)))

    def _steps_lifted(self, encoded: Encoded) -> Floats:
        """The same of the unsupervised risk."""
        steps = np.zeros(len(encoded)) if encoded.moved is None else encoded.moved.sum(axis=1).astype(np.float64)
        return steps if encoded.broken is None else steps + self.columns.relations.weight(encoded.broken)

    def measure_plain(self, rows: Sequence[Mapping[str, Any]]) -> RowRisks:
        """Risk and p-value of the cells of rows, as ``plain_row`` returns them: the numbers of ``measure``, sooner.

        Raises ``NotPlainError`` if it takes a frame to measure rows: a head that serves, or a member that reads the
        events before.
        """
        if not self.measures_plain:
            raise NotPlainError
        key = self.schema.key
        keys = None if key is None else np.array([str(row[key]) for row in rows], dtype=object)
        _, risk, learnt = self._measured(self.columns.encode_plain(rows), keys)
        return RowRisks(risk, self.calibrator.p_value(risk), learnt)

    @property
    def measures_plain(self) -> bool:
        """Whether it takes no frame to measure rows."""
        return self.serving_head is None and self.window is None

    def lie_apart(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which cleaned training rows lie in a group apart from all others; see ``find_contamination``."""
        if self.learnt is None or not self.learnt.apart.any():
            return np.zeros(len(rows), dtype=bool)
        return self.learnt.lie_apart(self.encoded(rows), keys_of(rows, self.schema))

    def encoded(self, rows: pd.DataFrame) -> Encoded:
        """Cleaned rows as the graphs take them."""
        encoded = self.columns.encode(rows)
        return encoded if self.window is None else replace(encoded, window=self.window.encode(rows))

    def standardised(self, encoded: Encoded) -> NDArray[np.float64]:
        """Each member's z-score, shape (n_rows, n_members)."""
        scores = self.graph.run(encoded.inputs(), self.members)
        return self.fusion.standardise(np.hstack([scores[name] for name in self.members]))

    def autoencoder(self, outputs: str, encoded: Encoded) -> dict[str, NDArray[np.float32]]:
        """What the autoencoder makes of rows, those of the named outputs that there are."""
        if "autoencoder" not in self.members:
            raise SettingError("This detector has no autoencoder. Train one with an autoencoder.")
        return self.inside.run(encoded.inputs(), [name for name in outputs.split() if name in self.inside.outputs])

    def with_name(self, name: str) -> Self:
        """The same scorer under another name."""
        return replace(self, name=name)

    def with_trimmed(self, rows: int) -> Self:
        """The same scorer that knows of rows which were taken out of training because they lie apart."""
        calibrator = self.calibrator.with_trimmed(rows)
        facts = {} if calibrator.support is None else calibrator.support.facts()
        return replace(self, calibrator=calibrator, metrics=self.metrics | facts)

    def with_head(self, head: Head | None) -> Self:
        """The same scorer with a head, or without one."""
        return replace(self, head=head)
