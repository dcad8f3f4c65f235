"""Networks of one architecture, traced and exported once: a later fit starts the same models anew.

TensorFlow takes seconds to trace a network and ``tf2onnx`` as long to translate it, which for a few thousand rows is
most of a fit. Folds, periods of a backtest and series of many machines differ in weights alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.encoders.export import export

if TYPE_CHECKING:
    import keras
    import onnx

MOST_KEPT = 6
"""Architectures kept in a process, of some ten megabytes each; those used last."""


@dataclass
class Built:
    """The Keras models of an architecture, not compiled.

    - ``trainer``: rows → each row's loss.
    - ``models``: those that answer, by name; they share the trainer's layers.
    - ``network``: what else was built with them.
    """

    trainer: keras.Model
    models: Mapping[str, keras.Model]
    network: Any = None

    @property
    def variables(self) -> list[Any]:
        """Weights, states of random generators and what is set after training, each once."""
        found = {id(each): each for model in (self.trainer, *self.models.values()) for each in model.variables}
        return list(found.values())


@dataclass
class Compiled:
    """Models that may have been trained before, as they were built but for what TensorFlow keeps of them.

    - ``variables``: all of them, as they were before the trainer was compiled.
    """

    built: Built
    variables: list[Any]
    _graphs: dict[str, ExportedGraph] = field(default_factory=dict)

    def export(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        """One of the models as ONNX, with its weights of now; see ``encoders.export``."""
        model, kept = self.built.models[name], self._graphs.get(name)
        weights = [np.asarray(each) for each in model.variables]
        if kept is not None and kept.is_proven:
            return kept.filled(weights)
        made = export(model, inputs, outputs)
        if kept is None:
            self._graphs[name] = ExportedGraph.of(made, weights)
        else:
            kept.prove(made, weights)
        return made


@dataclass
class ExportedGraph:
    """An exported graph, and which of its constants are which weights.

    - ``places``: by the places of constants: number of the weight, order of its axes; empty if that cannot be told.
    - ``is_proven``: whether another export of other weights was the same but for these; until it is, and where it is
      not, every fit exports its own.
    """

    model: onnx.ModelProto
    places: dict[int, tuple[int, tuple[int, ...]]]
    is_proven: bool = False

    @classmethod
    def of(cls, model: onnx.ModelProto, weights: Sequence[NDArray[Any]]) -> ExportedGraph:
        """Find the weights among the constants by their values."""
        places: dict[int, tuple[int, tuple[int, ...]]] = {}
        for place, constant in enumerate(_constants(model)):
            fit = [(number, order) for number, weight in enumerate(weights) if (order := _order(weight, constant))]
            if len(fit) > 1:
                return cls(model, {})
            if fit:
                places[place] = fit[0]
        return cls(model, places)

    def filled(self, weights: Sequence[NDArray[Any]]) -> onnx.ModelProto:
        """The graph with other weights in their places."""
        from onnx import ModelProto, numpy_helper

        made = ModelProto()
        made.CopyFrom(self.model)
        for place, (number, order) in self.places.items():
            tensor = made.graph.initializer[place]
            values = np.ascontiguousarray(weights[number].transpose(order)).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return made

    def prove(self, made: onnx.ModelProto, weights: Sequence[NDArray[Any]]) -> None:
        """See whether what was exported anew, with these weights, is what ``filled`` makes of them.

        ``tf2onnx`` gives nodes and constants neither the same order nor the same names twice, so all are compared that
        there are: a constant that hangs on weights in another way would be of other weights, and missing.
        """
        self.is_proven = bool(self.places) and _parts(self.filled(weights)) == _parts(made)


_kept: OrderedDict[Hashable, Compiled] = OrderedDict()
_lock = Lock()


@contextmanager
def compiled(key: Hashable | None, build: Callable[[], Built]) -> Iterator[Compiled]:
    """The models that ``build`` makes: kept ones, with the fresh ones' weights, if the same were built before.

    - ``key``: all that the models depend on but values of weights; None if that cannot be told, and nothing is kept.

    Whoever has them has them alone until the end; after an error they are not kept.
    """
    fresh = build()
    with _lock:
        found = _kept.pop(key, None) if key is not None else None
    if found is None:
        found = Compiled(fresh, fresh.variables)
    else:
        for old, new in zip(found.variables, fresh.variables, strict=True):
            old.assign(new)
    yield found
    if key is not None:
        with _lock:
            _kept[key] = found
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)


def forget() -> None:
    """Keep nothing of earlier fits."""
    with _lock:
        _kept.clear()


def _constants(model: onnx.ModelProto) -> list[NDArray[Any]]:
    from onnx import numpy_helper

    return [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]


def _parts(model: onnx.ModelProto) -> tuple[list[str], list[tuple[str, tuple[int, ...], bytes]]]:
    """Operators and constants, sorted."""
    constants = sorted((str(each.dtype), each.shape, each.tobytes()) for each in _constants(model))
    return sorted(node.op_type for node in model.graph.node), constants


def _order(weight: NDArray[Any], constant: NDArray[Any]) -> tuple[int, ...] | None:
    """The order of a weight's axes in which it is a constant, axes of length 1 aside; None if it is in none."""
    if weight.size != constant.size or weight.dtype != constant.dtype or not weight.ndim:
        return None
    for order in permutations(range(weight.ndim)):
        turned = weight.transpose(order)
        if _long(turned.shape) == _long(constant.shape) and np.array_equal(turned.reshape(constant.shape), constant):
            return order
    return None


def _long(shape: Sequence[int]) -> list[int]:
    return [length for length in shape if length != 1]
