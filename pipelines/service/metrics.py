"""What Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipelines.jobs.catalogue import JOBS
from pipelines.jobs.context import JobOutcome
from pipelines.service.facts import Facts

BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400)


class Metrics:
    """The service's metrics, in a registry of their own."""

    def __init__(self, facts: Facts) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_FactsCollector(facts))
        self._rows = Counter("detector_rows_scored", "Rows scored.", registry=self.registry)
        self._flagged = Counter("detector_rows_flagged", "Rows flagged.", registry=self.registry)
        self._quarantined = Counter("detector_rows_quarantined", "Rows quarantined.", registry=self.registry)
        self._reasons = Counter(
            "detector_rows_quarantined_by_reason", "Rows quarantined, by reason.", ["reason"], registry=self.registry
        )
        self._repeated = Counter(
            "detector_rows_repeated", "Rows skipped, because they came before as they are.", registry=self.registry
        )
        self._corrected = Counter(
            "detector_rows_corrected", "Rows scored that came before with other values.", registry=self.registry
        )
        self._held = Counter(
            "detector_rows_held_back", "Rows that a gate held back, by gate.", ["gate"], registry=self.registry
        )
        self._seconds = Histogram(
            "detector_job_seconds", "How long runs took.", ["job"], registry=self.registry, buckets=BUCKETS
        )
        self._runs = Counter("detector_runs", "Runs that ended.", ["job", "outcome"], registry=self.registry)
        self._failures = Counter("detector_job_failures", "Runs that failed.", ["job"], registry=self.registry)
        for job in JOBS:  # from the start, or a rate would not see the first failure
            self._failures.labels(job)
        self._gauges: dict[str, Gauge] = {}

    def on_end(self, job: str, outcome: str, seconds: float, found: JobOutcome | None) -> None:
        """Count a run that ended."""
        self._runs.labels(job, outcome).inc()
        self._seconds.labels(job).observe(seconds)
        self._failures.labels(job).inc(outcome == "failed")
        if found is None:
            return
        facts = found.facts
        if job in ("score", "backfill", "replay"):
            self._rows.inc(facts.get("scored", 0))
            self._flagged.inc(facts.get("flagged", 0))
            self._quarantined.inc(facts.get("quarantined", 0))
            self._repeated.inc(facts.get("repeated", 0))
            self._corrected.inc(facts.get("corrected", 0))
            for reason, rows in facts.get("quarantined_by_reason", {}).items():
                self._reasons.labels(reason).inc(rows)
            for gate, rows in facts.get("held_by_gate", {}).items():
                self._held.labels(gate).inc(rows)
        for name, value in found.gauges.items():
            self._gauge(name, float(value))

    def _gauge(self, name: str, value: float) -> None:
        """``drift`` as detector_drift; ``drift:amount`` the same with ``of="amount"``."""
        title, _, label = name.partition(":")
        gauge = self._gauges.get(title)
        if gauge is None:
            gauge = Gauge(f"detector_{title}", f"The last {title} that a job reported.", ["of"], registry=self.registry)
            self._gauges[title] = gauge
        gauge.labels(label).set(value)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _FactsCollector(Collector):
    """What is asked for at each scrape."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing up front: the state is not asked before the first scrape."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask for every fact; one that cannot be had is left out."""
        for name, text, value in self.facts.gauges():
            yield GaugeMetricFamily(f"detector_{name}", text, value=value)
