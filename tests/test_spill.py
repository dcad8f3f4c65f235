"""A past in a folder on disk: the same features to the last bit as in memory, and nothing lost or kept by accident."""

import pickle
import resource
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import BundleError
from detector.features import FeatureSet, History, entity_store, load_history
from detector.features.excerpt import KnownBy, excerpt, known_rows
from detector.features.spill import load_spilled, save_spilled, spill
from tests.test_feature_history import QUIET
from tests.test_features import feature_set, payments


def content(history):
    """All that a past keeps."""
    kept = {by: dict(store.entities.items()) for by, store in history.stores.items()}
    tails = {by: dict(store.tails.items()) for by, store in history.stores.items()}
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
            patch.setattr(entity_store, "FEW_TAILS", data.draw(st.sampled_from([0, 1_000])))
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


def both(tmp_path, rows, **given):
    """A past of some rows in memory, and the same on disk."""
    features = given.pop("features", None) or feature_set()
    memory = History(features, **given)
    memory.learn(rows)
    disk = memory.copy()
    spill(disk, tmp_path / "past.state")
    return memory, disk


def some(count=200, *, start="2024-01-01", seed=0):
    """Rows of a few cards."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(count) + 1_000 * seed,
            "time": pd.Timestamp(start) + pd.to_timedelta(np.sort(rng.integers(0, 7_200, count)), unit="s"),
            "card": rng.choice(list("abcdefgh"), count),
            "shop": rng.choice(list("xyz"), count),
            "amount": rng.integers(1, 100, count).astype(float),
        }
    )


CARDS = FeatureSet(("sum of amount by card over 1h", "count by card, shop over 30m"), time="time", key="id")


@settings(max_examples=10, **QUIET)
@given(rows=payments())
def test_reports_change_both_alike(rows, tmp_path_factory):
    """What becomes known of rows that lie in the folder is found there, and kept over it."""
    memory, disk = both(tmp_path_factory.mktemp("past"), rows)

    for reported in ("2024-01-02", "2024-01-01 12:00"):
        moment = pd.Timestamp(reported)
        pd.testing.assert_series_equal(memory.report(rows[:3], reported=moment), disk.report(rows[:3], reported=moment))

    assert content(disk) == content(memory)


def test_what_is_dropped_and_forgotten_is_the_same(tmp_path):
    """An entity by its name, alone and beside others; those that are idle; a name is unknown the second time."""
    memory, disk = both(tmp_path, some(), features=CARDS)

    assert [past.drop("card", "a") for past in (memory, disk)] == [4, 4]
    assert disk.drop("card", "a") == 0
    spill(disk, tmp_path / "next.state")
    assert disk.drop("card", "a") == 0
    later = some(1, start="2024-01-01 02:40", seed=1)
    for past in (memory, disk):
        past.learn(later)
    assert memory.forget() == disk.forget() > 0

    assert content(disk) == content(memory)
    assert content(load_spilled(save_spilled(disk, tmp_path / "last.state"))) == content(memory)


def test_pasts_merge_in_either_place(tmp_path):
    """A past in memory takes in one on disk, and the other way round."""
    first, second = some(), some(start="2024-01-01 00:30", seed=1)
    memory, disk = both(tmp_path / "a", first, features=CARDS, lateness="3h")
    other, on_disk = both(tmp_path / "b", second, features=CARDS, lateness="3h")
    wanted = memory.copy()
    wanted.merge(other)

    for own, taken in ((disk, other), (memory, on_disk)):
        own.merge(taken)

        assert content(own) == content(wanted)


def test_copy_and_excerpt_leave_the_past_as_it_is(tmp_path):
    """Both go on by themselves; rows that are known by their key are left out."""
    memory, disk = both(tmp_path, some(), features=CARDS, lateness="3h")
    before, more = content(disk), some(50, seed=2)
    known_by = KnownBy.of(disk, pd.concat([some()[:20], more]))

    copies = [past.copy() for past in (memory, disk)]
    pushed = [past.push(more) for past in copies]
    taken = [excerpt(past, known_by) for past in (memory, disk)]

    pd.testing.assert_frame_equal(*pushed, check_exact=True)
    assert content(copies[0]) == content(copies[1])
    assert content(taken[0]) == content(taken[1])
    assert known_rows(disk, known_by).tolist() == known_rows(memory, known_by).tolist()
    assert content(disk) == before


def test_any_name_is_kept(tmp_path):
    """Empty, very long, with a separator or half a character; and two of the same hash."""
    names = ["", "x" * 5_000, "a\x1fb", "\ud800", "plumless", "buckeroo"]  # the last two have one CRC-32
    rows = pd.DataFrame({"time": pd.Timestamp("2024-01-01"), "card": pd.Series(names, dtype=object)})
    history = History(FeatureSet(("count by card over 1d",), time="time"))
    for row in rows.to_dict("records"):
        history.learn_one(row)
    before = content(history)

    again = load_spilled(save_spilled(history, tmp_path / "past.state"))

    assert content(again) == before
    assert [again.push_one(row)["count_1d_by_card"] for row in rows.to_dict("records")] == [1.0] * len(names)


def test_next_folder_shares_what_has_not_changed(tmp_path):
    """A save after few changes writes few bytes anew; the older folder may be deleted, and readers go on."""
    history, disk = both(tmp_path, some(50_000).assign(card=lambda rows: rows["id"].astype(str)), features=CARDS)
    reader = load_spilled(tmp_path / "past.state")
    inodes = {path.stat().st_ino for path in (tmp_path / "past.state").glob("*.sst")}
    disk.learn(some(10, start="2024-01-01 03:00", seed=2))

    spill(disk, tmp_path / "next.state")
    for path in (tmp_path / "past.state").iterdir():
        path.unlink()

    shared = [path for path in (tmp_path / "next.state").glob("*.sst") if path.stat().st_ino in inodes]
    assert shared
    assert content(reader) == content(history)


@pytest.mark.parametrize("then", ["replaced", "deleted"])
def test_past_goes_on_though_its_folder_is_no_longer_there(tmp_path, then):
    """What was opened stays what it was, also where it is saved: never a mixture of two pasts."""
    _, disk = both(tmp_path, some(), features=CARDS)
    if then == "replaced":
        both(tmp_path, some(seed=3), features=CARDS)
    else:
        shutil.rmtree(tmp_path / "past.state")
    disk.learn(some(10, start="2024-01-01 03:00", seed=2))

    assert content(load_spilled(save_spilled(disk, tmp_path / "next.state"))) == content(disk)


def test_nothing_of_a_dropped_entity_stays_on_the_disk(tmp_path):
    """Neither where its events lay, nor in lists of what the files hold."""
    rows = some().assign(card="secret-card")
    _, disk = both(tmp_path, rows, features=CARDS)
    others = some(start="2024-01-01 03:00", seed=1)
    disk.learn(others)
    spill(disk, tmp_path / "past.state")

    assert disk.drop("card", "secret-card") == 4
    save_spilled(disk, tmp_path / "past.state", purge=True)

    held = b"".join(path.read_bytes() for path in (tmp_path / "past.state").iterdir())
    assert b"secret-card" not in held
    assert not {*load_spilled(tmp_path / "past.state").stores["card",].entities} & {"secret-card"}


def test_spilled_past_travels_as_its_place(tmp_path):
    """Between processes of one machine, with what has changed since."""
    _, disk = both(tmp_path, some(), features=CARDS)
    disk.learn(some(10, start="2024-01-01 03:00", seed=2))

    again = pickle.loads(pickle.dumps(disk))  # noqa: S301 - its own

    assert content(again) == content(disk)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "of a newer version"])
def test_folder_that_cannot_be_read_says_what_to_do(tmp_path, damage):
    """As a broken file does; never is anything measured as if it were new."""
    _, disk = both(tmp_path, some(), features=CARDS)
    folder = tmp_path / "past.state"
    if damage == "missing":
        folder = tmp_path / "none.state"
    elif damage == "empty":
        for path in folder.iterdir():
            path.unlink()
    elif damage == "cut":
        (file,) = folder.glob("*.sst")
        file.write_bytes(file.read_bytes()[:-100])
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("detector.features.spill.VERSION", 99)
            save_spilled(disk, folder)

    with pytest.raises(BundleError, match=r"Learn (it again|one first)"):
        load_spilled(folder)


def test_full_disk_leaves_the_older_folder(tmp_path, monkeypatch):
    """What has changed stays in memory, and can be written later."""
    _, disk = both(tmp_path, some(), features=CARDS)
    before = content(load_spilled(tmp_path / "past.state"))
    disk.learn(some(10, start="2024-01-01 03:00", seed=2))
    changed = content(disk)
    monkeypatch.setattr("detector.features.spill.os.link", full)
    monkeypatch.setattr("detector.features.spill.shutil.copyfile", full)

    with pytest.raises(OSError, match="No space left"):
        spill(disk, tmp_path / "past.state")

    monkeypatch.undo()
    assert content(load_spilled(tmp_path / "past.state")) == before
    assert content(disk) == changed
    spill(disk, tmp_path / "past.state")
    assert content(load_spilled(tmp_path / "past.state")) == changed


def test_file_that_cannot_grow_leaves_the_older_folder(tmp_path):
    """Whatever RocksDB meets while it writes is said, and nothing of the new folder stays."""
    _, disk = both(tmp_path, some(), features=CARDS)
    before = content(load_spilled(tmp_path / "past.state"))
    disk.learn(some(20_000, start="2024-01-01 03:00", seed=2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="stays as it was"):
            save_spilled(disk, tmp_path / "past.state")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert content(load_spilled(tmp_path / "past.state")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["past.state"]


def full(*_):
    raise OSError(28, "No space left on device")
