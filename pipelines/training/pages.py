"""The pages about trainings: what each says, and one kept for every detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from detector.persist.bundle import Scorer
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.factory.kinds import KINDS
from pipelines.factory.metadata import REFERENCE, reference_of
from pipelines.features.wording import wording_of
from pipelines.registry.registry import ModelRegistry
from pipelines.reports.content import ReportContent, column_facts, quarantine_counts
from pipelines.reports.drift import Drift, drift_since
from pipelines.reports.page import write_page
from pipelines.training.merit import Review, alternatives, explain_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_KEPT = 20


def training_content(
    config: Config,
    scorer: Scorer,
    reviewed: Review,
    figures: Mapping[str, Figure],
    *,
    job: str,
    now: datetime,
    frame: pd.DataFrame,
    source: str,
    seconds: float,
    notes: Sequence[str],
    places: Mapping[str, str],
    drift: Drift | None = None,
    quarantine: pd.DataFrame | None = None,
) -> ReportContent:
    """What the page of a training says.

    - ``frame``: all rows read, with their features.
    - ``drift``: the rows learnt from beside those of the version before.
    - ``quarantine``: those that could not be used, if that is known.
    """
    calibration = {name: value for name, value in reviewed.metrics.items() if name.startswith(("calib", "share_"))}
    return ReportContent(
        name=config.name,
        job=job,
        made_at=now,
        rows=len(frame),
        reviewed=len(reviewed.scored),
        flagged=int(reviewed.scored["flagged"].sum()),
        alternatives=alternatives(reviewed.scored),
        drift=drift,
        explain=explain_command(config),
        quarantined=None if quarantine is None else len(quarantine),
        source=source,
        seconds=seconds,
        truth=reviewed.truth,
        ap_interval=reviewed.interval,
        alerts=reviewed.alerts,
        unit=KINDS[config.kind].unit,
        reasons=reviewed.reasons,
        policy=policy_of(config.policy, scorer.schema).describe(),
        calibration=calibration or None,
        figures=figures,
        columns=column_facts(frame, scorer.schema, wording_of(config)),
        quarantine={} if quarantine is None else quarantine_counts(quarantine),
        members=scorer.members,
        model={name: value for name, value in scorer.metrics.items() if name != REFERENCE},
        places=places,
        notes=list(notes),
    )


def drift_of(config: Config, before: Scorer | None, rows: pd.DataFrame, scorer: Scorer) -> Drift | None:
    """The rows that a detector learnt from beside those of the version before; None where nothing can be compared.

    - ``before``: the version before, if there is one; None too if it was trained before references were kept.
    - ``rows``: those learnt from, as ``clean`` returns them.
    """
    reference = None if before is None else reference_of(before.metrics)
    if before is None or reference is None:
        return None
    features = [name for name in scorer.schema.features if name not in scorer.schema.datetime]
    against = f"the version before{days_of(before)}"
    return drift_since(reference, rows, against=against, features=features, wording=wording_of(config))


def days_of(scorer: Scorer) -> str:
    """The days that a detector learnt from, as the end of a phrase; empty if rows had no time."""
    since, until = (str(scorer.metrics.get(name, ""))[:10] for name in ("learnt_since", "learnt_until"))
    return f" (rows from {since} to {until})" if since and until else ""


def page_of(config: Config, name: str) -> Path:
    """Where the page about a detector is kept, whether or not there is one."""
    return ModelRegistry(config.bundle).folder / "reports" / f"{name}.html"


def keep_page(config: Config, name: str, page: str) -> Path:
    """Keep the page about a detector beside the detectors; the oldest beyond 20 go."""
    place = write_page(page_of(config, name), page)
    others = sorted(place.parent.glob("*.html"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in others[MOST_KEPT:]:
        old.unlink(missing_ok=True)
    return place
