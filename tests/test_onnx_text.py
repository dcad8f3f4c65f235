"""ONNX models written as text, and their joining."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from detector.onnx.graph import Graph
from detector.onnx.text import IR_VERSION, OPSET, OPSET_ML, join, model


def shift(name: str, by: float, *, source: str = "x", target: str = "y") -> onnx.ModelProto:
    """``target = (source + by) * 2``, with inner names that every call shares."""
    lines = [f"inner = Add ({source}, constant)", f"{target} = Mul (inner, two)"]
    constants = {"constant": np.float32(by), "two": np.float32(2)}
    return model(name, [f"float[n, p] {source}"], [f"float[n, p] {target}"], lines, constants)


ROWS = np.array([[0.0], [10.0]], dtype=np.float32)


def test_model_computes_its_lines() -> None:
    """Lines and constants become a graph that runs."""
    found = Graph(join({"shift": shift("shift", 3.0)}, ["y"])).run({"x": ROWS})

    assert found["y"].tolist() == [[6.0], [26.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_model_keeps_the_type_of_its_constants(dtype: type) -> None:
    """Scaling is computed in float64, scores in float32, positions in int64: none may change on the way."""
    built = model("c", ["float[n] x"], ["float[n] y"], ["y = Identity (x)"], {"c": np.arange(3, dtype=dtype)})

    constant = onnx.numpy_helper.to_array(built.graph.initializer[0])

    assert constant.dtype == dtype
    assert constant.tolist() == [0, 1, 2]


def test_model_fixes_the_version_of_its_language() -> None:
    """A newer onnx package must not write what an older ONNX Runtime cannot read."""
    joined = onnx.load_from_string(join({"shift": shift("shift", 1.0)}, ["y"]))

    assert joined.ir_version == IR_VERSION
    assert {(entry.domain, entry.version) for entry in joined.opset_import} == {("", OPSET), ("ai.onnx.ml", OPSET_ML)}


def test_join_keeps_parts_with_equal_inner_names_apart() -> None:
    """Two parts call their constant alike, and each keeps its own."""
    parts = {"one": shift("s", 1.0, target="a"), "ten": shift("s", 10.0, target="b")}

    found = Graph(join(parts, ["a", "b"])).run({"x": ROWS})

    assert found["a"].tolist() == [[2.0], [22.0]]
    assert found["b"].tolist() == [[20.0], [40.0]]


def test_join_feeds_a_part_what_an_earlier_one_wrote() -> None:
    """The joined graph asks only for what no part computes."""
    parts = {"first": shift("first", 1.0, target="middle"), "second": shift("second", 0.0, source="middle")}

    content = join(parts, ["y"])

    assert [entry.name for entry in onnx.load_from_string(content).graph.input] == ["x"]
    assert Graph(content).run({"x": ROWS})["y"].tolist() == [[4.0], [44.0]]


def test_join_gives_the_outputs_asked_for_in_their_order() -> None:
    """Whatever else the parts compute."""
    parts = {"first": shift("first", 1.0, target="middle"), "second": shift("second", 0.0, source="middle")}

    assert Graph(join(parts, ["y", "middle"])).outputs == ["y", "middle"]
    assert Graph(join(parts, ["middle"])).outputs == ["middle"]


def test_join_checks_what_it_built() -> None:
    """A part that reads what nobody wrote is found when it is built, not when it first scores."""
    broken = model("broken", ["float[n, p] x"], ["float[n, p] y"], ["y = Add (x, nobody)"], {})

    with pytest.raises(onnx.checker.ValidationError, match="nobody"):
        join({"broken": broken}, ["y"])


def test_model_says_where_a_line_is_wrong() -> None:
    """A slip in a line is an error with its place."""
    with pytest.raises(onnx.parser.ParseError, match=r"line: 4 .*Expected character \)"):
        model("wrong", ["float[n] x"], ["float[n] y"], ["y = Add (x"], {})
