"""The backtest: each period is judged with what was known when it began."""

import re
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from detector.errors import DataError, SchemaError, SettingError
from detector.features import Money
from pipelines.backtest.metrics import ScoredPeriod, period_metrics
from pipelines.backtest.plan import Plan
from pipelines.backtest.run import _amounts, _unblocked, _Walk, backtest
from pipelines.backtest.summary import BacktestReport, summarise
from pipelines.config import load_config
from pipelines.simulate import simulate_transactions

NOW = datetime(2025, 1, 1, tzinfo=UTC)
START, END = datetime.fromisoformat("2024-10-15"), datetime.fromisoformat("2024-10-29")
CONFIG = """\
name: payments
source: {path: payments.parquet}
columns:
  key: transaction_id
  time: time
  entity: card_id
  label: is_fraud
  numeric: [amount]
  others: ignore
features:
  history:
    - ratio of amount by card_id over 30d
    - count by card_id over 1h
    - new of device by card_id over 90d
    - risk by terminal_id over 28d
  reported: reported_at
train:
  autoencoder: {enabled: false}
  neighbours: {enabled: false}
  forest: {trees: 10}
  head: {least_anomalies: 30, trees: 30, models: 1}
policy: {quantile: 0.98}
tracking: {uri: "sqlite:///mlflow.db"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backtest")
    simulate_transactions(5_000, seed=3, days=36, fraud_rate=0.03).to_parquet(folder / "payments.parquet")
    (folder / "detector.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    plan = Plan(START, END, every="7d", train="14d", delay="2d", k=10, seeds=2, scenario="scenario")
    return backtest(load_config(folder), plan, now=NOW)


def test_backtest_tells_what_would_have_been_caught(report):
    """Two weeks of two seeds, in rows, cards, scenarios and money."""
    periods = report.periods

    assert len(periods) == 4
    assert (periods["card_precision_10"] <= periods["card_precision_10_ceiling"]).all()
    assert (periods["ap"] > 2 * periods["prevalence"]).all()
    assert {"recall_large_amount", "amount_caught", "amount_missed", "alerts_per_day"} <= set(periods)
    assert {"precision_predicted", "precision_realised", "with_labels_ap", "unsupervised_ap"} <= set(periods)
    taught = periods[periods["head_decides"].notna()]
    chosen = np.where(taught["head_decides"] == 1, taught["with_labels_ap"], taught["unsupervised_ap"])
    assert taught["ap"].to_numpy() == pytest.approx(chosen)
    numbers = report.numbers()
    assert numbers.loc["ap", "over_periods"] > 0
    assert numbers.loc["ap", "over_seeds"] > 0


def test_backtest_leaves_a_page_and_a_table(report, folder):
    """The page has its figures and says what the command says."""
    page = (folder / "backtest.html").read_text()
    assert page.count("<svg") == 6
    assert "Average precision" in page
    assert "Found, by scenario" in page
    assert "begin of the period" in page
    assert "NaN" not in page
    assert len(pd.read_csv(folder / "backtest.csv")) == 4
    assert any("average precision" in line for line in report.summary())


def test_backtest_is_one_run_with_a_child_a_period(report, folder):
    """MLflow holds the means above, and each period below."""
    from pipelines.tracking.session import session

    with session(load_config(folder).tracking.uri) as client:
        experiment = client.get_experiment_by_name("payments").experiment_id
        runs = client.search_runs([experiment])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]

    assert len(parents) == 1
    assert len(runs) == 3
    assert parents[0].data.metrics["ap"] == pytest.approx(report.periods["ap"].mean())
    assert report.places["MLflow run"].startswith(parents[0].info.run_id)


def test_later_rows_change_no_earlier_period(folder, tmp_path):
    """What happens and is reported after a period changes nothing of it."""
    rows = pd.read_parquet(folder / "payments.parquet")
    end = pd.Timestamp("2024-10-22")
    rows["is_fraud"] = rows["is_fraud"].where((rows["reported_at"] <= end) | (rows["time"] < end), 0)
    rows[rows["time"] < end + pd.Timedelta("1h")].to_parquet(tmp_path / "payments.parquet")
    (tmp_path / "detector.yaml").write_text(CONFIG.replace('{uri: "sqlite:///mlflow.db"}', "{enabled: false}"))
    plan = Plan(START, datetime.fromisoformat("2024-10-22"), every="7d", train="14d", k=10)

    cut = backtest(load_config(tmp_path), plan, now=NOW).periods.iloc[0]

    full = backtest(
        load_config(folder).model_copy(update={"tracking": load_config(tmp_path).tracking}),
        plan,
        now=NOW,
        folder=tmp_path,
    ).periods.iloc[0]
    pd.testing.assert_series_equal(cut, full)


def test_known_cards_leave():
    """A card whose fraud was reported before the day is blocked; one reported on the day is not yet."""
    from detector.schema import Schema

    time = pd.to_datetime(["2024-01-01 10:00", "2024-01-02 09:00", "2024-01-03 09:00"] * 2)
    rows = pd.DataFrame({"time": time, "card": list("aaabbb"), "fraud": [1, 0, 0, 0, 0, 0]})
    known_at = pd.Series(pd.Timestamp("2024-01-02 08:00"), index=rows.index)

    asked = _unblocked(
        rows,
        Schema(time="time", entity="card", label="fraud"),
        known_at,
        begin=pd.Timestamp("2024-01-02"),
        end=pd.Timestamp("2024-01-04"),
        blocks=True,
    )

    assert asked.index.tolist() == [1, 4, 5]


def test_precision_promised_is_that_of_the_p_values():
    """Ten rows, two flagged with p-values up to 0.1: one false alarm in two is expected."""
    rows = pd.DataFrame({"card": range(10)})
    period = ScoredPeriod(
        rows,
        day=pd.Series(["d"] * 10),
        truth=pd.Series([1.0, 0.0] + [np.nan] * 8),
        flagged=np.array([True, True] + [False] * 8),
        p_value=np.array([0.05, 0.1] + [0.5] * 8),
        k=5,
    )

    found = period_metrics(period, np.arange(10.0)[::-1])

    assert found["precision_predicted"] == pytest.approx(0.5)
    assert found["precision_realised"] == 0.5
    assert found["alerts_per_day"] == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": "7x"}, "received '7x'"),
        ({"k": 0}, "k must be at least 1"),
        ({"every": "90d"}, "No period of 90d fits"),
        ({"train": "weekly"}, "train: A window expected a length"),
        ({"end": START}, "does not lie after the start 2024-10-15"),
    ],
)
def test_a_plan_without_meaning_is_refused(setting, message):
    """A mistake is reported before anything is read."""
    with pytest.raises(SettingError, match=message):
        Plan(**{"start": START, "end": END, **setting})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  label: is_fraud\n", "", "Name that column in `columns.label`"),
        ("  time: time\n", "", "needs? a time"),
    ],
)
def test_a_backtest_needs_time_and_truth(folder, tmp_path, before, after, message):
    """Without either there is nothing to walk through or to count."""
    text = CONFIG.replace(before, after).replace("payments.parquet", str(folder / "payments.parquet"))
    (tmp_path / "detector.yaml").write_text(text)
    with pytest.raises(SettingError, match=message):
        backtest(load_config(tmp_path), Plan(START, END), now=NOW)


def test_blocked_cards_leave_what_is_learnt_from_too(folder, monkeypatch):
    """In the world of a backtest a card pays no more once its fraud is known, whether rows are scored or learnt."""
    seen = []
    period = _Walk.period
    monkeypatch.setattr(_Walk, "period", lambda walk, learnt, *rest: seen.append(learnt) or period(walk, learnt, *rest))
    plan = Plan(START, END, every="7d", train="14d", delay="2d", k=10)

    backtest(load_config(folder), plan, now=NOW, folder=folder / "blocked")

    payments = pd.read_parquet(folder / "payments.parquet")
    frauds = payments[payments["reported_at"].notna()]
    blocked = frauds.groupby("card_id")["reported_at"].min()
    for learnt in seen:
        days = learnt["time"].dt.normalize()
        assert not (learnt["card_id"].map(blocked) <= days).any()
        assert learnt["is_fraud"].isna().any()


def test_chargebacks_of_their_own_table_are_the_truth_too(tmp_path):
    """Without a label column the periods are those of a label column with the same reports; a later word overrides."""
    payments = simulate_transactions(2_500, seed=3, days=36, fraud_rate=0.03)
    payments["is_fraud"] = payments["reported_at"].notna().astype(int)
    frauds = payments[payments["is_fraud"] == 1]
    reports = frauds[["transaction_id", "reported_at"]].assign(label=1)
    payments.to_parquet(tmp_path / "payments.parquet")
    payments.drop(columns=["is_fraud", "reported_at"]).to_parquet(tmp_path / "bare.parquet")
    reports.to_parquet(tmp_path / "reports.parquet")
    judged = frauds["time"] >= pd.Timestamp(START)
    settled = reports[judged].assign(reported_at=pd.Timestamp("2024-12-01"), label=0)
    pd.concat([reports, settled]).to_parquet(tmp_path / "settled.parquet")
    plan, found = Plan(START, END, every="7d", train="14d", delay="2d", k=10), []

    for name, source in (("labels", ""), ("reports", "reports"), ("settled", "settled")):
        text = CONFIG.replace("train:\n", "train:\n  calibrate_on: all\n")  # the only choice without a label column
        if source:
            text = text.replace("  label: is_fraud\n", "").replace("  reported: reported_at\n", "")
            reported = f"reports: {{source: {{path: {source}.parquet}}, label: label}}, "
            text = text.replace("payments.parquet", "bare.parquet").replace("head: {", "head: {" + reported)
        (tmp_path / "detector.yaml").write_text(text.replace('{uri: "sqlite:///mlflow.db"}', "{enabled: false}"))
        found.append(backtest(load_config(tmp_path), plan, now=NOW, folder=tmp_path / name).periods)

    labelled, said, overridden = found
    pd.testing.assert_frame_equal(labelled, said)
    assert said["anomalies"].min() > 0
    assert overridden["anomalies"].sum() == 0


@pytest.mark.parametrize(
    ("before", "after", "scenario", "message"),
    [
        ("", "", "scenaro", "which the scenario names. Did you mean 'scenario'"),
        ("reported: reported_at", "reported: reportedat", None, "names. Did you mean 'reported_at'"),
    ],
)
def test_a_backtest_names_the_column_that_is_missing(folder, tmp_path, before, after, scenario, message):
    """Nothing is read before all columns that are named are there."""
    text = CONFIG.replace(before, after) if before else CONFIG
    (tmp_path / "detector.yaml").write_text(text.replace("payments.parquet", str(folder / "payments.parquet")))
    with pytest.raises(SchemaError, match=message):
        backtest(load_config(tmp_path), Plan(START, END, scenario=scenario), now=NOW)


def test_a_backtest_says_what_it_left_out(folder, tmp_path):
    """Rows quarantined, periods without rows or without past, and amounts in one currency; without fraud no ranking."""
    rows = pd.read_parquet(folder / "payments.parquet").assign(is_fraud=0, reported_at=pd.NaT)
    days = rows["time"].dt.normalize()
    rows.loc[rows.index[:3], "time"] = pd.Timestamp("2036-01-01")
    rows.loc[rows.index[3:5], "amount"] = -1.0
    rows["currency"] = np.where(days >= pd.Timestamp("2024-10-10"), "SEK", "EUR")
    rows[days < pd.Timestamp("2024-10-14")].to_parquet(tmp_path / "payments.parquet")
    money = '  negative: refuse\n  currency: currency\n  mixed: convert\n  rates: ["EUR 1", "SEK 0.1"]\n'
    text = CONFIG.replace("  reported: ", f"{money}  reported: ").replace(
        'uri: "sqlite:///mlflow.db"', "enabled: false"
    )
    (tmp_path / "detector.yaml").write_text(text)
    plan = Plan(datetime.fromisoformat("2024-10-01"), datetime.fromisoformat("2024-10-19"), every="5d", train="5d")
    config = load_config(tmp_path)
    config = config.model_copy(update={"train": config.train.model_copy(update={"rows": 200})})

    report = backtest(config, plan, now=NOW)

    said = "\n".join(report.summary())
    assert "2 periods of 5d" in said
    assert "Ranking: none" in said
    assert "1 of 3 periods left out" in said
    assert "From 2024-10-16 on nothing is scored" in said
    assert "The last period is not whole: the table ends at 2024-10-13" in said
    assert f"5 of {len(rows[days < pd.Timestamp('2024-10-14')]):,} rows could not be used: time: lies in the" in said
    assert re.search(r"In the period with the most rows: Learnt from 200 rows drawn at random from \d+; `train", said)
    assert "No head was learnt: in no period were 30 anomalies known" in said
    assert "amount: the amount is negative, and `negative` is set to refuse (2 rows)" in said


def test_amounts_are_in_one_currency():
    """Converted where that is wanted; not summed where currencies are kept apart; a skipped refund counts nothing."""
    rows = pd.DataFrame({"amount": ["10", "20", "-5"], "currency": ["EUR", "SEK", "EUR"]})
    money = Money("amount", currency="currency", mixed="convert", rates={"EUR": 1.0, "SEK": 0.1}, negative="skip")

    amounts, notes = _amounts(rows, money)
    apart, reasons = _amounts(rows, Money("amount", currency="currency", mixed="apart"))

    assert amounts.tolist() == pytest.approx([10.0, 2.0, float("nan")], nan_ok=True)
    assert notes == []
    assert apart is None
    assert reasons == ["No amounts are summed: they are in EUR, SEK, which are kept apart."]
    assert _amounts(rows, Money("price")) == (None, [])


@pytest.mark.parametrize(("flagged", "is_chance"), [(10.0, True), (100.0, False)])
def test_few_false_alarms_too_many_are_not_called_a_broken_promise(flagged: float, is_chance: bool) -> None:
    """Five in place of three come by chance; fifty in place of thirty do not. Seeds are no further rows."""
    periods = pd.DataFrame(
        {"begin": START, "seed": [0, 1], "rows": 500.0, "anomalies": 9.0, "flagged": flagged, "alerts_per_day": 1.0}
        | {"recall": 1.0, "precision_realised": 0.5, "precision_predicted": 0.7}
    )

    said = " ".join(summarise(periods, Plan(START, END, seeds=2)))

    assert ("may be chance: 5 false alarms in place of 3." in said) == is_chance
    assert ("The promise was broken" in said) != is_chance


def test_shares_in_words_are_of_all_periods_together():
    """One of ten and three of ninety are four of a hundred; a period in which nothing was flagged promises nothing."""
    periods = pd.DataFrame(
        {
            "begin": [START, END],
            "seed": 0,
            "rows": 500.0,
            "anomalies": [10.0, 90.0],
            "flagged": [40.0, 0.0],
            "alerts_per_day": [2.0, 0.0],
            "recall": [0.1, 3 / 90],
            "precision_realised": [0.25, np.nan],
            "precision_predicted": [0.75, np.nan],
            "amount_caught": [100.0, 0.0],
            "amount_missed": [100.0, 200.0],
            "anomalies_theft": [10.0, 90.0],
            "recall_theft": [0.1, 3 / 90],
            "head_decides": [1.0, np.nan],
            "with_labels_ap": [0.5, np.nan],
            "unsupervised_ap": [0.25, np.nan],
        }
    )

    said = summarise(periods, Plan(START, END))

    assert said[0] == "2 periods of 7d, 1 seed each; 1,000 rows in all, 100 of them anomalous."
    assert "Flagged: 1 rows a day; 4 % of the anomalies." in said
    assert "Of what was flagged 25 % is anomalous; the p-values promised at least 75 %." in said
    assert any(line.startswith("The promise was broken: there are 3.0 times the false alarms") for line in said)
    assert "Nothing was flagged in 1 of 2 trainings." in said
    assert "Amount: 50 of 200 a period caught (25 %), 150 missed." in said
    assert "  found of theft: 4 % of 100" in said
    assert (
        "With labels: a head was learnt in 1 of 2 trainings and decided in 1. There: average precision 0.500, without "
        "labels 0.250." in said
    )


def test_page_and_lines_share_one_definition():
    """The table and MLflow say the shares that the lines say: 1 of 4 and 15 of 96 flagged rows are 16 of 100."""
    periods = pd.DataFrame(
        {
            "begin": [START, END],
            "seed": 0,
            "rows": 1000.0,
            "flagged": [4.0, 96.0],
            "alerts_per_day": [1.0, 14.0],
            "anomalies": [10.0, 30.0],
            "recall": [0.1, 0.5],
            "precision_realised": [0.25, 15 / 96],
            "precision_predicted": [0.5, 0.2],
            "recall_theft": [0.5, 0.0],
            "anomalies_theft": [2.0, 0.0],
        }
    )
    report = BacktestReport(periods, Plan(START, END), {})

    means = report.numbers()["mean"]

    assert means["precision_realised"] == pytest.approx(0.16)
    assert means["precision_predicted"] == pytest.approx((2 + 19.2) / 100)
    assert means["recall"] == pytest.approx(16 / 40)
    assert means["recall_theft"] == pytest.approx(0.5)
    assert means["flagged"] == 50
    assert "Of what was flagged 16 % is anomalous; the p-values promised at least 21 %." in report.summary()


def test_dates_outside_the_table_say_where_it_lies(folder):
    """A walk through years without rows names those there are."""
    with pytest.raises(DataError, match="reaches from 2024-10-01"):
        backtest(
            load_config(folder),
            Plan(datetime.fromisoformat("2010-01-01"), datetime.fromisoformat("2010-01-09")),
            now=NOW,
        )


def test_command_prints_the_summary(folder, monkeypatch):
    """The command line passes everything on and prints what was found."""
    import pipelines.backtest.run as job
    from pipelines.cli import app

    def stand_in(config, plan, *, now, folder):
        periods = pd.DataFrame({"begin": [START], "seed": [0], "ap": [0.25]})
        return BacktestReport(periods, plan, {"Report": "here"})

    monkeypatch.setattr(job, "backtest", stand_in)
    arguments = ["backtest", str(folder), "--from", "2024-10-15", "--to", "2024-11-05", "--every", "7d", "--k", "5"]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    assert "average precision 0.250" in result.output


def test_a_day_that_is_none_is_a_mistake_of_the_command_line(folder):
    """The message says how a day is written, and nothing is read."""
    from pipelines.cli import app

    result = CliRunner().invoke(app, ["backtest", str(folder), "--from", "yesterday", "--to", "2024-11-05"])

    assert result.exit_code == 2
    assert "expected a day such as" in result.output
    assert "Traceback" not in result.output
