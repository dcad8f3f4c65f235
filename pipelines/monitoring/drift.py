"""Drift: whether recent rows still are what the detector was trained on; recorded in MLflow; may ask for a retraining.

The state is one file beside the detectors: the latest row looked at, the last checks, and when drift last asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from detector.atomic import write_whole
from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc, read_dates
from detector.metrics.drift import ALERTS, RISK, Shift, persistent
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.factory.gates import gated
from pipelines.factory.metadata import reference_of
from pipelines.factory.training_period import latest_rows, rows_between
from pipelines.features.engine import FeatureEngine, feature_engine_of
from pipelines.features.wording import wording_of
from pipelines.ingest.usable import open_usable
from pipelines.listing import Column, Listing
from pipelines.progress import counted, progress
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.shadow import settle_shadow
from pipelines.sources import Source
from pipelines.testing.failpoints import failpoint
from pipelines.tracking.messages import flush_tracking, record_monitoring, waiting_note

STATE = "drift.json"
MOST_CHECKS = 100
SHOWN, STORED = 5, 20


@dataclass(frozen=True)
class DriftState:
    """What one look leaves for the next.

    - ``detector``: whose reference the checks are against; another detector begins anew.
    - ``looked_until``: the latest row looked at, in ISO 8601; or how many rows there were, where there is no time.
    - ``checks``: for each look the columns that had moved, the latest last.
    - ``step``: how many looks there were, over all detectors.
    - ``asked_at``: when drift last asked for a retraining; "" if never.
    """

    detector: str = ""
    looked_until: str = ""
    checks: list[list[str]] = field(default_factory=list)
    step: int = 0
    asked_at: str = ""


@dataclass(frozen=True)
class DriftReport:
    """What a look found.

    - ``shifts``: one a column, then the risk, then the alerts.
    - ``drifting``: columns that moved often enough to be called drift.
    - ``alerts_a_day``: rows the policy flags.
    - ``names``: what people call a column, where that differs.
    """

    rows: int
    shifts: list[Shift]
    drifting: list[str]
    alerts_a_day: float
    retrain: bool
    note: str
    notes: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def summary(self) -> list[object]:
        """The look in a few lines, what moved most first."""
        if not self.shifts:
            return [self.note, *self.notes]
        columns = (
            Column("column", head=True),
            Column("state", head=True),
            Column("stability index"),
            Column("effect"),
        )
        rows = [
            {
                "column": self.names.get(shift.name, shift.name),
                "state": self._state(shift),
                "stability index": f"{shift.psi:.2f} (limit {shift.psi_limit:.2f})",
                "effect": f"{shift.effect:+.2f} (limit {shift.effect_limit:.2f})",
            }
            for shift in sorted(self.shifts, key=_strength, reverse=True)[:SHOWN]
        ]
        return [self.note, Listing(columns, rows, title="What changed most"), *self.notes]

    def _moved(self) -> list[dict[str, Any]]:
        """What moved most, as JSON."""
        return [
            {
                "column": self.names.get(shift.name, shift.name),
                "state": self._state(shift),
                "index": round(shift.psi, 4),
                "limit": round(shift.psi_limit, 4),
            }
            for shift in sorted(self.shifts, key=_strength, reverse=True)[:STORED]
        ]

    def _state(self, shift: Shift) -> str:
        return "drift" if shift.name in self.drifting else "moved" if shift.moved else "stable"

    def outcome(self) -> dict[str, Any]:
        """The same for the service's record of the run, with figures for its metrics page."""
        gauges = {f"drift:{shift.name}": round(shift.psi, 4) for shift in self.shifts}
        gauges["drift"] = max((shift.psi for shift in self.shifts), default=0.0)
        return {
            "rows": self.rows,
            "note": self.note,
            "outcome": "done" if self.shifts else "skipped",
            "facts": {"drifting": self.drifting, "alerts_a_day": self.alerts_a_day, "columns": self._moved()},
            "gauges": gauges if self.shifts else {},
            "then": ["retrain"] if self.retrain else [],
        }


def watch(config: Config, *, now: datetime) -> DriftReport:
    """Compare the rows that came since the last look with those the champion learnt from.

    - ``now``: rows after it are not believed.

    Raises ``BundleError`` if there is no detector; ``SourceError`` if the rows cannot be read.
    """
    registry, settings = ModelRegistry(config.bundle), config.drift
    settle_shadow(config, now=now)
    place = registry.serving()
    champion, name = gated(bundle.load(place), config), bundle.fingerprint(place)
    reference = reference_of(champion.metrics)
    if reference is None:
        return _nothing("The detector remembers no training rows to compare with. Train again: `detector retrain`.")
    state = _read_state(registry)
    if state.detector != name:
        state = DriftState(detector=name, looked_until=state.looked_until, step=state.step, asked_at=state.asked_at)
    since = state.looked_until or str(champion.metrics.get("learnt_until", ""))
    frame, until = _new_rows(open_usable(config), config, since=since, now=now)
    rows = clean(frame, champion.schema).rows if len(frame) else pd.DataFrame()
    if len(rows):
        rows = rows[champion.can_score(rows)]
    if len(rows) < settings.least_rows:
        return _nothing(
            f"{counted(len(rows))} came since the last look; `drift.least_rows` asks for {settings.least_rows:,}."
        )
    scores = champion.score(rows, policy_of(config.policy, champion.schema), explains=False)
    scores = scores.dropna(subset=["risk"])  # a second row of one time has no step in a series
    rows = rows.loc[scores.index]
    shifts = reference.compare(
        rows, risk=scores["risk"], p_value=scores["p_value"], psi=settings.psi, effect=settings.effect
    )
    checks = [*state.checks, [shift.name for shift in shifts if shift.moved]][-MOST_CHECKS:]
    drifting = [
        shift.name
        for shift in shifts
        if persistent([shift.name in each for each in checks], batches=settings.batches, needed=settings.needed)
    ]
    wanted = bool(drifting) and settings.retrain and _may_ask(state, config, now)
    alerts = _alerts_a_day(rows, scores, champion.schema.time)
    names = _names(config, shifts)
    note = _note(rows, shifts, drifting, wanted, names)
    report = DriftReport(len(rows), shifts, drifting, alerts, wanted, note, names=names)
    failpoint("drift.compared")
    _record(config, report, name, step=state.step + 1, now=now)
    asked = now.isoformat() if wanted else state.asked_at
    _write_state(registry, DriftState(name, until, checks, state.step + 1, asked))
    failpoint("drift.remembered")
    report.notes.extend(waiting_note(flush_tracking(config)))
    return report


def _new_rows(source: Source, config: Config, *, since: str, now: datetime) -> tuple[pd.DataFrame, str]:
    """Rows later than the last look, the latest of them if they are many, and where the next look begins."""
    time, most = config.columns.time, config.drift.most_rows
    engine = feature_engine_of(config, trained=False)
    if engine is not None and time is not None:
        return _new_measured(source, config, engine, time, since=since, now=now)
    parts: list[pd.DataFrame] = []
    seen, latest = 0, since
    end = naive_utc(now).to_datetime64()
    with progress("Reading", total=source.estimate()) as advance:
        for batch in source.batches():
            if time is None:
                begin = int(since) if since.isdigit() else 0
                chosen = np.arange(seen, seen + len(batch)) >= begin
            else:
                when = read_dates(batch[time])[0].to_numpy()
                chosen = when <= end
                if since:
                    chosen &= when > np.datetime64(since)
                if chosen.any():
                    latest = max(latest, pd.Timestamp(when[chosen].max()).isoformat())
            seen += len(batch)
            parts.append(batch[chosen])
            if sum(map(len, parts)) > 2 * most:
                parts = [latest_rows(pd.concat(parts), time, most)]
            advance(len(batch))
    frame = latest_rows(pd.concat(parts), time, most) if parts else pd.DataFrame()
    return frame, str(seen) if time is None else latest


def _new_measured(
    source: Source, config: Config, engine: FeatureEngine, time: str, *, since: str, now: datetime
) -> tuple[pd.DataFrame, str]:
    """The same with features, which look back beyond the last look."""
    begin = pd.Timestamp(since) if since else None
    end = naive_utc(now)
    frame = rows_between(source, time, since=None if begin is None else begin - engine.reach, until=end)
    if frame.empty:
        return frame, since
    rows = engine.compute(frame, now=end).rows
    when = read_dates(rows[time])[0]
    if begin is not None:
        rows, when = rows[(when > begin).to_numpy()], when[when > begin]
    latest = max(since, pd.Timestamp(when.max()).isoformat()) if len(rows) else since
    return latest_rows(rows, time, config.drift.most_rows), latest


def _alerts_a_day(rows: pd.DataFrame, scores: pd.DataFrame, time: str | None) -> float:
    """Rows flagged a day; in the batch, where there is no time."""
    flagged = float(scores["flagged"].sum())
    if time is None:
        return flagged
    return flagged / max(float((rows[time].max() - rows[time].min()).total_seconds()) / 86_400, 1.0)


def _may_ask(state: DriftState, config: Config, now: datetime) -> bool:
    if not state.asked_at:
        return True
    since = now - datetime.fromisoformat(state.asked_at)
    return not timedelta(0) <= since < timedelta(days=config.drift.retrain_every_days)  # or the clock was set back


def _names(config: Config, shifts: list[Shift]) -> dict[str, str]:
    wording = wording_of(config)
    said = {shift.name: wording.column(shift.name) for shift in shifts if shift.name not in (RISK, ALERTS)}
    return {name: each for name, each in said.items() if each != name}


def _note(rows: pd.DataFrame, shifts: list[Shift], drifting: list[str], wanted: bool, names: Mapping[str, str]) -> str:
    moved = [names.get(shift.name, shift.name) for shift in shifts if shift.moved]
    if drifting:
        after = "; a retraining is asked for" if wanted else ""
        return f"Drift in {', '.join(names.get(name, name) for name in drifting)}, in {counted(len(rows))}{after}."
    if moved:
        return f"{', '.join(moved)} moved, not yet for long, in {counted(len(rows))}."
    return f"No drift in {counted(len(rows))}."


def _record(config: Config, report: DriftReport, name: str, *, step: int, now: datetime) -> None:
    metrics = {"rows": float(report.rows), "alerts_a_day": report.alerts_a_day}
    metrics["drifting_columns"] = float(len(report.drifting))
    metrics["moved_columns"] = float(sum(shift.moved for shift in report.shifts))
    for shift in report.shifts:
        group = "detector" if shift.name in (RISK, ALERTS) else "columns"
        column = shift.name.replace("/", "_")
        metrics |= {f"psi {group}/{column}": shift.psi, f"effect {group}/{column}": shift.effect}
    note = "\n\n".join(["## Drift", f"Last look on {now:%Y-%m-%d %H:%M}: {report.note}", f"Champion: {name}."])
    tags = {"drift": ", ".join(report.drifting) or "none", "champion": name, "last look": f"{now:%Y-%m-%d %H:%M}"}
    record_monitoring(config, metrics=metrics, step=step, at=now, tags=tags, note=note)


def _nothing(note: str) -> DriftReport:
    return DriftReport(0, [], [], 0.0, retrain=False, note=note)


def _strength(shift: Shift) -> float:
    return max(shift.psi / shift.psi_limit, abs(shift.effect) / shift.effect_limit)


def _read_state(registry: ModelRegistry) -> DriftState:
    path = registry.folder / STATE
    try:
        return DriftState(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return DriftState()
    except (ValueError, TypeError):  # begin anew: what it held was a convenience
        return DriftState()


def _write_state(registry: ModelRegistry, state: DriftState) -> None:
    write_whole(registry.folder / STATE, json.dumps(asdict(state)))
