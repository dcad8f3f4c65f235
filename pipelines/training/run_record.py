"""One retraining as a reviewer reads it in MLflow: rows, days, figures, drift, the decision and its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from detector.decide.policy import Policy
from detector.errors import DataError
from detector.persist.bundle import Scorer
from pipelines.config import Config
from pipelines.factory.data import Window
from pipelines.factory.labelled_set import head_note, head_tags
from pipelines.factory.metadata import reference_of
from pipelines.registry.comparison import Comparison
from pipelines.registry.promotion import Decision, note_of
from pipelines.registry.registry import Shelf
from pipelines.sources import Source
from pipelines.tracking.messages import CHALLENGER, cut, experiment_of, model_of, spool_of
from pipelines.tracking.usage import Point
from pipelines.training.comparison_figure import comparison_figure
from pipelines.training.kinds import KINDS
from pipelines.training.review import Review
from pipelines.training.train import fingerprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from detector.detectors.table.detector import TabularDetector
    from pipelines.tracking import DatasetFacts


@dataclass(frozen=True)
class Learnt:
    """A challenger and how it came to be."""

    detector: TabularDetector
    usage: list[Point]
    started: float
    ended: float


@dataclass(frozen=True)
class Story:
    """All that is known of one retraining.

    Parameters
    ----------
    config : Config
    window : Window
        The rows.
    learnt : Learnt
        The challenger.
    decision : Decision
    found : Comparison or None
        With the champion, if there is one.
    reviewed : Review or None
        The challenger's own figures on the rows compared on.
    drawn : dict of str to Figure
        And its pictures.
    champion : Scorer or None
    policy : Policy
    source : Source
    trigger : str
        Why there was a retraining.
    """

    config: Config
    window: Window
    learnt: Learnt
    decision: Decision
    found: Comparison | None
    reviewed: Review | None
    drawn: dict[str, Figure]
    champion: Scorer | None
    policy: Policy
    source: Source
    trigger: str

    def keep(self, shelf: Shelf, name: str) -> None:
        """Put it into the spool, as a training whose model is the challenger of this name."""
        from pipelines.tracking import keep_training

        config, window, scorer = self.config, self.window, self.learnt.detector.scorer_
        drift = self._drift()
        facts = {
            "trigger": self.trigger,
            "learnt from": window.span,
            "drift since the champion learnt": drift or "none",
            "challenger": name,
            "champion": shelf.state().champion or "none",
        }
        if (said := head_note(scorer)) is not None:
            facts["labels"] = said
        note = note_of(self.decision, self.found, facts=facts)
        drawn = {} if self.found is None else {"comparison": comparison_figure(self.found)}
        drawn |= self.drawn
        roles = {name: role for role, name in window.schema.roles.items()}
        columns = list(dict.fromkeys([*(n for n, role in roles.items() if role != "label"), *window.schema.features]))
        rows = window.compare if len(window.compare) else window.learn
        example = KINDS[config.kind].example(rows, scorer)[columns]
        keep_training(
            spool_of(config),
            experiment=experiment_of(config),
            model_name=model_of(config),
            bundle=shelf.path_of(name),
            example=example,
            dataset=self._dataset(window, window.learn, roles),
            compared=self._dataset(window, window.compare, roles) if len(window.compare) else None,
            params=config.to_dict(),
            metrics=self._metrics(drift),
            members=self._members(),
            curves=self.learnt.detector.history_,
            figures=drawn,
            texts={"decision.md": note},
            usage=self.learnt.usage,
            config_text=config.file.read_text(encoding="utf-8") if config.file is not None else "",
            tags=cut(
                {
                    "job": "retrain",
                    "decision": self.decision.verdict,
                    "reason": self.decision.reason,
                    "trigger": self.trigger,
                    "data window": f"{window.since[:10]} to {window.until[:10]}" if window.since else "all rows",
                    "drift": drift or "none",
                    "compared by": "" if self.found is None else self.found.basis,
                    "members": ", ".join(scorer.members),
                }
                | head_tags(scorer)
            ),
            description=note,
            policy=self.policy,
            alias=config.tracking.alias if self.champion is None else CHALLENGER,
            serving=config.tracking.alias,
            run_name=f"retrain v{{version}}: {self.decision.verdict}",
            started=self.learnt.started,
            ended=self.learnt.ended,
        )

    def _dataset(self, window: Window, rows: pd.DataFrame, roles: Mapping[str, str]) -> DatasetFacts:
        from pipelines.tracking import DatasetFacts

        kinds = {name: window.schema.kind_of(name) for name in window.schema.features} | dict(roles)
        part = "learnt" if rows is window.learn else "compared"
        return DatasetFacts(f"{self.config.name}, {part}", self.source.describe(), len(rows), fingerprint(rows), kinds)

    def _metrics(self, drift: str) -> dict[str, float | None]:
        scorer = self.learnt.detector.scorer_
        metrics: dict[str, float | None] = {
            name: float(value)
            for name, value in scorer.metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        metrics["rows"] = float(len(self.window.learn))
        metrics["drifted_columns"] = float(len(drift.split(", "))) if drift else 0.0
        if self.reviewed is not None:
            metrics |= self.reviewed.all_metrics
        if self.found is not None:
            metrics |= self.found.metrics()
            metrics["alerts_a_day"] = round(self.found.challenger.alerts, 2)
            metrics["ap"] = self.found.challenger.precision if self.found.basis == "labels" else metrics.get("ap")
        return {name: value for name, value in metrics.items() if value is not None and np.isfinite(value)}

    def _members(self) -> dict[str, dict[str, float | None]]:
        """Each member's own figures: against labels where there are some, else how far the graph is from the model."""
        scorer, truth = self.learnt.detector.scorer_, {} if self.reviewed is None else (self.reviewed.truth or {})
        return {
            member: {
                "ap": truth.get(f"ap_{member}"),
                "auroc": truth.get(f"auroc_{member}"),
                "parity": scorer.metrics.get(f"parity_{member}"),
                "rows": float(len(self.window.learn)),
            }
            for member in scorer.members
        }

    def _drift(self) -> str:
        """The columns that moved since the champion learnt, by name."""
        reference = None if self.champion is None else reference_of(self.champion.metrics)
        if reference is None or self.champion is None or not len(self.window.compare):
            return ""
        rows = self.window.compare
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
