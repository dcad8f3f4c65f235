"""An autoencoder of a row among the events before it: it writes the whole window, the row itself unseen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from detector.checks import check_interval, one_of
from detector.encoders.checks import check_heads, check_sizes
from detector.encoders.export import answers, export
from detector.training.loop import OnEpoch, keras_session, penalty, train
from detector.training.settings import Training

if TYPE_CHECKING:
    import onnx

    from detector.encoders.network import Network

KINDS = ("gru", "lstm", "transformer", "conv1d")


@dataclass(frozen=True)
class FittedEvents:
    """A trained network as an ONNX model, with what Keras itself said on some rows, for comparison.

    - ``scorer``: ``steps`` → ``residual``, the squared residual of each input, 0 where nothing is known, and
      ``foreseen``.
    - ``probe_residual``, (n_probe, n_inputs): ``residual`` as Keras computes it on the probe rows.
    - ``history``: see ``detector.training.loop.train``.
    """

    scorer: onnx.ModelProto
    probe_residual: NDArray[np.float32]
    history: dict[str, list[float]]


@dataclass(frozen=True)
class EventAutoencoder:
    """How the network is made and trained.

    What is scored must not be copied: the row itself is hidden, so the network says what it expects of it from the
    events before. Windows are of any length; what is missing is skipped and not scored.

    Parameters
    ----------
    kind : str
        "gru", "lstm", "transformer" or "conv1d": the encoders of the same names.
    code : int
        Length of the code a window is encoded to.
    units : int
        Width of the network.
    mask : float
        Share of the readings before the row that training hides as well.
    own_weight : float
        What the row itself counts against all that was before it.
    loss : str
        How a residual counts in training: "mse", "mae", "huber" or "log_cosh".
    training : Training
        Epochs, batches, learning rate, trimming.

    Raises
    ------
    SettingError
        If a setting has no meaning.
    """

    heads: ClassVar[int] = 4

    kind: str = "gru"
    code: int = 16
    units: int = 32
    mask: float = 0.1
    own_weight: float = 0.8
    loss: str = "mse"
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        check_sizes(self, "code", "units")
        check_interval(self, "[0, 1)", "mask")
        check_interval(self, "(0, 1]", "own_weight")
        if self.kind == "transformer":
            check_heads(self)

    def fit(
        self,
        steps: NDArray[np.float32],
        *,
        timesteps: int,
        probe: NDArray[np.float32],
        random_state: int,
        on_epoch: OnEpoch | None = None,
    ) -> FittedEvents:
        """Train on windows, shape (n_rows, timesteps * width), as ``EventWindow.to_onnx`` gives them.

        The row itself is the last of the ``timesteps`` events. Keras's own answer is kept of the probe rows.
        """
        with keras_session(random_state):
            trainer, scorer = self._models(steps, timesteps, random_state)
            history = train(trainer, [steps], self.training, random_state=random_state, on_epoch=on_epoch)
            residual = answers(scorer, [probe])[0]
            return FittedEvents(export(scorer, ["steps"], ["residual", "foreseen"]), residual, history)

    def _models(self, steps: NDArray[np.float32], timesteps: int, seed: int) -> tuple[Any, Any]:
        import keras
        from keras import ops

        from detector.encoders.parts import Damage, filled, seen
        from detector.training.trainer import Trainer

        width = steps.shape[1]
        own = np.arange(width)[None, :] >= width - width // timesteps
        unseen = np.where(own, np.nan, 0.0).astype("float32")
        network = self._network(steps + unseen, timesteps, seed)
        rows = keras.Input((width,), name="steps")
        weight = np.where(own, self.own_weight, 1 - self.own_weight).astype("float32")
        weight = (weight / np.where(own, own.sum(), (~own).sum())).astype("float32").T

        def foreseen(given: Any) -> Any:
            return network.decode(network.encode(given + unseen))

        damaged = Damage(mask=self.mask, seed=seed)(rows)
        loss = ops.matmul(penalty(self.loss)(filled(rows) - foreseen(damaged)) * seen(rows), weight)
        expected = foreseen(rows)
        residual = ops.square(filled(rows) - expected) * seen(rows)
        return Trainer(rows, loss), keras.Model(rows, [residual, expected])

    def _network(self, steps: NDArray[np.float32], timesteps: int, seed: int) -> Network:
        from detector.encoders.conv1d import Conv1dAutoencoder
        from detector.encoders.recurrent import RecurrentAutoencoder
        from detector.encoders.transformer import TransformerAutoencoder

        plain: dict[str, Any] = {"timesteps": timesteps, "code": self.code, "linear": False, "random_state": seed}
        made: Any
        if self.kind == "conv1d":
            made = Conv1dAutoencoder(filters=(self.units // 2 or 1, self.units), kernel=3, **plain)
        elif self.kind == "transformer":
            made = TransformerAutoencoder(units=self.units, heads=self.heads, **plain)
        else:
            made = RecurrentAutoencoder(cell=self.kind, units=self.units, **plain)
        network: Network = made._build(steps)
        return network
