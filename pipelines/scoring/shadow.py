"""A challenger that scores beside the champion for some days: its scores are kept, and flag nothing."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from detector.atomic import write_whole
from detector.cleaning.clean import clean
from detector.cleaning.values import naive_utc
from detector.decide.policy import Policy
from detector.detectors.table.scorer import TabularScorer
from detector.metrics import compare
from detector.metrics import ranking as evaluate
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.registry.promotion import KEEP, PROMOTE, TITLES
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking.messages import record_note, record_promotion

STATE = "shadow.json"
MOST_FOR_RANKS = 100_000


@dataclass(frozen=True)
class Trial:
    """A challenger in the shadow.

    Parameters
    ----------
    name : str
        The challenger.
    reason : str
        Why it would serve.
    since, until : str
        When the trial began, and when it is settled, in ISO 8601.
    """

    name: str
    reason: str
    since: str
    until: str


def begin_shadow(config: Config, name: str, *, reason: str, now: datetime) -> Trial:
    """Let a challenger score beside the champion from now on; an earlier trial ends without effect."""
    until = now + timedelta(days=config.retrain.shadow_days)
    trial = Trial(name, reason, now.isoformat(), until.isoformat())
    write_whole(_state(config), json.dumps(asdict(trial)))
    return trial


def trial_of(config: Config) -> Trial | None:
    """The trial that runs, if one does; costs one look at the disk."""
    try:
        return Trial(**json.loads(_state(config).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def score_shadow(config: Config, frame: pd.DataFrame, *, batch: str, now: datetime) -> Path | None:
    """Score a batch with the challenger in the shadow, if there is one.

    Parameters
    ----------
    config : Config
    frame : DataFrame
        The batch as it came.
    batch : str
        Its name. The same name writes the same file, so a batch that is scored again doubles nothing.
    now : datetime
        After the end of the trial nothing is scored.

    Returns
    -------
    Path or None
        The file with key, time, risk, p-value, and whether the champion and the challenger flag the row.
    """
    trial = trial_of(config)
    if trial is None or now >= datetime.fromisoformat(trial.until) or frame.empty:
        return None
    registry = ModelRegistry(config.bundle)
    challenger, champion = bundle.load(registry.path_of(trial.name)), bundle.load(registry.place)
    if not isinstance(challenger, TabularScorer) or not isinstance(champion, TabularScorer):
        return None
    mine, theirs = _judged(challenger, frame, config), _judged(champion, frame, config)
    both = mine.add_suffix("_challenger").join(theirs.add_suffix("_champion"), how="inner")
    named = [name for role, name in challenger.schema.roles.items() if role != "label"]
    both = pd.concat([clean(frame, challenger.schema).rows.loc[both.index, named], both], axis=1)
    path = _folder(config) / trial.name / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', batch)}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}")
    both.assign(scored_at=naive_utc(now)).to_parquet(building)
    building.replace(path)
    return path


def settle_shadow(config: Config, *, now: datetime) -> str | None:
    """Decide about a trial whose days are over; a decision always comes, also if no batch did.

    Returns
    -------
    str or None
        "promote" or "keep"; None if there is nothing to settle.
    """
    trial = trial_of(config)
    if trial is None or now < datetime.fromisoformat(trial.until):
        return None
    registry = ModelRegistry(config.bundle)
    verdict, reason, metrics = _settled(config, registry, trial)
    with registry.locked():
        if verdict == PROMOTE:
            registry.promote(trial.name, why=reason, now=now, notify=partial(record_promotion, config, job="retrain"))
        elif trial.name in registry.state().names:
            registry.note(trial.name, f"{verdict}: {reason}", challenger=True)
        _state(config).unlink(missing_ok=True)
    record_note(
        config,
        run=f"shadow trial: {verdict}",
        note=f"## {TITLES[verdict]}\n\n{reason}\n\n- **trial**: {trial.since[:16]} to {trial.until[:16]}",
        tags={"job": "shadow", "decision": verdict, "reason": reason, "detector.bundle": trial.name},
        started=now.timestamp(),
        ended=now.timestamp(),
        metrics=metrics,
    )
    return verdict


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
    off = evaluate.calibration_metrics(rows["p_value_champion"])["calibration_distance"]
    metrics["calibration_distance_champion"] = off
    # Four alerts more or less are chance: twice the square root of one alert, and of a few.
    if challenger > settings.most_alert_change * champion + 4.0 * np.sqrt(champion + 1.0):
        return KEEP, f"The champion stays: in the shadow the challenger raised too many alerts. {words}.", metrics
    if stability < settings.least_stability and off <= settings.most_calibration_distance:
        return KEEP, f"The champion stays: in the shadow the challenger ranked rows quite otherwise. {words}.", metrics
    return PROMOTE, f"The challenger serves after its days in the shadow: {words}. {trial.reason}", metrics


def _judged(scorer: TabularScorer, frame: pd.DataFrame, config: Config) -> pd.DataFrame:
    rows = clean(frame, scorer.schema).rows
    measures = scorer.measure(rows)
    policy: Policy = policy_of(config.policy, scorer.schema)
    day = rows[scorer.schema.time].to_numpy() if scorer.schema.time is not None else None
    flagged = policy.decide(measures["p_value"], measures["risk"], day=day)
    return measures[["risk", "p_value"]].assign(flagged=flagged)


def _folder(config: Config) -> Path:
    return ModelRegistry(config.bundle).folder / "shadow"


def _state(config: Config) -> Path:
    return ModelRegistry(config.bundle).folder / STATE
