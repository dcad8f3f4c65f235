"""An autoencoder for sequences of tokens: words, event codes, merchant categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from detector.checks import one_of
from detector.encoders.checks import check_heads, check_sizes
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.encoders.vocabulary import FIRST, Token, Vocabulary, check_policies, check_sequences
from detector.training.loop import Rows

NETWORKS = ("lstm", "gru", "transformer")


@dataclass(kw_only=True, eq=False, repr=False)
class TokenAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Token lists of any lengths → vectors of one length → token lists.

    Tokens are integers or text. Each is embedded, the sequence is read by an LSTM, a GRU or a Transformer, and the
    decoder gives a probability to every token at every place, the end included. ``score_samples`` is minus the mean
    cross-entropy of a sequence, in nats a token. ``decode`` and ``reconstruct`` give lists of tokens.

    Parameters
    ----------
    code : int
        Length of the vector.
    network : str
        "lstm", "gru" or "transformer".
    units : int
        Width of the network.
    embedding : int
        Length of the vector a token is embedded to.
    heads, blocks : int
        Attentions side by side and attention layers, of "transformer".
    linear : bool
        Whether there is a linear path beside the network, from the embedded tokens to the code, and from the code to
        every place.
    length : int, optional
        Most tokens of a sequence; without it, as many as the longest one fitted has.
    vocabulary : int
        Most tokens to know; the others, the rarest, are unknown ones.
    unknown : str
        What a token out of vocabulary is: "token", one and the same token that is never expected, so that it costs the
        sequence dearly, and that ``decode`` never answers; or "reject", an error.
    longer : str
        What becomes of a sequence longer than ``length``: "truncate" keeps its last tokens, "reject" is an error.
    mask : float
        Share of the tokens hidden in training, each of which looks like an unknown one.

    Attributes
    ----------
    vocabulary_ : Vocabulary
        The tokens known.

    >>> TokenAutoencoder(code=4, network="gru")
    TokenAutoencoder(code=4, network='gru')
    """

    code: int = 16
    network: str = "lstm"
    units: int = 64
    embedding: int = 16
    heads: int = 4
    blocks: int = 1
    linear: bool = True
    length: int | None = None
    vocabulary: int = 1000
    unknown: str = "token"
    longer: str = "truncate"
    mask: float = 0.05

    _choices = ("expected", "decoded")

    def _check_settings(self) -> None:
        super()._check_settings()
        one_of("network", self.network, NETWORKS)
        check_sizes(self, "vocabulary")
        check_policies(self.unknown, self.longer)
        if self.length is not None:
            check_sizes(self, "length")
        if self.network == "transformer":
            check_heads(self)

    def _checked(self, X: Any, *, reset: bool) -> NDArray[np.float32]:
        sequences = check_sequences(X, least=2 if reset else 1)
        if reset:
            self.vocabulary_ = Vocabulary.fit(sequences, most=self.vocabulary, length=self.length)
            return self.vocabulary_.numbers(sequences, longer=self.longer)
        return self.vocabulary_.numbers(sequences, unknown=self.unknown, longer=self.longer)

    def _values(self, data: Any) -> Rows:
        return data

    def _restored(self, expected: NDArray[np.float32]) -> list[list[Token]]:
        return self.vocabulary_.sequences(expected)

    def _sizes(self) -> tuple[int, ...]:
        return (self.vocabulary_.size,)

    def _build(self, rows: Rows) -> Network:
        from keras import layers, ops

        from detector.encoders.parts import HideTokens, chain
        from detector.encoders.sequences import make_core

        places, size = rows.shape[1], self.vocabulary_.size
        embed = layers.Embedding(size, self.embedding)
        core = make_core(self.network, units=self.units, heads=self.heads, blocks=self.blocks, timesteps=places)
        to_code, to_likelihood = layers.Dense(self.code), layers.Dense(size)
        glance = chain(layers.Flatten(), layers.Dense(self.code, use_bias=False)) if self.linear else None
        outline = (
            chain(layers.Dense(places * self.embedding), layers.Reshape((places, self.embedding)), layers.Dense(size))
            if self.linear
            else None
        )
        possible = (np.arange(size) >= FIRST - 1).astype("float32")  # a token or the end
        each, ones = np.arange(size, dtype="float32"), np.ones((places, 1), "float32")

        def encode(x: Any) -> Any:
            there = ops.cast(x > 0.5, "float32")
            embedded = embed(ops.cast(x, "int32"))
            code = to_code(core.read(embedded, there))
            return code if glance is None else code + glance(embedded * there[:, :, None])

        def decode(code: Any) -> Any:
            found = to_likelihood(core.write(code))
            return ops.softmax(found if outline is None else found + outline(code), axis=-1)

        def cross_entropy(x: Any, likelihood: Any) -> Any:
            truth = ops.cast(ops.abs(x[:, :, None] - each) < 0.5, "float32")
            given = ops.matmul(truth * likelihood, np.ones((size, 1), "float32"))[:, :, 0]
            there = ops.cast(x > 0.5, "float32")
            return ops.matmul(-ops.log(given + 1e-9) * there, ones) / ops.matmul(there, ones)

        def choose(likelihood: Any) -> Any:
            likelihood = likelihood * possible
            best = ops.max(likelihood, axis=-1, keepdims=True)
            return ops.max(ops.cast(likelihood >= best, "float32") * each, axis=-1)  # Keras's argmax has no ONNX form

        return Network(
            encode=encode,
            decode=decode,
            error=cross_entropy,
            loss=cross_entropy,
            damage=HideTokens(mask=self.mask, seed=self.random_state),
            choose=choose,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True  # lists of lists have no number of features
        return tags
