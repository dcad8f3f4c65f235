"""Data where each encoder is at home, and how well rows are rebuilt: for the common tests of all encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from detector.encoders.conv1d import Conv1dAutoencoder
from detector.encoders.conv2d import Conv2dAutoencoder
from detector.encoders.dense import DenseAutoencoder
from detector.encoders.mixed import MixedAutoencoder
from detector.encoders.multimodal import MultimodalAutoencoder
from detector.encoders.recurrent import RecurrentAutoencoder
from detector.encoders.sparse import SparseAutoencoder
from detector.encoders.tokens import TokenAutoencoder
from detector.encoders.transformer import TransformerAutoencoder
from detector.encoders.variational import VariationalAutoencoder
from detector.lab.damage import unrelated
from detector.training.settings import Training

N_TOKENS = 6
PLACES = 7


@dataclass(frozen=True)
class Home:
    """An encoder and the data it is made for.

    ``draw`` gives rows from a seed and a number; ``flat`` turns rows into a matrix for PCA, and ``error`` says how far
    a matrix is from the rows it stands for.
    """

    encoder: Any
    draw: Callable[[int, int], Any]
    flat: Callable[[Any], np.ndarray] = np.asarray
    error: Callable[[np.ndarray, np.ndarray], float] = lambda wanted, got: float(np.nanmean((wanted - got) ** 2))
    rows: int = 600


BRIEF = Training(epochs=1, least_steps=1, max_steps=1, holdout=0.0, optimiser="sgd", schedule="constant", clip=0.0)
"""For tests of anything but what is learnt."""


def fast(rate: float = 5e-3, **more: Any) -> Training:
    """Enough training for small data."""
    return Training(**{"epochs": 6, "least_steps": 50, "batch_size": 64, "learning_rate": rate} | more)


def curved(seed: int, n: int) -> np.ndarray:
    """Eight columns that follow two numbers, not in a plane."""
    rng = np.random.default_rng(seed)
    t, u = rng.uniform(0, 3, n), rng.uniform(-1, 1, n)
    waves = [wave(t * k + sign * u) for wave, sign in ((np.sin, 1), (np.cos, -1)) for k in (1, 2, 3)]
    rows = np.column_stack([*waves, t * u, u**2])
    return 10 + 3 * rows + rng.normal(0, 0.02, rows.shape)


def baskets(seed: int, n: int) -> csr_array:
    """Each row one of thirty baskets of goods, in some amount."""
    kinds = np.random.default_rng(99).random((30, 120)) < 0.06
    rng = np.random.default_rng(seed)
    bought = kinds[rng.integers(30, size=n)] & (rng.random((n, 120)) < 0.95)
    return csr_array(bought * rng.uniform(0.5, 1.5, (n, 1)))


def bumps(seed: int, n: int) -> np.ndarray:
    """Two sensors; a bump at any time, the second sensor's a little later and upside down."""
    rng, t = np.random.default_rng(seed), np.arange(24)
    at, height = rng.uniform(4, 20, (n, 1)), rng.uniform(0.7, 1.3, (n, 1))
    pair = [height * np.exp(-0.5 * ((t - at) / 1.5) ** 2), -height * np.exp(-0.5 * ((t - at - 2) / 1.5) ** 2)]
    windows = np.stack(pair, axis=2)
    return (windows + rng.normal(0, 0.02, windows.shape)).reshape(n, -1)


def digits(seed: int, n: int) -> np.ndarray:
    """Handwritten digits of 8 x 8 pixels."""
    images = np.random.default_rng(0).permutation(load_digits().data)
    return images[:n] if seed == 0 else images[1400 : 1400 + n]


def sines(seed: int, n: int) -> np.ndarray:
    """Waves of any frequency and phase, 6 to 12 readings long."""
    rng, t = np.random.default_rng(seed), np.arange(12)[None]
    waves = np.sin(2 * np.pi * (t / rng.uniform(5, 12, (n, 1)) + rng.random((n, 1))))
    return np.where(t < rng.integers(6, 13, (n, 1)), waves + rng.normal(0, 0.02, waves.shape), np.nan)


def rounds(seed: int, n: int) -> list[list[int]]:
    """A chain of tokens: from any of six on in steps of one or two, 3 to 6 long."""
    rng = np.random.default_rng(seed)
    starts, steps, lengths = rng.integers(N_TOKENS, size=n), rng.integers(1, 3, n), rng.integers(3, PLACES, n)
    return [
        [100 + (int(a) + int(s) * i) % N_TOKENS for i in range(k)]
        for a, s, k in zip(starts, steps, lengths, strict=True)
    ]


def trades(seed: int, n: int) -> np.ndarray:
    """A category, and five numbers whose curve depends on it."""
    rng = np.random.default_rng(seed)
    kind, t = rng.integers(4, size=n), rng.uniform(-1, 1, n)
    numbers = [np.sin(2 * t + 2 * kind), np.cos(3 * t + kind), t**2, np.sin(3 * t - kind), np.cos(2 * t)]
    return np.column_stack([10.0 * kind, *[number + rng.normal(0, 0.02, n) for number in numbers]])


def machines(seed: int, n: int) -> dict[str, Any]:
    """Numbers, a window and event codes of one machine, all of which follow its phase and its mode."""
    rng = np.random.default_rng(seed)
    phase, mode = rng.uniform(0, 2 * np.pi, n), rng.integers(1, 3, n)
    numbers = np.column_stack([np.cos(phase), np.sin(phase), np.cos(2 * phase) * mode])
    window = np.sin(2 * np.pi * mode[:, None] * np.arange(16) / 16 + phase[:, None])
    first = (phase / (2 * np.pi) * N_TOKENS).astype(int)
    codes = [[(int(a) + int(m) * i) % N_TOKENS for i in range(4)] for a, m in zip(first, mode, strict=True)]
    noise = np.random.default_rng(seed + 1)
    return {
        "numbers": numbers + noise.normal(0, 0.02, numbers.shape),
        "window": window + noise.normal(0, 0.02, window.shape),
        "codes": codes,
    }


def indicators(sequences: list[list[int]]) -> np.ndarray:
    """One column a place and token, the end being one more token."""
    rows = np.zeros((len(sequences), PLACES, N_TOKENS + 1))
    for row, sequence in zip(rows, sequences, strict=True):
        kept = [token % 100 for token in sequence][: PLACES - 1]
        row[np.arange(len(kept) + 1), [*kept, N_TOKENS]] = 1
    return rows.reshape(len(rows), -1)


def share_wrong(wanted: np.ndarray, got: np.ndarray) -> float:
    """Of the places that hold a token, those where another one is likelier."""
    wanted, got = (rows.reshape(len(rows), PLACES, -1) for rows in (wanted, got))
    there = wanted.any(axis=2)
    return float((wanted.argmax(axis=2) != got.argmax(axis=2))[there].mean())


def trades_flat(rows: np.ndarray) -> np.ndarray:
    """Indicators of the category beside the numbers."""
    return np.hstack([rows[:, :1] == [0.0, 10.0, 20.0, 30.0], rows[:, 1:]]).astype(float)


def trades_error(wanted: np.ndarray, got: np.ndarray) -> float:
    """Share of wrong categories plus squared residuals."""
    wrong = (wanted[:, :4].argmax(axis=1) != got[:, :4].argmax(axis=1)).mean()
    return float(wrong + ((wanted[:, 4:] - got[:, 4:]) ** 2).mean())


def machines_flat(rows: dict[str, Any]) -> np.ndarray:
    """Everything side by side."""
    return np.hstack([rows["numbers"], rows["window"], indicators(rows["codes"])])


def machines_error(wanted: np.ndarray, got: np.ndarray) -> float:
    """Squared residuals plus the share of wrong event codes."""
    return float(((wanted[:, :19] - got[:, :19]) ** 2).mean() + share_wrong(wanted[:, 19:], got[:, 19:]))


def _machine_parts() -> dict[str, Any]:
    """Branches; one of them a GRU, which has no home of its own."""
    return {
        "numbers": DenseAutoencoder(code=3, hidden=(16,)),
        "window": Conv1dAutoencoder(code=4, filters=(8,)),
        "codes": TokenAutoencoder(code=6, network="gru", units=16, embedding=8),
    }


SEQUENCES: dict[str, Any] = {"draw": rounds, "flat": indicators, "error": share_wrong}

HOMES: dict[str, Home] = {
    "dense": Home(DenseAutoencoder(code=2, training=fast()), curved),
    "sparse": Home(
        SparseAutoencoder(code=8, training=fast(epochs=12)),
        baskets,
        flat=lambda rows: rows.toarray() if hasattr(rows, "toarray") else rows,
        rows=1500,
    ),
    "variational": Home(VariationalAutoencoder(code=2, training=fast()), curved),
    "conv1d": Home(Conv1dAutoencoder(timesteps=24, code=3, filters=(8, 16), training=fast()), bumps),
    "conv2d": Home(Conv2dAutoencoder(shape=(8, 8), code=6, training=fast(epochs=8)), digits, rows=1400),
    "recurrent": Home(RecurrentAutoencoder(code=3, units=24, training=fast(1e-2, epochs=4)), sines),
    "transformer": Home(TransformerAutoencoder(code=3, units=16, heads=2, training=fast(1e-2, epochs=4)), sines),
    "tokens": Home(TokenAutoencoder(code=3, units=32, embedding=8, training=fast(2e-2, epochs=4)), **SEQUENCES),
    "mixed": Home(
        MixedAutoencoder(categorical=(0,), code=2, training=fast(epochs=8)),
        trades,
        flat=trades_flat,
        error=trades_error,
    ),
    "multimodal": Home(
        MultimodalAutoencoder(branches=_machine_parts(), code=4, training=fast(epochs=4)),
        machines,
        flat=machines_flat,
        error=machines_error,
    ),
}


@cache
def at_home(name: str) -> Any:
    """The encoder of that name, fitted once; tests must not change it."""
    home = HOMES[name]
    return home.encoder.fit(home.draw(0, home.rows))


def fresh(name: str, n: int = 200) -> Any:
    """Rows the encoder has not seen."""
    return HOMES[name].draw(7, n)


def strange(name: str, n: int = 200) -> Any:
    """Fresh rows whose values are usual each on its own, but do not belong together."""
    return unrelated(fresh(name, n), random_state=3)


def linear_error(name: str) -> float:
    """What a PCA of the same code size makes of the fresh rows."""
    home = HOMES[name]
    learnt, held_out = (home.flat(rows) for rows in (home.draw(0, home.rows), fresh(name)))
    linear = PCA(home.encoder.code, random_state=0).fit(np.nan_to_num(learnt))
    return home.error(held_out, linear.inverse_transform(linear.transform(np.nan_to_num(held_out))))
