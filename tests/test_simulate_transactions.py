"""Simulated card payments: exact, repeatable, and each fraud is what its name says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from detector.errors import SettingError
from pipelines.simulate.history import HISTORY_COLUMNS, with_history
from pipelines.simulate.patterns import PATTERNS, quotas
from pipelines.simulate.transactions import SCENARIOS, simulate

ROWS = 60_000
COLUMNS = [
    "transaction_id",
    "time",
    "card_id",
    "terminal_id",
    "merchant_category",
    "channel",
    "country",
    "device",
    "amount",
    "currency",
    "latitude",
    "longitude",
    "is_fraud",
    "scenario",
    "reported_at",
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Four months of payments with their history."""
    return with_history(simulate(ROWS, seed=11))


@pytest.fixture(scope="module")
def honest(table: pd.DataFrame) -> pd.DataFrame:
    """The payments which the holders made themselves."""
    return table[table["is_fraud"] == 0]


def frauds(table: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """The payments of one scenario."""
    return table[table["scenario"] == scenario]


def test_simulate_gives_the_promised_columns_and_kinds() -> None:
    """Names, order and types are a contract; nothing is added by accident."""
    table = simulate(500, seed=1)

    assert list(table.columns) == COLUMNS
    assert str(table["time"].dtype) == str(table["reported_at"].dtype) == "datetime64[us]"
    assert table["amount"].dtype == table["latitude"].dtype == np.float64
    assert set(table.select_dtypes("str").columns) == set(COLUMNS) - {
        "time",
        "reported_at",
        "amount",
        "latitude",
        "longitude",
        "is_fraud",
    }


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 999, 20_001])
def test_simulate_gives_exactly_the_rows_asked_for(rows: int) -> None:
    """Every size works, however small, and the frauds are the rounded share."""
    table = simulate(rows, seed=3, fraud_rate=0.05)

    assert len(table) == rows
    assert table["is_fraud"].sum() == round(rows * 0.05)
    assert table["transaction_id"].is_unique


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.5])
def test_simulate_holds_the_fraud_rate(rate: float) -> None:
    """From none to half of the payments."""
    table = simulate(2000, seed=3, fraud_rate=rate)

    assert table["is_fraud"].sum() == round(2000 * rate)
    assert ((table["scenario"] != "") == (table["is_fraud"] == 1)).all()


def test_simulate_repeats_itself_and_no_other_seed() -> None:
    """The same arguments give the same table, another seed another."""
    first, again, other = simulate(3000, seed=5), simulate(3000, seed=5), simulate(3000, seed=6)

    pd.testing.assert_frame_equal(first, again)
    assert not first["amount"].equals(other["amount"])


def test_simulate_does_not_depend_on_the_number_of_threads() -> None:
    """One thread in a process of its own gives what several give here."""
    code = (
        "import pandas as pd\n"
        "from pipelines.simulate.history import with_history\n"
        "from pipelines.simulate.transactions import simulate\n"
        "print(pd.util.hash_pandas_object(with_history(simulate(20000, seed=5))).sum())"
    )
    root = Path(__file__).parents[1]
    digests = set()
    for threads in ("1", "3"):
        limits = {"POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(root)}
        env = {**os.environ, **limits}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())

    assert len(digests) == 1


def test_simulate_sorts_by_time_and_then_key(table: pd.DataFrame) -> None:
    """Time never goes back, is in whole seconds, and shares some of them."""
    ordered = table.sort_values(["time", "transaction_id"], kind="stable")

    assert (ordered.index == table.index).all()
    assert (table["time"] == table["time"].dt.floor("s")).all()
    assert table["time"].duplicated().any()


def test_simulate_stays_within_its_days() -> None:
    """Payments lie between the start's midnight and the last day's end."""
    table = simulate(5000, seed=2, start=datetime.fromisoformat("2023-03-01T15:30"), days=10)

    assert table["time"].min() >= pd.Timestamp("2023-03-01")
    assert table["time"].max() < pd.Timestamp("2023-03-11")
    assert table["time"].dt.normalize().nunique() == 10


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_each_scenario_has_its_share(table: pd.DataFrame, pattern: Any) -> None:
    """All scenarios come, about as often as they should."""
    share = len(frauds(table, pattern.name)) / table["is_fraud"].sum()

    assert share == pytest.approx(pattern.share, abs=0.02)


@pytest.mark.parametrize("rows", [0, 1, 7, 100, 4321])
def test_quotas_add_up_and_leave_no_half_campaign(rows: int) -> None:
    """A scenario gets enough for a whole campaign or nothing."""
    counts = quotas(rows)

    assert sum(counts) == rows
    assert all(count == 0 or count >= pattern.smallest for count, pattern in zip(counts, PATTERNS, strict=True))


def test_reports_come_after_the_fraud_and_only_for_frauds(table: pd.DataFrame, honest: pd.DataFrame) -> None:
    """No honest payment is reported, a few frauds never are, the others later and not at once."""
    fraud = table[table["is_fraud"] == 1]
    delay = (fraud["reported_at"] - fraud["time"]).dropna()

    assert honest["reported_at"].isna().all()
    assert 0.01 < fraud["reported_at"].isna().mean() < 0.08
    assert (delay > pd.Timedelta(0)).all()
    assert pd.Timedelta(days=1) < delay.median() < pd.Timedelta(days=30)


def test_large_amounts_are_large_for_the_card(table: pd.DataFrame) -> None:
    """They exceed the card's usual payments many times, at home."""
    large = frauds(table, "large_amount")

    assert large["amount_to_card_mean"].median() > 8
    assert (large["amount_to_card_mean"].dropna() > 2).mean() > 0.95


def test_compromised_cards_pay_several_times_their_usual_for_weeks(table: pd.DataFrame) -> None:
    """A card's frauds are several payments over days, each above its mean."""
    taken = frauds(table, "compromised_card")
    by_card = taken.groupby("card_id")["time"]
    span = by_card.max() - by_card.min()

    assert 2 < taken["amount_to_card_mean"].median() < 8
    assert by_card.size().min() >= 5
    assert pd.Timedelta(days=3) < span.median() < pd.Timedelta(days=60)


def test_compromised_terminals_see_many_cards_for_weeks(table: pd.DataFrame) -> None:
    """A few physical terminals, many cards each, within a month, and honest payments beside."""
    taken = frauds(table, "compromised_terminal")
    by_terminal = taken.groupby("terminal_id")
    span = by_terminal["time"].max() - by_terminal["time"].min()
    shop = table[table["terminal_id"].isin(taken["terminal_id"])]

    assert by_terminal.size().min() >= 12
    assert (by_terminal["card_id"].nunique() > 0.7 * by_terminal.size()).all()
    assert pd.Timedelta(days=7) < span.median() < pd.Timedelta(days=29)
    assert (taken["channel"] != "online").all()
    assert 0.02 < shop["is_fraud"].mean() < 0.98


def test_card_testing_is_a_burst_of_tiny_payments_and_a_large_one(table: pd.DataFrame) -> None:
    """Within an hour on one card and one device: five or more tiny payments online, then a large one."""
    tested = frauds(table, "card_testing")
    bursts = [burst for _, burst in tested.groupby(["card_id", tested["reported_at"].dt.floor("4h")])]
    whole = [burst for burst in bursts if len(burst) >= 6]

    assert (tested["channel"] == "online").all()
    assert len(whole) >= 2
    for _, card in tested.groupby("card_id"):
        tiny, large = card[card["amount"] < 3], card[card["amount"] >= 3]
        gaps = tiny["time"].diff().dt.total_seconds().dropna()
        assert len(tiny) >= 5 * len(large)
        assert (gaps < 30).mean() > 0.8
        assert large["amount"].min() > 10 * tiny["amount"].max()
        assert card["time"].iloc[-1] == large["time"].iloc[-1]


def test_account_takeover_is_online_far_away_on_a_new_device(table: pd.DataFrame) -> None:
    """Another country than the card's own, a device that no honest payment used."""
    taken = frauds(table, "account_takeover")
    own = table[table["is_fraud"] == 0].groupby("card_id")["country"].agg(lambda seen: seen.mode()[0])
    used = set(table.loc[table["is_fraud"] == 0, "device"].dropna())
    stolen = taken["country"].dropna()

    assert (taken["channel"] == "online").all()
    assert (stolen != taken.loc[stolen.index, "card_id"].map(own)).mean() > 0.9
    assert not used & set(taken["device"].dropna())
    assert taken["distance_from_usual_km"].median() > 300
    assert taken["new_device"].mean() > 0.8


def test_honest_people_are_odd_too(honest: pd.DataFrame) -> None:
    """They travel, buy a new phone, buy something dear, and pay twice within minutes."""
    assert 0.005 < (honest["distance_from_usual_km"] > 1000).mean() < 0.1
    assert 0.002 < honest["new_device"].mean() < 0.05
    assert 0.001 < (honest["amount_to_card_mean"] > 8).mean() < 0.03
    assert 0.05 < (honest["minutes_since_last"] < 60).mean() < 0.3
    assert (honest["amount"] < 3).mean() > 0.01


def test_honest_habits_drift(honest: pd.DataFrame) -> None:
    """Some cards pay twice or half as much at the end as at the beginning; most do not."""
    time, payments = honest["time"], honest.groupby("card_id")["amount"].transform("size")
    late = (time > time.median()).map({True: "late", False: "early"})
    busy = payments > 200
    level = np.log(honest.loc[busy, "amount"]).groupby([honest["card_id"], late]).mean().unstack()
    change = (level["late"] - level["early"]).abs()

    assert change.median() < 0.2
    assert change.max() > 0.35


def test_payments_follow_the_day_the_week_and_christmas(honest: pd.DataFrame) -> None:
    """Nights are quiet, Fridays busier than Sundays, the weeks before Christmas busier than those after."""
    time = honest["time"]
    of_day = time.dt.hour.value_counts(normalize=True)
    of_week = time.dt.day_of_week.value_counts()
    before = time.between("2024-12-09", "2024-12-23").sum()
    after = time.between("2025-01-06", "2025-01-20").sum()

    assert of_day[[2, 3, 4]].sum() < 0.04
    assert of_day[[12, 13, 17, 18]].sum() > 0.2
    assert of_week[4] > 1.25 * of_week[6]
    assert before > 1.2 * after


def test_amounts_have_a_realistic_tail(honest: pd.DataFrame) -> None:
    """The mean is well above the median, the largest far above, none is zero, all are in cents."""
    amount = honest["amount"]

    assert 20 < amount.median() < 50
    assert amount.mean() > 1.5 * amount.median()
    assert amount.max() > 50 * amount.median()
    assert amount.min() >= 0.5
    assert np.allclose(amount * 100, np.round(amount * 100))


def test_income_and_taste_belong_to_the_card(honest: pd.DataFrame) -> None:
    """What a card paid in the odd payments tells something of what it paid in the even ones."""
    half = honest.groupby("card_id").cumcount() % 2
    level = np.log(honest["amount"]).groupby([honest["card_id"], half]).mean().unstack().dropna()

    assert level[0].corr(level[1]) > 0.7


def test_devices_are_missing_at_the_chip_reader(table: pd.DataFrame) -> None:
    """A chip has no device, an online payment nearly always, and other gaps are few."""
    missing = table["device"].isna().groupby(table["channel"]).mean()
    others = table[["merchant_category", "country"]].isna().mean()

    assert missing["chip"] == 1.0
    assert 0 < missing["online"] < 0.01
    assert 0.3 < missing["contactless"] < 0.95
    assert ((others > 0) & (others < 0.01)).all()
    assert table[["amount", "time", "card_id", "terminal_id", "channel", "currency"]].notna().all(axis=None)


def test_missing_values_do_not_give_frauds_away(table: pd.DataFrame) -> None:
    """Within a channel a fraud's place is missing as often as an honest one's."""
    online = table[table["channel"] == "online"]
    share = online["latitude"].isna().groupby(online["is_fraud"]).mean()

    assert share[1] == pytest.approx(share[0], abs=0.05)


def test_a_terminal_stays_where_it_is(honest: pd.DataFrame) -> None:
    """A shop has one place, one country and one category; currency follows the country."""
    shops = honest[honest["channel"] != "online"].groupby("terminal_id")

    for column in ("latitude", "longitude", "country", "merchant_category"):
        assert (shops[column].nunique() <= 1).all()
    assert (honest.groupby("country")["currency"].nunique() == 1).all()


def test_names_say_nothing_about_fraud(table: pd.DataFrame) -> None:
    """The numbers in the names of cards, terminals and devices do not rank frauds."""
    for column in ("card_id", "terminal_id", "device"):
        rows = table[table[column].notna()]
        number = rows[column].str[1:].astype(int)
        assert abs(roc_auc_score(rows["is_fraud"], number) - 0.5) < 0.2


def test_rows_alone_tell_a_fair_share_but_not_all(table: pd.DataFrame) -> None:
    """A forest that knows nothing of frauds ranks them far above chance and far below perfection."""
    from sklearn.ensemble import IsolationForest

    X = table[["amount", *HISTORY_COLUMNS]].assign(hour=table["time"].dt.hour, online=table["channel"] == "online")
    X = X.astype(float).fillna(X.median()).to_numpy()
    forest = IsolationForest(n_estimators=50, random_state=0).fit(X)
    risk = -forest.score_samples(X)

    assert 0.8 < roc_auc_score(table["is_fraud"], risk) < 0.98
    assert 0.15 < average_precision_score(table["is_fraud"], risk) < 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows expected a whole number of at least 1, got 0"),
        ({"rows": 10.5}, "rows expected a whole number"),
        ({"rows": True}, "rows expected a whole number"),
        ({"seed": -1}, "seed expected a whole number of at least 0, got -1"),
        ({"seed": None}, "seed expected a whole number"),
        ({"days": 0}, "days expected a whole number of at least 1"),
        ({"days": 10**6}, "days expected a whole number of at most 36500"),
        ({"fraud_rate": 0.6}, "fraud_rate expected a share from 0 to 0.5, got 0.6"),
        ({"fraud_rate": math.nan}, "fraud_rate expected a share"),
        ({"start": "2024-10-01"}, "start expected a datetime without a time zone, got '2024-10-01'"),
        ({"start": pd.NaT}, "start expected a datetime"),
        ({"start": datetime(2024, 10, 1, tzinfo=UTC)}, "start expected a datetime without a time zone"),
        ({"start": datetime.fromisoformat("9999-12-31")}, "leave the years 1700 to 2250"),
    ],
)
def test_simulate_refuses_arguments_without_meaning(change: dict[str, Any], message: str) -> None:
    """Each bad argument is named with what was expected."""
    arguments: dict[str, Any] = {"rows": 100, "seed": 1, **change}

    with pytest.raises(SettingError, match=message):
        simulate(arguments.pop("rows"), **arguments)


def test_scenarios_are_listed() -> None:
    """The public list names the five patterns."""
    assert SCENARIOS == (
        "large_amount",
        "compromised_terminal",
        "compromised_card",
        "card_testing",
        "account_takeover",
    )
