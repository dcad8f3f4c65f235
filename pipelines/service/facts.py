"""What the service knows about itself when it is asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from detector.errors import DetectorError
from detector.persist import bundle
from pipelines.alerts.outbox.cap import reported_today
from pipelines.config import Config
from pipelines.ingest.contract import Lag
from pipelines.jobs.context import ProcessCache
from pipelines.service.reloads import Reloads
from pipelines.service.resources import resources_of
from pipelines.store import DayFlags, Run, Store

if TYPE_CHECKING:
    from pipelines.scoring.contract import BatchScorer

log = logging.getLogger("detector.service")

LAG_SECONDS = 15.0
"""The source is not asked more often than this, however often the metrics are."""
LAG_PATIENCE = 2.0
"""A source that takes longer keeps no other figure from those who ask."""


class Facts:
    """Health, readiness and the figures that are asked for rather than counted.

    - ``last_beat``: when the last cycle of the main loop ended, by the monotonic clock.
    - ``cache``: holds the detector that serves.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        is_leader: Callable[[], bool],
        last_beat: Callable[[], float],
        cache: ProcessCache | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.cache = cache or ProcessCache()
        self.is_leader = is_leader
        self.last_beat = last_beat
        self.reloads = Reloads(None)
        """Where somebody asks for the file of the configuration to be read."""
        self.refused = ""
        """Why the configuration that the file has now was not taken over; empty if it was."""
        self.fault = ""
        """Why the main loop cannot write to the state at present; empty if it can."""
        self._lag = Lag()
        self._lag_at = float("-inf")
        self._lag_fault = ""
        self._asking: threading.Thread | None = None

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process does its work: the last cycle of the main loop ended not long ago."""
        silent = time.monotonic() - self.last_beat()
        return silent < 60.0 + 2 * self.config.service.lease, {"seconds_since_last_round": round(silent, 1)}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the instance could score: the state can be written to, and the detector that serves is loaded."""
        found: dict[str, Any] = {"leader": self.is_leader(), "store": self.fault or "ok", "detector": "ok"}
        if self.refused:  # the whole reason may name a value, and nobody has said who they are
            found["configuration"] = "the changed file was not taken over: see `detector status`"
        try:
            self.store.revision()
        except DetectorError as error:
            found["store"] = str(error)
        try:
            found["model_version"] = self._scorer().version
            if found["store"] == "ok":
                self._check_state()
        except DetectorError as error:
            found["detector"] = str(error)
        return found["store"] == found["detector"] == "ok", found

    def gauges(self) -> Iterator[tuple[str, str, float]]:
        """Name, meaning and value of each figure."""
        yield "leader", "Whether this instance leads: 1 or 0.", float(self.is_leader())
        yield (
            "configuration_ok",
            "Whether the configuration that serves is the file's: 1 or 0.",
            float(not self.refused),
        )
        yield from resources_of(self.config.bundle.parent)
        ready, _ = self.readiness()
        yield "ready", "Whether this instance could score: 1 or 0.", float(ready)
        if not ready:
            return
        try:
            if isinstance(lag := self.lag_by_now(), Lag):
                yield "lag_waiting", "Files or rows of the source that were not scored yet.", float(lag.waiting)
                yield (
                    "lag_seconds",
                    "Age of the oldest file that waits, or how far the newest row is ahead.",
                    lag.seconds,
                )
            yield "model_age_seconds", "Since the detector that serves was trained.", self.model_age()
            yield "alerts_today", "Rows flagged, of those that happened today (UTC).", float(self._flagged_today())
            yield (
                "alerts_told_today",
                "Alerts made today of events, whenever those were.",
                float(self._reported_today()),
            )
            ended = self._last_success()
            if ended is not None:
                yield "last_score_timestamp_seconds", "When scoring last ended well.", ended.timestamp()
        except DetectorError as error:
            log.warning("the metrics are incomplete: %s", error)

    def take(self, config: Config) -> None:
        """Answer from another configuration from now on."""
        self.config, self._lag_at = config, float("-inf")

    def lag(self) -> Lag:
        """How far the scores are behind the source; at most 15 seconds old."""
        if time.monotonic() - self._lag_at >= LAG_SECONDS:
            from pipelines.ingest.followed import open_followed

            intake = open_followed(self.config, self.store, self._scorer().schema)
            self._lag, self._lag_at = intake.lag(datetime.now(UTC)), time.monotonic()
        return self._lag

    def lag_by_now(self) -> Lag | str:
        """The lag, if the source says it soon; else why it does not, which is logged once."""
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask_for_lag, name="lag", daemon=True)
            self._asking.start()
        self._asking.join(LAG_PATIENCE)
        if self._lag_fault:
            return self._lag_fault
        return f"The source has not answered in {LAG_PATIENCE:g} s." if self._asking.is_alive() else self._lag

    def _ask_for_lag(self) -> None:
        try:
            self.lag()
            self._lag_fault = ""
        except DetectorError as error:
            if not self._lag_fault:
                log.warning("how far the scores are behind is not known: %s", error)
            self._lag_fault = str(error)

    def model_age(self) -> float:
        """Seconds since the detector was trained, or since its file was written if it does not say."""
        trained = self._scorer().metrics.get("made_at")
        if isinstance(trained, str):
            return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(trained)).total_seconds())
        return max(0.0, time.time() - (Path(self.config.bundle) / bundle.MANIFEST).stat().st_mtime)

    def _scorer(self) -> BatchScorer:
        from pipelines.scoring.load import load_scorer

        return load_scorer(self.config, self.cache)

    def _check_state(self) -> None:
        from pipelines.features.feature_state import feature_state_of

        if (state := feature_state_of(self.config, self.store, self.cache)) is not None:
            state.check()

    def _flagged_today(self) -> int:
        today = sa.select(sa.func.sum(DayFlags.flagged)).where(
            DayFlags.source == self.config.name, DayFlags.day == datetime.now(UTC).date()
        )
        with self.store.read() as session:
            return int(session.scalar(today) or 0)

    def _reported_today(self) -> int:
        with self.store.read() as session:
            return reported_today(session, config=self.config, now=datetime.now(UTC))

    def _last_success(self) -> datetime | None:
        last = (
            sa.select(Run.ended_at)
            .where(Run.job == "score", Run.outcome.in_(("done", "skipped")), Run.ended_at.is_not(None))
            .order_by(Run.id.desc())
            .limit(1)
        )
        with self.store.read() as session:
            return session.scalar(last)
