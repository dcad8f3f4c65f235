"""Autoencoders, one file an architecture. Keras is imported only where a network is built or trained.

Importing this package is cheap: an encoder is loaded when its name is first used, and TensorFlow while fitting.

>>> from detector.encoders import TokenAutoencoder
>>> TokenAutoencoder(code=4)
TokenAutoencoder(code=4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.encoders.conv1d import Conv1dAutoencoder
    from detector.encoders.conv2d import Conv2dAutoencoder
    from detector.encoders.dense import DenseAutoencoder
    from detector.encoders.mixed import MixedAutoencoder
    from detector.encoders.multimodal import MultimodalAutoencoder
    from detector.encoders.recurrent import RecurrentAutoencoder
    from detector.encoders.sparse import SparseAutoencoder
    from detector.encoders.spectrogram import spectrograms
    from detector.encoders.store import load, save
    from detector.encoders.tokens import TokenAutoencoder
    from detector.encoders.transformer import TransformerAutoencoder
    from detector.encoders.variational import VariationalAutoencoder

__all__ = [
    "Conv1dAutoencoder",
    "Conv2dAutoencoder",
    "DenseAutoencoder",
    "MixedAutoencoder",
    "MultimodalAutoencoder",
    "RecurrentAutoencoder",
    "SparseAutoencoder",
    "TokenAutoencoder",
    "TransformerAutoencoder",
    "VariationalAutoencoder",
    "load",
    "save",
    "spectrograms",
]

_HOMES = {
    "Conv1dAutoencoder": "conv1d",
    "Conv2dAutoencoder": "conv2d",
    "DenseAutoencoder": "dense",
    "MixedAutoencoder": "mixed",
    "MultimodalAutoencoder": "multimodal",
    "RecurrentAutoencoder": "recurrent",
    "SparseAutoencoder": "sparse",
    "TokenAutoencoder": "tokens",
    "TransformerAutoencoder": "transformer",
    "VariationalAutoencoder": "variational",
    "load": "store",
    "save": "store",
    "spectrograms": "spectrogram",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"detector.encoders.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'detector.encoders' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
