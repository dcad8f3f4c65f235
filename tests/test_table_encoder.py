"""Table rows → numbers and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.clean import clean
from detector.encoding.encoded import MISSING, UNSEEN
from detector.encoding.onnx import to_onnx
from detector.encoding.table import TableEncoder
from detector.errors import DataError
from detector.onnx.graph import Graph
from detector.onnx.text import join
from detector.schema import Schema


def prepared(encoder: TableEncoder, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    model = to_onnx(encoder)
    return Graph(join({"prepare": model}, [o.name for o in model.graph.output])).run(encoder.encode(rows).inputs())


@pytest.fixture(scope="module")
def cleaned(mixed_rows: pd.DataFrame, mixed_schema: Schema) -> pd.DataFrame:
    return clean(mixed_rows, mixed_schema).rows


@pytest.fixture(scope="module")
def encoder(cleaned: pd.DataFrame, mixed_schema: Schema) -> TableEncoder:
    return TableEncoder.fit(cleaned, mixed_schema)


def test_encoder_scales_values_back_to_their_units(encoder: TableEncoder, cleaned: pd.DataFrame) -> None:
    """What the graph scales, ``unscale`` turns back, also far in the tail."""
    rows = cleaned.copy()
    rows.loc[rows.index[0], "amount"] = 1e6

    back = encoder.unscale(prepared(encoder, rows)["values"])

    assert np.allclose(back[:, 0], rows["amount"], rtol=1e-4)


def test_encoder_damps_tails_and_keeps_their_order() -> None:
    """A value a million times too large is no million, and still larger than one a thousand times too large."""
    rows = pd.DataFrame({"x": np.linspace(-1, 1, 101)})
    encoder = TableEncoder.fit(rows, Schema(numeric=("x",)))

    values = prepared(encoder, pd.DataFrame({"x": [0.0, 1e3, 1e6]}))["values"][:, 0]

    assert values[1] < values[2] < 25


def test_encoder_tells_missing_from_zero(encoder: TableEncoder, cleaned: pd.DataFrame) -> None:
    """A missing number is flagged as missing; a number equal to the mean is not."""
    rows = cleaned.iloc[:2].copy()
    rows["weight"] = [np.nan, encoder.centre[2]]

    views = prepared(encoder, rows)

    assert views["values"][:, 2].tolist() == [0.0, 0.0]
    assert views["missing"][:, 2].tolist() == [1.0, 0.0]


def test_encoder_knows_unseen_and_missing_categories(encoder: TableEncoder, cleaned: pd.DataFrame) -> None:
    """A level not met in training and a missing one have codes of their own."""
    rows = cleaned.iloc[:3].copy()
    rows["country"] = ["xx", None, "de"]

    codes = encoder.encode(rows).codes[:, 1]

    assert codes[:2].tolist() == [UNSEEN, MISSING]
    assert encoder.level_names(1)[codes[2]] == "de"


def test_encoder_keeps_cents_of_large_numbers() -> None:
    """Scaling happens in float64, so a balance in the billions keeps its cents."""
    rows = pd.DataFrame({"balance": 1e9 + np.arange(100) / 100})
    encoder = TableEncoder.fit(rows, Schema(numeric=("balance",)))

    values = prepared(encoder, rows)["values"][:, 0]

    assert (np.diff(values) > 0).all()


def test_encoder_puts_midnight_next_to_midnight() -> None:
    """23:59 and 00:01 are close as inputs."""
    times = pd.to_datetime(["2026-01-05 23:59", "2026-01-06 00:01", "2026-01-06 12:00"])
    rows = pd.DataFrame({"t": times.repeat(5)})
    encoder = TableEncoder.fit(rows, Schema(datetime=("t",)))

    hour = encoder.encode(pd.DataFrame({"t": times})).numeric[:, :2]

    assert np.linalg.norm(hour[0] - hour[1]) < 0.02 < np.linalg.norm(hour[0] - hour[2])


def test_encoder_makes_rare_levels_share_a_code() -> None:
    """A hundred thousand categories become ``max_levels`` and one for the rest."""
    rows = pd.DataFrame({"shop": [f"s{i}" for i in range(5000)] + ["big"] * 100})

    encoder = TableEncoder.fit(rows, Schema(categorical=("shop",)), max_levels=10)

    assert encoder.cardinalities == (12,)
    assert encoder.encode(pd.DataFrame({"shop": ["s4999", "big"]})).codes[:, 0].tolist() == [UNSEEN, 2]


@pytest.mark.parametrize(
    ("column", "reason"), [([1.0] * 4, "always 1"), ([np.nan] * 4, "always missing"), (["a"] * 4, "always a")]
)
def test_encoder_drops_columns_that_say_nothing(column: list[object], reason: str) -> None:
    """Constant and empty columns are left out, and the reason is kept."""
    rows = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "dull": column})
    kind = "categorical" if isinstance(column[0], str) else "numeric"
    schema = Schema(numeric=("x", "dull") if kind == "numeric" else ("x",), categorical=("dull",) * (kind != "numeric"))

    encoder = TableEncoder.fit(rows, schema)

    assert encoder.dropped == {"dull": reason}


def test_encoder_refuses_a_table_in_which_nothing_varies() -> None:
    """All columns constant: there is nothing to learn."""
    with pytest.raises(DataError, match=r"No column varies.*x: always 1"):
        TableEncoder.fit(pd.DataFrame({"x": [1.0, 1.0]}), Schema(numeric=("x",)))


def test_encoder_refuses_one_row() -> None:
    """One row says nothing about what varies."""
    with pytest.raises(DataError, match=r"at least 2 rows"):
        TableEncoder.fit(pd.DataFrame({"x": [1.0]}), Schema(numeric=("x",)))


def test_encoder_state_survives_a_round_trip(encoder: TableEncoder, cleaned: pd.DataFrame) -> None:
    """A restored encoder encodes alike."""
    restored = TableEncoder.from_state(*encoder.state())

    before, after = encoder.encode(cleaned), restored.encode(cleaned)

    assert np.array_equal(before.numeric, after.numeric, equal_nan=True)
    assert np.array_equal(before.codes, after.codes)
    assert restored.features == encoder.features


def test_every_prepared_column_belongs_to_a_feature(encoder: TableEncoder, cleaned: pd.DataFrame) -> None:
    """Attribution needs an owner for each column of each view."""
    views = prepared(encoder, cleaned)

    assert len(encoder.table_features) == views["table"].shape[1]
    assert len(encoder.space_features) == views["space"].shape[1]
    assert set(encoder.table_features) == set(range(len(encoder.features)))
