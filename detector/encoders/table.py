"""A dense autoencoder for tables: numbers, categories by embedding, missing cells by indicator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.checks import check_interval, check_least, check_whole, one_of
from detector.encoders.checks import check_sizes
from detector.encoders.compiled import Built, compiled
from detector.encoders.export import answers, cut
from detector.errors import SettingError
from detector.training.loop import OnEpoch, keras_session, penalty, start_from, train
from detector.training.settings import LOSSES, Training

if TYPE_CHECKING:
    import onnx

UNSEEN = 1
LOG_SPREAD = 4.0
"""Logarithms of noise levels are divided by this, to be about as large as the scaled values beside them."""
LOWEST_LEVEL = 0.2
"""Where the lowest level of noise lies that is scored at, on the logarithmic scale from the smallest to the largest: at
the smallest itself, a row is repaired to itself."""


@dataclass(frozen=True)
class FittedNetwork:
    """A trained network as ONNX models, with what Keras itself said on some rows, for comparison.

    - ``scorer``: ``values``, ``missing``, ``labels`` → ``error``: squared residual of each number, 0 where missing;
      cross-entropy of each category.
    - ``encoder``: the same → ``code``, ``expected`` (scaled values), ``likelihood`` (a probability for each level of
      each category, side by side).
    - ``decoder``: ``code`` → ``expected``, ``likelihood``.
    - ``probe_error``, (n_probe, n_inputs): ``error`` as Keras computes it on the probe rows.
    - ``weights``: for a warm start.
    - ``history``: see ``detector.training.loop.train``.
    """

    scorer: onnx.ModelProto
    encoder: onnx.ModelProto
    decoder: onnx.ModelProto
    probe_error: NDArray[np.float32]
    weights: dict[str, NDArray[np.float32]]
    history: dict[str, list[float]]


@dataclass(frozen=True)
class TableAutoencoder:
    """A wide denoising autoencoder (Vincent et al., JMLR 2010) for mixed tables.

    Parameters
    ----------
    hidden : tuple of int
        Units of the encoder's hidden layers; the decoder mirrors them.
    code : int
        Length of the code a row is encoded to.
    embedding : int
        Length of the vector a category is embedded to.
    noise : float
        Largest standard deviation of the noise put on scaled values in training; 0 for none. The network is told how
        much noise there is.
    least_noise : float
        Smallest standard deviation of that noise.
    levels : int
        At scoring the network is told so many different levels of noise, between the smallest and the largest, and a
        number counts by what it would change at each: little where the row lies in the midst of others at that scale.
        0 scores numbers as categories are scored, hidden in groups.
    mask : float
        Largest share of a row's cells hidden in training.
    groups : int
        At scoring categories (and numbers, without ``levels``) are hidden in so many groups, one after the other, and
        each is scored by what the others say of it. 0 scores the plain reconstruction: faster, and blinder, as a wide
        network can copy.
    loss : str
        How a number's residual counts in training: "mse", "mae", "huber" or "log_cosh". Categories always count by
        cross-entropy.
    training : Training
        Epochs, batches, learning rate, trimming.

    Raises
    ------
    SettingError
        If a size is not positive or the loss unknown.
    """

    hidden: tuple[int, ...] = (128,)
    code: int = 64
    embedding: int = 8
    noise: float = 1.0
    least_noise: float = 0.05
    levels: int = 3
    mask: float = 0.8
    groups: int = 2
    loss: str = "mse"
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        check_sizes(self, "hidden", "code", "embedding")
        one_of("loss", self.loss, LOSSES)
        check_least(self, 0, "noise", "levels", "groups")
        check_whole(self, "levels", "groups")
        check_interval(self, "[0, 1)", "mask")
        if not self.least_noise > 0:
            raise SettingError(f"least_noise must be positive. Received: least_noise={self.least_noise}.")

    @property
    def told(self) -> tuple[float, ...]:
        """The levels of noise the network is told at scoring, the smallest first."""
        at = np.linspace(LOWEST_LEVEL, 1.0, self.levels) if self.levels > 1 else np.ones(self.levels)
        span = max(1.0, self.noise / self.least_noise)
        return tuple(float(level) for level in self.least_noise * span**at)

    def fit(
        self,
        views: dict[str, NDArray[np.float32]],
        cardinalities: Sequence[int],
        *,
        probe: dict[str, NDArray[np.float32]],
        random_state: int,
        initial: Mapping[str, NDArray[np.float32]] | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> FittedNetwork:
        """Train on prepared rows.

        ``views`` are ``values`` and ``missing``, ``labels``, each of shape (n_rows, ·), as ``detector.encoding.onnx``
        gives them; those without a column are absent. ``cardinalities`` are the numbers of codes of the label columns.
        Of the ``probe`` rows, prepared alike, Keras's own answer is kept. ``initial`` are the weights of an earlier
        network of the same shape, to start from.
        """
        inputs, widths = _inputs(views), _widths(views)
        n_rows = len(next(iter(inputs.values())))
        plan = self.training.plan(n_rows - self.training.held_out(n_rows))
        key = self, tuple(widths.items()), tuple(cardinalities), random_state, plan
        with (
            keras_session(random_state),
            compiled(key, lambda: _build(self, widths, cardinalities, random_state)) as made,
        ):
            models, heads = made.built.models, made.built.network
            if initial is not None:
                start_from(models["encoder"], initial)
            rows = list(inputs.values())
            history = train(made.built.trainer, rows, self.training, random_state=random_state, on_epoch=on_epoch)
            scorer = made.export("scorer", list(inputs), ["error"])
            encoder = made.export("encoder", list(inputs), ["code", *heads])
            decoder = cut(encoder, ["code"], heads)
            assert decoder is not None  # it reads nothing but the code
            return FittedNetwork(
                scorer=scorer,
                encoder=encoder,
                decoder=decoder,
                probe_error=answers(models["scorer"], [probe[name] for name in inputs])[0],
                weights={weight.path: np.asarray(weight) for weight in models["encoder"].weights},
                history=history,
            )

    def check_initial(
        self,
        views: dict[str, NDArray[np.float32]],
        cardinalities: Sequence[int],
        initial: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Raise ``WarmStartError`` if ``fit`` cannot start from these weights, before anything is trained."""
        with keras_session(0):
            start_from(_build(self, _widths(views), cardinalities, 0).models["encoder"], initial)


def _inputs(views: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The views of the rows that the network reads, in the order of its inputs."""
    return {name: views[name] for name in ("values", "missing", "labels") if name in views}


def _widths(views: dict[str, NDArray[np.float32]]) -> dict[str, int]:
    return {name: array.shape[1] for name, array in _inputs(views).items()}


def _build(settings: TableAutoencoder, widths: dict[str, int], cardinalities: Sequence[int], seed: int) -> Built:
    import keras
    from keras import layers, ops

    from detector.encoders.parts import Corruption, Levels, concatenated
    from detector.training.trainer import Trainer

    clean = {name: keras.Input((width,), name=name) for name, width in widths.items()}
    n_values, n_labels = widths.get("values", 0), widths.get("labels", 0)
    offsets = np.concatenate([[0], np.cumsum(cardinalities)])[:-1].astype("float32") if n_labels else None
    embed = layers.Embedding(sum(cardinalities), settings.embedding, name="embedding") if n_labels else None
    encode = [layers.Dense(units, activation="relu") for units in settings.hidden]
    to_code = layers.Dense(settings.code, activation="relu", name="to_code")
    decode = [layers.Dense(units, activation="relu") for units in reversed(settings.hidden)]
    to_values = layers.Dense(n_values, name="to_values") if n_values else None
    to_levels = Levels(cardinalities) if n_labels else None

    def encoded(given: dict[str, Any]) -> Any:
        parts = []
        if "values" in given:
            parts = [*_with_noise(given["values"], given.get("noise", settings.least_noise)), given["missing"]]
        if embed is not None:
            parts.append(layers.Flatten()(embed(ops.cast(given["labels"] + offsets, "int32"))))
        h = concatenated(parts)
        for layer in encode:
            h = layer(h)
        return to_code(h)

    def decoded(code: Any) -> dict[str, Any]:
        h = code
        for layer in decode:
            h = layer(h)
        heads = {"expected": to_values(h)} if to_values is not None else {}
        return heads if to_levels is None else heads | {"likelihood": to_levels(h)}

    def errors(heads: dict[str, Any], count: Callable[[Any], Any]) -> Any:
        parts = []
        if n_values:
            parts.append(count(clean["values"] - heads["expected"]) * (1.0 - clean["missing"]))
        if to_levels is not None:
            parts.append(to_levels.surprise(clean["labels"], heads["likelihood"]))
        return concatenated(parts)

    damaged = Corruption(least=settings.least_noise, most=settings.noise, mask=settings.mask, unseen=UNSEEN, seed=seed)(
        clean
    )
    row_loss = ops.mean(errors(decoded(encoded(damaged)), penalty(settings.loss)), axis=1)
    code = encoded(clean)
    heads = decoded(code)
    inputs = list(clean.values())
    error = _scored(
        settings,
        clean,
        lambda shown: errors(decoded(encoded(shown)), ops.square),
        widths=(n_values, n_labels),
        seed=seed,
    )
    models = {
        "scorer": keras.Model(inputs, error),
        "encoder": keras.Model(inputs, [code, *heads.values()]),
    }
    return Built(Trainer(inputs, row_loss), models, list(heads))


def _scored(
    settings: TableAutoencoder,
    clean: dict[str, Any],
    error: Callable[[dict[str, Any]], Any],
    *,
    widths: tuple[int, int],
    seed: int,
) -> Any:
    """Errors as rows are scored by: of numbers over levels of noise, of what is left with its columns hidden."""
    from keras import layers

    n_values, n_columns = widths[0], sum(widths)
    levels = settings.told if n_values else ()
    numbers, every = _ones(range(n_values), n_columns), _ones(range(n_columns), n_columns)
    found = [error(clean | {"noise": level}) * (numbers / len(levels)) for level in levels]
    rest = every - numbers if levels else every
    if settings.groups:
        groups = _column_groups(settings.groups, rest, seed)
        found += [error(_hide(clean, hidden, n_values)) * hidden for hidden in groups]
    elif rest.any():
        found.append(error(clean) * rest)
    return layers.Add()(found) if len(found) > 1 else found[0]


def _with_noise(values: Any, noise: Any) -> list[Any]:
    """Values that are as large on average whatever the noise on them, and the level of noise, for a network to read."""
    from keras import ops

    if isinstance(noise, float):
        level = ops.zeros_like(values[:, :1]) + np.float32(np.log(noise) / LOG_SPREAD)
        return [values * np.float32(1 / np.sqrt(1 + noise**2)), level]
    return [values / ops.sqrt(1.0 + ops.square(noise)), ops.log(noise) / LOG_SPREAD]


def _ones(columns: Sequence[int] | NDArray[np.int64], n_columns: int) -> NDArray[np.float32]:
    """A row with ones in the given columns."""
    row = np.zeros((1, n_columns), dtype=np.float32)
    row[:, list(columns)] = 1.0
    return row


def _column_groups(groups: int, chosen: NDArray[np.float32], seed: int) -> list[NDArray[np.float32]]:
    """Random groups of the chosen columns, as rows of ones and zeros that add up to the row that chooses them."""
    columns = np.flatnonzero(chosen)
    columns = columns[np.random.default_rng(seed).permutation(len(columns))]
    groups = min(groups, len(columns))
    return [_ones(columns[group::groups], chosen.shape[1]) for group in range(groups)]


def _hide(row: dict[str, Any], hidden: NDArray[np.float32], n_values: int) -> dict[str, Any]:
    """The row as it looks with some columns hidden."""
    values, labels = hidden[:, :n_values], hidden[:, n_values:]
    shown = dict(row)
    if "values" in row:
        shown["values"] = row["values"] * (1.0 - values)
        shown["missing"] = row["missing"] * (1.0 - values) + values
    if "labels" in row:
        shown["labels"] = row["labels"] * (1.0 - labels) + UNSEEN * labels
    return shown
