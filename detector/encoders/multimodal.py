"""Several autoencoders, one a kind of data, joined in one code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from detector.checks import one_of
from detector.encoders.estimator import AutoencoderMixin, dense_rows
from detector.encoders.network import Network
from detector.errors import DataError, SettingError, ShapeError, nearest
from detector.training.loop import Rows

JOINS = ("concatenate", "shared")
BALANCES = ("uncertainty", "initial", "none")
PROBE_ROWS = 1000


@dataclass(kw_only=True, eq=False, repr=False)
class MultimodalAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Any of the other autoencoders as branches: numbers and categories, a window, an image, tokens.

    Each branch encodes its own rows; the branches' codes are joined in one, from which each branch's rows are rebuilt.
    Rows are given as a mapping from the branch's name to its rows, aligned; ``decode`` and ``reconstruct`` give the
    same. Each branch has a loss of its own. A row's error is the mean of its branches' errors, each divided by what
    is usual for it. A CSR array of a sparse branch becomes dense while fitting.

    Parameters
    ----------
    branches : mapping of str to autoencoder
        Unfitted; of their parameters those of architecture and data count, not ``training`` and the like,
        nor what only some kinds add to the loss: sparsity and divergence.
    code : int
        Length of the joint code.
    join : str
        "concatenate": a linear map of the branches' codes, side by side; "shared": through a dense layer.
    units : int
        Width of the layer of "shared".
    balance : str
        How the losses are weighed: "uncertainty", by weights learnt with the network (Kendall, Gal and Cipolla,
        CVPR 2018); "initial", each divided by its value before training; "none".

    Attributes
    ----------
    branches_ : dict of str to autoencoder
        The branches, with what they learnt about the form of their rows.
    widths_ : list of int
        Values a row has in each branch.

    >>> from detector.encoders.dense import DenseAutoencoder
    >>> MultimodalAutoencoder(branches={"numbers": DenseAutoencoder(code=2)}, code=4, join="shared").join
    'shared'
    """

    branches: Mapping[str, AutoencoderMixin]
    code: int = 16
    join: str = "concatenate"
    units: int = 64
    balance: str = "uncertainty"

    _choices = ("expected", "decoded")

    def branch_errors(self, X: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        """Each row's error in each branch, 1 where it is as large as is usual; their mean is ``-score_samples``."""
        errors = self._answer(X, "error")[:, 1:].astype(np.float64)
        return {name: errors[:, i] for i, name in enumerate(self.branches_)}

    def _check_settings(self) -> None:
        super()._check_settings()
        one_of("join", self.join, JOINS)
        one_of("balance", self.balance, BALANCES)
        if not self.branches or not all(isinstance(branch, AutoencoderMixin) for branch in self.branches.values()):
            raise SettingError(
                f"branches must be autoencoders by name, at least one. Received: branches={self.branches!r}."
            )
        if any(isinstance(branch, MultimodalAutoencoder) for branch in self.branches.values()):
            raise SettingError("A branch must not be a MultimodalAutoencoder. List its branches instead.")
        for branch in self.branches.values():
            branch._check_settings()

    def _checked(self, X: Any, *, reset: bool) -> _Aligned:
        if reset:
            self.branches_ = {name: clone(branch) for name, branch in self.branches.items()}
        if not isinstance(X, Mapping):
            raise DataError(
                f"Expected a mapping with rows for {', '.join(self.branches_)}, received {type(X).__name__}. Pass "
                f'{{"name": rows, ...}}.'
            )
        for name in X:
            if name not in self.branches_:
                raise DataError(f"There is no branch {name!r}. {nearest(str(name), self.branches_)}")
        if missing := [name for name in self.branches_ if name not in X]:
            raise DataError(f"Rows are missing for the branches {', '.join(missing)}. Give some for every branch.")
        parts = {name: branch._checked(X[name], reset=reset) for name, branch in self.branches_.items()}
        if len({part.shape[0] for part in parts.values()}) > 1:
            lengths = ", ".join(f"{name}: {part.shape[0]}" for name, part in parts.items())
            raise ShapeError(f"Expected the same rows in every branch, received {lengths}. Align them.")
        if reset:
            self.widths_ = [branch._values(parts[name][:1]).shape[1] for name, branch in self.branches_.items()]
        return _Aligned(parts)

    def _values(self, data: _Aligned) -> Rows:
        return np.hstack([dense_rows(branch._values(data.parts[name])) for name, branch in self.branches_.items()])

    def _restored(self, expected: NDArray[np.float32]) -> dict[str, Any]:
        cuts = np.split(expected, np.cumsum(self.widths_)[:-1], axis=1)
        return {name: branch._restored(cut) for (name, branch), cut in zip(self.branches_.items(), cuts, strict=True)}

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import Uncertainty, Usual, chain, concatenated, join_matrix

        names = list(self.branches_)
        stops = np.cumsum(self.widths_)
        slices = [slice(int(stop - width), int(stop)) for stop, width in zip(stops, self.widths_, strict=True)]
        built = [branch._build(rows[:, at]) for branch, at in zip(self.branches_.values(), slices, strict=True)]
        codes = [branch.code for branch in self.branches_.values()]
        ends = np.cumsum(codes)
        there, back = join_matrix(sum(codes), self.code, seed=self.random_state)
        to_joint = layers.Dense(self.code, kernel_initializer=there)
        from_joint = layers.Dense(sum(codes), kernel_initializer=back)
        if self.join == "shared":
            to_joint = chain(layers.Dense(self.units, activation="relu"), layers.Dense(self.code))
            from_joint = chain(layers.Dense(self.units, activation="relu"), layers.Dense(sum(codes)))
        usual, weigh = Usual(len(names)), Uncertainty(len(names))
        start = Usual(len(names))

        def encode(x: Any) -> Any:
            return to_joint(concatenated([net.encode(x[:, at]) for net, at in zip(built, slices, strict=True)]))

        def heads(code: Any) -> list[Any]:
            joint = from_joint(code)
            return [net.decode(joint[:, end - size : end]) for net, end, size in zip(built, ends, codes, strict=True)]

        def each(x: Any, expected: list[Any], count: str) -> Any:
            return concatenated(
                [getattr(net, count)(x[:, at], head) for net, at, head in zip(built, slices, expected, strict=True)]
            )

        def damaged(x: Any) -> Any:
            return concatenated([net.damage(x[:, at]) for net, at in zip(built, slices, strict=True)])

        def loss(x: Any, expected: list[Any]) -> Any:
            losses = each(x, expected, "loss")
            if self.balance == "uncertainty":
                return weigh(losses)
            return ops.matmul(start(losses), np.ones((len(names), 1), "float32"))

        def error(x: Any, expected: list[Any]) -> Any:
            errors = usual(each(x, expected, "error"))
            mean = ops.matmul(errors, np.full((len(names), 1), 1 / len(names), "float32"))
            return layers.Concatenate()([mean, errors])

        def measure(layer: Any, count: str) -> Callable[[Any], None]:
            def learn(x: Any) -> None:
                found = each(x, heads(encode(x)), count)
                layer.level.assign(ops.maximum(ops.mean(found, axis=0), 1e-6))

            return learn

        if self.balance == "initial":
            measure(start, "loss")(ops.convert_to_tensor(rows[:PROBE_ROWS]))
        return Network(
            encode=encode,
            decode=heads,
            error=error,
            loss=loss,
            damage=damaged,
            choose=lambda expected: concatenated([net.chosen(head) for net, head in zip(built, expected, strict=True)]),
            settle=measure(usual, "error"),
        )


class _Aligned:
    """The branches' validated rows, cut together."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = parts
        self.shape = (next(iter(parts.values())).shape[0],)

    def __getitem__(self, rows: slice) -> _Aligned:
        return _Aligned({name: part[rows] for name, part in self.parts.items()})
