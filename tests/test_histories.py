from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DataError, SchemaError, ShapeError
from detector.histories import Histories
from detector.schema import Schema

SCHEMA = Schema(key="id", time="when", entity="card")


def _rows(**changes: Any) -> pd.DataFrame:
    """Five events of two cards and one of no card."""
    columns = {
        "id": [0, 4, 3, 2, 1, 5],
        "when": pd.to_datetime(["2024-01-03", "2024-01-01", "2024-01-02", "2024-01-01", "2024-01-01", "2024-01-01"]),
        "card": ["a", "b", "a", None, "b", "a"],
        "shop": [0, 1, 2, 3, 4, 5],
        "amount": [0.0, 1.0, np.nan, 3.0, 4.0, 5.0],
    }
    return pd.DataFrame(columns | changes)


def test_tokens_are_in_order_of_time_then_key() -> None:
    """Two events of card b at one time are told apart by their key; the event of no card is nowhere."""
    histories = Histories.of(_rows(), SCHEMA, "shop")

    assert histories.entities.tolist() == ["a", "b"]
    assert [own.tolist() for own in histories.sequences] == [[5, 2, 0], [4, 1]]
    assert histories.sequences[0].dtype == np.int64


def test_columns_are_vectors() -> None:
    """A list of columns, even of one, makes vectors; what is missing stays so."""
    histories = Histories.of(_rows(), SCHEMA, ["amount", "shop"])

    np.testing.assert_array_equal(histories.sequences[0], [[5, 5], [np.nan, 2], [0, 0]])
    assert Histories.of(_rows(), SCHEMA, ["amount"]).sequences[1].shape == (2, 1)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 5)), min_size=1, max_size=30))
def test_every_row_with_an_entity_comes_once_and_goes_back(drawn: list[tuple[str | None, int]]) -> None:
    """Python's stable sort comes to the same, and the way back finds each row."""
    rows = pd.DataFrame(drawn, columns=["card", "when"]).assign(shop=range(len(drawn)))
    seen = list(dict.fromkeys(card for card, _ in drawn if card is not None))
    schema = Schema(entity="card", time="when")
    if not seen:
        with pytest.raises(DataError, match="has an entity in column 'card'"):
            Histories.of(rows, schema, "shop")
        return

    histories = Histories.of(rows, schema, "shop")

    expected = [
        sorted((r for r, (card, _) in enumerate(drawn) if card == own), key=lambda r: drawn[r][1]) for own in seen
    ]
    assert [own.tolist() for own in histories.sequences] == expected
    back = histories.to_rows([own.astype(np.float64) for own in histories.sequences])
    np.testing.assert_array_equal(back, [np.nan if card is None else row for row, (card, _) in enumerate(drawn)])


def test_histories_need_an_entity() -> None:
    """There is nothing to group by."""
    with pytest.raises(SchemaError, match="an entity to group by, but the schema names none. Name one, such as a card"):
        Histories.of(_rows(), Schema(time="when"), "shop")


@pytest.mark.parametrize(
    ("schema", "columns", "name"),
    [
        (Schema(entity="cart"), "shop", "Column 'cart' is missing from the table. Did you mean 'card'?"),
        (SCHEMA, "shopp", "Column 'shopp' is missing from the table. Did you mean 'shop'?"),
        (SCHEMA, ["shop", "amounts"], "Column 'amounts' is missing from the table. Did you mean 'amount'?"),
    ],
)
def test_missing_columns_are_named(schema: Schema, columns: str | list[str], name: str) -> None:
    """With the nearest one there is."""
    with pytest.raises(SchemaError, match=name):
        Histories.of(_rows(), schema, columns)


def test_missing_time_is_an_error() -> None:
    """An event of no time has no place."""
    rows = _rows()
    rows.loc[2, "when"] = pd.NaT

    with pytest.raises(DataError, match="'when' is missing at row 2"):
        Histories.of(rows, SCHEMA, "shop")


@pytest.mark.parametrize("shop", [["x"] * 6, [1.5] * 6, [1.0, None, 1.0, 1.0, 1.0, 1.0]])
def test_tokens_are_whole_numbers(shop: list[Any]) -> None:
    """Names, fractions and gaps are no tokens."""
    with pytest.raises(DataError, match="'shop' should hold whole numbers, the tokens.*Turn names into numbers"):
        Histories.of(_rows(shop=shop), SCHEMA, "shop")


@pytest.mark.parametrize("events", [[np.zeros(3)], [np.zeros(3), np.zeros(3)]])
def test_way_back_needs_every_event(events: list[np.ndarray]) -> None:
    """One number for each."""
    with pytest.raises(ShapeError, match=f"each event of 2 entities, got {len(events)} arrays"):
        Histories.of(_rows(), SCHEMA, "shop").to_rows(events)
