"""How sensors oscillate: the energy of windows in a few bands of frequency, beside what the others let one expect.

An energy counts by how far it is from its own mean, and twice as much by how far from what the other bands and sensors
let one expect, as if all their logarithms were normal. For most of what energies do follows from how hard a machine
works and shows in all sensors, and most faults in one of them; but a fault in all is seen by the first alone. NumPy
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.series.row_errors import How
from detector.series.segmented_windows import LaidWindows, thinned

BANDS = 6
LEAST_ENERGY = 1e-3
"""The energy, in squared ranges, below which nothing oscillates: so that silence is not told from deeper silence."""
LEAST_SPREAD = 0.2
"""The least spread of an energy's logarithm: a fifth more or less is nothing."""

ORDINARY = 1.0
"""How many spreads an energy may be off and say nothing."""
OWN_SHARE = 1 / 3
"""What an energy's distance from its own mean counts beside that from what the others let one expect."""
MOST_WINDOWS = 20_000
"""So many windows are learnt from, evenly spread: neighbours are alike."""
MOST_COUPLED = 1500
"""Bands times sensors beyond which each energy stands for itself: what all say of each other would be too much."""


@dataclass(frozen=True)
class Spectrum:
    """The usual energies of one length of windows. Make one with ``Spectrum.fit``.

    - ``centre``, ``spread``, (n_bands, n_sensors): mean and deviation of the logarithms of the energies.
    - ``least``, (n_sensors,): what is added to each sensor's energies.
    - ``given``, (n_bands * n_sensors, n_bands * n_sensors): turns deviations into those from what the others let one
      expect; (0, 0) where each stands for itself.
    """

    centre: Floats
    spread: Floats
    least: Floats
    given: NDArray[np.float32]

    @classmethod
    def fit(cls, laid: LaidWindows, chosen: Flags, *, resolution: Floats) -> Self:
        """Learn from the windows chosen; ``resolution``, (n_sensors,), is what a sensor flickers by for nothing.

        >>> wave = np.sin(np.arange(200.0))[:, None].astype(np.float32)
        >>> laid = LaidWindows.lay(wave, np.zeros(200), 16)
        >>> Spectrum.fit(laid, laid.whole, resolution=np.zeros(1)).centre.ravel().argmax()  # 16 rows: 2.5 turns
        np.int64(2)
        """
        least = LEAST_ENERGY + laid.windows.length * resolution**2
        independent = chosen.sum() / laid.windows.length
        chosen = thinned(chosen, MOST_WINDOWS)
        found = [np.log(energies(block, laid.windows.length, least)) for _, block in laid.blocks(chosen)]
        logs = np.concatenate(found) if found else np.zeros((1, *energies_shape(laid)))
        spread = np.maximum(logs.std(axis=0, dtype=np.float64), LEAST_SPREAD)
        centre = logs.mean(axis=0, dtype=np.float64)
        deviations = ((logs - centre) / spread).reshape(len(logs), -1)
        return cls(centre, spread, least, given_the_others(deviations, independent))

    def errors(self, laid: LaidWindows, *, how: How, chosen: Flags | None = None) -> Floats:
        """What squared deviations have beyond a spread, (n_rows, n_sensors), over bands and windows; NaN if none."""
        parts = []
        for _, block in laid.blocks(chosen):
            logs = np.log(energies(block, laid.windows.length, self.least))
            off = ((logs - self.centre) / self.spread).astype(np.float32)
            beyond = np.maximum(off**2 - ORDINARY**2, 0.0)
            if self.given.size:
                other = (off.reshape(len(off), -1) @ self.given).reshape(off.shape)
                beyond = OWN_SHARE * beyond + (1 - OWN_SHARE) * np.maximum(other**2 - ORDINARY**2, 0.0)
            parts.append(beyond.mean(axis=1, dtype=np.float64))
        if not parts:
            return np.full((len(laid.own), len(self.least)), np.nan)
        weights = taper_of(laid.windows.length) ** 2  # what a row has to do with its window's energies
        return laid.over_rows(np.concatenate(parts), weights, how=how, chosen=chosen)

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        return cls(arrays["centre"], arrays["spread"], arrays["least"], arrays["given"])


def given_the_others(deviations: Floats, independent: float) -> NDArray[np.float32]:
    """What turns deviations, (n_windows, n), into those from their mean given all others, in spreads of those.

    Were they normal: the rows of the inverse of their correlations, over the roots of its diagonal. Correlations are
    shrunk by the share that n is of n and the number of windows that are ``independent``.

    >>> pair = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    >>> given_the_others(pair, 1e9).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    n = deviations.shape[1]
    if n > MOST_COUPLED:
        return np.zeros((0, 0), dtype=np.float32)
    together = deviations.T @ deviations / len(deviations)
    shrunk = together * (independent / (n + independent))
    shrunk[np.diag_indices(n)] += n / (n + independent)
    precision = np.linalg.inv(shrunk)
    return np.asarray(precision / np.sqrt(np.diag(precision)), dtype=np.float32)


def energies(block: NDArray[np.float32], length: int, least: Floats) -> NDArray[np.float32]:
    """Each band's energy in flattened windows, (n_windows, n_bands, n_sensors), ``least`` added."""
    waves, bands = _transform(length)
    sensors = block.shape[1] // length
    rows = block.reshape(len(block), length, sensors)
    centred = rows - rows.mean(axis=1, keepdims=True)
    turned = np.matmul(waves, centred)  # (n_windows, 2 * n_frequencies, n_sensors)
    return np.asarray(np.matmul(bands, turned**2) + least.astype(np.float32), dtype=np.float32)


def energies_shape(laid: LaidWindows) -> tuple[int, int]:
    """Bands and sensors."""
    return len(_transform(laid.windows.length)[1]), laid.values.shape[1]


def taper_of(length: int) -> Floats:
    """What each row of a window counts: its ends, where a wave is cut, nearly nothing.

    >>> taper_of(3).tolist()
    [0.5, 1.0, 0.5]
    """
    return np.asarray(np.hanning(length + 2)[1:-1])


@lru_cache(maxsize=32)
def _transform(length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A tapered Fourier transform as a matrix, and which of its lines each band adds up."""
    frequencies = np.arange(1, length // 2 + 1)
    angle = 2 * np.pi * frequencies[:, None] * np.arange(length) / length
    waves = np.vstack([np.cos(angle), np.sin(angle)]) * taper_of(length)
    edges = np.unique(np.round(np.geomspace(1, length // 2 + 1, BANDS + 1)).astype(int))
    which = np.searchsorted(edges, frequencies, side="right") - 1
    bands = (which == np.arange(len(edges) - 1)[:, None]).astype(np.float32)
    return waves.astype(np.float32), np.hstack([bands, bands])
