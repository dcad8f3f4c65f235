"""Features in words, and the sequence view."""

import numpy as np
import pandas as pd
import pytest

from detector.errors import SchemaError, SettingError
from detector.explain import Reason
from detector.features import Feature, in_own_words, latest_events
from detector.features.words import say
from detector.fuse import RARITY, Fusion
from detector.schema import Schema


@pytest.mark.parametrize(
    ("line", "value", "text"),
    [
        ("ratio of amount by card over 30d", 5.2, "amount 5.2 times its 30-day mean of card"),
        ("zscore of amount by card over 30d", -4.1, "amount 4.1 deviations below its 30-day mean of card"),
        ("count by card over 1h", 12, "events of this card 12 in the hour before"),
        ("count by card over 7d delay 7d", 3, "events of this card 3 in the 7 days that end 7 days before"),
        ("distinct of shop by card over 1d", 9, "different shop of this card 9 in the day before"),
        ("new of device by card over 90d", 0, "device seen with this card before"),
        ("since by card over 90d", 0.5, "last event of this card less than a minute before"),
        ("since by card over 90d", 600, "last event of this card 10 hours before"),
        ("since by card over 90d", 9000, "last event of this card 6 days before"),
        ("speed of lat, lon by card over 1d", 950, "travel of this card 950 km/h since the last place"),
        ("distance of lat, lon by card over 1d", 12.3, "place of this card 12.3 km from the last"),
        ("risk by shop over 28d delay 7d", 0.12, "known fraud of this shop 12 % in the 28 days that end 7 days before"),
        ("frauds by shop over 28d", 2, "known fraud of this shop 2 in the 28 days before"),
        ("last 1 of amount by card over 7d", 12.5, "amount of this card 1 event before 12.5"),
        ("gap 1 by card over 7d", 3, "time between events of this card now 3 minutes"),
        ("max of amount by card over 7d", 1234.5, "largest amount of this card 1,234 in the 7 days before"),
    ],
)
def test_every_measure_can_say_itself(line, value, text):
    """What was measured and its value read as a sentence."""
    assert " ".join(say(*Feature.parse(line), value)) == text


def test_reasons_keep_what_is_no_feature():
    """Other columns speak for themselves; a missing value stays missing; a share is said in per cent."""
    lines = ("ratio of amount by card over 30d", "risk by shop over 28d", "since by card over 90d")
    features = [feature for line in lines for feature in Feature.parse(line)]
    reasons = [
        Reason("country", "BR", "DE", 0.5),
        Reason(features[0].name, "missing", "about 1", 0.3),
        Reason(features[1].name, "0.12", "about 0.01", 0.2),
        Reason(features[2].name, "3", "about 1440", 0.1),
    ]

    said = in_own_words(reasons, features)

    assert said[0] == reasons[0]
    assert said[1].text == "amount missing, expected about 1; 30 % of the risk"
    assert said[2].text == "known fraud of this shop 12 % in the 28 days before, expected about 1 %; 20 % of the risk"
    assert said[3].text == "last event of this card 3 minutes before, expected about 24 hours; 10 % of the risk"


def test_flags_of_the_calendar_are_said_as_times():
    """Nobody reads "night 1"; a column of that name that is no calendar feature stays what it is."""
    reasons = [Reason("night", "1", "about 0", 0.6), Reason("weekend", "0", "about 1", 0.4)]

    said = in_own_words(reasons, [], calendar=["night", "weekend", "hour"])

    assert said[0].text == "time at night, expected by day; 60 % of the risk"
    assert said[1].text == "time on a working day, expected on a weekend; 40 % of the risk"
    assert in_own_words(reasons, []) == reasons


def events(size=300, seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"card": rng.integers(0, 12, size), "amount": rng.normal(10, 1, size)})
    rows["time"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(size), unit="h")
    return rows


def test_latest_events_look_back_only():
    """Each window ends with its row; a later row changes none before it; the order of the table does not matter."""
    rows, schema = events(), Schema(entity="card", time="time")

    windows = latest_events(rows, schema, ["amount"], k=4)

    assert (windows[:, -1, 0] == rows["amount"]).all()
    past = rows[rows["time"] < rows["time"].median()]
    again = latest_events(past.iloc[::-1], schema, ["amount"], k=4)[::-1]
    np.testing.assert_array_equal(again, windows[past.index])


def test_rows_without_entity_see_only_themselves():
    """An unknown card has no past."""
    rows = events(3).assign(card=pd.array([None, None, None], dtype="str"))
    windows = latest_events(rows, Schema(entity="card", time="time"), ["amount"], k=2)
    assert np.isnan(windows[:, 0]).all()


def test_latest_events_need_entity_time_and_columns():
    """What is missing is named."""
    with pytest.raises(SchemaError, match="need an entity and a time"):
        latest_events(events(3), Schema(entity="card"), ["amount"], k=2)
    with pytest.raises(SchemaError, match="'amuont' is missing"):
        latest_events(events(3), Schema(entity="card", time="time"), ["amuont"], k=2)
    with pytest.raises(SettingError, match="k must be at least 1"):
        latest_events(events(3), Schema(entity="card", time="time"), ["amount"], k=0)


@pytest.mark.slow
def test_a_sequence_encoder_joins_the_row_score():
    """A card that swings where others are steady: no row is odd by itself, the windows are, and so is the fusion."""
    from detector.encoders.recurrent import RecurrentAutoencoder
    from detector.training_choices import Training

    rows, schema = events(600), Schema(entity="card", time="time")
    strange = rows["card"] == 11
    turn = rows[strange].sort_values("time").index
    rows.loc[turn, "amount"] = 10 + np.where(np.arange(len(turn)) % 2, 1.8, -1.8)
    windows = latest_events(rows, schema, ["amount"], k=6).reshape(len(rows), -1)
    encoder = RecurrentAutoencoder(timesteps=6, code=2, units=8, training=Training(epochs=3))
    encoder.fit(windows[~strange])
    row_risk = np.abs(rows["amount"] - 10).to_numpy()

    scores = np.column_stack([row_risk, np.log(-encoder.score_samples(windows))])
    fusion = Fusion.fit(scores[~strange], ("row", "sequence"), (RARITY, RARITY), novelty_weight=1.0)
    risk = fusion.risk(fusion.standardise(scores))

    assert np.isfinite(risk).all()
    assert np.median(risk[strange]) > np.quantile(risk[~strange], 0.8)
