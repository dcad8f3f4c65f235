"""Training metadata beside the model: when it was trained, on which days, and what rows looked like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from detector.decide.numbers import level
from detector.decide.policy import Policy
from detector.metrics.drift import Reference
from detector.persist.bundle import Scorer
from pipelines.factory.kinds import kind_of
from pipelines.factory.training_period import span_of

REFERENCE = "reference"
ALERT_LEVEL = 0.01


def add_metadata(
    scorer: Scorer, learnt: pd.DataFrame, held_out: pd.DataFrame, *, policy: Policy, now: datetime
) -> None:
    """Write into a detector's facts what later jobs ask for: its days, its rows, and the reference for drift.

    - ``scorer``: a detector just fitted; its ``metrics`` grow.
    - ``learnt``, ``held_out``: rows it was fitted on, and rows it was not, as ``clean`` returns them. Without rows held
      out, those that the detector kept back for its calibration are used.
    - ``policy``: its quantile, if it has one, says what counts as an alert.
    """
    since, until = span_of(learnt, scorer.schema)
    scorer.metrics.update(made_at=now.isoformat(), rows_learnt=len(learnt))
    if until:
        scorer.metrics.update(learnt_since=since, learnt_until=until)
    calibrator = kind_of(scorer).calibration(scorer)
    risk, p_value = calibrator.risk, calibrator.p_value(calibrator.risk)
    if len(held_out):
        measures = scorer.measure(held_out).dropna(subset=["risk"])
        risk, p_value = measures["risk"].to_numpy(), measures["p_value"].to_numpy()
    alert_level = ALERT_LEVEL if policy.quantile is None else level(policy.quantile)
    reference = Reference.of(
        learnt, kind_of(scorer).steady(scorer), risk=risk, p_value=p_value, alert_level=alert_level
    )
    scorer.metrics[REFERENCE] = reference.to_dict()


def reference_of(metrics: Mapping[str, Any]) -> Reference | None:
    """The reference in a detector's metadata; None if it was trained before there was one.

    >>> reference_of({}) is None
    True
    """
    return Reference.from_dict(metrics[REFERENCE]) if REFERENCE in metrics else None
