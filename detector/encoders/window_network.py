"""The network that recurrent and Transformer autoencoders of windows share. Imports Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from detector.encoders.estimator import Network
from detector.encoders.parts import Damage, LinearPath, filled, mean_over_seen, seen
from detector.encoders.sequences import Core
from detector.training.loop import penalty


def build_window_network(
    core: Core,
    rows: NDArray[np.float32],
    *,
    sensors: int,
    code: int,
    linear: bool,
    mask: float,
    loss: str,
    random_state: int,
) -> Network:
    """Steps with a reading, and for each reading whether it is there → code → steps."""
    width = rows.shape[1]
    timesteps = width // sensors
    last = "zeros" if linear else "glorot_uniform"
    to_code = layers.Dense(code, kernel_initializer=last)
    to_readings = layers.Dense(sensors, kernel_initializer=last)
    steps, flat = layers.Reshape((timesteps, sensors)), layers.Reshape((width,))
    path = LinearPath(rows, code, random_state=random_state) if linear else None

    def encode(x: Any) -> Any:
        given = filled(x)
        there = seen(x)
        read = layers.Concatenate()([steps(given), steps(there)])
        some = ops.cast(ops.matmul(steps(there), np.ones((sensors, 1), "float32"))[:, :, 0] > 0.5, "float32")
        found = to_code(core.read(read, some))
        return found if path is None else found + path.to_code(given)

    def decode(vector: Any) -> Any:
        expected = flat(to_readings(core.write(vector)))
        return expected if path is None else expected + path.from_code(vector)

    return Network(
        encode=encode,
        decode=decode,
        error=mean_over_seen(ops.square),
        loss=mean_over_seen(penalty(loss)),
        damage=Damage(mask=mask, seed=random_state),
    )
