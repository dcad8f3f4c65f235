"""Anomalous rows out of the training data: by rules, by isolation, by density. What leaves, and why, is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Floats
from detector.checks import check_interval
from detector.encoding.onnx import to_onnx
from detector.encoding.table import TableEncoder
from detector.errors import DataError, SchemaError, SettingError, nearest
from detector.members.neighbours import References
from detector.onnx.graph import joined
from detector.schema import Schema

TREES = 100
REFERENCES = 2_000
NEIGHBOURS = 5
LEAST_ROWS = 10


@dataclass(frozen=True)
class Bounds:
    """The values a numeric column can have; a missing value is within any bounds.

    Parameters
    ----------
    least, most : float
        Both are allowed values.

    Raises
    ------
    SettingError
        If no value lies between them.
    """

    least: float = -np.inf
    most: float = np.inf

    def __post_init__(self) -> None:
        if not self.least <= self.most:
            raise SettingError(
                f"Bounds expect least <= most. Received: least={self.least}, most={self.most}. Swap them."
            )


@dataclass(frozen=True)
class Filters:
    """What is left out of training.

    Parameters
    ----------
    rules : mapping of str to Bounds
        Numeric columns and the values they can have.
    isolation : float
        Share of the rows, those an isolation forest finds easiest to isolate, that leaves.
    density : float
        Share of the rows, those farthest from their nearest neighbours, that leaves.
    refit : float
        Share of the rows, those a first detector finds riskiest, that a second one is not fitted on.

    Raises
    ------
    SettingError
        If a share is negative or they leave nothing.

    >>> rows = pd.DataFrame({"amount": [5.0, 6.0, -1.0]})
    >>> filtered = Filters(rules={"amount": Bounds(least=0.0)}).apply(rows, Schema(numeric=("amount",)))
    >>> list(filtered.left["reason"])
    ['rule: amount -1 is below 0']
    """

    rules: Mapping[str, Bounds] = field(default_factory=dict)
    isolation: float = 0.0
    density: float = 0.0
    refit: float = 0.0

    def __post_init__(self) -> None:
        check_interval(self, "[0, 0.5)", "isolation", "density", "refit")

    def apply(self, rows: pd.DataFrame, schema: Schema, *, random_state: int = 0) -> Filtered:
        """Take out what the rules, the forest and the density say; ``refit`` needs a detector.

        Parameters
        ----------
        rows : DataFrame
            As ``clean`` returns them.
        schema : Schema
            Their meaning.
        random_state : int
            Seeds the forest and the choice of neighbours.

        Raises
        ------
        SchemaError
            If a rule is for a column that is not numeric.
        DataError
            If no row is left.
        """
        filtered = Filtered(rows).without(*self._against_rules(rows, schema))
        for share, what, unusual in (
            (self.isolation, "isolation forest", _isolation),
            (self.density, "density", _sparsity),
        ):
            if share and len(filtered.rows) >= LEAST_ROWS:
                filtered = filtered.without_highest(unusual(filtered.rows, schema, random_state), share, what)
        return filtered

    def _against_rules(self, rows: pd.DataFrame, schema: Schema) -> tuple[Flags, NDArray[np.object_]]:
        bad, reason = np.zeros(len(rows), dtype=bool), np.full(len(rows), "", dtype=object)
        for name, bounds in self.rules.items():
            if name not in schema.numeric:
                raise SchemaError(
                    f"A rule bounds the column {name!r}, which is no numeric column. {nearest(name, schema.numeric)}"
                )
            values = rows[name].to_numpy()
            for beyond, word, bound in (
                (values < bounds.least, "below", bounds.least),
                (values > bounds.most, "above", bounds.most),
            ):
                for at in np.flatnonzero(beyond & ~bad):
                    reason[at] = f"rule: {name} {values[at]:g} is {word} {bound:g}"
                bad |= beyond
        return bad, reason


@dataclass(frozen=True)
class Filtered:
    """Training rows in two parts: those that stay, and those that left.

    - ``rows``: what stays.
    - ``left``: ``row`` (its label in the index of the rows) and ``reason``.
    """

    rows: pd.DataFrame
    left: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"row": [], "reason": []}, dtype=object))

    def without(self, bad: Flags, reason: NDArray[np.object_]) -> Filtered:
        """Less the bad rows."""
        if bad.all():
            raise DataError(
                f"The cleaning rules leave none of the {len(self.rows):,} training rows ({reason[0]}). Loosen them."
            )
        gone = pd.DataFrame({"row": self.rows.index[bad], "reason": reason[bad]}, dtype=object)
        return Filtered(self.rows[~bad], pd.concat([self.left, gone], ignore_index=True))

    def without_highest(self, unusual: NDArray[np.floating], share: float, what: str) -> Filtered:
        """Less a share of the rows, the most unusual; ties stay."""
        count = int(share * len(self.rows))
        order = np.argsort(-unusual, kind="stable")
        bad = np.zeros(len(self.rows), dtype=bool)
        bad[order[:count]] = True
        bad &= unusual > unusual[order[count]]
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(1, len(order) + 1)
        reason = np.array(
            [f"{what}: number {place:,} of {len(order):,} in unusualness" for place in rank], dtype=object
        )
        return self.without(bad, reason)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows left for each kind of reason."""
        return count_reasons(self.left)


def count_reasons(left: pd.DataFrame) -> dict[str, int]:
    """How many rows of ``Filtered.left`` left for each kind of reason, the most frequent first."""
    return dict(Counter(reason.partition(":")[0] for reason in left["reason"]).most_common())


def _isolation(rows: pd.DataFrame, schema: Schema, random_state: int) -> Floats:
    table = _prepared(rows, schema, "table")
    forest = IsolationForest(n_estimators=TREES, max_samples=min(256, len(table)), random_state=random_state)
    return np.asarray(-forest.fit(table).score_samples(table))


def _sparsity(rows: pd.DataFrame, schema: Schema, random_state: int) -> Floats:
    """Mean distance to the nearest few of the rows in the other half: no row is its own neighbour."""
    space = _prepared(rows, schema, "space")
    half = np.random.default_rng(random_state).permutation(len(space)) % 2
    distance = np.empty(len(space))
    for side in (0, 1):
        known = References.fit(space[half != side], references=REFERENCES, k=NEIGHBOURS, random_state=random_state)
        distance[half == side] = known.score(space[half == side])
    return distance


def _prepared(rows: pd.DataFrame, schema: Schema, view: str) -> NDArray[np.float32]:
    columns = TableEncoder.fit(rows, schema)
    graph = joined({"prepare": to_onnx(columns)}, [view])
    return graph.run(columns.encode(rows).inputs(), [view])[view]
