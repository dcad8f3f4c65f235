"""A study in MLflow: one run for all of it, and below it one for each of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.tracking.experiments import experiment_id
from pipelines.tracking.runs import closing, create_run, log_curves, log_files, log_metrics, log_settings
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Part:
    """One part: a period of a backtest, an encoder; metrics that are missing are left out."""

    name: str
    metrics: Mapping[Any, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What several trainings showed.

    - ``job``: what the list of runs calls it: "backtest", "encoder comparison".
    - ``description``: Markdown.
    - ``texts``: small text files, by name.
    - ``series``: if it has a name, each metric of the parts is a curve ``<series>/<metric>`` of the run above them.
    """

    name: str
    job: str
    parts: Sequence[Part]
    params: Mapping[str, Any]
    figures: Mapping[str, Figure]
    texts: Mapping[str, str]
    metrics: Mapping[Any, float] = field(default_factory=dict)
    description: str = ""
    series: str = ""


def log_study(uri: str, experiment: str, study: Study) -> str:
    """Log a study; the id of its run.

    Raises ``TrackingError`` if the store does not answer.
    """
    tags = {"job": study.job}
    with session(uri) as client:
        place = experiment_id(client, uri, experiment)
        parent = str(create_run(client, place, study.name, tags=tags, description=study.description).info.run_id)
        with closing(client, parent):
            log_settings(client, parent, study.params)
            log_metrics(client, parent, _known(study.metrics))
            log_files(client, parent, study.figures, study.texts)
            for number, part in enumerate(study.parts):
                values = _known(part.metrics)
                child = create_run(client, place, part.name, tags=tags, parent=parent).info.run_id
                with closing(client, child):
                    log_metrics(client, child, values)
                    log_curves(client, child, part.curves)
                if study.series:
                    points = {f"{study.series}/{name}": value for name, value in values.items()}
                    log_metrics(client, parent, points, step=number)
    return parent


def _known(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(name): None if pd.isna(value) else float(value) for name, value in values.items()}
