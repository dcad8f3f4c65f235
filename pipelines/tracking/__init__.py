"""Runs and models in MLflow: the one package that imports it.

Every training goes through `log_training`, so that every run looks the same to a reviewer. Importing this
package does not import MLflow.
"""

from pipelines.tracking.address import mask_passwords, open_command, reachable
from pipelines.tracking.facts import DatasetFacts
from pipelines.tracking.models import fetch_bundle
from pipelines.tracking.session import require
from pipelines.tracking.training import LoggedModel, log_training

__all__ = [
    "DatasetFacts",
    "LoggedModel",
    "fetch_bundle",
    "log_training",
    "mask_passwords",
    "open_command",
    "reachable",
    "require",
]
