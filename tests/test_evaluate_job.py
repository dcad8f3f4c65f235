"""The evaluation job, on a detector trained once for the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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


@pytest.fixture
def unlabelled(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with a detector that was trained without a label column."""
    scorer = bundle.load(trained / "bundle")
    found = replace(scorer, schema=replace(scorer.schema, label=None))
    monkeypatch.setattr(job.bundle, "load", lambda _: found)
    return trained


COLUMNS = {"key": "transaction_id", "time": "time", "entity": "card_id", "datetime": ["time"]}


def test_nothing_tells_what_is_anomalous(unlabelled: Path, configure: Configure) -> None:
    """Without label column, reports and answers there is nothing to compare with, and all three are named."""
    with pytest.raises(SettingError, match="`columns.label`, or a table of reports in `train.head.reports`, or answer"):
        evaluate(configure(unlabelled, columns=COLUMNS), input=str(unlabelled / "payments.parquet"), now=NOW)


@pytest.mark.usefixtures("undrawn")
def test_label_column_named_after_the_training(unlabelled: Path, configure: Configure, payments: pd.DataFrame) -> None:
    """It is a truth as any other, unless the detector has learnt from it."""
    report = evaluate(configure(unlabelled), input=str(unlabelled / "payments.parquet"), now=NOW)

    assert report.reviewed.truth is not None
    assert report.reviewed.truth["anomalies"] == payments["is_fraud"].sum()
    with pytest.raises(SettingError, match="learnt from 'amount' before `columns.label` named it"):
        evaluate(
            configure(unlabelled, columns=COLUMNS | {"label": "amount"}),
            input=str(unlabelled / "payments.parquet"),
            now=NOW,
        )


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("late", [False, True], ids=["long ago", "of late"])
def test_reports_are_labels(unlabelled: Path, configure: Configure, payments: pd.DataFrame, late: bool) -> None:
    """Reported rows are anomalous; the others are normal as for a training, once the delay of labels has passed."""
    reported = payments.loc[payments["is_fraud"] == 1, "transaction_id"]
    pd.DataFrame({"transaction_id": reported, "at": payments["time"].max()}).to_csv(unlabelled / "reports.csv")
    config = configure(
        unlabelled,
        columns=COLUMNS,
        train={"head": {"enabled": False, "reports": {"source": {"path": "reports.csv"}, "at": "at"}}},
        retrain={"label_delay_days": 7},
    )
    last = payments["time"].max().to_pydatetime().replace(tzinfo=UTC)
    inputs = str(unlabelled / "payments.parquet")

    if late:
        ages = last - payments["time"].dt.tz_localize(UTC)
        expected = ((ages >= timedelta(days=7)) | payments["transaction_id"].isin(reported)).sum()
        report = evaluate(config, input=inputs, now=last)
    else:
        expected = len(payments)
        report = evaluate(config, input=inputs, now=last + timedelta(days=10))

    truth = report.reviewed.truth
    assert truth is not None
    assert truth["anomalies"] == len(reported)
    assert truth["labelled"] == expected
    assert f"Of these, {len(reported)} rows labelled by reports or answers to alerts." in report.summary()
    assert any("7 days old (`retrain.label_delay_days`)" in line for line in report.summary())


def test_reports_of_other_rows(unlabelled: Path, configure: Configure, payments: pd.DataFrame) -> None:
    """Where nothing is known of these rows, that is said."""
    pd.DataFrame({"transaction_id": ["another"], "at": [payments["time"].max()]}).to_csv(unlabelled / "reports.csv")
    head = {"enabled": False, "reports": {"source": {"path": "reports.csv"}, "at": "at"}}
    config = configure(unlabelled, columns=COLUMNS, train={"head": head})

    with pytest.raises(
        DataError, match="Reports and answers tell of no known anomaly or no known normal row among.* 30 days"
    ):
        evaluate(config, input=str(unlabelled / "payments.parquet"), now=NOW)


def test_evaluation_needs_a_detector(trained: Path, configure: Configure) -> None:
    """Nothing was trained yet."""
    with pytest.raises(BundleError, match="Run `detector train` first"):
        evaluate(configure(trained, bundle="elsewhere"), input=str(trained / "payments.parquet"), now=NOW)
