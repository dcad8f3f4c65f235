"""Experiments in MLflow: made with a description, and with the columns a reviewer wants as a saved view."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detector.errors import TrackingError
from pipelines.tracking.address import DATABASES, artifact_root, mask_passwords, scheme_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "mlflow.note.content"
REVIEW = "mlflow.sharedViewState.detector-review"
LOSS = "mlflow.sharedViewState.detector-loss"
"""MLflow's pages keep a saved view of the runs in such a tag."""
CURVES = ("epoch/loss", "epoch/held_out_loss")
COLUMNS = (
    *(f"tags.`{name}`" for name in ("decision", "reason", "trigger", "data window", "drift")),
    *(f"metrics.`{name}`" for name in ("rows", "ap", "ap_champion", "alerts_a_day")),
)
TRAININGS = (  # the page shows the first line alone
    "Under Views, Review lists the decision, drift, rows, average precision and alerts a day of each run; Loss draws "
    "loss and held-out loss in one chart.\n\n"
    "One run a training, named after what was decided, and one for each move that a person made; below a training, its "
    "members."
)
MONITORING = (
    "One run a model. Each look at drift is a point of its curves, below Model metrics. Tags tell of the last look."
)


def experiment_id(client: MlflowClient, uri: str, name: str, *, about: str = "") -> str:
    """The id of an experiment, which is made if it does not exist.

    - ``uri``: where runs are kept.
    - ``about``: Markdown for the head of its page; ``TRAININGS`` brings a view of the runs with it.

    Raises ``TrackingError`` if it was deleted, or if the store keeps no files.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        if scheme_of(uri) in DATABASES:
            raise TrackingError(
                f"A database keeps runs but no files, so the experiment {name!r} cannot be made in "
                f"{mask_passwords(uri)}. Put an MLflow server in front of it and name the server's address."
            )
        # Without the tag, MLflow's pages open in their layout for language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        tags |= {NOTE: about} if about else {}
        tags |= _views() if about == TRAININGS else {}
        return str(client.create_experiment(name, artifact_location=artifact_root(uri), tags=tags))
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"The experiment {name!r} was deleted. Restore it with "
            f"'mlflow experiments restore --experiment-id {found.experiment_id}', or name another."
        )
    if about == TRAININGS and LOSS not in found.tags:  # made before there was this view
        client.set_experiment_tag(found.experiment_id, LOSS, _views()[LOSS])
    return str(found.experiment_id)


def _views() -> dict[str, str]:
    return {REVIEW: saved_view("Review", COLUMNS), LOSS: saved_view("Loss", COLUMNS[:1], curves=CURVES)}


def saved_view(name: str, columns: Sequence[str], *, curves: Sequence[str] = ()) -> str:
    """A view of the list of runs, the latest first, as MLflow's pages save it.

    - ``columns``: those of the list.
    - ``curves``: metrics that are drawn over their steps in one chart, in the view of charts.

    >>> json.loads(saved_view("Review", ["metrics.`ap`"]))["name"]
    'Review'
    """
    shown: dict[str, object] = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(columns),
    }
    if curves:
        shown |= _chart(name, curves)
    packed = base64.b64encode(zlib.compress(json.dumps(shown).encode())).decode("ascii")
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def _chart(name: str, curves: Sequence[str]) -> dict[str, object]:
    """One wide chart of several metrics above those that MLflow makes by itself, one a metric."""
    section = {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": 1, "cardHeight": 420}
    chart = {
        "type": "LINE",
        "uuid": f"{name}-chart",
        "metricSectionId": name,
        "metricKey": curves[0],
        "selectedMetricKeys": list(curves),
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "lineSmoothness": 0,
        "runsCountToCompare": 10,
        "displayName": "Loss and held-out loss",
    }
    made = {"deleted": False, "isGenerated": False}
    return {
        "compareRunSections": [section | made],
        "compareRunCharts": [chart | made | {"range": {}, "yAxisExpressions": []}],
        "isAccordionReordered": True,
    }
