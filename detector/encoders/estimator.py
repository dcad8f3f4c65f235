"""What all autoencoders share: fit in Keras, answer from ONNX, as scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.exceptions import NotFittedError

from detector.checks import check_interval, check_seed, one_of
from detector.encoders.checks import check_not_negative, check_numbers, check_sizes
from detector.encoders.compiled import Built, compiled
from detector.encoders.export import cut
from detector.encoders.network import Network
from detector.encoders.scaling import Scaling
from detector.errors import ShapeError, UnfittedError
from detector.onnx.graph import Graph
from detector.onnx.parity import largest_difference
from detector.training.loop import OnEpoch, Rows, keras_session, train
from detector.training.settings import LOSSES, Training

SHARED = {
    "code": (
        "int",
        "Length of the code. Too short, and ordinary rows are not rebuilt; too long, and anomalies are copied.",
    ),
    "hidden": ("tuple of int", "Units of the encoder's hidden layers; the decoder mirrors them."),
    "filters": ("tuple of int", "Filters of the encoder's convolutions; the decoder mirrors them."),
    "linear": (
        "bool",
        (
            "Whether there is a linear path beside the network, started at the principal components: the "
            "reconstruction starts as theirs, and the network learns what is not linear."
        ),
    ),
    "noise": ("float", "Standard deviation of the noise put on the scaled values in training."),
    "mask": ("float", "Share of the values hidden in training, so that a wide network cannot simply copy."),
    "loss": ("str", 'How a residual counts in training: "mse", "mae", "huber" or "log_cosh".'),
    "standardise": (
        "bool",
        (
            "Whether each column, of windows each sensor, of images each channel, is scaled to mean 0 and deviation 1; "
            "if not, the residuals count in the columns' own units."
        ),
    ),
    "training": ("Training, optional", "Optimiser, schedule, epochs and so on; the defaults if not given."),
    "initial_weights": ("mapping of str to array, optional", "``weights_`` of an earlier fit, to start from."),
    "on_epoch": ("callable, optional", "Called after each epoch with the numbers of epochs done and planned."),
    "random_state": ("int", "Seeds weights, noise, masks and the held-out rows."),
}


def document(doc: str, names: list[str]) -> str:
    """Add to a class's docstring those of its parameters that it does not describe itself.

    >>> section = ["An encoder.", "", "    Parameters", "    ----------", "    cell : str", "        Its kind.", "", ""]
    >>> document(chr(10).join(section), ["cell", "noise"]).splitlines()[-3:-1]
    ['    noise : float', '        Standard deviation of the noise put on the scaled values in training.']
    """
    head, title, tail = doc.partition("\n    Parameters\n    ----------\n")
    if not title:
        return doc
    own, gap, rest = tail.partition("\n\n")
    described = {name.strip() for line in own.splitlines() for name in line.partition(" : ")[0].split(",")}
    lines = []
    for name in names:
        if name in SHARED and name not in described:
            kind, meaning = SHARED[name]
            lines += [f"    {name} : {kind}", *wrap(meaning, 120, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    return "".join([head, title, "\n".join([own, *lines]), gap, rest])


NOT_BUILT_FROM = ("initial_weights", "on_epoch")
BLOCKS = 64
SIZES = ("code", "hidden", "filters", "kernel", "units", "heads", "blocks", "embedding", "draws")
PROBE_ROWS = 256
ANSWERS = ("code", "expected", "error")

Weights = Mapping[str, NDArray[np.float32]]


class UnfittedEncoderError(UnfittedError, NotFittedError):  # type: ignore[misc]  # scikit-learn ships no types
    """``UnfittedError`` for those who expect scikit-learn's."""


@dataclass(kw_only=True, eq=False, repr=False)
class AutoencoderMixin(TransformerMixin):  # type: ignore[misc]  # scikit-learn ships no types
    """The methods of every autoencoder; an architecture adds ``_build`` and, where rows are no numbers, their handling.

    An architecture is a dataclass of its parameters. Those that several share are described in ``parameters``.

    Attributes
    ----------
    graph_ : Graph
        ``values`` → ``code``, ``expected``, ``error``: all answers come from here.
    decoder_ : Graph
        ``code`` → ``expected``.
    scaling_ : Scaling
        How numbers are scaled before they reach the graph.
    weights_ : dict of str to array
        All weights, for the ``initial_weights`` of another fit.
    history_ : dict of str to list of float
        Loss, held-out loss and learning rate of each epoch.
    parity_ : float
        Largest difference between the graph's answers and Keras's.
    """

    code: int = 8
    training: Training | None = None
    initial_weights: Weights | None = None
    on_epoch: OnEpoch | None = None
    random_state: int = 0
    _choices: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        named = dict.fromkeys(name for each in cls.__mro__ for name in getattr(each, "__annotations__", {}))
        cls.__doc__ = document(cls.__doc__ or "", list(named))

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn to rebuild rows.

        Parameters
        ----------
        X : array of shape (n_rows, n_features), or what the class says
            At least 2 rows. NaN is a missing value, unless the class says otherwise.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        DataError
            If there are too few rows, they are not numbers, or training diverges.
        ShapeError
            If the rows have the wrong shape.
        SettingError
            If a parameter has no meaning.
        ParityError
            If the ONNX graph answers differently from Keras.
        """
        self._check_settings()
        rows = self._values(self._checked(X, reset=True))
        chosen = np.random.default_rng(self.random_state).permutation(rows.shape[0])[:PROBE_ROWS]
        probe = dense_rows(rows[np.sort(chosen)])
        with (
            keras_session(self.random_state),
            compiled(self._architecture(rows), lambda: _models(self._build(rows), rows.shape[1], self.code)) as made,
        ):
            network, trainer, scorer = made.built.network, made.built.trainer, made.built.models["scorer"]
            self.history_ = train(
                trainer,
                [rows],
                self.training or Training(),
                random_state=self.random_state,
                on_epoch=self.on_epoch,
                initial=self.initial_weights,
            )
            if network.settle is not None:
                network.settle(probe)
            answers = [np.asarray(answer.numpy()) for answer in scorer(probe)]
            whole = made.export("scorer", ["values"], ANSWERS)
            decoder = cut(whole, ["code"], ["expected"]) or made.export("decoder", ["code"], ["expected"])
            self.weights_ = {
                f"{i}/{weight.path}": np.asarray(weight.numpy()) for i, weight in enumerate(trainer.weights)
            }
        self.graph_ = Graph(whole.SerializeToString())
        self.decoder_ = Graph(decoder.SerializeToString())
        answered = dict(zip(ANSWERS, answers, strict=True))
        found = self.graph_.run({"values": probe})
        found["decoded"] = self.decoder_.run({"code": found["code"]})["expected"]
        answered["decoded"] = answered["expected"]
        self.parity_ = largest_difference(answered, found, source="the Keras network", choices=self._choices)
        return self

    def encode(self, X: Any) -> NDArray[np.float32]:
        """Each row's code, shape (n_rows, code).

        Raises
        ------
        UnfittedError
            If called before ``fit``; this and the next hold for every method.
        ShapeError, DataError
            If the rows are not like those fitted.
        """
        return self._answer(X, "code")

    def transform(self, X: Any) -> NDArray[np.float32]:
        """The same as ``encode``, for scikit-learn's pipelines."""
        return self.encode(X)

    def decode(self, code: NDArray[np.floating[Any]]) -> Any:
        """Codes back as rows, in the units of the rows fitted.

        Raises
        ------
        ShapeError
            If a code has another length.
        """
        self._check_fitted()
        code = np.asarray(code, dtype=np.float32)
        if code.ndim != 2 or code.shape[1] != self.code:
            raise ShapeError(
                f"decode expected codes of shape (n_rows, {self.code}), received shape {code.shape}. Pass what encode "
                f"gave back."
            )
        return self._restored(self.decoder_.run({"code": code})["expected"])

    def reconstruct(self, X: Any) -> Any:
        """What the network makes of each row, in the units and the form of the rows given."""
        return self._restored(self._answer(X, "expected"))

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus each row's error: higher is more normal, as everywhere in scikit-learn.

        The error is the mean squared residual of the scaled values that are there, unless the class says otherwise. A
        row without any value cannot be scored: NaN.
        """
        return -self._answer(X, "error")[:, 0].astype(np.float64)

    def _answer(self, X: Any, output: str) -> NDArray[np.float32]:
        self._check_fitted()
        data = self._checked(X, reset=False)
        parts = [self._answer_part(rows, output) for rows in self._parts(data)]
        return np.concatenate(parts)

    def _answer_part(self, rows: NDArray[np.float32], output: str) -> NDArray[np.float32]:
        found = self.graph_.run({"values": rows}, [output])[output]
        if output == "error":
            found[np.isnan(rows).all(axis=1)] = np.nan
        return found

    def _parts(self, data: Any) -> Iterator[NDArray[np.float32]]:
        """Prepared rows, a bounded number at a time."""
        size = BLOCKS * self.graph_.block
        for start in range(0, data.shape[0], size):
            yield dense_rows(self._values(data[start : start + size]))

    def _check_settings(self) -> None:
        """Refuse parameters without meaning; an architecture adds its own."""
        check_seed(self)
        check_sizes(self, *(name for name in SIZES if hasattr(self, name)))
        check_interval(self, "[0, 1)", *(name for name in ("mask", "warmup") if hasattr(self, name)))
        check_not_negative(self, *(name for name in ("noise", "beta") if hasattr(self, name)))
        one_of("loss", getattr(self, "loss", "mse"), LOSSES)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """Rows as given, validated; ``reset`` while fitting, when what they are like is kept."""
        data = check_numbers(self, X, reset=reset)
        if reset:
            width = self._width(data.shape[1])
            self.scaling_ = Scaling.fit(data, width) if getattr(self, "standardise", True) else Scaling.none(width)
        return data

    def _width(self, n_features: int) -> int:
        """How many columns are scaled each on its own."""
        return n_features

    def _values(self, data: Any) -> Rows:
        """Validated rows as the graph takes them."""
        return self.scaling_.scaled(data)

    def _restored(self, expected: NDArray[np.float32]) -> Any:
        """The graph's expectation in the form of the rows given."""
        return self.scaling_.unscaled(expected)

    def _build(self, rows: Rows) -> Network:
        """Make the layers. ``rows`` are there for what can be learnt from them beforehand."""
        raise NotImplementedError

    def _architecture(self, rows: Rows) -> Hashable | None:
        """All that the network depends on but weights; None if that cannot be told."""
        sizes, kinds = self._sizes(), type(self).__mro__
        builds, tells = (next(kind for kind in kinds if name in vars(kind)) for name in ("_build", "_sizes"))
        if sizes is None or builds is not tells:  # a subclass may build from more than its parent tells
            return None
        training = self.training or Training()
        settings = self.get_params(deep=False)
        given = sorted((name, repr(each)) for name, each in settings.items() if name not in NOT_BUILT_FROM)
        return (
            type(self),
            sizes,
            tuple(given),
            rows.shape[1],
            training.plan(rows.shape[0] - training.held_out(rows.shape[0])),
        )

    def _sizes(self) -> tuple[int, ...] | None:
        """What ``_build`` takes from the rows besides their width and values of weights; None if that is more."""
        return None

    def _check_fitted(self) -> None:
        if not hasattr(self, "graph_"):
            raise UnfittedEncoderError(
                f"This {type(self).__name__} is not fitted yet. Call fit before asking it for anything."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # a code is float32
        return tags


def dense_rows(rows: Rows) -> NDArray[np.float32]:
    """Rows as an ordinary array."""
    return rows if isinstance(rows, np.ndarray) else np.asarray(rows.toarray(), dtype=np.float32)


def _models(network: Network, width: int, code: int) -> Built:
    """Rows → each row's loss, rows → all answers, and code → what is expected."""
    import keras

    from detector.training.trainer import Trainer

    rows, given = keras.Input((width,), name="values"), keras.Input((code,), name="code")
    trainer, scorer = Trainer(rows, network.row_loss(rows)), keras.Model(rows, network.answers(rows))
    decoder = keras.Model(given, network.chosen(network.decode(given)))
    return Built(trainer, {"scorer": scorer, "decoder": decoder}, network)
