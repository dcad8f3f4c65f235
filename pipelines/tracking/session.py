"""MLflow, imported when needed and kept quiet; what goes wrong in it becomes a `TrackingError`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from detector.errors import DetectorError, MissingExtraError, TrackingError
from pipelines.tracking.address import DATABASES, SERVERS, local_path, mask_passwords, reachable, scheme_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_QUIET = ("alembic", "mlflow", "mlflow.store.db.utils", "mlflow.tracking.fluent")


def require(uri: str, *, may_be_down: bool = False) -> None:
    """Make sure, without importing MLflow, that it is installed and that its store answers.

    - ``may_be_down``: whether a server or a database that does not answer will do, because what it is sent can wait.

    Raises ``MissingExtraError`` if MLflow is not installed; ``TrackingError`` if the store does not answer.
    """
    try:
        version("mlflow")  # `import mlflow` would find the project's folder of that name
    except PackageNotFoundError as error:
        raise MissingExtraError(
            "Tracking needs MLflow. Install the training extra: pip install 'anomaly-detector[train]', "
            "or set 'tracking.enabled: false'."
        ) from error
    if may_be_down and scheme_of(uri) in (*SERVERS, *DATABASES):
        return
    if fault := reachable(uri):
        raise TrackingError(fault)


@contextmanager
def session(uri: str) -> Iterator[MlflowClient]:
    """Open a client for a store that answers.

    MLflow is imported here, with its telemetry off and its log quiet. Its settings, the environment and the
    import path are put back at the end.

    Raises ``MissingExtraError`` if MLflow is not installed; ``TrackingError`` if the store does not answer, and for
    whatever MLflow raises inside.
    """
    require(uri)
    with _environment(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # sets its own log levels, so it is made quiet afterwards
        from mlflow.exceptions import MlflowException

        if scheme_of(uri) == "sqlite":
            local_path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            with _quiet(), _pointing_at(uri):
                yield mlflow.MlflowClient(uri, uri)
        except DetectorError:
            raise
        except (MlflowException, OSError) as error:
            lines = mask_passwords(str(error)).strip().splitlines() or [repr(error)]
            raise TrackingError(f"MLflow at {mask_passwords(uri)} refused: {lines[0]}") from error


@contextmanager
def _pointing_at(uri: str) -> Iterator[None]:
    """Let MLflow's global functions use this store, and put back what they change."""
    import mlflow

    tracking, registry, path = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), list(sys.path)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
        sys.path[:] = path  # checking the example puts the model's code first


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    added = [name for name in settings if name not in os.environ]
    os.environ.update({name: settings[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
