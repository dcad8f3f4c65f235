from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector import TabularDetector
from detector.errors import BundleError, SettingError
from detector.persist import bundle
from pipelines.registry.registry import Move, Shelf

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def shelf(tmp_path: Path, quick: TabularDetector) -> Shelf:
    """A bundle as ``detector train`` leaves it, and the shelf beside it."""
    bundle.save(quick.scorer_, tmp_path / "bundle")
    return Shelf(tmp_path / "bundle")


@pytest.fixture(scope="module")
def others() -> list[TabularDetector]:
    """Three more detectors."""
    rows = pd.DataFrame({"amount": np.random.default_rng(1).normal(40, 5, 200), "fee": np.arange(200.0)})
    return [TabularDetector(members=("forest",), trees=5, random_state=seed).fit(rows) for seed in range(3)]


def test_adopting_leaves_the_same_bundle_behind_a_link(shelf: Shelf) -> None:
    """The folder becomes a link to a bundle of the same content; whoever reads notices nothing."""
    before = bundle.fingerprint(shelf.place)

    state = shelf.adopt(now=NOW)

    assert shelf.place.is_symlink()
    assert not Path(shelf.place.readlink()).is_absolute()
    assert (state.champion, bundle.fingerprint(shelf.place)) == (before, before)
    assert bundle.load(shelf.place).name == bundle.load(shelf.serving()).name
    assert shelf.adopt(now=NOW) == state
    assert sorted(path.name for path in shelf.place.parent.iterdir()) == ["bundle", "bundle.models"]


def test_promotion_moves_the_link_and_writes_down_why(shelf: Shelf, others: list[TabularDetector]) -> None:
    """The challenger serves; the move names both and the reason; the teller hears of it once."""
    first = shelf.adopt(now=NOW).champion
    name = shelf.add(others[0].scorer_, facts={"rows": 200, "reference": {"big": 1}}, now=NOW)
    heard: list[Move] = []
    assert shelf.state().challenger == name
    assert bundle.fingerprint(shelf.place) == first

    move = shelf.promote(name[:5], why="it finds more", now=NOW, tell=heard.append)

    state = shelf.state()
    assert (state.champion, state.challenger, state.moving) == (name, None, None)
    assert bundle.fingerprint(shelf.place) == name
    assert heard == [move] == list(state.moves)
    assert (move.before, move.to, move.why) == (first, name, "it finds more")
    assert state.find(name).facts == {"rows": 200}
    assert state.before_champion() == first


def test_way_back_follows_the_moves(shelf: Shelf, others: list[TabularDetector]) -> None:
    """After a way back, the way back leads forward again."""
    first = str(shelf.adopt(now=NOW).champion)
    name = shelf.add(others[0].scorer_, facts={}, now=NOW)
    shelf.promote(name, why="better", now=NOW)
    shelf.promote(first, why="worse after all", now=NOW)

    assert shelf.state().before_champion() == name
    assert bundle.fingerprint(shelf.place) == first


def test_damaged_bundle_is_not_promoted(shelf: Shelf, others: list[TabularDetector]) -> None:
    """Its checksum is checked before the link moves."""
    first = shelf.adopt(now=NOW).champion
    name = shelf.add(others[0].scorer_, facts={}, now=NOW)
    (shelf.path_of(name) / "graph.onnx").write_bytes(b"spoilt")

    with pytest.raises(BundleError, match="has changed since it was saved"):
        shelf.promote(name, why="", now=NOW)

    assert (shelf.state().champion, bundle.fingerprint(shelf.place)) == (first, first)


def test_unknown_name_is_answered_with_the_known_ones(shelf: Shelf) -> None:
    """A name that fits none, or every one, is refused."""
    first = str(shelf.adopt(now=NOW).champion)
    for name in ("zzz", ""):
        with pytest.raises(SettingError, match=f"No one detector is called '{name}'. Known: {first}"):
            shelf.promote(name, why="", now=NOW)


@pytest.mark.parametrize("linked", [False, True])
def test_mending_finishes_or_undoes_a_move(shelf: Shelf, others: list[TabularDetector], linked: bool) -> None:
    """What the link says counts: a move whose link was set is finished and told, another never happened."""
    first = shelf.adopt(now=NOW).champion
    name = shelf.add(others[0].scorer_, facts={}, now=NOW)
    values = json.loads((shelf.folder / "models.json").read_text())
    values["moving"] = {"at": NOW.isoformat(), "to": name, "before": first, "why": "killed"}
    (shelf.folder / "models.json").write_text(json.dumps(values))
    (shelf.folder / ".new-x" / "bundle").mkdir(parents=True)
    (shelf.place.parent / ".bundle-link-x").mkdir()
    if linked:
        shelf.place.unlink()
        shelf.place.symlink_to(Path(shelf.folder.name) / name)
    heard: list[Move] = []

    shelf.mend(heard.append)

    state = shelf.state()
    assert (state.champion, state.moving) == (name if linked else first, None)
    assert [move.to for move in heard] == ([name] if linked else [])
    assert bundle.fingerprint(shelf.place) == state.champion
    assert not list(shelf.folder.glob(".new-*")) + list(shelf.place.parent.glob(".bundle-link-*"))


def test_reader_always_has_a_whole_bundle(shelf: Shelf, others: list[TabularDetector]) -> None:
    """Two hundred moves while another thread reads: every read is whole and of one detector."""
    shelf.adopt(now=NOW)
    names = [shelf.add(other.scorer_, facts={}, now=NOW) for other in others]
    faults: list[BaseException] = []
    reads: list[str] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                bundle.load(shelf.place)
                reads.append(bundle.fingerprint(shelf.serving()))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is what is asked
                faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(200):
        shelf._link(names[number % 3])
    ended.set()
    thread.join()

    assert faults == []
    assert len(reads) > 3


def test_old_detectors_go_but_never_those_needed(shelf: Shelf, others: list[TabularDetector]) -> None:
    """The champion, the one before and the challenger stay, however old."""
    first = str(shelf.adopt(now=NOW).champion)
    names = [
        shelf.add(other.scorer_, facts={}, now=NOW + timedelta(days=day)) for day, other in enumerate(others, start=1)
    ]
    shelf.promote(names[0], why="", now=NOW)

    gone = shelf.prune(2)

    assert gone == [names[1]]
    assert {path.name for path in shelf.folder.iterdir() if path.is_dir()} == {first, names[0], names[2]}
    assert shelf.prune(2) == []


def test_only_one_trains_at_a_time(shelf: Shelf) -> None:
    """The second is told so at once, not after hours."""
    with (
        shelf.locked("training", wait=False),
        pytest.raises(BundleError, match="Another process holds the training"),
        Shelf(shelf.place).locked("training", wait=False),
    ):
        pass


def test_damaged_list_says_that_the_champion_serves(shelf: Shelf) -> None:
    """The list is a convenience; the link is what counts."""
    shelf.adopt(now=NOW)
    (shelf.folder / "models.json").write_text("{")

    with pytest.raises(BundleError, match="The champion in .* still serves"):
        shelf.state()
    assert bundle.load(shelf.place).members
