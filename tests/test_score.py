"""The scoring job, on a detector trained once for the session."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.decide.policy import Budget, Policy
from detector.detectors.table.scorer import TabularScorer
from detector.errors import BundleError, SchemaError, SettingError, SinkError
from detector.explain.reason import Reason, in_words
from detector.persist import bundle
from pipelines.config import Config
from pipelines.scoring import one_off as job
from pipelines.scoring.one_off import ScoreReport, score
from pipelines.training import review

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[1]

Configure = Callable[..., Config]


def scored(config: Config, **options: Any) -> tuple[ScoreReport, pd.DataFrame]:
    """Score into Parquet and read it back."""
    report = score(config, now=NOW, **options)
    return report, pd.read_parquet(report.output)


def quarantined(report: ScoreReport) -> pd.DataFrame:
    return pd.read_csv(report.quarantine)


@pytest.fixture
def config(trained: Path, configure: Configure) -> Config:
    return configure(trained, policy={"quantile": 0.9})


def test_scores_are_those_of_the_detector(config: Config, payments: pd.DataFrame) -> None:
    """The job writes what ``judge`` says of the whole table, in its order, with the model and the time."""
    report, frame = scored(config)

    expected = bundle.load(config.bundle).judge(payments, policy=Policy(quantile=0.9)).frame
    pd.testing.assert_frame_equal(frame[expected.columns], expected, check_dtype=False)
    written = [name for name in frame.columns if name != "reasons_json"]
    assert written == [*expected.columns, "model_version", "scored_at"]
    assert set(frame["model_version"]) == {bundle.fingerprint(config.bundle)}
    assert set(frame["scored_at"]) == {pd.Timestamp("2026-03-02 12:00")}
    assert (report.rows, report.scored, report.quarantined) == (1500, 1500, 0)
    assert report.flagged == frame["flagged"].sum() > 0


def test_reasons_are_written_as_text_and_as_json(config: Config) -> None:
    """The same reasons, for people and for programs; a row that is not flagged has none."""
    _, frame = scored(config)

    for text, found, flagged in frame[["reasons", "reasons_json", "flagged"]].itertuples(index=False):
        reasons = [Reason.from_dict(each) for each in json.loads(found)] if found else []
        assert in_words(reasons) == text
        assert bool(reasons) == flagged


@pytest.mark.parametrize("size", [101, 400, 1500])
def test_scores_do_not_depend_on_batches(config: Config, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Many batches give the same risks, flags and reasons as one, to the last bit and in the same order."""
    _, whole = scored(config)

    monkeypatch.setattr(job, "BATCH", size)
    _, parts = scored(config)

    pd.testing.assert_frame_equal(whole, parts, check_exact=True)


def test_flagged_rows_have_reasons_and_a_severity_and_no_others(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every flagged row is explained in words; the others are left in peace."""
    monkeypatch.setattr(job, "BATCH", 256)

    _, frame = scored(config)

    assert (frame["reasons"].ne("") == frame["flagged"]).all()
    assert (frame["severity"].ne("") == frame["flagged"]).all()
    assert frame.loc[frame["flagged"], "reasons"].str.contains("expected").all()


@pytest.mark.parametrize(
    "rules",
    [
        {"budget": {"rows": 3, "per": "day"}},
        {"budget": {"rows": 5, "per": "batch"}},
        {"quantile": 0.95, "budget": {"rows": 2, "per": "day"}},
        {"fdr": 0.9},
    ],
    ids=str,
)
def test_policy_decides_over_all_batches(
    trained: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any]
) -> None:
    """A budget a day and a false discovery rate are kept over the whole run, although days reach over batches."""
    monkeypatch.setattr(job, "BATCH", 90)
    config = configure(trained, policy=rules)

    _, frame = scored(config)

    policy = Policy(**{**rules, **({"budget": Budget(**rules["budget"])} if "budget" in rules else {})})
    support = bundle.load(config.bundle).support
    expected = policy.decide(frame["p_value"], frame["risk"], day=frame["time"].to_numpy(), support=support)
    np.testing.assert_array_equal(frame["flagged"], expected)
    assert expected.any()
    if rules.get("budget", {}).get("per") == "day":
        assert frame[frame["flagged"]].groupby(frame["time"].dt.date).size().max() <= rules["budget"]["rows"]
    assert (frame["reasons"].ne("") == frame["flagged"]).all()


@pytest.mark.parametrize("size", [50, 1500])
def test_repeated_keys_go_to_quarantine_across_batches(
    config: Config, payments: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The first row of a key is scored, wherever the others come; each is told apart by its row."""
    again = pd.concat([payments[:300], payments.iloc[[10, 150, 10]]])
    again.to_parquet(tmp_path / "again.parquet")
    monkeypatch.setattr(job, "BATCH", size)

    report, frame = scored(config, input=str(tmp_path / "again.parquet"))

    assert frame["transaction_id"].tolist() == payments["transaction_id"][:300].tolist()
    quarantine = quarantined(report).sort_values("row")
    assert quarantine["row"].tolist() == [300, 301, 302]
    assert quarantine["transaction_id"].tolist() == payments["transaction_id"].iloc[[10, 150, 10]].tolist()
    assert quarantine["reason"].str.contains("appears again").all()


def test_every_row_is_scored_or_in_quarantine(
    config: Config, payments: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file with all kinds of faults no row is lost, none is twice, and the order is kept."""
    monkeypatch.setattr(job, "BATCH", 64)
    lines = payments[:500].to_csv(index=False).splitlines()
    lines[5] = lines[5].replace(",", ";", 1)  # a field too few
    lines[100] += ",more"
    lines[200] = lines[200].replace(f"{payments['amount'][199]}", "a lot")
    lines[300] = lines[300].replace(f"{payments['amount'][299]}", "inf")
    lines[400] = lines[400].replace(payments["transaction_id"][399], "")
    lines[450] = lines[10]
    (tmp_path / "mixed.csv").write_text("\n".join(lines), encoding="utf-8")

    report, frame = scored(config, input=str(tmp_path / "mixed.csv"))

    quarantine = quarantined(report)
    bad = {4, 99, 199, 299, 399, 449}
    assert frame["transaction_id"].tolist() == [
        key for n, key in enumerate(payments["transaction_id"][:500]) if n not in bad
    ]
    assert report.rows == 500
    assert report.scored + report.quarantined == 500
    assert len(quarantine) == report.quarantined == len(bad)
    for word in ("line 6: ", "line 101: 9 fields where the header has 8", "'a lot' is not a number", "is infinite"):
        assert quarantine["reason"].str.contains(word, regex=False).sum() == 1, word
    for word in ("the key is missing", "appears again"):
        assert quarantine["reason"].str.contains(word, regex=False).sum() == 1, word


def test_columns_named_row_and_reason_survive_quarantine(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that are called like those of the quarantine are kept beside them, also across batches."""
    from pipelines.training import train

    monkeypatch.setattr(review, "figures", lambda *_, **__: {})
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"row": np.arange(200), "reason": rng.choice(["a", "b"], 200), "x": rng.normal(size=200)})
    table.to_csv(tmp_path / "table.csv", index=False)
    members = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}}
    config = configure(tmp_path, source={"path": "table.csv"}, columns={"key": "row"}, train=members)
    train.train(config, now=NOW)
    table.iloc[[0, 1, 2, 0]].to_csv(tmp_path / "again.csv", index=False)
    monkeypatch.setattr(job, "BATCH", 2)

    report, frame = scored(config, input=str(tmp_path / "again.csv"))

    assert frame["row"].astype(int).tolist() == [0, 1, 2]
    assert quarantined(report)[["row", "source_row", "source_reason"]].values.tolist() == [[3, 0, table["reason"][0]]]


@pytest.mark.parametrize("place", ["csv", "tsv", "sql"])
def test_outputs_hold_the_same(trained: Path, configure: Configure, config: Config, place: str) -> None:
    """CSV and SQL hold what Parquet holds."""
    _, expected = scored(config)
    target = (
        {"url": f"sqlite:///{trained}/out.db", "table": "scores"} if place == "sql" else {"path": f"scores.{place}"}
    )

    report = score(configure(trained, policy={"quantile": 0.9}, output=target), now=NOW)

    if place == "sql":
        with sqlite3.connect(trained / "out.db") as connection:
            frame = pd.read_sql("SELECT * FROM scores", connection)
    else:
        frame = pd.read_csv(report.output, sep="," if place == "csv" else "\t", keep_default_na=False)
    for name in ("time", "scored_at"):
        frame[name] = pd.to_datetime(frame[name])
    frame["flagged"] = frame["flagged"].astype(bool)
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False, rtol=1e-12)


def test_sql_to_sql(trained: Path, configure: Configure, payments: pd.DataFrame) -> None:
    """Rows of a database are scored into a table of it; a second run appends, and the query chooses."""
    url = f"sqlite:///{trained}/bank.db"
    with sqlite3.connect(trained / "bank.db") as connection:
        payments.drop(columns="is_fraud").to_sql("payments", connection, index=False)
    source = {"url": url, "query": "SELECT * FROM payments WHERE channel = 'online' ORDER BY time"}
    config = configure(trained, source=source, output={"url": url, "table": "scores"})
    online = payments[payments["channel"] == "online"]

    first = score(config, now=NOW)
    second = score(config, now=NOW)

    with sqlite3.connect(trained / "bank.db") as connection:
        frame = pd.read_sql("SELECT * FROM scores", connection)
    assert first.scored == second.scored == len(online) > 0
    assert frame["transaction_id"].tolist() == 2 * online["transaction_id"].tolist()
    expected = bundle.load(config.bundle).judge(online).frame["risk"]
    np.testing.assert_allclose(frame["risk"][: len(online)], expected)


@pytest.mark.parametrize("failure", [RuntimeError("power cut"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("place", ["file", "sql"])
def test_failure_in_the_last_step_leaves_the_old_scores(
    trained: Path,
    configure: Configure,
    payments: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    failure: BaseException,
) -> None:
    """If a run breaks while writing, yesterday's scores and quarantine stand as they were, and no rest lies about."""
    with_fault = payments.assign(amount=payments["amount"].astype(str).where(payments.index != 3, "x"))
    with_fault.to_csv(trained / "day.csv", index=False)
    target = {"path": "scores.csv"} if place == "file" else {"url": f"sqlite:///{trained}/out.db", "table": "scores"}
    target["quarantine"] = "aside.csv"
    config = configure(trained, source={"path": "day.csv"}, policy={"quantile": 0.9}, output=target)
    score(config, now=NOW)
    before = {path: path.read_bytes() for path in trained.glob("*.*") if path.is_file()}
    monkeypatch.setattr(job, "BATCH", 100)
    explain, calls = TabularScorer.explain, []

    def _fail_at_third(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise failure
        return explain(*arguments, **options)

    monkeypatch.setattr(TabularScorer, "explain", _fail_at_third)
    with pytest.raises(type(failure)):
        score(config, now=NOW)

    assert {path: path.read_bytes() for path in trained.glob("*.*") if path.is_file()} == before
    assert not list(trained.glob(".*"))


def test_note_when_the_rate_has_no_power(trained: Path, configure: Configure) -> None:
    """If so few calibration rows support no such rate, the summary says so, and what is flagged without a promise."""
    config = configure(trained, policy={"fdr": 0.0001})
    calibrator = bundle.load(config.bundle).calibrator

    report, frame = scored(config)

    assert (frame["flagged"] == (frame["p_value"] <= 0.01)).all()
    assert frame["flagged"].any()
    assert f"{calibrator.size:,} calibration rows cannot support a false discovery rate of 0.01 %" in str(report.note)
    assert "at least 9,999. Flagged without a promise: rows riskier than 99 % of the calibration" in str(report.note)
    assert report.summary()[-1] == report.note


def test_summary_counts_at_neighbouring_settings(trained: Path, configure: Configure) -> None:
    """How many rows half and twice the rate would have flagged stands below the policy."""
    config = configure(trained, policy={"quantile": 0.9})

    report, frame = scored(config)

    half, twice = ((frame["p_value"] <= share).sum() for share in (0.05, 0.2))
    assert report.neighbours == {"quantile 0.95": half, "quantile 0.8": twice}
    assert f"It would have flagged with quantile 0.95: {half} rows, quantile 0.8: {twice}." in report.summary()


def test_summary_shows_the_riskiest_flagged_rows_of_all_batches(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By key, with severity and first reason, in the order of their risk."""
    monkeypatch.setattr(job, "BATCH", 40)

    report, frame = scored(config)

    first = frame[frame["flagged"]].nlargest(5, "risk")
    key = str(config.columns.key)
    assert [row[key] for row in report.riskiest] == first[key].astype(str).tolist()
    assert [row["reason"] for row in report.riskiest] == first["reasons"].str.split(" | ", regex=False).str[0].tolist()
    assert "The riskiest flagged rows:" in report.summary()


def test_all_rows_in_quarantine_leave_an_empty_table(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """No row can be used: the scores are empty with the usual columns, and the quarantine says why."""
    payments[:9].assign(amount="much").to_csv(tmp_path / "bad.csv", index=False)

    report, frame = scored(config, input=str(tmp_path / "bad.csv"))

    assert len(frame) == 0
    assert {"transaction_id", "risk", "flagged", "reasons", "scored_at"} <= set(frame.columns)
    assert (report.rows, report.scored, report.flagged, report.quarantined) == (9, 0, 0, 9)
    assert report.summary()[0].startswith("Scored 0 of 9 rows")
    assert "9 rows could not be used" in "\n".join(report.summary())


def test_bad_first_batch_does_not_decide_the_types(
    trained: Path, configure: Configure, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches without a good row write nothing: a key that is all missing at first has no type yet."""
    monkeypatch.setattr(job, "BATCH", 3)
    keys = payments["transaction_id"].head(9).where(payments.index[:9] >= 6)
    with sqlite3.connect(trained / "bank.db") as connection:
        payments.head(9).assign(transaction_id=keys).to_sql("payments", connection, index=False)

    source = {"url": f"sqlite:///{trained}/bank.db", "table": "payments"}
    report, frame = scored(configure(trained, source=source))

    assert frame["transaction_id"].tolist() == payments["transaction_id"][6:9].tolist()
    assert quarantined(report)["row"].tolist() == list(range(6))


def test_quarantine_of_an_earlier_run_is_removed(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """After a clean run there is no quarantine that could be taken for its own."""
    payments[:9].assign(amount="much").to_csv(tmp_path / "bad.csv", index=False)
    report = score(config, input=str(tmp_path / "bad.csv"), now=NOW)
    assert Path(report.quarantine).exists()

    score(config, now=NOW)

    assert not Path(report.quarantine).exists()


def test_label_and_other_columns_are_not_read(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """Scoring needs no label and minds no further column, whatever they hold."""
    payments.drop(columns="is_fraud").assign(remark="?").to_parquet(tmp_path / "new.parquet")

    _, without = scored(config, input=str(tmp_path / "new.parquet"))
    _, usual = scored(config)

    pd.testing.assert_frame_equal(without, usual)


def test_output_elsewhere(config: Config, tmp_path: Path) -> None:
    """``output`` names another file; its quarantine lies beside it, and the configured one is left alone."""
    report = score(config, output=str(tmp_path / "new" / "here.csv"), now=NOW)

    assert report.output == str(tmp_path / "new" / "here.csv")
    assert report.quarantine == str(tmp_path / "new" / "here.quarantine.csv")
    assert not Path(str(config.output.path)).exists()


def test_daily_budget_needs_a_time(trained: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget a day for a detector without a time column is an error before any row is read."""
    scorer = bundle.load(trained / "bundle")
    untimed = replace(scorer, schema=replace(scorer.schema, time=None))
    monkeypatch.setattr(job.bundle, "load", lambda _: untimed)
    config = configure(trained, policy={"budget": {"rows": 3}})

    with pytest.raises(SettingError, match="`columns.time` names no column"):
        score(config, now=NOW)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bundle": "nowhere"}, BundleError, "holds no trained detector"),
        ({"output": {"path": "payments.parquet/scores.csv"}}, SinkError, "payments.parquet is a file"),
    ],
    ids=["bundle", "output"],
)
def test_score_says_what_is_missing(
    trained: Path, configure: Configure, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """No detector, no place to write to: said before any row is read."""
    with pytest.raises(error, match=message):
        score(configure(trained, **change), now=NOW)


def test_missing_column_is_named_with_a_free_one(config: Config, payments: pd.DataFrame, tmp_path: Path) -> None:
    """The nearest column is one that has no other use."""
    payments.rename(columns={"amount": "amounts"}).to_parquet(tmp_path / "new.parquet")

    with pytest.raises(SchemaError, match="Column 'amount' is missing .* Did you mean 'amounts'"):
        score(config, input=str(tmp_path / "new.parquet"), now=NOW)


@pytest.mark.slow
def test_scoring_imports_nothing_that_only_fitting_needs(trained: Path) -> None:
    """A real ``detector score``, reasons included: no TensorFlow, scikit-learn, MLflow or plots, and no database."""
    program = (
        "import sys\n"
        "from pipelines.cli import app\n"
        "app(['score', sys.argv[1]], standalone_mode=False)\n"
        "unwanted = {'tensorflow', 'keras', 'sklearn', 'onnx', 'mlflow', 'matplotlib', 'scipy', 'torch'}\n"
        "unwanted |= {'sqlalchemy', 'alembic', 'fastapi', 'pipelines.store', 'pipelines.alerts'}\n"
        "print('loaded:', sorted(unwanted & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(trained)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Scored 1,500 of 1,500 rows" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert pd.read_parquet(trained / "scores.parquet")["flagged"].any()
