import datetime as dt
import json
from typing import Any

import pandas as pd
import pytest

from detector.errors import SchemaError
from detector.schema import Schema

SCHEMA = Schema(
    key="id",
    time="when",
    entity="card",
    label="fraud",
    numeric=("amount",),
    categorical=("shop",),
    boolean=("online",),
    datetime=("opened",),
)


def test_features_are_the_columns_without_a_role() -> None:
    """Features come numeric first; roles are told apart from them."""
    assert SCHEMA.features == ("amount", "online", "opened", "shop")
    assert SCHEMA.roles == {"key": "id", "time": "when", "entity": "card", "label": "fraud"}
    assert Schema(numeric=("a",)).roles == {}


def test_kind_of_knows_every_feature() -> None:
    """Each feature has one kind."""
    kinds = {name: SCHEMA.kind_of(name) for name in SCHEMA.features}

    assert kinds == {"amount": "numeric", "online": "boolean", "opened": "datetime", "shop": "categorical"}


def test_kind_of_refuses_what_is_no_feature() -> None:
    """A misspelt feature is answered with the nearest."""
    with pytest.raises(SchemaError, match="'amuont' is not a feature. Did you mean 'amount'"):
        SCHEMA.kind_of("amuont")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numeric": ("a", "a")}, "'a' is listed as a feature twice"),
        ({"numeric": ("a",), "categorical": ("a",)}, "'a' is listed as a feature twice"),
        ({"key": "a", "numeric": ("a",)}, "'a' is the key and a feature"),
        ({"label": "a", "boolean": ("a",)}, "'a' is the label and a feature"),
        ({"time": "a", "numeric": ("a",)}, "'a' is the time and a feature"),
        ({"key": "a", "entity": "a"}, "'a' is the key and the entity"),
        ({"numeric": "amount"}, r"numeric expected a list of columns, got 'amount'. Write \['amount'\]"),
    ],
)
def test_schema_refuses_two_meanings(arguments: dict[str, Any], message: str) -> None:
    """A column means one thing, and a list is a list."""
    with pytest.raises(SchemaError, match=message):
        Schema(**arguments)


def test_time_may_be_a_feature_as_well() -> None:
    """The hour of day is worth learning from, so the time column may stand among the datetimes."""
    schema = Schema(time="when", datetime=("when",))

    assert schema.features == ("when",)


def test_check_passes_a_table_with_more_columns() -> None:
    """Extra columns do no harm, and the label may be absent."""
    SCHEMA.check(["extra", "id", "when", "card", "amount", "shop", "online", "opened"])


@pytest.mark.parametrize(
    ("columns", "labelled", "message"),
    [
        (
            ["id", "when", "card", "shop", "online", "opened", "Amount"],
            False,
            "'amount' is missing.*'Amount'",
        ),
        (["id", "when", "card", "amount", "shop", "online", "opened"], True, "'fraud' is missing"),
        ([], False, "'id' is missing from the table. There are none."),
        (["id", "when", "id"], False, "two columns named 'id'"),
        ([1, "1"], False, "two columns named '1'"),
    ],
)
def test_check_names_what_is_wrong(columns: list[Any], labelled: bool, message: str) -> None:
    """A missing column is named with its nearest neighbour, a doubled one as such."""
    with pytest.raises(SchemaError, match=message):
        SCHEMA.check(columns, labelled=labelled)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "numeric"),
        ([1.5, None], "numeric"),
        (["1", "2.5", "x"], "numeric"),
        ([None, None], "numeric"),
        (["1", "x", "y"], "categorical"),
        ([True, False], "boolean"),
        (["true", "False", None], "boolean"),
        (pd.array([True, None], dtype="boolean"), "boolean"),
        (pd.Categorical(["1", "2"]), "categorical"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "datetime"),
        (["2024-01-01", "2024-01-02T10:00:00"], "datetime"),
        (["2024-01-01T00:00:00+01:00", "2024-07-01T00:00:00+02:00"], "datetime"),
        ([dt.date(2024, 1, 1)], "datetime"),
        (["31/01/2024", "28/02/2024"], "categorical"),
    ],
)
def test_infer_guesses_the_kind(values: Any, kind: str) -> None:
    """Text that is mostly numbers or dates is taken for them, also where the zone changes in summer."""
    schema = Schema.infer(pd.DataFrame({"a": values}))

    assert schema.kind_of("a") == kind


def test_infer_leaves_out_roles_and_ignored_columns() -> None:
    """Only the columns without another meaning become features."""
    frame = pd.DataFrame({"id": [1], "who": ["a"], "when": ["2024-01-01"], "y": [0], "note": ["x"], "amount": [1]})

    schema = Schema.infer(frame, key="id", entity="who", time="when", label="y", ignore=["note"])

    assert schema == Schema(key="id", entity="who", time="when", label="y", numeric=("amount",))


def test_infer_takes_an_array_without_names() -> None:
    """Numbered columns are named by their number."""
    assert Schema.infer(pd.DataFrame([[1, 2]])).numeric == ("0", "1")


@pytest.mark.parametrize("role", ["key", "time", "entity", "label"])
def test_infer_names_a_missing_role(role: str) -> None:
    """A misspelt role is answered with the nearest column."""
    with pytest.raises(SchemaError, match="'amuont' is missing from the table. Did you mean 'amount'"):
        Schema.infer(pd.DataFrame({"amount": [1]}), **{role: "amuont"})


def test_infer_names_a_missing_ignored_column() -> None:
    """A misspelt column to ignore would otherwise be learnt from."""
    with pytest.raises(SchemaError, match="'nte' is missing from the table. Did you mean 'note'"):
        Schema.infer(pd.DataFrame({"note": [1]}), ignore=["nte"])


def test_infer_refuses_doubled_names() -> None:
    """Two columns of one name cannot be told apart."""
    with pytest.raises(SchemaError, match="two columns named 'a'. Rename or drop one"):
        Schema.infer(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_without_leaves_the_roles() -> None:
    """Only features can be left out."""
    smaller = SCHEMA.without(["amount", "opened", "id"])

    assert smaller.features == ("online", "shop")
    assert smaller.key == "id"


def test_schema_survives_json() -> None:
    """What a bundle stores comes back equal."""
    assert Schema.from_dict(json.loads(json.dumps(SCHEMA.to_dict()))) == SCHEMA


def test_from_dict_refuses_an_unknown_key() -> None:
    """A changed bundle is told what is wrong with it."""
    with pytest.raises(SchemaError, match="A schema has no 'numerical'. Did you mean 'numeric'"):
        Schema.from_dict({"numerical": ["a"]})


def test_a_kind_of_shop_is_not_a_year() -> None:
    """Codes of four digits are numbers where most rows have none, and text where others are text; never dates."""
    codes = pd.Series(["5411", "5812"] * 30 + ["n/a"] * 100)
    mixed = pd.Series(["5411-10", "5812-11"] * 30)

    schema = Schema.infer(pd.DataFrame({"codes": codes, "mixed": pd.concat([mixed] * 3)[:160].to_numpy()}))

    assert (schema.numeric, schema.categorical, schema.datetime) == (("codes",), ("mixed",), ())
