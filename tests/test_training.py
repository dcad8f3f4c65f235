"""The Keras loop: loss, schedule, early stopping."""

from __future__ import annotations

import logging
import os
import random
import sys
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from detector.errors import DataError, DetectorError, MissingExtraError, SettingError
from detector.training.loop import _mean_row_loss, _optimiser, _schedule, keras_session, penalty, train
from detector.training.settings import OPTIMISERS, Training

STEADY = Training(epochs=4, least_steps=50, max_steps=1000, batch_size=50, learning_rate=0.1, patience=50)


def one_number(start: float) -> Any:
    """A network that learns one number: each row's loss is its squared distance from it."""
    import keras

    from detector.training.trainer import Trainer

    row = keras.Input((1,))
    constant = keras.initializers.Constant(start)
    learnt = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=constant, name="learnt")(row * 0.0)
    return Trainer(row, keras.ops.square(row - learnt))


def learn(
    rows: np.ndarray, training: Training, *, start: float = 0.0, seed: int = 0, **more: Any
) -> tuple[float, dict]:
    """The number learnt, and the curves."""
    with keras_session(seed):
        network = one_number(start)
        curves = train(network, [rows[:, None].astype(np.float32)], training, random_state=seed, **more)
        return float(network.get_layer("learnt").bias[0]), curves


@pytest.fixture(scope="module")
def contaminated() -> np.ndarray:
    """Nine rows in ten near 1, one in ten at 21: their mean is 3."""
    rng = np.random.default_rng(0)
    return rng.permutation(np.concatenate([rng.normal(1, 0.1, 900), np.full(100, 21.0)]))


@pytest.fixture(scope="module")
def learnt(contaminated: np.ndarray) -> dict[float, tuple[float, dict]]:
    """What is learnt from contaminated rows, by trim."""
    return {trim: learn(contaminated, Training(**{**vars(STEADY), "trim": trim})) for trim in (0.0, 0.25)}


@pytest.mark.parametrize("name", ["epochs", "max_steps", "batch_size", "least_steps", "patience"])
def test_training_refuses_counts_below_one(name: str) -> None:
    """No epoch, no batch, no step means nothing."""
    with pytest.raises(SettingError, match=f"{name} must be at least 1. Received: {name}=0"):
        Training(**{name: 0})


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan")])
def test_training_refuses_a_learning_rate_that_does_not_learn(rate: float) -> None:
    """Zero, negative or no number."""
    with pytest.raises(SettingError, match=f"learning_rate must be positive. Received: learning_rate={rate}"):
        Training(learning_rate=rate)


@pytest.mark.parametrize("name", ["trim", "holdout"])
@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_training_refuses_shares_outside_zero_and_one(name: str, share: float) -> None:
    """A share of all rows would leave none to learn from."""
    with pytest.raises(SettingError, match=rf"{name} must lie in \[0, 1\). Received: {name}={share}"):
        Training(**{name: share})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"plateau_patience": 0}, "plateau_patience must be at least 1. Received: plateau_patience=0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\). Received: momentum=1.0"),
        ({"warmup": -0.1}, r"warmup must lie in \[0, 1\). Received: warmup=-0.1"),
        ({"decay": 1.0}, "decay must lie between 0 and 1. Received: decay=1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0. Received: weight_decay=-1.0"),
        ({"clip": float("nan")}, "clip must be at least 0. Received: clip=nan"),
        ({"clip": None}, "clip must be at least 0. Received: clip=None"),
        ({"epochs": 2.5}, "epochs must be a whole number, of type int. Received: epochs=2.5"),
        ({"batch_size": 256.5}, "batch_size must be a whole number"),
        ({"least_steps": 2.5}, "least_steps must be a whole number"),
        ({"epochs": "3"}, "epochs must be at least 1. Received: epochs='3'"),
        ({"learning_rate": "auto"}, "learning_rate must be positive. Received: learning_rate='auto'"),
        ({"optimiser": "adm"}, "optimiser must be one of adam, adamw, rmsprop, sgd. Received: optimiser='adm'"),
        (
            {"schedule": "linear"},
            "schedule must be one of cosine, constant, .*warmup_cosine. Received: schedule='linear'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_training_refuses_settings_without_meaning(changed: dict[str, Any], message: str) -> None:
    """Each with its own words."""
    with pytest.raises(SettingError, match=message):
        Training(**changed)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("plateau", [1.0, 1.0, 1.0, 1.0]),  # lowered by what happens, not by the clock
        ("cosine", [1.0, 0.7525, 0.505, 0.01]),
        ("warmup_cosine", [0.01, 0.67, 1.0, 0.01]),
        ("exponential", [1.0, 0.4642, 0.3162, 0.1]),
        ("step", [1.0, 0.1, 0.1, 0.001]),
    ],
)
def test_schedule_reaches_and_leaves_the_peak_as_configured(schedule: str, rates: list[float]) -> None:
    """At the start, after a third, half way and at the end of 300 updates."""
    settings = Training(learning_rate=1.0, schedule=schedule, decay=0.1, warmup=0.5)

    with keras_session(0):
        made = _schedule(settings, 300)
        found = [float(made(step)) if callable(made) else made for step in (0, 100, 150, 300)]

    assert found == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimiser_is_the_one_asked_for(optimiser: str) -> None:
    """With the longest gradient allowed; a clip of 0 cuts nothing."""
    with keras_session(0):
        made = _optimiser(Training(optimiser=optimiser, clip=0.5), 10)
        free = _optimiser(Training(optimiser=optimiser, clip=0.0), 10)

        assert type(made).__name__.lower() == optimiser
        assert (made.clipnorm, free.clipnorm) == (0.5, None)


def test_training_starts_from_earlier_weights() -> None:
    """With steps too small to move, what was given is what comes out."""
    still = Training(epochs=1, least_steps=1, batch_size=10, learning_rate=1e-9)
    weights = {"kernel": np.zeros((1, 1), dtype=np.float32), "bias": np.array([7.0], dtype=np.float32)}

    number, _ = learn(np.ones(20), still, initial=weights)

    assert number == pytest.approx(7.0)


def test_training_refuses_earlier_weights_of_another_shape() -> None:
    """The table has gained a column, or the architecture changed."""
    weights = {"kernel": np.zeros((2, 1), dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}

    with pytest.raises(SettingError, match=r"do not fit this network: expected arrays of shapes \[\(1, 1\), \(1,\)\]"):
        learn(np.ones(20), STEADY, initial=weights)


def test_training_takes_sparse_rows(contaminated: np.ndarray) -> None:
    """A CSR array is learnt from as the same numbers dense are, though only a batch at a time is made dense."""
    short = Training(epochs=1, least_steps=10, batch_size=20, learning_rate=0.1)
    dense = contaminated[:, None].astype(np.float32)

    with keras_session(0):
        network = one_number(0.0)
        curves = train(network, [csr_array(dense)], short, random_state=0)

    assert curves == learn(contaminated, short)[1]


@pytest.mark.parametrize(
    ("n_rows", "plan"),
    [
        (100, (30, 50)),  # a small table is repeated
        (10_000, (30, 100)),
        (10_001, (30, 101)),  # the last rows need a step too
        (100_000, (6, 1000)),  # a large one gets fewer epochs
        (5_000_000, (1, 6000)),  # a huge one not even a whole one
    ],
)
def test_plan_bounds_the_updates(n_rows: int, plan: tuple[int, int]) -> None:
    """At least ``least_steps`` an epoch, at most ``max_steps`` in all, at least one epoch."""
    assert Training(epochs=30, batch_size=100, least_steps=50, max_steps=6000).plan(n_rows) == plan


def test_plan_counts_whole_updates() -> None:
    """However the bound is written."""
    assert repr(Training(max_steps=20.5).plan(100)) == repr(Training(max_steps=20).plan(100))


@pytest.mark.parametrize(("trim", "expected"), [(0.0, 26.5), (0.25, 2.0), (0.5, 1.5), (0.1, 26.5), (0.9, 1.0)])
def test_trimmed_loss_is_the_mean_of_the_best_rows(trim: float, expected: float) -> None:
    """Of four rows a quarter is one row; the number kept is rounded up, so that one is always kept."""
    with keras_session(0):
        loss = _mean_row_loss(trim)(None, np.array([[3.0], [1.0], [100.0], [2.0]], dtype=np.float32))

        assert float(loss) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", [0.0, 0.25, 9.0]),
        ("mae", [0.0, 0.5, 3.0]),
        ("huber", [0.0, 0.125, 2.5]),
        ("log_cosh", [0.0, np.log(np.cosh(0.5)), np.log(np.cosh(3.0))]),
    ],
)
def test_losses_have_their_textbook_values(loss: str, expected: list[float]) -> None:
    """At a residual of nothing, a half and minus three."""
    with keras_session(0):
        found = np.asarray(penalty(loss)(np.array([0.0, 0.5, -3.0], dtype=np.float32)))

    assert np.allclose(found, expected, atol=1e-6)


def test_penalty_refuses_a_loss_it_does_not_know() -> None:
    """And lists those it knows."""
    with pytest.raises(SettingError, match="loss must be one of mse, mae, huber, log_cosh. Received: loss='rmse'"):
        penalty("rmse")


def test_training_learns_the_mean(learnt: dict[float, tuple[float, dict]]) -> None:
    """Without trimming all rows count, the contaminated ones too."""
    assert learnt[0.0][0] == pytest.approx(3.0, abs=0.3)


def test_trimming_ignores_the_worst_rows(learnt: dict[float, tuple[float, dict]], contaminated: np.ndarray) -> None:
    """With a trim above the contamination, only the clean rows are learnt, and their error is far smaller."""
    clean = contaminated[contaminated < 10]

    error = {trim: float(np.mean((clean - number) ** 2)) for trim, (number, _) in learnt.items()}

    assert learnt[0.25][0] == pytest.approx(1.0, abs=0.1)
    assert error[0.25] < 0.01 * error[0.0]


def test_training_records_each_epoch(learnt: dict[float, tuple[float, dict]]) -> None:
    """Loss, held-out loss and step size, as many of each as there were epochs."""
    curves = learnt[0.0][1]

    assert {name: len(curve) for name, curve in curves.items()} == {"loss": 4, "held_out_loss": 4, "learning_rate": 4}
    assert all(isinstance(value, float) and np.isfinite(value) for curve in curves.values() for value in curve)
    assert curves["loss"][-1] < curves["loss"][0]


def test_learning_rate_falls_along_a_cosine(learnt: dict[float, tuple[float, dict]]) -> None:
    """From the peak to a hundredth of it, steepest in the middle."""
    rates = learnt[0.0][1]["learning_rate"]
    cosine = [0.1 * (0.99 * (1 + np.cos(np.pi * done / 4)) / 2 + 0.01) for done in (1, 2, 3, 4)]

    assert rates == pytest.approx(cosine, rel=1e-3)


def test_training_tells_of_each_epoch_and_of_the_plan() -> None:
    """For a progress bar; and without held-out rows there is no held-out loss."""
    seen_epochs: list[tuple[int, int]] = []
    training = Training(epochs=2, least_steps=2, batch_size=5, holdout=0.0)

    _, curves = learn(np.ones(10), training, on_epoch=lambda done, planned: seen_epochs.append((done, planned)))

    assert seen_epochs == [(1, 2), (2, 2)]
    assert np.isnan(curves["held_out_loss"]).all()


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    """Steps far too large wander about; what is kept is the epoch that was best on the held-out rows."""
    rows = np.random.default_rng(1).normal(0, 1, 400)
    wild = Training(epochs=40, least_steps=3, batch_size=200, learning_rate=3.0, patience=2, holdout=0.5)

    number, curves = learn(rows, wild, start=0.0)

    held_out = rows[np.random.default_rng(0).permutation(400)[:200]]
    best = int(np.argmin(curves["held_out_loss"]))
    assert len(curves["loss"]) == best + 1 + wild.patience < 40
    assert np.mean((held_out - number) ** 2) == pytest.approx(curves["held_out_loss"][best], rel=1e-4)


def test_training_that_diverges_is_an_error() -> None:
    """A loss that is no number any more would leave a detector that calls everything normal."""
    with pytest.raises(DataError, match=r"loss became (nan|inf) after 1 epochs. Lower the learning rate \(now 0.1\)"):
        learn(np.full(100, 1e30), STEADY)


def test_training_repeats_itself_with_the_same_seed(contaminated: np.ndarray) -> None:
    """The same seed gives the same number to the last bit; another seed holds out other rows."""
    short = Training(epochs=1, least_steps=20, batch_size=20, learning_rate=0.1)

    first = learn(contaminated, short, seed=3)[0]
    random.random()  # whatever the caller drew in between
    again, other = (learn(contaminated, short, seed=seed)[0] for seed in (3, 4))

    assert first == again != other


@pytest.mark.parametrize("fails", [False, True])
def test_session_leaves_the_callers_generators_alone(fails: bool) -> None:
    """Fitting a detector must not change what the caller's own random numbers are, even if it fails."""
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global generator is what this is about
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002

    try:
        with keras_session(0):
            random.random()
            np.random.random()  # noqa: NPY002
            if fails:
                raise DataError("stop")
    except DetectorError:
        assert fails

    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_session_gives_the_terminal_and_the_log_back(capfd: pytest.CaptureFixture[str]) -> None:
    """TensorFlow's noise is swallowed while it loads; the caller's own messages are not."""
    log = logging.getLogger("tensorflow")
    level = log.level

    with keras_session(0):
        os.write(2, b"inside")
        assert not log.isEnabledFor(logging.WARNING)
    os.write(2, b" and after")

    assert capfd.readouterr().err == "inside and after"
    assert log.level == level


def test_session_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that only scores has no TensorFlow, and is told what training needs."""
    monkeypatch.setitem(sys.modules, "keras", None)

    needs = pytest.raises(MissingExtraError, match=r"needs TensorFlow.*pip install 'anomaly-detector\[train\]'")

    with needs, keras_session(0):
        pass
