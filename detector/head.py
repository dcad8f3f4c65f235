"""What verdicts teach: boosted trees over features and members' scores, as one ONNX tree ensemble.

The head answers with a probability. It serves only if, on labelled rows later than those it learnt from, it ranked
better than the unsupervised risk; see ``detector.head_fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.errors import SchemaError, nearest
from detector.graph import Graph
from detector.parts import Parts

if TYPE_CHECKING:
    import onnx
    from sklearn.ensemble import HistGradientBoostingClassifier

OUTPUT = "head"


@dataclass(frozen=True)
class Head:
    """A fitted head, without scikit-learn.

    Parameters
    ----------
    columns : tuple of str
        Its inputs: numeric columns of the rows, then columns of the measures; missing values are allowed.
    graph : Graph
        ``rows`` (n, n_columns) → ``head`` (n, 1), log-odds.
    slope, intercept : float
        Calibration: the probability is the logistic function of slope · log-odds + intercept.
    facts : dict
        What was found while fitting.
    """

    columns: tuple[str, ...]
    graph: Graph
    slope: float
    intercept: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def serves(self) -> bool:
        """Whether it beat the unsupervised risk on later labelled rows."""
        return bool(self.facts.get("serves", False))

    def probability(self, rows: pd.DataFrame, measures: pd.DataFrame) -> NDArray[np.float64]:
        """The probability that each row is an anomaly.

        Parameters
        ----------
        rows : DataFrame
            Cleaned rows with their features.
        measures : DataFrame
            As ``TabularScorer.measure`` returns them.

        Raises
        ------
        SchemaError
            If a column is missing.
        """
        raw = self.graph.run({"rows": inputs(rows, measures, self.columns)})[OUTPUT][:, 0].astype(np.float64)
        odds: NDArray[np.float64] = 1 / (1 + np.exp(-(self.slope * raw + self.intercept)))
        return odds

    def to_parts(self) -> Parts:
        """Everything, as a bundle keeps it."""
        facts = {"columns": list(self.columns), "slope": self.slope, "intercept": self.intercept, "facts": self.facts}
        return Parts(facts, {}, {OUTPUT: self.graph.content})

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The inverse of ``to_parts``."""
        facts = parts.facts
        graph = Graph(parts.graphs[OUTPUT])
        return cls(tuple(facts["columns"]), graph, facts["slope"], facts["intercept"], facts["facts"])


def inputs(rows: pd.DataFrame, measures: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float32]:
    """The columns a head reads, side by side.

    >>> inputs(pd.DataFrame({"amount": [3.0]}), pd.DataFrame({"risk": [0.5]}), ("amount", "risk"))
    array([[3. , 0.5]], dtype=float32)
    """
    table = np.empty((len(rows), len(columns)), dtype=np.float32)
    for place, name in enumerate(columns):
        if name not in rows and name not in measures:
            raise SchemaError(f"The head needs the column {name!r}. {nearest(name, [*rows, *measures])}")
        table[:, place] = (rows if name in rows else measures)[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return table


def boosting_to_onnx(model: HistGradientBoostingClassifier, n_columns: int) -> onnx.ModelProto:
    """Boosted trees of two classes as one tree ensemble: ``rows`` → ``head``, log-odds.

    The model must have been fitted on float32 numbers: then a threshold rounded down to float32 sends every row to
    the side scikit-learn sends it to.
    """
    from onnx.helper import make_node

    from detector import onnx_text

    parts: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "column", "value", "mode", "yes", "no", "gap")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "weight")}
    for number, (trees,) in enumerate(model._predictors):
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
        leaves["weight"] += nodes["value"][leaf].tolist()
    built = onnx_text.model("head", [f"float[n, {n_columns}] rows"], [f"float[n, 1] {OUTPUT}"], [], {})
    built.graph.node.append(
        make_node(
            "TreeEnsembleRegressor",
            ["rows"],
            [OUTPUT],
            domain="ai.onnx.ml",
            n_targets=1,
            base_values=[float(np.ravel(model._baseline_prediction)[0])],
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
