"""A training or a retraining as a reviewer reads it in MLflow: rows, days, figures, drift, the decision and why."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from detector.cleaning.values import read_dates
from detector.errors import DataError
from detector.persist.bundle import Scorer
from detector.schema import Schema
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.factory.kinds import EXAMPLE_ROWS, KINDS
from pipelines.factory.labelled_set import head_note, head_tags
from pipelines.factory.metadata import reference_of
from pipelines.factory.training_period import TrainingPeriod
from pipelines.features.engine import FeatureEngine
from pipelines.features.raw_rows import RawInput
from pipelines.progress import percent
from pipelines.registry.comparison import Comparison
from pipelines.registry.promotion import Decision, note_of
from pipelines.registry.registry import ModelRegistry
from pipelines.sources import Source
from pipelines.tracking import DatasetFacts, TrainingRecord
from pipelines.tracking.messages import CHALLENGER, cut, experiment_of, model_of
from pipelines.tracking.usage import Point
from pipelines.training.compared_settings import compared_settings, whole_settings
from pipelines.training.comparison import comparison_figure
from pipelines.training.merit import Review
from pipelines.training.prepare import PreparedRows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detector.detectors.table.detector import TabularDetector


@dataclass(frozen=True)
class Fitted:
    """A challenger and how it came to be."""

    detector: TabularDetector
    usage: list[Point]
    started: float
    ended: float


@dataclass(frozen=True)
class Trained:
    """All that is known of one training: the rows, the detector, and its review on those kept apart."""

    config: Config
    prepared: PreparedRows
    detector: TabularDetector
    reviewed: Review
    figures: dict[str, Figure]

    def record(self, page: str = "") -> TrainingRecord:
        """As MLflow holds it, with the report."""
        config, scorer, reviewed = self.config, self.detector.scorer_, self.reviewed
        prepared, rows = self.prepared, self.prepared.rows
        policy = policy_of(config.policy, scorer.schema)
        lines = [f"{config.name}: learnt from {len(rows):,} rows."]
        if reviewed.truth is not None:
            lines.append(
                f"On {reviewed.truth['labelled']:,.0f} labelled rows kept apart: AUROC {reviewed.truth['auroc']:.3f}, "
                f"average precision {reviewed.truth['ap']:.3f} at a prevalence of {reviewed.truth['prevalence']:.4f}."
            )
        flagged, apart = int(reviewed.scored["flagged"].sum()), len(reviewed.scored)
        lines.append(
            f"Flags {policy.describe()}: {flagged:,} of {apart:,} rows kept apart ({percent(flagged / apart, 2)})."
        )
        since, until = (str(scorer.metrics.get(name) or "")[:10] for name in ("learnt_since", "learnt_until"))
        return TrainingRecord(
            **_common(config),
            bundle=config.bundle,
            **_input(prepared.kept_apart, prepared.frame, scorer, config, prepared.engine),
            dataset=_dataset(f"{config.name}, learnt", prepared.source, rows, scorer.schema),
            compared=_dataset(f"{config.name}, kept apart", prepared.source, prepared.kept_apart, scorer.schema),
            metrics=_finite(reviewed.all_metrics),
            fit_metrics=_numbers(scorer.metrics) | {"rows": float(len(rows))},
            members=_members(scorer, reviewed, len(rows)),
            curves=self.detector.history_,
            figures=self.figures,
            texts={"settings.yaml": whole_settings(config)} | ({"report.html": page} if page else {}),
            tags={
                "job": "train",
                "decision": "trained",
                "reason": "asked for by hand, compared with no other",
                "trigger": "asked for",
                "data window": f"{since} to {until}" if since else "all rows",
                "rows": str(len(rows)),
                "members": ", ".join(scorer.members),
            }
            | commit_of(config)
            | cut(head_tags(scorer)),
            description="\n\n".join(lines),
            policy=policy,
            alias=config.tracking.alias,
        )


@dataclass(frozen=True)
class Retraining:
    """All that is known of one retraining.

    ``comparison`` is that with the champion, if there is one; ``reviewed`` and ``figures`` are the challenger's own on
    the rows compared on; ``trigger`` says why there was a retraining.
    """

    config: Config
    period: TrainingPeriod
    fitted: Fitted
    decision: Decision
    comparison: Comparison | None
    reviewed: Review | None
    figures: dict[str, Figure]
    champion: Scorer | None
    source: Source
    trigger: str
    engine: FeatureEngine | None = None

    def record(self, registry: ModelRegistry, name: str, page: str = "") -> TrainingRecord:
        """As MLflow holds it: a training whose model is the challenger of this name, with its report."""
        config, period, scorer = self.config, self.period, self.fitted.detector.scorer_
        drift = self._drift()
        facts = {
            "trigger": self.trigger,
            "learnt from": period.span,
            "drift since the champion learnt": drift or "none",
            "challenger": name,
            "champion": registry.state().champion or "none",
        }
        if (said := head_note(scorer)) is not None:
            facts["labels"] = said
        note = note_of(self.decision, self.comparison, facts=facts)
        compared = {} if self.comparison is None else {"comparison": comparison_figure(self.comparison)}
        rows = period.compare if len(period.compare) else period.learn
        tags = {
            "job": "retrain",
            "decision": self.decision.outcome,
            "reason": self.decision.reason,
            "rows": str(len(period.learn)),
            "trigger": self.trigger,
            "data window": f"{period.since[:10]} to {period.until[:10]}" if period.since else "all rows",
            "drift": drift or "none",
            "compared by": "" if self.comparison is None else self.comparison.basis,
            "members": ", ".join(scorer.members),
        }
        return TrainingRecord(
            **_common(config),
            bundle=registry.path_of(name),
            **_input(rows, period.raw, scorer, config, self.engine),
            dataset=_dataset(f"{config.name}, learnt", self.source, period.learn, period.schema),
            compared=_dataset(f"{config.name}, compared", self.source, period.compare, period.schema)
            if len(period.compare)
            else None,
            metrics=self._metrics(),
            fit_metrics=_numbers(scorer.metrics)
            | {"rows": float(len(period.learn)), "drifted_columns": float(len(drift.split(", "))) if drift else 0.0},
            members=_members(scorer, self.reviewed, len(period.learn)),
            curves=self.fitted.detector.history_,
            figures=compared | self.figures,
            texts={"decision.md": note, "settings.yaml": whole_settings(config)}
            | ({"report.html": page} if page else {}),
            usage=self.fitted.usage,
            tags=cut(tags | commit_of(config) | head_tags(scorer)),
            description=note,
            policy=policy_of(config.policy, period.schema),
            alias=config.tracking.alias if self.champion is None else CHALLENGER,
            run_name=f"retrain v{{version}}: {self.decision.outcome}",
            started=self.fitted.started,
            ended=self.fitted.ended,
        )

    def _metrics(self) -> dict[str, float | None]:
        """Figures on the rows compared on."""
        metrics: dict[str, float | None] = {}
        if self.reviewed is not None:
            metrics |= self.reviewed.all_metrics
        if self.comparison is not None:
            metrics |= self.comparison.metrics()
            metrics["alerts_a_day"] = round(self.comparison.challenger.alerts, 2)
            metrics["ap"] = (
                self.comparison.challenger.precision if self.comparison.basis == "labels" else metrics.get("ap")
            )
        return _finite(metrics)

    def _drift(self) -> str:
        """The columns that moved since the champion learnt, by name."""
        reference = None if self.champion is None else reference_of(self.champion.metrics)
        if reference is None or self.champion is None or not len(self.period.compare):
            return ""
        rows = self.period.compare
        if any(profile.name not in rows and profile.name != "risk" for profile in reference.profiles):
            return ""
        settings = self.config.drift
        try:
            measures = self.champion.measure(rows)
        except (DataError, KeyError, ValueError):
            return ""
        shifts = reference.compare(
            rows, risk=measures["risk"], p_value=measures["p_value"], psi=settings.psi, effect=settings.effect
        )
        return ", ".join(shift.name for shift in shifts if shift.moved)


def commit_of(config: Config) -> dict[str, str]:
    """The git commit of the configuration's folder, as MLflow's pages show it; none where there is none."""
    if config.file is None or (git := shutil.which("git")) is None:
        return {}
    command = [git, "-C", str(config.file.parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"mlflow.source.git.commit": found.stdout.strip()} if found.returncode == 0 else {}


def _members(scorer: Scorer, reviewed: Review | None, rows: int) -> dict[str, dict[str, float | None]]:
    """Each member's own figures: what it counts and what it tells, against labels where there are some."""
    truth, facts = {} if reviewed is None else (reviewed.truth or {}), _numbers(scorer.metrics)
    return {
        member: {
            "ap": truth.get(f"ap_{member}"),
            "auroc": truth.get(f"auroc_{member}"),
            "weight": facts.get(f"weight_{member}"),
            "weight_spread": facts.get(f"weight_spread_{member}"),
            "parity": facts.get(f"parity_{member}"),
            "rows": float(rows),
        }
        | {
            f"power_{name.removeprefix(f'power_{member}_')}": value
            for name, value in facts.items()
            if name.startswith(f"power_{member}_")
        }
        for member in scorer.members
    }


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    return _finite({name: float(value) for name, value in metrics.items() if isinstance(value, int | float)})


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in metrics.items() if value is not None and np.isfinite(value)}


def _common(config: Config) -> dict[str, Any]:
    """What the record of every training says of its configuration."""
    return {
        "experiment": experiment_of(config),
        "model_name": model_of(config),
        "serving": config.tracking.alias,
        "params": compared_settings(config),
        "config_text": config.text,
    }


def _input(
    rows: pd.DataFrame, raw: pd.DataFrame, scorer: Scorer, config: Config, engine: FeatureEngine | None
) -> dict[str, Any]:
    """What the record says of the rows that the logged model takes: an example, and how they are read.

    - ``rows``, ``raw``: some rows as they were scored, and all as they came.
    """
    schema = scorer.schema
    optional: tuple[str, ...] = ()
    columns = [*(name for role, name in schema.roles.items() if role != "label"), *schema.features]
    example = KINDS[config.kind].example(rows, scorer)
    if engine is not None:
        features, optional = engine.features, engine.reader.optional
        columns = [name for name in (*columns, *engine.reader.needs) if name not in (*features.names, *optional)]
        example = _as_new(raw, features.time)
    found = example[list(dict.fromkeys(columns))]
    history = None if engine is None else engine.history
    return {"example": found, "optional": optional, "raw": RawInput.of(config, history)}


def _as_new(raw: pd.DataFrame, time: str) -> pd.DataFrame:
    """The latest rows as if they came again, a minute apart, after all others: what came earlier is no new row."""
    when = read_dates(raw[time])[0]
    latest = raw.loc[when.nlargest(EXAMPLE_ROWS).index]
    minutes = pd.to_timedelta(np.arange(1, len(latest) + 1), unit="min")
    return latest.assign(**{time: (when.max() + minutes).floor("s")})


def _dataset(name: str, source: Source, rows: pd.DataFrame, schema: Schema) -> DatasetFacts:
    kinds = {each: schema.kind_of(each) for each in schema.features}
    kinds |= {column: role for role, column in schema.roles.items()}
    return DatasetFacts(name, source.describe(), len(rows), fingerprint(rows), kinds)


def fingerprint(rows: pd.DataFrame) -> str:
    """A short name for exactly these rows: equal rows, equal fingerprint.

    >>> fingerprint(pd.DataFrame({"a": [1.0]})) == fingerprint(pd.DataFrame({"a": [2.0]}))
    False
    """
    each = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    return hashlib.sha256(each.tobytes()).hexdigest()[:16]
