"""What a report says: the parts that every job fills as far as it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from detector.explain.reason import Reason
from detector.features import Wording
from detector.metrics.ranking import Interval
from detector.schema import Schema
from pipelines.reports.drift import Drift
from pipelines.reports.style import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ColumnFact:
    """One column of the data; ``part`` is its role or its kind, ``words`` what people call it."""

    name: str
    part: str
    missing: float
    distinct: int
    example: str
    words: str = ""


@dataclass(frozen=True)
class Alternative:
    """A threshold on the p-value, and what it would flag; ``right`` and ``found`` are missing without labels.

    - ``right``: the share of its flags with a known label that are anomalous.
    - ``found``: the share of the known anomalies that it flags.
    """

    threshold: float
    flagged: int
    right: float | None = None
    found: float | None = None
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report says. Only the first four parts are always there.

    - ``job``: "Training", "Scoring" or "Evaluation".
    - ``made_at``: when, with its time zone.
    - ``rows``: rows read, quarantined ones included.
    - ``source``: where the rows came from, without secrets.
    - ``reviewed``: how many of the rows were scored: those kept apart, in training.
    - ``alternatives``: what other thresholds would flag.
    - ``drift``: the rows beside those that a detector learnt from.
    - ``explain``: the command that explains a row, to which its key is added.
    - ``truth``: metrics of ``detector.metrics.ranking`` against known labels, joined in one mapping.
    - ``ap_interval``: average precision with its bootstrap interval.
    - ``alerts``: flagged rows as in ``Verdicts.frame``, riskiest first, and optionally ``truth`` (1, 0, missing). The
      first 15 are open to see, the first 100 at a click.
    - ``unit``: what the alerts are: "rows" or "events".
    - ``reasons``: the reasons of each row of ``alerts``; without them its ``reasons`` text is shown.
    - ``policy``: the flagging rule in words: ``Policy.describe()``.
    - ``calibration``: ``detector.metrics.calibration.calibration_metrics`` of held-out normal rows.
    - ``figures``: by name; the names of `CAPTIONS` get their caption.
    - ``quarantine``: rows by reason, see `quarantine_counts`.
    - ``model``: ``TabularScorer.metrics``.
    - ``places``: where to find the rest: a label, and a path, a command or an address.
    """

    name: str
    job: str
    made_at: datetime
    rows: int
    flagged: int | None = None
    quarantined: int | None = None
    source: str | None = None
    seconds: float | None = None
    reviewed: int | None = None
    alternatives: Sequence[Alternative] = ()
    drift: Drift | None = None
    explain: str = ""
    truth: Mapping[str, float] | None = None
    ap_interval: Interval | None = None
    alerts: pd.DataFrame | None = None
    reasons: Sequence[Sequence[Reason]] | None = None
    unit: str = "rows"
    policy: str | None = None
    calibration: Mapping[str, float] | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    columns: Sequence[ColumnFact] = ()
    quarantine: Mapping[str, int] = field(default_factory=dict)
    members: Sequence[str] = ()
    model: Mapping[str, Any] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def column_facts(frame: pd.DataFrame, schema: Schema, wording: Wording | None = None) -> list[ColumnFact]:
    """What a sample of the table says about each column the schema knows; others are "ignored".

    >>> column_facts(pd.DataFrame({"amount": [1.0, None]}), Schema(numeric=("amount",)))
    [ColumnFact(name='amount', part='numeric', missing=0.5, distinct=1, example='1', words='')]
    """
    wording = wording or Wording()
    roles = {name: role for role, name in schema.roles.items()}
    facts = []
    for name in map(str, frame.columns):
        part = roles.get(name) or (schema.kind_of(name) if name in schema.features else "ignored")
        values = frame[name].dropna()
        example = "" if values.empty else shorten(_example(values.iloc[0]), 40)
        missing = 1.0 - len(values) / max(len(frame), 1)
        words = "" if (said := wording.column(name)) == name else said
        facts.append(ColumnFact(name, part, missing, int(values.astype(str).nunique()), example, words))
    return facts


def quarantine_counts(quarantine: pd.DataFrame) -> dict[str, int]:
    """Quarantined rows by reason, the most frequent first.

    >>> quarantine_counts(pd.DataFrame({"reason": ["no date", "twice", "twice"]}))
    {'twice': 2, 'no date': 1}
    """
    return {str(reason): int(rows) for reason, rows in quarantine["reason"].value_counts().items()}


def _example(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
