"""Which rows of a whole batch are flagged, decided in the driver from the few rows that matter and two totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from detector.arrays import Integers
from detector.decide.fdr import NORMAL_FROM, Totals
from detector.decide.policy import Decision, Policy
from detector.decide.support import Support
from pipelines.spark.rows import POSITION, in_order

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FOUND = pa.schema([(POSITION, pa.int64()), ("risk", pa.float64()), ("p_value", pa.float64()), ("day", pa.int64())])
TYPES = "position long, risk double, p_value double, day long"


@dataclass(frozen=True)
class DecidedBatch:
    """What was decided over all rows.

    - ``flagged``: Positions, sorted; None where each row is decided on by itself, by ``policy``.
    - ``repeated``: Positions of rows that are not scored because their key came before, each with that of the first.
    - ``rows``: Scored ones.
    - ``count``: Flagged ones.
    - ``note``, ``neighbours``: As ``Decision`` and ``TableScoring`` say them. With a false discovery rate there are no
      neighbours: twice the rate would need the p-values of most rows.
    """

    flagged: Integers | None
    repeated: dict[int, int]
    rows: int
    count: int
    note: str | None
    neighbours: dict[str, int]


@dataclass(frozen=True)
class Deciding:
    """Finds the rows of a part that the decision needs, in executors.

    - ``policies``: The policy, and those that it is compared with.
    - ``without``: Positions of rows that are not scored, sorted.
    """

    policies: tuple[Policy, ...]
    support: Support | None
    without: Integers

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """``FOUND`` of rows with ``position``, ``risk``, ``p_value`` and ``day``."""
        for batch in batches:
            table = in_order(pa.Table.from_batches([batch]))
            table = table.filter(pa.array(~is_among(table.column(POSITION).to_numpy(), self.without)))
            risk, p_value = table.column("risk").to_numpy(), table.column("p_value").to_numpy()
            day = as_days(table.column("day"))
            needed = np.zeros(len(risk), dtype=bool)
            for policy in self.policies:
                needed |= policy.deciding(p_value, risk, day=day, support=self.support)
            yield from table.filter(pa.array(needed)).cast(FOUND).to_batches()


def decide(measured: DataFrame, policy: Policy, support: Support | None) -> DecidedBatch:
    """Decide over all measured rows, as ``Policy.decision`` does over rows in memory.

    - ``measured``: With ``position``, ``risk``, ``p_value``, ``learnt``, ``repeated`` and ``day``: days since 1970,
      missing where rows have no time.
    """
    from pyspark.sql import functions as f

    again = measured.where("repeated is not null").select(POSITION, "repeated", "p_value", "learnt").toArrow()
    repeated = _repeated(again)
    without = np.sort(np.fromiter(repeated, np.int64, len(repeated)))
    others = {**policy.neighbours()} if policy.fdr is None else {}
    by_row = policy.budget is None and policy.fdr is None
    policies = (policy, *others.values())
    counted = [f.sum((f.col("p_value") <= _level(each)).cast("long")) for each in policies] if by_row else []
    rows, above, learnt, *counts = measured.agg(
        f.count("*"), f.sum((f.col("p_value") > NORMAL_FROM).cast("long")), f.sum("learnt"), *counted
    ).head()
    left_out = again.filter(pa.array(is_among(again.column(POSITION).to_numpy(), without)))
    lost = left_out.column("p_value").to_numpy()
    rows, above = rows - len(without), (above or 0) - int((lost > NORMAL_FROM).sum())
    learnt = (learnt or 0.0) - float(left_out.column("learnt").to_numpy().sum())
    if by_row:
        found = [
            int(count or 0) - int((lost <= _level(each)).sum()) for count, each in zip(counts, policies, strict=True)
        ]
        return DecidedBatch(None, repeated, rows, found[0], None, dict(zip(others, found[1:], strict=True)))
    reading = Deciding(policies, support, without)
    needed = in_order(measured.select(POSITION, "risk", "p_value", "day").mapInArrow(reading, TYPES).toArrow())
    totals, share = Totals(rows, above), learnt / max(1, rows)
    decision = _decided(policy, needed, support, totals, share)
    neighbours = {
        name: int(_decided(each, needed, support, totals, share).flagged.sum()) for name, each in others.items()
    }
    positions = needed.column(POSITION).to_numpy()[decision.flagged]
    return DecidedBatch(positions, repeated, rows, len(positions), decision.note, neighbours if rows else {})


def is_among(values: Integers, known: Integers) -> NDArray[np.bool_]:
    """Which values are among others, which are sorted.

    >>> is_among(np.array([1, 2]), np.array([2, 5])).tolist()
    [False, True]
    """
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[at] == values)


def as_days(column: pa.ChunkedArray) -> NDArray[np.datetime64]:
    """Days since 1970 as days, none as none."""
    missing = column.is_null().to_numpy()
    days: NDArray[np.datetime64] = column.fill_null(0).to_numpy().astype("datetime64[D]")
    days[missing] = np.datetime64("NaT")
    return days


def _decided(policy: Policy, needed: pa.Table, support: Support | None, totals: Totals, learnt: float) -> Decision:
    return policy.decision(
        needed.column("p_value").to_numpy(),
        needed.column("risk").to_numpy(),
        day=as_days(needed.column("day")) if policy.needs_day else None,
        support=support,
        learnt=learnt,
        totals=totals,
    )


def _level(policy: Policy) -> float:
    from detector.decide.numbers import level

    return level(policy.quantile or 0.0)


def _repeated(rows: pa.Table) -> dict[int, int]:
    """Position of every row but the first of its key → position of the first."""
    first: dict[str, int] = {}
    found = {}
    for position, key in sorted(
        zip(rows.column(POSITION).to_pylist(), rows.column("repeated").to_pylist(), strict=True)
    ):
        if (before := first.setdefault(key, position)) != position:
            found[position] = before
    return found
