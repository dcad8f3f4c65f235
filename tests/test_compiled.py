"""Networks traced once: a later fit of the same architecture gives to the last bit what a first one gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from detector.encoders import compiled, estimator
from detector.encoders.compiled import ExportedGraph
from detector.encoders.conv1d import Conv1dAutoencoder
from detector.encoders.dense import DenseAutoencoder
from detector.encoders.mixed import MixedAutoencoder
from detector.encoders.sparse import SparseAutoencoder
from detector.encoders.table import FittedNetwork, TableAutoencoder
from detector.encoders.variational import VariationalAutoencoder
from detector.errors import DataError
from detector.training.settings import Training

SHORT = Training(epochs=2, least_steps=3, batch_size=32)
PLATEAU = Training(epochs=2, least_steps=3, batch_size=32, schedule="plateau", optimiser="adamw")
ENCODERS = {
    "dense": DenseAutoencoder(code=2, noise=0.1, mask=0.1, training=PLATEAU),
    "conv1d": Conv1dAutoencoder(code=2, training=SHORT),
    "variational": VariationalAutoencoder(code=2, training=SHORT),
    "sparse": SparseAutoencoder(code=3, training=SHORT),
    "mixed": MixedAutoencoder(code=2, categorical=(0,), training=SHORT),
}


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    compiled.forget()
    yield
    compiled.forget()


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that are exported, as they are."""
    found: list[Any] = []
    real = compiled.export

    def counted(model: Any, *names: Any) -> onnx.ModelProto:
        found.append(model)
        return real(model, *names)

    monkeypatch.setattr(compiled, "export", counted)
    return found


def rows(seed: int, n: int = 60) -> np.ndarray:
    """Eight columns, the first of three values."""
    found = np.random.default_rng(seed).normal(size=(n, 8))
    found[:, 0] = np.arange(n) % 3
    return found


def table(seed: int) -> FittedNetwork:
    """A network for five numbers and two categories."""
    rng = np.random.default_rng(seed)
    values, labels = rng.normal(size=(60, 5)), rng.integers(0, 4, (60, 2))
    views = {"values": values.astype(np.float32), "missing": np.zeros((60, 5), np.float32)}
    views["labels"] = labels.astype(np.float32)
    settings = TableAutoencoder(hidden=(8,), code=4, training=SHORT)
    probe = {name: view[:9] for name, view in views.items()}
    return settings.fit(views, [5, 5], probe=probe, random_state=3)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_fit_of_known_architecture_is_a_first_fit(name: str, exports: list[Any]) -> None:
    """Weights, curves and answers are the same, and a third fit neither traces nor exports."""
    encoder = ENCODERS[name]
    first = encoder.fit(rows(1)).score_samples(rows(9)), encoder.weights_, encoder.history_
    compiled.forget()
    exports.clear()

    for seed in (2, 3):
        encoder.fit(rows(seed))
    again = encoder.fit(rows(1)).score_samples(rows(9)), encoder.weights_, encoder.history_

    np.testing.assert_array_equal(again[0], first[0])
    assert list(again[1]) == list(first[1])
    for weight, wanted in zip(again[1].values(), first[1].values(), strict=True):
        np.testing.assert_array_equal(weight, wanted)
    assert again[2] == first[2]
    assert len(exports) == 2


def test_table_of_known_architecture_is_a_first_fit(exports: list[Any]) -> None:
    """The same for tables, whose network is three graphs."""
    first = table(1)
    compiled.forget()
    exports.clear()
    table(2)
    table(3)
    twice = len(exports)

    again = table(1)

    assert len(exports) == twice
    np.testing.assert_array_equal(again.probe_error, first.probe_error)
    for weight, wanted in zip(again.weights.values(), first.weights.values(), strict=True):
        np.testing.assert_array_equal(weight, wanted)
    for name in ("scorer", "encoder", "decoder"):
        ours, theirs = compiled._parts(getattr(again, name)), compiled._parts(getattr(first, name))
        assert ours == theirs, name


def test_other_settings_are_another_architecture() -> None:
    """A length of the code, a schedule or a number of updates are part of what is traced; a warm start is not."""
    known = DenseAutoencoder(code=2, training=SHORT).fit(rows(1))
    for other in (
        DenseAutoencoder(code=3, training=SHORT),
        DenseAutoencoder(code=2, training=PLATEAU),
        DenseAutoencoder(code=2, training=SHORT, random_state=1),
    ):
        other.fit(rows(1))

    assert len(compiled._kept) == 4
    DenseAutoencoder(code=2, training=SHORT, initial_weights=known.weights_).fit(rows(2))
    assert len(compiled._kept) == 4


def test_subclass_with_its_own_layers_is_not_taken_for_its_parent() -> None:
    """What it builds from is not known."""

    class Own(DenseAutoencoder):
        def _build(self, rows: Any) -> Any:
            return super()._build(rows)

    Own(code=2, training=SHORT).fit(rows(1))

    assert not compiled._kept


def test_nothing_is_kept_of_a_fit_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models may be in any state."""
    encoder = DenseAutoencoder(code=2, training=SHORT).fit(rows(1))
    assert compiled._kept

    def diverge(*_: Any, **__: Any) -> None:
        raise DataError("The training loss became nan.")

    monkeypatch.setattr(estimator, "train", diverge)
    with pytest.raises(DataError, match="became nan"):
        encoder.fit(rows(1))

    assert not compiled._kept


def test_least_recent_architectures_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(compiled, "MOST_KEPT", 1)
    for code in (2, 3):
        DenseAutoencoder(code=code, training=SHORT).fit(rows(1))

    ((_, _, settings, *_),) = compiled._kept
    assert ("code", "3") in settings


def _graph(*constants: np.ndarray) -> onnx.ModelProto:
    given = [numpy_helper.from_array(each, f"c{at}") for at, each in enumerate(constants)]
    return helper.make_model(helper.make_graph([], "g", [], [], given))


def test_weights_are_found_by_value_and_proven_by_another_export() -> None:
    """Turned and stretched ones too; a constant that hangs on a weight in another way is found out."""
    kernel, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8], np.float32)
    fixed = np.array([0.5], np.float32)
    graph = ExportedGraph.of(_graph(kernel.T[None], fixed, bias), [kernel, bias])
    derived = ExportedGraph.of(_graph(kernel.T[None], bias * 2), [kernel, bias])

    graph.prove(_graph(bias + 1, kernel.T[None] + 1, fixed), [kernel + 1, bias + 1])
    derived.prove(_graph(kernel.T[None] + 1, (bias + 1) * 2), [kernel + 1, bias + 1])

    assert graph.places == {0: (0, (1, 0)), 2: (1, (0,))}
    assert graph.is_proven
    assert not derived.is_proven


def test_weights_of_equal_values_are_not_told_apart() -> None:
    """Two biases that are still zero: the graph is exported every time."""
    zeros = np.zeros(2, np.float32)
    graph = ExportedGraph.of(_graph(zeros), [zeros, zeros])

    graph.prove(_graph(zeros), [zeros, zeros])

    assert not graph.is_proven
