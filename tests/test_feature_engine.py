"""Features in the jobs: from raw rows, with a past beside the detector."""

from pathlib import Path

import pandas as pd
import pytest

from detector.errors import DataError, SchemaError, SettingError
from detector.explain.reason import Reason
from detector.schema import Schema
from pipelines.config import load_config
from pipelines.features.engine import FeatureEngine
from pipelines.features.wording import wording_of
from pipelines.simulate import simulate_transactions

CONFIG = """\
source: {path: payments.csv}
columns: {key: transaction_id, time: time, entity: card_id, label: is_fraud}
features:
  history:
    - ratio of amount by card_id over 30d
    - distance of latitude, longitude by card_id over 30d
    - risk by terminal_id over 28d delay 1d
  calendar: [night]
  reported: reported_at
"""
NAMES = [
    "amount_ratio_30d_by_card_id",
    "latitude_longitude_distance_30d_by_card_id",
    "risk_28d_by_terminal_id_delay_1d",
    "night",
]


def config_of(folder: Path, text: str = CONFIG):
    (folder / "detector.yaml").write_text(text)
    return load_config(folder)


@pytest.fixture(scope="module")
def rows():
    return simulate_transactions(1_500, seed=1, days=30, fraud_rate=0.05)


def test_training_and_scoring_see_the_same_past(rows, tmp_path):
    """What scoring adds to fresh rows after a restart is what one table would have had."""
    config = config_of(tmp_path)
    text = rows.astype({"time": "str", "amount": "str"})
    FeatureEngine(config).learn(text[:1_000])
    before = FeatureEngine(config)
    before.learn(text[:1_000])
    before.save(tmp_path)

    after = FeatureEngine.load(config, tmp_path)
    fresh = pd.concat([after.push(text[at : at + 250]).rows for at in (1_000, 1_250)])

    whole = FeatureEngine(config).learn(text).rows
    pd.testing.assert_frame_equal(fresh[NAMES], whole[1_000:][NAMES], check_exact=True)
    assert whole[NAMES].notna().mean().min() > 0.3


@pytest.mark.parametrize("megabytes", [0, 500])
def test_very_many_rows_are_learnt_in_parts(rows, tmp_path, monkeypatch, megabytes):
    """On disk or in memory, and whatever the order: fresh rows have the features that one table would give them."""
    config = config_of(tmp_path, CONFIG.replace("  calendar", f"  most_megabytes: {megabytes}\n  calendar"))
    monkeypatch.setattr("pipelines.features.stored_history.LEARNT_AT_ONCE", 150)
    before = FeatureEngine(config)
    before.learn(rows[:1_000].sample(frac=1, random_state=1))
    assert before.history.is_spilled == (megabytes == 0)
    before.save(tmp_path)

    fresh = FeatureEngine.load(config, tmp_path).push(rows[1_000:]).rows

    whole = FeatureEngine(config).compute(rows).rows
    pd.testing.assert_frame_equal(fresh[NAMES], whole[1_000:][NAMES], check_exact=True)


def test_rows_that_cannot_have_features_are_quarantined(rows, tmp_path):
    """A refused amount, a clock that runs ahead and a late row leave with their reason; broken text stays for clean."""
    engine = FeatureEngine(config_of(tmp_path, CONFIG + "  negative: refuse\n"))
    engine.learn(rows[:1_000])
    fresh = rows[1_000:1_005].astype({"time": object, "amount": object})
    fresh.loc[1_000, "amount"] = -3.0
    fresh.loc[1_001, "time"] = pd.Timestamp("2030-01-01")
    fresh.loc[1_002, "time"] = rows["time"].iloc[0]
    fresh.loc[1_003, "time"] = "some day"

    found = engine.push(fresh, now=pd.Timestamp(rows["time"].iloc[1_005], tz="UTC"))

    assert found.quarantine["row"].tolist() == [1_000, 1_001, 1_002]
    reasons = found.quarantine["reason"].tolist()
    assert [reason.split(":")[0] for reason in reasons] == ["amount", "time", "time"]
    assert "too late" in reasons[2]
    assert found.rows.index.tolist() == [1_003, 1_004]
    assert found.rows.loc[1_003, NAMES].isna().all()


def test_rows_to_score_need_no_label(rows, tmp_path):
    """Fresh rows have no truth yet; what was reported before still counts."""
    engine = FeatureEngine(config_of(tmp_path))
    engine.learn(rows[:1_000])
    fresh = rows[1_000:].drop(columns=["is_fraud", "reported_at"])
    assert engine.push(fresh).rows[NAMES[2]].max() > 0


def test_features_join_the_schema(rows, tmp_path):
    """The detector learns from the features, and never from the time of a report."""
    engine = FeatureEngine(config_of(tmp_path))
    schema = engine.schema(Schema(numeric=("amount",), datetime=("reported_at",)))
    assert schema == Schema(numeric=("amount", *NAMES))


def test_reasons_speak_of_the_history(rows, tmp_path):
    """A reason that is a feature says itself in words."""
    (reason,) = wording_of(config_of(tmp_path)).reasons([Reason(NAMES[0], "5.2", "", 0.5)])
    assert reason.text == "amount 5.2 times its 30-day mean of card_id; 50 % of the risk"


def test_a_past_of_other_features_is_refused(rows, tmp_path):
    """After a change of the features the past must be learnt again."""
    engine = FeatureEngine(config_of(tmp_path))
    engine.learn(rows[:100])
    engine.save(tmp_path)
    other = config_of(tmp_path, CONFIG.replace("30d", "20d"))
    with pytest.raises(DataError, match="kept for other features"):
        FeatureEngine.load(other, tmp_path)


def test_a_missing_column_is_named(rows, tmp_path):
    """A feature of a column that the rows lack says which."""
    with pytest.raises(SchemaError, match="needs the column 'latitude'"):
        FeatureEngine(config_of(tmp_path)).push(rows.drop(columns="latitude"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CONFIG.replace("ratio of", "ratoi of"), "Did you mean 'ratio'"),
        (CONFIG + '  rates: ["EUR"]\n', "received 'EUR'"),
        (CONFIG + "  currency: currency\n  mixed: convert\n", "no rate is given"),
        (CONFIG.replace("[night]", "[nigth]"), "Did you mean 'night'"),
        (CONFIG.replace("time: time, ", ""), "features need a time"),
        (CONFIG.replace("key: transaction_id, ", "").replace(", label: is_fraud", ""), "no label column is named"),
        (
            CONFIG.replace(", label: is_fraud", "") + "train: {head: {verdicts: false}}\n",
            "risk_28d_by_terminal_id_delay_1d is made of labels.*Name `columns.label`",
        ),
    ],
)
def test_a_configuration_without_meaning_is_refused(tmp_path, text, message):
    """Mistakes in the features are reported before anything is read."""
    with pytest.raises(SettingError, match=message):
        FeatureEngine(config_of(tmp_path, text))


@pytest.mark.parametrize("reported", ["time", "is_fraud"])
def test_a_past_is_kept_where_one_column_has_two_meanings(rows, tmp_path, reported):
    """A column that says both when a row was and when it was reported is written down once."""
    engine = FeatureEngine(config_of(tmp_path, CONFIG.replace("reported_at", reported)))
    engine.learn(rows[:100])

    engine.save(tmp_path)

    assert list(pd.read_parquet(tmp_path / "rows.parquet")).count(reported) == 1


@pytest.mark.parametrize(
    "text",
    [
        CONFIG.replace("label: is_fraud", "label: wrong"),
        CONFIG.replace("reported: reported_at", "reported: seen_at"),
        CONFIG + "train: {head: {verdicts: false}}\n",
        CONFIG + "train: {head: {reports: {source: {path: chargebacks.csv}}}}\n",
    ],
    ids=["label", "reported", "verdicts", "reports"],
)
def test_a_past_of_other_sources_is_refused(rows, tmp_path, text):
    """Where another's word counts by now, marks of the old one would stay: the past must be learnt again."""
    engine = FeatureEngine(config_of(tmp_path))
    engine.learn(rows[:100])
    engine.save(tmp_path)

    with pytest.raises(DataError, match="with other labels, reports or verdicts. Train again"):
        FeatureEngine.load(config_of(tmp_path, text), tmp_path)


def test_a_past_goes_on_where_reports_have_moved(rows, tmp_path):
    """The same reports in another folder are the same word; without features made of labels nobody's word counts."""
    reports = "train: {head: {reports: {source: {path: %s}}}}\n"
    engine = FeatureEngine(config_of(tmp_path, CONFIG + reports % "here/chargebacks.csv"))
    moved = FeatureEngine(config_of(tmp_path, CONFIG + reports % "there/chargebacks.csv"))
    assert moved.continues(engine.history)

    plain = CONFIG.replace("    - risk by terminal_id over 28d delay 1d\n", "")
    unlabelled = FeatureEngine(config_of(tmp_path, plain.replace("is_fraud", "wrong")))
    assert unlabelled.continues(FeatureEngine(config_of(tmp_path, plain)).history)


def test_rows_of_an_earlier_training_are_not_kept(rows, tmp_path):
    """Once no feature is made of labels, nothing is to be reported of rows: their keys do not lie around."""
    for text in (CONFIG, CONFIG.replace("    - risk by terminal_id over 28d delay 1d\n", "")):
        engine = FeatureEngine(config_of(tmp_path, text))
        engine.learn(rows[:100])
        engine.save(tmp_path)
        assert (tmp_path / "rows.parquet").exists() == ("risk" in text)
