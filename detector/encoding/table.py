"""Table rows → the numbers a model sees, and back: scaling, tails, categories, missing values.

A cleaned frame becomes two arrays, ``numeric`` (float64, NaN where missing) and ``codes`` (int64). All that
follows, scaling included, happens inside the ONNX graph (``detector.encoding.onnx``), in float64 until values are
scaled, so that a large number such as an account balance keeps its cents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.cleaning.text import TEXT, places_in
from detector.encoding.clocks import CYCLES, find_clocks, from_cycle, to_cycle
from detector.encoding.constants import Constants
from detector.encoding.encoded import MISSING, RESERVED, SPAN, UNSEEN, Encoded, Feature, features_of
from detector.encoding.relations import Relations
from detector.encoding.spans import Span, damped, find_spans, undamped
from detector.encoding.statistics import decimals_of, levels_of, location_and_scale, useless
from detector.errors import DataError
from detector.schema import Schema

BOOLEANS = {0.0: "false", 1.0: "true"}
ONE_HOT_LEVELS = 30


@dataclass(frozen=True)
class TableEncoder:
    """What was learnt about a table's columns. Make one with ``TableEncoder.fit``.

    - ``schema``: the feature columns in use, without the dropped ones.
    - ``dropped``: columns that cannot be used, and why.
    - ``centre``, ``scale``, (n_numeric,): a value is scaled to ``(value - centre) / scale``.
    - ``tail``: scaled values beyond this are damped logarithmically, so that one huge value neither rules the training
      nor loses its rank.
    - ``decimals``: digits after the point each numeric column is written with.
    - ``least``, ``most``, (n_numeric,): the range of the training values; no row is expected outside it.
    - ``missing_rate``, (n_numeric,): share of missing values in training.
    - ``levels``: the known levels of each boolean and categorical column, most frequent first.
    - ``counts``: how often each code was seen, for each such column.
    - ``constants``: the columns that never varied; those without a gap are dropped, too.
    - ``relations``: the exact relations between numeric columns.
    - ``clocks``: the dates of which hour or weekday is an input, each with which; ``spans``: the days between dates
      that are inputs, too.
    """

    schema: Schema
    dropped: dict[str, str]
    centre: Floats
    scale: Floats
    tail: float
    decimals: tuple[int, ...]
    least: Floats
    most: Floats
    missing_rate: Floats
    levels: tuple[tuple[str, ...], ...]
    counts: tuple[NDArray[np.int64], ...]
    constants: Constants = field(default_factory=Constants)
    relations: Relations = field(default_factory=Relations)
    clocks: tuple[tuple[str, str], ...] = ()
    spans: tuple[Span, ...] = ()
    features: tuple[Feature, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", features_of(self.schema, self.clocks, self.spans))

    @classmethod
    def fit(
        cls,
        rows: pd.DataFrame,
        schema: Schema,
        *,
        baseline: Flags | None = None,
        max_levels: int = 100,
        tail: float = 10.0,
    ) -> Self:
        """Learn the columns of cleaned rows.

        Centre and scale are taken from the ``baseline`` rows alone, so that anomalies cannot stretch the scale they are
        measured on. Levels beyond ``max_levels``, the rarest, share the code of unseen values. Raises ``DataError`` if
        there are fewer than two rows, or no column varies.

        >>> rows = pd.DataFrame({"amount": [1.0, 3.0], "currency": ["EUR", "EUR"]})
        >>> TableEncoder.fit(rows, Schema(numeric=("amount",), categorical=("currency",))).dropped
        {'currency': 'always EUR'}
        """
        if len(rows) < 2:
            raise DataError(
                f"Expected at least 2 rows to learn from, received n_samples = {len(rows)} (n_samples=1 is too few). "
                f"Give more rows."
            )
        dropped = {name: reason for name in schema.features if (reason := useless(rows[name]))}
        used = schema.without(dropped)
        if not schema.features:
            raise DataError("No column is a feature: there is nothing to learn. List some as numeric or categorical.")
        if not used.features:
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(dropped.items())[:5])
            raise DataError(f"No column varies, so there is nothing to learn ({shown}). Add a column that does.")
        clocks, spans = find_clocks(rows, used), find_spans(rows, used)
        numeric = _numeric(rows, used, clocks, spans)
        every = np.ones(len(rows), dtype=bool)
        centre, scale = location_and_scale(numeric, every if baseline is None else baseline)
        levels, counts = [], []
        for name in used.boolean + used.categorical:
            known, seen = levels_of(_as_text(rows[name], name in used.boolean), max_levels)
            levels.append(known)
            counts.append(seen)
        return cls(
            schema=used,
            dropped=dropped,
            centre=centre,
            scale=scale,
            tail=tail,
            decimals=tuple(decimals_of(column) for column in numeric.T),
            least=np.nanmin(numeric, axis=0, initial=np.inf),
            most=np.nanmax(numeric, axis=0, initial=-np.inf),
            missing_rate=np.isnan(numeric).mean(axis=0),
            levels=tuple(levels),
            counts=tuple(counts),
            constants=Constants.fit(rows, schema),
            clocks=clocks,
            spans=spans,
        )

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each boolean and categorical column."""
        return tuple(len(known) + RESERVED for known in self.levels)

    @property
    def input_features(self) -> NDArray[np.int64]:
        """The feature each column of ``[values | labels]`` belongs to."""
        return np.array([*self._of_numeric(range(len(self.centre))), *self._of_codes()], dtype=np.int64)

    @property
    def table_features(self) -> NDArray[np.int64]:
        """The feature each column of ``table`` belongs to."""
        gaps = np.flatnonzero(self.missing_rate > 0)
        numeric = [*self._of_numeric(range(len(self.centre))), *self._of_numeric(gaps)]
        return np.array([*numeric, *self._of_codes()], dtype=np.int64)

    @property
    def space_features(self) -> NDArray[np.int64]:
        """The feature each column of ``space`` belongs to."""
        gaps = np.flatnonzero(self.missing_rate > 0)
        numeric = [*self._of_numeric(range(len(self.centre))), *self._of_numeric(gaps)]
        widths = [min(size, ONE_HOT_LEVELS) for size in self.cardinalities]
        return np.array([*numeric, *np.repeat(self._of_codes(), widths)], dtype=np.int64)

    def encode(self, rows: pd.DataFrame) -> Encoded:
        """Turn cleaned rows into arrays."""
        names = self.schema.boolean + self.schema.categorical
        codes = np.empty((len(rows), len(names)), dtype=np.int64)
        for i, (name, known) in enumerate(zip(names, self.levels, strict=True)):
            text = _as_text(rows[name], name in self.schema.boolean)
            codes[:, i] = places_in(text, known) + RESERVED  # makes unseen of -1, missing of -2
        numeric, moved = _numeric(rows, self.schema, self.clocks, self.spans), self.constants.moved(rows)
        return Encoded(numeric, codes, moved=moved, broken=self.relations.broken(numeric, self.places))

    def encode_plain(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """Turn the cells of rows, as ``plain_row`` returns them, into the same arrays."""
        schema = self.schema
        numeric = np.array([[row[name] for name in schema.numeric] for row in rows], dtype=np.float64)
        if self.clocks or self.spans:
            times = {name: np.array([row[name] for row in rows], dtype="datetime64[us]") for name, _ in self.clocks}
            cycles = [to_cycle(times[name], part) for name, part in self.clocks]
            numeric = np.hstack([numeric, *cycles, *(damped(span.days_plain(rows))[:, None] for span in self.spans)])
        codes = [list(map(_code, self._texts(row), self._codes)) for row in rows]
        moved, broken = self.constants.moved_plain(rows), self.relations.broken(numeric, self.places)
        return Encoded(np.ascontiguousarray(numeric), np.array(codes, dtype=np.int64), moved=moved, broken=broken)

    def _texts(self, row: Mapping[str, Any]) -> list[str | None]:
        """The cells of a plain row that have levels."""
        schema = self.schema
        return [BOOLEANS.get(row[name]) for name in schema.boolean] + [row[name] for name in schema.categorical]

    @cached_property
    def places(self) -> dict[str, int]:
        """The numeric input of each number and span, by its name."""
        return {each.name: each.numeric[0] for each in self.features if each.kind in ("numeric", SPAN)}

    @cached_property
    def _codes(self) -> list[dict[str, int]]:
        """The code of each level of each column."""
        return [{text: place + RESERVED for place, text in enumerate(known)} for known in self.levels]

    def unscale(self, values: NDArray[np.floating[Any]]) -> Floats:
        """Scaled values, shape (n_rows, n_numeric), back in the units of the table."""
        z = np.asarray(values, dtype=np.float64)
        beyond = np.maximum(np.abs(z) - self.tail, 0.0)
        undamped = np.clip(z, -self.tail, self.tail) + np.sign(z) * np.expm1(np.minimum(beyond, 50.0))
        return np.asarray(undamped * self.scale + self.centre)

    def decode(self, values: NDArray[np.floating[Any]], codes: NDArray[np.int64]) -> pd.DataFrame:
        """Scaled values and codes back as a frame with the feature columns of the table.

        Datetimes come back as text, weekday and hour, because the model knows no date.
        """
        numeric = self.unscale(values)
        decoded: dict[str, Any] = {name: numeric[:, i] for i, name in enumerate(self.schema.numeric)}
        for feature in self.features:
            if feature.kind == "datetime":
                decoded[feature.name] = from_cycle(numeric[:, list(feature.numeric)], _part(feature.name))
            elif feature.kind == SPAN:
                decoded[feature.name] = undamped(numeric[:, feature.numeric[0]])
            elif feature.code is not None:
                decoded[feature.name] = self.level_names(feature.code)[codes[:, feature.code]]
        return pd.DataFrame(decoded)

    def likeliest(self, likelihood: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """The likeliest known level of each boolean and categorical column, as codes."""
        ends = np.cumsum(self.cardinalities)
        known = [likelihood[:, end - size + RESERVED : end] for end, size in zip(ends, self.cardinalities, strict=True)]
        return np.column_stack([block.argmax(axis=1) + RESERVED for block in known])

    def level_names(self, code: int) -> NDArray[Any]:
        """What each code of a boolean or categorical column stands for."""
        return np.array(["missing", "unseen", *self.levels[code]], dtype=object)

    def rarity(self, code: int) -> NDArray[np.float32]:
        """How unusual each code of a column is: ``-log`` of its smoothed share, in nats."""
        seen = self.counts[code] + 0.5
        return np.asarray(-np.log(seen / seen.sum()), dtype=np.float32)

    def missing_surprise(self, n_rows: int) -> NDArray[np.float32]:
        """What a missing value of each numeric input costs, in nats, against a present one."""
        rate = (self.missing_rate * n_rows + 0.5) / (n_rows + 1.0)
        return np.asarray(np.maximum(np.log1p(-rate) - np.log(rate), 0.0), dtype=np.float32)

    def _of_numeric(self, inputs: Iterable[int]) -> list[int]:
        owner = {i: f for f, feature in enumerate(self.features) for i in feature.numeric}
        return [owner[i] for i in inputs]

    def _of_codes(self) -> list[int]:
        return [f for f, feature in enumerate(self.features) if feature.code is not None]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What ``from_state`` needs: plain values for JSON and arrays for npz."""
        values = {
            "schema": self.schema.to_dict(),
            "dropped": self.dropped,
            "tail": self.tail,
            "decimals": list(self.decimals),
            "levels": [list(known) for known in self.levels],
            "counts": [seen.tolist() for seen in self.counts],
            "constants": self.constants.state(),
            "relations": self.relations.state(),
            "clocks": [list(each) for each in self.clocks],
            "spans": [list(each.columns) for each in self.spans],
        }
        names = ("centre", "scale", "least", "most", "missing_rate")
        return values, {name: getattr(self, name) for name in names}

    @classmethod
    def from_state(cls, values: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``."""
        schema = Schema.from_dict(values["schema"])
        every = [(name, part) for name in schema.datetime for part in CYCLES]  # in bundles that say nothing of clocks
        return cls(
            schema=schema,
            dropped=dict(values["dropped"]),
            tail=float(values["tail"]),
            decimals=tuple(values["decimals"]),
            levels=tuple(tuple(known) for known in values["levels"]),
            counts=tuple(np.array(seen, dtype=np.int64) for seen in values["counts"]),
            constants=Constants.from_state(values.get("constants", {})),
            relations=Relations.from_state(values.get("relations", ())),
            clocks=tuple((name, part) for name, part in values.get("clocks", every)),
            spans=tuple(Span(*columns) for columns in values.get("spans", ())),
            **{name: arrays[name] for name in ("centre", "scale", "least", "most", "missing_rate")},
        )


def _code(text: str | None, known: Mapping[str, int]) -> int:
    return MISSING if text is None else known.get(text, UNSEEN)


def _part(feature_name: str) -> str:
    return feature_name.rsplit(" ", 1)[1]


def _numeric(rows: pd.DataFrame, schema: Schema, clocks: Sequence[tuple[str, str]], spans: Sequence[Span]) -> Floats:
    plain = [rows[name].to_numpy(dtype=np.float64) for name in schema.numeric]
    cycles = [to_cycle(rows[name].to_numpy(dtype="datetime64[us]"), part) for name, part in clocks]
    days = [damped(span.days(rows)) for span in spans]
    return np.column_stack([np.empty((len(rows), 0)), *plain, *cycles, *days])


def _as_text(column: pd.Series, boolean: bool) -> pd.Series:
    text = column.map(BOOLEANS) if boolean else column
    return text if text.dtype == TEXT else text.astype(TEXT)
