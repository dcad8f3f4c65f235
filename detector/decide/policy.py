"""p-values → flags.

A policy has up to three rules, of which each may only take flags away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Flags, Floats
from detector.decide.days import Used, group_by_day
from detector.decide.fdr import Totals, discoveries
from detector.decide.numbers import level, row_of_numbers, share
from detector.decide.support import Support
from detector.errors import DataError, SettingError, ShapeError

PERIODS = ("batch", "day")


@dataclass(frozen=True)
class Budget:
    """How many rows may be flagged, the riskiest first.

    Parameters
    ----------
    rows : int
        At most so many.
    per : {"batch", "day"}
        In the whole batch, or on each day in it.

    Raises
    ------
    SettingError
        If ``rows`` is not a positive integer or ``per`` is neither of the two.
    """

    rows: int
    per: Literal["batch", "day"] = "batch"

    def __post_init__(self) -> None:
        rows: object = self.rows
        if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1:
            raise SettingError(f"budget.rows must be a positive integer. Received: rows={rows!r}.")
        if self.per not in PERIODS:
            raise SettingError(f"budget.per must be 'batch' or 'day'. Received: per={self.per!r}.")


@dataclass(frozen=True)
class Decision:
    """What a policy decides on a batch.

    - ``flagged``, (n_rows,).
    - ``promised``: False where a false discovery rate was asked for and cannot be promised.
    - ``note``: why not, and what was flagged instead.
    """

    flagged: Flags
    promised: bool = True
    note: str | None = None


@dataclass(frozen=True)
class Policy:
    """When a row is flagged; where several rules are given, all must agree.

    A row is flagged if its p-value passes ``quantile``, if it passes the false discovery rate over the whole
    batch, and if it is then among the riskiest that ``budget`` has room for. So the budget is a cap and the
    others are a floor: on a quiet day nothing need be flagged.

    Parameters
    ----------
    quantile : float, optional
        Flag rows riskier than this share of held-out normal rows: 0.99 flags p-values of at most 0.01.
    budget : Budget, optional
        Flag at most so many, whatever the others say.
    fdr : float, optional
        Flag so that, on average, at most this share of the flagged rows is normal (Benjamini and Hochberg,
        JRSS B 1995; valid for conformal p-values: Bates et al., Annals of Statistics 2023).

    Raises
    ------
    SettingError
        If no rule is given, or if one has no meaning.

    >>> policy = Policy(quantile=0.9, budget=Budget(rows=1))
    >>> policy.decide(np.array([0.05, 0.01, 0.5]), np.array([2.0, 3.0, 0.0]))
    array([False,  True, False])
    """

    quantile: float | None = None
    budget: Budget | None = None
    fdr: float | None = None

    def __post_init__(self) -> None:
        if self.quantile is None and self.budget is None and self.fdr is None:
            raise SettingError("A policy needs a rule. Give quantile, budget or fdr.")
        for name in ("quantile", "fdr"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, share(name, value))
        budget: object = self.budget
        if budget is not None and not isinstance(budget, Budget):
            raise SettingError(f"budget must be a Budget, such as Budget(rows=50). Received: {budget!r}.")

    @property
    def is_by_row(self) -> bool:
        """Whether the decision on a row hangs on no other."""
        return self.budget is None and self.fdr is None

    @property
    def needs_day(self) -> bool:
        """Whether ``decide`` must be told each row's day."""
        return self.budget is not None and self.budget.per == "day"

    def decide(
        self,
        p_value: ArrayLike,
        risk: ArrayLike,
        *,
        day: ArrayLike | None = None,
        used: Used | None = None,
        support: Support | None = None,
    ) -> Flags:
        """Flag the rows of one batch; see ``decision``.

        Returns
        -------
        boolean array of shape (n_rows,)
            Of rows with equal risk at the edge of a budget the first are flagged.
        """
        return self.decision(p_value, risk, day=day, used=used, support=support).flagged

    def decision(
        self,
        p_value: ArrayLike,
        risk: ArrayLike,
        *,
        day: ArrayLike | None = None,
        used: Used | None = None,
        support: Support | None = None,
        learnt: float = 0.0,
        totals: Totals | None = None,
    ) -> Decision:
        """Flag the rows of one batch, and say whether the false discovery rate is a promise.

        Parameters
        ----------
        p_value, risk : array of shape (n_rows,)
            As the calibrator gives them.
        day : array of shape (n_rows,), optional
            The day or the time of each row; needed for a budget a day. Rows without one share a day.
        used : callable, optional
            For some days: how many rows of each other batches have flagged. A budget a day has only the rest of it.
        support : Support, optional
            What the p-values rest on, if the calibrator says: then the rate is one of the rows that can be normal at
            all (Storey's estimate), and where nothing passes it, what is blatant is flagged without a promise.
        learnt : float
            Share of the rows that the detector learnt from.
        totals : Totals, optional
            Those of the whole batch, where only the rows that ``deciding`` names are given; by default all are.

        Raises
        ------
        ShapeError
            If the arrays are not plain rows of one length.
        DataError
            If a p-value or a risk is NaN.
        SettingError
            If the budget is per day and ``day`` is not given.
        """
        p_value, risk = row_of_numbers(p_value, "p_value"), row_of_numbers(risk, "risk")
        if len(p_value) != len(risk):
            raise ShapeError(f"decide expected one risk per p-value, got {len(risk)} for {len(p_value)}.")
        if np.isnan(p_value).any() or np.isnan(risk).any():
            raise DataError("decide got NaN among the p-values or risks. Send such rows to quarantine before.")
        flagged, note = np.ones(len(p_value), dtype=bool), None
        if self.quantile is not None:
            flagged &= p_value <= level(self.quantile)
        if self.fdr is not None:
            passed, note = self._discovered(p_value, risk, support, learnt, totals or Totals.of(p_value))
            flagged &= passed
        return Decision(self._within_budget(flagged, risk, day, used), promised=note is None, note=note)

    def _discovered(
        self, p_value: Floats, risk: Floats, support: Support | None, learnt: float, totals: Totals
    ) -> tuple[Flags, str | None]:
        """The rows that pass the rate, or the fallback; and why it is no promise, if it is none."""
        fdr = self.fdr or 0.0
        if support is None:
            return discoveries(p_value, fdr, rows=totals.rows), None
        why = support.why_not(fdr, learnt=learnt)
        passed = discoveries(p_value, fdr, null_share=totals.share_of_normal_rows, rows=totals.rows)
        if passed.any():
            return passed, why
        instead, which = support.fallback(p_value, risk, fdr, totals=totals)
        if not instead.any():
            return instead, why
        begin = why or f"A false discovery rate of {fdr * 100:.10g} % flags nothing."
        return instead, f"{begin} Flagged without a promise: {which}."

    def _within_budget(self, flagged: Flags, risk: Floats, day: ArrayLike | None, used: Used | None) -> Flags:
        if self.budget is None:
            return flagged
        if self.budget.per == "batch":
            return _riskiest(flagged, risk, np.zeros(len(risk), dtype=np.int64), np.array([self.budget.rows]))
        group, days = group_by_day(day, len(risk))
        room = np.full(len(days), self.budget.rows)
        if used is not None:
            asked = [days[number] for number in np.unique(group[flagged])]
            spent = used(asked) if asked else {}
            room = np.maximum(room - np.array([spent.get(each, 0) for each in days], dtype=np.int64), 0)
        return _riskiest(flagged, risk, group, room)

    def candidates(
        self, p_value: ArrayLike, risk: ArrayLike, *, day: ArrayLike | None = None, support: Support | None = None
    ) -> Flags:
        """Rows of one part of a batch that ``decide`` may flag once it sees the whole batch; it flags no others.

        The rows of a part stand in the order of the batch. With ``day``, a budget a day leaves out more of them.

        >>> Policy(fdr=0.1).candidates([0.05, 0.2], [3.0, 1.0])
        array([ True, False])
        """
        p_value, risk = row_of_numbers(p_value, "p_value"), row_of_numbers(risk, "risk")
        possible = np.ones(len(p_value), dtype=bool)
        if self.quantile is not None:
            possible &= p_value <= level(self.quantile)
        if self.fdr is not None:
            possible &= self._counted(p_value, risk, support)
        return possible if self.needs_day and day is None else self._within_budget(possible, risk, day, None)

    def deciding(
        self, p_value: ArrayLike, risk: ArrayLike, *, day: ArrayLike | None = None, support: Support | None = None
    ) -> Flags:
        """Rows of one part of a batch without which ``decision`` cannot decide on the whole of it.

        Given these of all parts, in the order of the batch, and the ``totals``, it flags the rows it would flag given
        all. A false discovery rate counts rows that other rules do not let pass, so these are more than ``candidates``.

        >>> Policy(fdr=0.1, budget=Budget(rows=1)).deciding([0.05, 0.01, 0.2], [2.0, 3.0, 1.0])
        array([ True,  True, False])
        """
        if self.fdr is None:
            return self.candidates(p_value, risk, day=day, support=support)
        return self._counted(row_of_numbers(p_value, "p_value"), row_of_numbers(risk, "risk"), support)

    def _counted(self, p_value: Floats, risk: Floats, support: Support | None) -> Flags:
        """The rows that a false discovery rate, or its fallback, may let pass."""
        fdr = self.fdr or 0.0
        return p_value <= fdr if support is None else support.candidates(p_value, risk, fdr)

    @staticmethod
    def checked(policy: object) -> Policy:
        """The policy given; raises ``SettingError`` if it is something else."""
        if not isinstance(policy, Policy):
            raise SettingError(f"policy must be a Policy, such as Policy(fdr=0.1). Received: {policy!r}.")
        return policy

    def neighbours(self) -> dict[str, Policy]:
        """The same policy at half and at twice its rate, by what differs; of several rules, the first that it has.

        >>> list(Policy(fdr=0.1).neighbours()), list(Policy(quantile=0.99).neighbours())
        (['fdr 0.05', 'fdr 0.2'], ['quantile 0.995', 'quantile 0.98'])
        """
        if self.fdr is not None:
            return {f"fdr {fdr:.4g}": replace(self, fdr=fdr) for fdr in (self.fdr / 2, min(2 * self.fdr, 0.99))}
        if self.quantile is not None:
            beyond = level(self.quantile)
            levels = [1.0 - share for share in (beyond / 2, min(2 * beyond, 0.99))]
            return {f"quantile {quantile:.10g}": replace(self, quantile=quantile) for quantile in levels}
        if self.budget is None:
            return {}
        rows = dict.fromkeys((max(1, self.budget.rows // 2), 2 * self.budget.rows))
        return {f"budget {n:,}": replace(self, budget=replace(self.budget, rows=n)) for n in rows}

    def describe(self) -> str:
        """Say the policy in words.

        >>> Policy(quantile=0.99, budget=Budget(rows=50, per="day")).describe()
        'rows riskier than 99 % of held-out normal rows; at most 50 a day, the riskiest first'
        """
        parts = []
        if self.quantile is not None:
            parts.append(f"rows riskier than {self.quantile * 100:.10g} % of held-out normal rows")
        if self.fdr is not None:
            parts.append(f"on average at most {self.fdr * 100:.10g} % of the flagged rows normal")
        if self.budget is not None:
            parts.append(f"at most {self.budget.rows:,} a {self.budget.per}, the riskiest first")
        return "; ".join(parts)

    def power_note(self, n_batch: int, n_calibration: int, *, support: Support | None = None) -> str | None:
        """Say when p-values are too coarse for the policy to flag a single row.

        No p-value is below 1 / (n_calibration + 1), or the least that ``support`` names, so under a false discovery
        rate several rows must reach it together.

        >>> print(Policy(fdr=0.1).power_note(10_000, 4_000))
        With 4,000 calibration rows, a false discovery rate of 10 % flags nothing unless at least 25 of \
10,000 rows are riskier than all of them.
        """
        smallest = 1.0 / (n_calibration + 1) if support is None else support.smallest
        begin = f"With {n_calibration:,} calibration rows,"
        if self.quantile is not None and smallest > (limit := level(self.quantile)):
            needed = ceil(1.0 / limit - 1e-9) - 1
            passing = f"no row can pass the quantile {self.quantile:.10g}"
            return f"{begin} {passing}. Calibrate on at least {needed:,} rows."
        if self.fdr is None:
            return None
        together = ceil(n_batch * smallest / self.fdr - 1e-9)
        if together <= 1:
            return None
        rate = f"a false discovery rate of {self.fdr * 100:.10g} %"
        if together > n_batch:
            needed = ceil(1.0 / self.fdr - 1e-9) - 1
            return f"{begin} {rate} can flag nothing. Calibrate on at least {needed:,} rows."
        rows = f"{together:,} of {n_batch:,} rows"
        far = "riskier than all of them" if support is None else "far riskier than all of them"
        return f"{begin} {rate} flags nothing unless at least {rows} are {far}."


def _riskiest(candidates: Flags, risk: Floats, group: NDArray[np.int64], room: NDArray[np.int64]) -> Flags:
    """Keep the riskiest candidates of each group, as many as it has room for, the earlier of equals."""
    kept = np.zeros(len(candidates), dtype=bool)
    positions = np.flatnonzero(candidates)
    # NumPy sorts small integers by radix, and a partition is linear: no sort of five million risks.
    small = group[positions].astype(np.min_scalar_type(group.max(initial=0)))
    order = np.argsort(small, kind="stable")
    for members in np.split(positions[order], np.flatnonzero(np.diff(small[order])) + 1):
        rows = int(room[group[members[0]]]) if len(members) else 0
        if len(members) <= rows:
            kept[members] = True
        if len(members) <= rows or not rows:
            continue
        edge = np.partition(risk[members], -rows)[-rows]
        above, at = members[risk[members] > edge], members[risk[members] == edge]
        kept[above] = True
        kept[at[: rows - len(above)]] = True
    return kept
