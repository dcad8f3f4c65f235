"""Keras networks → ONNX models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

ROWS_AT_ONCE = 8_192


def export(network: Any, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """A Keras model as ONNX, its inputs and outputs under the names given, in order."""
    import onnx

    network([np.zeros((1, *tensor.shape[1:]), dtype="float32") for tensor in network.inputs])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        network.export(path, format="onnx", verbose=False)
        model = onnx.load(path)
    renamed = dict(zip((tensor.name for tensor in model.graph.output), outputs, strict=True))
    renamed |= dict(zip((tensor.name for tensor in model.graph.input), inputs, strict=True))
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.name = renamed[tensor.name]
    return model


def answers(network: Any, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """What a Keras model says of rows, one array for each output; some thousands of rows at once.

    Called as it is: to make a graph of it first, as its ``predict`` does, takes longer than the rows.
    """
    parts = []
    for start in range(0, max(len(inputs[0]), 1), ROWS_AT_ONCE):
        found = network([rows[start : start + ROWS_AT_ONCE] for rows in inputs])
        parts.append([np.asarray(each) for each in (found if isinstance(found, list | tuple) else [found])])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def cut(model: onnx.ModelProto, given: Sequence[str], wanted: Sequence[str]) -> onnx.ModelProto | None:
    """The part of a model that leads from inputs or outputs of it to outputs; None if more than these is needed.

    Cutting the decoder out of an exported autoencoder is many times faster than exporting it as well.
    """
    import onnx

    known = {tensor.name: tensor for tensor in (*model.graph.input, *model.graph.output)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    needed: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in needed or name in given or name in constants or not name:
            continue
        if name not in makers or _has_graph(makers[name]):
            return None
        needed.add(name)
        waiting.extend(makers[name].input)
    nodes = [node for node in model.graph.node if needed.intersection(node.output)]
    used = {name for node in nodes for name in node.input}
    part = onnx.helper.make_graph(
        nodes,
        "part",
        [known[name] for name in given],
        [known[name] for name in wanted],
        [tensor for name, tensor in constants.items() if name in used],
    )
    return onnx.helper.make_model(part, ir_version=model.ir_version, opset_imports=model.opset_import)


def _has_graph(node: onnx.NodeProto) -> bool:
    """Whether a node holds a graph of its own, a loop's body, that may read any name."""
    return any(attribute.HasField("g") for attribute in node.attribute)
