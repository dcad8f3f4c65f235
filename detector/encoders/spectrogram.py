"""Windows of vibration → pictures of which frequencies they hold when."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.errors import DataError, SettingError, ShapeError

FLOOR = 1e-10


def spectrograms(
    windows: NDArray[np.floating[Any]], *, segment: int = 32, step: int = 16
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Log power of each frequency in each segment of each window, for ``Conv2dAutoencoder``.

    Parameters
    ----------
    windows : array of shape (n_windows, timesteps)
        Readings of one sensor at even times.
    segment : int
        Readings a segment; the image has ``segment // 2 + 1`` frequencies, from 0 to half the sampling rate.
    step : int
        Readings from one segment to the next.

    Returns
    -------
    images : array of shape (n_windows, frequencies * segments)
        In decibels, flattened.
    shape : tuple of int
        Frequencies and segments: the ``shape`` of the autoencoder.

    Raises
    ------
    SettingError
        If segment or step are not positive.
    ShapeError
        If windows are not flat, or shorter than a segment.
    DataError
        If a reading is NaN or infinite: a spectrum has no gaps.

    >>> wave = np.sin(2 * np.pi * np.arange(64) / 8)[None]
    >>> images, shape = spectrograms(wave)
    >>> shape, int(images.reshape(shape)[:, 0].argmax())
    ((17, 3), 4)
    """
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    windows = np.asarray(windows, dtype=np.float64)
    if segment < 2 or step < 1:
        raise SettingError(f"segment must be at least 2 and step at least 1. Received: segment={segment}, step={step}.")
    if windows.ndim != 2 or windows.shape[1] < segment:
        raise ShapeError(
            f"Expected windows (n_windows, timesteps) of at least {segment} readings, received shape {windows.shape}. "
            f"Take longer windows or a shorter segment, and one sensor at a time."
        )
    if not np.isfinite(windows).all():
        raise DataError("A window holds NaN or infinity, and a spectrum has no gaps. Fill or leave out such windows.")
    transform = ShortTimeFFT(hann(segment, sym=False), hop=step, fs=1.0, scale_to="psd")
    first = transform.lower_border_end[1]
    n_segments = (windows.shape[1] - segment) // step + 1
    power = transform.spectrogram(windows, axis=1)[:, :, first : first + n_segments]
    images = 10.0 * np.log10(power + FLOOR)
    return images.reshape(len(windows), -1), (images.shape[1], images.shape[2])
