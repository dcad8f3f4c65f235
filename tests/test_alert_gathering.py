from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from pipelines.alerts.grouping.gather import Gathered
from pipelines.config import Config


def config(**columns: str) -> Config:
    return Config.model_validate({"source": {"path": "a.csv"}, "columns": columns})


def frame(start: int, flagged: int) -> pd.DataFrame:
    cards = [f"c{number % 3}" for number in range(4)]
    return pd.DataFrame({"card": cards, "row": range(start, start + 4), "flagged": [at == flagged for at in range(4)]})


@pytest.mark.parametrize(
    ("columns", "most", "kept"),
    [
        pytest.param({"entity": "card"}, 99, [0, 1, 2, 3, 4, 5, 6, 7], id="small"),
        pytest.param({"entity": "card"}, 6, [0, 1, 5, 6, 7], id="large"),
        pytest.param({}, 6, [0, 5, 7], id="large without a key"),
    ],
)
def test_flagged_rows_and_the_last_of_each_key_are_kept(columns: Any, most: int, kept: list[int]) -> None:
    """All rows of a small batch; of a large one the flagged, and the last others of each key."""
    gathered = Gathered(config(**columns), most_rows=most)
    frames = [frame(0, flagged=0), frame(4, flagged=1)]

    passed = list(gathered.watch(frames))

    assert [each["row"].tolist() for each in passed] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(gathered.scores()["row"]) == kept
