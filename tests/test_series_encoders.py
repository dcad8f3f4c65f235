"""Neural encoders of windows: kept where they beat the principal components on rows held out, and said if not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from detector.detectors.series.detector import FallBackWarning
from detector.detectors.series.encoders import ENCODERS, LEAST_WINDOWS, EncoderChoice
from detector.detectors.series.fit import fit_series
from detector.errors import SettingError
from detector.series.segmented_windows import LaidWindows
from tests.series_examples import (
    KnownEncoder,
    KnownNetwork,
    networked,
    one,
    readings,
    recipe,
    seen,
    small,
    training,
    waves,
)


def test_an_encoder_that_beats_the_floor_is_kept() -> None:
    """And calibrated on as many rows as the components."""
    fitted = fit_series(training(waves(400)), recipe(), encoder=KnownEncoder(1e-4))  # type: ignore[arg-type]

    facts = fitted.model.facts
    assert fitted.model.network == KnownNetwork(1e-4)
    assert fitted.history == {"loss": [1.0]}
    assert fitted.message == ""
    assert facts["encoder"] == "known"
    assert facts["rows_calibration"] == 400
    assert facts["encoder_error_holdout"] < facts["pca_error_holdout"]
    assert facts["reconstruction_error_holdout"] == facts["encoder_error_holdout"]


def test_an_encoder_that_does_not_is_replaced_and_said() -> None:
    """The model is then the one that was fitted without."""
    fitted = fit_series(training(waves(400), name="'pump'"), recipe(), encoder=KnownEncoder(0.5))  # type: ignore[arg-type]

    without = fit_series(training(waves(400)), recipe()).model
    assert fitted.model.network is None
    assert (fitted.model.calibrator.risk == without.calibrator.risk).all()
    assert fitted.history == {}
    assert fitted.model.facts["encoder"] == "window-PCA"
    assert fitted.message.startswith(
        "known does not beat window-PCA on held-out rows of 'pump' (mean squared residual "
    )


def test_an_encoder_may_be_insisted_on() -> None:
    """Its own errors are what is usual then."""
    choice: Any = KnownEncoder(0.5, fall_back=False)

    model = fit_series(training(waves(400)), recipe(members=("reconstruction", "forest")), encoder=choice).model

    assert model.facts["encoder"] == "known"
    assert np.median(seen(model, waves(200, 1)).scores[:, 0]) == pytest.approx(0, abs=1)


def test_nothing_to_compare_on_means_the_floor() -> None:
    """Too few windows to learn from."""
    few = np.arange(400) % 200 < 12
    choice: Any = EncoderChoice("conv1d")

    fitted = fit_series(training(waves(400), usable=few), recipe(folds=2), encoder=choice)

    assert fitted.model.network is None
    assert fitted.message.startswith("conv1d needs 16 windows to learn from, got 10")


@pytest.mark.parametrize("name", ENCODERS)
def test_named_encoders_are_made_to_measure(name: str) -> None:
    """Code, window and seed are the detector's."""
    made = EncoderChoice(name)._estimator(16, code=5, random_state=7, on_step=lambda *_: None)

    assert (made.code, made.random_state, made.standardise) == (5, 7, False)
    assert getattr(made, "timesteps", 16) == 16


@pytest.mark.slow
def test_a_detector_rebuilds_windows_by_its_encoder() -> None:
    """The graph answers, as long a code as was asked for, and the training curves are kept."""
    detector = networked()

    model = detector.scorer_.models[""]
    assert model.network is not None
    assert detector.messages_ == ()
    assert len(detector.history_["loss"]) == 1
    assert detector.scorer_.metrics["encoder"] == "Conv1dAutoencoder"
    assert detector.scorer_.metrics["code_size"] == 3
    assert detector.scorer_.metrics["parity_encoder"] < 1e-3
    assert np.isfinite(detector.risk(readings(50, 1))).all()
    np.testing.assert_allclose(
        detector.contributions(readings(50, 1)).sum(axis=1), detector.risk(readings(50, 1)), rtol=1e-4, atol=1e-4
    )


def test_a_detector_says_that_its_encoder_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a warning, a message and a fact."""
    monkeypatch.setattr("detector.detectors.series.detector.EncoderChoice", lambda *_, **__: KnownEncoder(0.5))

    with pytest.warns(FallBackWarning, match="known does not beat window-PCA"):
        fallen = small(encoder="conv1d").fit(waves(200))

    assert fallen.messages_ == tuple(fallen.scorer_.metrics["messages"])
    assert "does not beat window-PCA" in fallen.messages_[0]
    assert fallen.history_ == {}


def test_few_windows_are_not_enough_for_an_encoder() -> None:
    """The floor is used and the number said."""
    laid = LaidWindows.lay(waves(30).astype(np.float32), one(30), 8)

    fitted = EncoderChoice("lstm").fit(
        laid, np.arange(23) < 3, code=2, random_state=0, on_step=lambda what, done, planned: None
    )

    assert fitted.network is None
    assert fitted.message == f"lstm needs {LEAST_WINDOWS} windows to learn from, got 3; window-PCA is used."


@pytest.mark.parametrize(
    ("encoder", "match"),
    [
        ("conv", "There is no encoder 'conv'. Did you mean 'conv1d'"),
        (PCA(), "an unfitted autoencoder of numbers. Received: PCA"),
    ],
)
def test_other_encoders_are_refused(encoder: Any, match: str) -> None:
    """Before anything is fitted."""
    with pytest.raises(SettingError, match=match):
        small(encoder=encoder).fit(waves(100))
