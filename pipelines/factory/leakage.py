"""Columns that give the label away: filled in after somebody looked, so that no new row has them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.arrays import Flags, Floats
from detector.metrics.ranking import ranking_metrics
from detector.schema import Schema

PERFECT = 0.99
STRONG = 0.95
FEW = 0.1
TELLING_AUROC = 0.7
LEAST_ANOMALIES = 10
LEAST_PENDING = 50
MOST_ROWS = 50_000
MOST_LEVELS = 50
UNLIKELY = 1e-3


@dataclass(frozen=True)
class Suspect:
    """A column that likely gives the label away, and why it is thought so."""

    column: str
    reason: str


def suspects_of(
    rows: pd.DataFrame, label: pd.Series, schema: Schema, *, trusted: Collection[str] = (), random_state: int = 0
) -> list[Suspect]:
    """The feature columns that alone, by their values or by being filled, tell labels as nothing honest does.

    A column is named if it ranks the labelled rows almost perfectly, unless rows whose labels are not known yet look
    as the labelled ones do; and if it says something of labels and is the same in all rows without.

    - ``rows``: cleaned rows; ``label``: 1 anomalous, 0 normal, missing where it is not known yet.
    - ``trusted``: columns that are not checked.

    >>> n = np.arange(400)
    >>> rows = pd.DataFrame({"state": np.where(n % 20 == 0, "closed", ""), "amount": n % 7.0})
    >>> [
    ...     each.column
    ...     for each in suspects_of(
    ...         rows, pd.Series(n % 20 == 0, dtype=float), Schema(numeric=("amount",), categorical=("state",))
    ...     )
    ... ]
    ['state']
    """
    if len(rows) > MOST_ROWS:
        rows = rows.sample(MOST_ROWS, random_state=random_state)
        label = label[rows.index]
    truth = label.to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(truth)
    if (truth == 1).sum() < LEAST_ANOMALIES or (truth == 0).sum() < LEAST_ANOMALIES:
        return []
    found = []
    for name in schema.features:
        if name not in trusted and name != schema.time:
            reason = _reason(rows[name], truth, known)
            if reason is not None:
                found.append(Suspect(name, reason))
    return found


def suspects_note(suspects: Collection[Suspect]) -> str | None:
    """All of them in a sentence, with what to do; None if there are none."""
    if not suspects:
        return None
    names = ", ".join(suspect.column for suspect in suspects)
    shown = "; ".join(f"{suspect.column!r} {suspect.reason}" for suspect in suspects)
    return (
        f"Columns that likely give the label away, being filled in afterwards: {shown}. Measures on labelled rows say "
        f"nothing of new ones. List them in `columns.ignore: [{names}]`, or, if each is known when the row happens, in "
        f"`train.head.trusted`."
    )


def _reason(column: pd.Series, truth: Floats, known: Flags) -> str | None:
    scores = list(_scores(column, truth, known))
    if not scores:
        return None
    measured = [ranking_metrics(truth[known], score[known]) for score in scores]
    best = max(range(len(scores)), key=lambda at: measured[at]["ap"])
    metrics, score, pending = measured[best], scores[best], int((~known).sum())
    limit = np.sort(score[known])[-int(metrics["anomalies"])]
    expected = pending * float((score[known] >= limit).mean())
    seen = int((score[~known] >= limit).sum())
    filled = column.notna().to_numpy()
    alone = f"alone ranks labelled rows almost perfectly (average precision {metrics['ap']:.3f})"
    if math.exp(-expected) >= UNLIKELY and metrics["ap"] >= PERFECT and metrics["auroc"] >= PERFECT:
        return alone  # there are too few other rows to tell
    if metrics["ap"] >= STRONG and seen < FEW * expected and _at_most(seen, expected) < UNLIKELY:
        waiting = f"{pending:,} rows whose labels are not known yet {seen:,} look like an anomaly"
        return f"{alone}, but of {waiting}, where {expected:,.0f} were to be expected"
    auroc = max(each["auroc"] for each in measured)
    if pending < LEAST_PENDING or auroc < TELLING_AUROC:
        return None
    values = column.astype("object").where(filled, None)
    if values[~known].nunique(dropna=False) == 1:
        same = values.iloc[int(np.flatnonzero(~known)[0])]
        alike = float((values[known].isna() if same is None else values[known] == same).mean())
        if alike == 0 or pending * math.log(alike) < math.log(UNLIKELY):
            shown = "empty" if same is None else repr(same)
            where = f"all {pending:,} rows whose labels are not known yet"
            return f"tells labels (AUROC {auroc:.2f}) and is {shown} in {where}"
    return None


def _scores(column: pd.Series, truth: Floats, known: Flags) -> Iterator[Floats]:
    """What the column says of each row, higher for anomalies: by its order, up and down, and by each value's share."""
    missing = column.isna().to_numpy()
    levels = column.nunique()
    if levels + missing.any() < 2:
        return
    if levels <= MOST_LEVELS:
        yield _shares(column, truth, known)
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("datetime64[us]").astype("int64").astype("float64").mask(missing)
    if pd.api.types.is_numeric_dtype(column):
        ranks = column.rank(method="dense").to_numpy(dtype=np.float64, na_value=np.nan)
        for ordered in (ranks, -ranks):
            yield _filled(ordered, -1)
            if missing.any():
                yield _filled(ordered, 1)
    elif missing.any():
        yield missing.astype(np.float64)
        yield (~missing).astype(np.float64)


def _filled(ranks: Floats, side: int) -> Floats:
    """Ranks with missing ones beyond all others, below (-1) or above (1)."""
    edge = float(np.nanmax(np.abs(ranks))) + 1
    return np.where(np.isnan(ranks), side * edge, ranks)


def _shares(column: pd.Series, truth: Floats, known: Flags) -> Floats:
    """The share of anomalies among rows of the same value: for labelled rows in the other half of them."""
    codes = pd.factorize(column, use_na_sentinel=False)[0]
    half = np.arange(len(codes)) % 2 == 0
    base_rate = float(np.nanmean(truth))
    found = np.zeros(len(codes))
    for scored, learnt in ((known & half, known & ~half), (known & ~half, known & half), (~known, known)):
        rows = np.bincount(codes[learnt], minlength=codes.max() + 1)
        anomalies = np.bincount(codes[learnt], weights=truth[learnt], minlength=codes.max() + 1)
        found[scored] = ((anomalies + base_rate) / (rows + 1))[codes[scored]]
    return found


def _at_most(count: int, expected: float) -> float:
    """The chance of so few or fewer, where so many are expected (Poisson)."""
    logs = [k * math.log(expected) - expected - math.lgamma(k + 1) for k in range(count + 1)]
    return math.fsum(math.exp(each) for each in logs)
