"""Delete alerts with all that stands beside them: those of one entity, or any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.atomic import whole_file
from pipelines.alerts.channels.file import files_of
from pipelines.alerts.grouping.events import group_id
from pipelines.alerts.outbox.cap import sources_of
from pipelines.config import Config
from pipelines.config.masking import masks_of
from pipelines.store import Store, chunks
from pipelines.store.access_tables import AlertNote
from pipelines.store.alert_tables import Alert, AlertDay, AlertGroup, Answer, Delivery, Silence

READ_AT_ONCE = 500


@dataclass(frozen=True)
class EntityMarks:
    """How an entity can be told in what alerts keep.

    - ``column``: ``columns.entity``.
    - ``names``: its name, as it is and as people may read it where that still tells entities apart.
    - ``keys``: its rows', as alerts keep them; empty where they are cut or hidden.
    - ``groups``: the group that alerts about it alone have.
    """

    column: str
    names: frozenset[str]
    keys: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of(cls, config: Config, entity: str, keys: set[str]) -> Self:
        """As the configuration groups and masks.

        ``keys``: of its rows.
        """
        column, masks, key = str(config.columns.entity), masks_of(config), config.columns.key
        names = {entity} | ({masks.show(column, entity)} if masks.tells_apart(column) else set())
        shown = {masks.show(key, each) for each in keys} if key is not None and masks.tells_apart(key) else set()
        alone = config.alerts.group_by(config.columns) == (column,)
        groups = {group_id(config.name, [entity])} if alone else set()
        return cls(column, frozenset(names), frozenset(shown), frozenset(groups))

    def are_of(self, alert: Alert) -> bool:
        """Whether an alert shows anything of the entity."""
        facts = alert.facts or {}
        if alert.group in self.groups or self._is_label(alert.label) or self.keys & set(facts.get("keys", ())):
            return True
        if facts.get("columns", {}).get(self.column) in self.names:
            return True
        reasons: Sequence[Mapping[str, Any]] = facts.get("reasons", ())
        if any(each.get("feature") == self.column and each.get("observed") in self.names for each in reasons):
            return True
        return alert.kind == "digest" and self.are_in(json.dumps(facts, ensure_ascii=False))

    def are_in(self, text: str) -> bool:
        """Whether a name stands in a text, as a word of its own."""
        return any(_word(name).search(text) for name in self.names)

    def without(self, text: str, instead: str) -> str:
        """A text with something else in the place of each name.

        >>> EntityMarks("card", frozenset({"c-7"}), frozenset(), frozenset()).without("c-7 and c-71: 'c-7'", "?")
        "? and c-71: '?'"
        """
        for name in self.names:
            text = _word(name).sub(lambda _: instead, text)
        return text

    def _is_label(self, label: str) -> bool:
        wanted = {f"{self.column} {name}" for name in self.names}
        return label in self.names or bool(wanted & set(label.split(", ")))


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")


def delete_alerts(session: Session, ids: Sequence[str]) -> None:
    """Delete alerts with their deliveries, verdicts and comments."""
    for table in (Delivery, Answer, AlertNote):
        session.execute(sa.delete(table).where(table.alert.in_(ids)))
    session.execute(sa.delete(Alert).where(Alert.id.in_(ids)))


def delete_alerts_of(config: Config, store: Store, marks: EntityMarks, *, dry: bool) -> dict[str, int]:
    """Delete what alerts keep of an entity; how much of each.

    Raises ``StoreError`` if the state cannot be written.
    """
    with store.read() as session:
        ids = [alert.id for alert in _every(session, config) if marks.are_of(alert)]
        verdicts = _count(session, Answer, ids)
        quiet = [each.id for each in session.scalars(sa.select(Silence)) if _is_about(each, marks, config)]
        groups = [
            each
            for each in session.scalars(sa.select(AlertGroup.id).where(AlertGroup.source == config.name))
            if each in marks.groups
        ]
    found = {"alerts": len(ids), "verdicts": verdicts, "silences": len(quiet)}
    found["lines of digests"] = _clear_days(config, store, marks, dry=dry)
    found["lines of the alert file"] = _clear_file(config, marks, set(ids), dry=dry)
    if dry:
        return found
    for some in chunks(ids):
        with store.write() as session:
            delete_alerts(session, some)
    with store.write() as session:
        session.execute(sa.delete(Silence).where(Silence.id.in_(quiet)))
        session.execute(sa.delete(AlertGroup).where(AlertGroup.id.in_(groups)))
    return found


def _every(session: Session, config: Config) -> Iterator[Alert]:
    statement = sa.select(Alert).where(Alert.source == config.name).execution_options(yield_per=READ_AT_ONCE)
    yield from session.scalars(statement)


def _count(session: Session, table: type[Answer], ids: Sequence[str]) -> int:
    return sum(
        int(session.scalar(sa.select(sa.func.count()).select_from(table).where(table.alert.in_(some))) or 0)
        for some in chunks(ids)
    )


def _is_about(silence: Silence, marks: EntityMarks, config: Config) -> bool:
    return silence.source == config.name and (silence.group in marks.groups or marks.are_in(silence.label))


def _clear_days(config: Config, store: Store, marks: EntityMarks, *, dry: bool) -> int:
    """What the days had no room for, in words."""
    taken = 0
    with store.write() as session:
        for day in session.scalars(sa.select(AlertDay).where(AlertDay.source.in_(sources_of(config)))).all():
            lines = day.worst.get("events", [])
            kept = [line for line in lines if not marks.are_in(str(line[-1]))]
            taken += len(lines) - len(kept)
            if len(kept) < len(lines) and not dry:
                day.worst = day.worst | {"events": kept}
    return taken


def _clear_file(config: Config, marks: EntityMarks, ids: set[str], *, dry: bool) -> int:
    return sum(_clear_lines(path, marks, ids, dry=dry) for path in files_of(Path(config.alerts.file.path)))


def _clear_lines(path: Path, marks: EntityMarks, ids: set[str], *, dry: bool) -> int:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not _shows(line, marks, ids)]
    if len(kept) < len(lines) and not dry:
        with whole_file(path) as file:
            file.write("".join(kept).encode())
    return len(lines) - len(kept)


def _shows(line: str, marks: EntityMarks, ids: set[str]) -> bool:
    try:
        alert = json.loads(line)
    except ValueError:
        return marks.are_in(line)  # one that a crash cut off
    return isinstance(alert, dict) and (alert.get("id") in ids or bool(marks.keys & set(alert.get("keys", ()))))
