"""ONNX models written as text: a few readable lines and their constants. Used only while fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

OPSET = 15
OPSET_ML = 2
IR_VERSION = 8


def model(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    lines: Sequence[str],
    constants: Mapping[str, NDArray[Any] | np.generic],
) -> onnx.ModelProto:
    """Build a model from lines in ONNX's own text syntax, one node each, such as ``"y = Add (x, one)"``.

    Inputs and outputs are typed names, such as ``"float[n, 3] x"``; constants keep their data type.

    >>> model("sum", ["float[n] x"], ["float[n] y"], ["y = Add (x, one)"], {"one": np.float32(1)}).graph.name
    'sum'
    """
    header = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}, "ai.onnx.ml" : {OPSET_ML}]>'
    body = "\n".join(f"  {line}" for line in lines)
    built = parser.parse_model(f"{header}\n{name} ({', '.join(inputs)}) => ({', '.join(outputs)}) {{\n{body}\n}}")
    built.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), constant) for constant, value in constants.items()
    )
    return built


def join(models: Mapping[str, onnx.ModelProto], outputs: Sequence[str]) -> bytes:
    """Join models into one, each reading what an earlier one wrote under the same name; checked, and serialised.

    Inner names get the model's key as a prefix, so that parts cannot collide.
    """
    nodes: list[Any] = []
    constants: list[Any] = []
    known: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    for key, model_of_key in models.items():
        part = onnx.compose.add_prefix(model_of_key, f"{key}/", rename_inputs=False, rename_outputs=False)
        nodes.extend(part.graph.node)
        constants.extend(part.graph.initializer)
        for entry in part.graph.input:
            if entry.name not in known:
                inputs[entry.name] = entry
        known |= {entry.name: entry for entry in (*part.graph.input, *part.graph.output)}
    graph = onnx.helper.make_graph(nodes, "detector", list(inputs.values()), [known[o] for o in outputs], constants)
    joined = onnx.helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("ai.onnx.ml", OPSET_ML)],
    )
    onnx.checker.check_model(joined)
    return bytes(joined.SerializeToString())
