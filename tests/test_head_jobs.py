"""The head in the life of a detector: fitted with it, kept with it, and on only where it proves itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.scorer import TabularScorer
from detector.persist import bundle
from pipelines.config import Config
from pipelines.scoring.one_off import score
from pipelines.training import review
from pipelines.training.retrain import retrain
from pipelines.training.train import train

Configure = Callable[..., Config]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SIZE = 4_000


def payments(seed: int = 0) -> pd.DataFrame:
    """Frauds that a shop and an hour tell together, and that are no rarer than others in either."""
    rng = np.random.default_rng(seed)
    shop, hour = rng.integers(0, 10, SIZE), rng.integers(0, 24, SIZE)
    fraud = (shop == 3) & (hour < 6) & (rng.random(SIZE) < 0.9)
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 90 * 86_400, SIZE)), unit="s")
    return pd.DataFrame(
        {
            "id": np.arange(SIZE),
            "when": when,
            "shop": shop,
            "hour": hour,
            "amount": rng.normal(40, 5, SIZE),
            "fraud": fraud,
        }
    ).astype({"fraud": int})


def settings(folder: Path, configure: Configure, **head: Any) -> Config:
    values = {
        "source": {"path": "rows.parquet"},
        "columns": {"key": "id", "time": "when", "label": "fraud", "numeric": ["shop", "hour", "amount"]},
        "train": {
            "autoencoder": {"enabled": False},
            "neighbours": {"enabled": False},
            "forest": {"trees": 20},
            "head": {"least_anomalies": 50, "trees": 30, "models": 2} | head,
        },
        "policy": {"budget": {"rows": 90, "per": "batch"}, "fdr": 0.2},
        "output": {"path": "scores.parquet"},
    }
    return configure(folder, **values)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, configure: Configure) -> Path:
    """A detector whose head has proved itself."""
    folder = tmp_path_factory.mktemp("head")
    payments().to_parquet(folder / "rows.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(review, "figures", lambda *_, **__: {})
        report = train(settings(folder, configure), now=NOW)
    (folder / "said.txt").write_text("\n".join(report.summary()))
    return folder


def test_training_switches_on_a_head_that_proved_itself(home: Path) -> None:
    """The bundle keeps it as ONNX and JSON with its facts, and the training says why it decides."""
    scorer = bundle.load(home / "bundle")

    assert isinstance(scorer, TabularScorer)
    assert scorer.serving_head is not None
    assert (home / "bundle" / "head.onnx").is_file()
    assert scorer.metrics["head_serves"] == 1.0
    assert scorer.metrics["head_gain_low"] > 0
    assert "The head that learnt from labels decides. On " in (home / "said.txt").read_text()
    assert not list((home / "bundle").glob("*.pkl"))


def test_a_serving_head_decides_by_its_own_p_values(home: Path, configure: Configure) -> None:
    """It finds what the members cannot, its p-values keep the policy's promise, and their risk stays beside it."""
    truth = payments(seed=1)
    truth.to_parquet(home / "fresh.parquet")
    score(settings(home, configure), input=str(home / "fresh.parquet"), now=NOW)
    scores = pd.read_parquet(home / "scores.parquet")
    fraud = truth["fraud"].to_numpy() == 1

    assert set(scores["decided_by"]) == {"head"}
    assert fraud[scores["flagged"]].mean() > 0.75
    assert scores["flagged"][fraud].mean() > 0.5
    assert scores["risk"].corr(scores["unsupervised_risk"]) < 0.9
    normal = scores["p_value"][~fraud]
    assert (normal <= 0.1).mean() == pytest.approx(0.1, abs=0.05)
    reasons = scores.loc[scores["flagged"], "reasons"]
    assert reasons.str.contains("shop 3").mean() > 0.8
    assert reasons.str.contains("hour [0-5]").mean() > 0.8


def test_a_row_scores_the_same_alone(home: Path) -> None:
    """The head is a graph of its own, and a row's risk does not depend on the batch it comes in."""
    scorer = bundle.load(home / "bundle")
    rows = payments(seed=2).head(300)
    together = scorer.measure(rows)
    assert scorer.measure(rows.iloc[[7]]).iloc[0].equals(together.iloc[7])


def test_too_few_labels_leave_the_members_alone(tmp_path: Path, configure: Configure, undrawn: None) -> None:
    """Below the least number nothing is fitted, and the training says what is missing."""
    payments().to_parquet(tmp_path / "rows.parquet")

    report = train(settings(tmp_path, configure, least_anomalies=2_000), now=NOW)

    scorer = bundle.load(tmp_path / "bundle")
    assert isinstance(scorer, TabularScorer)
    assert scorer.head is None
    assert "asks for 2,000" in "\n".join(report.summary())
    assert scorer.judge(payments().head(20)).frame["decided_by"].eq("members").all()


def test_labels_that_are_not_known_yet_teach_nothing(tmp_path: Path, configure: Configure, undrawn: None) -> None:
    """A training at the time of the rows knows none of their labels, so there is no head."""
    payments().to_parquet(tmp_path / "rows.parquet")
    train(settings(tmp_path, configure), now=datetime(2026, 1, 2, tzinfo=UTC))
    scorer = bundle.load(tmp_path / "bundle")
    assert isinstance(scorer, TabularScorer)
    assert scorer.head is None


def test_retraining_fits_a_head_and_compares_by_it(
    home: Path, tmp_path: Path, configure: Configure, undrawn: None
) -> None:
    """A challenger with a head replaces a champion without one: by labels, though it ranks otherwise."""
    payments().query("when < '2026-02-10'").to_parquet(tmp_path / "rows.parquet")
    train(settings(tmp_path, configure, enabled=False), now=NOW)
    payments().to_parquet(tmp_path / "rows.parquet")

    report = retrain(settings(tmp_path, configure), now=NOW)

    scorer = bundle.load(tmp_path / "bundle")
    assert isinstance(scorer, TabularScorer)
    assert report.decision.outcome == "promote", report.summary()
    assert scorer.serving_head is not None
    assert report.metrics["gain_low"] > 0.3
    assert any(note.startswith("The head that learnt from labels decides.") for note in report.notes)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})
