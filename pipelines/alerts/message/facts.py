"""Reasons, values, keys and the risk timeline of an alert: masked, then stored beside its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from detector.explain.reason import Reason
from pipelines.alerts.grouping.events import HELD, Event, event_reasons, reasons_column, times_of
from pipelines.alerts.grouping.notify_rules import Candidate
from pipelines.config import Config
from pipelines.config.masking import HIDDEN, Masks
from pipelines.escaping import one_line

MOST_KEYS = 1_000
MOST_POINTS = 60
MOST_TEXT = 300
MOST_KEY_TEXT = 1_000
_PLACE = re.compile(r"\{(value|expected)\}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # for a row without a time, which then stands at the left edge


def facts_of(
    candidate: Candidate, flagged: pd.DataFrame, *, config: Config, masks: Masks, timeline: pd.DataFrame | None = None
) -> dict[str, Any]:
    """All that people are shown of an event, as JSON can hold it.

    ``flagged`` holds the rows of the event among others; ``timeline`` all rows of its key, to show how the risk went.
    """
    event, columns, settings = candidate.event, config.columns, config.alerts
    peak, rows = flagged.iloc[event.peak], flagged.iloc[event.places]
    key = next((name for name in (columns.key, "row") if name is not None and name in flagged), None)
    shown = [name for name in settings.shown if name in flagged]
    course_rows = rows if timeline is None else timeline
    course, begin = _risk_timeline(course_rows, columns.time)
    return {
        "anomaly": config.anomaly,
        **({"course_from": begin} if course else {}),
        "columns": {
            name: _short(masks.show(name, _written(peak[name], is_time=name == columns.time))) for name in shown
        },
        **_names(shown, config),
        "reasons": [_masked(reason, masks, settings.history) for reason in _reasons(event, flagged)],
        **_rules(rows),
        **({"held": held} if (held := _held(peak)) else {}),
        "keys": [] if key is None else masks.show_all(key, [_named(value) for value in rows[key].iloc[:MOST_KEYS]]),
        "previous": candidate.previous,
        "course": course,
    }


def _names(shown: Sequence[str], config: Config) -> dict[str, dict[str, str]]:
    """What people call the columns that are shown, where they call them anything."""
    called = {name: said.name for name, said in config.columns.names.items() if name in shown and said.name}
    return {"names": called} if called else {}


def _held(row: pd.Series) -> int:
    """How many rows gates held back; a notice beside the scores says nothing of that."""
    held = pd.to_numeric(row.get(HELD), errors="coerce")
    return 0 if pd.isna(held) else int(held)


def _reasons(event: Event, flagged: pd.DataFrame) -> list[Reason]:
    return event_reasons(reasons_column(flagged), event.places, event.peak)


def _rules(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The rules that hit rows of an event, and their tags; nothing where there are no rules."""
    found = {}
    for name, column in (("rules", "rules_hit"), ("tags", "rule_tags")):
        texts = dict.fromkeys(rows[column]) if column in rows else {}
        if values := dict.fromkeys(each for text in texts for each in text.split(", ") if each):
            found[name] = list(values)
    return found


def labels_of(flagged: pd.DataFrame, events: Sequence[Event], *, by: Sequence[str], masks: Masks) -> dict[str, str]:
    """The key of each event's group as people may read it: "card-7", or "shop 3, country de" of several columns."""
    columns = [(name, f"{name} " if len(by) > 1 else "", flagged[name].to_numpy()) for name in by]
    return {
        event.group: _short(
            ", ".join(f"{before}{masks.show(name, _written(values[event.peak]))}" for name, before, values in columns)
        )
        for event in events
    }


def rows_of_keys(scored: pd.DataFrame, by: Sequence[str], peaks: Sequence[pd.Series]) -> list[pd.DataFrame | None]:
    """The latest rows of the key of each of these rows, in one pass over the batch; None where there are none."""
    if not by or not peaks or scored.empty:
        return [None for _ in peaks]
    inside = np.ones(len(scored), dtype=bool)
    for name in by:
        inside &= scored[name].isin({peak[name] for peak in peaks}).to_numpy()
    groups = scored[inside].groupby(list(by), sort=False)
    found = {
        tuple(map(str, key if isinstance(key, tuple) else (key,))): part.tail(10 * MOST_KEYS) for key, part in groups
    }
    return [found.get(tuple(str(peak[name]) for name in by)) for peak in peaks]


def _masked(reason: Reason, masks: Masks, history: Mapping[str, str]) -> dict[str, Any]:
    """A reason as people may read it: masked as soon as any column is that its values may show."""
    hidden = masks.is_masked(reason.feature, *reason.columns)
    observed = _short(masks.show(reason.feature, reason.observed, made_of=reason.columns))
    expected = HIDDEN if hidden and reason.expected else _short(reason.expected)
    phrase = history.get(reason.feature, "")
    if not phrase and reason.is_phrase and not hidden:
        phrase = "{value}, expected about {expected}" if expected.startswith("about ") else "{value}"
    if reason.is_rule:
        phrase = "{value}"
    values = {"value": observed, "expected": expected.removeprefix("about ")}
    return {
        "feature": reason.feature,
        "observed": observed,
        "expected": expected,
        "share": round(reason.share, 4),
        "words": _PLACE.sub(lambda match: values[match[1]], phrase),
    }


def _short(text: str) -> str:
    return one_line(text)[:MOST_TEXT]


def _named(key: object) -> str:
    """A key as it is; one that no system would have given is cut, and says so."""
    text = _written(key)
    return text if len(text) <= MOST_KEY_TEXT else f"{text[:MOST_KEY_TEXT]}… ({len(text):,} characters)"


def _written(value: object, *, is_time: bool = False) -> str:
    """A value as a person would write it; times of rows are in UTC."""
    if is_time and isinstance(value, datetime) and value.tzinfo is None:
        return f"{value} UTC"
    if isinstance(value, float | np.floating):
        return f"{value:.10g}"
    return str(value)


def _risk_timeline(rows: pd.DataFrame, time: str | None) -> tuple[list[list[Any]], str]:
    """Up to 60 points: seconds since the first, risk, and whether it was flagged; and when the first was, in UTC."""
    if time is None or time not in rows or len(rows) < 2:
        return [], ""
    when = times_of(rows, time, _EPOCH).astype("int64") / 1e6
    order = np.argsort(when, kind="stable")
    flags = rows["flagged"].to_numpy(dtype=bool)[order] if "flagged" in rows else np.ones(len(order), bool)
    if len(order) > MOST_POINTS:  # all flagged ones if they fit, and the others around them thinned evenly
        chosen = np.flatnonzero(flags)[-MOST_POINTS // 2 :]
        others = np.flatnonzero(~flags)
        spare = MOST_POINTS - len(chosen)
        others = others[np.linspace(0, len(others) - 1, min(spare, len(others))).astype(int)] if len(others) else others
        kept = np.sort(np.concatenate([chosen, others]))
        order, flags = order[kept], flags[kept]
    risk = rows["risk"].to_numpy(dtype=np.float64)[order]
    seconds = when[order] - when[order][0]
    points = [[round(float(s), 3), round(float(r), 4), bool(f)] for s, r, f in zip(seconds, risk, flags, strict=True)]
    return points, pd.Timestamp(when[order][0], unit="s").isoformat(timespec="seconds")
