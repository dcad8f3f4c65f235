"""Features of an entity's past through train, score and evaluate."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException

from detector.errors import DataError, SchemaError
from pipelines.config import Config, load_config
from pipelines.config.rules import RuleSection
from pipelines.lab.evaluate import evaluate_encoders
from pipelines.reports.page import prose
from pipelines.scoring.explained import explain
from pipelines.scoring.one_off import score
from pipelines.simulate import simulate_transactions
from pipelines.training import review
from pipelines.training.evaluate import evaluate
from pipelines.training.registry_commands import compare_models
from pipelines.training.retrain import retrain
from pipelines.training.run_record import commit_of
from pipelines.training.train import train

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = {
    "name": "payments",
    "source": {"path": "past.parquet"},
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
        "numeric": ["amount"],
        "others": "ignore",
    },
    "features": {"history": ["count by card_id over 1d", "ratio of amount by card_id over 30d"]},
    "train": {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}},
    "policy": {"quantile": 0.98},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A detector trained on the first part of the payments."""
    folder = tmp_path_factory.mktemp("featured")
    payments = simulate_transactions(3_000, seed=3)
    payments.iloc[:2_400].to_parquet(folder / "past.parquet")
    payments.iloc[2_400:].to_parquet(folder / "fresh.parquet")
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    config = load_config(folder)
    train(config, now=NOW)
    return config


def test_rows_that_were_trained_on_are_scored_by_features_among_themselves(site: Config, tmp_path: Path) -> None:
    """The past that training left ends with them, so they would all come too late for it."""
    report = score(site, output=str(tmp_path / "scores.parquet"), now=NOW)

    scores = pd.read_parquet(tmp_path / "scores.parquet")
    found = explain(site, str(scores["transaction_id"].iloc[2_000]), input=None, now=NOW)
    assert (report.scored, report.quarantined) == (2_400, 0)
    assert "99 % of the rows are older than the past that training left" in str(report.note)
    assert found.risk == pytest.approx(scores["risk"].iloc[2_000])


@pytest.mark.slow
def test_detectors_with_features_are_compared(site: Config, tmp_path: Path) -> None:
    """`detector models compare` measures features of the recent rows, as the retraining before it did."""
    folder = Path(shutil.copytree(site.bundle.parent, tmp_path / "payments"))
    past, fresh = (pd.read_parquet(folder / f"{name}.parquet") for name in ("past", "fresh"))
    pd.concat([past, fresh]).to_parquet(folder / "past.parquet")
    (folder / "detector.yaml").write_text(
        yaml.safe_dump({**SETTINGS, "retrain": {"least_rows": 100}}), encoding="utf-8"
    )
    config = load_config(folder)
    challenger = retrain(config, now=NOW).challenger

    found = compare_models(config, "", challenger, now=NOW)

    assert found.challenger == challenger != found.champion
    assert 100 <= found.comparison.metrics()["compared_rows"] <= 600


def test_late_rows_among_new_ones_are_quarantined(site: Config, tmp_path: Path) -> None:
    """A few old rows do not make the others forget their past."""
    past, fresh = (pd.read_parquet(site.bundle.parent / f"{name}.parquet") for name in ("past", "fresh"))
    pd.concat([past.head(50), fresh]).to_parquet(tmp_path / "mixed.parquet")

    report = score(site, input=str(tmp_path / "mixed.parquet"), output=str(tmp_path / "scores.parquet"), now=NOW)

    assert (report.scored, report.quarantined) == (600, 50)
    assert "older than" not in str(report.note)


def test_rows_with_a_short_past_do_not_show_what_is_normal(tmp_path: Path) -> None:
    """Features of 30 days look back beyond the half of these 14; the report says which rows were left, and why."""
    payments = simulate_transactions(1_200, seed=3, days=14)
    payments.to_parquet(tmp_path / "past.parquet")
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")

    report = train(load_config(tmp_path), now=NOW)

    assert 400 < report.rows <= 600
    (lines,) = [line for line in report.summary() if "too short" in line]
    assert lines.startswith("600 rows before 2024-10-0")
    assert "their past is too short for the features" in report.report.read_text(encoding="utf-8")


def test_a_report_of_an_unknown_row_is_reported(tmp_path: Path) -> None:
    """It counts for nothing, and who trains hears how many there are."""
    payments = simulate_transactions(600, seed=3, days=14)
    payments.to_parquet(tmp_path / "past.parquet")
    keys = [payments["transaction_id"].iloc[0], "T-not-there", "T-not-there", "T-nor-this"]
    pd.DataFrame({"transaction_id": keys, "reported_at": "2024-11-01"}).to_csv(tmp_path / "reports.csv", index=False)
    head = {"reports": {"source": {"path": "reports.csv"}}}
    settings = {**SETTINGS, "train": {**SETTINGS["train"], "rows": 300, "head": head}}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    lines = train(load_config(tmp_path), now=NOW).summary()

    assert any(line.startswith("2 of 3 reported keys belong to no row, such as 'T-not-there'") for line in lines)


def test_new_rows_are_measured_against_the_past_of_training(site: Config, tmp_path: Path) -> None:
    """Every row is scored, and reasons speak of the card's own history."""
    fresh = str(site.bundle.parent / "fresh.parquet")

    report = score(site, input=fresh, output=str(tmp_path / "scores.parquet"), now=NOW)

    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert report.scored == len(scores) == 600
    assert scores.loc[scores["flagged"], "reasons"].str.contains("times its 30-day mean").any()


def test_reports_say_reasons_in_words(site: Config) -> None:
    """The report of training and that of an evaluation speak of the card's history, and of the payment in euros."""
    folder = site.bundle.parent
    names = {"amount": {"name": "payment", "unit": "EUR"}, "card_id": "card"}
    settings = {**SETTINGS, "columns": {**SETTINGS["columns"], "names": names}}
    (folder / "named.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    found = evaluate(load_config(folder / "named.yaml"), input=str(folder / "fresh.parquet"), now=NOW)

    trained = (folder / "report.html").read_text(encoding="utf-8")
    evaluated = found.report.read_text(encoding="utf-8")
    assert "times its 30-day mean of card_id" in trained
    assert "times its 30-day mean of card<" in evaluated
    assert re.search(r"<strong>payment</strong> [0-9.]+ EUR", evaluated)
    assert "<strong>amount_ratio" not in trained + evaluated
    assert "ratio of payment to its 30-day mean of card" in evaluated
    assert '<button type="button">card</button>' in evaluated


def test_a_name_for_a_column_that_is_not_there_is_refused(site: Config) -> None:
    """A typing error in `columns.names` would be silent otherwise."""
    folder = site.bundle.parent
    settings = {**SETTINGS, "columns": {**SETTINGS["columns"], "names": {"amuont": "payment"}}}
    (folder / "misspelt.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    with pytest.raises(SchemaError, match=r"'amuont', which `columns.names` names. .*amount"):
        train(load_config(folder / "misspelt.yaml"), now=NOW)


def test_rows_may_lie_in_any_order(site: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a file is read in several parts."""
    monkeypatch.setattr("pipelines.scoring.one_off.BATCH", 100)
    fresh = pd.read_parquet(site.bundle.parent / "fresh.parquet")
    found = []
    for name, rows in (("sorted", fresh), ("mixed", fresh.sample(frac=1, random_state=1))):
        rows.to_parquet(tmp_path / f"{name}.parquet")
        output = tmp_path / f"{name}.scores.parquet"
        score(site, input=str(tmp_path / f"{name}.parquet"), output=str(output), now=NOW)
        found.append(pd.read_parquet(output).set_index("transaction_id")["risk"].sort_index())

    pd.testing.assert_series_equal(*found, check_exact=True)


def test_scoring_again_gives_the_same(site: Config, tmp_path: Path) -> None:
    """Scoring by hand leaves the past as it was."""
    fresh = str(site.bundle.parent / "fresh.parquet")
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"

    for place in (first, second):
        score(site, input=fresh, output=str(place), now=NOW)

    pd.testing.assert_series_equal(pd.read_parquet(first)["risk"], pd.read_parquet(second)["risk"], check_exact=True)


def test_evaluation_measures_too(site: Config) -> None:
    """With labels, on rows that came later."""
    report = evaluate(site, input=str(site.bundle.parent / "fresh.parquet"), now=NOW)

    assert report.rows == 600
    assert report.reviewed.truth is not None


@pytest.mark.usefixtures("undrawn")
def test_evaluation_measures_rows_behind_the_past_as_scoring_does(site: Config, tmp_path: Path) -> None:
    """Rows that a retraining took into the past are measured among themselves: that is said, and risks are equal."""
    past, fresh = (pd.read_parquet(site.bundle.parent / f"{name}.parquet") for name in ("past", "fresh"))
    pd.concat([past, fresh]).to_parquet(tmp_path / "both.parquet")

    report = evaluate(site, input=str(tmp_path / "both.parquet"), now=NOW)
    score(site, input=str(tmp_path / "both.parquet"), output=str(tmp_path / "scores.parquet"), now=NOW)

    assert (report.rows, report.quarantined) == (3_000, 0)
    said = next(line for line in report.summary() if "older than the past" in line)
    assert prose(said) in report.report.read_text(encoding="utf-8")
    risks = pd.read_parquet(tmp_path / "scores.parquet")["risk"].to_numpy()
    np.testing.assert_array_equal(report.reviewed.scored["risk"].to_numpy(), risks)


@pytest.mark.usefixtures("undrawn")
def test_evaluation_says_which_rows_came_too_late(site: Config, tmp_path: Path) -> None:
    """A few among new rows lie behind the past: they count as unusable, and the summary says so."""
    past, fresh = (pd.read_parquet(site.bundle.parent / f"{name}.parquet") for name in ("past", "fresh"))
    pd.concat([past.iloc[:100], fresh]).to_parquet(tmp_path / "both.parquet")

    report = evaluate(site, input=str(tmp_path / "both.parquet"), now=NOW)

    assert (report.rows, report.quarantined) == (700, 100)
    assert any("100 rows could not be used" in line for line in report.summary())


def test_any_row_can_be_explained(site: Config, tmp_path: Path) -> None:
    """Flagged or not, with the numbers of `score`, reasons in words, and what each member says."""
    fresh = site.bundle.parent / "fresh.parquet"
    score(site, input=str(fresh), output=str(tmp_path / "scores.parquet"), now=NOW)
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("transaction_id")
    top, calm = scores["risk"].idxmax(), scores["risk"].idxmin()

    found, other = (explain(site, key, input=str(fresh), now=NOW) for key in (top, calm))

    assert (found.flagged, found.place, found.rows) == (True, 1, 600)
    assert (found.risk, found.p_value) == (scores.loc[top, "risk"], scores.loc[top, "p_value"])
    assert scores.loc[top, "reasons"].startswith(found.reasons[0].text)
    assert (other.flagged, other.place) == (False, 600)
    assert other.reasons
    assert [name for name, _, _ in found.members] == ["forest"]
    assert found.least == scores.loc[scores["flagged"], "risk"].min()
    assert "ratio of amount to its 30-day mean of card_id" in found.values
    said = "\n".join(str(line) for line in found.summary())
    assert f"{top}: Flagged, {scores.loc[top, 'severity']}." in said
    assert "By risk it is number 1 of 600 rows." in said


def test_rules_count_where_a_row_is_explained(site: Config, tmp_path: Path) -> None:
    """As in `score`: a rule flags a row that the policy does not, another one hides the riskiest; both are named."""
    fresh = site.bundle.parent / "fresh.parquet"
    rows = pd.read_parquet(fresh)
    bare = [explain(site, key, input=str(fresh), now=NOW) for key in rows["transaction_id"].iloc[:1]]
    top = explain_top(site, fresh, tmp_path)
    least = float(rows["amount"].min())
    rules = (
        RuleSection(name="smallest", when=f"amount <= {least}", action="alert", state="live"),
        RuleSection(name="known", when=f"transaction_id == '{top}'", action="never", state="live"),
    )
    ruled = site.model_copy(update={"rules": rules})
    smallest = rows.loc[rows["amount"].idxmin(), "transaction_id"]

    flagged, hidden = (explain(ruled, key, input=str(fresh), now=NOW) for key in (smallest, top))

    assert not bare[0].rules
    assert (flagged.flagged, flagged.rules, flagged.hidden_by) == (True, ["smallest"], [])
    assert (hidden.flagged, hidden.hidden_by) == (False, ["known"])
    assert "Rules that hit it: smallest." in flagged.summary()
    assert "Kept from being flagged by: known." in hidden.summary()


def explain_top(site: Config, fresh: Path, folder: Path) -> str:
    """The key of the riskiest row."""
    score(site, input=str(fresh), output=str(folder / "scores.parquet"), now=NOW)
    scores = pd.read_parquet(folder / "scores.parquet").set_index("transaction_id")
    return str(scores["risk"].idxmax())


def test_a_row_of_the_source_is_explained_by_its_own_past(site: Config) -> None:
    """Without a file named, features are measured as in training, and an old row is not too late."""
    key = pd.read_parquet(site.bundle.parent / "past.parquet")["transaction_id"].iloc[2_000]

    found = explain(site, key, input=None, now=NOW)

    assert (found.key, found.rows) == (key, 2_400)
    assert np.isfinite(found.risk)


def test_a_row_that_cannot_be_explained_says_why(site: Config, tmp_path: Path) -> None:
    """One that is not there, and one in the quarantine."""
    fresh = pd.read_parquet(site.bundle.parent / "fresh.parquet")
    late = fresh.iloc[:3].astype({"time": str})
    late.assign(time=["2020-01-01", *late["time"].iloc[1:]]).to_csv(tmp_path / "late.csv", index=False)
    key = str(fresh["transaction_id"].iloc[0])

    with pytest.raises(DataError, match=r"No row has transaction_id 'T9'.*--input"):
        explain(site, "T9", input=None, now=NOW)
    with pytest.raises(DataError, match=rf"{key} was not scored, it is quarantined: time: too late"):
        explain(site, key, input=str(tmp_path / "late.csv"), now=NOW)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of the time."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_encoders_are_compared_on_rows_with_features(site: Config) -> None:
    """As the demo's own configuration asks for: features are measured of both tables before encoders read them."""
    folder = site.bundle.parent
    brief = {"autoencoder": {"enabled": False, "training": {"epochs": 1}}, "neighbours": {"enabled": False}}
    (folder / "brief.yaml").write_text(yaml.safe_dump({**SETTINGS, "train": brief}), encoding="utf-8")

    found = evaluate_encoders(
        load_config(folder / "brief.yaml"), encoders=["dense"], input=str(folder / "fresh.parquet"), now=NOW
    )

    assert (found.learnt, found.held_out) == (len(usual(folder / "past.parquet")), len(usual(folder / "fresh.parquet")))
    assert found.table.index.tolist() == ["dense"]


def usual(path: Path) -> pd.DataFrame:
    """The rows that are not known to be fraud."""
    rows = pd.read_parquet(path)
    return rows[rows["is_fraud"] != 1]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A detector with features of amounts and of labels, trained and logged to MLflow."""
    folder = tmp_path_factory.mktemp("logged")
    payments = simulate_transactions(3_000, seed=3, fraud_rate=0.03)
    payments.iloc[:2_400].to_csv(folder / "past.csv", index=False)
    payments.iloc[2_400:].drop(columns=["is_fraud", "reported_at"]).to_parquet(folder / "fresh.parquet")
    lines = [*SETTINGS["features"]["history"], "risk by merchant_category over 30d"]
    settings = {
        **SETTINGS,
        "source": {"path": "past.csv"},
        "columns": {**SETTINGS["columns"], "categorical": ["channel"], "names": {"amount": "payment"}},
        "features": {"history": lines, "calendar": ["night"], "reported": "reported_at"},
        "train": {**SETTINGS["train"], "review_share": 0.3},
        "tracking": {"uri": "sqlite:///mlflow.db"},
    }
    (folder / "detector.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    config = load_config(folder)
    train(config, now=NOW)
    return config


@pytest.fixture
def registered(logged: Config) -> Iterator[Any]:
    """The champion, as a user of MLflow loads it."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(logged.tracking.uri)
    mlflow.set_registry_uri(logged.tracking.uri)
    yield mlflow.pyfunc.load_model("models:/payments@champion")
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_registered_model_takes_raw_rows_and_says_what_score_says(
    logged: Config, registered: Any, tmp_path: Path
) -> None:
    """No derived column is asked for, the numbers are those of ``detector score``, and no call changes the next."""
    fresh = logged.bundle.parent / "fresh.parquet"
    score(logged, input=str(fresh), output=str(tmp_path / "scores.parquet"), now=NOW)
    expected = pd.read_parquet(tmp_path / "scores.parquet")

    first, found = (registered.predict(pd.read_parquet(fresh)) for _ in range(2))

    names = registered.metadata.signature.inputs.input_names()
    assert names[:5] == ["transaction_id", "time", "card_id", "amount", "channel"]
    assert names[5:] == ["merchant_category", "is_fraud", "reported_at"]
    assert registered.metadata.signature.inputs.required_input_names() == names[:6]
    pd.testing.assert_frame_equal(first, found)
    assert found["transaction_id"].tolist() == expected["transaction_id"].tolist()
    for name in ("risk", "p_value", "flagged", "severity", "reasons"):
        assert found[name].tolist() == expected[name].tolist(), name
    assert found["reasons"].str.contains("payment .* times its 30-day mean of card_id").any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.astype({"card_id": "category", "channel": "category", "transaction_id": "category"}),
        lambda rows: rows.astype({"card_id": "string", "merchant_category": "string"}),
        lambda rows: rows.assign(amount=rows["amount"].astype("Float64")),
        lambda rows: rows.assign(amount=rows["amount"].astype("str"), time=rows["time"].astype("str")),
        lambda rows: rows.assign(is_fraud=pd.array([None] * len(rows), dtype="Int64")),
        lambda rows: rows[rows.columns[::-1]].assign(more=1).set_axis(range(7, 7 + len(rows))),
    ],
    ids=["categories", "strings", "nullable numbers", "text", "unknown labels", "order and index"],
)
def test_registered_model_takes_every_form_of_a_column(logged: Config, registered: Any, change: Any) -> None:
    """MLflow's check of types refuses no frame that holds the same rows."""
    rows = pd.read_parquet(logged.bundle.parent / "fresh.parquet").head(40)

    found = registered.predict(change(rows))

    assert found["risk"].tolist() == registered.predict(rows)["risk"].tolist()
    assert found["risk"].notna().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_registered_model_says_what_is_wrong_with_a_row(logged: Config, registered: Any) -> None:
    """A row without a time, one that comes too late and one that comes twice are quarantined, each with its reason."""
    rows = pd.read_parquet(logged.bundle.parent / "fresh.parquet").head(6)
    rows["time"] = rows["time"].astype("str")
    rows.loc[rows.index[1], "time"] = "2020-01-01 00:00:00"
    rows.loc[rows.index[2], "time"] = "soon"
    rows.loc[rows.index[4], "transaction_id"] = rows["transaction_id"].iloc[3]

    found = registered.predict(rows)

    assert (found["severity"] == "quarantined").tolist() == [False, True, True, False, True, False]
    assert "too late" in found["reasons"].iloc[1]
    assert "soon" in found["reasons"].iloc[2]
    assert found["transaction_id"].tolist() == rows["transaction_id"].tolist()
    with pytest.raises(MlflowException, match=r"missing inputs \['amount'\]"):
        registered.predict(rows.drop(columns="amount"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_training_is_whole_in_mlflow(logged: Config, registered: Any, tmp_path: Path) -> None:
    """Registered where pages look, held-out figures on held-out rows, the report, members below, and a full view."""
    client = mlflow.MlflowClient()
    version = client.get_model_version("payments", "1")
    run, model = client.get_run(str(version.run_id)), client.get_logged_model(str(version.source).rpartition("/")[2])

    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "payments", "version": 1}]
    context = {each.dataset.name: each.tags[0].value for each in run.inputs.dataset_inputs}
    assert context == {"payments, learnt": "training", "payments, kept apart": "evaluation"}
    rows = {metric.key: metric.dataset_name for metric in model.metrics}
    assert (rows["ap"], rows["auroc"], rows["calibration/distance"]) == ("payments, kept apart",) * 3
    assert (rows["rows_fitted"], rows["rows"]) == ("payments, learnt",) * 2
    page = Path(client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))).read_text(encoding="utf-8")
    assert "Training report" in page
    members = client.search_runs(
        [run.info.experiment_id], filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    assert {each.info.run_name for each in members} == {"forest"}
    assert {"ap", "weight", "rows"} <= set(members[0].data.metrics)
    assert {"decision", "reason", "trigger", "data window"} <= set(run.data.tags)
    assert {"rows", "ap"} <= set(run.data.metrics)
    assert 10 < len(run.data.params) <= 60
    assert run.data.params["policy.quantile"] == "0.98"
    assert "service.port" not in run.data.params
    whole = Path(client.download_artifacts(run.info.run_id, "settings.yaml", str(tmp_path))).read_text(encoding="utf-8")
    assert yaml.safe_load(whole)["service"]["port"] == logged.service.port
    assert "members/weight_forest" in run.data.metrics
    assert "weight_forest" not in run.data.metrics
    notes = [
        client.get_experiment(run.info.experiment_id).tags["mlflow.note.content"],
        run.data.tags["mlflow.note.content"],
        str(version.description),
    ]
    assert not any("**" in note for note in notes)


def test_a_training_names_the_commit_of_its_configuration(tmp_path: Path) -> None:
    """Where the configuration lies in a git repository; elsewhere nothing is said."""
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    assert commit_of(load_config(tmp_path)) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run([*git, *command], check=True)

    (commit,) = commit_of(load_config(tmp_path)).values()

    assert re.fullmatch("[0-9a-f]{40}", commit)
