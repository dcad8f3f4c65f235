"""The dense autoencoder: what it trains, what it exports, what it refuses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from detector.encoders.table import UNSEEN, FittedNetwork, TableAutoencoder, _column_groups
from detector.errors import SettingError
from detector.onnx.graph import Graph
from detector.onnx.text import join
from detector.training.loop import keras_session
from detector.training.settings import LOSSES, Training

CARDINALITIES = (4, 5)
N_VALUES = 3
EVERY_COLUMN = 99  # more groups than columns: each column is hidden alone
WAYS = list(zip((0, 4, 2, EVERY_COLUMN), LOSSES, strict=True))
SHORT = Training(epochs=3, least_steps=20, batch_size=64, learning_rate=5e-3)

Views = dict[str, np.ndarray]


def draw(seed: int, n: int) -> Views:
    """Prepared rows: the second value is twice the first, the second category follows the first; some cells missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, N_VALUES))
    values[:, 1] = 2 * values[:, 0] + rng.normal(0, 0.05, n)
    missing = rng.random((n, N_VALUES)) < 0.1
    first = rng.integers(2, 4, n)
    labels = np.column_stack([first, first + rng.integers(0, 2, n)])
    views = {"values": np.where(missing, 0.0, values), "missing": missing, "labels": labels}
    return {name: np.ascontiguousarray(view, dtype=np.float32) for name, view in views.items()}


@cache
def trained(groups: int, loss: str) -> FittedNetwork:
    """One network for each way to train and to judge, trained when first asked for."""
    settings = TableAutoencoder(hidden=(24,), code=8, embedding=3, levels=0, groups=groups, loss=loss, training=SHORT)
    return settings.fit(draw(0, 600), CARDINALITIES, probe=draw(1, 300), random_state=0)


def graph(network: FittedNetwork, part: str) -> Graph:
    model = getattr(network, part)
    return Graph(join({part: model}, [output.name for output in model.graph.output]))


@pytest.fixture(scope="module")
def probe() -> Views:
    return draw(1, 300)


@pytest.fixture(scope="module", params=WAYS, ids=str)
def network(request: pytest.FixtureRequest) -> FittedNetwork:
    """Trained with each loss, and with each way to judge."""
    return trained(*request.param)


@pytest.fixture(scope="module")
def plain() -> FittedNetwork:
    """One that judges the plain reconstruction."""
    return trained(*WAYS[0])


@pytest.mark.parametrize(
    "changed", [{"hidden": (8, 0)}, {"code": 0}, {"embedding": -1}, {"hidden": (8.5,)}, {"code": 2.5}]
)
def test_autoencoder_refuses_layers_without_units(changed: dict[str, Any]) -> None:
    """A layer of no units lets nothing through, and there is no half of one."""
    with pytest.raises(SettingError, match=f"{next(iter(changed))} must be positive whole numbers. Received: "):
        TableAutoencoder(**changed)


@pytest.mark.parametrize("name", ["levels", "groups"])
def test_autoencoder_refuses_numbers_of_passes_that_are_not_whole(name: str) -> None:
    """They ended in errors of Python; none at all is a setting."""
    with pytest.raises(SettingError, match=f"{name} must be at least 0. Received: {name}=-1"):
        TableAutoencoder(**{name: -1})
    with pytest.raises(SettingError, match=f"{name} must be a whole number, of type int. Received: {name}=2.5"):
        TableAutoencoder(**{name: 2.5})


def test_autoencoder_refuses_a_loss_it_does_not_know() -> None:
    """And lists those it knows."""
    with pytest.raises(SettingError, match="one of mse, mae, huber, log_cosh. Received: loss='rmse'"):
        TableAutoencoder(loss="rmse")


@pytest.mark.parametrize("changed", [{"noise": -0.1}, {"mask": 1.0}, {"mask": -0.1}])
def test_autoencoder_refuses_noise_that_means_nothing(changed: dict[str, Any]) -> None:
    """Negative noise, or a mask that hides all."""
    name, value = next(iter(changed.items()))
    with pytest.raises(SettingError, match=rf"{name} must .*\. Received: {name}={value}"):
        TableAutoencoder(**changed)


def test_graph_scores_like_keras(network: FittedNetwork, probe: Views) -> None:
    """Whatever the loss and however many groups are hidden, ONNX and Keras agree on rows they have not seen."""
    found = graph(network, "scorer").run(probe)["error"]

    assert found.shape == network.probe_error.shape == (300, N_VALUES + len(CARDINALITIES))
    assert np.allclose(found, network.probe_error, rtol=1e-4, atol=1e-5)


def test_every_loss_trains(network: FittedNetwork) -> None:
    """The training loss falls, and stays a number."""
    curve = network.history["loss"]

    assert len(curve) == SHORT.epochs
    assert curve[-1] < 0.9 * curve[0]


def test_missing_cells_have_no_error(network: FittedNetwork, probe: Views) -> None:
    """There is nothing to compare a reconstruction with; present ones always have one, categories too."""
    errors, missing = network.probe_error, probe["missing"] == 1

    assert (errors[:, :N_VALUES][missing] == 0).all()
    assert (errors[:, :N_VALUES][~missing] > 0).mean() > 0.99
    assert (errors[:, N_VALUES:] > 0).all()


def test_decoder_continues_where_the_encoder_stops(network: FittedNetwork, probe: Views) -> None:
    """Decoding a row's code gives what the encoder's own graph expects of the row."""
    encoded = graph(network, "encoder").run(probe)

    decoded = graph(network, "decoder").run({"code": encoded["code"]})

    assert encoded["code"].shape == (300, 8)
    assert np.allclose(decoded["expected"], encoded["expected"], atol=1e-5)
    assert np.allclose(decoded["likelihood"], encoded["likelihood"], atol=1e-5)


def test_likelihoods_of_a_category_sum_to_one(network: FittedNetwork, probe: Views) -> None:
    """Each category has its own probabilities, side by side."""
    likelihood = graph(network, "encoder").run(probe)["likelihood"]

    first, second = np.split(likelihood, [CARDINALITIES[0]], axis=1)

    assert second.shape[1] == CARDINALITIES[1]
    assert np.allclose([first.sum(axis=1), second.sum(axis=1)], 1.0, atol=1e-5)


def test_plain_error_is_the_distance_to_the_reconstruction(plain: FittedNetwork, probe: Views) -> None:
    """With no groups: the squared residual of a number and the cross-entropy of a category, by their definitions."""
    seen = graph(plain, "encoder").run(probe)
    rows = np.arange(300)

    residual = (probe["values"] - seen["expected"]) ** 2 * (1 - probe["missing"])
    starts = np.cumsum([0, *CARDINALITIES[:-1]])
    truth = [seen["likelihood"][rows, start + probe["labels"][:, i].astype(int)] for i, start in enumerate(starts)]

    assert np.allclose(plain.probe_error[:, :N_VALUES], residual, atol=1e-4)
    assert np.allclose(plain.probe_error[:, N_VALUES:], -np.log(np.column_stack(truth) + 1e-7), atol=1e-3)


def test_hidden_column_is_scored_by_the_others_alone(probe: Views) -> None:
    """Hidden alone, a column's own value does not change what is expected of it: its residual moves as it does."""
    network = trained(*WAYS[-1])
    rows = {name: view[probe["missing"].sum(axis=1) == 0] for name, view in probe.items()}
    moved = rows | {"values": rows["values"] + np.array([[0, 0, 50.0]], dtype=np.float32)}

    before, after = (np.sqrt(graph(network, "scorer").run(each)["error"][:, 2]) for each in (rows, moved))

    assert np.allclose(np.minimum(abs(after - before - 50), abs(after + before - 50)), 0, atol=1e-2)


def test_column_groups_hide_each_column_once() -> None:
    """Groups of about one size that together are the row; no more groups than columns."""
    chosen = np.ones((1, 8), dtype=np.float32)
    groups = np.vstack(_column_groups(3, chosen, seed=0))

    assert groups.shape == (3, 8)
    assert groups.sum(axis=0).tolist() == [1.0] * 8
    assert sorted(groups.sum(axis=1)) == [2.0, 3.0, 3.0]
    assert len(_column_groups(99, chosen[:, :2], seed=0)) == 2


@pytest.fixture
def session() -> Iterator[None]:
    with keras_session(0):
        yield


@pytest.mark.usefixtures("session")
def test_corruption_hides_cells_as_missing_and_categories_as_unseen() -> None:
    """Half of the rows have up to ``mask`` of their cells hidden; what was missing stays so."""
    from detector.encoders.parts import Corruption

    clean = draw(2, 4000)

    damaged = {
        name: np.asarray(view)
        for name, view in Corruption(least=0.05, most=0.0, mask=0.8, unseen=UNSEEN, seed=0)(clean).items()
    }

    hidden = (damaged["missing"] == 1) & (clean["missing"] == 0)
    unseen = damaged["labels"] == UNSEEN
    touched = hidden.any(axis=1) | unseen.any(axis=1)
    assert (damaged["missing"] >= clean["missing"]).all()
    assert (damaged["values"][damaged["missing"] == 1] == 0).all()
    assert np.array_equal(damaged["values"][~hidden], clean["values"][~hidden])
    assert np.array_equal(damaged["labels"][~unseen], clean["labels"][~unseen])
    assert 0.35 < touched.mean() <= 0.5
    assert unseen.mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.usefixtures("session")
def test_corruption_samples_its_noise_level_for_each_row_and_tells_it() -> None:
    """Evenly on a logarithmic scale between the least and the most."""
    from detector.encoders.parts import Corruption

    clean = {"values": np.zeros((2000, 50), dtype=np.float32), "missing": np.zeros((2000, 50), dtype=np.float32)}

    damaged = Corruption(least=0.02, most=2.0, mask=0.0, unseen=UNSEEN, seed=0)(clean)

    level = np.asarray(damaged["values"]).std(axis=1)
    assert np.log10(np.quantile(level, [0.05, 0.5, 0.95])) == pytest.approx(np.log10([0.025, 0.2, 1.6]), abs=0.1)
    assert np.median(np.asarray(damaged["noise"])[:, 0] / level) == pytest.approx(1, abs=0.02)


def test_levels_of_noise_spread_from_near_the_least_to_the_most() -> None:
    """Evenly on a logarithmic scale; without noise, and without levels, there is nothing to spread."""
    assert TableAutoencoder(noise=1.0, least_noise=0.05, levels=3).told == pytest.approx((0.091, 0.302, 1.0), abs=1e-3)
    assert TableAutoencoder(levels=1).told == (1.0,)
    assert TableAutoencoder(levels=0).told == ()
    assert set(TableAutoencoder(noise=0.0, least_noise=0.05).told) == {0.05}


def test_far_rows_are_repaired_by_more_where_more_noise_is_told(probe: Views) -> None:
    """With levels, a number is scored with the row in sight, a category still without itself."""
    settings = TableAutoencoder(hidden=(24,), code=8, embedding=3, levels=2, groups=2, training=SHORT)
    network = settings.fit(draw(0, 600), CARDINALITIES, probe=probe, random_state=0)
    rows = {name: view[:50] for name, view in probe.items()}
    far = rows | {"values": rows["values"] * 5}

    near, farther = (graph(network, "scorer").run(each)["error"] for each in (rows, far))

    assert np.allclose(graph(network, "scorer").run(probe)["error"], network.probe_error, rtol=1e-4, atol=1e-5)
    assert np.median(farther[:, :N_VALUES].sum(axis=1) / near[:, :N_VALUES].sum(axis=1)) > 2
    assert (near[:, N_VALUES:] > 0).all()


def test_autoencoder_refuses_a_least_noise_of_nothing() -> None:
    """Its logarithm is what the network is told."""
    with pytest.raises(SettingError, match="least_noise must be positive. Received: least_noise=0"):
        TableAutoencoder(least_noise=0.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_fitting_repeats_itself_with_the_same_seed(plain: FittedNetwork, probe: Views, seed: int) -> None:
    """The seed of before gives the weights of before, to the last bit; another seed, others."""
    settings = TableAutoencoder(hidden=(24,), code=8, embedding=3, levels=0, groups=0, loss="mse", training=SHORT)
    random.random()  # whatever the caller drew in between

    again = settings.fit(draw(0, 600), CARDINALITIES, probe=probe, random_state=seed)

    assert again.weights.keys() == plain.weights.keys()
    same = [np.array_equal(again.weights[name], plain.weights[name]) for name in again.weights]
    assert all(same) if seed == 0 else not any(same)
    assert np.array_equal(again.probe_error, plain.probe_error) == (seed == 0)
