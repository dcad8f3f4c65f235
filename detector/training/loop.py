"""The Keras loop: loss, schedule, early stopping. With the encoders, the only part that needs TensorFlow."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.checks import one_of
from detector.errors import DataError, MissingExtraError, WarmStartError
from detector.training.settings import LOSSES, Training

if TYPE_CHECKING:
    import keras

    from detector.training.trainer import Trainer

OnEpoch = Callable[[int, int], None]
Rows = Any
"""Rows to learn from: an array, or a SciPy CSR array, of which only a batch at a time is made dense."""


@contextmanager
def keras_session(random_state: int) -> Iterator[None]:
    """Make Keras importable, quiet and seeded; the caller's own random generators are left as they were.

    Raises ``MissingExtraError`` if TensorFlow is not installed.
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
    model: Trainer,
    inputs: Sequence[Rows],
    training: Training,
    *,
    random_state: int,
    on_epoch: OnEpoch | None = None,
    initial: Mapping[str, NDArray[np.float32]] | None = None,
) -> dict[str, list[float]]:
    """Train a model, in place, whose output is each row's own loss, shape (n_rows,) or (n_rows, 1).

    Its optimiser begins anew. It ends with its best weights; returned are ``loss``, ``held_out_loss`` and
    ``learning_rate`` of each epoch. ``initial`` are weights of an earlier model of the same shape, in order, to start
    from. Raises ``DataError`` if the loss stops being a number; ``WarmStartError`` if the earlier weights have other
    shapes.
    """
    import keras

    if initial is not None:
        start_from(model, initial)
    order = np.random.default_rng(random_state).permutation(inputs[0].shape[0])
    n_held_out = training.held_out(len(order))
    held_out, rows = order[:n_held_out], order[n_held_out:]
    epochs, steps = training.plan(len(rows))
    if model.planned == (training, epochs, steps):
        model.rewind()
    else:
        model.compile(
            optimizer=_optimiser(training, epochs * steps),
            loss=_mean_row_loss(training.trim),
            steps_per_execution=min(steps, 25),
            jit_compile=False,
        )
        model.planned = training, epochs, steps
    log = _log_callback(epochs, on_epoch)
    monitor = "val_loss" if n_held_out else "loss"
    stop = keras.callbacks.EarlyStopping(monitor, patience=training.patience, restore_best_weights=True)
    lower = keras.callbacks.ReduceLROnPlateau(monitor, factor=training.decay, patience=training.plateau_patience)
    model.fit(
        _batches([array[rows] for array in inputs], training.batch_size, random_state),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=_once([array[held_out] for array in inputs]) if n_held_out else None,
        callbacks=[
            log,
            stop,
            keras.callbacks.TerminateOnNaN(),
            *([lower] if training.schedule == "plateau" else []),
        ],
        verbose=0,
    )
    if not np.isfinite(log.curves["loss"][-1]):
        raise DataError(
            f"The training loss became {log.curves['loss'][-1]} after {len(log.curves['loss'])} epochs. "
            f"Lower the learning rate (now {training.learning_rate:g})."
        )
    curves: dict[str, list[float]] = log.curves
    return curves


def start_from(model: keras.Model, initial: Mapping[str, NDArray[np.float32]]) -> None:
    """Give a model the weights of an earlier one of the same shape, in order.

    Raises ``WarmStartError`` if the earlier weights have other shapes.
    """
    given, wanted = [array.shape for array in initial.values()], [tuple(weight.shape) for weight in model.weights]
    if given != wanted:
        raise WarmStartError(
            f"The earlier weights do not fit this network: expected arrays of shapes {wanted}, received {given}. "
            f"Use the same architecture and columns, or start without earlier weights."
        )
    model.set_weights(list(initial.values()))


def _optimiser(training: Training, updates: int) -> keras.optimizers.Optimizer:
    import keras

    rate, clip = _schedule(training, updates), training.clip or None
    if training.optimiser == "sgd":
        return keras.optimizers.SGD(rate, momentum=training.momentum, clipnorm=clip)
    if training.optimiser == "rmsprop":
        return keras.optimizers.RMSprop(rate, clipnorm=clip)
    if training.optimiser == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay, clipnorm=clip)
    return keras.optimizers.Adam(rate, clipnorm=clip)


def _schedule(training: Training, updates: int) -> Any:
    from keras.optimizers import schedules

    peak = training.learning_rate
    if training.schedule == "cosine":
        return schedules.CosineDecay(peak, updates, alpha=0.01)
    if training.schedule == "warmup_cosine":
        rising = int(training.warmup * updates)
        start, target = (peak / 100, peak) if rising else (peak, None)
        return schedules.CosineDecay(start, updates - rising, alpha=0.01, warmup_target=target, warmup_steps=rising)
    if training.schedule == "exponential":
        return schedules.ExponentialDecay(peak, updates, training.decay)
    if training.schedule == "step":
        return schedules.ExponentialDecay(peak, -(-updates // 3), training.decay, staircase=True)
    return peak


def penalty(loss: str) -> Callable[[Any], Any]:
    """How a residual counts: squared, absolute, or squared near 0 and absolute far from it (Huber, log-cosh).

    Raises ``SettingError`` if the name is unknown.
    """
    one_of("loss", loss, LOSSES)
    from keras import ops

    def log_cosh(r: Any) -> Any:
        return ops.abs(r) + ops.softplus(-2.0 * ops.abs(r)) - np.log(2.0)

    def huber(r: Any) -> Any:
        return ops.where(ops.abs(r) <= 1.0, 0.5 * ops.square(r), ops.abs(r) - 0.5)

    known: dict[str, Callable[[Any], Any]] = {"mse": ops.square, "mae": ops.abs, "huber": huber, "log_cosh": log_cosh}
    return known[loss]


def _batches(inputs: Sequence[Rows], batch_size: int, seed: int) -> Any:
    """Shuffled batches without end; the target is a dummy, as the model's output is its own loss."""
    from tensorflow.data import Dataset

    n_rows = inputs[0].shape[0]
    rows = Dataset.range(n_rows).shuffle(n_rows, seed=seed).repeat().batch(min(batch_size, n_rows))
    return rows.map(_picker(inputs)).prefetch(2)


def _once(inputs: Sequence[Rows]) -> Any:
    from tensorflow.data import Dataset

    return Dataset.range(inputs[0].shape[0]).batch(4096).map(_picker(inputs))


def _picker(inputs: Sequence[Rows]) -> Any:
    """From positions to rows; not rewritten by AutoGraph, which would read this file again while training."""
    import tensorflow as tf

    def rows_of(array: Rows, at: Any) -> Any:
        if isinstance(array, np.ndarray):
            return tf.gather(array, at)
        dense = tf.numpy_function(lambda chosen: array[chosen].toarray(), [at], tf.float32)
        return tf.ensure_shape(dense, (None, array.shape[1]))

    def pick(at: Any) -> tuple[tuple[Any, ...], Any]:
        return tuple(rows_of(array, at) for array in inputs), tf.zeros_like(at, dtype=tf.float32)

    return tf.autograph.experimental.do_not_convert(pick)


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
