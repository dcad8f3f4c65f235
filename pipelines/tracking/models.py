"""Registered models: which there are, and their bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import TrackingError, nearest
from pipelines.tracking.session import session

if TYPE_CHECKING:
    from mlflow import MlflowClient


def fetch_bundle(uri: str, model_name: str, *, alias: str = "champion", into: Path) -> Path:
    """Download the bundle of a registered model, and none of the code beside it.

    - ``uri``, ``model_name``, ``alias``: the store, the registered model and the version wanted.
    - ``into``: a folder; made if it does not exist.

    Returns the bundle's folder, for ``detector.bundle.load``.

    Raises ``TrackingError`` if the store cannot be reached, or does not know the model or the alias; names the nearest.
    """
    with session(uri) as client:
        from mlflow import artifacts

        number = _version_of(client, model_name, alias)
        into.mkdir(parents=True, exist_ok=True)
        folder = artifacts.download_artifacts(artifact_uri=f"models:/{model_name}/{number}/data", dst_path=str(into))
    found = [path for path in Path(folder).iterdir() if path.is_dir()]
    if len(found) != 1:
        raise TrackingError(
            f"Version {number} of {model_name!r} holds {len(found)} bundles, expected one. "
            f"Was it logged by 'detector train'?"
        )
    return found[0]


def _version_of(client: MlflowClient, model_name: str, alias: str) -> str:
    known = {model.name: model.aliases for model in client.search_registered_models(max_results=1000)}
    if model_name not in known:
        raise TrackingError(f"No registered model is called {model_name!r}. {nearest(model_name, known)}")
    aliases = known[model_name]
    if alias not in aliases:
        raise TrackingError(
            f"No version of {model_name!r} has the alias {alias!r}. {nearest(alias, aliases)} "
            f"'detector train' gives it to the version it registers."
        )
    return str(aliases[alias])
