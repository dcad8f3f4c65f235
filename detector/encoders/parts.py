"""Keras parts that several architectures share. Imports Keras, so it is imported only where a network is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from detector.encoders.network import Network
from detector.encoders.vocabulary import END, UNKNOWN
from detector.training.loop import penalty

MOST_ROWS = 5000


def seen(rows: Any) -> Any:
    """1 where a value is there, 0 where it is NaN."""
    return 1.0 - ops.cast(ops.isnan(rows), "float32")


def filled(rows: Any) -> Any:
    """The rows with 0, the mean, in place of NaN."""
    return ops.where(ops.isnan(rows), 0.0, rows)


def mean_over_seen(count: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """(rows, expected) → (n_rows, 1): how the residuals of the values that are there count on average.

    Sums are matrix products: those of ONNX Runtime do not depend on where a row lies in memory, its reductions do.
    """

    def error(rows: Any, expected: Any) -> Any:
        ones = np.ones((rows.shape[-1], 1), dtype="float32")
        there = seen(rows)
        total = ops.matmul(count(filled(rows) - expected) * there, ones)
        return total / ops.maximum(ops.matmul(there, ones), 1.0)

    return error


class Damage(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Noise on every value, and a share of the values hidden, so that a network cannot simply copy.

    A hidden value is one of ``hidden``: NaN, or 0 where zeros are usual. Acts in validation too, so that early
    stopping watches the task that is trained.
    """

    def __init__(self, *, noise: float = 0.0, mask: float = 0.0, hidden: float = float("nan"), seed: int) -> None:
        super().__init__()
        self.noise = noise
        self.mask = mask
        self.hidden = hidden
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, rows: Any) -> Any:
        """Rows of shape (n_rows, width)."""
        if self.noise:
            rows = rows + self.noise * keras.random.normal(ops.shape(rows), seed=self.generator)
        if self.mask:
            rows = ops.where(keras.random.uniform(ops.shape(rows), seed=self.generator) < self.mask, self.hidden, rows)
        return rows


def principal_components(
    rows: NDArray[np.float32], code: int, *, random_state: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two matrices: rows @ first is a whitened code, code @ second the best linear reconstruction.

    Missing values count as 0, the mean. More than 5,000 rows are sampled down. Components that the rows do not have
    are zeros.

    >>> there, back = principal_components(np.array([[-2.0, 0], [2, 0]], dtype=np.float32), 2, random_state=0)
    >>> np.abs(there).round(3).tolist(), np.abs(back).round(3).tolist()
    ([[0.5, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    from sklearn.decomposition import PCA

    n_rows, width = rows.shape
    if n_rows > MOST_ROWS:
        rows = rows[np.random.default_rng(random_state).choice(n_rows, MOST_ROWS, replace=False)]
    clean: NDArray[Any] = np.nan_to_num(rows.astype(np.float64))
    found = PCA(min(code, *clean.shape), random_state=random_state).fit(clean - clean.mean(axis=0))
    deviation = np.sqrt(np.square(clean @ found.components_.T).mean(axis=0))
    real = deviation > 1e-6
    there, back = np.zeros((width, code)), np.zeros((code, width))
    n_found = len(deviation)
    there[:, :n_found] = np.where(real, found.components_.T / np.where(real, deviation, 1.0), 0.0)
    back[:n_found] = np.where(real[:, None], found.components_ * deviation[:, None], 0.0)
    return there.astype(np.float32), back.astype(np.float32)


class Corruption(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Damage a row, so that a network that repairs it must learn how columns depend on each other.

    Gaussian noise goes onto the values, at a level that each row samples between ``least`` and ``most`` evenly on a
    logarithmic scale, because one constant level is fragile (Sattarov et al., KDD 2025); the level goes along as
    ``noise``, because what to repair depends on it (Karras et al., NeurIPS 2022). Every second row also has a share of
    its cells hidden, between 0 and ``mask``; a hidden cell looks like a missing one, a hidden category like an unseen
    one. Acts in validation too, so that early stopping watches the task that is trained.
    """

    def __init__(self, *, least: float, most: float, mask: float, unseen: int, seed: int) -> None:
        super().__init__()
        self.least = least
        self.most = most
        self.mask = mask
        self.unseen = unseen
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, row: dict[str, Any]) -> dict[str, Any]:
        """``values``, ``missing`` and ``labels``, those that are there, each of shape (n_rows, ·)."""
        n_rows = ops.shape(next(iter(row.values())))[0]
        chosen = ops.cast(keras.random.uniform((n_rows, 1), seed=self.generator) < 0.5, "float32")
        share = chosen * keras.random.uniform((n_rows, 1), 0.0, self.mask, seed=self.generator)
        damaged = dict(row)
        if "values" in row:
            most = self.most or self.least  # without noise, the level that is told is the smallest there is
            span = np.log([min(self.least, most), most]).tolist()
            level = ops.exp(keras.random.uniform((n_rows, 1), *span, seed=self.generator))
            shape = ops.shape(row["values"])
            hidden = ops.cast(keras.random.uniform(shape, seed=self.generator) < share, "float32")
            noise = keras.random.normal(shape, seed=self.generator)
            noisy = row["values"] + level * noise if self.most else row["values"]
            damaged["missing"] = ops.maximum(row["missing"], hidden)
            damaged["values"] = noisy * (1.0 - damaged["missing"])
            damaged["noise"] = level
        if "labels" in row:
            hidden = keras.random.uniform(ops.shape(row["labels"]), seed=self.generator) < share
            damaged["labels"] = ops.where(hidden, ops.cast(self.unseen, "float32"), row["labels"])
        return damaged


class Levels:
    """The heads of all categories of a row in one layer: a likelihood for each level of each, side by side.

    One layer for each category would be the same and, of a hundred columns, take minutes to build and to export.

    - ``sizes``: how many levels each category has.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        n_levels = sum(sizes)
        ends = np.cumsum(sizes)
        self.sizes = tuple(sizes)
        self.layer = keras.layers.Dense(n_levels, name="to_levels")
        self.category = np.repeat(np.arange(len(sizes)), sizes)
        self.level = (np.arange(n_levels) - (ends - sizes)[self.category]).astype("float32")
        self.padded = np.full((len(sizes), max(sizes)), n_levels)  # the place after the last, where nothing is likely
        self.padded[self.category, self.level.astype(int)] = np.arange(n_levels)
        self.total = np.eye(len(sizes), dtype="float32")[self.category]

    def __call__(self, h: Any) -> Any:
        """(n_rows, n_hidden) → (n_rows, sum(sizes)); those of each category sum to 1."""
        logits = self.layer(h)
        if len(self.sizes) == 1:
            return ops.softmax(logits)
        nowhere = ops.zeros_like(logits[:, :1]) - 1e9
        laid = ops.take(ops.concatenate([logits, nowhere], axis=1), self.padded.ravel(), axis=1)
        likely = ops.softmax(ops.reshape(laid, (-1, *self.padded.shape)), axis=-1)
        places = np.flatnonzero(self.padded.ravel() < len(self.level))
        return ops.take(ops.reshape(likely, (-1, self.padded.size)), places, axis=1)

    def surprise(self, codes: Any, likelihood: Any) -> Any:
        """Cross-entropy of each category: codes as numbers, (n_rows, n_categories) → the same shape.

        Sums are matrix products, see ``mean_over_seen``.
        """
        truth = ops.cast(ops.abs(ops.take(codes, self.category, axis=1) - self.level) < 0.5, "float32")
        return -ops.log(ops.matmul(truth * likelihood, self.total) + 1e-7)


class LinearPath:
    """A linear encoder and decoder that start as the principal components of the rows.

    Added to a network whose last layers start at zero, it makes the whole start as PCA, so that training can only
    improve on it.
    """

    def __init__(self, rows: NDArray[np.float32], code: int, *, random_state: int) -> None:
        there, back = principal_components(rows, code, random_state=random_state)
        constant = keras.initializers.Constant
        self.to_code = keras.layers.Dense(code, use_bias=False, kernel_initializer=constant(there))
        self.from_code = keras.layers.Dense(rows.shape[1], use_bias=False, kernel_initializer=constant(back))


def rebuilding(
    encoder: Any, rows: NDArray[np.float32], *, read: Callable[[Any, Any], Any], write: Callable[[Any], Any]
) -> Network:
    """A network for rows of numbers, beside a linear path if the encoder's parameters want one.

    ``read`` turns rows with 0 in place of NaN, and the same rows as they are, into codes; ``write`` codes into rows.
    """
    path = LinearPath(rows, encoder.code, random_state=encoder.random_state) if encoder.linear else None

    def encode(x: Any) -> Any:
        given = filled(x)
        code = read(given, x)
        return code if path is None else code + path.to_code(given)

    def decode(code: Any) -> Any:
        expected = write(code)
        return expected if path is None else expected + path.from_code(code)

    return Network(
        encode=encode,
        decode=decode,
        error=mean_over_seen(ops.square),
        loss=mean_over_seen(penalty(encoder.loss)),
        damage=Damage(noise=getattr(encoder, "noise", 0.0), mask=encoder.mask, seed=encoder.random_state),
    )


def last_layer(encoder: Any) -> str:
    """How the layers before code and rows start: at zero beside a linear path, so that the whole starts as that."""
    return "zeros" if encoder.linear else "glorot_uniform"


def chain(*made: Any) -> Callable[[Any], Any]:
    """Layers one after the other."""

    def through(h: Any) -> Any:
        for layer in made:
            h = layer(h)
        return h

    return through


def concatenated(parts: Sequence[Any]) -> Any:
    """Tensors side by side, one or more."""
    return keras.layers.Concatenate()(list(parts)) if len(parts) > 1 else parts[0]


def stack(sizes: Sequence[int]) -> Callable[[Any], Any]:
    """Dense layers with ReLU, one after the other."""
    return chain(*[keras.layers.Dense(units, activation="relu") for units in sizes])


def mean_of(count: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """The same where nothing is missing."""

    def error(rows: Any, expected: Any) -> Any:
        share = np.full((rows.shape[-1], 1), 1.0 / rows.shape[-1], dtype="float32")
        return ops.matmul(count(rows - expected), share)

    return error


class Draw(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """A code sampled from its mean and log-variance, in a way that gradients pass (reparameterisation)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, given: list[Any]) -> Any:
        """Mean and log-variance, each of shape (n_rows, code)."""
        mean, log_variance = given
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.generator)


class WarmUp(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Multiply by a weight that rises from 0 in so many updates; outside training by the whole weight.

    Held-out losses are thus comparable over the epochs, as early stopping needs.
    """

    def __init__(self, weight: float, updates: int) -> None:
        super().__init__()
        self.weight = weight
        self.updates = updates
        self.done = self.add_weight(shape=(), initializer="zeros", trainable=False, name="done")

    def call(self, loss: Any, *, training: bool = False) -> Any:
        """A loss of any shape."""
        if not training or not self.updates:
            return self.weight * loss
        share = ops.minimum(self.done / self.updates, 1.0)
        self.done.assign_add(1.0)
        return self.weight * share * loss

    def compute_output_spec(self, loss: Any, *, training: bool = False) -> Any:  # noqa: ARG002 - Keras's signature
        """Said outright, as Keras takes a sum of squares and exponentials for a sparse tensor."""
        return keras.KerasTensor(loss.shape, loss.dtype)


class HideTokens(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Make a share of the tokens look unknown, so that the network learns to do without them."""

    def __init__(self, *, mask: float, seed: int) -> None:
        super().__init__()
        self.mask = mask
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, rows: Any) -> Any:
        """Numbers of tokens, as ``Vocabulary.numbers`` gives them."""
        chosen = keras.random.uniform(ops.shape(rows), seed=self.generator) < self.mask
        return ops.where(ops.logical_and(chosen, rows > END), float(UNKNOWN), rows)


class Uncertainty(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Add up losses of different kinds, each weighed by how uncertain it stays; the weights are learnt."""

    def __init__(self, n_losses: int) -> None:
        super().__init__()
        self.n_losses = n_losses
        self.log_variance = self.add_weight(shape=(n_losses,), initializer="zeros", name="log_variance")

    def call(self, losses: Any) -> Any:
        """(n_rows, n_losses) → (n_rows, 1)."""
        weighed = losses * ops.exp(-self.log_variance) + self.log_variance
        return ops.matmul(weighed, np.ones((self.n_losses, 1), dtype="float32"))


class Usual(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Divide values of different kinds by what is usual for each; ``level`` is set, not learnt."""

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self.level = self.add_weight(shape=(n_values,), initializer="ones", trainable=False, name="level")

    def call(self, values: Any) -> Any:
        """(n_rows, n_values)."""
        return values / self.level


def join_matrix(wide: int, narrow: int, *, seed: int) -> tuple[Any, Any]:
    """Initialisers of a linear map and of its inverse, as far as it has one."""
    normal = np.random.default_rng(seed).normal(size=(max(wide, narrow), min(wide, narrow)))
    turned = np.linalg.qr(normal)[0].astype("float32")
    there = turned if wide >= narrow else turned.T
    return keras.initializers.Constant(there), keras.initializers.Constant(there.T)
