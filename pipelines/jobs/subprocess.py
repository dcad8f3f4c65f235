"""A job as a command in a process of its own, whose memory comes back when it ends."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from detector.errors import DetectorError, SettingError
from pipelines.config import TEXT_VARIABLE
from pipelines.jobs.context import Context, JobOutcome, StoppedError
from pipelines.parent import lifeline

log = logging.getLogger("detector.jobs")

MOST_ERROR, MOST_OUTPUT = 2_000, 50_000
"""Characters at the end of what a command wrote to standard error and to standard output that are read."""
PATIENCE = 10.0
_FIELDS = ("rows", "note", "outcome", "facts", "gauges", "then")


class CommandError(DetectorError, RuntimeError):
    """A command failed; the message is what it said."""


def run_command(
    command: str, context: Context, words: Sequence[str] = (), *, seconds: float | None = None
) -> JobOutcome:
    """Run ``detector COMMAND CONFIG WORDS`` and read what it says; see ``pipelines.jobs.catalogue.as_command``.

    - ``command``: one word, or two for a command of a group.
    - ``seconds``: how long it may take; after that it is ended.

    Raises ``CommandError`` if it ends with another exit code than 0, or took too long; ``StoppedError`` if the service
    ends meanwhile; the command is asked to end, and killed if it does not. If the service is killed, it ends by itself.
    """
    if context.config.file is None:
        raise SettingError("A job that is a command of its own needs a configuration file, and there is none.")
    arguments = [sys.executable, "-m", "pipelines", *command.split(), str(context.config.file), *words]
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as text,
        lifeline() as (handed_on, named),
    ):
        text.write(context.config.text)  # the file itself may be half written by now, or be none that can be used
        text.flush()
        environment = os.environ | {"DETECTOR_RUN": str(context.run), TEXT_VARIABLE: text.name} | named
        process = subprocess.Popen(
            arguments,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[handed_on],
            start_new_session=True,
        )
        code = _wait(process, context, seconds)
        said, complaint = _end_of(out, MOST_OUTPUT), _end_of(err, MOST_ERROR)
    if code:
        why = complaint.strip() or said.strip()[-MOST_ERROR:] or "it said nothing"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise CommandError(f"`detector {command}` {how}: {why}")
    return outcome_of(said)


def outcome_of(said: str) -> JobOutcome:
    """What a command did, by its last line.

    >>> outcome_of("Kept the champion.").note
    'Kept the champion.'
    >>> outcome_of('{"rows": 3, "gauges": {"drift": 0.1}}').rows
    3
    """
    lines = said.strip().splitlines()
    last = lines[-1].strip() if lines else ""
    try:
        values = json.loads(last) if last.startswith("{") else None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return JobOutcome(note=last)
    known: dict[str, Any] = {name: values[name] for name in _FIELDS if name in values}
    known["then"] = tuple(known.get("then", ()))
    if known.get("outcome") not in (None, "done", "skipped"):
        known.pop("outcome")
    return JobOutcome(**known)


def _wait(process: subprocess.Popen[bytes], context: Context, seconds: float | None) -> int:
    latest = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            late, stopping = time.monotonic() > latest, context.stopping()
        if not late and not stopping:
            continue
        name = " ".join(_named(process.args))
        log.info("ending %s: %s", name, "the service ends" if stopping else "it takes too long")
        _end(process)
        if stopping:
            raise StoppedError("The service ends; the command was ended with it, and runs anew at its next time.")
        raise CommandError(f"`detector {name}` was ended: it took more than {seconds:,.0f} seconds.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _named(arguments: Any) -> Sequence[str]:
    return [str(argument) for argument in arguments][3:]


def _end_of(stream: Any, most: int) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - most))
    return str(stream.read().decode("utf-8", errors="replace"))
