from __future__ import annotations

from pathlib import Path

import pytest

from detector import atomic
from detector.atomic import exchange, whole_folder, write_whole


@pytest.fixture
def without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot let two paths change places in one step."""
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: object())


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.usefixtures("without_the_call")
def test_exchange_works_where_the_system_cannot(tmp_path: Path) -> None:
    """On a file system without the call, moves do it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")

    exchange(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(OSError, match="nowhere"):
        exchange(tmp_path / "nowhere", tmp_path / "b")
    assert (tmp_path / "b").is_dir()


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the new text, not the old one."""
    file = tmp_path / "state.json"
    write_whole(file, "old")
    monkeypatch.setattr(atomic.os, "fsync", _full)

    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("step", ["os.fsync", "exchange", "shutil.rmtree"])
def test_folder_is_the_old_or_the_new_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A process killed before the exchange costs the new folder; one killed after it only leaves the old one beside."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "old").touch()

    monkeypatch.setattr(f"detector.atomic.{step}", _full)

    with pytest.raises(OSError, match="No space left"), whole_folder(folder) as building:
        (building / "new").touch()

    assert [path.name for path in folder.iterdir()] == ["new" if step == "shutil.rmtree" else "old"]
