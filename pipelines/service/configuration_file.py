"""A configuration that changes while the service runs: noticed, checked, and taken over or refused as a whole."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detector.errors import BundleError, DetectorError, SettingError
from pipelines.config import Config, load_config
from pipelines.config.difference import changes, fixed_changes, listed
from pipelines.jobs.context import ProcessCache

log = logging.getLogger("detector.service")

SETTLE_SECONDS = 1.0
"""A file must not have changed for as long, or half of it would be read."""
AGAIN_SECONDS = 60.0
"""A file that was refused is looked at again so often: it may fit a detector that is trained meanwhile."""

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True)
class FoundConfiguration:
    """What the file holds now.

    - ``config``: None if it cannot be taken over.
    - ``changed``: which settings differ from those that serve.
    - ``refused``: why it cannot be taken over; empty if it can.
    """

    config: Config | None
    changed: tuple[str, ...] = ()
    refused: str = ""


class ConfigurationFile:
    """Notices that the file of a configuration has changed, and checks what it holds.

    - ``check``: called with the configuration that serves and the one that is to; raises a ``DetectorError`` if it
      cannot serve.
    """

    def __init__(
        self,
        path: Path,
        *,
        check: Callable[[Config, Config], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._check = check
        self._clock = clock
        self._asked = threading.Event()
        self._read: Stamp = (0, 0, 0)  # it may have changed since it was read at the start
        self._seen: Stamp = self._read
        self._seen_at = clock()
        self._again_at = float("inf")

    def read_again(self) -> None:
        """Have the next look read the file, whether it has changed or not; a signal handler may call it."""
        self._asked.set()

    def look(self, serving: Config) -> FoundConfiguration | None:
        """What the file holds, if it is to be read; None if all is as it was, or it is just being written."""
        now, stamp = self._clock(), _stamp(self.path)
        if stamp != self._seen:
            self._seen, self._seen_at = stamp, now
        due = stamp != self._read or self._asked.is_set() or now >= self._again_at
        if not due or now - self._seen_at < SETTLE_SECONDS:
            return None
        self._asked.clear()
        self._read = stamp
        found = self._reading(serving)
        self._again_at = now + AGAIN_SECONDS if found.refused else float("inf")
        return found

    def _reading(self, serving: Config) -> FoundConfiguration:
        try:
            config = load_config(self.path)
            changed = tuple(changes(serving, config))
            if fixed := fixed_changes(serving, config):
                raise SettingError(
                    f"{listed(fixed)} cannot change while the service runs. Start it anew, or write what it was: "
                    f"until then, no other change counts either."
                )
            if changed:
                self._check(serving, config)
        except DetectorError as error:
            return FoundConfiguration(None, refused=str(error))
        except Exception as error:
            log.exception("the configuration could not be checked")
            return FoundConfiguration(None, refused=f"{type(error).__name__}: {error}")
        return FoundConfiguration(config, changed)


def check_serves(serving: Config, config: Config, cache: ProcessCache) -> None:
    """Whether the detector that serves goes with another configuration.

    Raises
    ------
    SettingError
        If the policy, the alerts or a new rule do not fit it, or features cannot be measured.
    DataError
        If it has learnt from other features.
    """
    from pipelines.features.engine import feature_engine_of
    from pipelines.rules.checked import problems_of
    from pipelines.scoring.load import load_scorer

    engine, before = feature_engine_of(config, trained=False), feature_engine_of(serving, trained=False)
    try:
        schema = load_scorer(config, cache).schema
    except BundleError:
        return  # there is none, or it is broken: that says itself, whatever the configuration
    if engine is not None:
        engine.raw_schema(schema)
    gone = set(before.features.names if before is not None else ()) - set(engine.features.names if engine else ())
    if lost := sorted(gone & set(schema.features)):
        raise SettingError(
            f"The detector that serves has learnt from the feature {lost[0]!r}, which is configured no longer. "
            f"Train with the new file first: detector train CONFIG."
        )
    new = [rule for rule in config.rules if rule.state != "off" and rule not in serving.rules]
    for name, problem in problems_of(config, new, schema).items():
        raise SettingError(f"The rule {name} cannot be used: {problem}")


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
