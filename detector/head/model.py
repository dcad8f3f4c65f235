"""The supervised head: boosted trees over features and members' scores, as one ONNX tree ensemble.

The head answers with log-odds, a probability, and a conformal p-value from rows it did not learn from. It serves only
if, on labelled rows later than those it learnt from, it ranked better than the unsupervised risk; see
``detector.head.fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Floats
from detector.decide.calibrate import Calibrator
from detector.errors import SchemaError, nearest
from detector.head.events import EVENTS, EventScore
from detector.onnx.graph import Graph
from detector.onnx.parts import Parts, under

if TYPE_CHECKING:
    import onnx
    from sklearn.ensemble import HistGradientBoostingClassifier

OUTPUT = "head"
TIE = 0.01


@dataclass(frozen=True)
class Head:
    """A fitted head, without scikit-learn.

    - ``columns``: its inputs: numeric columns of the rows, then columns of the measures; missing values are allowed.
    - ``graph``: ``rows`` (n, n_columns) → ``head`` (n, 1), log-odds.
    - ``slope``, ``intercept``: calibration: the risk, in log-odds, is slope · raw + intercept.
    - ``calibrator``: how that risk becomes a p-value: by rows known to be normal that the head did not learn from.
    - ``typical``: the median of each input in those rows: what reasons compare a row with.
    - ``events``: what makes its input ``events before``, where that is one.
    - ``facts``: what was found while fitting.
    """

    columns: tuple[str, ...]
    graph: Graph
    slope: float
    intercept: float
    calibrator: Calibrator
    typical: tuple[float, ...]
    events: EventScore | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def serves(self) -> bool:
        """Whether it beat the unsupervised risk on later labelled rows."""
        return bool(self.facts.get("serves", False))

    def risk(self, rows: pd.DataFrame, measures: pd.DataFrame) -> Floats:
        """The calibrated log-odds that each row is an anomaly; higher is more anomalous.

        ``measures`` are the unsupervised ones, as ``TabularScorer.unsupervised`` returns them. Raises ``SchemaError``
        if a column is missing.
        """
        return self._risk(self._inputs(rows, measures))

    def contributions(self, rows: pd.DataFrame, measures: pd.DataFrame) -> Floats:
        """How far the risk falls when one input is replaced by a typical value, shape (n_rows, n_columns)."""
        table = self._inputs(rows, measures)
        risk, falls = self._risk(table), np.zeros(table.shape)
        for place, value in enumerate(self.typical):
            changed = table.copy()
            changed[:, place] = value
            falls[:, place] = risk - self._risk(changed)
        return falls

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        facts = {
            "columns": list(self.columns),
            "slope": self.slope,
            "intercept": self.intercept,
            "facts": self.facts,
        }
        arrays = under("calibrator", self.calibrator.state()) | {"typical": np.array(self.typical)}
        graphs = {OUTPUT: self.graph.content}
        if self.events is not None:
            events = self.events.to_parts()
            facts["events"], graphs = events.facts, graphs | events.graphs
        return Parts(facts, arrays, graphs)

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The inverse of ``to_parts``."""
        facts = parts.facts
        return cls(
            columns=tuple(facts["columns"]),
            graph=Graph(parts.graphs[OUTPUT]),
            slope=float(facts["slope"]),
            intercept=float(facts["intercept"]),
            calibrator=Calibrator.from_state(parts.part("calibrator")),
            typical=tuple(parts.arrays["typical"].tolist()),
            events=EventScore.from_parts(Parts(facts["events"], {}, parts.graphs)) if facts.get("events") else None,
            facts=facts["facts"],
        )

    def _inputs(self, rows: pd.DataFrame, measures: pd.DataFrame) -> NDArray[np.float32]:
        if self.events is not None:
            measures = measures.assign(**{EVENTS: self.events.score(rows)})
        return inputs(rows, measures, self.columns)

    def _risk(self, table: NDArray[np.float32]) -> Floats:
        raw = self.graph.run({"rows": table})[OUTPUT][:, 0].astype(np.float64)
        return np.asarray(self.slope * raw + self.intercept + between_equals(table, self.columns))


LARGEST = float(np.finfo(np.float32).max)


def inputs(rows: pd.DataFrame, measures: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float32]:
    """The columns a head reads, side by side.

    >>> inputs(pd.DataFrame({"amount": [3.0]}), pd.DataFrame({"risk": [0.5]}), ("amount", "risk"))
    array([[3. , 0.5]], dtype=float32)
    """
    table = np.empty((len(rows), len(columns)), dtype=np.float32)
    for place, name in enumerate(columns):
        if name not in rows and name not in measures:
            raise SchemaError(f"The head needs the column {name!r}. {nearest(name, [*rows, *measures])}")
        values = (rows if name in rows else measures)[name].to_numpy(dtype=np.float64, na_value=np.nan)
        table[:, place] = np.clip(values, -LARGEST, LARGEST)
    return table


def between_equals(table: NDArray[np.float32], columns: Sequence[str]) -> Floats:
    """What orders rows that the trees cannot tell apart: the unsupervised risk, pressed into 1 % of a log-odds.

    Trees give whole groups of rows one value, and p-values of groups are not uniform.

    >>> between_equals(np.array([[1.0], [-1.0]], dtype=np.float32), ("risk",))
    array([ 0.005, -0.005])
    """
    risk = table[:, list(columns).index("risk")].astype(np.float64)
    return np.asarray(TIE * risk / (1 + np.abs(risk)))


def boosting_to_onnx(models: Sequence[HistGradientBoostingClassifier], n_columns: int) -> onnx.ModelProto:
    """Boosted trees of two classes, averaged over several models, as one tree ensemble: ``rows`` → ``head``, log-odds.

    The models must have been fitted on float32 numbers: then a threshold rounded down to float32 sends every row to
    the side scikit-learn sends it to.
    """
    from onnx.helper import make_node

    from detector.onnx import text as onnx_text

    parts: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "column", "value", "mode", "yes", "no", "gap")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "weight")}
    every = [trees for model in models for (trees,) in model._predictors]
    for number, trees in enumerate(every):
        nodes = trees.nodes
        leaf = nodes["is_leaf"].astype(bool)
        threshold = nodes["num_threshold"].astype(np.float32)
        above = threshold.astype(np.float64) > nodes["num_threshold"]
        threshold = np.where(above, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        parts["tree"] += [number] * len(nodes)
        parts["node"] += range(len(nodes))
        parts["column"] += np.where(leaf, 0, nodes["feature_idx"]).tolist()
        parts["value"] += np.where(leaf, 0, threshold).tolist()
        parts["mode"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        parts["yes"] += np.where(leaf, 0, nodes["left"]).tolist()
        parts["no"] += np.where(leaf, 0, nodes["right"]).tolist()
        parts["gap"] += np.where(leaf, 0, nodes["missing_go_to_left"]).astype(int).tolist()
        leaves["tree"] += [number] * int(leaf.sum())
        leaves["node"] += np.flatnonzero(leaf).tolist()
        leaves["weight"] += (nodes["value"][leaf] / len(models)).tolist()
    built = onnx_text.model("head", [f"float[n, {n_columns}] rows"], [f"float[n, 1] {OUTPUT}"], [], {})
    built.graph.node.append(
        make_node(
            "TreeEnsembleRegressor",
            ["rows"],
            [OUTPUT],
            domain="ai.onnx.ml",
            n_targets=1,
            base_values=[float(np.mean([np.ravel(model._baseline_prediction)[0] for model in models]))],
            nodes_treeids=parts["tree"],
            nodes_nodeids=parts["node"],
            nodes_featureids=parts["column"],
            nodes_values=parts["value"],
            nodes_modes=parts["mode"],
            nodes_truenodeids=parts["yes"],
            nodes_falsenodeids=parts["no"],
            nodes_missing_value_tracks_true=parts["gap"],
            target_treeids=leaves["tree"],
            target_nodeids=leaves["node"],
            target_ids=[0] * len(leaves["tree"]),
            target_weights=leaves["weight"],
        )
    )
    return built
