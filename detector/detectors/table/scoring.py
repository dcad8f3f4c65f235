"""The one way of rows of a table to their scores: measure every part → decide over all → explain what is flagged.

A budget or a false discovery rate is a property of all rows, so decisions wait until the last part was measured. Rows
come in parts of any size, and the scores are the same however they were cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.decide.audit_sample import AuditSample
from detector.decide.days import Used
from detector.decide.overrides import Overrides
from detector.decide.policy import Decision, Policy
from detector.decide.support import Support
from detector.explain.reason import Reason, no_reasons
from detector.schema import Schema

Measured = tuple[pd.DataFrame, NDArray[np.float64]]
"""Risk, p-value and each member's score of cleaned rows, and how surely each was learnt from."""


class RowScorer(Protocol):
    """What a detector does with rows; ``TabularScorer`` is one."""

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        ...

    @property
    def support(self) -> Support | None:
        """What a false discovery rate can rest on."""
        ...

    def recalled(self, rows: pd.DataFrame) -> Measured:
        """Risk, p-value and each member's score of cleaned rows, and how surely each was learnt from."""
        ...

    def p_value(self, risk: NDArray[np.float64]) -> NDArray[np.float64]:
        """The p-value of a risk that decides."""
        ...

    def as_scores(self, rows: pd.DataFrame, measures: pd.DataFrame, *, flagged: NDArray[np.bool_]) -> pd.DataFrame:
        """Measured rows with names, flags and severities; without reasons."""
        ...

    def explain(self, rows: pd.DataFrame) -> list[list[Reason]]:
        """Reasons of cleaned rows."""
        ...


class TableScoring:
    """Rows of a table on their way to scores.

    Parameters
    ----------
    scorer : RowScorer
        Measures and explains.
    policy : Policy
        Decides; rows that it can never flag are not kept for explanation.
    kept : sequence of str
        Features whose values stay beside the scores.
    sample : AuditSample, optional
        Draws rows that are not flagged for an audit; scores then say which (``explored``), and how likely each row was
        to be looked at (``chance``).
    explains : bool
        Whether flagged rows get reasons.
    overrides : Overrides, optional
        Raises risks, and says which rows the policy does not see, before it decides.
    spool : mutable mapping of str to DataFrame, optional
        Where parts wait for the decision; two numbers a row stay in memory anyway. In memory by default.

    >>> TableScoring(..., Policy(quantile=0.99)).decide()
    array([], dtype=bool)
    """

    def __init__(
        self,
        scorer: RowScorer,
        policy: Policy,
        *,
        kept: Sequence[str] = (),
        sample: AuditSample | None = None,
        explains: bool = True,
        overrides: Overrides | None = None,
        spool: MutableMapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.scorer = scorer
        self.policy = Policy.checked(policy)
        self.sample = sample
        self.explains = explains
        self.overrides = overrides
        self.kept = [name for name in kept if name in scorer.schema.features] if kept else []
        self._spool: MutableMapping[str, pd.DataFrame] = {} if spool is None else spool
        self._learnt = 0.0
        self._sizes: list[int] = []
        self._risk: list[NDArray[np.float64]] = []
        self._p_value: list[NDArray[np.float64]] = []
        self._day: list[NDArray[np.datetime64]] = []
        self._lots: list[NDArray[np.float64]] = []
        self._barred: list[NDArray[np.bool_]] = []

    def add(
        self, rows: pd.DataFrame, *, names: Iterable[object] | None = None, measured: Measured | None = None
    ) -> None:
        """Measure one part of cleaned rows.

        ``names`` are those of its rows where no key names them, by default their positions; ``measured`` is what
        ``recalled`` says of them where it was asked already.
        """
        schema, number = self.scorer.schema, len(self._sizes)
        measures, learnt = self.scorer.recalled(rows) if measured is None else measured
        wanted = barred = np.zeros(len(rows), dtype=bool)
        if self.overrides is not None:
            found = self.overrides.override(rows, measures)
            if found.risk is not None:
                measures = measures.assign(risk=found.risk, p_value=self.scorer.p_value(found.risk))
            wanted, barred = found.wanted, found.barred
            self._barred.append(barred)
        risk, p_value = measures["risk"].to_numpy(copy=True), measures["p_value"].to_numpy(copy=True)
        self._sizes.append(len(rows))
        self._risk.append(risk)  # a copy: a view would keep all columns of the frame in memory
        self._p_value.append(p_value)
        self._learnt += float(learnt.sum())
        if schema.time is not None:
            self._day.append(rows[schema.time].to_numpy().astype("datetime64[D]"))
        if self.sample is not None:
            given = rows.index if names is None else names
            self._lots.append(self.sample.uniform(given if schema.key is None else rows[schema.key]))
        named = [name for role, name in schema.roles.items() if role != "label"]
        beside = {name: rows[name] for name in dict.fromkeys(named + self.kept)}
        self._spool[f"{number}.measures"] = pd.DataFrame(beside | dict(measures.items()), index=rows.index, copy=False)
        if self.explains:
            self._spool[f"{number}.candidates"] = rows[wanted | self._candidates(p_value, risk, ~barred)]

    def _candidates(
        self, p_value: NDArray[np.float64], risk: NDArray[np.float64], seen: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The rows that the policy may flag among those that it sees."""
        found = np.zeros(len(seen), dtype=bool)
        found[seen] = self.policy.candidates(p_value[seen], risk[seen], support=self.scorer.support)
        return found

    @property
    def day(self) -> NDArray[np.datetime64] | None:
        """The day of each row; None if rows have no time."""
        return _joined(self._day) if self._day else None

    def decide(self, used: Used | None = None) -> NDArray[np.bool_]:
        """Which of all rows are flagged; ``used`` says what other batches took of a day's budget."""
        return self.decision(used).flagged

    def decision(self, used: Used | None = None, *, barred: bool = True) -> Decision:
        """The same, and whether a false discovery rate is promised.

        ``barred`` is False to have the policy see the rows too that ``overrides`` take out of its sight.
        """
        return self._decided_by(self.policy, used, barred=barred)

    def neighbours(self) -> dict[str, int]:
        """How many rows the policy would flag at half and at twice its rate."""
        policies = self.policy.neighbours().items()
        return {name: int(self._decided_by(policy).flagged.sum()) for name, policy in policies}

    def _decided_by(self, policy: Policy, used: Used | None = None, *, barred: bool = True) -> Decision:
        if not self._risk:
            return Decision(np.zeros(0, dtype=bool))
        p_value, risk = _joined(self._p_value), _joined(self._risk)
        seen = ~_joined(self._barred) if barred and self._barred else slice(None)
        day = self.day if policy.needs_day else None
        found = policy.decision(
            p_value[seen],
            risk[seen],
            day=None if day is None else day[seen],
            used=used,
            support=self.scorer.support,
            learnt=self._learnt / max(1, len(risk)),
        )
        flagged = np.zeros(len(risk), dtype=bool)
        flagged[seen] = found.flagged
        return replace(found, flagged=flagged)

    def scores(self, flagged: NDArray[np.bool_]) -> Iterator[pd.DataFrame]:
        """The rows in order, part by part, with flags and lists of reasons; one empty frame if there are none."""
        start = 0
        for number, size in enumerate(self._sizes):
            if not size and (len(flagged) or number):
                continue  # its columns are all missing, so their types are unknown
            marks = flagged[start : start + size]
            measures = self._spool[f"{number}.measures"]
            scores = self.scorer.as_scores(measures, measures, flagged=marks)
            if marks.any() and self.explains:
                chosen = self._spool[f"{number}.candidates"].loc[scores.index[marks]]
                scores["reasons"] = _placed(self.scorer.explain(chosen), marks)
            if self.sample is not None:
                chance = self.sample.chance(len(flagged))
                scores["explored"] = ~marks & (self._lots[number] < chance)
                scores["chance"] = np.where(marks, 1.0, chance)
            yield scores.join(measures[self.kept]) if self.kept else scores
            start += size


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """All parts as one, which stands for them from now on: both would be in memory else."""
    parts[:] = [np.concatenate(parts)]
    return parts[0]


def _placed(reasons: Sequence[list[Reason]], marks: NDArray[np.bool_]) -> NDArray[np.object_]:
    found = no_reasons(len(marks))
    for place, each in zip(np.flatnonzero(marks).tolist(), reasons, strict=True):
        found[place] = each
    return found
