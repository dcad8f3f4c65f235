"""Run an ONNX graph in blocks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from detector.errors import BundleError
from detector.onnx import text as onnx_text
from detector.onnx.graph import BLOCK, MANY, Graph

MOST = MANY * BLOCK
WIDTH = 300


@pytest.fixture(scope="module")
def content() -> bytes:
    """A long sum and a logarithm, whose last digits depend on the shape they are computed in."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, 7)).astype(np.float32)
    model = onnx_text.model(
        "long_sum",
        [f"float[n, {WIDTH}] x"],
        ["float[n, 7] product", "float[n, 7] size"],
        ["product = MatMul (x, weight)", "positive = Abs (product)", "size = Log (positive)"],
        {"weight": weight},
    )
    return onnx_text.join({"long_sum": model}, ["product", "size"])


@pytest.fixture(scope="module")
def graph(content: bytes) -> Graph:
    return Graph(content)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(5 * MOST + BLOCK + 3, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(
    "size", [BLOCK - 1, BLOCK, MOST - 1, MOST, MOST + 1, 2 * MOST - BLOCK, 2 * MOST + 2 * BLOCK, 5 * MOST]
)
def test_graph_gives_a_row_the_same_result_in_any_batch(graph: Graph, rows: np.ndarray, size: int) -> None:
    """To the last bit, whatever the batch and wherever in it the row lies."""
    whole = graph.run({"x": rows})

    cut = [graph.run({"x": rows[start : start + size]}) for start in range(0, len(rows), size)]

    for name in ("product", "size"):
        assert np.array_equal(np.concatenate([part[name] for part in cut]), whole[name])


@pytest.mark.parametrize("place", [0, 1, BLOCK + 5, MOST - 1, 3 * MOST + 7, 5 * MOST + BLOCK + 2])
def test_graph_gives_a_row_alone_what_it_gives_among_many(graph: Graph, rows: np.ndarray, place: int) -> None:
    """To the last bit, whether it was in a block or in many that were computed as one."""
    alone = graph.run({"x": rows[place : place + 1]})

    assert all(np.array_equal(alone[name][0], whole[place]) for name, whole in graph.run({"x": rows}).items())


def test_blocks_are_computed_as_one_only_where_that_changes_nothing() -> None:
    """A result that depends on how many rows are computed together is that of a block in any batch."""
    lines = ["shape = Shape (x)", "size = Cast <to = 1> (shape)", "y = Div (x, size)"]
    model = onnx_text.model("by_shape", ["float[n, 2] x"], ["float[n, 2] y"], lines, {})
    graph = Graph(onnx_text.join({"by_shape": model}, ["y"]))
    ones = np.ones((2 * MOST + 1, 2), dtype=np.float32)

    found = graph.run({"x": ones})["y"]

    assert (found == np.array([1 / BLOCK, 1 / 2])).all()
    assert np.array_equal(graph.run({"x": ones[:1]})["y"], found[:1])


def test_graph_gives_a_row_the_same_result_in_any_order(graph: Graph, rows: np.ndarray) -> None:
    """To the last bit, whichever rows stand beside it."""
    order = np.random.default_rng(2).permutation(len(rows))

    shuffled = graph.run({"x": rows[order]})["size"]

    assert np.array_equal(shuffled, graph.run({"x": rows})["size"][order])


def test_graph_computes_what_its_lines_say(graph: Graph, rows: np.ndarray, content: bytes) -> None:
    """Rows stay in order over block borders, and padding leaves no trace."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, 7)).astype(np.float32)

    product = graph.run({"x": rows})["product"]

    assert product.dtype == np.float32
    assert np.allclose(product, rows @ weight, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_graph_gives_the_same_with_any_number_of_threads(content: bytes, rows: np.ndarray, threads: int) -> None:
    """Threads take blocks, not parts of one."""
    found = Graph(content, threads=threads).run({"x": rows})["size"]

    assert np.array_equal(found, Graph(content, threads=3).run({"x": rows})["size"])


def test_graph_computes_no_rows(graph: Graph) -> None:
    """An empty table has empty results of the right width."""
    found = graph.run({"x": np.empty((0, WIDTH), dtype=np.float32)})

    assert {name: array.shape for name, array in found.items()} == {"product": (0, 7), "size": (0, 7)}


def test_graph_gives_only_the_outputs_asked_for(graph: Graph, rows: np.ndarray) -> None:
    """In the order asked for; all of them if none is named."""
    assert list(graph.run({"x": rows[:2]}, ["size"])) == ["size"]
    assert list(graph.run({"x": rows[:2]}, ["size", "product"])) == ["size", "product"]
    assert list(graph.run({"x": rows[:2]})) == graph.outputs == ["product", "size"]


def test_graph_can_be_pickled(graph: Graph, rows: np.ndarray) -> None:
    """Joblib and Spark send detectors to other processes."""
    restored = pickle.loads(pickle.dumps(graph))  # noqa: S301 - our own bytes

    assert restored.content == graph.content
    assert restored.block == graph.block
    assert np.array_equal(restored.run({"x": rows})["size"], graph.run({"x": rows})["size"])


@pytest.mark.parametrize("content", [b"", b"no model at all"])
def test_graph_refuses_what_is_no_model(content: bytes) -> None:
    """A damaged file is a bundle error, not a message from the inside of ONNX Runtime."""
    with pytest.raises(BundleError, match=r"graph cannot be loaded: .* Train the detector again"):
        Graph(content)
