"""A file with one JSON object a line: the default, which needs nothing."""

from __future__ import annotations

import fcntl
import json
import os
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


class FileChannel:
    """Appends to a file, one alert a line; its folder is made if it is missing.

    A new file is readable by this user only: whoever reads it can answer the alerts by their links.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, message: Message, *, now: datetime) -> None:
        """Append a line, whole or not at all, and once: a line that a crash cut off is ended first.

        Raises ``DeliveryError`` if the file cannot be written.
        """
        line = json.dumps(as_dict(message) | {"sent_at": now.isoformat()}, ensure_ascii=False, default=str) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+", opener=_private) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - LAST_BYTES))
                if json.dumps({"id": message.id})[1:-1].encode() in file.read():
                    return  # a crash came between this line and the note that it was written
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            raise DeliveryError(unwritten(self.path, error)) from error

    def close(self) -> None:
        """Nothing is held."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def open_channel(section: FileSection, alerts: AlertsSection, number: int) -> FileChannel:
    """The channel of a configuration."""
    del alerts, number
    return FileChannel(section.path)
