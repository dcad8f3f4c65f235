"""What is to be sent to MLflow, kept on disk until it was: a server that is down delays logging and loses nothing.

Every entry is a folder, numbered in the order it was put there::

    spool/
    ├── 000007-training/   entry.json, bundle/, example.parquet, *.png
    ├── 000008-move/       entry.json
    └── refused/           what a server that answers refused several times, with its reason

Nothing here imports MLflow.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.atomic import whole_folder, write_whole
from pipelines.testing.failpoints import failpoint

MOST_ATTEMPTS = 5
REFUSED = "refused"


@dataclass(frozen=True)
class Entry:
    """One thing to be sent.

    - ``kind``: what it is: "training", "note", "move", "monitoring".
    - ``name``: unique for ever; MLflow's runs are marked with it, so that sending it again doubles nothing.
    - ``values``: its plain facts. Files lie beside them.
    """

    folder: Path
    kind: str
    name: str
    values: dict[str, Any]


class Spool:
    """Entries on disk, oldest first.

    - ``folder``: made when the first entry is put there.

    >>> import tempfile
    >>> spool = Spool(Path(tempfile.mkdtemp()))
    >>> spool.put("note", {"reason": "too few rows"})[:6]
    '000001'
    >>> [entry.kind for entry in spool.entries()]
    ['note']
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, kind: str, values: Mapping[str, Any], files: Callable[[Path], None] | None = None) -> str:
        """Keep an entry; it is there as a whole, or not at all.

        - ``kind``, ``values``: as in `Entry`.
        - ``files``: writes files to the folder it is given.

        Returns the name of its folder.
        """
        content = {"kind": kind, "name": uuid.uuid4().hex, "values": dict(values)}
        with self._locked(".lock-put", fcntl.LOCK_EX):  # so that no two processes take one number
            number = 1 + max((int(name.split("-")[0]) for name in self._names()), default=0)
            place = self.folder / f"{number:06d}-{kind}"
            with whole_folder(place) as building:
                if files is not None:
                    files(building)
                (building / "entry.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
                failpoint("spool.built")
        return place.name

    def entries(self) -> list[Entry]:
        """All that waits, oldest first."""
        found = []
        for name in self._names():
            try:
                content = json.loads((self.folder / name / "entry.json").read_text(encoding="utf-8"))
                found.append(Entry(self.folder / name, content["kind"], content["name"], content["values"]))
            except FileNotFoundError:
                continue  # another process has just sent it
            except (ValueError, KeyError, TypeError) as error:
                self.refuse(self.folder / name, f"The entry is damaged: {error!r}.")
        return found

    def waiting(self) -> int:
        """How many wait."""
        return len(self._names())

    def refused(self) -> list[tuple[str, str]]:
        """What was given up, with its reason."""
        return [
            (folder.name, (folder / "reason.txt").read_text(encoding="utf-8"))
            for folder in sorted((self.folder / REFUSED).glob("*"))
            if (folder / "reason.txt").exists()
        ]

    def done(self, entry: Entry) -> None:
        """Forget an entry that was sent."""
        gone = entry.folder.with_name(f".sent-{entry.folder.name}-{entry.name[:6]}")
        entry.folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def failed(self, entry: Entry, reason: str) -> bool:
        """Count an attempt that a server which answers refused; after five the entry goes to ``refused/``.

        Returns whether it was.
        """
        path = entry.folder / "attempts"
        attempts = 1 + (int(path.read_text()) if path.exists() else 0)
        write_whole(path, str(attempts))
        if attempts < MOST_ATTEMPTS:
            return False
        self.refuse(entry.folder, reason)
        return True

    def refuse(self, folder: Path, reason: str) -> None:
        """Move an entry to ``refused/``, for a person to look at."""
        write_whole(folder / "reason.txt", reason)
        target = self.folder / REFUSED / f"{folder.name}-{uuid.uuid4().hex[:6]}"
        target.parent.mkdir(exist_ok=True)
        folder.replace(target)

    def take_back(self) -> int:
        """Let what was refused wait again, in the order it was put there; how many. One whose place is taken stays."""
        found = 0
        for folder in sorted((self.folder / REFUSED).glob("*")):
            target = self.folder / folder.name.rpartition("-")[0]
            if not (folder / "entry.json").is_file() or target.exists():
                continue
            for name in ("attempts", "reason.txt"):
                (folder / name).unlink(missing_ok=True)
            folder.replace(target)
            found += 1
        return found

    @contextmanager
    def sending(self) -> Iterator[bool]:
        """Be the only process that sends; False if another one does."""
        with self._locked(".lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            yield alone

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[bool]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as file:
            try:
                fcntl.flock(file, how)
            except BlockingIOError:
                yield False
                return
            yield True

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.folder) if name[:6].isdigit())  # noqa: PTH208 - only names
        except FileNotFoundError:
            return []
