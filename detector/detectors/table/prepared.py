"""Training rows prepared for the members: split, encoded, in every view that a member takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from detector.arrays import Flags, Floats, Places
from detector.detectors.table.calibration import choose_calibrating
from detector.detectors.table.recipe import AUTOENCODER, Recipe
from detector.detectors.table.surprise import surprise_of
from detector.detectors.table.training_rows import marks_of
from detector.encoders.table import FittedNetwork
from detector.encoding.constants import Constants
from detector.encoding.encoded import Encoded
from detector.encoding.find_relations import find_bounds, find_relations
from detector.encoding.onnx import to_onnx
from detector.encoding.relations import Relations
from detector.encoding.table import TableEncoder
from detector.errors import SchemaError, nearest
from detector.features.feature import is_rising
from detector.members.event_sequence import Steps
from detector.onnx.graph import Graph, joined
from detector.schema import Schema

if TYPE_CHECKING:
    import onnx

_WINDOW_OF = re.compile(r"_[0-9]+[smhd]_by_")
MOST_HELD_OUT_ROWS = 50_000
MOST_PROBE_ROWS = 2_000

Views = dict[str, NDArray[np.float32]]
Scorer = Callable[[Encoded], Floats]


@dataclass(frozen=True)
class Prepared:
    """Training rows as members take them.

    - ``learnt``, ``kept_back``: places of the rows that networks and forest learn from, and of those they do not.
    - ``calibrating``: places of the rows that calibrate, of both kinds.
    - ``graph``: ``prepare``, ready to run; ``views``: what it makes of all rows, see ``detector.encoding.onnx``.
    - ``marks``: the same for rows that are alike.
    """

    rows: pd.DataFrame
    columns: TableEncoder
    encoded: Encoded
    prepare: onnx.ModelProto
    graph: Graph
    views: Views
    marks: NDArray[np.uint64]
    learnt: Places
    kept_back: Places
    calibrating: Places

    @classmethod
    def of(cls, rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> Self:
        """Split rows, and learn their columns from those that a first forest does not find unusual."""
        learnt, kept_back = _split(len(rows), recipe)
        of_rows = schema if recipe.steps is None else _of_rows(schema, recipe.steps)
        baseline = _baseline_rows(rows.iloc[learnt], of_rows, recipe)
        columns = TableEncoder.fit(rows.iloc[learnt], of_rows, baseline=baseline, max_levels=recipe.max_levels)
        # Of all rows: what varies in any is no constant.
        constants = Constants.fit(rows, of_rows, is_rising=is_rising, looks_back=_looks_back)
        columns, encoded = _with_relations(replace(columns, constants=constants), rows, recipe)
        prepare = to_onnx(columns)
        graph = joined({"prepare": prepare})
        return cls(
            rows=rows,
            columns=columns,
            encoded=encoded,
            prepare=prepare,
            graph=graph,
            views=graph.run(encoded.inputs()),
            marks=marks_of(encoded),
            learnt=learnt,
            kept_back=kept_back,
            calibrating=choose_calibrating(rows, schema, recipe),
        )

    @property
    def probe(self) -> Places:
        """Places of some rows that nothing learns from, on which models and graph are compared."""
        return self.kept_back[:MOST_PROBE_ROWS]

    def without(self, gone: Flags, schema: Schema, recipe: Recipe) -> Self:
        """The others of these rows, their columns as they were learnt with those that are gone."""
        kept = np.flatnonzero(~gone)
        place = np.cumsum(~gone) - 1
        rows = self.rows.iloc[kept]
        return replace(
            self,
            rows=rows,
            encoded=self.encoded.take(kept),
            views=taken(self.views, kept),
            marks=self.marks[kept],
            learnt=place[self.learnt[~gone[self.learnt]]],
            kept_back=place[self.kept_back[~gone[self.kept_back]]],
            calibrating=choose_calibrating(rows, schema, recipe),
        )

    def scorer_of(self, network: FittedNetwork) -> Scorer:
        """A network's score of encoded rows; of many columns, its graph takes seconds to build, so keep it."""
        surprise = surprise_of(network, self.columns, len(self.learnt))
        graph = joined({"prepare": self.prepare, "network": network.scorer, "surprise": surprise}, [AUTOENCODER])
        return lambda rows: graph.run(rows.inputs())[AUTOENCODER][:, 0].astype(np.float64)


def taken(views: Views, rows: NDArray[Any]) -> Views:
    """Some rows of every view."""
    return {name: view[rows] for name, view in views.items()}


def _of_rows(schema: Schema, steps: Steps) -> Schema:
    """The columns that are features of the row itself."""
    for name in steps.columns:
        if name is not None and name not in schema.numeric:
            raise SchemaError(f"The events of a row need the numeric column {name!r}. {nearest(name, schema.numeric)}")
    return schema.without(steps.beside)


def _looks_back(name: str) -> bool:
    """Whether a column is a feature made of the past of an entity, by its name.

    >>> _looks_back("amount_mean_30d_by_card"), _looks_back("amount")
    (True, False)
    """
    return _WINDOW_OF.search(name) is not None


def _with_relations(columns: TableEncoder, rows: pd.DataFrame, recipe: Recipe) -> tuple[TableEncoder, Encoded]:
    """Columns that know the relations among those that are not made of the past of an entity, and the rows by them."""
    encoded, places = columns.encode(rows), columns.places
    own = [name for name in columns.schema.numeric if not _looks_back(name)]
    spans = [span.name for span in columns.spans]
    found = find_relations(encoded.numeric[:, [places[name] for name in own]], own, random_state=recipe.random_state)
    found = Relations(found.found + find_bounds(encoded.numeric[:, [places[name] for name in spans]], spans))
    broken = found.broken(encoded.numeric, places)
    return replace(columns, relations=found), replace(encoded, broken=broken)


def _split(n_rows: int, recipe: Recipe) -> tuple[Places, Places]:
    order = np.random.default_rng(recipe.random_state).permutation(n_rows)
    n_held_out = max(1, min(MOST_HELD_OUT_ROWS, round(recipe.calibration_share * n_rows)))
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def grow_forest(table: NDArray[np.float32], recipe: Recipe) -> IsolationForest:
    """At most half of the rows a tree: those it was not grown on are scored by it."""
    most = min(recipe.max_samples, max(2, len(table) // 2))
    return IsolationForest(n_estimators=recipe.trees, max_samples=most, random_state=recipe.random_state).fit(table)


def _baseline_rows(rows: pd.DataFrame, schema: Schema, recipe: Recipe) -> Flags:
    """All rows but the share that a first forest finds most unusual."""
    columns = TableEncoder.fit(rows, schema, max_levels=recipe.max_levels)
    table = joined({"prepare": to_onnx(columns)}).run(columns.encode(rows).inputs(), ["table"])["table"]
    normality = grow_forest(table, recipe).score_samples(table)
    baseline = np.ones(len(rows), dtype=bool)
    baseline[np.argsort(normality, kind="stable")[: int(recipe.clean_share * len(rows))]] = False
    return baseline
