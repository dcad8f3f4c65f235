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
from pipelines.ingest.provenance import with_provenance
from pipelines.jobs.context import ProcessCache
from pipelines.registry.promotion import KEEP, PROMOTE, TITLES, Decision, overtaken
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.contract import BatchContext, BatchScorer
from pipelines.scoring.load import load_challenger
from pipelines.sinks.batch_sink import ROW_COLUMNS
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.tracking.messages import record_note, record_promotion

log = logging.getLogger("detector.score")

STATE = "shadow.json"
DAYS = "days.json"
"""Beside the scores of a trial: what the challenger has flagged of each day, a batch."""
MEMORY = "memory.arrow"
"""Beside the scores of a trial of series: what the challenger has kept of the last batch."""
MOST_FOR_RANKS = 100_000
COMPARED = ["risk", "p_value", "flagged"]


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
      counts. One for series goes on from a memory of its own, so it may score a row in another batch than the champion.
    - ``folder``: Where the scores of the trial are kept, one file a batch.
    - ``now``: Of the run.
    """

    def __init__(self, trial: Trial, scorer: BatchScorer, folder: Path, *, now: datetime) -> None:
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
        return cls(trial, scorer, _folder(config) / trial.name, now=now)

    def watch(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The champion's scores on their way; what is compared of them is noted."""
        for frame in frames:
            self._champion.append(frame[[name for name in frame if name in (*self._named, *COMPARED)]])
            yield frame

    @property
    def _named(self) -> tuple[str, ...]:
        """The columns that name a row, and say when it was and whose it is."""
        return (*ROW_COLUMNS, *(each for role, each in self.scorer.schema.roles.items() if role != "label"))

    def score(self, rows: InputBatch, *, batch: int, memory: bytes | None = None) -> Path | None:
        """Score the rows that the champion has scored, or of series those that have come.

        ``memory`` is what the champion had kept of the batch before: the trial of a detector for series begins with it.

        Returns the file with key, time, risk, p-value, and whether the champion and the challenger flag the row. The
        same batch writes the same file, so one that is scored again doubles nothing.
        """
        champion = pd.concat(self._champion) if self._champion else pd.DataFrame(columns=[*self._named, *COMPARED])
        if not self.scorer.needs_memory:
            if champion.empty:
                return None
            rows = rows.map(lambda frames: (frame[frame.index.isin(champion.index)] for frame in frames))
        name = f"batch-{batch}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="detector-")))
            seen = stack.enter_context(QuarantineSink(folder / "quarantine.csv"))  # the champion's is the one to read
            used = partial(self._flagged_elsewhere, name)
            before = self._memory(memory) if self.scorer.needs_memory else None
            context = BatchContext(folder=folder, quarantine=seen, now=self.now, used=used, memory=before)
            scored = self.scorer.score(rows, context)
            scores = pd.concat([frame for frame in scored.frames if len(frame)] or [champion.iloc[:0]])
        if self.scorer.schema.key is None and len(scores) and not scored.has_provenance:
            scores = with_provenance(scores, rows.facts.spans)
        path = self.folder / f"{name}.parquet"
        both = side_by_side(champion, scores, key=self.scorer.schema.key)
        with whole_file(path) as file:
            both.assign(scored_at=naive_utc(self.now)).to_parquet(file)
        by_day = {str(day): count for day, count in scored.by_day.items()}
        write_whole(self.folder / DAYS, json.dumps(self._days() | {name: by_day}))
        if scored.memory is not None:
            with whole_file(self.folder / MEMORY) as file:
                file.write(scored.memory)
        return path

    def _memory(self, champions: bytes | None) -> bytes:
        """What the challenger has kept; at first what the champion had."""
        try:
            return (self.folder / MEMORY).read_bytes()
        except FileNotFoundError:
            return champions or b""

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


def side_by_side(champion: pd.DataFrame, challenger: pd.DataFrame, *, key: str | None) -> pd.DataFrame:
    """What two detectors say of rows, by the key or by file and row; empty where only one of them has scored a row.

    >>> scores = {"risk": [1.0], "p_value": [0.1], "flagged": [True]}
    >>> found = side_by_side(pd.DataFrame({"id": [1]} | scores), pd.DataFrame({"id": [2]} | scores), key="id")
    >>> found[["id", "risk_champion", "risk_challenger"]].to_numpy().tolist()
    [[1.0, 1.0, nan], [2.0, nan, 1.0]]
    """
    names = list(ROW_COLUMNS) if key is None else [key]
    sides = {"challenger": challenger.set_index(names), "champion": champion.set_index(names)}
    facts = pd.concat(
        [side[[name for name in champion if name in side and name not in COMPARED]] for side in sides.values()]
    )
    compared = [side[COMPARED].add_suffix(f"_{name}") for name, side in sides.items()]
    both = pd.concat([facts[~facts.index.duplicated()], *compared], axis=1)
    return both.sort_index().reset_index()


def paired(rows: pd.DataFrame, *, key: str | None) -> pd.DataFrame:
    """The rows that both have scored, each in the batch in which all that it hangs on had come."""
    sides = [[f"{name}_{side}" for name in COMPARED] for side in ("champion", "challenger")]
    if rows[[side[0] for side in sides]].notna().all(axis=None):
        return rows
    names = list(ROW_COLUMNS) if key is None else [key]
    halves = [rows.loc[rows[side[0]].notna(), [*names, *side]] for side in sides]
    kinds = (np.float64, np.float64, np.bool_)
    return (
        halves[0]
        .merge(halves[1], on=names)
        .astype({name: kind for side in sides for name, kind in zip(side, kinds, strict=True)})
    )


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
    found = [pd.read_parquet(path) for path in sorted((_folder(config) / trial.name).glob("*.parquet"))]
    rows = paired(pd.concat(found), key=config.columns.key) if found else pd.DataFrame()
    if rows.empty:
        return PROMOTE, f"No batch came during the trial, so the comparison decides. {trial.reason}", {}
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
