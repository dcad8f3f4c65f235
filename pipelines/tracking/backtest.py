"""A backtest in MLflow: one run for all, and below it one for each period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.tracking.address import open_command
from pipelines.tracking.experiments import experiment_id
from pipelines.tracking.runs import closing, create_run, log_files, log_metrics, log_settings
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAGS = {"job": "backtest"}


def log_backtest(
    uri: str,
    experiment: str,
    *,
    name: str,
    params: Mapping[str, Any],
    periods: pd.DataFrame,
    means: Mapping[str, float],
    figures: Mapping[str, Figure],
    summary: str,
) -> str:
    """Log what each period showed, and the means over all.

    - ``uri``, ``experiment``, ``name``: the store, the experiment in it, and what the run is called.
    - ``periods``: one row a period and seed, with ``begin`` and ``seed``.

    Returns the id of the run, and how to see it.

    Raises ``TrackingError`` if the store does not answer.
    """
    with session(uri) as client:
        place = experiment_id(client, uri, experiment)
        parent = create_run(client, place, name, tags=TAGS, description=summary).info.run_id
        with closing(client, parent):
            log_settings(client, parent, params)
            log_metrics(client, parent, _known(means))
            log_files(client, parent, figures, {"backtest.csv": periods.to_csv(index=False)})
            for number, (begin, rows) in enumerate(periods.groupby("begin")):
                values = _known(rows.drop(columns=["begin", "seed"]).mean().to_dict())
                child = create_run(client, place, f"{begin:%Y-%m-%d}", tags=TAGS, parent=parent).info.run_id
                with closing(client, child):
                    log_metrics(client, child, values)
                log_metrics(client, parent, {f"period/{key}": value for key, value in values.items()}, step=number)
    seen = open_command(uri)
    return f"{parent}; see it with: {seen}" if seen else str(parent)


def _known(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(name): None if pd.isna(value) else float(value) for name, value in values.items()}
