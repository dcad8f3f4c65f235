"""Delete what the service keeps of one entity, and say what of it lies where the service cannot delete it."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from detector.errors import DataError, SettingError, SinkError
from pipelines.alerts.channels.targets import targets_of
from pipelines.alerts.review.deletion import EntityMarks, delete_alerts_of
from pipelines.config import Config
from pipelines.features.deletion import delete_held, delete_past_of
from pipelines.ingest.row_marks import marks_of_keys
from pipelines.ingest.row_memory import RowMemory
from pipelines.listing import Column, Listing
from pipelines.progress import counted
from pipelines.service.leader import NAME, Leadership, beating
from pipelines.sinks.deletion import delete_scores_of
from pipelines.store import Audit, Lease, RecentKey, Run, Store, chunks
from pipelines.store.access_tables import AnsweredRequest, QueueView
from pipelines.store.database import Database
from pipelines.store.trail import write_down

FORGOTTEN = "(forgotten)"
PAUSE = 0.2


@dataclass(frozen=True)
class Forgotten:
    """What was deleted, or would be, by what it is; and what stays, each with what to do."""

    deleted: Mapping[str, int]
    stays: tuple[str, ...]
    is_dry: bool

    def summary(self) -> list[object]:
        """For people."""
        columns = (Column("what", head=True), Column("how many", is_number=True))
        rows = [{"what": name, "how many": count} for name, count in self.deleted.items() if count]
        title = "Would be deleted" if self.is_dry else "Deleted"
        listing = Listing(columns, rows, title=title, empty="Nothing: the service keeps nothing of it.")
        parts = (each.partition(": ") for each in self.stays)
        stays = [{"where": where, "what": what} for where, _, what in parts]
        left = (Column("where", head=True), Column("what", is_sentence=True))
        return [listing, "", Listing(left, stays, title="What stays, and what to do about it")]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"dry_run": self.is_dry, "deleted": dict(self.deleted), "stays": list(self.stays)}


def forget(
    config: Config, store: Store, entity: str, *, actor: str, reason: str, now: datetime, dry: bool = False
) -> Forgotten:
    """Delete what is kept of an entity. Done again after a crash, it deletes what the first time had left.

    - ``entity``: a value of ``columns.entity``, as text.
    - ``dry``: only look; an instance may run meanwhile.

    Raises
    ------
    SettingError
        If rows belong to nobody (``columns.entity``), or an instance of the service runs.
    DataError
        If the name is empty.
    """
    entity = entity.strip()
    if config.columns.entity is None:
        raise SettingError("`columns.entity` names no column, so rows belong to nobody who could be forgotten.")
    if not entity:
        raise DataError("Expected the name of an entity, received empty text.")
    if dry:
        return Forgotten(_delete(config, store, entity, dry=True), _stays(config, store, entity), is_dry=True)
    leadership = Leadership(store, seconds=config.service.lease)
    _take_the_lead(leadership, store)
    with beating(leadership):
        arguments = {"entity": hidden(entity)}
        with store.write() as session:
            write_down(session, "forget", actor=actor, reason=_without(reason, entity), arguments=arguments, now=now)
        deleted = _delete(config, store, entity, dry=False)
        _scrub_disk(config, store)
        with store.write() as session:
            counts = {name: count for name, count in deleted.items() if count}
            write_down(session, "forgotten", actor=actor, arguments=arguments | {"deleted": counts}, now=now)
    return Forgotten(deleted, _stays(config, store, entity), is_dry=False)


def hidden(entity: str, *, salt: str = "") -> str:
    """A name that cannot be read back, nor found by trying out all card numbers, but checked against one.

    >>> kept = hidden("card-7")
    >>> hidden("card-7", salt=kept.split(":")[1]) == kept, "card-7" in kept
    (True, False)
    """
    salt = salt or secrets.token_hex(8)
    return f"scrypt:{salt}:{hashlib.scrypt(entity.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()[:32]}"


def _take_the_lead(leadership: Leadership, store: Store) -> None:
    """Keep every instance from scoring: it would hold the past of the entity in memory, and write it again."""
    deadline = time.monotonic() + leadership.seconds + 1.0
    while not leadership.lead():
        if time.monotonic() >= deadline:
            with store.read() as session:
                lease = session.get(Lease, NAME)
            holder = "" if lease is None else f" ({lease.holder})"
            raise SettingError(
                f"The service runs{holder}, and holds what entities did before in memory. Stop every instance, then "
                f"forget, then start them again. --dry-run only looks, and can be had meanwhile."
            )
        time.sleep(PAUSE)


def _delete(config: Config, store: Store, entity: str, *, dry: bool) -> dict[str, int]:
    """All of it; scores last, because their keys say which alerts and records are the entity's."""
    _, keys = delete_scores_of(config, store, entity, dry=True)
    held, held_keys = delete_held(config, store, entity, dry=dry)
    keys |= held_keys
    found = delete_alerts_of(config, store, EntityMarks.of(config, entity, keys), dry=dry)
    found |= {"held events": held, "answered requests": _delete_answers(store, entity, keys, dry=dry)}
    found |= {"views of the queue": _delete_views(store, entity, dry=dry)}
    found |= {
        "runs that name it": _scrub_runs(store, entity, dry=dry),
        "keys": _delete_keys(config, store, keys, dry=dry),
    }
    found |= delete_past_of(config, entity, keys, dry=dry)
    scores, _ = delete_scores_of(config, store, entity, dry=dry)
    return found | {"rows in scores and quarantine": scores.rows, "rewritten files": scores.files}


def _delete_answers(store: Store, entity: str, keys: set[str], *, dry: bool) -> int:
    """Answers that wait for the same request to come again."""
    wanted = keys | {entity}
    with store.write() as session:
        ours = [each for each in session.scalars(sa.select(AnsweredRequest)).all() if _holds(each.answer, wanted)]
        if not dry:
            for each in ours:
                session.delete(each)
    return len(ours)


def _delete_views(store: Store, entity: str, *, dry: bool) -> int:
    """Views that somebody has kept and that look for it."""
    with store.write() as session:
        ours = [each for each in session.scalars(sa.select(QueueView)) if _holds(each.filters, {entity})]
        if not dry:
            for each in ours:
                session.delete(each)
    return len(ours)


def _delete_keys(config: Config, store: Store, keys: set[str], *, dry: bool) -> int:
    """Keys by which rows are told that came before; such a row of the entity is scored anew without them."""
    count = RowMemory(store, config.name).forget(marks_of_keys(keys, day=0), dry=dry)
    for some in chunks(keys):
        ours = (RecentKey.source == config.name, RecentKey.key.in_(some))
        with store.write() as session:
            count += int(session.scalar(sa.select(sa.func.count()).select_from(RecentKey).where(*ours)) or 0)
            if not dry:
                session.execute(sa.delete(RecentKey).where(*ours))
    return count


def _scrub_runs(store: Store, entity: str, *, dry: bool) -> int:
    """Records of runs may name a value in an error or a note; the record stays, the name does not."""
    count = 0
    with store.write() as session:
        named = sa.or_(*(column.contains(entity, autoescape=True) for column in (Run.note, Run.error)))
        facts = sa.cast(Run.facts, sa.Text).contains(entity, autoescape=True)
        for run in session.scalars(sa.select(Run).where(sa.or_(named, facts))).all():
            new = {name: _walk(getattr(run, name), lambda text: _without(text, entity)) for name in _TEXTS}
            if any(new[name] != getattr(run, name) for name in _TEXTS):
                count += 1
                for name in _TEXTS if not dry else ():
                    setattr(run, name, new[name])
    return count


_TEXTS = ("note", "error", "facts")


def _without(text: str, entity: str) -> str:
    return EntityMarks("", frozenset({entity}), frozenset(), frozenset()).without(text, FORGOTTEN)


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(name)): _walk(each, change) for name, each in value.items()}
    return [_walk(each, change) for each in value] if isinstance(value, list) else value


def _holds(value: Any, wanted: set[str]) -> bool:
    if isinstance(value, dict):
        return any(_holds(each, wanted) for each in value.values())
    if isinstance(value, list):
        return any(_holds(each, wanted) for each in value)
    return value is not None and not isinstance(value, bool | float) and str(value) in wanted


def _scrub_disk(config: Config, store: Store) -> None:
    """Have SQLite write its files anew, or what was deleted could still be read from them."""
    engines = [store.engine]
    if config.output.url is not None and not store.is_same_database(config.output.url):
        database = Database(config.output.url, failure=SinkError, create=True)
        engines += [] if database.is_missing_file else [database.engine]
    for engine in engines:
        if engine.dialect.name == "sqlite":
            with closing(engine.raw_connection()) as pooled:
                connection: Any = pooled.driver_connection
                connection.isolation_level = None  # neither is allowed within a transaction
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            engine.dispose()


def _stays(config: Config, store: Store, entity: str) -> tuple[str, ...]:
    """Where more of it can be, and what to do about that."""
    where = config.source.path or config.source.table or config.source.topic
    source = (
        f"source: its rows in {where}. Delete them there: backfill, replay, retraining and a rebuilt past read them."
    )
    detectors = (
        f"detectors: {config.bundle} and those in {config.bundle}.models may have learnt from its rows, and keep some "
        f"as references without a name. Train again without it, and delete older ones."
    )
    features = (
        "features: what it did at other entities (a card at a terminal) stays counted there, without its name, until "
        "it is older than the features look back."
    )
    found = [source, detectors, features]
    if config.kind == "sensors":
        found.append(
            "sensors: the last readings that the next ones are scored with, until newer ones take their place."
        )
    if config.tracking.enabled:
        found.append(
            f"MLflow: tables and pictures of runs at {config.tracking.uri} may show rows of it, and models that were "
            f"registered hold what entities did before (`history.npz`, or `history.state`)."
        )
    if sent := [target.name for target in targets_of(config) if target.kind not in ("file", "log")]:
        found.append(f"alerts that were sent: {', '.join(sent)} kept copies of their own.")
    found.append(
        f"files by hand: what `detector score` wrote with --output, reports such as {config.report}, the log, backups."
    )
    with store.read() as session:
        told = (Audit.reason, sa.cast(Audit.arguments, sa.Text))
        named = sa.or_(*(column.contains(entity, autoescape=True) for column in told))
        if count := session.scalar(sa.select(sa.func.count()).select_from(Audit).where(named)):
            found.append(
                f"audit trail: named in {counted(count, 'record')} of what a person wrote; the trail is not changed."
            )
    return tuple(found)
