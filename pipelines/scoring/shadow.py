"""A challenger that scores beside the champion for some days: its scores are kept, and flag nothing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from detector.atomic import whole_file, write_whole
from detector.cleaning.values import naive_utc
from detector.errors import DetectorError
from detector.metrics import compare
from detector.metrics.calibration import calibration_metrics
from pipelines.config import Config
from pipelines.ingest.batch import InputBatch
from pipelines.jobs.context import ProcessCache
from pipelines.registry.promotion import KEEP, PROMOTE, TITLES, Decision, overtaken
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.contract import BatchContext
from pipelines.scoring.load import load_challenger
from pipelines.scoring.table import TableBatchScorer
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.tracking.messages import record_note, record_promotion

log = logging.getLogger("detector.score")

STATE = "shadow.json"
DAYS = "days.json"
"""Beside the scores of a trial: what the challenger has flagged of each day, a batch."""
MOST_FOR_RANKS = 100_000


@dataclass(frozen=True)
class Trial:
    """A challenger in the shadow.

    - ``name``: The challenger.
    - ``reason``: Why it would serve.
    - ``since``, ``until``: When the trial began, and when it is settled, in ISO 8601.
    - ``champion``: Beside which it scores; empty if an earlier version began the trial.
    """

    name: str
    reason: str
    since: str
    until: str
    champion: str = ""


def begin_shadow(config: Config, name: str, *, reason: str, now: datetime) -> Trial:
    """Let a challenger score beside the champion from now on; an earlier trial ends without effect."""
    until = now + timedelta(days=config.retrain.shadow_days)
    trial = Trial(name, reason, now.isoformat(), until.isoformat(), ModelRegistry(config.bundle).served())
    write_whole(_state(config), json.dumps(asdict(trial)))
    return trial


def trial_of(config: Config) -> Trial | None:
    """The trial that runs, if one does; costs one look at the disk."""
    try:
        return Trial(**json.loads(_state(config).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


class ShadowTrial:
    """A batch that a challenger scores beside the champion, which has scored it already.

    - ``trial``: Names the challenger.
    - ``scorer``: The challenger, which decides as the champion does: what it has flagged of a day in other batches
      counts.
    - ``folder``: Where the scores of the trial are kept, one file a batch.
    - ``now``: Of the run.
    """

    def __init__(self, trial: Trial, scorer: TableBatchScorer, folder: Path, *, now: datetime) -> None:
        self.trial = trial
        self.scorer = scorer
        self.folder = folder
        self.now = now
        self._champion: list[pd.DataFrame] = []

    @classmethod
    def of(cls, config: Config, cache: ProcessCache, *, now: datetime) -> ShadowTrial | None:
        """The trial that runs, if one does; none if its challenger cannot be loaded, which ``settle_shadow`` tells."""
        trial = trial_of(config)
        if trial is None or now >= datetime.fromisoformat(trial.until):
            return None
        try:
            scorer = load_challenger(config, ModelRegistry(config.bundle).path_of(trial.name), cache)
        except DetectorError as error:
            log.warning("the challenger %s cannot be loaded: %s", trial.name, error)
            return None
        return None if scorer is None else cls(trial, scorer, _folder(config) / trial.name, now=now)

    def watch(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The champion's scores on their way; what is compared of them is noted."""
        for frame in frames:
            self._champion.append(frame[["risk", "p_value", "flagged"]])
            yield frame

    def score(self, rows: InputBatch, *, batch: int) -> Path | None:
        """Score the rows that the champion has scored.

        Returns the file with key, time, risk, p-value, and whether the champion and the challenger flag the row. The
        same batch writes the same file, so one that is scored again doubles nothing.
        """
        if not self._champion:
            return None
        champion = pd.concat(self._champion)
        theirs = rows.map(lambda frames: (frame[frame.index.isin(champion.index)] for frame in frames))
        name = f"batch-{batch}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-")))
            seen = stack.enter_context(QuarantineSink(folder / "quarantine.csv"))  # the champion's is the one to read
            used = partial(self._flagged_elsewhere, name)
            context = BatchContext(folder=folder, quarantine=seen, now=self.now, used=used)
            scored = self.scorer.score(theirs, context)
            scores = pd.concat(list(scored.frames))
        if scores.empty:
            return None
        named = [each for role, each in self.scorer.schema.roles.items() if role != "label"]
        both = scores[["risk", "p_value", "flagged"]].add_suffix("_challenger")
        both = both.join(champion.add_suffix("_champion"), how="inner")
        both = pd.concat([scores.loc[both.index, named], both], axis=1)
        path = self.folder / f"{name}.parquet"
        with whole_file(path) as file:
            both.assign(scored_at=naive_utc(self.now)).to_parquet(file)
        by_day = {str(day): count for day, count in scored.by_day.items()}
        write_whole(self.folder / DAYS, json.dumps(self._days() | {name: by_day}))
        return path

    def _days(self) -> dict[str, dict[str, int]]:
        """How many rows of each day the challenger has flagged in each batch."""
        try:
            found: dict[str, dict[str, int]] = json.loads((self.folder / DAYS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def _flagged_elsewhere(self, name: str, days: Sequence[date]) -> dict[date, int]:
        found = [by_day for batch, by_day in self._days().items() if batch != name]
        return {day: sum(by_day.get(str(day), 0) for by_day in found) for day in days}


def settle_shadow(config: Config, *, now: datetime) -> str | None:
    """Decide about a trial whose days are over; a decision always comes, also if no batch did.

    Returns "promote" or "keep"; None if there is nothing to settle.
    """
    trial = trial_of(config)
    if trial is None or now < datetime.fromisoformat(trial.until):
        return None
    registry = ModelRegistry(config.bundle)
    outcome, reason, metrics = _settled(config, registry, trial)
    with registry.locked():
        if trial_of(config) != trial:
            return None  # another job has settled it meanwhile
        if outcome == PROMOTE and trial.champion not in ("", registry.served()):
            decided = overtaken(Decision(outcome, reason))
            outcome, reason = decided.outcome, decided.reason
        if outcome == PROMOTE:
            registry.promote(trial.name, why=reason, now=now, notify=partial(record_promotion, config, job="retrain"))
        elif trial.name in registry.state().names:
            registry.note(trial.name, f"{outcome}: {reason}", challenger=True)
        _state(config).unlink(missing_ok=True)
    record_note(
        config,
        run=f"shadow trial: {outcome}",
        note=f"## {TITLES[outcome]}\n\n{reason}\n\n- **trial**: {trial.since[:16]} to {trial.until[:16]}",
        tags={"job": "shadow", "decision": outcome, "reason": reason, "detector.bundle": trial.name},
        started=now.timestamp(),
        ended=now.timestamp(),
        metrics=metrics,
    )
    return outcome


def _settled(config: Config, registry: ModelRegistry, trial: Trial) -> tuple[str, str, dict[str, float]]:
    if registry.state().champion == trial.name:
        return KEEP, "It serves already; a person promoted it during its trial.", {}
    if not registry.path_of(trial.name).exists():
        return KEEP, "The champion stays: the challenger's bundle is gone.", {}
    files = sorted((_folder(config) / trial.name).glob("*.parquet"))
    if not files:
        return PROMOTE, f"No batch came during the trial, so the comparison decides. {trial.reason}", {}
    rows = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    champion, challenger = int(rows["flagged_champion"].sum()), int(rows["flagged_challenger"].sum())
    sample = rows.iloc[:: max(1, len(rows) // MOST_FOR_RANKS)]
    stability = compare.rank_stability(sample["risk_champion"], sample["risk_challenger"])
    days = (datetime.fromisoformat(trial.until) - datetime.fromisoformat(trial.since)).total_seconds() / 86_400
    metrics = {
        "rows": float(len(rows)),
        "alerts_a_day_champion": champion / max(days, 1.0),
        "alerts_a_day_challenger": challenger / max(days, 1.0),
        "rank_stability": stability,
    }
    words = f"{challenger:,} alerts in {len(rows):,} rows, champion {champion:,}; rank correlation {stability:.2f}"
    settings = config.retrain
    off = calibration_metrics(rows["p_value_champion"])["calibration_distance"]
    metrics["calibration_distance_champion"] = off
    # Four alerts more or less are chance: twice the square root of one alert, and of a few.
    if challenger > settings.most_alert_change * champion + 4.0 * np.sqrt(champion + 1.0):
        return KEEP, f"The champion stays: in the shadow the challenger raised too many alerts. {words}.", metrics
    if stability < settings.least_stability and off <= settings.most_calibration_distance:
        return KEEP, f"The champion stays: in the shadow the challenger ranked rows quite otherwise. {words}.", metrics
    return PROMOTE, f"The challenger serves after its days in the shadow: {words}. {trial.reason}", metrics


def _folder(config: Config) -> Path:
    return ModelRegistry(config.bundle).folder / "shadow"


def _state(config: Config) -> Path:
    return ModelRegistry(config.bundle).folder / STATE
