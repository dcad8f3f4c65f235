"""A truth that changes: fraud that is said, taken back and said again counts as it was known at each row's time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import SettingError
from detector.features import FeatureSet, History, load_history, save_history
from tests.test_features import seconds

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
TURNS = ("said", "taken_back", "said_again")
LINES = ("frauds by shop over 1m", "frauds by shop over 30s delay 5s", "risk by shop over 30s delay 5s")
NAMES = ["frauds_1m_by_shop", "frauds_30s_by_shop_delay_5s", "risk_30s_by_shop_delay_5s"]
FEATURES = FeatureSet(LINES, time="time", key="id", turns=TURNS)


@st.composite
def reported_payments(draw):
    """Few shops and seconds, and of most payments something is said, some of it before they happened."""
    size = draw(st.integers(1, 14))
    turn = st.one_of(st.none(), st.integers(-10, 40))
    rows = [
        (
            draw(st.integers(0, 60)),
            draw(st.sampled_from("xy")),
            *sorted(draw(st.lists(turn, min_size=3, max_size=3)), key=lambda each: 99 if each is None else each),
        )
        for _ in range(size)
    ]
    frame = pd.DataFrame(rows, columns=["at", "shop", *TURNS])
    moments = {name: seconds(frame["at"] + frame[name].astype(float)) for name in TURNS}
    return frame.assign(id=range(size), time=seconds(frame.pop("at")), **moments).sort_values(["time", "id"])


def known(rows, moment):
    """The rows as they were known at a moment."""
    return rows.assign(**{name: rows[name].where(rows[name] <= moment) for name in TURNS})


def oracle(rows, row, *, window, delay):
    """How many earlier payments of the shop within the window were fraud by the last word, ``delay`` before a row."""
    moment = row["time"] - pd.Timedelta(seconds=delay)
    before = rows[(rows["time"] < row["time"]) | ((rows["time"] == row["time"]) & (rows["id"] < row["id"]))]
    inside = before[
        (before["shop"] == row["shop"])
        & (before["time"] > moment - pd.Timedelta(seconds=window))
        & (before["time"] <= moment)
    ]
    return sum((event[list(TURNS)] <= moment).sum() % 2 for _, event in inside.iterrows())


@settings(max_examples=40, **QUIET)
@given(reported_payments())
def test_frauds_are_those_of_the_last_word(rows):
    """A payment counts between being called fraud and being cleared, and again once it is called so again."""
    found = FEATURES.compute(rows)

    for (_, row), (_, features) in zip(rows.iterrows(), found.iterrows(), strict=True):
        assert features[NAMES[0]] == oracle(rows, row, window=60, delay=0)
        assert features[NAMES[1]] == oracle(rows, row, window=30, delay=5)


@settings(max_examples=40, **QUIET)
@given(reported_payments())
def test_nothing_said_later_changes_a_row(rows):
    """What is known of all rows after a moment is of no account for a row of that moment."""
    row = rows.iloc[len(rows) // 2]

    found = FEATURES.compute(known(rows, row["time"]))

    pd.testing.assert_series_equal(
        found.loc[row.name, NAMES], FEATURES.compute(rows).loc[row.name, NAMES], check_exact=True
    )


@settings(max_examples=40, **QUIET)
@given(rows=reported_payments(), data=st.data())
def test_history_reported_as_words_come_agrees_with_batch(rows, data, tmp_path):
    """Statements that reach the past one after the other, twice, and over a restart, give what one table gives."""
    history, parts, at = History(FEATURES), [], 0
    while at < len(rows):
        now, behind = rows.iloc[at]["time"], rows.iloc[:at]
        for _ in range(data.draw(st.integers(1, 2)) if at else 0):
            history.report(known(behind, now))
        if data.draw(st.booleans()):
            history = load_history(save_history(history, tmp_path / "history.npz"))
        size = int((rows["time"].iloc[at:] == now).sum())
        if size == 1 and data.draw(st.booleans()):
            parts.append(pd.DataFrame([history.push_one(known(rows, now).iloc[at].to_dict())], index=[rows.index[at]]))
        else:
            parts.append(history.push(known(rows.iloc[at : at + size], now))[NAMES])
        at += size

    pd.testing.assert_frame_equal(pd.concat(parts), FEATURES.compute(rows)[NAMES], check_exact=True)


def test_the_wrong_one_of_two_events_is_not_cleared():
    """Of two payments of one moment the one whose fraud was taken back is cleared, however often that is reported."""
    rows = pd.DataFrame(
        {"id": [1, 2], "time": seconds(0), "shop": "x", "said": seconds(np.array([1, 2])), "taken_back": pd.NaT}
    ).assign(said_again=pd.NaT)
    rows["taken_back"] = pd.to_datetime(rows["taken_back"])
    rows["said_again"] = pd.to_datetime(rows["said_again"])
    history = History(FEATURES)
    history.learn(rows)
    rows.loc[1, "taken_back"] = seconds(9)

    for _ in range(2):
        history.report(rows)

    frauds = [history.push_one({"id": at, "time": seconds(at), "shop": "x"})[NAMES[0]] for at in (8, 9)]
    assert frauds == [2.0, 1.0]


@pytest.mark.parametrize("given", [{"label": "fraud"}, {"turns": ("said",)}])
def test_turns_and_a_label_are_refused(given):
    """Two truths about one row have no meaning, nor have fewer columns than turns."""
    with pytest.raises(SettingError, match="turns expected 3 columns in place of label"):
        FeatureSet(LINES, **({"time": "time", "turns": TURNS} | given))


@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=["untouched first", "report first"])
def test_a_report_is_not_lost_where_fewer_events_are_stored(order):
    """Of two rows that are reported only one was pushed: what is known takes its place, not what is not."""
    rows = pd.DataFrame({"id": [1, 2], "time": seconds(0), "shop": "x", "said": [pd.NaT, seconds(1)]})
    rows = rows.assign(taken_back=pd.NaT, said_again=pd.NaT).astype(dict.fromkeys(TURNS, "datetime64[us]"))
    history = History(FEATURES)
    history.push_one({"id": 2, "time": seconds(0), "shop": "x"})

    assert history.report(rows.iloc[order]).all()

    assert history.push_one({"id": 3, "time": seconds(2), "shop": "x"})[NAMES[0]] == 1.0


def test_turns_without_any_date_say_nothing():
    """Columns of plain gaps have no type of date, and need none."""
    rows = pd.DataFrame({"id": [1, 2], "time": seconds(np.array([0, 1])), "shop": "x"})
    gaps = pd.Series([None, None], dtype="object")

    assert FEATURES.compute(rows.assign(**dict.fromkeys(TURNS, gaps)))[NAMES[0]].tolist() == [0.0, 0.0]
    labelled = FeatureSet(LINES, time="time", key="id", label="fraud", reported="told")
    assert labelled.compute(rows.assign(fraud=1, told=gaps))[NAMES[0]].tolist() == [0.0, 0.0]
