"""The Keras loop: loss, schedule, early stopping. With the encoders, the only part that needs TensorFlow."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import DataError, MissingExtraError, SettingError

if TYPE_CHECKING:
    import keras

OnEpoch = Callable[[int, int], None]


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the rows at most. A pass over a small table is repeated until it has ``least_steps`` updates.
    batch_size : int
        Rows an update.
    least_steps : int
        Updates an epoch at least.
    max_steps : int
        Updates in all at most: bounds the time on large tables.
    learning_rate : float
        Peak step size of Adam; it falls to zero along half a cosine.
    patience : int
        Epochs without a better held-out loss after which training stops; the best weights are kept.
    trim : float
        Share of each batch, the worst rows, that the loss leaves out; 0 for none.
    holdout : float
        Share of the rows kept back for early stopping.
    """

    epochs: int = 30
    batch_size: int = 256
    least_steps: int = 50
    max_steps: int = 6000
    learning_rate: float = 1e-3
    patience: int = 10
    trim: float = 0.0
    holdout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "batch_size", "least_steps", "patience"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise SettingError(f"learning_rate must be positive. Received: learning_rate={self.learning_rate}.")
        for name in ("trim", "holdout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} must lie in [0, 1). Received: {name}={getattr(self, name)}.")

    def plan(self, n_rows: int) -> tuple[int, int]:
        """Epochs, and updates in each, for a table of so many rows.

        >>> Training(epochs=30, batch_size=100, least_steps=50, max_steps=6000).plan(100_000)
        (6, 1000)
        """
        steps = min(max(self.least_steps, -(-n_rows // self.batch_size)), self.max_steps)
        return max(1, min(self.epochs, self.max_steps // steps)), steps


@contextmanager
def keras_session(random_state: int) -> Iterator[None]:
    """Make Keras importable, quiet and seeded; the caller's own random generators are left as they were.

    Raises
    ------
    MissingExtraError
        If TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with warnings.catch_warnings(), _silent_start():
        warnings.simplefilter("ignore")
        try:
            import keras
        except ImportError as error:
            raise MissingExtraError(
                "Training an autoencoder needs TensorFlow, which is not installed. "
                "Install it with: pip install 'anomaly-detector[train]'"
            ) from error
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002 - Keras seeds the global generators
    log = logging.getLogger("tensorflow")
    level = log.level
    log.setLevel(logging.ERROR)  # each network is a new one, so its advice against retracing does not apply
    keras.utils.set_random_seed(random_state)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"keras|tensorflow|tf2onnx")
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        log.setLevel(level)
        keras.backend.clear_session()


@contextmanager
def _silent_start() -> Iterator[None]:
    """Keep TensorFlow's C++ libraries, which no setting makes quiet, from writing to the terminal as they load."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def train(
    model: keras.Model,
    inputs: Sequence[NDArray[np.float32]],
    training: Training,
    *,
    random_state: int,
    on_epoch: OnEpoch | None = None,
) -> dict[str, list[float]]:
    """Train a model whose output is each row's own loss, shape (n_rows,) or (n_rows, 1).

    Parameters
    ----------
    model : keras.Model
        Trained in place; ends with its best weights.
    inputs : sequence of array
        One array an input of the model, rows first.
    training : Training
        See there.
    random_state : int
        Decides which rows are held out.
    on_epoch : callable, optional
        Told the number of epochs done and planned after each.

    Returns
    -------
    dict of str to list of float
        ``loss``, ``held_out_loss`` and ``learning_rate`` for each epoch.

    Raises
    ------
    DataError
        If the loss stops being a number.
    """
    import keras

    order = np.random.default_rng(random_state).permutation(len(inputs[0]))
    n_held_out = int(len(order) * training.holdout)
    held_out, rows = order[:n_held_out], order[n_held_out:]
    epochs, steps = training.plan(len(rows))
    schedule = keras.optimizers.schedules.CosineDecay(training.learning_rate, epochs * steps, alpha=0.01)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0),
        loss=_mean_row_loss(training.trim),
        steps_per_execution=min(steps, 25),
        jit_compile=False,
    )
    log = _log_callback(epochs, on_epoch)
    monitor = "val_loss" if n_held_out else "loss"
    stop = keras.callbacks.EarlyStopping(monitor, patience=training.patience, restore_best_weights=True)
    model.fit(
        _batches([array[rows] for array in inputs], training.batch_size, random_state),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=_once([array[held_out] for array in inputs]) if n_held_out else None,
        callbacks=[log, stop, keras.callbacks.TerminateOnNaN()],
        verbose=0,
    )
    if not np.isfinite(log.curves["loss"][-1]):
        raise DataError(
            f"The training loss became {log.curves['loss'][-1]} after {len(log.curves['loss'])} epochs. "
            f"Lower the learning rate (now {training.learning_rate:g})."
        )
    curves: dict[str, list[float]] = log.curves
    return curves


def _batches(inputs: Sequence[NDArray[np.float32]], batch_size: int, seed: int) -> Any:
    """Shuffled batches without end; the target is a dummy, as the model's output is its own loss."""
    from tensorflow.data import Dataset

    n_rows = len(inputs[0])
    rows = Dataset.range(n_rows).shuffle(n_rows, seed=seed).repeat().batch(min(batch_size, n_rows))
    return rows.map(lambda at: (_gather(inputs, at), _zeros(at))).prefetch(2)


def _once(inputs: Sequence[NDArray[np.float32]]) -> Any:
    from tensorflow.data import Dataset

    rows = Dataset.range(len(inputs[0])).batch(4096)
    return rows.map(lambda at: (_gather(inputs, at), _zeros(at)))


def _gather(inputs: Sequence[NDArray[np.float32]], at: Any) -> tuple[Any, ...]:
    import tensorflow as tf

    return tuple(tf.gather(array, at) for array in inputs)


def _zeros(at: Any) -> Any:
    import tensorflow as tf

    return tf.zeros_like(at, dtype=tf.float32)


def _mean_row_loss(trim: float) -> Callable[[Any, Any], Any]:
    from keras import ops

    def loss(_: Any, row_loss: Any) -> Any:
        row_loss = ops.reshape(row_loss, (-1,))
        if trim == 0:
            return ops.mean(row_loss)
        ranked = ops.sort(row_loss)
        n_rows = ops.shape(ranked)[0]
        kept = ops.cast(ops.ceil((1 - trim) * ops.cast(n_rows, "float32")), "int32")
        weight = ops.cast(ops.arange(n_rows) < kept, "float32")
        return ops.sum(ranked * weight) / ops.maximum(ops.sum(weight), 1.0)

    return loss


def _log_callback(planned: int, on_epoch: OnEpoch | None) -> Any:
    import keras

    class Log(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
        def __init__(self) -> None:
            super().__init__()
            self.curves: dict[str, list[float]] = {"loss": [], "held_out_loss": [], "learning_rate": []}

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            logs = logs or {}
            self.curves["loss"].append(float(logs["loss"]))
            self.curves["held_out_loss"].append(float(logs.get("val_loss", np.nan)))
            self.curves["learning_rate"].append(float(self.model.optimizer.learning_rate))
            if on_epoch is not None:
                on_epoch(epoch + 1, planned)

    return Log()
