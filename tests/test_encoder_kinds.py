"""What single encoders add to what holds for all of them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array
from sklearn.base import clone

from detector.encoders.conv1d import Conv1dAutoencoder
from detector.encoders.conv2d import Conv2dAutoencoder
from detector.encoders.dense import DenseAutoencoder
from detector.encoders.mixed import MixedAutoencoder
from detector.encoders.multimodal import MultimodalAutoencoder
from detector.encoders.recurrent import RecurrentAutoencoder
from detector.encoders.sparse import SparseAutoencoder
from detector.encoders.spectrogram import spectrograms
from detector.encoders.tokens import TokenAutoencoder
from detector.encoders.transformer import TransformerAutoencoder
from detector.encoders.variational import VariationalAutoencoder
from detector.encoders.vocabulary import Vocabulary, check_sequences
from detector.errors import DataError, SettingError, ShapeError
from detector.training.loop import keras_session
from tests.encoder_homes import BRIEF, HOMES, at_home, fast, fresh, indicators, share_wrong


@pytest.mark.slow
def test_fit_goes_on_from_earlier_weights() -> None:
    """With the weights of an earlier fit the loss starts where that fit ended; others' weights are refused."""
    earlier = at_home("dense")
    short = replace(fast(), epochs=1, least_steps=1, learning_rate=1e-6)

    later = (
        clone(earlier)
        .set_params(initial_weights=earlier.weights_, training=short)
        .fit(HOMES["dense"].draw(0, HOMES["dense"].rows))
    )

    assert later.history_["held_out_loss"][0] == pytest.approx(min(earlier.history_["held_out_loss"]), rel=0.01)
    with pytest.raises(SettingError, match="earlier weights do not fit this network: expected arrays of shapes"):
        clone(later).set_params(code=3).fit(HOMES["dense"].draw(0, 50))


@pytest.mark.slow
def test_linear_path_starts_as_principal_components() -> None:
    """Before it has learnt anything, a network with a linear path rebuilds rows as PCA does."""
    rows = fresh("dense")
    still = replace(BRIEF, learning_rate=1e-9)

    start = DenseAutoencoder(code=2, hidden=(), standardise=False, training=still).fit(rows - rows.mean(axis=0))

    got = start.reconstruct(rows - rows.mean(axis=0)) + rows.mean(axis=0)
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(got - rows.mean(axis=0), centred @ axes[:2].T @ axes[:2], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [DenseAutoencoder(code=2, hidden=(), training=BRIEF), VariationalAutoencoder(code=2, hidden=(), training=BRIEF)],
    ids=lambda encoder: type(encoder).__name__,
)
def test_columns_that_never_vary_do_no_harm(encoder: Any) -> None:
    """A constant column keeps its unit, one without values its zero: scores are finite, and a change costs."""
    rows = np.column_stack([np.random.default_rng(0).normal(size=50), np.full(50, 7.0), np.full(50, np.nan)])

    scores = encoder.fit(rows).score_samples([[0.0, 7.0, np.nan], [0.0, 70.0, np.nan]])

    assert np.isfinite(encoder.score_samples(rows)).all()
    assert np.allclose(encoder.reconstruct(rows)[:, 1], 7.0, atol=0.5)
    assert scores[1] < scores[0] - 10


def test_sparse_rows_are_made_dense_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In fitting and in scoring, no more than 4,096 rows of a CSR array are dense at once."""
    largest = 0
    dense = csr_array.toarray

    def watched(self: csr_array) -> np.ndarray:
        nonlocal largest
        largest = max(largest, self.shape[0])
        return dense(self)

    rows = csr_array((np.ones(9000), (np.arange(9000), np.arange(9000) % 50)), shape=(9000, 50))
    monkeypatch.setattr(csr_array, "toarray", watched)
    encoder = SparseAutoencoder(code=2, hidden=(4,), training=replace(BRIEF, holdout=0.1)).fit(rows)
    encoder.score_samples(rows)

    assert 0 < largest <= 4096


def test_sparse_and_dense_rows_get_the_same_scores() -> None:
    """CSR, CSC and arrays are only ways to write the same rows."""
    encoder, rows = at_home("sparse"), fresh("sparse", 20)

    scores = [encoder.score_samples(form) for form in (rows, csc_array(rows), rows.toarray())]

    assert np.array_equal(scores[0], scores[1])
    assert np.array_equal(scores[0], scores[2])


def test_sparse_encoder_refuses_gaps() -> None:
    """A gap is not a zero."""
    with pytest.raises(DataError, match="contains NaN"):
        SparseAutoencoder().fit(np.array([[1.0, np.nan], [0.0, 1.0]]))


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", ["l1", "kl"])
def test_more_weight_makes_the_code_sparser(sparsity: str) -> None:
    """L1 quietens the code as a whole, KL brings its activity to the target."""
    rows = HOMES["sparse"].draw(0, 400)
    free = float(at_home("sparse").encode(rows).mean())

    encoder = SparseAutoencoder(code=8, hidden=(), sparsity=sparsity, weight=0.3, training=fast(epochs=4)).fit(rows)

    activity = float(encoder.encode(rows).mean())
    assert activity < 0.5 * free if sparsity == "l1" else activity == pytest.approx(encoder.target, abs=0.03)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsity": "l2"}, "sparsity must be one of l1, kl. Received: sparsity='l2'"),
        ({"target": 0.0}, "target must lie between 0 and 1. Received: target=0.0"),
        ({"weight": -1.0}, "weight must not be negative. Received: weight=-1.0"),
        ({"mask": 1.0}, r"mask must lie in \[0, 1\). Received: mask=1.0"),
    ],
)
def test_sparse_encoder_refuses_settings_without_meaning(parameters: dict[str, Any], message: str) -> None:
    """Each parameter is named."""
    with pytest.raises(SettingError, match=message):
        SparseAutoencoder(**parameters).fit(np.eye(5))


def test_reconstruction_probability_knows_what_is_noisy() -> None:
    """The score is a mean log-density: normal rows come out above a much too wide normal distribution."""
    scores = at_home("variational").score_samples(fresh("variational"))

    assert np.median(scores) > -0.5 * np.log(2 * np.pi * np.e)


@pytest.mark.parametrize("kind", [Conv1dAutoencoder, RecurrentAutoencoder, TransformerAutoencoder])
def test_window_must_be_a_whole_number_of_steps(kind: type[Any]) -> None:
    """Rows that are no flattened windows of that length are refused, in words that help."""
    with pytest.raises(ShapeError, match="Expected windows of 4 time steps .* received rows of 10, which 4 does not"):
        kind(timesteps=4).fit(np.zeros((5, 10)))
    with pytest.raises(SettingError, match="timesteps must be a positive whole number or None"):
        kind(timesteps=0).fit(np.zeros((5, 10)))


@pytest.mark.parametrize("name", ["recurrent", "transformer"])
def test_padding_is_not_scored(name: str) -> None:
    """The error is the mean over the readings that are there."""
    encoder, rows = at_home(name), fresh(name)
    residuals = (rows - encoder.reconstruct(rows)) / encoder.scaling_.scale

    assert np.isnan(rows).any()
    assert np.allclose(-encoder.score_samples(rows), np.nanmean(residuals**2, axis=1), rtol=1e-3)


@pytest.mark.slow
def test_padding_is_not_read() -> None:
    """A recurrent network skips a step that is not there wherever it lies; a Transformer does not look at it."""
    a, b, other = np.random.default_rng(0).normal(size=(3, 1, 1, 3)).astype(np.float32)
    with keras_session(0):
        from detector.encoders.sequences import Attentive, Recurrent

        for cell in ("lstm", "gru"):
            core = Recurrent(cell, units=4, timesteps=3)
            after = core.read(np.concatenate([a, b, other], axis=1), np.array([[1.0, 1.0, 0.0]]))
            before = core.read(np.concatenate([other, a, b], axis=1), np.array([[0.0, 1.0, 1.0]]))
            assert np.allclose(after, before, atol=1e-6)
        attentive = Attentive(width=4, heads=2, blocks=1, timesteps=3)
        found = [
            attentive.read(np.concatenate([a, b, last], axis=1), np.array([[1.0, 1.0, 0.0]])) for last in (a, other)
        ]
        assert np.allclose(*found, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "Expected images of 7 x 7 = 49 values, received rows of 60"),
        ((8, 8), "Expected images of 8 x 8 = 64 values, received rows of 60. Bring all images to one size"),
        ((7, -1), "received rows of 60"),
    ],
)
def test_image_of_another_size_is_refused(shape: tuple[int, ...] | None, message: str) -> None:
    """The size expected and the one received are named."""
    with pytest.raises(ShapeError, match=message):
        Conv2dAutoencoder(shape=shape).fit(np.zeros((5, 60)))


@pytest.mark.parametrize("shape", [(8,), (8, 0), (-1, -1), (2, 2, 2, 2)])
def test_image_shape_must_have_a_meaning(shape: tuple[int, ...]) -> None:
    """Two or three sizes, at most one left open."""
    with pytest.raises(SettingError, match=r"shape must be \(height, width\)"):
        Conv2dAutoencoder(shape=shape).fit(np.zeros((5, 64)))


def test_colours_are_channels() -> None:
    """Three channels come back as three."""
    rows = np.random.default_rng(0).random((10, 4 * 5 * 3))

    encoder = Conv2dAutoencoder(shape=(4, 5, 3), code=2, filters=(2,), training=BRIEF).fit(rows)

    assert encoder.reconstruct(rows).shape == (10, 60)
    assert len(encoder.scaling_.centre) == 3


def test_spectrogram_shows_the_frequency() -> None:
    """A wave of eight readings a period is bright at a quarter of the spectrum, a faster one higher up."""
    t = np.arange(128)
    wave = np.where(t < 64, np.sin(2 * np.pi * t / 8), np.sin(2 * np.pi * t / 4))[None]

    images, shape = spectrograms(wave, segment=32, step=16)

    assert shape == (17, 7)
    assert images.reshape(shape).argmax(axis=0)[[0, -1]].tolist() == [4, 8]


@pytest.mark.parametrize(
    ("windows", "parameters", "error", "message"),
    [
        (np.zeros((2, 16)), {}, ShapeError, r"at least 32 readings, received shape \(2, 16\)"),
        (np.zeros(64), {}, ShapeError, r"received shape \(64,\)"),
        (np.full((1, 64), np.nan), {}, DataError, "a spectrum has no gaps"),
        (np.zeros((1, 64)), {"step": 0}, SettingError, "step at least 1. Received: segment=32, step=0"),
    ],
)
def test_spectrogram_refuses(windows: Any, parameters: Any, error: type[Exception], message: str) -> None:
    """Short windows, gaps, and settings without meaning."""
    with pytest.raises(error, match=message):
        spectrograms(windows, **parameters)


def test_token_lists_come_back() -> None:
    """Lists of any lengths become vectors of one length, and lists of integers again, most of them the same."""
    encoder, lists = at_home("tokens"), fresh("tokens")

    decoded = encoder.decode(encoder.encode(lists))

    assert {len(tokens) for tokens in decoded} == {len(tokens) for tokens in lists}
    assert all(type(token) is int for tokens in decoded for token in tokens)
    assert share_wrong(indicators(lists), indicators(decoded)) < 0.1


@pytest.mark.slow
def test_tokens_can_be_read_by_a_transformer() -> None:
    """The same rows, another network: codes and scores do not depend on the batch, and padding is not looked at."""
    lists = fresh("tokens", 40)
    encoder = TokenAutoencoder(code=2, network="transformer", units=4, heads=2, embedding=4, training=BRIEF).fit(lists)
    scores, codes = encoder.score_samples(lists), encoder.encode(lists)

    assert np.isfinite(scores).all()
    assert np.array_equal(encoder.score_samples(lists[7:8]), scores[7:8])
    assert np.array_equal(encoder.encode(lists[::-1]), codes[::-1])
    assert 0 <= encoder.parity_ < 1e-3


def test_unknown_token_costs_dearly_and_is_never_answered() -> None:
    """A token out of vocabulary makes a sequence odd; decoding never invents one."""
    usual, odd = at_home("tokens").score_samples([[100, 101, 102], [100, 999, 102]])

    assert odd < usual - 1
    assert 999 not in at_home("tokens").reconstruct([[100, 999, 102]])[0]


def test_words_and_numbers_of_numpy_are_tokens() -> None:
    """As arrays hold them and draws give them; words of NumPy were refused."""
    for tokens in (["tea", "milk"], [7, 8]):
        assert check_sequences(np.array([tokens])) == [tokens]


def test_empty_and_long_sequences_follow_the_policy() -> None:
    """An empty list is a sequence; of one too long the last tokens are judged."""
    encoder = at_home("tokens")
    lists = fresh("tokens", 1)

    scores = encoder.score_samples(
        [[], lists[0], [101, 105, 103] * 5 + [100, 101, 102, 103, 104, 105], [100, 101, 102, 103, 104, 105]]
    )

    assert np.isfinite(scores).all()
    assert scores[2] == scores[3]


@pytest.mark.parametrize(
    ("parameters", "rows", "error", "message"),
    [
        ({"unknown": "reject"}, [[100, 999]], DataError, r"Token 999 \(row 0\) is not in the vocabulary of 6 tokens"),
        ({"longer": "reject"}, [[100] * 7], ShapeError, r"at most 6 tokens, received one of 7 \(row 0\)"),
        ({}, [[100, "a"]], DataError, "all integers or all text, received int, str"),
        ({}, [[100, 1.5]], DataError, "received float, int"),
        ({}, [100, 101], DataError, "Expected a list of tokens in row 0, received 100"),
        ({}, ["abc"], DataError, "Expected a list of tokens in row 0, received 'abc'"),
        ({}, 5, DataError, "Expected a list of token lists, received int"),
        ({}, [], DataError, "Expected at least 1 sequences"),
    ],
)
def test_tokens_refused(parameters: Any, rows: Any, error: type[Exception], message: str) -> None:
    """Unknown and too many tokens where the policy says so, and what is no list of token lists."""
    encoder = pickle.loads(pickle.dumps(at_home("tokens"))).set_params(**parameters)  # noqa: S301 - our own

    with pytest.raises(error, match=message):
        encoder.encode(rows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"network": "rnn"}, "network must be one of lstm, gru, transformer"),
        ({"unknown": "drop"}, "unknown must be one of token, reject"),
        ({"longer": "drop"}, "longer must be one of truncate, reject"),
        ({"network": "transformer", "units": 30}, "units must be a multiple of heads"),
        ({"length": 0}, "length must be positive whole numbers"),
    ],
)
def test_token_encoder_refuses_settings_without_meaning(parameters: dict[str, Any], message: str) -> None:
    """Each parameter is named."""
    with pytest.raises(SettingError, match=message):
        TokenAutoencoder(**parameters).fit([[1, 2], [2]])


def test_tokens_may_be_words() -> None:
    """Text goes in and comes out."""
    lists = [["login", "pay"], ["login", "look", "pay"]]
    vocabulary = Vocabulary.fit(lists, most=10)

    assert vocabulary.sequences(vocabulary.numbers(lists)) == lists


def test_no_token_at_all_is_an_error() -> None:
    """Empty lists teach nothing."""
    with pytest.raises(DataError, match="not a single token"):
        TokenAutoencoder().fit([[], []])


def test_mixed_categories_come_back_as_their_codes() -> None:
    """The column of categories holds the codes given, and mostly the right ones."""
    rows = fresh("mixed")

    rebuilt = at_home("mixed").reconstruct(rows)

    assert set(np.unique(rebuilt[:, 0])) <= {0.0, 10.0, 20.0, 30.0}
    assert np.mean(rebuilt[:, 0] == rows[:, 0]) > 0.8


@pytest.mark.parametrize("categorical", [(0, 0), (9,), (-1,)])
def test_mixed_positions_must_exist(categorical: tuple[int, ...]) -> None:
    """Each column once."""
    with pytest.raises(SettingError, match="categorical must be different positions from 0 to 3"):
        MixedAutoencoder(categorical=categorical).fit(np.zeros((5, 4)))


def test_multimodal_error_is_the_mean_of_its_branches() -> None:
    """Each branch has an error of its own, about 1 where it is usual, and the score is minus their mean."""
    encoder, rows = at_home("multimodal"), fresh("multimodal")

    errors = encoder.branch_errors(rows)

    assert list(errors) == ["numbers", "window", "codes"]
    assert all(0.3 < error.mean() < 3 for error in errors.values())
    assert np.allclose(-encoder.score_samples(rows), np.mean(list(errors.values()), axis=0), rtol=1e-5)


def test_multimodal_error_names_the_branch_at_fault() -> None:
    """A row that is odd in one kind of data is so in that branch most of all."""
    rows = {name: part[:1] for name, part in fresh("multimodal", 50).items()}
    rows["window"] = np.where(np.arange(16) % 2, 1.0, -1.0)[None]

    errors = at_home("multimodal").branch_errors(rows)

    assert max(errors, key=lambda name: errors[name][0]) == "window"


@pytest.mark.slow
@pytest.mark.parametrize(("join", "balance"), [("shared", "initial"), ("concatenate", "none")])
def test_branches_can_be_joined_and_balanced_otherwise(join: str, balance: str) -> None:
    """The other choices give an encoder as well."""
    branches = {"a": DenseAutoencoder(code=2, hidden=(4,)), "b": SparseAutoencoder(code=2, hidden=(4,))}
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=(30, 3)), "b": csr_array(rng.random((30, 5)) < 0.2, dtype=float)}

    encoder = MultimodalAutoencoder(branches=branches, code=3, join=join, units=4, balance=balance, training=BRIEF)

    assert encoder.fit(rows).encode(rows).shape == (30, 3)
    assert {name: part.shape for name, part in encoder.reconstruct(rows).items()} == {"a": (30, 3), "b": (30, 5)}


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"numbers": [[0.0] * 3]}, DataError, "Rows are missing for the branches window, codes"),
        ({"nunbers": []}, DataError, "There is no branch 'nunbers'. Did you mean 'numbers'?"),
        (np.zeros((2, 3)), DataError, "Expected a mapping with rows for numbers, window, codes, received ndarray"),
        (
            {"numbers": np.zeros((2, 3)), "window": np.zeros((1, 16)), "codes": [[1]]},
            ShapeError,
            "the same rows in every branch, received numbers: 2, window: 1, codes: 1",
        ),
    ],
)
def test_multimodal_rows_must_be_aligned(rows: Any, error: type[Exception], message: str) -> None:
    """Every branch gets its rows, and as many as the others."""
    with pytest.raises(error, match=message):
        at_home("multimodal").encode(rows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"branches": {}}, "branches must be autoencoders by name"),
        ({"branches": {"a": 3}}, "branches must be autoencoders by name"),
        ({"branches": {"a": MultimodalAutoencoder(branches={})}}, "must not be a MultimodalAutoencoder"),
        ({"join": "add"}, "join must be one of concatenate, shared"),
        ({"balance": "even"}, "balance must be one of uncertainty, initial, none"),
    ],
)
def test_multimodal_settings_must_have_a_meaning(parameters: dict[str, Any], message: str) -> None:
    """Each parameter is named."""
    with pytest.raises(SettingError, match=message):
        MultimodalAutoencoder(**({"branches": {"a": DenseAutoencoder(code=2)}} | parameters)).fit({})
