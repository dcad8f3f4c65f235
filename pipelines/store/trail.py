"""The audit trail: who had what done, when and why. It grows at its end, and the database refuses to change it.

What people wrote about an entity stays beside the alert; the trail names the alert alone, so that it can be kept when
the entity's data is deleted.
"""

from __future__ import annotations

import csv
import getpass
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError
from pipelines.escaping import for_spreadsheet, for_terminal, one_line
from pipelines.store.engine import Store
from pipelines.store.tables import Audit

SERVICE = "service"
"""Who did what nobody asked for."""
FORMS = ("csv", "jsonl")
COLUMNS = ("id", "at", "actor", "action", "reason", "arguments", "batches", "rows")
A_PAGE = 1_000
MOST_NAME = 200


def who() -> str:
    """Who runs a command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def write_down(
    session: Session,
    action: str,
    *,
    actor: str,
    now: datetime,
    reason: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> Audit:
    """Leave a trail of what somebody had done, in the transaction that does it.

    - ``action``: a verb first, such as "pause retrain".
    - ``arguments``: what it was about, as JSON holds it; no value of a row.
    """
    record = Audit(
        at=now,
        actor=one_line(actor)[:MOST_NAME],
        action=action,
        reason=for_terminal(reason),
        arguments=dict(arguments or {}),
        batches=0,
        rows=0,
    )
    session.add(record)
    return record


@dataclass(frozen=True)
class TrailQuery:
    """Which records.

    - ``since``, ``until``: from then on, and before then.
    - ``actor``: whose.
    - ``action``: the action, or its first word.
    - ``before``: only those with a smaller number: the last one of the page before.
    """

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    before: int | None = None
    most: int = 50


def entries(session: Session, wanted: TrailQuery) -> list[Audit]:
    """Some records, the latest first."""
    statement = sa.select(Audit).order_by(Audit.id.desc()).limit(wanted.most)
    if wanted.since is not None:
        statement = statement.where(Audit.at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Audit.at < wanted.until)
    if wanted.actor:
        statement = statement.where(Audit.actor == one_line(wanted.actor))
    if wanted.action:
        first = wanted.action.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        statement = statement.where(sa.or_(Audit.action == wanted.action, Audit.action.like(f"{first} %", escape="\\")))
    if wanted.before is not None:
        statement = statement.where(Audit.id < wanted.before)
    return list(session.scalars(statement))


def as_dict(record: Audit) -> dict[str, Any]:
    """A record as JSON holds it."""
    return {name: getattr(record, name) for name in COLUMNS} | {"at": record.at.isoformat()}


def exported(store: Store, wanted: TrailQuery, *, form: str) -> Iterator[str]:
    """All records as text, the latest first, in pieces; a page of the database at a time.

    - ``form``: one of ``FORMS``: CSV whose cells no spreadsheet takes for formulas, or one JSON object a line.

    Raises ``DataError`` if there is no such form.
    """
    if form not in FORMS:
        raise DataError(f"format: expected csv or jsonl, received {form!r}.")
    return _exported(store, replace(wanted, most=A_PAGE), form)


def _exported(store: Store, wanted: TrailQuery, form: str) -> Iterator[str]:
    if form == "csv":
        yield _line(COLUMNS)
    while True:
        with store.read() as session:
            page = [as_dict(record) for record in entries(session, wanted)]
        if not page:
            return
        if form == "jsonl":
            yield "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in page)
        else:
            yield "".join(_line([_cell(each[name]) for name in COLUMNS]) for each in page)
        wanted = replace(wanted, before=page[-1]["id"])


def _cell(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return for_spreadsheet(text)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
