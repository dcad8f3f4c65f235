"""What is left of a detector after training: all that scoring needs, without TensorFlow or scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.cleaning.clean import clean
from detector.cleaning.plain import NotPlainError
from detector.decide.calibrate import Calibrator
from detector.decide.fuse import Fusion
from detector.decide.policy import Policy
from detector.decide.severity import severity
from detector.decide.support import Support
from detector.detectors.table.reasons import TableExplainer, sum_by
from detector.detectors.table.saved import parts_of, values_of
from detector.detectors.table.scoring import TableScoring
from detector.detectors.table.training_rows import LearntRows, keys_of
from detector.detectors.table.verdicts import Verdicts
from detector.encoding.table import Encoded, TableEncoder
from detector.errors import SettingError, ShapeError
from detector.explain.reason import Reason, no_reasons, reasons_in_words
from detector.features import Wording
from detector.head.model import Head
from detector.members.event_sequence import EventWindow
from detector.members.isolation_forest import Trees
from detector.members.neighbours import References
from detector.members.novelty import KnownRows
from detector.onnx.graph import Graph
from detector.onnx.parts import Parts
from detector.schema import Schema

__all__ = ["DEFAULT_POLICY", "UNSUPERVISED", "TabularScorer", "Verdicts"]

DEFAULT_POLICY = Policy(quantile=0.99)
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
class TabularScorer:
    """A fitted detector for tables. Made by ``TabularDetector.fit`` or ``bundle.load``.

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

    def judge(
        self,
        frame: pd.DataFrame,
        *,
        policy: Policy | None = None,
        wording: Wording | None = None,
    ) -> Verdicts:
        """Clean, score, flag and explain a whole table at once.

        Parameters
        ----------
        frame : DataFrame
            The table as it comes.
        policy : Policy, optional
            Which rows to flag; without one, rows above the 99 % quantile of held-out normal rows.
        wording : Wording, optional
            How reasons are said; by the names of columns by default.

        Raises
        ------
        SchemaError
            If a column is missing.
        """
        cleaned = clean(frame, self.schema)
        scoring = TableScoring(self, policy or DEFAULT_POLICY)
        scoring.add(cleaned.rows)
        decision = scoring.decision()
        (scores,) = scoring.scores(decision.flagged)
        return Verdicts(
            reasons_in_words(scores if wording is None else wording.scores(scores)).reset_index(drop=True),
            cleaned.quarantine,
            promised=decision.promised,
            note=decision.note,
            neighbours=scoring.neighbours(),
        )

    def score(self, rows: pd.DataFrame, policy: Policy, *, explains: bool = True) -> pd.DataFrame:
        """Measure, decide and explain cleaned rows at once; ``TableScoring`` does it part by part.

        Returns
        -------
        DataFrame
            As in ``Verdicts.frame``, indexed as ``rows``; ``reasons`` holds a list of ``Reason`` for each row, empty
            where it is not flagged.
        """
        scoring = TableScoring(self, policy, explains=explains)
        scoring.add(rows)
        (scores,) = scoring.scores(scoring.decide())
        return scores

    def can_score(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which cleaned rows can be scored: all, as each is judged by itself."""
        return np.ones(len(rows), dtype=bool)

    def as_scores(self, rows: pd.DataFrame, measures: pd.DataFrame, *, flagged: NDArray[np.bool_]) -> pd.DataFrame:
        """Measured rows with their names, flags and severities; the lists of ``reasons`` are empty.

        Parameters
        ----------
        rows : DataFrame
            With the key, time and entity columns, if the schema has them.
        measures : DataFrame
            As ``measure`` returns it.
        flagged : boolean array of shape (n_rows,)
            The policy's decision.
        """
        named = [name for role in ("key", "time", "entity") if (name := self.schema.roles.get(role))]
        return pd.DataFrame(
            {
                **({name: rows[name] for name in named} if named else {"row": rows.index}),
                "risk": measures["risk"],
                "p_value": measures["p_value"],
                "flagged": flagged,
                "severity": self.severity(measures["risk"].to_numpy(), measures["p_value"].to_numpy(), flagged),
                "reasons": no_reasons(len(rows)),
                **{name: measures[name] for name in (*self.members, UNSUPERVISED)},
                "decided_by": pd.Series(self.decided_by, index=rows.index, dtype="str"),
            },
            index=rows.index,
        )

    def measure(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value, each member's z-score and the unsupervised risk of cleaned rows; a function of each row alone.

        Without a serving head, the unsupervised risk is the risk.
        """
        return self.recalled(rows)[0]

    def recalled(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """As ``measure``, and how surely each row was learnt from, from 0 to 1."""
        measures, learnt = self._unsupervised(rows)
        head, alone = self.serving_head, measures["risk"]
        if head is None:
            return measures.assign(**{UNSUPERVISED: alone}), learnt
        risk = head.risk(rows, measures)
        if (moved := self.columns.constants.moved(rows)) is not None:
            risk = head.calibrator.beyond_all(risk, moved.sum(axis=1))
        p_value = head.calibrator.p_value(risk)
        return measures.assign(risk=risk, p_value=p_value, **{UNSUPERVISED: alone}), learnt

    def p_value(self, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p-value of risks as they decide: of the head where one serves."""
        head = self.serving_head
        return (self.calibrator if head is None else head.calibrator).p_value(risk)

    def unsupervised(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Risk, p-value and each member's z-score without the head, for cleaned rows.

        A row that was learnt from has the risk it has for members that did not; the z-scores are those of all members.
        """
        return self._unsupervised(rows)[0]

    def _unsupervised(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """As ``unsupervised``, and how surely each row was learnt from."""
        z, risk, learnt = self._measured(self.encoded(rows), keys_of(rows, self.schema))
        measures = {"risk": risk, "p_value": self.calibrator.p_value(risk)}
        return pd.DataFrame(measures | {name: z[:, i] for i, name in enumerate(self.members)}, index=rows.index), learnt

    def _measured(self, encoded: Encoded, keys: NDArray[np.object_] | None) -> tuple[Floats, Floats, Floats]:
        """Each member's z-score, the risk, and how surely each row was learnt from, of encoded rows."""
        z = self.standardised(encoded)
        risk, learnt = self.fusion.risk(z), np.zeros(len(encoded))
        if self.learnt is not None:
            risk, learnt = self.learnt.recall(encoded, risk, keys)
        if encoded.moved is not None:
            moved = encoded.moved.sum(axis=1)
            risk = self.calibrator.beyond_all(risk, moved, least=self.columns.constants.lift)
            learnt = np.where(moved > 0, 0.0, learnt)
        return z, risk, learnt

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

    def encode(self, rows: pd.DataFrame) -> NDArray[np.float32]:
        """The autoencoder's code of each cleaned row, shape (n_rows, n_code)."""
        return self.autoencoder("code", self.encoded(rows))["code"]

    def decode(self, code: NDArray[np.floating[Any]]) -> pd.DataFrame:
        """Codes back as a frame in the units of the table."""
        if self.decoder is None:
            raise SettingError("This detector has no autoencoder, so it cannot decode. Train one with an autoencoder.")
        code = np.asarray(code, dtype=np.float32)
        width = int(self.metrics["code_size"])
        if code.ndim != 2 or code.shape[1] != width:
            raise ShapeError(f"Expected codes of shape (n_rows, {width}), received {code.shape}.")
        return self._as_frame(self.decoder.run({"code": code}))

    def reconstruct(self, rows: pd.DataFrame) -> pd.DataFrame:
        """What the autoencoder makes of cleaned rows, in the units of the table."""
        frame = self._as_frame(self.autoencoder("expected likelihood", self.encoded(rows)))
        return frame.set_index(rows.index)

    def feature_errors(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The autoencoder's surprise about each feature of cleaned rows, in nats."""
        surprise = self.autoencoder("surprise", self.encoded(rows))["surprise"]
        summed = sum_by(surprise, self.columns.input_features, len(self.columns.features))
        return pd.DataFrame(summed, index=rows.index, columns=[feature.name for feature in self.columns.features])

    def explain(self, rows: pd.DataFrame, *, top: int = 3) -> list[list[Reason]]:
        """Reasons for cleaned rows, most important first.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them.
        top : int
            Reasons a row at most; left out are those under 2 % of the risk and those where what was observed is, as
            written, what was expected.

        Notes
        -----
        If a head serves, a share is of how far the head's log-odds fall when one of its inputs is replaced by a typical
        value; what falls with the members' scores is shared among the features as the members see them.
        """
        return TableExplainer(self).explain(rows, top=top)

    def attributions(self, rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        """How much each feature adds to each member's score, on the member's own scale, shape (n_rows, n_features)."""
        return TableExplainer(self).attributions(self.encoded(rows))

    def lie_apart(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Which cleaned training rows lie in a group apart from all others; see ``find_contamination``."""
        if self.learnt is None or not self.learnt.apart.any():
            return np.zeros(len(rows), dtype=bool)
        return self.learnt.lie_apart(self.encoded(rows), keys_of(rows, self.schema))

    def with_name(self, name: str) -> TabularScorer:
        """The same scorer under another name."""
        return replace(self, name=name)

    def with_trimmed(self, rows: int) -> TabularScorer:
        """The same scorer that knows of rows which were taken out of training because they lie apart."""
        calibrator = self.calibrator.with_trimmed(rows)
        facts = {} if calibrator.support is None else calibrator.support.facts()
        return replace(self, calibrator=calibrator, metrics=self.metrics | facts)

    def with_head(self, head: Head | None) -> TabularScorer:
        """The same scorer with a head, or without one."""
        return replace(self, head=head)

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        return parts_of(self)

    @classmethod
    def from_parts(cls, parts: Parts) -> TabularScorer:
        """The inverse of ``to_parts``."""
        return cls(**values_of(parts))

    def severity(self, risk: Floats, p_value: Floats, flagged: NDArray[np.bool_]) -> NDArray[np.object_]:
        """From p-values that go on beyond the calibration rows where a tail could be fitted: severities need them."""
        if self.calibration.pareto is not None and flagged.any():
            p_value = p_value.copy()
            p_value[flagged] = self.calibration.p_value(risk[flagged], tail="pareto")
        return severity(p_value, flagged)

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

    def _as_frame(self, found: dict[str, NDArray[np.float32]]) -> pd.DataFrame:
        n_rows = len(next(iter(found.values())))
        values = found.get("expected", np.empty((n_rows, 0), dtype=np.float32))
        codes = (
            self.columns.likeliest(found["likelihood"]) if "likelihood" in found else np.empty((n_rows, 0), np.int64)
        )
        return self.columns.decode(values, codes)
