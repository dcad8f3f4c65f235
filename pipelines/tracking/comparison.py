"""A comparison of encoders in MLflow: one run, and below it one an encoder with its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.tracking.experiments import experiment_id
from pipelines.tracking.runs import closing, create_run, log_curves, log_files, log_metrics, log_settings
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAGS = {"job": "encoder comparison"}


def log_comparison(
    uri: str,
    experiment: str,
    *,
    params: Mapping[str, Any],
    table: pd.DataFrame,
    robustness: pd.DataFrame,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    figures: Mapping[str, Figure],
) -> str:
    """Log how several encoders did on the same rows.

    - ``uri``, ``experiment``: the store, and the experiment in it.
    - ``table``, ``robustness``: as ``detector.lab.report.compare`` gives them.
    - ``curves``: each encoder's loss and learning rate by epoch.

    Returns the id of the run.

    Raises ``TrackingError`` if the store does not answer.
    """
    with session(uri) as client:
        place = experiment_id(client, uri, experiment)
        parent = str(create_run(client, place, "encoders", tags=TAGS).info.run_id)
        with closing(client, parent):
            log_settings(client, parent, params)
            texts = {"encoders.csv": table.to_csv(), "robustness.csv": robustness.to_csv(index=False)}
            log_files(client, parent, figures, texts)
            for name, values in table.iterrows():
                child = create_run(client, place, str(name), tags=TAGS, parent=parent).info.run_id
                known = {str(key): float(value) for key, value in values.items() if pd.notna(value)}
                with closing(client, child):
                    log_metrics(client, child, known)
                    log_curves(client, child, curves.get(str(name), {}))
    return parent
