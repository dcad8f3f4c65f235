"""What is kept of an alert beside its columns: reasons, values, keys, the course of the risk. Masked before kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from detector.explain.reason import Reason
from pipelines.alerts.grouping.groups import Candidate, times_of
from pipelines.config import Config
from pipelines.config.masking import HIDDEN, Masks

MOST_KEYS = 1_000
MOST_POINTS = 60
MOST_TEXT = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # for a row without a time, which then stands at the left edge
_REASON = re.compile(r"(?P<what>.+?)(?:, expected (?P<expected>.*))?; (?P<share>\d+) % of the risk", re.DOTALL)
_CYCLE = re.compile(r"(?P<feature>.+ (?:hour|weekday)) (?P<observed>\d\d:\d\d|[A-Z][a-z]+day|missing)")


def read_reasons(text: object, features: Sequence[str] = ()) -> list[Reason]:
    """Reasons from the line that scoring wrote, or as they are.

    Parameters
    ----------
    text : str or list of Reason
        As in the column ``reasons``.
    features : sequence of str
        Known names; without them, a name ends at the first space.

    >>> read_reasons("amount 950.00, expected about 42; 61 % of the risk | city New York; 9 % of the risk")
    [Reason(feature='amount', observed='950.00', expected='about 42', share=0.61), \
Reason(feature='city', observed='New York', expected='', share=0.09)]
    """
    if isinstance(text, list | tuple):
        return [each for each in text if isinstance(each, Reason)]
    if not isinstance(text, str):
        return []
    known = sorted(features, key=len, reverse=True)
    found = []
    for part in re.split(r"(?<=% of the risk) \| ", text):
        if (match := _REASON.fullmatch(part.strip())) is not None:
            feature, observed = _parted(match["what"], known)
            found.append(Reason(feature, observed, match["expected"] or "", int(match["share"]) / 100))
    return found


def facts_of(
    candidate: Candidate, flagged: pd.DataFrame, *, config: Config, masks: Masks, everything: pd.DataFrame | None = None
) -> dict[str, Any]:
    """All that people are shown of an event, as JSON can hold it.

    Parameters
    ----------
    candidate : Candidate
        The event.
    flagged : DataFrame
        The flagged rows it is among.
    config : Config
        Says which columns.
    masks : Masks
        What nobody is to read.
    everything : DataFrame, optional
        All rows of its key, for the course of the risk.
    """
    event, columns, settings = candidate.event, config.columns, config.alerts
    peak, rows = flagged.iloc[event.peak], flagged.iloc[event.places]
    reasons = read_reasons(peak.get("reasons"), known_features(config))
    key = next((name for name in (columns.key, "row") if name is not None and name in flagged), None)
    shown = [name for name in settings.shown if name in flagged]
    return {
        "columns": {name: masks.show(name, _written(peak[name]))[:MOST_TEXT] for name in shown},
        "reasons": [_masked(reason, masks, settings.history, spoken_features(config)) for reason in reasons],
        "keys": [] if key is None else [masks.show(key, _written(value)) for value in rows[key].iloc[:MOST_KEYS]],
        "previous": candidate.previous,
        "course": _course(rows if everything is None else everything, columns.time),
    }


def known_features(config: Config) -> tuple[str, ...]:
    """The names of features that the configuration gives away."""
    columns = config.columns
    named: list[str] = [*config.alerts.mask, *config.alerts.history]
    for kind in ("numeric", "categorical", "boolean", "datetime"):
        names = getattr(columns, kind)
        if isinstance(names, list | tuple):
            named += names
    return tuple(dict.fromkeys([*named, *spoken_features(config)]))


def spoken_features(config: Config) -> tuple[str, ...]:
    """What reasons call the features of an entity's history, such as "events of this card_id"."""
    if not config.features.wanted or config.columns.time is None:
        return ()
    from detector.features.words import say

    return tuple(dict.fromkeys(say(each, 0.0)[0] for each in config.features.feature_set(config.columns).all))


def label_of(row: pd.Series, by: Sequence[str], masks: Masks) -> str:
    """The key as people may read it: "card-7", or "shop 3, country de" where it has several columns."""
    if not by:
        return ""
    if len(by) == 1:
        return masks.show(by[0], _written(row[by[0]]))[:MOST_TEXT]
    return ", ".join(f"{name} {masks.show(name, _written(row[name]))}" for name in by)[:MOST_TEXT]


def _parted(what: str, known: Sequence[str]) -> tuple[str, str]:
    if (cycle := _CYCLE.fullmatch(what)) is not None:
        return cycle["feature"], cycle["observed"]
    for name in known:
        if what.startswith(f"{name} "):
            return name, what[len(name) + 1 :]
    feature, _, observed = what.partition(" ")
    return feature, observed


def _masked(reason: Reason, masks: Masks, history: Mapping[str, str], spoken: Sequence[str]) -> dict[str, Any]:
    hidden = masks.is_masked(reason.feature)
    observed = masks.show(reason.feature, reason.observed)[:MOST_TEXT]
    expected = (HIDDEN if hidden and reason.expected else reason.expected)[:MOST_TEXT]
    phrase = history.get(reason.feature, "")
    if not phrase and reason.feature in spoken and " " in observed:  # in words already: "12 in the hour before"
        phrase = "{value}, expected about {expected}" if expected.startswith("about ") else "{value}"
    return {
        "feature": reason.feature,
        "observed": observed,
        "expected": expected,
        "share": round(reason.share, 4),
        "words": phrase.replace("{value}", observed).replace("{expected}", expected.removeprefix("about ")),
    }


def _written(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.10g}"
    return str(value)


def _course(rows: pd.DataFrame, time: str | None) -> list[list[Any]]:
    """Up to 60 points: seconds since the first, risk, and whether it was flagged."""
    if time is None or time not in rows or len(rows) < 2:
        return []
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
    return [[round(float(s), 3), round(float(r), 4), bool(f)] for s, r, f in zip(seconds, risk, flags, strict=True)]
