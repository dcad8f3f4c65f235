"""``detector explain``: one row of a table, flagged or not: its risk, what decided, and what made it so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from detector.cleaning.clean import clean
from detector.cleaning.values import read_names
from detector.decide.policy import Policy
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.scoring import TableScoring
from detector.errors import DataError, NotFoundError, SettingError, nearest
from detector.explain.reason import Reason
from detector.persist import bundle
from pipelines.alerts.message.words import rarity
from pipelines.config import Config
from pipelines.factory.detector import policy_of
from pipelines.features.raw_source import RawSource
from pipelines.features.wording import wording_of
from pipelines.listing import Cell, Column, Listing
from pipelines.progress import counted, percent, progress
from pipelines.rules.run import RuleRun
from pipelines.scoring.standing_rules import standing_rules

MOST_REASONS = 10


@dataclass(frozen=True)
class Explanation:
    """All about one row.

    - ``values``: its columns, features among them, by the names that people have for them.
    - ``place``: how many of the rows are at least as risky, itself among them.
    - ``least``: the least risk that was flagged among them; missing if none was.
    - ``rules``, ``hidden_by``: live rules that hit it, and those that keep it from being flagged.
    - ``members``: for each its z-score and its weight in the risk, where that is known.
    """

    key: str
    values: dict[str, Any]
    risk: float
    p_value: float
    flagged: bool
    severity: str
    reasons: list[Reason]
    members: list[tuple[str, float, float | None]]
    place: int
    rows: int
    least: float | None
    policy: str
    decided_by: str
    rules: list[str] = field(default_factory=list)
    hidden_by: list[str] = field(default_factory=list)

    def summary(self) -> list[object]:
        """The row as a person reads it."""
        decision = f"Flagged, {self.severity}" if self.flagged else "Not flagged"
        threshold = "" if self.least is None else f"; the lowest that was flagged is {self.least:.2f}"
        columns = (
            Column("why", head=True, is_sentence=True),
            Column("observed", is_sentence=True),
            Column("expected"),
            Column("share of the risk", is_number=True),
        )
        reasons = [
            {
                "why": each.feature,
                "observed": each.observed,
                "expected": each.expected,
                "share of the risk": Cell(each.share, percent(each.share)),
            }
            for each in self.reasons
        ]
        members = [
            {
                "member": Cell(name, name.replace("_", " ")),
                "z-score": Cell(z, f"{z:.2f}"),
                "weight": None if weight is None else Cell(weight, f"{weight:.2f}"),
            }
            for name, z, weight in self.members
        ]
        values = [{"column": name, "value": Cell(value, _written(value))} for name, value in self.values.items()]
        return [
            f"{self.key}: {decision}.",
            f"Risk {self.risk:.2f}{threshold}. By risk it is number {self.place:,} of {counted(self.rows)}.",
            f"p-value {self.p_value:.2g}: {rarity(self.p_value)}.",
            f"Policy: {self.policy}. Decided by the {self.decided_by}.",
            *([f"Rules that hit it: {', '.join(self.rules)}."] if self.rules else []),
            *([f"Kept from being flagged by: {', '.join(self.hidden_by)}."] if self.hidden_by else []),
            "",
            Listing(columns, reasons, title="Reasons, most important first", empty="Nothing about it is unusual."),
            "",
            Listing(
                (Column("member", head=True), Column("z-score", is_number=True), Column("weight", is_number=True)),
                members,
                title="Members: how many deviations above normal rows, and the weight in the risk",
            ),
            "",
            Listing((Column("column", head=True), Column("value", head=True)), values, title="Values"),
        ]


def explain(config: Config, key: str, *, input: str | None, now: datetime) -> Explanation:  # noqa: A002 - the option's
    """Explain one row among those of the source, or of another file.

    Features are measured as in ``detector score``. The policy decides over all rows read, beside the rules that hold.

    - ``key``: the value of the key column; the number of the row, from 0, where there is none.

    Raises ``SettingError`` for sensors; ``DataError`` if there is no such row, or it cannot be used, with the reason.
    """
    scorer = bundle.load(config.bundle.resolve())
    if not isinstance(scorer, TabularScorer):
        raise SettingError("`detector explain` is for rows of tables. Of sensors, the file of events has the reasons.")
    raw = RawSource.open(config, scorer.schema, place=input)
    frame = raw.read(also=config.columns.for_rules)
    label = _find(frame, scorer.schema.key, key)
    measured, _ = raw.measure(frame, now=now)
    _refuse(measured.quarantine, label, key)
    frame = measured.rows
    cleaned = clean(frame, scorer.schema, positions=frame.index)
    _refuse(cleaned.quarantine, label, key)
    policy = policy_of(config.policy, scorer.schema)
    rules = standing_rules(config, scorer.schema, now=now)
    with progress("Scoring", total=None):
        scores = _scored(scorer, policy, rules, cleaned.rows, frame)
    row = scores.loc[label]
    wording = wording_of(config)
    shares = scorer.explain(cleaned.rows.loc[[label]], top=MOST_REASONS)[0]
    flagged = scores["risk"][scores["flagged"]]
    values = cleaned.rows.loc[label]
    return Explanation(
        key=key,
        values={wording.column(str(name)): values[name] for name in cleaned.rows.columns},
        risk=float(row["risk"]),
        p_value=float(row["p_value"]),
        flagged=bool(row["flagged"]),
        severity=str(row["severity"]),
        reasons=wording.reasons(shares),
        members=[(name, float(row[name]), scorer.metrics.get(f"weight_{name}")) for name in scorer.members],
        place=int((scores["risk"] >= row["risk"]).sum()),
        rows=len(scores),
        least=float(flagged.min()) if len(flagged) else None,
        policy=policy.describe(),
        decided_by=str(row["decided_by"]),
        rules=_named(row, "rules_hit"),
        hidden_by=_named(row, "hidden_by"),
    )


def _scored(
    scorer: TabularScorer, policy: Policy, rules: RuleRun | None, rows: pd.DataFrame, frame: pd.DataFrame
) -> pd.DataFrame:
    """Scores and flags of all rows, with what rules say of them where there are any."""
    if rules is not None:
        rows = rules.with_columns(rows, frame)
    scoring = TableScoring(scorer, policy, explains=False, overrides=rules)
    scoring.add(rows)
    if rules is None:
        (scores,) = scoring.scores(scoring.decide())
        return scores
    _, flagged = rules.decide(scoring, None)
    (scores,) = rules.annotate(scoring.scores(flagged))
    return scores


def _named(row: pd.Series, column: str) -> list[str]:
    text = str(row[column]) if column in row else ""
    return text.split(", ") if text else []


def _find(frame: pd.DataFrame, column: str | None, key: str) -> Any:
    """The label of a row in the index."""
    if column is None:
        if not key.isdigit() or int(key) >= len(frame):
            last = len(frame) - 1
            raise NotFoundError(f"There is no row {key!r}. Rows have no key: give a number from 0 to {last:,}.")
        return frame.index[int(key)]
    names = read_names(frame[column])
    found = frame.index[(names == key.strip()).to_numpy(dtype=bool, na_value=False)]
    if not len(found):
        known = names.dropna().unique()
        meant = nearest(key, known[:: max(1, len(known) // 1000)])
        raise NotFoundError(
            f"No row has {column} {key!r} among {counted(len(frame))}. {meant} Or name the file it is in with --input."
        )
    return found[0]


def _refuse(quarantine: pd.DataFrame, label: Any, key: str) -> None:
    """Say why a row has no risk."""
    found = quarantine.loc[quarantine["row"] == label, "reason"]
    if len(found):
        raise DataError(f"{key} was not scored, it is quarantined: {found.iloc[0]}.")


def _written(value: Any) -> str:
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:,.2f}" if 1e3 <= abs(number) < 1e15 and not number.is_integer() else f"{number:,.6g}"
    return str(value)
