"""The evaluation job, on a detector trained once for the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from detector.decide.policy import Policy
from detector.errors import BundleError, DataError, SchemaError, SettingError
from detector.persist import bundle
from pipelines.config import Config
from pipelines.training import evaluate as job
from pipelines.training import review
from pipelines.training.evaluate import evaluate

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
Configure = Callable[..., Config]


@pytest.fixture
def config(trained: Path, configure: Configure) -> Config:
    return configure(trained, policy={"quantile": 0.9})


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})


def test_figures_agree_with_scikit_learn(config: Config, payments: pd.DataFrame) -> None:
    """Every figure of the summary is what scikit-learn says of the verdicts, and the page holds the pictures."""
    report = evaluate(config, input=str(config.source.path), now=NOW)

    truth = report.reviewed.truth
    verdicts = bundle.load(config.bundle).judge(payments, policy=Policy(quantile=0.9)).frame
    labels, risk, flagged = payments["is_fraud"], verdicts["risk"], verdicts["flagged"]
    assert truth is not None
    assert truth["auroc"] == pytest.approx(roc_auc_score(labels, risk))
    assert truth["ap"] == pytest.approx(average_precision_score(labels, risk))
    assert truth["precision"] == pytest.approx(precision_score(labels, flagged))
    assert truth["recall"] == pytest.approx(recall_score(labels, flagged))
    assert truth["budget"] == 15
    assert truth["precision_at_budget"] == pytest.approx(labels[np.argsort(-risk)[:15]].mean())
    assert truth["prevalence"] == pytest.approx(labels.mean())
    page = report.report.read_text(encoding="utf-8")
    assert report.report.name == "report.evaluation.html"
    assert page.count("<svg") >= 6
    assert "Evaluation" in page
    summary = "\n".join(report.summary())
    assert f"Evaluated 1,500 rows, 1,500 labelled, {labels.sum()} anomalous." in summary
    assert f"AUROC {truth['auroc']:.3f}" in summary
    assert "neighbours" in summary


@pytest.mark.usefixtures("undrawn")
def test_training_report_stays(config: Config) -> None:
    """The page of the training is another file."""
    before = config.report.read_bytes()

    evaluate(config, input=str(config.source.path), now=NOW)

    assert config.report.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_rows_without_a_label_do_not_count(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """Unknown rows change no figure; rows with another label are left out, and counted."""
    labels = payments["is_fraud"].astype(object)
    labels[payments.index % 2 == 1] = None
    labels[2:5] = "perhaps"
    payments.assign(is_fraud=labels).to_csv(tmp_path / "half.csv", index=False)

    report = evaluate(config, input=str(tmp_path / "half.csv"), now=NOW)

    assert report.reviewed.truth is not None
    assert report.reviewed.truth["labelled"] == 748
    assert report.quarantined == 3
    assert "3 rows could not be used; the report says why." in report.summary()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"is_fraud": None},
            DataError,
            "'is_fraud' holds no known anomaly or no known normal row among the 1,500 rows",
        ),
        ({"is_fraud": 0}, DataError, "holds no known anomaly"),
        ({"is_fraud": 1}, DataError, "holds no known anomaly"),
        ({"is_fraud": "fraud"}, DataError, "None of the 1,500 rows can be used: is_fraud: not 0 or 1"),
        ({"amount": "much"}, DataError, r"amount: not a number \(1,500 rows\). Mend them."),
    ],
    ids=["unknown", "all normal", "all anomalous", "other words", "no usable row"],
)
def test_labels_that_cannot_be_compared_with(
    config: Config, payments: pd.DataFrame, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Without both classes there is nothing to compare; the message says what the rows hold."""
    payments.assign(**change).to_csv(tmp_path / "new.csv", index=False)

    with pytest.raises(error, match=message):
        evaluate(config, input=str(tmp_path / "new.csv"), now=NOW)


def test_label_column_missing(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """The label is needed here, and the nearest column that is free is named."""
    payments.rename(columns={"is_fraud": "fraud"}).to_csv(tmp_path / "new.csv", index=False)

    with pytest.raises(SchemaError, match="Column 'is_fraud' is missing .* Did you mean 'fraud'"):
        evaluate(config, input=str(tmp_path / "new.csv"), now=NOW)


def test_detector_without_a_label(trained: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that was trained without a label column cannot be compared with one."""
    scorer = bundle.load(trained / "bundle")
    unlabelled = replace(scorer, schema=replace(scorer.schema, label=None))
    monkeypatch.setattr(job.bundle, "load", lambda _: unlabelled)

    with pytest.raises(SettingError, match="`columns.label` names no column"):
        evaluate(configure(trained), input=str(trained / "payments.parquet"), now=NOW)


def test_evaluation_needs_a_detector(trained: Path, configure: Configure) -> None:
    """Nothing was trained yet."""
    with pytest.raises(BundleError, match="Run `detector train` first"):
        evaluate(configure(trained, bundle="elsewhere"), input=str(trained / "payments.parquet"), now=NOW)
