from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector import TabularDetector, atomic
from detector.errors import BundleError, NotFoundError
from detector.persist import bundle
from pipelines.registry.models_file import Promotion
from pipelines.registry.registry import ModelRegistry

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path, quick: TabularDetector) -> ModelRegistry:
    """A bundle as ``detector train`` leaves it, and the registry beside it."""
    bundle.save(quick.scorer_, tmp_path / "bundle")
    return ModelRegistry(tmp_path / "bundle")


@pytest.fixture(scope="module")
def others() -> list[TabularDetector]:
    """Three more detectors."""
    rows = pd.DataFrame({"amount": np.random.default_rng(1).normal(40, 5, 200), "fee": np.arange(200.0)})
    return [TabularDetector(members=("forest",), trees=5, random_state=seed).fit(rows) for seed in range(3)]


def test_adopting_leaves_the_same_bundle_behind_a_link(registry: ModelRegistry) -> None:
    """The folder becomes a link to a bundle of the same content; whoever reads notices nothing."""
    before = bundle.fingerprint(registry.place)

    state = registry.adopt(now=NOW)

    assert registry.place.is_symlink()
    assert not Path(registry.place.readlink()).is_absolute()
    assert (state.champion, bundle.fingerprint(registry.place)) == (before, before)
    assert bundle.load(registry.place).name == bundle.load(registry.serving()).name
    assert registry.adopt(now=NOW) == state
    assert sorted(path.name for path in registry.place.parent.iterdir()) == ["bundle", "bundle.models"]


def test_promotion_moves_the_link_and_writes_down_why(registry: ModelRegistry, others: list[TabularDetector]) -> None:
    """The challenger serves; the move names both and the reason; the teller hears of it once."""
    first = registry.adopt(now=NOW).champion
    name = registry.add(others[0].scorer_, facts={"rows": 200, "reference": {"big": 1}}, now=NOW)
    heard: list[Promotion] = []
    assert registry.state().challenger == name
    assert bundle.fingerprint(registry.place) == first

    move = registry.promote(name[:5], why="it finds more", now=NOW, notify=heard.append)

    state = registry.state()
    assert (state.champion, state.challenger, state.begun) == (name, None, None)
    assert bundle.fingerprint(registry.place) == name
    assert heard == [move] == list(state.promotions)
    assert (move.before, move.to, move.why) == (first, name, "it finds more")
    assert state.find(name).facts == {"rows": 200}
    assert state.before_champion() == first


def test_way_back_follows_the_moves(registry: ModelRegistry, others: list[TabularDetector]) -> None:
    """After a way back, the way back leads forward again."""
    first = str(registry.adopt(now=NOW).champion)
    name = registry.add(others[0].scorer_, facts={}, now=NOW)
    registry.promote(name, why="better", now=NOW)
    registry.promote(first, why="worse after all", now=NOW)

    assert registry.state().before_champion() == name
    assert bundle.fingerprint(registry.place) == first


def test_damaged_bundle_is_not_promoted(registry: ModelRegistry, others: list[TabularDetector]) -> None:
    """Its checksum is checked before the link moves."""
    first = registry.adopt(now=NOW).champion
    name = registry.add(others[0].scorer_, facts={}, now=NOW)
    (registry.path_of(name) / "graph.onnx").write_bytes(b"spoilt")

    with pytest.raises(BundleError, match="has changed since it was saved"):
        registry.promote(name, why="", now=NOW)

    assert (registry.state().champion, bundle.fingerprint(registry.place)) == (first, first)


def test_unknown_name_is_answered_with_the_known_ones(registry: ModelRegistry) -> None:
    """A name that fits none is refused."""
    first = str(registry.adopt(now=NOW).champion)
    for name in ("zzz", ""):
        with pytest.raises(NotFoundError, match=f"No detector is called '{name}'. Known: {first}"):
            registry.promote(name, why="", now=NOW)


@pytest.mark.parametrize("linked", [False, True])
def test_mending_finishes_or_undoes_a_move(
    registry: ModelRegistry, others: list[TabularDetector], linked: bool
) -> None:
    """What the link says counts: a move whose link was set is finished and reported, another never happened."""
    first = registry.adopt(now=NOW).champion
    name = registry.add(others[0].scorer_, facts={}, now=NOW)
    values = json.loads((registry.folder / "models.json").read_text())
    values["moving"] = {"at": NOW.isoformat(), "to": name, "before": first, "why": "killed"}
    (registry.folder / "models.json").write_text(json.dumps(values))
    (registry.folder / ".new-x" / "bundle").mkdir(parents=True)
    (registry.place.parent / ".bundle-link-x").mkdir()
    if linked:
        registry.place.unlink()
        registry.place.symlink_to(Path(registry.folder.name) / name)
    heard: list[Promotion] = []

    registry.recover(heard.append)

    state = registry.state()
    assert (state.champion, state.begun) == (name if linked else first, None)
    assert [move.to for move in heard] == ([name] if linked else [])
    assert bundle.fingerprint(registry.place) == state.champion
    assert not list(registry.folder.glob(".new-*")) + list(registry.place.parent.glob(".bundle-link-*"))


def test_reader_always_has_a_whole_bundle(registry: ModelRegistry, others: list[TabularDetector]) -> None:
    """Two hundred moves while another thread reads: every read is whole and of one detector."""
    registry.adopt(now=NOW)
    names = [registry.add(other.scorer_, facts={}, now=NOW) for other in others]
    faults: list[BaseException] = []
    reads: list[str] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                bundle.load(registry.place)
                reads.append(bundle.fingerprint(registry.serving()))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is what is asked
                faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    number = 0
    while number < 200 or (len(reads) < 4 and thread.is_alive() and not faults):  # a busy machine reads slowly
        registry._link(names[number % 3])
        number += 1
    ended.set()
    thread.join()

    assert faults == []
    assert len(reads) > 3


def test_old_detectors_go_but_never_those_needed(registry: ModelRegistry, others: list[TabularDetector]) -> None:
    """The champion, the one before and the challenger stay, however old."""
    first = str(registry.adopt(now=NOW).champion)
    names = [
        registry.add(other.scorer_, facts={}, now=NOW + timedelta(days=day))
        for day, other in enumerate(others, start=1)
    ]
    registry.promote(names[0], why="", now=NOW)

    gone = registry.prune(2)

    assert gone == [names[1]]
    assert {path.name for path in registry.folder.iterdir() if path.is_dir()} == {first, names[0], names[2]}
    assert registry.prune(2) == []


def test_only_one_trains_at_a_time(registry: ModelRegistry) -> None:
    """The second is told so at once, not after hours."""
    with (
        registry.locked("training", wait=False),
        pytest.raises(BundleError, match="Another process holds the training"),
        ModelRegistry(registry.place).locked("training", wait=False),
    ):
        pass


def test_damaged_list_says_that_the_champion_serves(registry: ModelRegistry) -> None:
    """The list is a convenience; the link is what counts."""
    registry.adopt(now=NOW)
    (registry.folder / "models.json").write_text("{")

    with pytest.raises(BundleError, match="The champion in .* still serves"):
        registry.state()
    assert bundle.load(registry.place).members


def test_exchange_works_where_the_system_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without the call, two moves do it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: object())

    atomic.exchange(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(OSError, match="nowhere"):
        atomic.exchange(tmp_path / "nowhere", tmp_path / "b")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the new text, not the old one."""
    file = tmp_path / "state.json"
    atomic.write_whole(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        atomic.write_whole(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
