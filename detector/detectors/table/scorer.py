"""What is left of a detector after training: all that scoring needs, without TensorFlow or scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.cleaning.clean import clean
from detector.cleaning.cleaned_only import cleaned_only
from detector.cleaning.text import repeated
from detector.decide.policy import Policy
from detector.decide.severity import severity
from detector.detectors.table.model import UNSUPERVISED, TableModel
from detector.detectors.table.reasons import TableExplainer, sum_by
from detector.detectors.table.saved import parts_of, values_of
from detector.detectors.table.scoring import TableScoring
from detector.detectors.table.verdicts import Verdicts
from detector.errors import SettingError, ShapeError
from detector.explain.reason import Reason, no_reasons, reasons_in_words
from detector.features import Wording
from detector.onnx.parts import Parts

DEFAULT_POLICY = Policy(quantile=0.99)


@dataclass(frozen=True)
class TabularScorer(TableModel):
    """A fitted detector for tables. Made by ``TabularDetector.fit`` or ``bundle.load``.

    ``TableModel`` says what it is made with, and measures rows; here rows are decided on and explained as well.
    """

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

    @cleaned_only
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
                "flagged": flagged.copy(),
                "severity": self.severity(measures["risk"].to_numpy(), measures["p_value"].to_numpy(), flagged),
                "reasons": no_reasons(len(rows)),
                **{name: measures[name] for name in (*self.members, UNSUPERVISED)},
                "decided_by": repeated(self.decided_by, len(rows)),
            },
            index=rows.index,
            copy=False,
        )

    @cleaned_only
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

    @cleaned_only
    def reconstruct(self, rows: pd.DataFrame) -> pd.DataFrame:
        """What the autoencoder makes of cleaned rows, in the units of the table."""
        frame = self._as_frame(self.autoencoder("expected likelihood", self.encoded(rows)))
        return frame.set_index(rows.index)

    @cleaned_only
    def feature_errors(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The autoencoder's surprise about each feature of cleaned rows, in nats."""
        surprise = self.autoencoder("surprise", self.encoded(rows))["surprise"]
        summed = sum_by(surprise, self.columns.input_features, len(self.columns.features))
        return pd.DataFrame(summed, index=rows.index, columns=[feature.name for feature in self.columns.features])

    @cleaned_only
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

    @cleaned_only
    def attributions(self, rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        """How much each feature adds to each member's score, on the member's own scale, shape (n_rows, n_features)."""
        return TableExplainer(self).attributions(self.encoded(rows))

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

    def _as_frame(self, found: dict[str, NDArray[np.float32]]) -> pd.DataFrame:
        n_rows = len(next(iter(found.values())))
        values = found.get("expected", np.empty((n_rows, 0), dtype=np.float32))
        codes = (
            self.columns.likeliest(found["likelihood"]) if "likelihood" in found else np.empty((n_rows, 0), np.int64)
        )
        return self.columns.decode(values, codes)
