"""scikit-learn's isolation forest as one ONNX tree ensemble, and what its paths say about a row.

Source: Liu, Ting and Zhou, Isolation Forest, ICDM 2008.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Places

if TYPE_CHECKING:
    import onnx
    from sklearn.ensemble import IsolationForest


LEAF = -1
PART = 256
"""Rows that walk through the trees together: what they need stays in the processor's cache."""


@dataclass(frozen=True)
class Trees:
    """A fitted isolation forest as arrays, without scikit-learn.

    - ``feature``, ``threshold``, ``left``, ``right``, (n_trees, n_nodes): the trees, padded with leaves; ``feature`` is
      -1 in a leaf. A row goes left if its value is at most the threshold (float32, rounded down from scikit-learn's
      float64 so that no row changes side).
    - ``depth``, (n_trees, n_nodes): expected path length of a training row that reaches the node; in a leaf, its depth
      plus the mean path length of the rows it still holds.
    - ``normaliser``: mean path length of an unsuccessful search among the rows a tree was built on, c(psi) in the
      paper.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    depth: Floats
    normaliser: float

    @classmethod
    def from_forest(cls, forest: IsolationForest) -> Self:
        """Read a fitted scikit-learn forest."""
        n_trees = len(forest.estimators_)
        n_nodes = max(tree.tree_.node_count for tree in forest.estimators_)
        feature = np.full((n_trees, n_nodes), LEAF, dtype=np.int32)
        threshold = np.zeros((n_trees, n_nodes), dtype=np.float32)
        left = np.zeros((n_trees, n_nodes), dtype=np.int32)
        right = np.zeros((n_trees, n_nodes), dtype=np.int32)
        depth = np.zeros((n_trees, n_nodes))
        for i, (estimator, names) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True)):
            tree = estimator.tree_
            inner = tree.children_left >= 0
            n = tree.node_count
            feature[i, :n] = np.where(inner, names[np.where(inner, tree.feature, 0)], LEAF)
            threshold[i, :n] = _round_down(tree.threshold)
            left[i, :n] = np.where(inner, tree.children_left, np.arange(n))
            right[i, :n] = np.where(inner, tree.children_right, np.arange(n))
            depth[i, :n] = _expected_depth(tree.children_left, tree.children_right, tree.n_node_samples)
        return cls(feature, threshold, left, right, depth, float(mean_path_length(np.array([forest.max_samples_]))[0]))

    def out_of_bag(self, forest: IsolationForest, X: NDArray[np.float32], grown_on: Places) -> Floats:
        """What ``to_onnx`` gives for rows, each from the trees alone that were not grown on it, shape (n_rows,).

        ``forest`` is the one these trees were read from, ``grown_on`` the places of its training rows among ``X``. A
        row that every tree was grown on is scored by all.
        """
        total, count = np.zeros(len(X)), np.zeros(len(X))
        every, all_names = np.zeros(len(X)), np.arange(X.shape[1])
        for depth, tree, names, sample in zip(
            self.depth, forest.estimators_, forest.estimators_features_, forest.estimators_samples_, strict=True
        ):
            found = depth[tree.apply(X if np.array_equal(names, all_names) else X[:, names])]
            unseen = np.ones(len(X), dtype=bool)
            unseen[grown_on[sample]] = False
            total += np.where(unseen, found, 0.0)
            count += unseen
            every += found
        mean = np.where(count > 0, total / np.maximum(count, 1), every / len(self.depth))
        return -mean / self.normaliser

    def contributions(self, X: NDArray[np.floating[Any]]) -> Floats:
        """How much each input shortened a row's paths, in shares of the mean path length, shape (n_rows, n_inputs).

        At each split the expected path length changes; the change is booked to the split's input (Saabas's reading of a
        tree, applied to depth). Positive means it made the row easier to isolate.
        """
        X = np.asarray(X, dtype=np.float32)
        n_trees, n_nodes = self.feature.shape
        first = n_nodes * np.arange(n_trees, dtype=np.int32)[:, None]
        walk = _Walk(
            self.feature.ravel(),
            self.threshold.ravel(),
            np.stack([self.right + first, self.left + first], axis=-1).astype(np.int32).ravel(),
            self.depth.ravel(),
        )
        roots = first.ravel()
        found = [walk.gains(X[start : start + PART], roots) for start in range(0, len(X), PART)]
        return np.asarray(np.concatenate(found or [np.zeros(X.shape)]) / (n_trees * self.normaliser))

    def to_onnx(self) -> onnx.ModelProto:
        """``table`` → ``forest`` (n, 1): minus the mean path length over c(psi); higher is more anomalous.

        scikit-learn's ``score_samples`` is ``-2 ** forest``.
        """
        from onnx.helper import make_node

        from detector.onnx import text as onnx_text

        split, threshold, true, false = self._likelier_when_false()
        real = np.zeros(split.shape, dtype=bool)
        for i in range(len(split)):
            inner = np.flatnonzero(split[i] >= 0)
            real[i, [0, *true[i, inner], *false[i, inner]]] = True
        tree, node = np.nonzero(real)
        leaf = split[real] < 0
        weight = -self.depth[real][leaf] / (len(split) * self.normaliser)
        built = onnx_text.model(
            "forest",
            ["float[n, table_width] table"],
            ["float[n, 1] forest"],
            ["read = Slice (table, from, to, axis)", "turned = Neg (read)", "both = Concat <axis = 1> (read, turned)"],
            {"from": np.array([0]), "to": np.array([self._n_read]), "axis": np.array([1])},
        )
        built.graph.node.append(
            make_node(
                "TreeEnsembleRegressor",
                ["both"],
                ["forest"],
                domain="ai.onnx.ml",
                n_targets=1,
                nodes_treeids=tree.tolist(),
                nodes_nodeids=node.tolist(),
                nodes_featureids=np.maximum(split[real], 0).tolist(),
                nodes_values=np.where(leaf, 0, threshold[real]).tolist(),
                nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
                nodes_truenodeids=np.where(leaf, 0, true[real]).tolist(),
                nodes_falsenodeids=np.where(leaf, 0, false[real]).tolist(),
                target_treeids=tree[leaf].tolist(),
                target_nodeids=node[leaf].tolist(),
                target_ids=[0] * int(leaf.sum()),
                target_weights=weight.tolist(),
            )
        )
        return built

    @property
    def _n_read(self) -> int:
        """The first so many inputs are all that the trees read."""
        return max(1, int(self.feature.max()) + 1)

    def _likelier_when_false(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """Input, threshold, and the children if true and if false, with the likelier child of each split if false.

        ONNX Runtime lays that child next to its parent, so most rows need not jump. Where it is the left one, the split
        is asked the other way round, of the inputs' negatives, which stand behind the inputs.
        """
        split = self.feature >= 0
        left, right = (np.take_along_axis(self.depth, child, axis=1) for child in (self.left, self.right))
        turned = split & (left > right)  # expected paths are longer where more rows are
        above = np.nextafter(-self.threshold, np.float32(-np.inf))  # of negatives at most this, inputs exceed it
        return (
            np.where(turned, self.feature + self._n_read, self.feature),
            np.where(turned, above, self.threshold),
            np.where(turned, self.right, self.left),
            np.where(turned, self.left, self.right),
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {**vars(self), "normaliser": np.array(self.normaliser)}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        named = {name: arrays[name] for name in ("feature", "threshold", "left", "right", "depth")}
        return cls(**named, normaliser=float(arrays["normaliser"]))


@dataclass(frozen=True)
class _Walk:
    """All trees as one flat list of nodes.

    - ``feature``, ``threshold``, ``depth``, (n_nodes,): as in ``Trees``.
    - ``child``, (2 * n_nodes,): where a row goes on from each node: to the right, to the left.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    child: NDArray[np.int32]
    depth: Floats

    def gains(self, X: NDArray[np.float32], roots: NDArray[np.int32]) -> Floats:
        """How much expected depth each input of each row cost, over all trees, shape (n_rows, n_inputs)."""
        n_rows, n_inputs = X.shape
        values, total = np.ascontiguousarray(X).ravel(), np.zeros(n_rows * n_inputs)
        node = np.tile(roots, n_rows)
        start = np.repeat(np.arange(n_rows) * n_inputs, len(roots))
        while len(node):
            split = self.feature[node]
            inner = split >= 0
            if not inner.all():  # those that are in a leaf have arrived
                node, start, split = node[inner], start[inner], split[inner]
            place = start + split
            following = self.child[2 * node + (values[place] <= self.threshold[node])]
            total += np.bincount(place, weights=self.depth[node] - self.depth[following], minlength=total.size)
            node = following
        return total.reshape(n_rows, n_inputs)


def mean_path_length(n: NDArray[Any]) -> Floats:
    """Mean path length of an unsuccessful search in a binary search tree of n rows, c(n) in the paper.

    >>> mean_path_length(np.array([1, 2, 256])).round(3)
    array([ 0.   ,  1.   , 10.245])
    """
    n = np.asarray(n, dtype=np.float64)
    large = np.maximum(n, 3)
    long = 2 * (np.log(large - 1) + np.euler_gamma) - 2 * (large - 1) / large
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, long))


def _expected_depth(left: NDArray[Any], right: NDArray[Any], n_samples: NDArray[Any]) -> Floats:
    level = np.zeros(len(left))
    for node in range(len(left)):  # children come after their parent
        if left[node] >= 0:
            level[[left[node], right[node]]] = level[node] + 1
    expected = level + mean_path_length(n_samples)
    for node in range(len(left) - 1, -1, -1):
        if left[node] >= 0:
            a, b = left[node], right[node]
            weight = n_samples[a] + n_samples[b]
            expected[node] = (n_samples[a] * expected[a] + n_samples[b] * expected[b]) / weight
    return expected


def _round_down(threshold: Floats) -> NDArray[np.float32]:
    rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
