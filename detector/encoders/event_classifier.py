"""A network that reads a row among the events before it and says how likely it is an anomaly; it learns from labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags
from detector.checks import one_of
from detector.encoders.checks import check_heads, check_sizes
from detector.encoders.compiled import Built, compiled
from detector.encoders.export import answers
from detector.training.loop import OnEpoch, keras_session, train
from detector.training.settings import Training

if TYPE_CHECKING:
    import onnx

READERS = ("gru", "lstm", "transformer")


@dataclass(frozen=True)
class FittedClassifier:
    """A trained network as an ONNX model, with what Keras itself said on some rows, for comparison.

    - ``scorer``: ``steps`` → ``log_odds``, (n, 1).
    - ``probe``, (n_probe, 1): ``log_odds`` as Keras computes it on the probe rows.
    """

    scorer: onnx.ModelProto
    probe: NDArray[np.float32]


@dataclass(frozen=True)
class EventClassifier:
    """How the network is made and trained.

    Parameters
    ----------
    kind : str
        "gru", "lstm" or "transformer": what reads the events.
    units : int
        Width of the network. Too small, and habits are not told apart; too large, and few anomalies are learnt by
        heart.
    training : Training
        Epochs, batches, learning rate.

    Raises
    ------
    SettingError
        If a setting has no meaning.
    """

    heads: ClassVar[int] = 4

    kind: str = "gru"
    units: int = 32
    training: Training = field(default_factory=lambda: Training(epochs=8, learning_rate=4e-3, clip=1.0))

    def __post_init__(self) -> None:
        one_of("kind", self.kind, READERS)
        check_sizes(self, "units")
        if self.kind == "transformer":
            check_heads(self)

    def fit(
        self,
        steps: NDArray[np.float32],
        truth: Flags,
        *,
        timesteps: int,
        probe: NDArray[np.float32],
        random_state: int,
        on_epoch: OnEpoch | None = None,
    ) -> FittedClassifier:
        """Learn from windows, shape (n_rows, timesteps * width), as ``EventWindow.to_onnx`` gives them.

        The row itself is the last of the ``timesteps`` events. Keras's own answer is kept of the probe rows.
        """
        width, learnt = steps.shape[1], len(steps) - self.training.held_out(len(steps))
        key = self, width, timesteps, random_state, self.training.plan(learnt)
        with keras_session(random_state), compiled(key, lambda: self._models(width, timesteps)) as made:
            train(
                made.built.trainer,
                [steps, truth.astype(np.float32)[:, None]],
                self.training,
                random_state=random_state,
                on_epoch=on_epoch,
            )
            (found,) = answers(made.built.models["scorer"], [probe])
            return FittedClassifier(made.export("scorer", ["steps"], ["log_odds"]), found)

    def _models(self, width: int, timesteps: int) -> Built:
        import keras
        from keras import layers, ops

        from detector.encoders.parts import filled, seen
        from detector.encoders.sequences import make_core
        from detector.training.trainer import Trainer

        steps, truth = keras.Input((width,), name="steps"), keras.Input((1,), name="truth")
        size = width // timesteps
        by_event = layers.Reshape((timesteps, size))
        some = ops.matmul(by_event(seen(steps)), np.ones((size, 1), "float32"))[:, :, 0] > 0.5
        there = ops.cast(some, "float32")
        core = make_core(self.kind, units=self.units, heads=self.heads, blocks=1, timesteps=timesteps)
        read = core.read(layers.Dense(self.units, activation="relu")(by_event(filled(steps))), there)
        log_odds = layers.Dense(1)(layers.Dense(self.units, activation="relu")(read))
        trainer = Trainer([steps, truth], ops.softplus(log_odds) - truth * log_odds)
        return Built(trainer, {"scorer": keras.Model(steps, log_odds)})
