"""Rows whose past is too short do not show what is normal."""

import pandas as pd
import pytest

from pipelines.warm_up import warm, warm_from


def test_rows_stand_for_what_is_normal_once_features_can_look_back():
    """A row exactly so old is one of them, and the others are counted with the date."""
    rows = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=100)[::-1]})

    kept, told = warm(rows, "at", warm_from(rows["at"], pd.Timedelta(days=20)))

    assert kept["at"].min() == pd.Timestamp("2024-01-21")
    assert told is not None
    assert told.startswith("20 rows before 2024-01-21 00:00 not taken for normal behaviour: ")


def test_at_least_half_of_the_rows_are_kept():
    """However far back features look, and however few rows there are."""
    for size in (1, 2, 7, 100):
        rows = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=size)})
        assert (rows["at"] >= warm_from(rows["at"], pd.Timedelta(days=366))).sum() >= size / 2


@pytest.mark.parametrize("since", [None, pd.Timestamp(0)])
def test_nothing_is_said_where_all_are_kept(since):
    """Without features, or if all rows are of one moment."""
    rows = pd.DataFrame({"at": [pd.Timestamp(0)] * 3})

    kept, told = warm(rows, "at", since)

    assert len(kept) == 3
    assert told is None


def test_one_wrong_date_long_ago_keeps_no_row_back():
    """Then all other rows seem old enough."""
    time = pd.Series([pd.Timestamp("1970-01-01"), *pd.date_range("2024-01-01", periods=9)])
    assert warm_from(time, pd.Timedelta(days=90)) == pd.Timestamp("1970-04-01")
