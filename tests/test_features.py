"""Point-in-time features, against a slow oracle that only looks at the definition."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import DataError, SchemaError, SettingError
from detector.features import Feature, FeatureSet, History, Money, join
from detector.features.events import stable
from detector.features.integers import lasting_code

LINES = (
    "count by card over 10s, 1m",
    "count by card over 1m with row",
    "sum of amount by card over 1m with row",
    "mean of amount by card over 10s, 1m",
    "std of amount by card over 1m",
    "max of amount by card over 10s, 1m",
    "ratio of amount by card over 1m",
    "zscore of amount by card over 1m",
    "distinct of shop by card over 10s, 1m",
    "distinct of shop by card over 1m with row",
    "new of shop by card over 10s",
    "since by card over 1m",
    "speed of latitude, longitude by card over 1m",
    "mean of amount by shop over 1m delay 5s",
    "distinct of card by shop over 1m delay 5s",
    "count by card, shop over 1m",
    "frauds by shop over 30s delay 5s",
    "risk by shop over 30s delay 5s",
    "last 2 of amount by card over 1m",
    "gap 2 by card over 1m",
    "code 2 of shop by card over 1m",
)


def feature_set(**changes):
    given = {"time": "time", "key": "id", "label": "fraud", "reported": "reported", "most_events": 4} | changes
    return FeatureSet(LINES, **given)


def seconds(since):
    return pd.Timestamp("2024-01-01") + pd.to_timedelta(since, unit="s")


@st.composite
def payments(draw):
    """Few cards, shops and seconds, so that ties, gaps and full windows are common."""
    size = draw(st.integers(1, 14))

    def column(values):
        return draw(st.lists(values, min_size=size, max_size=size))

    amounts = st.one_of(st.none(), st.integers(-500, 3000).map(lambda cents: cents / 100))
    time = np.array(column(st.integers(0, 90)))
    delay = np.array(column(st.one_of(st.none(), st.integers(0, 60))), dtype=float)
    return pd.DataFrame(
        {
            "id": draw(st.permutations(range(size))),
            "time": seconds(time),
            "card": pd.array(column(st.sampled_from(["a", "b", None])), dtype="str"),
            "shop": pd.array(column(st.sampled_from(["x", "y", "z", None])), dtype="str"),
            "amount": np.array(column(amounts), dtype=float),
            "latitude": np.array(column(st.sampled_from([50.0, 50.5, None])), dtype=float),
            "longitude": np.array(column(st.sampled_from([9.0, 9.25])), dtype=float),
            "fraud": np.array(column(st.sampled_from([0.0, 1.0, None])), dtype=float),
            "reported": seconds(time + delay),
        }
    )


def oracle(rows, features):
    """Each feature of each row straight from the definition, one event after the other."""
    events = rows.assign(row=range(len(rows))).sort_values(["time", "id"]).to_dict("records")
    found = {feature.name: [math.nan] * len(rows) for feature in features.all}
    for feature in features.all:
        for place, row in enumerate(events):
            if any(pd.isna(row[name]) for name in feature.by):
                continue
            before = [event for event in events[:place] if all(event[name] == row[name] for name in feature.by)]
            past = before[-features.most_events :] + ([row] if feature.with_row else [])
            age = [(row["time"] - event["time"]) // pd.Timedelta("1us") for event in past]
            window = [
                event
                for event, old in zip(past, age, strict=True)
                if old < feature.window + feature.delay and old >= feature.delay
            ]
            found[feature.name][row["row"]] = slow(feature, row, window)
    return pd.DataFrame(found, index=rows.index)


def slow(feature, row, window):  # noqa: C901 - one case a measure
    """One number, by the words of the definition."""
    of = feature.of[0] if feature.of else None
    known = [event[of] for event in window if of and not pd.isna(event[of])]
    mean = sum(round(100 * value) for value in known) / (len(known) * 100) if of == "amount" and known else math.nan
    match feature.measure:
        case "count":
            return len(window)
        case "sum":
            return sum(round(100 * value) for value in known) / 100
        case "mean":
            return mean
        case "std":
            return deviation(known, mean)
        case "max":
            return max(known, default=math.nan)
        case "ratio":
            return row[of] / mean if mean > 0 else math.nan
        case "zscore":
            spread = max(deviation(known, mean), 0.1 * abs(mean), 0.01)
            return (row[of] - mean) / spread if len(known) > 1 else math.nan
        case "distinct":
            return len(set(known))
        case "new":
            return math.nan if pd.isna(row[of]) or not window else float(row[of] not in known)
        case "since":
            return (row["time"] - window[-1]["time"]).total_seconds() / 60 if window else math.nan
        case "last" | "gap" | "code":
            return slow_event(feature, row, window)
        case "speed":
            return slow_speed(row, window)
        case "frauds" | "risk":
            moment = row["time"] - pd.Timedelta(microseconds=feature.delay)
            frauds = sum(event["fraud"] == 1 and event["reported"] <= moment for event in window)
            return frauds if feature.measure == "frauds" else frauds / len(window) if window else math.nan
    raise AssertionError(feature.measure)


def deviation(known, mean):
    return math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1)) if len(known) > 1 else math.nan


def slow_event(feature, row, window):
    events = [*window, row]
    if feature.back >= len(events):
        return math.nan
    event = events[-1 - feature.back]
    if feature.measure == "gap":
        return (events[-feature.back]["time"] - event["time"]).total_seconds() / 60
    value = event[feature.of[0]]
    return math.nan if pd.isna(value) else lasting_code(value) % 16 if feature.measure == "code" else value


def slow_speed(row, window):
    past = [event for event in window if not pd.isna(event["latitude"])]
    if not past or pd.isna(row["latitude"]):
        return math.nan
    there, here = ([math.radians(e["latitude"]), math.radians(e["longitude"])] for e in (past[-1], row))
    half = math.sin((here[0] - there[0]) / 2) ** 2
    half += math.cos(here[0]) * math.cos(there[0]) * math.sin((here[1] - there[1]) / 2) ** 2
    hours = max((row["time"] - past[-1]["time"]).total_seconds(), 60) / 3600
    return 2 * 6371 * math.asin(math.sqrt(half)) / hours


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(payments())
def test_features_are_what_the_definition_says(rows):
    """Every measure equals a slow search through all earlier events, ties, gaps and full windows included."""
    features = feature_set()

    computed = features.compute(rows)[list(features.names)]

    pd.testing.assert_frame_equal(computed, oracle(rows, features), check_dtype=False, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(payments(), st.data())
def test_no_feature_knows_the_future(rows, data):
    """Changing any later row, and any label not yet reported, changes no feature of a row."""
    features = feature_set()
    chosen = data.draw(st.integers(0, len(rows) - 1))
    row = rows.iloc[chosen]
    later = (rows["time"] > row["time"]) | ((rows["time"] == row["time"]) & (rows["id"] > row["id"]))
    changed = rows.copy()
    changed.loc[later, ["amount", "latitude"]] = 77.0
    changed.loc[later, "card"] = data.draw(st.sampled_from(["a", "b"]))
    changed.loc[later, "shop"] = data.draw(st.sampled_from(["x", "w"]))
    unreported = rows["reported"].isna() | (rows["reported"] > row["time"])
    changed.loc[unreported, "fraud"] = 1.0
    if data.draw(st.booleans()):
        changed = changed[~later | (changed.index == chosen)]

    before = features.compute(rows).loc[[chosen], list(features.names)]
    after = features.compute(changed).loc[[chosen], list(features.names)]

    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_rows_come_back_in_the_order_they_came():
    """The order of the table changes nothing, and the index stays."""
    rows = table(60)
    shuffled = rows.sample(frac=1, random_state=1)
    features = feature_set()

    computed = features.compute(shuffled)

    assert computed.index.equals(shuffled.index)
    pd.testing.assert_frame_equal(computed.sort_index(), features.compute(rows), check_exact=True)


def test_pieces_of_a_table_answer_as_the_whole(monkeypatch):
    """How many entities are measured at once, and on which core, changes nothing."""
    rows = table(400, cards=8)
    features = feature_set()
    whole = features.compute(rows)

    monkeypatch.setattr(join, "PIECE", 16)

    pd.testing.assert_frame_equal(features.compute(rows), whole, check_exact=True)


def test_codes_of_any_size_are_sorted_stably():
    """Sorting by halves is what NumPy's own stable sort gives, below and above 16 and 32 bits."""
    rng = np.random.default_rng(0)
    for largest in (5, 1 << 17, 1 << 40):
        codes = rng.integers(0, largest, 500) // 3
        assert (stable(codes) == np.argsort(codes, kind="stable")).all()


def table(size, *, seed=0, cards=4):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 3 * size, size))
    return pd.DataFrame(
        {
            "id": np.arange(size),
            "time": seconds(time),
            "card": pd.array(rng.choice(list("abcdefgh")[:cards], size), dtype="str"),
            "shop": pd.array(rng.choice(list("xyz"), size), dtype="str"),
            "amount": rng.integers(1, 100_000, size) / 100,
            "latitude": 50 + rng.random(size).round(4),
            "longitude": 9 + rng.random(size).round(4),
            "fraud": (rng.random(size) < 0.2).astype(float),
            "reported": seconds(time + rng.integers(0, 60, size)),
        }
    )


@pytest.mark.parametrize("step", [1, 1_000_000])
def test_many_entities_and_long_times_fit(step):
    """Where entity and microseconds do not fit into 64 bits together, the result is the same."""
    times = np.array([0, step, 5 * step, 3 * 10**15])
    one = pd.DataFrame({"time": np.datetime64("1990-01-01", "us") + times.astype("timedelta64[us]"), "card": 0})
    many = pd.concat([one] * 3_000, ignore_index=True).assign(card=np.repeat(np.arange(3_000), 4))
    features = FeatureSet(("count by card over 5s", "count by card over 366d"), time="time")
    names = list(features.names)

    count = features.compute(many)[names].to_numpy()

    expected = features.compute(one)[names].to_numpy()
    assert (count.reshape(-1, 4, 2) == expected).all()


def test_spread_of_large_amounts_is_exact():
    """Sums of squares beyond 64 bits are summed up in whole numbers of any size."""
    amounts = np.array([21_000_000.0, -21_000_000.0] * 20 + [5.0])
    rows = pd.DataFrame({"time": seconds(range(41)), "card": "a", "amount": amounts})
    features = FeatureSet(("std of amount by card over 1h",), time="time")

    spread = features.compute(rows)["amount_std_1h_by_card"].iloc[-1]

    assert spread == pytest.approx(np.std(amounts[:-1], ddof=1), rel=1e-15)


def test_a_busy_entity_counts_at_most_so_many_events():
    """An entity with a million events costs no more than others, and its counts stop at the limit."""
    size = 1_000_000
    rows = pd.DataFrame({"time": seconds(np.arange(size)), "card": "a", "amount": 1.0, "shop": np.arange(size) % 7})
    lines = ("count by card over 90d", "distinct of shop by card over 90d", "max of amount by card over 90d")
    features = FeatureSet(lines, time="time", most_events=2_000)

    last = features.compute(rows).iloc[-1]

    assert last[list(features.names)].tolist() == [2_000, 7, 1]


def test_calendar_reads_the_clock():
    """Night, weekend and hour come from the time of the row."""
    rows = pd.DataFrame({"time": pd.to_datetime(["2024-06-01 03:00", "2024-06-03 12:30"]), "card": "a"})
    features = FeatureSet((), time="time", calendar=("hour", "night", "weekend", "hour_sin"))

    computed = features.compute(rows)

    assert computed["hour"].tolist() == [3, 12]
    assert computed["night"].tolist() == computed["weekend"].tolist() == [1, 0]
    assert computed["hour_sin"].tolist() == pytest.approx([math.sin(math.pi / 4), math.sin(2 * math.pi * 12.5 / 24)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mean amount by card over 1d", "mean amount"),
        ("mean by card over 1d", "mean expected one column behind `of`, received no column"),
        ("avg of amount by card over 1d", "There is no measure 'avg'"),
        ("count by card over 1w", "received '1w'"),
        ("count by card over 0d", "received '0d'"),
        ("count by card over 400d", "longer than 366 days"),
        ("ratio of amount by card over 1d with row", "never counts the row itself"),
        ("since by card over 1d delay 1d", "knows no delay"),
        ("count by card over 1d delay 1d with row", "Take `with row` or `delay` away"),
        ("risk by card over 1d", "no label column"),
        ("speed of latitude by card over 1d", "speed expected 2 columns"),
        ("last of amount by card over 1d", "last expected 1 to 100 events, received 0.*`last 8 of amount by card_id"),
        ("gap 101 by card over 1d", "gap expected 1 to 100 events, received 101"),
        ("mean 3 of amount by card over 1d", "mean expected no number of events, received 3"),
    ],
)
def test_a_line_that_means_nothing_is_refused(line, message):
    """A mistake in a definition says what was expected, with an example."""
    with pytest.raises(SettingError, match=message):
        FeatureSet((line,), time="time")


def test_a_missing_column_names_the_nearest():
    """A feature of a column that is not there says which was probably meant."""
    with pytest.raises(SchemaError, match=r"The feature '\w+' needs the column 'amuont'. Did you mean 'amount'"):
        FeatureSet(("mean of amuont by card over 1d",), time="time").compute(table(3))


def test_a_column_that_is_there_already_is_refused():
    """A feature never replaces a column of the table."""
    features = FeatureSet(("count by card over 1d",), time="time")
    with pytest.raises(SchemaError, match="has a column 'count_1d_by_card' already"):
        features.compute(features.compute(table(3)))


def test_a_row_without_time_is_refused():
    """Without a time no row has a past."""
    rows = table(3)
    rows.loc[1, "time"] = pd.NaT
    with pytest.raises(DataError, match="a date in every row of 'time'.*1 missing"):
        feature_set().compute(rows)


def test_a_definition_survives_json():
    """What a bundle keeps of a definition is all of it."""
    features = feature_set(money=Money("amount", currency="currency", mixed="convert", rates={"EUR": 1.0}))
    assert FeatureSet.from_dict(features.to_dict()) == features
    assert all(isinstance(feature, Feature) for feature in features.features)


def test_a_refund_counts_as_configured():
    """A negative amount lowers the sum, or is left out of it, or quarantines the row."""
    rows = pd.DataFrame({"time": seconds(range(3)), "card": "a", "amount": [10.0, -4.0, 1.0]})

    def total(negative):
        features = FeatureSet(("sum of amount by card over 1h",), time="time", money=Money(negative=negative))
        return features.compute(rows)["amount_sum_1h_by_card"].iloc[-1]

    assert total("keep") == 6.0
    assert total("skip") == 10.0
    with pytest.raises(DataError, match=r"the amount is negative, and `negative` is set to refuse \(row 1\)"):
        total("refuse")


def test_an_amount_of_nothing_counts_as_configured():
    """A check of a card lowers the mean, or is left out of it, or quarantines the row."""
    rows = pd.DataFrame({"time": seconds(range(3)), "card": "a", "amount": [10.0, 0.0, 1.0]})

    def mean(zero):
        features = FeatureSet(("mean of amount by card over 1h",), time="time", money=Money(zero=zero))
        return features.compute(rows)["amount_mean_1h_by_card"].iloc[-1]

    assert mean("keep") == 5.0
    assert mean("skip") == 10.0
    with pytest.raises(DataError, match=r"the amount is zero, and `zero` is set to refuse \(row 1\)"):
        mean("refuse")


def test_an_entity_never_seen_has_no_history():
    """Its counts are 0 and all else is missing, in a table and online."""
    features = FeatureSet(("count by card over 1h", "mean of amount by card over 1h"), time="time")
    history = History(features)
    history.learn(table(20))
    new = table(1).assign(card="never seen", time=seconds(1_000))
    for found in (history.push_one(new.iloc[0].to_dict()), features.compute(new).iloc[0]):
        assert found["count_1h_by_card"] == 0
        assert math.isnan(found["amount_mean_1h_by_card"])


def test_mixed_currencies_are_refused_converted_or_kept_apart():
    """Amounts of two currencies are never added up by mistake."""
    rows = pd.DataFrame({"time": seconds(range(4)), "card": "a", "amount": [10.0, 400.0, 20.0, 800.0]})
    rows["currency"] = ["EUR", "SEK", "EUR", "SEK"]

    def ratio(**rules):
        money = Money(currency="currency", **rules)
        features = FeatureSet(("ratio of amount by card over 1h",), time="time", money=money)
        return features.compute(rows)["amount_ratio_1h_by_card"].tolist()[2:]

    assert ratio(mixed="apart") == [2.0, 2.0]
    assert ratio(mixed="convert", rates={"EUR": 1.0, "SEK": 0.1}) == pytest.approx([20 / 25, 80 / (70 / 3)])
    with pytest.raises(DataError, match=r"'SEK' is not 'EUR'; give its rate"):
        ratio(mixed="refuse")
    with pytest.raises(DataError, match=r"'SEK' is not 'EUR'"):
        ratio(mixed="convert", rates={"EUR": 1.0})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"mixed": "apert"}, "Did you mean 'apart'"),
        ({"negative": "drop"}, "negative knows no 'drop'"),
        ({"currency": "c", "mixed": "convert"}, "no rate is given"),
        ({"rates": {"EUR": 0.0}}, "must be a positive number"),
    ],
)
def test_rules_of_money_that_mean_nothing_are_refused(rules, message):
    """A rule that is not known, or lacks what it needs, is an error at once."""
    with pytest.raises(SettingError, match=message):
        Money(**rules)


def test_rows_that_cannot_be_used_are_named_beforehand():
    """A clock that runs ahead and an amount beyond counting are quarantined with their reason."""
    rows = table(3).assign(amount=[1.0, 1e12, 2.0])
    now = rows["time"].iloc[1]
    rows.loc[2, "time"] = now + pd.Timedelta("1h")

    reasons = feature_set().faults(rows, now=now).tolist()

    large = "amount: too large to count, at most 21,474,836 with 2 `features.decimals`"
    assert reasons == ["", large, "time: lies in the future by more than 5m"]
    with pytest.raises(DataError, match="amount 1e\\+12 is beyond"):
        feature_set().compute(rows)


def test_rows_without_an_entity_have_no_history():
    """An unknown card has missing features, and is in nobody else's past."""
    rows = table(3).assign(card=pd.array([None, None, "a"], dtype="str"))
    count = FeatureSet(("count by card over 1h",), time="time").compute(rows)["count_1h_by_card"]
    assert count.isna().tolist() == [True, True, False]


def test_a_history_goes_to_another_process_as_it_is() -> None:
    """Pickled and restored it goes on as the first does; Spark's tasks get it so."""
    history = History(FeatureSet(("mean of amount by card over 30d",), time="time", key="id"), lateness="1h")
    rows = pd.DataFrame({"id": ["a", "b"], "time": pd.Timestamp("2024-01-01"), "card": "c", "amount": [10.0, 20.0]})
    history.push(rows)

    other = pickle.loads(pickle.dumps(history))  # noqa: S301 - our own

    later = {"id": "d", "time": pd.Timestamp("2024-01-02"), "card": "c", "amount": 1.0}
    tails = [[store.tails for store in past.stores.values()] for past in (other, history)]
    assert (other.latest, other.lateness, tails[0]) == (history.latest, history.lateness, tails[1])
    assert other.push_one(later) == history.push_one(later) == {"amount_mean_30d_by_card": 15.0}
