"""A convolutional autoencoder for images and spectrograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.network import Network
from detector.errors import SettingError, ShapeError
from detector.training.loop import Rows


@dataclass(kw_only=True, eq=False, repr=False)
class Conv2dAutoencoder(AutoencoderMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Convolutions over the plane, each halving the image, down to a code and up again.

    Images (n, height, width[, channels]) come flattened: ``X.reshape(len(X), -1)``. Pictures of vibration come from
    ``detector.encoders.spectrogram.spectrograms``. NaN pixels count as the mean and are not scored.

    Parameters
    ----------
    shape : tuple of int, optional
        Height, width and, where there are several, channels; one of them may be -1, as in ``numpy.reshape``. Without
        it images are square and grey.
    kernel : int
        Height and width a filter sees.

    >>> Conv2dAutoencoder(shape=(8, 8), code=10)
    Conv2dAutoencoder(code=10, shape=(8, 8))
    """

    shape: tuple[int, ...] | None = None
    code: int = 16
    filters: tuple[int, ...] = (16, 32)
    kernel: int = 3
    linear: bool = True
    mask: float = 0.0
    loss: str = "mse"
    standardise: bool = True

    def _check_settings(self) -> None:
        super()._check_settings()
        sizes = (1, 1) if self.shape is None else tuple(self.shape)
        if len(sizes) not in (2, 3) or any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise SettingError(
                f"shape must be (height, width) or (height, width, channels), all positive but at most one -1. "
                f"Received: shape={self.shape!r}."
            )

    def _width(self, n_features: int) -> int:
        return _image_shape(self.shape, n_features)[2]

    def _sizes(self) -> tuple[int, ...]:
        return ()

    def _build(self, rows: Rows) -> Network:
        from keras import layers

        from detector.encoders.parts import chain, last_layer, rebuilding

        n_pixels = rows.shape[1]
        height, width, channels = _image_shape(self.shape, n_pixels)
        low, short = height, width
        for _ in self.filters:
            low, short = -(-low // 2), -(-short // 2)

        def convolve(filters: int, **more: Any) -> Any:
            return layers.Conv2D(filters, self.kernel, padding="same", **more)

        narrow = chain(
            layers.Reshape((height, width, channels)),
            *[convolve(filters, strides=2, activation="relu") for filters in self.filters],
            layers.Flatten(),
        )
        to_code = layers.Dense(self.code, kernel_initializer=last_layer(self))
        widen = chain(
            layers.Dense(low * short * self.filters[-1], activation="relu"),
            layers.Reshape((low, short, self.filters[-1])),
            *[
                layer
                for filters in self.filters[-2::-1]
                for layer in (layers.UpSampling2D(2), convolve(filters, activation="relu"))
            ],
            layers.UpSampling2D(2),
            convolve(channels, kernel_initializer=last_layer(self)),
        )
        flat = layers.Reshape((n_pixels,))

        def read(given: Any, _: Any) -> Any:
            return to_code(narrow(given))

        def write(code: Any) -> Any:
            return flat(widen(code)[:, :height, :width])

        return rebuilding(self, rows, read=read, write=write)


def _image_shape(shape: tuple[int, ...] | None, n_pixels: int) -> tuple[int, int, int]:
    """Height, width, channels of a flattened image."""
    side = math.isqrt(n_pixels)
    given = (side, side) if shape is None else tuple(shape)
    known = int(np.prod([size for size in given if size > 0]))
    if known == 0 or n_pixels % known or (-1 not in given and known != n_pixels):
        raise ShapeError(
            f"Expected images of {' x '.join(map(str, given))} = {abs(int(np.prod(given)))} values, received rows of "
            f"{n_pixels}. Bring all images to one size, flatten them with X.reshape(len(X), -1), and pass their shape."
        )
    height, width, *channels = (n_pixels // known if size == -1 else size for size in given)
    return int(height), int(width), int(channels[0]) if channels else 1
