"""Scoring on Spark, beside scoring on this machine alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from detector.errors import SchemaError, SettingError, SinkError, SourceError
from pipelines.cli import app
from pipelines.config import Config, load_config
from pipelines.simulate import simulate_transactions
from pipelines.training.train import train
from tests.spark_sites import MISSING, NOW, PARTITIONS, assert_as_local, local_spark, read_quarantine, read_scores

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

FILES = 8  # twice as many as partitions
SIMULATED = ["transaction_id", "time", "card_id", "terminal_id", "channel", "country", "amount", "is_fraud"]
COLUMNS = [*SIMULATED, "opened"]
SETTINGS: dict[str, Any] = {
    "name": "payments",
    "source": {"path": "past.parquet"},
    "columns": {
        "key": "transaction_id",
        "time": "time",
        "entity": "card_id",
        "label": "is_fraud",
        "numeric": ["amount"],
        "categorical": ["channel", "country"],
        "datetime": ["opened"],
        "others": "ignore",
    },
    "train": {"autoencoder": {"enabled": False}, "forest": {"trees": 30}},
    "policy": {"quantile": 0.98},
    "tracking": {"enabled": False},
}
RULE = {"name": "large", "when": "amount > 10", "action": "alert", "state": "live"}
TOPIC = {"name": "payments", "servers": "localhost:9092"}
FEATURES = {
    "history": [
        "count by card_id over 1d, 7d",
        "ratio of amount by card_id over 30d",
        "new of terminal_id by card_id over 30d",
        "mean of amount by terminal_id over 7d",
        "risk by terminal_id over 14d delay 2d",
        "count by card_id, terminal_id over 30d",
    ],
    "calendar": ["night", "weekday_sin"],
}


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One Spark for all these tests."""
    with local_spark() as session:
        yield session


def site(folder: Path, **sections: Any) -> Config:
    (folder / "detector.yaml").write_text(yaml.safe_dump(SETTINGS | sections), encoding="utf-8")
    return load_config(folder)


def simulated(rows: int, **settings: Any) -> pd.DataFrame:
    """Payments, and when the account was opened: its days to the time of the row are learnt."""
    payments = simulate_transactions(rows, seed=3, **settings)[SIMULATED]
    days = np.random.default_rng(5).gamma(2, 200, rows).round() + 20
    return payments.assign(opened=payments["time"].dt.normalize() - pd.to_timedelta(days, unit="D"))


def skewed(payments: pd.DataFrame) -> pd.DataFrame:
    """Payments of which four in ten are of one card, and one in ten are of none."""
    rng = np.random.default_rng(4)
    draw = rng.random(len(payments))
    return payments.assign(
        card_id=np.where(draw < 0.4, payments["card_id"].iloc[0], np.where(draw > 0.9, None, payments["card_id"]))
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector without features, and new rows in eight files."""
    folder = tmp_path_factory.mktemp("plain")
    payments = simulated(2_600, days=21, fraud_rate=0.04)
    payments.iloc[:1_400].to_parquet(folder / "past.parquet")
    (folder / "fresh").mkdir()
    for number, part in enumerate(np.array_split(np.arange(1_400, 2_600), FILES)):
        payments.iloc[part].to_parquet(folder / "fresh" / f"part-{9 - number}.parquet")
    train(site(folder), now=NOW)
    return folder


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with features by card, by terminal and by both."""
    folder = tmp_path_factory.mktemp("featured")
    payments = skewed(simulated(3_000, days=40, fraud_rate=0.03))
    payments.iloc[:2_000].to_parquet(folder / "past.parquet")
    payments.iloc[2_000:].to_parquet(folder / "fresh.parquet")
    train(site(folder, features=FEATURES), now=NOW)
    return folder


@pytest.mark.parametrize(
    "policy",
    [
        {"quantile": 0.98},
        {"budget": {"rows": 7, "per": "batch"}},
        {"quantile": 0.9, "budget": {"rows": 2, "per": "day"}, "explore": 0.5, "rows_a_day": 60},
        {"fdr": 0.3},
        {"fdr": 0.0001},
        {"quantile": 0.9, "fdr": 0.5, "budget": {"rows": 3, "per": "day"}},
    ],
    ids=str,
)
def test_every_policy_flags_what_it_flags_locally(plain: Path, tmp_path: Path, policy: dict[str, Any]) -> None:
    """Budgets and rates are those of all rows, not of a partition; risks, reasons and notes are the same, too."""
    local, spark = assert_as_local(
        site(plain, policy=policy), tmp_path, input=str(plain / "fresh"), by="transaction_id"
    )

    assert local.scored == 1_200
    assert spark.neighbours == ({} if "fdr" in policy else local.neighbours)
    assert local.flagged > 0


def test_rows_that_cannot_be_used_are_those_of_one_machine(plain: Path, tmp_path: Path) -> None:
    """Missing times, text for numbers, keys that come again, in other files too: same rows, same reasons in words."""
    fresh = pd.concat([pd.read_parquet(file) for file in sorted((plain / "fresh").iterdir())], ignore_index=True)
    fresh["amount"] = fresh["amount"].astype(str)
    fresh.loc[3, "amount"] = "a lot"
    fresh.loc[700, "amount"] = "=1+2"
    fresh.loc[10, "time"] = pd.NaT
    fresh.loc[900, "transaction_id"] = fresh.loc[3, "transaction_id"]  # the first of these two is unusable
    fresh.loc[[50, 1_000], "transaction_id"] = fresh.loc[20, "transaction_id"]
    fresh.loc[60, "transaction_id"] = f" {fresh.loc[20, 'transaction_id']} "
    fresh.loc[70, "transaction_id"] = None
    (tmp_path / "rows").mkdir()
    for number in range(4):
        fresh.iloc[300 * number : 300 * number + 300].to_parquet(tmp_path / "rows" / f"{number}.parquet")

    local, spark = assert_as_local(
        site(plain, policy={"budget": {"rows": 9, "per": "batch"}}),
        tmp_path,
        input=str(tmp_path / "rows"),
        by="transaction_id",
    )

    assert (local.scored, spark.quarantined) == (1_193, 7)
    assert read_quarantine(spark)["reason"].str.contains(r"appears again \(first at row 20\)").sum() == 3


def test_csv_files_are_read_as_one_machine_reads_them(plain: Path, tmp_path: Path) -> None:
    """Separators, quoted line ends, decimal commas and lines with too many fields; columns in another order, or new."""
    fresh = pd.concat([pd.read_parquet(file) for file in sorted((plain / "fresh").iterdir())], ignore_index=True)
    fresh.loc[5, "channel"] = "on\nline"
    fresh.loc[6, "channel"] = 'a "shop"; or two'
    (tmp_path / "rows").mkdir()
    for number, columns in enumerate((COLUMNS, COLUMNS[::-1])):
        part = fresh.iloc[600 * number : 600 * number + 600][columns].assign(**{f"new {number}": "x"})
        part.to_csv(tmp_path / "rows" / f"{number}.csv", index=False, sep=";", decimal=",")
    with (tmp_path / "rows" / "0.csv").open("a") as file:
        file.write("too;few\n")

    config = site(plain, source={"path": str(tmp_path / "rows"), "decimal": ","})
    local, spark = assert_as_local(config, tmp_path, by="transaction_id")

    assert (local.rows, local.scored, spark.quarantined) == (1_201, 1_200, 1)


def test_json_lines_are_read_as_one_machine_reads_them(plain: Path, tmp_path: Path) -> None:
    """Lines that are no object are left out with their number, and rows keep their places."""
    fresh = pd.concat([pd.read_parquet(file) for file in sorted((plain / "fresh").iterdir())], ignore_index=True)
    (tmp_path / "rows").mkdir()
    for number in range(2):
        part = fresh.iloc[600 * number : 600 * number + 600]
        part.to_json(tmp_path / "rows" / f"{number}.jsonl", orient="records", lines=True, date_format="iso")
    with (tmp_path / "rows" / "0.jsonl").open("a") as file:
        file.write("no object\n")

    config = site(plain, source={"path": str(tmp_path / "rows")})
    local, spark = assert_as_local(config, tmp_path, by="transaction_id")

    assert (local.rows, local.scored, spark.quarantined) == (1_201, 1_200, 1)


def test_a_database_is_read_through_jdbc(plain: Path, tmp_path: Path, spark: Any) -> None:
    """Derby comes with Spark; its rows get the scores of the file they came from."""
    from pipelines.spark.score import score_on_spark

    url = f"jdbc:derby:{tmp_path / 'database'}"
    rows = spark.read.parquet(str(plain / "fresh")).drop("is_fraud").repartition(1)
    rows.write.jdbc(f"{url};create=true", "payments")

    config = site(plain, source={"url": url, "table": "payments"})
    with pytest.raises(SettingError, match="does not say by itself which batch it holds. Name it: --batch"):
        score_on_spark(config, output=str(tmp_path / "scores"), now=NOW)
    found = read_scores(score_on_spark(config, output=str(tmp_path / "scores"), batch="b", now=NOW))

    _, spark_report = assert_as_local(site(plain), tmp_path, input=str(plain / "fresh"), by="transaction_id")
    expected = read_scores(spark_report)
    found, expected = (frame.set_index("transaction_id").sort_index() for frame in (found, expected))
    pd.testing.assert_series_equal(found["risk"], expected["risk"])
    pd.testing.assert_series_equal(found["flagged"], expected["flagged"])


@pytest.mark.parametrize("rows", ["fresh", "past"])
def test_features_go_on_from_the_past_as_on_one_machine(featured: Path, tmp_path: Path, rows: str) -> None:
    """By card, by terminal, by both, of labels and of the clock; four rows in ten are of one card, some of none.

    New rows go on from the past that training left; the rows of training are measured among themselves.
    """
    frame = pd.read_parquet(featured / f"{rows}.parquet")
    frame.loc[frame.index[30], "transaction_id"] = frame["transaction_id"].iloc[2]
    frame.loc[frame.index[40], "time"] = pd.NaT
    if rows == "fresh":
        frame.loc[frame.index[50], "time"] = pd.Timestamp("2020-01-01")  # too late for the past
    (tmp_path / "rows").mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[part].to_parquet(tmp_path / "rows" / f"{number}.parquet")

    config = site(featured, features=FEATURES, policy={"quantile": 0.95})
    local, _ = assert_as_local(config, tmp_path, input=str(tmp_path / "rows"), by="transaction_id")

    assert local.quarantined == (3 if rows == "fresh" else 2)
    assert ("older than the past" in str(local.note)) == (rows == "past")


def test_a_batch_that_is_scored_again_replaces_itself(plain: Path, tmp_path: Path) -> None:
    """Whether a run ends well or not, there is one result a batch; another batch stands beside it."""
    from pipelines.spark import committing
    from pipelines.spark.score import score_on_spark

    config, files = site(plain), sorted((plain / "fresh").iterdir())
    output = str(tmp_path / "scores")

    def run(batch: str, *names: Path) -> int:
        (tmp_path / "rows").mkdir(exist_ok=True)
        for file in names:
            shutil.copy(file, tmp_path / "rows")
        score_on_spark(config, input=str(tmp_path / "rows"), output=output, batch=batch, now=NOW)
        shutil.rmtree(tmp_path / "rows")
        return len(pd.read_parquet(output))

    assert run("one", *files[:2]) == 300
    assert run("one", *files[:2]) == 300
    assert run("one", *files[:3]) == 450
    assert run("two", *files[3:4]) == 600
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committing.BatchFolder, "commit", lambda *_: (_ for _ in ()).throw(SinkError("killed")))
        with pytest.raises(SinkError, match="killed"):
            run("two", *files[3:5])
    found = pd.read_parquet(output)
    assert (len(found), found["transaction_id"].is_unique) == (600, True)
    assert sorted(found["batch"].unique()) == ["one", "two"]
    assert not any((tmp_path / "scores" / "_staging").iterdir())


def test_what_a_killed_run_left_is_cleared_and_nobody_reads_it(plain: Path, tmp_path: Path) -> None:
    """A process that dies leaves its staging folder; readers pass over it, and the next run of the batch removes it."""
    from pipelines.spark.score import score_on_spark

    left = tmp_path / "scores" / "_staging" / "one.0123456789ab" / "_written"
    left.mkdir(parents=True)
    shutil.copy(plain / "past.parquet", left / "part-0.parquet")
    other = tmp_path / "scores" / "_staging" / "one.more.0123456789ab"
    other.mkdir()

    score_on_spark(
        site(plain),
        input=str(plain / "fresh" / "part-2.parquet"),
        output=str(tmp_path / "scores"),
        batch="one",
        now=NOW,
    )

    assert len(pd.read_parquet(tmp_path / "scores")) == 150
    assert not left.exists()
    assert other.exists()


def test_a_batch_without_a_name_is_named_by_its_files(plain: Path, tmp_path: Path) -> None:
    """The same files are the same batch; changed ones are another."""
    from pipelines.spark.score import score_on_spark

    shutil.copy(plain / "fresh" / "part-2.parquet", tmp_path / "rows.parquet")

    def run() -> str:
        report = score_on_spark(
            site(plain), input=str(tmp_path / "rows.parquet"), output=str(tmp_path / "scores"), now=NOW
        )
        return report.output

    first, again = run(), run()
    shutil.copy(plain / "fresh" / "part-3.parquet", tmp_path / "rows.parquet")

    assert first == again
    assert run() != first


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"output": "scores.csv"}, SettingError, "Spark writes a folder of Parquet files, received '.*scores.csv'"),
        ({"output": {"url": "sqlite:///x.db", "table": "s"}}, {"output": None}, SettingError, "`output` is a database"),
        ({}, {"batch": "../other"}, SettingError, r"--batch expected letters, digits, .* received '\.\./other'"),
        ({"rules": [RULE]}, {}, SettingError, "`rules` hold for these rows, and Spark does not apply them"),
        ({"kind": "sensors"}, {}, SettingError, "Spark scores tables, and `kind` is sensors"),
        ({}, {"input": "nothing/here.parquet"}, SourceError, "There is no file or folder .*here.parquet"),
        ({}, {"input": "file:///nothing/here"}, SourceError, "file:///nothing/here, or it is empty"),
        ({}, {"input": "s3a://bucket/rows"}, SourceError, "s3a://bucket/rows: Spark failed: .*S3AFileSystem"),
        ({}, {"input": "{nanoseconds}"}, SourceError, "times in nanoseconds, which Spark does not read"),
        ({}, {"input": "{columns}"}, SchemaError, "'amount'"),
        ({}, {"input": "{empty}"}, SourceError, "has columns but no rows"),
        ({}, {"input": "{delta}"}, SourceError, "Delta table, and this Spark does not know Delta. Start it with"),
        ({}, {"input": "{csv}"}, SourceError, r"1\.csv lacks 'amount'"),
        ({}, {"input": "file://{csv}"}, SourceError, r"1\.csv lacks 'amount'.* list what nobody needs"),
        ({}, {"input": "{parquet}"}, SourceError, r"1\.parquet lacks 'amount'"),
        (
            {"source": {"topic": TOPIC}},
            {"input": None},
            SettingError,
            "Spark reads files and databases, and `source` is",
        ),
        ({"source": {"url": "sqlite:///x.db", "table": "t"}}, {"input": None}, SettingError, "databases by JDBC"),
    ],
    ids=str,
)
def test_what_spark_cannot_do_is_said(
    plain: Path, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What was expected, what was received, what to do; and nothing is left behind."""
    from pipelines.spark.score import score_on_spark

    rows = pd.read_parquet(plain / "fresh" / "part-2.parquet")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    (tmp_path / "csv").mkdir()
    rows.to_csv(tmp_path / "csv" / "0.csv", index=False)
    rows.drop(columns="amount").to_csv(tmp_path / "csv" / "1.csv", index=False)
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet" / "0.parquet")
    rows.drop(columns="amount").to_parquet(tmp_path / "parquet" / "1.parquet")
    rows.drop(columns="amount").to_parquet(tmp_path / "columns.parquet")
    rows[:0].to_parquet(tmp_path / "empty.parquet")
    rows.assign(time=rows["time"].astype("datetime64[ns]")).to_parquet(tmp_path / "nanoseconds.parquet", version="2.6")
    places = {name: str(tmp_path / f"{name}.parquet") for name in ("columns", "empty", "nanoseconds")}
    places |= {name: str(tmp_path / name) for name in ("delta", "csv", "parquet")}
    given: dict[str, Any] = {"input": str(plain / "fresh"), "output": "scores", "batch": "b"} | options
    if given["input"] is not None:
        given["input"] = given["input"].format(**places)
    if given["output"] is not None:
        given["output"] = str(tmp_path / given["output"])
    config = site(plain, **change)

    with pytest.raises(error, match=message):
        score_on_spark(config, now=NOW, **given)

    assert not (tmp_path / "scores").exists() or not list((tmp_path / "scores").glob("batch=*"))


def test_currencies_that_depend_on_the_first_row_are_refused(featured: Path, tmp_path: Path) -> None:
    """Which currency comes first differs from task to task; with a rate it is said."""
    from pipelines.spark.features import refuse_unshared

    with pytest.raises(SettingError, match=r'Name it: `rates: \["EUR 1"\]`'):
        refuse_unshared(site(featured, features={**FEATURES, "currency": "country"}))
    refuse_unshared(site(featured, features={**FEATURES, "currency": "country", "rates": ["EUR 1"]}))


@pytest.mark.filterwarnings("ignore")
def test_the_registered_model_is_a_function_of_spark(plain: Path, tmp_path: Path, spark: Any) -> None:
    """``mlflow.pyfunc.spark_udf`` gives each row the risk, the flag and the reasons of ``predict``."""
    import mlflow
    from mlflow.models import infer_signature

    from detector.decide.policy import Policy
    from detector.persist import bundle
    from pipelines.tracking.pyfunc import ScoredTable, policy_to_config

    frame = pd.read_parquet(plain / "fresh" / "part-2.parquet").drop(columns=["is_fraud"])
    policy = Policy(quantile=0.9)
    expected = ScoredTable(bundle.load(plain / "bundle"), policy).predict(frame).set_index("transaction_id")
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        loader_module="pipelines.pyfunc",
        data_path=str(plain / "bundle"),
        signature=infer_signature(frame.assign(amount=frame["amount"].astype(float)), expected.reset_index()),
        model_config=policy_to_config(policy),
        pip_requirements=["mlflow"],
    )

    result = "transaction_id string, risk double, p_value double, flagged boolean, severity string, reasons string"
    function = mlflow.pyfunc.spark_udf(spark, str(tmp_path / "model"), result_type=result, env_manager="local")
    rows = spark.createDataFrame(frame.astype({"card_id": object})).repartition(PARTITIONS)
    found = rows.select(function(*frame.columns).alias("score")).select("score.*").toArrow().to_pandas()

    found = found.set_index("transaction_id").loc[expected.index]
    np.testing.assert_allclose(found["risk"], expected["risk"], rtol=0, atol=1e-6)
    assert found["flagged"].tolist() == expected["flagged"].tolist()
    assert found["reasons"].tolist() == expected["reasons"].tolist()
    assert found["flagged"].any()


def test_the_command_scores_on_spark(plain: Path, tmp_path: Path) -> None:
    """``--engine spark`` says what ``detector score`` says; ``--batch`` belongs to it alone."""
    site(plain)
    command = ["score", str(plain), "--input", str(plain / "fresh" / "part-2.parquet"), "--batch", "one"]

    done = CliRunner().invoke(app, [*command, "--engine", "spark", "--output", str(tmp_path / "scores")])
    refused = CliRunner().invoke(app, command)

    assert done.exit_code == 0, done.output
    assert "Scored 150 of 150 rows" in done.output
    assert len(pd.read_parquet(tmp_path / "scores")) == 150
    assert refused.exit_code == 2
    assert "--batch names what Spark scores. Add --engine spark" in refused.output
