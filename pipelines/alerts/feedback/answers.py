"""What people said of alerts: stored with who, when and the detector's version; and how right the alerts were."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import Session

from detector.errors import DataError, NotFoundError, nearest
from pipelines.alerts.grouping.audit_sample import SAMPLED
from pipelines.alerts.grouping.silences import silence
from pipelines.config import Config
from pipelines.escaping import for_terminal, one_line
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import percent
from pipelines.store import existing_store
from pipelines.store.alert_tables import EVENTS, Alert, Answer, Delivery
from pipelines.store.trail import write_down

Said = Literal["fraud", "fine", "unsure"]
VERDICTS = get_args(Said)
MOST_TEXT = 1_000


def find(session: Session, alert: str) -> Alert:
    """The alert of that name, or of the only one that begins so.

    Raises ``NotFoundError`` if there is none, ``DataError`` if there is more than one.
    """
    alert = one_line(alert)
    wanted = alert if alert.startswith("al_") else f"al_{alert}"
    if (exact := session.get(Alert, wanted)) is not None:
        return exact
    # Names are digits behind "al_", which every collation sorts so; of a pattern only that of C knows the index.
    following = session.scalars(sa.select(Alert).where(Alert.id >= wanted).order_by(Alert.id).limit(2))
    found = [each for each in following if each.id.startswith(wanted)]
    if len(found) != 1:
        what, kind = ("There is no alert", NotFoundError) if not found else ("There are several alerts", DataError)
        raise kind(f"{what} {alert!r}. `detector alerts list` shows them.")
    return found[0]


def answer(
    session: Session,
    alert: Alert,
    verdict: str,
    *,
    reason: str,
    who: str,
    via: str,
    config: Config,
    now: datetime,
    snooze: bool = False,
) -> Answer:
    """Store what a person said. An earlier answer stays; the last one counts.

    ``via`` says where the link was sent to; with ``snooze``, "fine" silences this pattern of this entity for a while.

    Raises ``DataError`` if there is no such verdict, or the alert is no event.
    """
    if verdict == (alert.facts or {}).get("anomaly"):
        verdict = "fraud"  # what is called a fault, or what else `alerts.anomaly` says, counts as one
    if verdict not in VERDICTS:
        raise DataError(f"There is no answer {verdict!r}. {nearest(verdict, VERDICTS)}")
    if alert.kind not in EVENTS:
        raise DataError(f"{alert.id} is about no event ({alert.kind}), so there is nothing to answer.")
    said = Answer(
        alert=alert.id,
        verdict=verdict,
        reason=_text(reason)[:MOST_TEXT],
        who=one_line(who)[:200],
        via=via[:100],
        at=now,
        model_version=alert.model_version,
    )
    session.add(said)
    alert.is_waiting = False
    write_down(session, f"verdict {verdict}", actor=said.who, arguments={"alert": alert.id, "via": said.via}, now=now)
    days = 7.0 if config.alerts.answers is None else config.alerts.answers.snooze_days
    if snooze and verdict == "fine" and days:
        silence(
            session,
            source=alert.source,
            group=alert.group,
            label=alert.label,
            pattern=alert.pattern,
            until=now + timedelta(days=days),
            reason=f"fine: {_text(reason)}"[:MOST_TEXT],
            who=said.who,
            now=now,
        )
    session.flush()
    return said


def _text(text: str) -> str:
    """What a person wrote, as lines; a character that a database refuses would have the answer refused for ever."""
    return for_terminal("\n".join(text.splitlines()))


def precision(session: Session, *, source: str) -> pd.DataFrame:
    """How many answered alerts were fraud, by target, first reason and week.

    Returns columns ``channel``, ``reason``, ``week``, ``alerts`` (sent), ``answered`` (fraud or fine), ``fraud``, and
    ``precision``, missing where nobody has answered. An alert that went to two targets is in two lines.
    """
    grouped = sent_alerts(session, source).groupby(["channel", "reason", "week"], as_index=False)
    table = grouped.agg(alerts=("fraud", "size"), answered=("answered", "sum"), fraud=("fraud", "sum"))
    answered = table["answered"].astype("float64")
    return table.assign(precision=table["fraud"] / answered.where(answered > 0))


def precision_table(session: Session, *, source: str) -> Listing:
    """The same as a list, the latest week first."""
    heads = (Column("week", head=True), Column("channel", head=True), Column("reason", is_sentence=True))
    numbers = (*(Column(name, is_number=True) for name in ("alerts", "answered", "fraud")), Column("precision"))
    found = precision(session, source=source).sort_values("week", ascending=False, kind="stable")
    rows = [
        {**row, "precision": Cell(row["precision"], "-" if pd.isna(row["precision"]) else percent(row["precision"]))}
        for row in found.to_dict("records")
    ]
    return Listing((*heads, *numbers), rows, empty="No alert has been sent yet.")


@dataclass(frozen=True)
class Quality:
    """How right alerts were, each counted once wherever it was sent.

    - ``by``: for ``week``, ``reason`` and ``channel`` a frame with its values, ``alerts``, ``answered``, ``fraud`` and
      ``precision``; an alert that went to two channels counts in both.
    - ``hours``: how long half of the answers took at most; None where there is none.
    """

    alerts: int
    answered: int
    fraud: int
    unsure: int
    hours: float | None
    by: Mapping[str, pd.DataFrame]


def quality(session: Session, *, source: str) -> Quality:
    """How right alerts that were sent were, in all and by week, first reason and channel."""
    sent = sent_alerts(session, source)
    once = sent.drop_duplicates("alert")
    tables = {name: _by(sent if name == "channel" else once, name) for name in ("week", "reason", "channel")}
    statement = (
        sa.select(Alert.created_at, sa.func.min(Answer.at), sa.func.max(Answer.id))
        .join(Answer, Answer.alert == Alert.id)
        .where(Alert.source == source)
        .group_by(Alert.id, Alert.created_at)
    )
    waited = [(first - created).total_seconds() / 3_600 for created, first, _ in session.execute(statement)]
    answered, unsure = int(once["answered"].sum()), int((once["verdict"] == "unsure").sum())
    hours = float(np.median(waited)) if waited else None
    return Quality(len(once), answered, int(once["fraud"].sum()), unsure, hours, tables)


def _by(sent: pd.DataFrame, name: str) -> pd.DataFrame:
    counted = sent.groupby(name, as_index=False).agg(
        alerts=("fraud", "size"), answered=("answered", "sum"), fraud=("fraud", "sum")
    )
    answered = counted["answered"].astype("float64")
    counted["precision"] = counted["fraud"] / answered.where(answered > 0)
    return counted.sort_values([name] if name == "week" else ["alerts", name], ascending=False, ignore_index=True)


def in_all(session: Session, *, source: str) -> str:
    """How many answered alerts were fraud in all, each counted once, wherever it was sent."""
    once = sent_alerts(session, source).drop_duplicates("alert")
    answered, fraud = int(once["answered"].sum()), int(once["fraud"].sum())
    share = f", {100 * fraud / answered:.0f} % of them fraud" if answered else ""
    return f"In all {len(once):,} alert{'' if len(once) == 1 else 's'}, {answered:,} answered{share}."


def realised(config: Config) -> str | None:
    """In one line how many answered alerts were right; None if nobody has answered."""
    store = existing_store(config.service.store)
    if store is None:
        return None
    with closing(store), store.read() as session:
        sent = sent_alerts(session, config.name)
    found = sent[sent["answered"] & (sent["reason"] != SAMPLED)]
    if found.empty:
        return None
    parts = [
        f"{channel} {fraud} of {answered}"
        for channel, answered, fraud in found.groupby("channel")[["answered", "fraud"]].sum().itertuples(name=None)
    ]
    once = found.drop_duplicates("alert")
    if len(parts) > 1:
        parts.append(f"{once['fraud'].sum()} of {len(once)} in all, each counted once")
    return f"Alerts that people answered and that were fraud: {', '.join(parts)}."


def sent_alerts(session: Session, source: str) -> pd.DataFrame:
    """Alerts about events, a line for each target one was sent to, and what was said of each last."""
    last = sa.select(sa.func.max(Answer.id)).group_by(Answer.alert)
    said = sa.select(Answer).where(Answer.id.in_(last)).subquery()
    statement = (
        sa.select(Alert.id, Delivery.target, Alert.pattern, Alert.created_at, said.c.verdict)
        .join(Alert, Alert.id == Delivery.alert)
        .outerjoin(said, said.c.alert == Alert.id)
        .where(Alert.source == source, Delivery.state == "sent", Alert.kind.in_(("opened", "worse", "again")))
    )
    found = [
        {
            "alert": alert,
            "channel": target,
            "reason": pattern,
            "week": f"{at.isocalendar().year}-W{at.isocalendar().week:02d}",
            "verdict": verdict or "",
            "answered": verdict in ("fraud", "fine"),
            "fraud": verdict == "fraud",
        }
        for alert, target, pattern, at, verdict in session.execute(statement)
    ]
    frame = pd.DataFrame(found, columns=["alert", "channel", "reason", "week", "verdict", "answered", "fraud"])
    return frame.astype({"answered": bool, "fraud": bool})
