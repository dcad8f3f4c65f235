"""From the spool to MLflow: each kind of entry, what it becomes there, and all of them in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detector.errors import BundleError, TrackingError
from pipelines.tracking.address import reachable
from pipelines.tracking.lifecycle import send_monitoring, send_note, send_promotion
from pipelines.tracking.pyfunc import _load_pyfunc, policy_to_config
from pipelines.tracking.record import TrainingRecord
from pipelines.tracking.session import session
from pipelines.tracking.spool import Entry, Spool
from pipelines.tracking.training import LoggedModel, log_training

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Sent:
    """What came of sending: the trainings sent, by the name of their entry; how many were sent, and wait; and why."""

    models: dict[str, LoggedModel] = field(default_factory=dict)
    entries: int = 0
    waiting: int = 0
    fault: str | None = None


def keep_training(spool: Spool, record: TrainingRecord) -> str:
    """Put a training into the spool; the entry's name is what ``Sent.models`` knows it by."""
    return spool.put("training", record.to_json(), record.write_files)


def flush_spool(spool: Spool, uri: str) -> Sent:
    """Send MLflow all that waits, oldest first, as far as it answers.

    A server that is down is no error. One that answers and refuses an entry five times loses that entry to the
    folder ``refused``, so that it holds up no other.
    """
    if not spool.waiting():
        return Sent()
    if fault := reachable(uri):
        return Sent(waiting=spool.waiting(), fault=fault)
    models: dict[str, LoggedModel] = {}
    count = 0
    with spool.sending() as alone:
        if not alone:
            return Sent(waiting=spool.waiting(), fault="Another process is sending at this moment.")
        for entry in spool.entries():
            try:
                found = _send_one(entry, uri)
            except (TrackingError, BundleError, ValueError, KeyError, TypeError) as error:
                if fault := reachable(uri):
                    return Sent(models, count, spool.waiting(), fault)
                if not spool.failed(entry, f"{type(error).__name__}: {error}"):
                    return Sent(models, count, spool.waiting(), str(error))
                continue
            if found is not None:
                models[entry.folder.name] = found
            spool.done(entry)
            count += 1
    return Sent(models, count, spool.waiting())


def _send_one(entry: Entry, uri: str) -> LoggedModel | None:
    if entry.kind == "training":
        return _send_training(entry, uri)
    kinds: dict[str, Callable[[MlflowClient, str, Entry], None]] = {
        "note": send_note,
        "move": send_promotion,
        "monitoring": send_monitoring,
    }
    if entry.kind not in kinds:
        raise ValueError(f"No entry is of the kind {entry.kind!r}; it was written by a newer version.")
    with session(uri) as client:
        kinds[entry.kind](client, uri, entry)
    return None


def _send_training(entry: Entry, uri: str) -> LoggedModel:
    record = TrainingRecord.read(entry.values, entry.folder)
    predictions = _load_pyfunc(str(record.bundle), policy_to_config(record.policy)).predict(record.example)
    return log_training(uri, record, predictions=predictions, entry=entry.name)
