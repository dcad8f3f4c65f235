"""What holds for every encoder, whatever its architecture."""

from __future__ import annotations

import gc
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from detector.encoders.checks import check_numbers
from detector.encoders.conv1d import Conv1dAutoencoder
from detector.encoders.conv2d import Conv2dAutoencoder
from detector.encoders.dense import DenseAutoencoder
from detector.encoders.estimator import AutoencoderMixin
from detector.encoders.mixed import MixedAutoencoder
from detector.encoders.multimodal import MultimodalAutoencoder
from detector.encoders.recurrent import RecurrentAutoencoder
from detector.encoders.sparse import SparseAutoencoder
from detector.encoders.store import load, save
from detector.encoders.tokens import TokenAutoencoder
from detector.encoders.transformer import TransformerAutoencoder
from detector.encoders.variational import VariationalAutoencoder
from detector.errors import DataError, DetectorError, ParityError, SettingError, ShapeError, UnfittedError
from detector.lab.damage import take
from detector.onnx import parity
from detector.training.settings import Training
from tests.encoder_homes import BRIEF, HOMES, at_home, fresh, linear_error, strange

ROOT = Path(__file__).resolve().parents[1]
KINDS = sorted({type(home.encoder) for home in HOMES.values()}, key=lambda kind: kind.__name__)


@pytest.fixture(scope="module", autouse=True)
def _small_garbage() -> Iterator[None]:
    """Keras collects garbage after each fit; what was imported before need not be looked at a hundred times."""
    gc.freeze()
    yield
    gc.unfreeze()


every_encoder = pytest.mark.parametrize("name", list(HOMES))


def matrix(name: str, rows: Any) -> np.ndarray:
    """Rows as numbers, NaN as 0."""
    return np.nan_to_num(HOMES[name].flat(rows))


def made(kind: type[Any], **parameters: Any) -> Any:
    """An encoder of that kind; the multimodal one needs branches."""
    if kind is MultimodalAutoencoder:
        parameters = {"branches": {"a": DenseAutoencoder(code=2)}} | parameters
    return kind(**parameters)


# What holds for all of them


def test_every_architecture_is_among_those_tested() -> None:
    """A new file in detector/encoders with an autoencoder in it must get a home."""
    files = {path.stem for path in (ROOT / "detector" / "encoders").glob("*.py")}
    defined = {
        stem
        for stem in files
        if "(AutoencoderMixin" in (ROOT / "detector" / "encoders" / f"{stem}.py").read_text(encoding="utf-8")
    }

    assert defined == {kind.__module__.rpartition(".")[2] for kind in KINDS}
    assert len(KINDS) >= 10


@pytest.mark.slow
@every_encoder
def test_encoder_beats_a_linear_one_of_equal_code_size(name: str) -> None:
    """Rows not seen in fitting are rebuilt better than by as many principal components."""
    home, rows = HOMES[name], fresh(name)

    ours = home.error(home.flat(rows), home.flat(at_home(name).reconstruct(rows)))

    assert ours < 0.9 * linear_error(name)


@every_encoder
def test_encoder_tells_rows_that_do_not_belong_together(name: str) -> None:
    """Rows whose values are usual, but come each from another row, score below rows as they are."""
    encoder = at_home(name)
    scores = [np.nan_to_num(encoder.score_samples(rows)) for rows in (fresh(name), strange(name))]

    assert roc_auc_score([1] * 200 + [0] * 200, np.concatenate(scores)) > 0.9


@every_encoder
def test_codes_have_one_length_and_tell_rows_apart(name: str) -> None:
    """Whatever the length of a row, its code is a finite vector of the length asked for, and not the same for all."""
    codes = at_home(name).encode(fresh(name))

    assert codes.shape == (200, HOMES[name].encoder.code)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    assert codes.std(axis=0).max() > 0.1


@every_encoder
def test_decoding_the_code_is_reconstructing(name: str) -> None:
    """Both ways give the same rows, in the form of the rows given."""
    encoder, rows = at_home(name), fresh(name)

    decoded, rebuilt = encoder.decode(encoder.encode(rows)), encoder.reconstruct(rows)

    assert type(decoded) is type(rebuilt)
    assert np.allclose(matrix(name, decoded), matrix(name, rebuilt), atol=1e-4)
    assert matrix(name, rebuilt).shape == matrix(name, rows).shape


@every_encoder
def test_a_rows_results_do_not_depend_on_its_batch(name: str) -> None:
    """Alone, among others, in another order: the score and the code are the same to the last bit."""
    encoder, rows = at_home(name), fresh(name)
    order = np.random.default_rng(0).permutation(200)
    scores, codes = encoder.score_samples(rows), encoder.encode(rows)

    assert np.array_equal(encoder.score_samples(take(rows, order)), scores[order])
    assert np.array_equal(encoder.encode(take(rows, order)), codes[order])
    for at in (0, 57, 199):
        assert np.array_equal(encoder.score_samples(take(rows, np.array([at]))), scores[[at]])


@every_encoder
def test_graph_agrees_with_keras(name: str) -> None:
    """The difference is measured at every fit, and is one of rounding."""
    assert 0 <= at_home(name).parity_ < 1e-3


@every_encoder
def test_encoder_survives_pickling(name: str) -> None:
    """A copy in another process, such as a parallel job's, answers alike."""
    encoder, rows = at_home(name), fresh(name, 20)

    copy = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own

    assert np.array_equal(copy.score_samples(rows), encoder.score_samples(rows))
    assert np.array_equal(copy.encode(rows), encoder.encode(rows))


@every_encoder
def test_encoder_survives_saving(name: str, tmp_path: Path) -> None:
    """A folder without a pickle gives back an encoder with the same parameters, that answers alike."""
    encoder, rows = at_home(name), fresh(name, 20)

    again = load(save(encoder, tmp_path / "encoder"))

    assert repr(again) == repr(encoder)
    assert np.array_equal(again.score_samples(rows), encoder.score_samples(rows))
    assert np.array_equal(matrix(name, again.reconstruct(rows)), matrix(name, encoder.reconstruct(rows)))
    assert again.history_ == encoder.history_
    assert all(np.array_equal(again.weights_[key], array) for key, array in encoder.weights_.items())


@every_encoder
def test_training_leaves_its_curves_and_weights(name: str) -> None:
    """The loss fell, and what is needed to go on from here is kept."""
    encoder = at_home(name)

    held_out = encoder.history_["held_out_loss"]
    assert min(held_out) == min(held_out[1:]) < held_out[0]
    assert all(isinstance(array, np.ndarray) for array in encoder.weights_.values())


@every_encoder
def test_encoder_can_be_cloned(name: str) -> None:
    """The copy has the parameters and nothing that was learnt."""
    copy = clone(at_home(name))

    assert repr(copy) == repr(at_home(name))
    with pytest.raises(UnfittedError, match="is not fitted yet. Call fit before"):
        copy.score_samples(fresh(name, 2))


@pytest.mark.parametrize("method", ["encode", "transform", "decode", "reconstruct", "score_samples"])
@pytest.mark.parametrize("kind", KINDS)
def test_asking_before_fit_is_an_error(kind: type[Any], method: str) -> None:
    """Ours and scikit-learn's at the same time."""
    with pytest.raises(NotFittedError, match=f"This {kind.__name__} is not fitted yet") as caught:
        getattr(made(kind), method)(np.zeros((2, 4)))

    assert isinstance(caught.value, DetectorError)


@every_encoder
@pytest.mark.parametrize("extra", [1, -1])
def test_decode_refuses_codes_of_another_length(name: str, extra: int) -> None:
    """It names the length it expects."""
    code = HOMES[name].encoder.code

    with pytest.raises(ShapeError, match=rf"decode expected codes of shape \(n_rows, {code}\)"):
        at_home(name).decode(np.zeros((2, code + extra)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [0, -1, 2.5, "3"])
def test_code_must_be_a_positive_whole_number(kind: type[Any], code: Any) -> None:
    """Said at fit, as everywhere in scikit-learn."""
    with pytest.raises(SettingError, match=f"code must be positive whole numbers. Received: code={code!r}"):
        made(kind, code=code).fit(np.zeros((5, 4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1.5, -1, "1", None, 2**32])
def test_random_state_must_be_a_whole_number(kind: type[Any], seed: Any) -> None:
    """What NumPy, Keras and scikit-learn say of it names no parameter."""
    with pytest.raises(SettingError, match="random_state must .*Received: random_state="):
        made(kind, random_state=seed).fit(np.zeros((5, 4)))


def test_whole_floats_count_as_whole_numbers() -> None:
    """As a division or a table of settings makes them; what is kept are ints."""
    encoder = DenseAutoencoder(code=2.0, hidden=(4.0,), random_state=1.0, training=Training(epochs=1.0))
    encoder.fit(np.random.default_rng(0).normal(size=(20, 3)))

    assert repr([encoder.code, encoder.hidden, encoder.random_state]) == "[2, (4,), 1]"
    assert repr(encoder.training.epochs) == "1"


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if hasattr(kind(**({"branches": {}} if kind is MultimodalAutoencoder else {})), "loss")],
)
def test_loss_must_be_known(kind: type[Any]) -> None:
    """The error lists the losses there are."""
    with pytest.raises(SettingError, match="loss must be one of mse, mae, huber, log_cosh. Received: loss='mes'"):
        kind(loss="mes").fit(np.zeros((5, 4)))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (TokenAutoencoder, MultimodalAutoencoder)])
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([[1.0, 2.0], [3.0]], ShapeError, "Expected rows of one length, received rows of 1 to 2 values"),
        (np.zeros((3, 4, 2)), ShapeError, r"Expected flat rows .* received shape \(3, 4, 2\). Flatten"),
        (np.zeros(4), DataError, "Expected 2D array, got 1D array"),
        (np.zeros((1, 4)), DataError, "minimum of 2 is required"),
        (np.full((4, 4), np.inf), DataError, "infinity"),
        ([["a", "b"], ["c", "d"]], DataError, "could not convert string to float"),
    ],
)
def test_encoder_refuses_rows_that_are_no_matrix(
    kind: type[Any], rows: Any, error: type[Exception], message: str
) -> None:
    """Ragged lists, windows that are not flat, one row, infinity, text."""
    with pytest.raises(error, match=message):
        kind().fit(rows)


@pytest.mark.parametrize("name", ["dense", "sparse", "conv1d", "conv2d", "recurrent", "transformer", "mixed"])
def test_encoder_refuses_rows_of_another_width(name: str) -> None:
    """A window that is too short, an image of another size, a column too many."""
    wrong = np.zeros((3, at_home(name).n_features_in_ - 1))

    with pytest.raises(ShapeError, match=f"X has {wrong.shape[1]} features, but .* is expecting"):
        at_home(name).score_samples(wrong)


@pytest.mark.parametrize("name", ["dense", "variational", "conv1d", "conv2d", "recurrent", "transformer", "mixed"])
def test_missing_values_are_not_scored(name: str) -> None:
    """A row with NaN is scored by its other values; one without any value cannot be judged."""
    rows = np.array(fresh(name, 3))
    rows[1, : rows.shape[1] // 3] = np.nan
    rows[2] = np.nan

    scores = at_home(name).score_samples(rows)

    assert np.isfinite(scores[:2]).all()
    assert np.isnan(scores[2])
    assert np.isfinite(at_home(name).reconstruct(rows)).all()


def test_graph_that_differs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder whose two sides disagree is never handed out."""
    monkeypatch.setattr(parity, "PARITY", 0.0)

    with pytest.raises(ParityError, match=r"ONNX graph differs from the Keras network by .* \(code\); at most 0"):
        DenseAutoencoder(code=2, hidden=(4,), training=BRIEF).fit(np.random.default_rng(0).normal(size=(20, 4)))


@pytest.mark.slow
def test_scoring_imports_no_tensorflow(tmp_path: Path) -> None:
    """A process that scores with fitted encoders, all kinds of them, loads neither Keras nor TensorFlow."""
    kept = tmp_path / "rows"
    kept.write_bytes(pickle.dumps([(save(at_home(name), tmp_path / name), fresh(name, 3)) for name in HOMES]))
    code = (
        "import pickle, sys; from detector.encoders import load; "
        "encoders = [(load(folder), rows) for folder, rows in pickle.load(open(sys.argv[1], 'rb'))]; "
        "[(encoder.score_samples(rows), encoder.reconstruct(rows)) for encoder, rows in encoders]; "
        "print([name for name in ('keras', 'tensorflow', 'onnx') if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(kept)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "[]", done.stderr


# scikit-learn's own checks

CHECKED = {
    DenseAutoencoder(code=2, hidden=(), training=BRIEF): None,
    SparseAutoencoder(code=2, hidden=(), training=BRIEF): {
        "check_estimator_sparse_tag",
        "check_estimator_sparse_array",
    },
    Conv1dAutoencoder(code=2, filters=(2,), kernel=2, training=BRIEF): {
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_methods_subset_invariance",
        "check_n_features_in_after_fitting",
    },
    VariationalAutoencoder(code=2, hidden=(), draws=2, training=BRIEF): set(),
    Conv2dAutoencoder(code=2, shape=(1, -1), filters=(2,), training=BRIEF): set(),
    RecurrentAutoencoder(code=2, units=2, training=BRIEF): set(),
    TransformerAutoencoder(code=2, units=2, heads=1, training=BRIEF): set(),
    MixedAutoencoder(code=2, hidden=(), training=BRIEF): {"check_fit2d_1feature"},
}
"""Those whose rows are plain matrices, and the checks they add to ``LIGHT``: their own ways of reading rows.

The first passes all checks. The others share its methods, and a check fits up to nine networks. Tokens are lists of
lists and several kinds of data a mapping, which scikit-learn's checks cannot make.
"""

LIGHT = frozenset(
    {
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    }
)


def selected(estimator: BaseEstimator, added: set[str] | None) -> list[tuple[Any, Callable[[Any], None]]]:
    """Pairs of estimator and check; the array API is checked only where it is switched on, so it is left out."""
    pairs = [pair for pair in estimator_checks_generator(estimator) if _name(pair[1]) != "check_array_api_input"]
    return [pair for pair in pairs if added is None or _name(pair[1]) in LIGHT | added]


def _name(check: Any) -> str:
    return getattr(check, "func", check).__name__


PAIRS = [pair for estimator, added in CHECKED.items() for pair in selected(estimator, added)]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), PAIRS, ids=[f"{type(e).__name__}-{_name(c)}" for e, c in PAIRS])
def test_encoder_passes_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    """Whoever knows scikit-learn knows how an encoder behaves."""
    check(estimator)


@pytest.mark.parametrize("name", HOMES)
def test_help_describes_every_parameter(name: str) -> None:
    """Those that several encoders share too, though they are described once; and each only once."""
    encoder = HOMES[name].encoder

    heads = re.findall(r"^    (\w[\w, ]*) : .+$", type(encoder).__doc__ or "", flags=re.MULTILINE)

    described = [each.strip() for head in heads for each in head.split(",")]
    assert set(encoder.get_params(deep=False)) <= set(described)
    assert len(described) == len(set(described))


def test_scikit_learns_checks_are_not_vacuous() -> None:
    """There are many, they fit and score, and a broken encoder fails some of them; those named are among them."""
    names = {
        kind: {_name(check) for estimator, check in PAIRS if type(estimator) is kind} for kind in map(type, CHECKED)
    }

    assert len(names[DenseAutoencoder]) > 35
    assert all(names[type(estimator)] == LIGHT | added for estimator, added in CHECKED.items() if added is not None)
    assert names[DenseAutoencoder] >= LIGHT | {"check_fit_idempotent", "check_methods_subset_invariance"}
    assert failures(Broken()) >= {
        "check_fit1d",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in_after_fitting",
    }


def test_common_checks_are_not_vacuous(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder whose scores and codes depend on the batch, and that rebuilds nothing, fails the checks above."""
    encoder = at_home("dense")
    rebuilt = np.zeros_like(encoder.reconstruct(fresh("dense")))
    monkeypatch.setattr(type(encoder), "encode", lambda self, X: Broken().encode(X).repeat(2, axis=1))
    monkeypatch.setattr(type(encoder), "score_samples", lambda self, X: Broken().score_samples(X))
    monkeypatch.setattr(type(encoder), "reconstruct", lambda self, X: rebuilt[: len(X)])

    for check in (
        test_encoder_beats_a_linear_one_of_equal_code_size,
        test_encoder_tells_rows_that_do_not_belong_together,
        test_codes_have_one_length_and_tell_rows_apart,
        test_decoding_the_code_is_reconstructing,
        test_a_rows_results_do_not_depend_on_its_batch,
    ):
        with pytest.raises(AssertionError):
            check("dense")


class Broken(AutoencoderMixin, BaseEstimator):
    """Looks like an encoder, but its scores depend on the batch and it checks nothing."""

    def fit(self, X: Any, y: Any = None) -> Broken:  # noqa: D102
        self.graph_ = None
        self.n_features_in_ = check_numbers(self, np.zeros((3, 2)), reset=True).shape[1]
        return self

    def encode(self, X: Any) -> np.ndarray:  # noqa: D102
        return np.arange(len(X), dtype=float)[:, None]

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: D102
        return np.arange(len(X), dtype=float)


def failures(estimator: Any) -> set[str]:
    """Names of the checks that an estimator fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # that of the array API
        results = check_estimator(estimator, on_fail=None)
    return {result["check_name"] for result in results if result["status"] == "failed"}


def test_encoder_is_a_step_of_a_pipeline() -> None:
    """The code is what the next step gets."""
    rows = np.random.default_rng(0).normal(size=(30, 4))
    encoder = DenseAutoencoder(code=3, hidden=(4,), training=BRIEF)

    assert make_pipeline(encoder).fit_transform(rows).shape == (30, 3)
