"""A past as a folder of sorted files (RocksDB): for more entities than memory holds.

A folder is written once and then only read, by any number of processes. The next one shares the files that stay the
same (hard links), so it costs what has changed, and it takes its place in one step: a crash leaves the old or the new.
Nothing in a folder runs: names and events are plain bytes, what is known of the whole is JSON.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

from detector.atomic import whole_folder
from detector.errors import BundleError
from detector.features.duration import short
from detector.features.entities import NOWHERE, Spilled, bytes_of, packed_keys, unpacked_keys
from detector.features.feature_set import FeatureSet
from detector.features.history import History

VERSION = 1
ABOUT = b"\xff"
"""The key of what is known of the whole; no entity's begins like this."""
CACHE, AT_ONCE = 64 << 20, 32 << 20
"""Bytes of blocks that stay unpacked while a folder is open, and of changes that are written together."""
TOGETHER = 4_096
"""Look-ups at once: each holds a block of its file, unpacked, until all are answered."""
BUSY, PAUSE = ("num-running-flushes", "num-running-compactions", "compaction-pending"), 0.01
NAME_BITS = 10
"""Bits a name in the filters that say of a file that it does not hold it: one name in a hundred is looked for in vain.
Fewer read more, more take more memory."""
FULL = "No space left"
NOT_KEPT = ("LOG", "LOCK")
"""RocksDB's diary names the first and the last key of files; whoever was forgotten must not be in it."""


class StateFolder:
    """A folder that is open for reading. It may be deleted meanwhile: its files stay until it is closed.

    Raises ``BundleError`` if it is missing, or broken.
    """

    def __init__(self, path: Path) -> None:
        from rocksdict import AccessType, Rdict

        self.path = path
        self._inode = _inode(path)
        try:
            self._files: Any = Rdict(str(path), _options(), access_type=AccessType.read_only(False))
            self.about: dict[str, Any] = json.loads(self._files.get(ABOUT) or b"{}")
        except Exception as error:
            if not path.exists():
                raise BundleError(f"There is no history {path}. Learn one first.") from None
            raise BundleError(f"{path} is no history, or is broken ({error}). Learn it again.") from error

    @property
    def is_in_place(self) -> bool:
        """Whether its files still lie where they lay; another folder may have taken the place."""
        return self._inode is not None and _inode(self.path) == self._inode

    def __reduce__(self) -> tuple[Any, ...]:
        return StateFolder, (self.path,)

    def get(self, key: bytes) -> bytes | None:
        """What is kept under a key."""
        try:
            found: bytes | None = self._files.get(key)
        except Exception as error:
            raise self._broken(error) from error
        return found

    def many(self, keys: list[bytes]) -> list[bytes | None]:
        """What is kept under each of several keys."""
        try:
            parts = (keys[start : start + TOGETHER] for start in range(0, len(keys), TOGETHER))
            return [value for part in parts for value in self._files.get(part)]
        except Exception as error:
            raise self._broken(error) from error

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All keys that begin like this, in order."""
        try:
            for key, value in self._files.items(from_key=prefix):
                if not key.startswith(prefix):
                    return
                yield key, value
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> BundleError:
        return BundleError(f"{self.path} is no history, or is broken ({error}). Learn it again.")


def save_spilled(history: History, folder: Path, *, purge: bool = False) -> Path:
    """Write a past as a folder, in place of an older one only once all of it is written.

    - ``purge``: have nothing stay on the disk of what the past no longer holds; all is written again then.

    Raises ``OSError`` if the disk is full, or fails; the older one stays.
    """
    parts = list(_parts(history))
    base = next((kept.base for kept in parts if isinstance(kept.base, StateFolder)), None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    changes = (change for kept in parts for change in kept.changes())
    known = (ABOUT, json.dumps(about(history)).encode())
    with whole_folder(folder) as building:
        if base is None or not base.is_in_place:
            older = () if base is None else base.items(b"")
            write_into(building, chain(older, [known]), changes, purge=purge)
        else:
            _share(base.path, building)
            write_into(building, [known], changes, purge=purge)
    return folder


def load_spilled(folder: Path) -> History:
    """The inverse of ``save_spilled``; what changes is held in memory until it is saved.

    Raises ``BundleError`` if it is missing, broken, or of another version.
    """
    base = StateFolder(folder)
    kept = base.about
    try:
        if kept["version"] != VERSION:
            raise BundleError(
                f"{folder} is a history of version {kept['version']}, this program reads {VERSION}. Learn it again."
            )
        history = History(FeatureSet.from_dict(kept["features"]), lateness=kept["lateness"], told_by=kept["told_by"])
        history.latest, history.forgot_at = kept["latest"], kept["forgot_at"]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder} is no history, or is broken ({type(error).__name__}). Learn it again.") from error
    rebase(history, base)
    return history


def spill(history: History, folder: Path, *, purge: bool = False) -> Path:
    """Write a past as a folder, as ``save_spilled`` does, and let go of what of it is in memory."""
    path = save_spilled(history, folder, purge=purge)
    rebase(history, StateFolder(path))
    return path


def rebase(history: History, base: StateFolder) -> None:
    """Have a past go on from a folder that holds the same."""
    for number, store in enumerate(history.stores.values()):
        if isinstance(store.entities, Spilled) and isinstance(store.tails, Spilled):
            store.entities.rebase(base)
            store.tails.rebase(base)
        else:
            store.entities = Spilled(base, 2 * number, bytes_of, bytes_of)
            store.tails = Spilled(base, 2 * number + 1, packed_keys, unpacked_keys)


def into_memory(history: History) -> None:
    """Have all of a past in memory; the folder is no longer needed."""
    for store in history.stores.values():
        store.entities, store.tails = dict(store.entities.items()), dict(store.tails.items())


def about(history: History) -> dict[str, Any]:
    """What is known of a past as a whole, as JSON can hold it."""
    return {
        "version": VERSION,
        "features": history.features.to_dict(),
        "lateness": short(history.lateness) if history.lateness else None,
        "told_by": history.told_by,
        "latest": history.latest,
        "forgot_at": history.forgot_at,
    }


def write_into(
    folder: Path,
    whole: Iterable[tuple[bytes, bytes]],
    changes: Iterable[tuple[bytes, bytes | None]],
    *,
    files: Iterable[Path] = (),
    purge: bool = False,
) -> None:
    """Change what a folder holds that nobody reads yet.

    - ``whole``, ``changes``: what is to be kept under keys; None for nothing.
    - ``files``: more of that, as sorted files whose keys lie apart; they are moved.

    Raises ``OSError`` if the disk is full, or fails.
    """
    from rocksdict import (
        BottommostLevelCompaction,
        CompactOptions,
        IngestExternalFileOptions,
        Rdict,
        WriteBatch,
        WriteOptions,
    )

    unlogged: Any = WriteOptions()
    unlogged.disable_wal = True  # the folder counts once it is whole
    try:
        state: Any = Rdict(str(folder), _options())
        try:
            moving = IngestExternalFileOptions()
            moving.set_move_files(True)
            if paths := [str(path) for path in files]:
                state.ingest_external_file(paths, moving)
            batch, held = WriteBatch(raw_mode=True), 0
            for key, value in chain(whole, changes):
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
                held += len(key) + len(value or b"")
                if held >= AT_ONCE:
                    state.write(batch, unlogged)
                    batch, held = WriteBatch(raw_mode=True), 0
            state.write(batch, unlogged)
            state.flush()
            if purge:
                every = CompactOptions()
                every.set_bottommost_level_compaction(BottommostLevelCompaction.force())
                state.compact_range(None, None, every)
            while any(state.property_int_value(f"rocksdb.{busy}") for busy in BUSY):
                time.sleep(PAUSE)
        finally:
            state.close()
        if purge:
            Rdict(str(folder), _options()).close()  # begins a new list of files, without their former first keys
    except Exception as error:
        raise _failed(folder.parent, error) from error
    for path in folder.iterdir():
        if path.name.startswith(NOT_KEPT):
            path.unlink()


def sorted_file(kept: Mapping[bytes, bytes], path: Path) -> Path:
    """Write things under their keys as one file that ``write_into`` can take over."""
    from rocksdict import SstFileWriter

    file = SstFileWriter(_options())
    try:
        file.open(str(path))
        for key in sorted(kept):
            file[key] = kept[key]
        file.finish()
    except Exception as error:
        raise _failed(path.parent, error) from error
    return path


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _failed(folder: Path, error: Exception) -> OSError:
    """What is said of a folder that could not be written; what was there before stays."""
    code = errno.ENOSPC if FULL in str(error) else errno.EIO
    return OSError(code, f"The past of entities cannot be written, and stays as it was: {error}", str(folder))


def _parts(history: History) -> Iterator[Spilled[Any]]:
    """What is kept of entities, as it is written into a folder."""
    for number, store in enumerate(history.stores.values()):
        for kept, place, packs, unpacks in (
            (store.entities, 2 * number, bytes_of, bytes_of),
            (store.tails, 2 * number + 1, packed_keys, unpacked_keys),
        ):
            if isinstance(kept, Spilled):
                yield kept
            else:
                every: Spilled[Any] = Spilled(NOWHERE, place, packs, unpacks)
                every.changed = cast("dict[str, Any]", kept)
                yield every


def _share(base: Path, building: Path) -> None:
    """Begin a folder with the files of another: the sorted ones are never changed, so both can hold them."""
    for path in base.iterdir():
        if path.suffix == ".sst":
            try:
                os.link(path, building / path.name)
            except OSError:  # another disk, or one without links
                shutil.copyfile(path, building / path.name)
        else:
            shutil.copyfile(path, building / path.name)


def _options() -> Any:
    from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options

    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(NAME_BITS, False)
    blocks.set_block_cache(Cache(CACHE))
    options = Options(raw_mode=True)  # bytes alone; otherwise it would unpickle what it reads
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(AT_ONCE)
    options.set_keep_log_file_num(1)
    return options
