"""p-values → flags, and how severe each is.

A policy has up to three rules, of which each may only take flags away.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Flags, Floats
from detector.decide.days import Used, group_by_day
from detector.errors import DataError, SettingError, ShapeError

PERIODS = ("batch", "day")
SEVERITIES = ("low", "medium", "high", "critical")


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
    def needs_day(self) -> bool:
        """Whether ``decide`` must be told each row's day."""
        return self.budget is not None and self.budget.per == "day"

    def decide(
        self, p_value: ArrayLike, risk: ArrayLike, *, day: ArrayLike | None = None, used: Used | None = None
    ) -> Flags:
        """Flag the rows of one batch.

        Parameters
        ----------
        p_value, risk : array of shape (n_rows,)
            As the calibrator gives them.
        day : array of shape (n_rows,), optional
            The day or the time of each row; needed for a budget a day. Rows without one share a day.
        used : callable, optional
            For some days: how many rows of each other batches have flagged. A budget a day has only the rest of it.

        Returns
        -------
        boolean array of shape (n_rows,)
            Of rows with equal risk at the edge of a budget the first are flagged.

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
        flagged = np.ones(len(p_value), dtype=bool)
        if self.quantile is not None:
            flagged &= p_value <= level(self.quantile)
        if self.fdr is not None:
            flagged &= discoveries(p_value, self.fdr)
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

    def candidates(self, p_value: ArrayLike, risk: ArrayLike) -> Flags:
        """Rows of one part of a batch that ``decide`` may flag once it sees the whole batch; it flags no others.

        >>> Policy(fdr=0.1).candidates([0.05, 0.2], [3.0, 1.0])
        array([ True, False])
        """
        p_value, risk = row_of_numbers(p_value, "p_value"), row_of_numbers(risk, "risk")
        possible = np.ones(len(p_value), dtype=bool)
        if self.quantile is not None:
            possible &= p_value <= level(self.quantile)
        if self.fdr is not None:
            possible &= p_value <= self.fdr
        if self.budget is not None and self.budget.per == "batch":
            possible = _riskiest(possible, risk, np.zeros(len(risk), dtype=np.int64), np.array([self.budget.rows]))
        return possible

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

    def power_note(self, n_batch: int, n_calibration: int) -> str | None:
        """Say when the empirical p-values are too coarse for the policy to flag a single row.

        No p-value is below 1 / (n_calibration + 1), so under a false discovery rate several rows must reach
        it together.

        >>> print(Policy(fdr=0.1).power_note(10_000, 4_000))
        With 4,000 calibration rows, a false discovery rate of 10 % flags nothing unless at least 25 of \
10,000 rows are riskier than all of them.
        """
        smallest = 1.0 / (n_calibration + 1)
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
        return f"{begin} {rate} flags nothing unless at least {rows} are riskier than all of them."


def discoveries(p_value: Floats, fdr: float) -> Flags:
    """Which p-values pass the step-up rule of Benjamini and Hochberg (JRSS B 1995).

    >>> discoveries(np.array([0.01, 0.04, 0.03, 0.9]), 0.1)
    array([ True,  True,  True, False])
    """
    # Only p-values up to fdr can pass, so only they are sorted.
    small = np.sort(p_value[p_value <= fdr])
    passing = np.flatnonzero(small * len(p_value) <= fdr * np.arange(1, len(small) + 1))
    if not len(passing):
        return np.zeros(len(p_value), dtype=bool)
    return np.asarray(p_value <= small[passing[-1]])


def severity(
    p_value: Floats, flagged: Flags, *, levels: tuple[float, float, float] = (1e-3, 1e-4, 1e-5)
) -> NDArray[np.object_]:
    """Name how severe each flagged row is: low, medium, high or critical; "" where it is not flagged.

    Parameters
    ----------
    p_value, flagged : array of shape (n_rows,)
        As the calibrator and the policy give them.
    levels : tuple of three floats
        The largest p-value that is medium, high and critical.

    Raises
    ------
    SettingError
        If the levels do not fall.
    ShapeError
        If the two arrays differ in length.

    >>> list(severity(np.array([0.5, 0.01, 0.001, 2e-6]), np.array([False, True, True, True])))
    ['', 'low', 'medium', 'critical']
    """
    if len(levels) != len(SEVERITIES) - 1 or not 1.0 > levels[0] > levels[1] > levels[2] > 0.0:
        raise SettingError(f"levels must be three falling numbers between 1 and 0. Received: levels={levels}.")
    if np.shape(p_value) != np.shape(flagged):
        raise ShapeError(f"severity expected one flag per p-value, got {np.shape(flagged)} for {np.shape(p_value)}.")
    names = np.array(["", *SEVERITIES], dtype=object)
    steps = (np.asarray(p_value)[:, None] <= np.array(levels)).sum(axis=1)
    return np.asarray(names[np.where(flagged, steps + 1, 0)])


def share(name: str, value: object) -> float:
    """Check that a setting lies between 0 and 1, and return it.

    Raises
    ------
    SettingError
        If it does not, or if it is no number.

    >>> share("fdr", 0.1)
    0.1
    """
    number = float(value) if isinstance(value, (float, np.floating)) else float("nan")
    if not 0.0 < number < 1.0:
        raise SettingError(f"{name} must lie between 0 and 1, both excluded. Received: {name}={value!r}.")
    return number


def level(quantile: float) -> float:
    """Return the largest p-value beyond a quantile: 0.1 for 0.9, or a p-value of 1/10 would miss it.

    >>> level(0.9), 1 - 0.9
    (0.1, 0.09999999999999998)
    """
    return round(1.0 - quantile, 12)


def row_of_numbers(values: ArrayLike, name: str) -> Floats:
    """Turn values into a one-dimensional float64 array.

    Raises
    ------
    ShapeError
        If they are no numbers, or not one per row.

    >>> row_of_numbers([1, 2], "risk")
    array([1., 2.])
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be an array of numbers: {error}.") from error
    if numbers.ndim != 1:
        raise ShapeError(f"{name} must have one number per row, got an array of shape {numbers.shape}.")
    return numbers


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
