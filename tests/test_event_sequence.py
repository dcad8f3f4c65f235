"""A row among the events before it, as an encoder of sequences reads it."""

import numpy as np
import pandas as pd
import pytest

from detector.errors import SettingError
from detector.features import Feature
from detector.members.event_sequence import CODES, Channel, EventWindow, Steps, steps_of
from detector.onnx.graph import Graph

STEPS = Steps((Channel(("amount_1", "amount")), Channel(("kind_1", "kind"), coded=True)), beside=("amount_1", "kind_1"))


def rows():
    return pd.DataFrame(
        {"amount_1": [np.nan, 10.0, -3.0], "amount": [5.0, 12.0, 1e9], "kind_1": [np.nan, 2, 15], "kind": [0, 2, 1]}
    )


def test_steps_are_scaled_logarithms_and_codes_one_hot():
    """What the graph prepares is the event, NaN where there is none; huge numbers are held."""
    window = EventWindow.fit(rows()[:2], STEPS)
    graph = Graph(window.to_onnx().SerializeToString())

    found = graph.run({"window": window.encode(rows())})

    steps = found["steps"].reshape(3, 2, 1 + CODES)
    logs = np.log1p([5.0, 10.0, 12.0])
    assert steps[1, 0, 0] == pytest.approx((np.log1p(10.0) - logs.mean()) / logs.std(), rel=1e-5)
    assert steps[2, 1, 0] == 8.0
    assert np.isnan(steps[0, 0]).all()
    assert steps[1, 0, 1:].tolist() == np.eye(CODES)[2].tolist()
    assert found["there"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_what_is_expected_comes_back_in_the_units_of_the_table():
    """Scaling is undone, and of codes the likeliest is named."""
    window = EventWindow.fit(rows()[:2], STEPS)
    steps = Graph(window.to_onnx().SerializeToString()).run({"window": window.encode(rows()[1:2])})["steps"]
    assert window.unscale(steps)[0] == pytest.approx([10.0, 2.0, 12.0, 2.0], rel=1e-4)


def test_the_row_itself_counts_more_than_what_was_before():
    """The score is a weighted mean, and says what each column adds."""
    window = EventWindow.fit(rows()[:2], STEPS)
    graph = Graph(window.score_onnx(0.75).SerializeToString())
    residual = np.zeros((2, 2, 1 + CODES), dtype=np.float32)
    residual[0, 0, 0] = residual[1, 1, 0] = 8.0

    found = graph.run({"residual": residual.reshape(2, -1), "there": np.ones((2, 4), dtype=np.float32)})

    assert found["blame"].tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]
    assert found["sequence"].ravel() == pytest.approx(np.log([1.001, 3.001]), abs=1e-6)


def test_a_window_survives_json():
    """What a bundle keeps of it is all of it."""
    window = EventWindow.fit(rows()[:2], STEPS)
    assert EventWindow.from_state(window.state()) == window


def test_features_of_events_line_up_as_steps():
    """A step has the amount, the time since the event before it, and the code; the row is the last."""
    lines = ("last 2 of amount by card over 9d", "gap 3 by card over 9d", "code 1 of kind by card over 9d")
    amount, gap, code = steps_of(feature for line in lines for feature in Feature.parse(line)).channels
    assert amount.columns == ("amount_last_2_9d_by_card", "amount_last_1_9d_by_card", "amount")
    assert gap.columns == ("gap_3_9d_by_card", "gap_2_9d_by_card", "gap_1_9d_by_card")
    assert code.columns == (None, "kind_code_1_9d_by_card", "kind_code_0_9d_by_card")


@pytest.mark.parametrize("lines", [["count by card over 1d"], ["gap 2 by card over 1d", "gap 2 by shop over 1d"]])
def test_a_sequence_is_of_one_entity(lines):
    """Without events, or with those of two entities, there is no window."""
    with pytest.raises(SettingError, match="of one entity and window, received [02]"):
        steps_of(feature for line in lines for feature in Feature.parse(line))


def test_channels_of_different_lengths_are_refused():
    """Each channel says something, or nothing, of each event."""
    with pytest.raises(SettingError, match=r"channels of one length, two events or more, received lengths \[1, 2\]"):
        Steps((Channel(("a",)), Channel(("b", "c"))))
