"""The incremental path: the same features as in batch, row by row, from a bounded past."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import BundleError, DataError, SettingError
from detector.features import FeatureSet, History, entity_store, load_history, save_history
from detector.features.excerpt import KnownBy
from tests.test_features import feature_set, payments, seconds, table

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


@settings(max_examples=20, **QUIET)
@given(rows=payments(), data=st.data())
def test_history_agrees_with_batch_to_the_last_bit(rows, data, tmp_path):
    """Batches of any size, single rows, and a restart in between give what one batch gives."""
    features = feature_set()
    rows = rows.sort_values(["time", "id"], ignore_index=True)
    few = data.draw(st.sampled_from([0, entity_store.FEW_TAILS]))
    history, parts, at = History(features), [], 0
    while at < len(rows):
        size = data.draw(st.integers(0, len(rows) - at))
        if size == 0:
            parts.append(pd.DataFrame([history.push_one(rows.iloc[at].to_dict())], index=[at]))
            at += 1
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(entity_store, "FEW_TAILS", few)
                parts.append(history.push(rows.iloc[at : at + size])[list(features.names)])
            at += size
        if data.draw(st.booleans()):
            history = load_history(save_history(history, tmp_path / "history.npz"))

    found = pd.concat(parts)

    pd.testing.assert_frame_equal(found, features.compute(rows)[list(features.names)], check_exact=True)


@settings(max_examples=20, **QUIET)
@given(rows=payments(), data=st.data())
def test_looking_ahead_leaves_the_past_as_it_is(rows, data):
    """Features that are only asked for are those of ``push``, and the past can be asked again."""
    features = feature_set()
    rows = rows.sort_values(["time", "id"], ignore_index=True)
    first = data.draw(st.integers(0, len(rows)))
    history = History(features)
    history.learn(rows[:first])
    before = pickle.dumps(history)

    found = [history.measure(rows[first:], moves=False) for _ in range(2)]

    assert pickle.dumps(history) == before
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], history.push(rows[first:])[list(features.names)].to_numpy().T)


@settings(max_examples=20, **QUIET)
@given(payments(), st.data())
def test_merged_histories_know_what_one_knows(rows, data):
    """Pasts learnt apart, of any rows, join into the past of all."""
    features = feature_set()
    rows = rows.sort_values(["time", "id"], ignore_index=True)
    last = rows.index[-1]
    mine = np.array(data.draw(st.lists(st.booleans(), min_size=last, max_size=last)), dtype=bool)
    first, second = History(features, lateness="2m"), History(features, lateness="2m")
    first.learn(rows[:last][mine])
    second.learn(rows[:last][~mine])

    first.merge(second)

    found = pd.Series(first.push_one(rows.iloc[last].to_dict()))
    pd.testing.assert_series_equal(
        found, features.compute(rows).loc[last, list(features.names)].astype(float), check_exact=True, check_names=False
    )


@settings(max_examples=20, **QUIET)
@given(payments())
def test_a_late_row_gets_the_features_of_its_time(rows):
    """Within the allowed lateness rows may come in any order: the last to come is judged by all before its time."""
    features = feature_set()
    history = History(features, lateness="5m")
    for _, row in rows.iloc[:-1].iterrows():
        history.push_one(row.to_dict())

    found = history.push(rows.iloc[[-1]])[list(features.names)]

    pd.testing.assert_frame_equal(found, features.compute(rows).iloc[[-1]][list(features.names)], check_exact=True)


def test_one_event_and_a_table_agree_on_large_numbers_and_long_pasts():
    """Squares beyond 64 bits, and a past longer than a window holds, come out the same one by one."""
    rows = table(60, cards=2).assign(amount=np.array([21_000_000.0, -21_000_000.0, 5.0] * 20))
    features = feature_set(most_events=7)
    history = History(features)

    found = pd.DataFrame([history.push_one(row) for row in rows.to_dict("records")])

    pd.testing.assert_frame_equal(found, features.compute(rows)[list(features.names)], check_exact=True)


def test_a_row_beyond_the_lateness_is_refused():
    """A row older than what was seen is named, and nothing of its batch is taken."""
    history = History(feature_set(), lateness="10s")
    rows = table(30)
    history.learn(rows)
    known = history.events
    late = rows.iloc[[0, 29]].assign(id=[98, 99])

    with pytest.raises(DataError, match="time: too late, the latest row is of .* already"):
        history.push(late)
    with pytest.raises(DataError, match="too late"):
        history.push_one(late.iloc[0].to_dict())

    assert history.events == known
    assert (history.faults(late) != "").tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": "soon"}, "'soon' is not a date. Quarantine the row"),
        ({"time": None}, "A row needs a time"),
        ({"amount": "much"}, "amount: 'much' is not a number. Quarantine the row"),
        ({"amount": 1e12}, "amount 1e\\+12 is beyond"),
    ],
)
def test_one_row_that_cannot_be_read_is_reported(change, message):
    """Raw rows reach a service online: what is wrong is said of the value, and nothing is taken."""
    history = History(feature_set())
    history.learn(table(30))
    known = history.events

    with pytest.raises(DataError, match=message):
        history.push_one(table(31).iloc[30].to_dict() | change)

    assert history.events == known


def test_a_report_counts_from_the_moment_it_came():
    """A fraud reported later raises the risk of rows after the report and the delay."""
    history = History(FeatureSet(("risk by shop over 1h delay 5s",), time="time", label="fraud"))
    row = {"time": seconds(0), "shop": "x"}
    history.push_one(row)

    found = history.report(pd.DataFrame([row, row | {"shop": "never seen"}]), reported=seconds(20))

    risk = [history.push_one(row | {"time": seconds(at)})["risk_1h_by_shop_delay_5s"] for at in (24, 25)]
    assert found.tolist() == [True, False]
    assert risk == [0.0, 1.0]


def test_a_report_made_again_changes_nothing():
    """Labels may be reported every day; of two events of one moment, one stays honest."""
    history = History(FeatureSet(("frauds by shop over 1h",), time="time", label="fraud"))
    row = {"time": seconds(0), "shop": "x"}
    history.push_one(row)
    history.push_one(row)

    for _ in range(2):
        assert history.report(pd.DataFrame([row]), reported=seconds(1)).all()

    assert history.push_one(row | {"time": seconds(2)})["frauds_1h_by_shop"] == 1.0


def test_the_past_of_a_busy_entity_is_bounded():
    """An entity with a million events takes no more room than the most that a window holds."""
    size = 1_000_000
    rows = pd.DataFrame({"time": seconds(np.arange(size)), "card": "a", "amount": 1.0})
    features = FeatureSet(("mean of amount by card over 90d",), time="time", most_events=500)
    history = History(features)

    history.learn(rows)

    assert history.events <= 501
    found = history.push_one({"time": seconds(size), "card": "a", "amount": 3.0})
    assert found == {"amount_mean_90d_by_card": 1.0}


def test_idle_entities_are_forgotten():
    """Who did nothing for longer than any feature looks back takes no room."""
    history = History(FeatureSet(("count by card over 1m",), time="time"))
    history.push_one({"time": seconds(0), "card": "a"})
    history.push_one({"time": seconds(100), "card": "b"})

    assert history.forget() == 1
    assert len(history) == 1


@pytest.mark.parametrize(
    "another",
    [History.copy, History.emptied, lambda history: pickle.loads(pickle.dumps(history))],  # noqa: S301 - its own
    ids=["copy", "emptied", "of another process"],
)
def test_another_history_goes_on_from_the_same_moment(another):
    """It knows how far its rows go, and up to when idle entities were looked for."""
    history = History(FeatureSet(("count by card over 1m",), time="time"), lateness="2m", told_by="reports")
    history.push_one({"time": seconds(0), "card": "a"})
    history.forget()

    found = another(history)

    assert (found.latest, found.forgot_at, found.lateness) == (history.latest, history.latest, history.lateness)
    assert (found.told_by, found.features) == (history.told_by, history.features)
    assert found.push_one({"time": seconds(1), "card": "b"}) == history.push_one({"time": seconds(1), "card": "b"})


def test_histories_of_other_features_do_not_merge():
    """A past that lacks what is measured is refused."""
    with pytest.raises(SettingError, match="same features"):
        History(feature_set()).merge(History(feature_set(most_events=9)))


def test_a_broken_history_is_reported(tmp_path):
    """A missing or damaged file says so, and is never unpickled."""
    path = tmp_path / "history.npz"
    with pytest.raises(BundleError, match="There is no history"):
        load_history(path)
    path.write_bytes(b"PK nonsense")
    with pytest.raises(BundleError, match="is broken"):
        load_history(path)
    np.savez(path, about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleError, match="is broken"):
        load_history(path)


def test_a_refused_amount_changes_nothing():
    """Of a single row with an impossible amount nothing is kept."""
    history = History(feature_set())
    row = table(1).iloc[0].to_dict()
    with pytest.raises(DataError, match="beyond"):
        history.push_one(row | {"amount": 1e12})
    assert len(history) == 0


@pytest.mark.parametrize("unknown", [pd.NA, None, np.nan], ids=["NA", "None", "NaN"])
def test_one_row_with_an_unknown_label_is_taken(unknown):
    """A label that is not there yet is unknown, in any of the ways there are."""
    history = History(FeatureSet(("frauds by shop over 1h",), time="time", label="fraud"))
    for at in (0, 1):
        found = history.push_one({"time": seconds(at), "shop": "x", "fraud": unknown})

    assert found["frauds_1h_by_shop"] == 0.0


@pytest.mark.parametrize("then", [9, None], ids=["later", "not dated"])
def test_the_first_report_of_a_label_counts(then):
    """A fraud reported again with a later date was known before; one without a date was not known from its row on."""
    features = FeatureSet(("frauds by shop over 1h",), time="time", label="fraud", reported="told")
    history, row = History(features), {"time": seconds(0), "shop": "x"}
    history.push_one(row)

    for at in (5, then):
        assert history.report(pd.DataFrame([row | {"told": pd.NaT if at is None else seconds(at)}])).all()

    frauds = [history.push_one(row | {"time": seconds(at)})["frauds_1h_by_shop"] for at in (4, 6)]
    assert frauds == [0.0, 1.0]


def test_a_label_without_its_date_says_nothing_yet():
    """Where reports have a date, a missing one is no report, however often it is reported."""
    features = FeatureSet(("frauds by shop over 1h",), time="time", label="fraud", reported="told")
    history, row = History(features), {"time": seconds(0), "shop": "x"}
    history.push_one(row)

    assert history.report(pd.DataFrame([row | {"told": pd.NaT}])).all()

    assert history.push_one(row | {"time": seconds(2)})["frauds_1h_by_shop"] == 0.0


def test_many_rows_are_known_by_what_each_is_known_by():
    """Names of entities are the same of a frame and of a row: text, numbers, gaps, several columns at once."""
    features = FeatureSet(("count by card over 1d", "count by card, shop over 1d"), time="time", key="id")
    history = History(features)
    rows = pd.DataFrame(
        {
            "id": ["b", "a", "c", "d"],
            "time": pd.Timestamp("2024-01-01"),
            "card": pd.array([7, None, 7, 8], dtype="Int64"),
            "shop": pd.array(["x", "y", None, "x"], dtype="str"),
        }
    )

    together = KnownBy.of(history, rows)
    alone = [KnownBy.of_one(history, row) for row in rows.to_dict("records")]

    assert together.keys == [each.keys[0] for each in alone]
    for by, names in together.names.items():
        assert names == [each.names[by][0] for each in alone]
    assert together.names["card", "shop"] == ["7\x1fx", None, None, "8\x1fx"]


def test_a_column_of_any_name_is_kept(tmp_path):
    """A column called "Betrag (€)" makes no warning that NumPy's files are of another form."""
    features = FeatureSet(("sum of Betrag (€) by card over 1d",), time="time")
    history = History(features)
    rows = pd.DataFrame({"time": pd.to_datetime(["2026-01-01", "2026-01-02"]), "card": "c", "Betrag (€)": [5.0, 7.5]})
    history.push(rows)

    again = load_history(save_history(history, tmp_path / "history.npz"))

    assert [store.entities for store in again.stores.values()] == [store.entities for store in history.stores.values()]
