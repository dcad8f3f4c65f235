"""The service's log: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from pipelines.escaping import for_json_log, for_log

_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the error if any, and what the call added.

    >>> record = logging.makeLogRecord({"msg": "scored %d rows", "args": (3,), "name": "detector", "rows": 3})
    >>> json.loads(JsonFormatter().format(record))["rows"]
    3
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        values: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        values |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            values["error"] = self.formatException(record.exc_info)
        return for_json_log(json.dumps(values, ensure_ascii=False, default=str))


class PrettyFormatter(logging.Formatter):
    """Local time, level and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s  %(levelname)-7s  %(message)s", datefmt="%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record in a line, or in several of which all but the first are set in."""
        return for_log(super().format(record))


def configure(kind: Literal["pretty", "json"], *, stream: TextIO | None = None) -> None:
    """Send the log of this process to standard error, once, in that form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else PrettyFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in ("apscheduler", "uvicorn", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # anybody could fill the log with requests that are none
    # APScheduler says at each time it leaves out what is in the record of the run already.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
