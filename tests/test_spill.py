"""A past in a folder on disk: the same features to the last bit as in memory, and nothing lost or kept by accident."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.features import History, load_history
from detector.features import history as history_module
from detector.features.spill import save_spilled, spill
from tests.test_feature_history import QUIET
from tests.test_features import feature_set, payments


def content(history):
    """All that a past keeps."""
    kept = {by: dict(entities.items()) for by, entities in history.entities.items()}
    tails = {by: dict(tails.items()) for by, tails in history.tails.items()}
    return kept, tails, history.latest


@settings(max_examples=25, **QUIET)
@given(rows=payments(), data=st.data())
def test_folder_and_memory_agree_to_the_last_bit(rows, data, tmp_path_factory):
    """Batches, single rows, late rows, saves and restarts at any point: features and what is kept are the same."""
    features, folder = feature_set(), tmp_path_factory.mktemp("past") / "past.state"
    late = data.draw(st.sampled_from([None, "2m"]))
    order = ["time", "id"] if late is None else ["id"]
    rows = rows.sort_values(order, ignore_index=True)
    memory, disk = History(features, lateness=late), History(features, lateness=late)
    spill(disk, folder)
    at = 0
    while at < len(rows):
        size = data.draw(st.integers(0, min(20, len(rows) - at)))
        part = rows.iloc[at : at + max(size, 1)]
        at += len(part)
        part = part[(memory.faults(part) == "").to_numpy()]
        if part.empty:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(history_module, "FEW_TAILS", data.draw(st.sampled_from([0, 1_000])))
            if size:
                pd.testing.assert_frame_equal(memory.push(part), disk.push(part), check_exact=True)
            else:
                row = part.iloc[0].to_dict()
                one, other = memory.push_one(row), disk.push_one(row)
                np.testing.assert_array_equal(list(one.values()), list(other.values()))
        if data.draw(st.booleans()):
            spill(disk, folder)
        if data.draw(st.booleans()):
            disk = load_history(save_spilled(disk, folder))

    assert content(disk)[0] == content(memory)[0]
    assert content(disk)[2] == content(memory)[2]
    assert disk.events == memory.events
    assert len(disk) == len(memory)
