"""The training job."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.detector import TabularDetector
from detector.errors import BundleError, DataError, SchemaError, SettingError, SinkError, TrackingError
from detector.persist import bundle
from pipelines.backtest.plan import Plan
from pipelines.backtest.run import backtest
from pipelines.config import Config
from pipelines.factory import kinds
from pipelines.lab.evaluate import evaluate_encoders
from pipelines.reports.page import check_page
from pipelines.scoring.one_off import score
from pipelines.training import review
from pipelines.training.evaluate import evaluate
from pipelines.training.merit import Review
from pipelines.training.review import review_table
from pipelines.training.train import TrainReport, train

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
FOREST_ONLY = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 20}}
COLUMNS = {"key": "transaction_id", "time": "time", "entity": "card_id", "label": "is_fraud"}

Configure = Callable[..., Config]
Seen = dict[str, pd.DataFrame]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Iterator[Seen]:
    """The rows that the detector is fitted on, and those that it is reviewed on."""
    rows: Seen = {}
    fit = TabularDetector.fit

    def _fit(self: TabularDetector, X: pd.DataFrame, y: Any = None) -> TabularDetector:
        rows["fit"] = X
        return fit(self, X, y)

    def _review(scorer: Any, kept_apart: pd.DataFrame, **options: Any) -> Review:
        rows["review"] = kept_apart
        return review_table(scorer, kept_apart, **options)

    monkeypatch.setattr(TabularDetector, "fit", _fit)
    monkeypatch.setattr(review, "review_table", _review)
    yield rows
    assert set(rows) == {"fit", "review"}


def quick(folder: Path, configure: Configure, table: pd.DataFrame, **sections: Any) -> TrainReport:
    """Train a small forest on a table; returns what the job says."""
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "table.csv", index=False)
    values = {"source": {"path": "table.csv"}, "train": FOREST_ONLY, "columns": COLUMNS} | sections
    return train(configure(folder, **values), now=NOW)


def test_training_leaves_a_bundle_and_a_report(trained_once: Path, payments: pd.DataFrame) -> None:
    """The bundle scores, the page shows the pictures, and without bad rows there is no quarantine."""
    scorer = bundle.load(trained_once / "bundle")
    page = (trained_once / "report.html").read_text(encoding="utf-8")

    assert scorer.name == "payments"
    assert scorer.members == ("autoencoder", "forest", "neighbours", "contraction", "rare_values")
    assert len(scorer.judge(payments.head(10)).frame) == 10
    assert page.count("<svg") >= 7
    assert "1 March 2026" in page.replace("01 March", "1 March")
    assert not (trained_once / "bundle.quarantine.csv").exists()
    assert sorted(path.name for path in trained_once.iterdir()) == [
        "bundle",
        "bundle.models",
        "detector.yaml",
        "payments.parquet",
        "report.html",
    ]
    (kept,) = (trained_once / "bundle.models" / "reports").iterdir()
    assert kept.name == f"{bundle.fingerprint(trained_once / 'bundle')}.html"
    assert kept.read_text(encoding="utf-8") == page


def test_bad_rows_go_to_quarantine(tmp_path: Path, configure: Configure, payments: pd.DataFrame, seen: Seen) -> None:
    """Each row is learnt from, kept apart, a known anomaly, or in quarantine with its reason and all its columns."""
    table = payments.head(400).astype({"amount": object, "is_fraud": object})
    table.loc[7, "amount"] = "much"
    table.loc[9, "is_fraud"] = "perhaps"
    table.loc[11, "time"] = pd.NaT
    table = pd.concat([table, table.iloc[[20]]], ignore_index=True)

    report = quick(tmp_path, configure, table)

    quarantine = pd.read_csv(report.quarantine)
    assert quarantine["row"].tolist() == [7, 9, 11, 400]
    assert quarantine.columns.tolist() == ["row", "reason", *table.columns]
    assert quarantine["reason"].tolist() == [
        "amount: 'much' is not a number",
        "is_fraud: 'perhaps' is neither 0 nor 1",
        "time: the time is missing",
        "transaction_id: key T000000020 appears again (first at row 20)",
    ]
    frauds = (payments.head(400)["is_fraud"] == 1).drop([7, 9, 11]).sum()
    in_review = (seen["review"]["is_fraud"] == 1).sum()
    assert len(seen["fit"]) + len(seen["review"]) + (frauds - in_review) == 401 - 4
    assert f"4 rows could not be used; see why in {report.quarantine}" in report.summary()
    assert (report.rows, report.quarantined) == (len(seen["fit"]), 4)


def test_known_anomalies_are_never_learnt_from(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame, seen: Seen
) -> None:
    """Neither fitted nor calibrated on; rows whose label is missing are fitted on, but may be anomalies, too."""
    table = payments.assign(is_fraud=payments["is_fraud"].astype("Int64"))
    table.loc[::3, "is_fraud"] = pd.NA

    report = quick(tmp_path, configure, table)

    assert (seen["fit"]["is_fraud"] != 1).all()
    assert seen["fit"]["is_fraud"].isna().any()
    assert (seen["review"]["is_fraud"] == 1).any()
    metrics = bundle.load(report.bundle).metrics
    assert metrics["rows_calibration"] == seen["fit"]["is_fraud"].notna().sum()


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_review_rows_are_kept_apart(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame, seen: Seen, share: float
) -> None:
    """The share asked for is reviewed, and no reviewed row was learnt from."""
    quick(tmp_path, configure, payments, train=FOREST_ONLY | {"review_share": share})

    assert len(seen["review"]) == 1500 * share
    assert seen["fit"].index.intersection(seen["review"].index).empty
    assert set(seen["fit"]["transaction_id"]).isdisjoint(seen["review"]["transaction_id"])


@pytest.mark.usefixtures("undrawn")
def test_same_seed_gives_the_same_scores(
    trained_once: Path, tmp_path: Path, configure: Configure, payments: pd.DataFrame
) -> None:
    """Trained again on the same rows, every member says exactly the same; another seed says something else."""
    shutil.copy(trained_once / "payments.parquet", tmp_path)

    again = train(configure(tmp_path), now=NOW)
    other = quick(tmp_path / "other", configure, payments, random_state=1)
    one = quick(tmp_path / "one", configure, payments, random_state=0)

    def _frame(folder: Path) -> pd.DataFrame:
        return bundle.load(folder).judge(payments).frame

    pd.testing.assert_frame_equal(_frame(trained_once / "bundle"), _frame(again.bundle), check_exact=True)
    assert not np.array_equal(_frame(other.bundle)["risk"], _frame(one.bundle)["risk"])


@pytest.mark.usefixtures("undrawn")
def test_sample_is_of_the_whole_file(tmp_path: Path, configure: Configure, payments: pd.DataFrame, seen: Seen) -> None:
    """Of more rows than `train.rows` a random part is read, which is said; a quarantined row has its number."""
    table = payments.astype({"amount": object})
    table.loc[table.index % 2 == 1, "amount"] = "much"

    columns = COLUMNS | {"numeric": ["amount"]}
    report = quick(tmp_path, configure, table, columns=columns, train=FOREST_ONLY | {"rows": 300})

    quarantine = pd.read_csv(report.quarantine)
    assert len(quarantine) + len(seen["review"]) + len(seen["fit"]) <= 300
    assert f"Learnt from 300 rows drawn at random from {len(table):,}; `train.rows` sets how many" in str(report.notes)
    assert report.quarantined == len(quarantine) > 100
    assert quarantine["row"].max() > 1400
    assert (payments["transaction_id"][quarantine["row"]].to_numpy() == quarantine["transaction_id"]).all()
    kept = seen["review"]
    assert (payments["transaction_id"][kept.index].to_numpy() == kept["transaction_id"]).all()


@pytest.mark.usefixtures("undrawn")
def test_summary_tells_what_matters(tmp_path: Path, configure: Configure, payments: pd.DataFrame) -> None:
    """How many rows, which columns were of no use, how good it is, where things are."""
    table = payments.assign(empty=None, always=7)

    report = quick(tmp_path, configure, table, policy={"fdr": 0.001})

    summary = "\n".join(report.summary())
    truth = report.reviewed.truth
    assert truth is not None
    assert f"Trained on {report.rows:,} rows in" in summary
    assert "empty (always missing); always (always 7)" in summary
    assert f"{truth['anomalies']:.0f} of them anomalous: AUROC {truth['auroc']:.3f}" in summary
    assert "false discovery rate of 0.1 %" in summary
    assert f"Bundle: {report.bundle}" in summary
    page = report.report.read_text(encoding="utf-8")
    assert "empty (always missing)" in page


@pytest.mark.usefixtures("undrawn")
def test_failed_training_leaves_the_earlier_one(
    trained: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundle and report are replaced only when there are new ones."""
    before = bundle.fingerprint(trained / "bundle"), (trained / "report.html").read_bytes()

    def _fail(*_: Any, **__: Any) -> None:
        raise DataError("Training diverged.")

    monkeypatch.setattr(TabularDetector, "fit", _fail)
    with pytest.raises(DataError, match="diverged"):
        train(configure(trained), now=NOW)

    assert (bundle.fingerprint(trained / "bundle"), (trained / "report.html").read_bytes()) == before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bundle": "table.csv"}, BundleError, "exists and is not a bundle"),
        ({"bundle": "table.csv/bundle"}, BundleError, "table.csv is a file"),
        ({"report": "table.csv/report.html"}, SinkError, "report could not be written"),
        ({"tracking": {"uri": "sqlite:///table.csv"}}, TrackingError, "is not an SQLite file"),
        ({"policy": {"budget": {"rows": 3}}, "columns": {}}, SettingError, "`columns.time` names no column"),
        ({"columns": {"key": "forest"}}, SchemaError, "The key column is named 'forest'"),
    ],
    ids=["bundle", "bundle's folder", "report", "store", "budget", "name"],
)
def test_faults_are_found_before_training(
    tmp_path: Path,
    configure: Configure,
    payments: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    """What would fail after minutes of training fails before it."""
    monkeypatch.setattr(kinds, "detector_of", lambda *_, **__: pytest.fail("trained"))

    with pytest.raises(error, match=message):
        quick(tmp_path, configure, payments.rename(columns={"amount": "forest"}), **change)


def test_page_that_cannot_be_written_is_found_before_rows_are_read(tmp_path: Path) -> None:
    """By an evaluation, one of encoders, and a backtest; none of their work is lost after it."""
    (tmp_path / "file").touch()
    given = {"source": {"path": "nothing.csv"}, "columns": {"time": "time", "label": "is_fraud"}}
    config = Config.model_validate(given | {"report": "file/report.html"}, context={"folder": tmp_path})
    plan = Plan(datetime(2026, 1, 1), datetime(2026, 2, 1))  # noqa: DTZ001 - days of the table

    for long in (
        lambda: evaluate(config, input="nothing.csv", now=NOW),
        lambda: evaluate_encoders(config, encoders=["dense"], input="nothing.csv", now=NOW),
        lambda: backtest(config, plan, now=NOW),
    ):
        with pytest.raises(SinkError, match=r"report could not be written to .*file/.*\.html"):
            long()
    (tmp_path / "page.html").mkdir()
    with pytest.raises(SinkError, match="it is a folder"):
        check_page(tmp_path / "page.html")


@pytest.mark.usefixtures("undrawn")
def test_report_that_cannot_be_written(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page has no place any more after the training: an error, and the bundle is there all the same."""
    monkeypatch.setattr("pipelines.training.train.check_page", lambda _: None)

    with pytest.raises(SinkError, match="report could not be written"):
        quick(tmp_path, configure, payments, report="table.csv/report.html")

    assert bundle.load(tmp_path / "bundle").members == ("forest",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "much"}, r"received 0. Left out: amount: not a number \(400 rows\). See each in .*quarantine.csv"),
        ({"is_fraud": 1}, r"received 0: 'is_fraud' calls the others anomalous"),
    ],
    ids=["no usable row", "no normal row"],
)
def test_nothing_to_learn_from(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame, change: dict[str, Any], message: str
) -> None:
    """The message says which fault took the rows away, and where each is listed."""
    columns = COLUMNS | {"numeric": ["amount"]}

    with pytest.raises(DataError, match=message):
        quick(tmp_path, configure, payments.head(400).assign(**change), columns=columns)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own, when a store is made
def test_registered_model_scores_like_the_command(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``models:/NAME@champion`` loaded by MLflow judges as ``detector score`` does; nowhere is a secret of alerts."""
    import mlflow

    secrets = {
        "HOOK": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
        "SLACK": "https://hooks.example.com/services/slack-token-3",
        "LINKS": "link-secret-5-long-enough",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sections = {
        "train": {"autoencoder": {"hidden": [16], "code": 8, "training": {"epochs": 2}}},
        "policy": {"quantile": 0.9},
        "alerts": {
            "webhook": {"url": "https://example.com", "secrets": ["${HOOK}"]},
            "slack": {"url": "${SLACK}"},
            "answers": {"url": "https://example.com", "secret": "${LINKS}"},
        },
    }
    report = quick(tmp_path, configure, payments, tracking={"uri": uri}, **sections)
    fresh = payments[payments["time"] >= "2024-10-15"].drop(columns="is_fraud").reset_index(drop=True)
    fresh.to_parquet(tmp_path / "fresh.parquet")

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/payments@champion")
        run = mlflow.get_run(str(report.logged and report.logged.run_id))
        history = mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, "epoch/loss")
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    loaded = model.predict(fresh)
    commanded = pd.read_parquet(
        score(configure(tmp_path, **sections), input=str(tmp_path / "fresh.parquet"), now=NOW).output
    )

    pd.testing.assert_frame_equal(loaded, commanded[loaded.columns], check_dtype=False)
    assert commanded["flagged"].any()
    assert len(history) == 2
    truth = report.reviewed.truth
    assert truth is not None
    assert run.data.metrics["auroc"] == pytest.approx(truth["auroc"])
    assert {"reconstruction_error_holdout", "generalisation_gap", "precision_at_budget"} <= set(run.data.metrics)
    assert run.data.params["train.autoencoder.code"] == "8"
    assert any(line.startswith("MLflow: models:/payments@champion, version 1") for line in report.summary())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"bundle", "mlartifacts", "mlflow.db", "report.html"} <= {
        file.relative_to(tmp_path).parts[0] for file in files
    }
    shown = [file for file in files if any(value.encode() in file.read_bytes() for value in secrets.values())]
    assert shown == []


def test_rows_left_out_by_cleaning_are_kept_in_a_file(
    tmp_path: Path, configure: Configure, payments: pd.DataFrame
) -> None:
    """With their place in the table, the reason and all columns; the summary says how many and where."""
    cleaning = {"rules": ["amount < 300"], "isolation": 0.01}

    report = quick(tmp_path, configure, payments, train=FOREST_ONLY | {"cleaning": cleaning})

    left = pd.read_csv(tmp_path / "bundle.left_out.csv")
    rule = left[left["reason"].str.startswith("rule")]
    assert (rule["amount"] >= 300).all()
    assert (payments["amount"].iloc[rule["row"]].to_numpy() == rule["amount"].to_numpy()).all()
    assert f"rule {len(rule):,}" in str(report.notes)
    assert any("bundle.left_out.csv" in line for line in report.summary())
