"""A file with one JSON object a line: the default, which needs nothing."""

from __future__ import annotations

import fcntl
import glob
import json
import math
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pipelines.alerts.message.message import Message
from pipelines.alerts.network.errors import DeliveryError
from pipelines.config.alert_channels import FileSection
from pipelines.config.alerting import AlertsSection
from pipelines.disk import unwritten

LAST_BYTES = 262_144
"""How far back a line is looked for that was written already."""


def as_dict(message: Message) -> dict[str, object]:
    """An alert as plain values, for machines."""
    links = {"answer": message.answer_url, "review": message.review_url, "run": message.run_url}
    return message.to_dict() | {
        "title": message.title,
        "text": message.sentence,
        "created_at": message.created_at.isoformat(),
        "rarity": message.rarity,
        "reasons": message.reasons,
        "columns": message.facts.get("columns", {}),
        "keys": message.facts.get("keys", [])[:100],
        "links": {name: url for name, url in links.items() if url},
    }


def files_of(path: Path) -> list[Path]:
    """Those that were full, the oldest first, and the one that is written to, as far as there are any."""
    full = _numbered(path)
    return [*(full[number] for number in sorted(full)), *([path] if path.is_file() else [])]


def _numbered(path: Path) -> dict[int, Path]:
    """The files that were full, by their numbers."""
    found = {}
    for file in path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        number = file.name[len(path.stem) + 1 : len(file.name) - len(path.suffix)]
        if number.isdecimal():
            found[int(number)] = file
    return found


class FileChannel:
    """Appends to a file, one alert a line; its folder is made if it is missing.

    A file of ``most_bytes`` is set aside beside it under the next number. A new file is readable by this user only:
    whoever reads it can answer the alerts by their links.
    """

    def __init__(self, path: Path, *, most_bytes: float = math.inf) -> None:
        self.path = path
        self.most_bytes = most_bytes

    def send(self, message: Message, *, now: datetime) -> None:
        """Append a line, whole or not at all, and once: a line that a crash cut off is ended first.

        Raises ``DeliveryError`` if the file cannot be written.
        """
        line = json.dumps(as_dict(message) | {"sent_at": now.isoformat()}, ensure_ascii=False, default=str) + "\n"
        part = json.dumps({"id": message.id})[1:-1].encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._append(line, part):
                pass
        except OSError as error:
            raise DeliveryError(unwritten(self.path, error)) from error

    def _append(self, line: str, part: bytes) -> bool:
        """Whether that could be done, or was done before; not where the file was full, or was set aside by another."""
        with open(self.path, "ab+", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not self._is_ours(file.fileno()):
                return False
            if any(part in each for each in _latest(self.path)):
                return True  # a crash came between this line and the note that it was written
            end = file.seek(0, os.SEEK_END)
            if end >= self.most_bytes:
                self.path.rename(self.path.with_name(self._next_name()))
                return False
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
            return True

    def _is_ours(self, opened: int) -> bool:
        try:
            return os.path.samestat(os.fstat(opened), self.path.stat())
        except FileNotFoundError:
            return False

    def _next_name(self) -> str:
        return f"{self.path.stem}.{max(_numbered(self.path), default=0) + 1}{self.path.suffix}"

    def close(self) -> None:
        """Nothing is held."""


def _latest(path: Path) -> Iterator[bytes]:
    """What was written last, the newest file first."""
    left = LAST_BYTES
    for each in reversed(files_of(path)):
        with each.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - left))
            yield file.read()
        if (left := left - size) <= 0:
            return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def open_channel(section: FileSection, alerts: AlertsSection, number: int) -> FileChannel:
    """The channel of a configuration."""
    del alerts, number
    return FileChannel(section.path, most_bytes=section.most_megabytes * 1e6)
