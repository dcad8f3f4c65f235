"""Known events and flagged stretches, counted as an operator counts them."""

from __future__ import annotations

import math

import pytest

from detector.errors import ShapeError
from detector.metrics.events import event_metrics


def test_an_event_is_found_by_one_flag_and_a_segment_is_right_by_one_anomaly() -> None:
    """Two known events, one found; three stretches, of which one holds no anomaly."""
    labels = [0, 1, 1, 1, 0, 0, 0, 1, 1, 0]
    flags = [0, 1, 0, 1, 1, 0, 1, 0, 0, 0]

    found = event_metrics(labels, flags)

    assert (found["known_events"], found["found_events"]) == (2, 1)
    assert (found["flagged_events"], found["false_events"]) == (3, 1)
    assert found["event_recall"] == 0.5
    assert found["event_precision"] == pytest.approx(2 / 3)


def test_segments_end_where_the_entity_changes() -> None:
    """The last row of one machine and the first of the next are two events."""
    assert event_metrics([1, 1], [1, 1], ["a", "b"])["known_events"] == 2
    assert event_metrics([1, 1], [1, 1], ["a", "a"])["known_events"] == 1


def test_entities_may_take_turns() -> None:
    """Two machines, row by row: one event of three rows, not three of one."""
    assert event_metrics([1, 0] * 3, [1, 0] * 3, ["a", "b"] * 3)["known_events"] == 1


def test_unknown_rows_make_no_segment_false() -> None:
    """A flag where nobody knows counts neither for nor against."""
    found = event_metrics([math.nan, 0, 1], [1, 0, 1])

    assert (found["flagged_events"], found["false_events"]) == (2, 0)
    assert found["event_precision"] == 1.0


def test_nothing_to_count_is_not_a_number() -> None:
    """No event, no flag: neither recall nor precision exist."""
    found = event_metrics([0, 0], [0, 0])

    assert math.isnan(found["event_recall"])
    assert math.isnan(found["event_precision"])


def test_lengths_must_agree() -> None:
    """One flag too few."""
    with pytest.raises(ShapeError, match="2 labels, 1 flags and 2 entities"):
        event_metrics([0, 1], [1])
