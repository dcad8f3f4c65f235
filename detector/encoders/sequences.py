"""How networks read a sequence into a vector and write it again. Imports Keras, so it is imported only where needed."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from detector.encoders.network import Network
from detector.encoders.parts import last_layer, rebuilding, seen

POOLS = 4


class Core(Protocol):
    """Reads steps into a vector and writes a vector out as steps."""

    width: int

    def read(self, steps: Any, there: Any) -> Any:
        """(n, timesteps, ·) and which steps are there, (n, timesteps) of 0 and 1 → (n, ·)."""

    def write(self, vector: Any) -> Any:
        """(n, ·) → (n, timesteps, width)."""


class Recurrent:
    """LSTM or GRU; steps that are not there are skipped."""

    def __init__(self, cell: str, *, units: int, timesteps: int) -> None:
        make = layers.LSTM if cell == "lstm" else layers.GRU
        self.width = units
        self._reader = make(units)
        self._start = layers.Dense(units)
        self._repeat = layers.RepeatVector(timesteps)
        self._positions = positions(timesteps, units)
        self._writer = make(units, return_sequences=True)

    def read(self, steps: Any, there: Any) -> Any:
        """The state after the last step."""
        return self._reader(steps, mask=there > 0.5)

    def write(self, vector: Any) -> Any:
        """The vector at every step, marked with its position, through a recurrent layer."""
        return self._writer(self._repeat(self._start(vector)) + self._positions)


class Attentive:
    """A Transformer (Vaswani et al., NeurIPS 2017); several learnt attentions pool the steps to a vector."""

    def __init__(self, *, width: int, heads: int, blocks: int, timesteps: int) -> None:
        self.width = width
        self._positions = positions(timesteps, width)
        self._enter = layers.Dense(width)
        self._readers = [Block(width, heads) for _ in range(blocks)]
        self._pool = layers.Dense(POOLS, use_bias=False)
        self._flat = layers.Flatten()
        self._start = layers.Dense(width)
        self._repeat = layers.RepeatVector(timesteps)
        self._mix = layers.Dense(width, activation="relu")
        self._writers = [Block(width, heads) for _ in range(blocks)]

    def read(self, steps: Any, there: Any) -> Any:
        """Weighted means of the steps that are there."""
        h = self._enter(steps) + self._positions
        for block in self._readers:
            h = block(h, there)
        share = ops.softmax(ops.swapaxes(self._pool(h), 1, 2) + _far(there)[:, None, :], axis=-1)
        return self._flat(ops.matmul(share, h))

    def write(self, vector: Any) -> Any:
        """The vector at every step, marked with its position, through self-attention."""
        h = self._mix(self._repeat(self._start(vector)) + self._positions)
        for block in self._writers:
            h = block(h, None)
        return h


class Block(layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Self-attention and a dense part, each behind a normalisation and beside a shortcut.

    Made of products and a softmax only: ONNX Runtime's own reductions round by where a row lies in memory. Dense
    layers get the steps one under the other, as Keras makes ten operations of a product with a third dimension.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads, self.size = width, heads, width // heads
        self.normalise = [Normalisation(), Normalisation()]
        self.query, self.join = layers.Dense(3 * width), layers.Dense(width)
        self.widen, self.narrow = layers.Dense(2 * width), layers.Dense(width)

    def call(self, steps: Any, there: Any = None) -> Any:
        """(n, timesteps, width); steps that are not there are not looked at."""
        timesteps = steps.shape[1]
        h = ops.reshape(steps, (-1, self.width))
        projected = ops.reshape(self.query(self.normalise[0](h)), (-1, timesteps, 3, self.heads, self.size))
        query, key, value = ops.unstack(ops.transpose(projected, (2, 0, 3, 1, 4)), 3)
        near = ops.matmul(query, ops.swapaxes(key, 2, 3)) / float(np.sqrt(self.size))
        if there is not None:
            near = near + _far(there)[:, None, None, :]
        looked = ops.swapaxes(ops.matmul(ops.softmax(near, axis=-1), value), 1, 2)
        h = h + self.join(ops.reshape(looked, (-1, self.width)))
        h = h + self.narrow(ops.gelu(self.widen(self.normalise[1](h)), approximate=True))
        return ops.reshape(h, (-1, timesteps, self.width))


class Normalisation(layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Layer normalisation (Ba et al., 2016), its means by matrix products."""

    def build(self, shape: Any) -> None:
        """One factor and one shift a unit."""
        self.share = np.full((shape[-1], 1), 1.0 / shape[-1], dtype="float32")
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")
        self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros", name="shift")

    def call(self, h: Any) -> Any:
        """(n, width)."""
        apart = h - ops.matmul(h, self.share)
        return apart / ops.sqrt(ops.matmul(ops.square(apart), self.share) + 1e-6) * self.factor + self.shift


def positions(timesteps: int, width: int) -> NDArray[np.float32]:
    """Sines and cosines of every step's place, shape (1, timesteps, width)."""
    place = np.arange(timesteps)[:, None]
    rate = 10000.0 ** (-2.0 * (np.arange(width) // 2) / width)
    angle = place * rate[None, :]
    return np.where(np.arange(width) % 2, np.cos(angle), np.sin(angle)).astype("float32")[None]


def make_core(network: str, *, units: int, heads: int, blocks: int, timesteps: int) -> Core:
    """The core of that name: "lstm", "gru" or "transformer"."""
    if network == "transformer":
        return Attentive(width=units, heads=heads, blocks=blocks, timesteps=timesteps)
    return Recurrent(network, units=units, timesteps=timesteps)


def build_window_network(encoder: Any, core: Core, rows: NDArray[np.float32], *, sensors: int) -> Network:
    """Steps with a reading, and for each reading whether it is there → code → steps."""
    width = rows.shape[1]
    timesteps = width // sensors
    to_code = layers.Dense(encoder.code, kernel_initializer=last_layer(encoder))
    to_readings = layers.Dense(sensors, kernel_initializer=last_layer(encoder))
    steps, flat = layers.Reshape((timesteps, sensors)), layers.Reshape((width,))

    def read(given: Any, x: Any) -> Any:
        there = seen(x)
        readings = layers.Concatenate()([steps(given), steps(there)])
        some = ops.cast(ops.matmul(steps(there), np.ones((sensors, 1), "float32"))[:, :, 0] > 0.5, "float32")
        return to_code(core.read(readings, some))

    return rebuilding(encoder, rows, read=read, write=lambda code: flat(to_readings(core.write(code))))


def _far(there: Any) -> Any:
    """What is added to the nearness of a step: 0 if it is there, else so little that softmax makes it 0."""
    return (there - 1.0) * 1e9
