"""The past of the service on disk: scores, kills and losses as in memory, and no step between the two that is felt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from detector.errors import BundleError
from detector.features import FeatureSet, History, load_history
from detector.persist import bundle
from pipelines.config import Config
from pipelines.features import stored_history
from pipelines.features.deletion import delete_past_of
from pipelines.features.engine import history_folder
from pipelines.features.raw_rows import RawInput, RawRows
from pipelines.training.train import train
from tests import payment_sites
from tests.payment_sites import (
    LATER,
    PAYMENTS,
    SETTINGS,
    expected,
    put,
    run,
    run_until_killed,
    score_and_restore,
    scores,
    settle,
)

home, trained = payment_sites.home, payment_sites.trained

ON_DISK = {"features": SETTINGS["features"] | {"most_megabytes": 0}}


def snapshots(config: Config) -> list[str]:
    return sorted(path.suffix for path in (history_folder(config) / config.name).glob("past-*"))


def agrees(folder: Path, wanted: pd.Series) -> None:
    pd.testing.assert_series_equal(scores(folder), wanted, check_names=False, rtol=1e-6)


def test_past_moves_to_disk_and_back_between_batches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows too large, and the setting is raised later: every row is measured against all before it."""
    monkeypatch.setattr("pipelines.features.feature_state.BATCHES", 1)
    found = []
    for number, sections in enumerate(({}, ON_DISK, {})):
        config = settle(home, **sections)
        put(home, f"part{number}", PAYMENTS.iloc[750 + 250 * number : 1_000 + 250 * number])
        run(config)
        found.append(snapshots(config))

    assert found == [[".npz"], [".state"], [".state"]], "what is on disk stays there until it is built anew"
    agrees(home, expected(config, 750, before=PAYMENTS.iloc[:750]))


def test_scores_on_disk_are_those_in_memory(home: Path, tmp_path: Path) -> None:
    """To the last bit."""
    other = Path(shutil.copytree(home, tmp_path / "other", symlinks=True))
    for folder, sections in ((home, {}), (other, ON_DISK)):
        config = settle(folder, **sections)
        for number, begin in enumerate(range(750, 1_500, 250)):
            put(folder, f"part{number}", PAYMENTS.iloc[begin : begin + 250].sample(frac=1, random_state=number))
            run(config)

    pd.testing.assert_series_equal(scores(home), scores(other), check_exact=True)


@pytest.mark.parametrize(
    "point", ["score.computed", "past.written", "past.snapshot", "past.snapped", "score.committed"]
)
def test_killed_run_leaves_the_past_on_disk_as_it_should_be(home: Path, point: str) -> None:
    """After SIGKILL nothing is lost and nothing counted twice; what was in the making is cleared away."""
    config = settle(home, **ON_DISK)
    put(home, "part1", PAYMENTS.iloc[750:1_000])
    run_until_killed(home, point)
    put(home, "part2", PAYMENTS.iloc[1_000:])

    run(config)

    agrees(home, expected(config, 750, before=PAYMENTS.iloc[:750]))
    assert snapshots(config) == [".state"]


def test_full_disk_loses_no_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is done, the error is said, and the next run goes on from what the batch wrote down."""
    monkeypatch.setattr("pipelines.features.feature_state.BATCHES", 1)
    config = settle(home, **ON_DISK)
    put(home, "part1", PAYMENTS.iloc[750:1_000])
    monkeypatch.setenv("DETECTOR_FAULT", "past.snapshot:2:full")

    with pytest.raises(OSError, match="No space left"):
        run(config)

    monkeypatch.delenv("DETECTOR_FAULT")
    put(home, "part2", PAYMENTS.iloc[1_000:])
    run(config)
    agrees(home, expected(config, 750, before=PAYMENTS.iloc[:750]))


@pytest.mark.parametrize("lost", ["a file", "the end of a file", "everything"])
def test_lost_folder_is_built_from_the_source(home: Path, lost: str) -> None:
    """As a snapshot that is broken."""
    config = settle(home, **ON_DISK)
    put(home, "part1", PAYMENTS.iloc[:1_000])
    run(config)
    run(config)
    (folder,) = (history_folder(config) / config.name).glob("past-*.state")
    if lost == "everything":
        shutil.rmtree(folder)
    elif lost == "a file":
        (folder / "CURRENT").unlink()
    else:
        for path in folder.glob("*.sst"):
            path.write_bytes(path.read_bytes()[:-10])
    put(home, "part2", PAYMENTS.iloc[1_000:])

    run(config)

    agrees(home, expected(config, 0))


def test_part_of_a_folder_that_turns_out_to_be_broken_is_built_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A block whose check sum is wrong is only met when it is read, in the middle of a batch."""
    monkeypatch.setattr("pipelines.features.feature_state.BATCHES", 1)
    config = settle(home, **ON_DISK)
    put(home, "part1", PAYMENTS.iloc[:1_000])
    run(config)
    (folder,) = (history_folder(config) / config.name).glob("past-*.state")
    for path in folder.glob("*.sst"):
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes(50) + content[150:])
    load_history(folder)  # it opens
    put(home, "part2", PAYMENTS.iloc[1_000:])

    run(config)

    assert "Corruption" in caplog.text
    agrees(home, expected(config, 0))


def test_restored_database_does_not_believe_the_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows rows that the database has not scored: the past is built anew."""
    monkeypatch.setattr("pipelines.features.feature_state.BATCHES", 1)
    config = settle(home, **ON_DISK)
    score_and_restore(home, config)

    run(config)

    agrees(home, expected(config, 0).loc[PAYMENTS["transaction_id"].iloc[800:].sort_values()])


def test_training_leaves_a_past_on_disk(tmp_path: Path) -> None:
    """Where it is too large for memory; the service goes on from it, and a later small one takes its place."""
    config = settle(tmp_path, source={"path": "past.parquet"}, **ON_DISK)
    PAYMENTS.iloc[:750].to_parquet(tmp_path / "past.parquet")
    train(config, now=LATER)
    place = history_folder(config) / "history"
    assert stored_history.find(place).suffix == ".state"
    config = settle(tmp_path, **ON_DISK)
    put(tmp_path, "part1", PAYMENTS.iloc[750:])

    run(config)

    assert bundle.load(config.bundle)
    agrees(tmp_path, expected(config, 750, before=PAYMENTS.iloc[:750]))
    stored_history.keep(load_history(stored_history.find(place)), place, most=0)
    small = settle(tmp_path, source={"path": "past.parquet"})
    train(small, now=LATER)
    assert [path.suffix for path in place.parent.glob("history*")] == [".npz"]


def test_broken_folder_of_training_stops_scoring(home: Path) -> None:
    """Never silently without it."""
    config = settle(home, **ON_DISK)
    place = history_folder(config) / "history"
    stored_history.keep(stored_history.recall(place), place, most=0)
    (stored_history.find(place) / "CURRENT").unlink()
    put(home, "part1", PAYMENTS.iloc[750:])

    with pytest.raises(BundleError, match="Learn it again"):
        run(config)

    assert not list((home / "scores").glob("batch-*"))


def test_entity_is_deleted_from_folders(home: Path) -> None:
    """Of training and of the service, as from files; nothing of it stays on the disk, the others keep theirs."""
    config = settle(home, **ON_DISK)
    place = history_folder(config) / "history"
    stored_history.keep(stored_history.recall(place), place, most=0)
    put(home, "part1", PAYMENTS.iloc[750:1_000])
    run(config)
    who = str(PAYMENTS["card_id"].iloc[750])
    pasts = [stored_history.find(place), *(history_folder(config) / config.name).glob("past-*")]
    before = [set(load_history(path).stores["card_id",].entities) for path in pasts]

    would = delete_past_of(config, who, set(), dry=True)
    assert [set(load_history(path).stores["card_id",].entities) for path in pasts] == before
    found = delete_past_of(config, who, set(), dry=False)

    assert found == would
    assert found["feature histories"] >= 2
    for path, names in zip(pasts, before, strict=True):
        assert set(load_history(path).stores["card_id",].entities) == names - {who}
        assert not any(who.encode() in file.read_bytes() for file in path.iterdir())
    assert sum(delete_past_of(config, who, set(), dry=True).values()) == 0


def test_logged_model_takes_a_folder_along(home: Path, tmp_path: Path) -> None:
    """Its rows are measured against it, each time anew, wherever it was copied to and though nobody may write there."""
    config = settle(home, **ON_DISK)
    history = stored_history.recall(history_folder(config) / "history")
    in_memory = RawRows(RawInput.of(config, history)).prepare(PAYMENTS.iloc[750:]).rows
    spilled = history.copy()
    stored_history.keep(spilled, tmp_path / "past", most=0)
    (tmp_path / "bundle").mkdir()
    RawInput.of(config, spilled).write(tmp_path / "bundle")
    moved = Path(shutil.copytree(tmp_path / "bundle", tmp_path / "elsewhere"))
    for path in moved.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    rows = RawRows.load(moved)

    for _ in range(2):
        pd.testing.assert_frame_equal(rows.prepare(PAYMENTS.iloc[750:]).rows, in_memory, check_exact=True)
    for path in moved.rglob("*"):
        path.chmod(0o755)


def test_idle_entities_of_a_folder_are_looked_for_now_and_then(tmp_path: Path) -> None:
    """Looking reads all of it: once in a quarter of the time that features look back, and with every file."""
    history = History(FeatureSet(("count by card over 1h",), time="time"))

    def after(minutes: int) -> int:
        moment = pd.Timestamp("2024-01-01") + pd.Timedelta(minutes=minutes)
        history.learn_one({"time": moment, "card": str(minutes)})
        stored_history.forget_idle(history)
        return len(history)

    assert [after(0), after(61)] == [1, 1]
    stored_history.keep(history, tmp_path / "past", most=0)
    assert [after(75), after(122), after(136)] == [2, 2, 3]
    assert [after(137), after(151)] == [3, 4]
