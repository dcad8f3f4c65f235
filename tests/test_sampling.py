from datetime import timedelta
from typing import Any

import pytest

from detector.errors import SettingError
from detector.series.sampling import Sampling


@pytest.mark.parametrize("every", ["1min", "60s", timedelta(minutes=1)])
def test_interval_can_be_written_in_several_ways(every: str | timedelta) -> None:
    """Text with a unit, or a timedelta."""
    assert Sampling(every=every).interval == 60_000_000


def test_interval_is_optional() -> None:
    """Then it is taken from the readings."""
    assert Sampling().interval is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"align": "step"}, "no align='step'. Did you mean 'steps'?"),
        ({"missing": "previus"}, "no missing='previus'. Did you mean 'previous'?"),
        ({"unsorted": "sorted"}, "no unsorted='sorted'. Did you mean 'sort'?"),
        ({"repeated": "drop"}, "no repeated='drop'. Known: quarantine, reject."),
        ({"limit": -1}, "a limit of at least 0 steps. Received: limit=-1"),
        ({"jitter": 1.5}, "a jitter of 0 to 1 intervals. Received: jitter=1.5"),
        ({"jitter": float("nan")}, "a jitter of 0 to 1 intervals. Received: jitter=nan"),
        ({"every": "often"}, "an interval such as every='1min' or '500ms'. Received: every='often'"),
        ({"every": "5"}, "at least a microsecond, with its unit.*Received: every='5'"),
        ({"every": "-1min"}, "at least a microsecond.*Received: every='-1min'"),
        ({"every": "NaT"}, "an interval such as.*Received: every='NaT'"),
    ],
)
def test_sampling_refuses_what_has_no_meaning(setting: dict[str, Any], message: str) -> None:
    """When it is made, not when it is used."""
    with pytest.raises(SettingError, match=message):
        Sampling(**setting)


def test_an_unknown_clock_is_refused() -> None:
    """Before it is asked for the time."""
    with pytest.raises(SettingError, match="clock must name a time zone.* Received: clock='Berlin'"):
        Sampling(clock="Berlin")
