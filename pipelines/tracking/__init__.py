"""Runs and models in MLflow: the one package that imports it.

Every training is one `TrainingRecord`, so that every run looks the same to a reviewer, and all records go through the
`Spool`, so that a server that is down loses nothing. Importing this package does not import MLflow.
"""

from pipelines.tracking.address import mask_passwords, open_command, reachable
from pipelines.tracking.facts import DatasetFacts
from pipelines.tracking.record import TrainingRecord
from pipelines.tracking.sending import Sent, flush_spool, keep_training
from pipelines.tracking.session import require
from pipelines.tracking.spool import Spool
from pipelines.tracking.training import LoggedModel, log_training

__all__ = [
    "DatasetFacts",
    "LoggedModel",
    "Sent",
    "Spool",
    "TrainingRecord",
    "flush_spool",
    "keep_training",
    "log_training",
    "mask_passwords",
    "open_command",
    "reachable",
    "require",
]
