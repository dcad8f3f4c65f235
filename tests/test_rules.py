"""Conditions of rules: what they mean, what is refused, and that nothing in them is run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detector.errors import DetectorError, SchemaError, SettingError, SourceError
from detector.schema import Schema
from pipelines.config import Config, RuleSection, load_config
from pipelines.config.rules import ListEntry
from pipelines.rules.book import RuleBook, hash_of, version_of
from pipelines.rules.expression import Condition
from pipelines.rules.lists import ValueList, read_list
from pipelines.rules.names import Names, typed
from pipelines.rules.run import RuleRun
from pipelines.rules.values import Values

NAN = float("nan")
ROWS = pd.DataFrame(
    {
        "amount": [10.0, 600.0, NAN, 900.0],
        "fee": [1.0, 0.0, 2.0, 3.0],
        "country": pd.Series(["DE", "BR", None, "DE"], dtype="str"),
        "home": pd.Series(["DE", "DE", "DE", "DE"], dtype="str"),
        "online": [1.0, 0.0, NAN, 1.0],
        "device_new_90d_by_card": [0.0, 1.0, 1.0, NAN],
        "time": pd.to_datetime(["2026-03-01 02:00", "2026-03-02 14:00", "2026-03-03 23:59", "2026-03-07 05:59"]),
        "merchant name": pd.Series(["Shop 1", "shop 2", "Bar", "it's"], dtype="str"),
        "card": [7, 8, 9, 7],
    }
)
NAMES = Names(
    {
        "amount": "number",
        "fee": "number",
        "country": "text",
        "home": "text",
        "online": "flag",
        "device_new_90d_by_card": "number",
        "time": "time",
        "merchant name": "text",
        "card": "text",
        "risk": "number",
        "p_value": "number",
    },
    ("watched",),
)
LISTS = {"watched": ValueList.of({"7": datetime(2026, 3, 5), "8": None})}  # noqa: DTZ001 - as rows have times


def hits(text: str, frame: pd.DataFrame = ROWS) -> list[int]:
    """The places of the rows that a condition hits."""
    scores = {"risk": np.arange(len(frame), dtype=float), "p_value": np.full(len(frame), 0.01)}
    values = Values(frame, scores, lists=LISTS, time="time")
    return np.flatnonzero(Condition.read(text, NAMES).hits(values)).tolist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("amount > 500", [1, 3]),
        ("amount > 500 and country != home", [1]),
        ("amount > 500 and device_new_90d_by_card and country <> home", [1]),
        ("not amount > 500", [0]),  # a missing amount is neither
        ("amount > 500 or fee >= 2", [1, 2, 3]),
        ("amount is null", [2]),
        ("country is not null and not (country = 'DE')", [1]),
        ("country in ('BR', 'FR')", [1]),
        ("country not in ('BR', 'FR')", [0, 3]),
        ("amount in (10, 900)", [0, 3]),
        ("amount between 600 and 900", [1, 3]),
        ("online", [0, 3]),
        ("not online", [1]),
        ("online = false", [1]),
        ("online is true", [0, 3]),
        ("amount / fee > 200", [3]),  # nothing is divided by zero
        ("abs(amount - 610) < 20", [1]),
        ("-amount < -500", [1, 3]),
        ("amount * 2 + fee = 21", [0]),
        ("coalesce(amount, 0) = 0", [2]),
        ("time >= '2026-03-02' and time < '2026-03-03 12:00'", [1]),
        ("hour(time) < 6", [0, 3]),
        ("weekday(time) = 6", [3]),
        ("lower(\"merchant name\") like 'shop%'", [0, 1]),
        ("contains(\"merchant name\", 'hop')", [0, 1]),
        ("starts_with(\"merchant name\", 'Shop')", [0]),
        ("ends_with(\"merchant name\", '2')", [1]),
        ("\"merchant name\" = 'it''s'", [3]),
        ("length(country) = 2", [0, 1, 3]),
        ("card = '7'", [0, 3]),
        ("card in watched", [0, 1]),  # the end of 7 lies before the last row
        ("card not in watched", [2, 3]),
        ("risk > 1 and p_value < 0.05", [2, 3]),
        ("true", [0, 1, 2, 3]),
        ("amount > 500 and true or false", [1, 3]),
        ("'DE' = country", [0, 3]),
        ("amount == 600", [1]),
        ("amount > 500 AND NOT fee > 1", [1]),
    ],
)
def test_conditions_mean_what_they_say(text: str, wanted: list[int]) -> None:
    """Over all rows at once, and over each row alone; a missing value is no hit."""
    assert hits(text) == wanted
    alone = [place for place in range(len(ROWS)) if hits(text, ROWS.iloc[[place]]) and text[:4] != "risk"]
    assert alone == wanted or text[:4] == "risk"


def _and(left: bool | None, right: bool | None) -> bool | None:
    return False if left is False or right is False else None if None in (left, right) else True


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _or(left: bool | None, right: bool | None) -> bool | None:
    return _not(_and(_not(left), _not(right)))


SHAPES: dict[str, Callable[[bool | None, bool | None, bool | None, bool | None], bool | None]] = {
    "{0} and {1} or {2}": lambda a, b, c, _: _or(_and(a, b), c),
    "not ({0} or {1}) and {3}": lambda a, b, _, d: _and(_not(_or(a, b)), d),
    "{0} or not {1} or {2} and {3}": lambda a, b, c, d: _or(_or(a, _not(b)), _and(c, d)),
    "not ({0} and not {1})": lambda a, b, *_: _not(_and(a, _not(b))),
}


@given(
    limits=st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    rows=st.lists(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=4, max_size=4), min_size=1, max_size=20),
    shape=st.sampled_from(list(SHAPES)),
)
def test_logic_has_three_values(limits: list[float], rows: list[list[float | None]], shape: str) -> None:
    """As in SQL: what cannot be known stays so through and, or and not (Kleene)."""
    names = Names(dict.fromkeys(("a", "b", "c", "d"), "number"))
    frame = pd.DataFrame([[NAN if each is None else each for each in row] for row in rows], columns=list("abcd"))
    text = shape.format(*(f"({name} > {limit:.6f})" for name, limit in zip("abcd", limits, strict=True)))

    found = Condition.read(text, names).hits(Values(frame, {}))

    for hit, row in zip(found.tolist(), rows, strict=True):
        known = zip(row, limits, strict=True)
        parts = [None if value is None else value > float(f"{limit:.6f}") for value, limit in known]
        assert hit == (SHAPES[shape](*parts) is True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("amuont > 5", "no column 'amuont' for rules. Did you mean 'amount'"),
        ("country > 5", "country is text and 5 is a number"),
        ("country = 5", "Write it as text: '5'"),
        ("amount > '5'", "Write the number without quotes"),
        ("country > home", "only numbers and times have an order"),
        ('country = "DE"', "Text goes into single quotes: 'DE'"),
        ("card in wached", "no list 'wached' in `lists`. Did you mean 'watched'"),
        ("watched > 5", "'watched' is a list. Write, for example: card in watched"),
        ("online in watched", "lists hold text or numbers"),
        ("amount", "amount is a number, and a condition is true or false"),
        ("country", "country is text, and a condition"),
        ("amount = null", "Write `is null`"),
        ("time > 'noon'", "'noon' is no time. Write it as '2026-01-31'"),
        ("hour(amount) > 5", "hour expected a time, received a number"),
        ("amount + country > 5", "country is text, and one calculates with numbers"),
        ("amount > 5 and", "is no condition"),
        ("time > 2026-01-31", "Write the time in single quotes, such as '2026-01-31'"),
        ("amount > 1.000,50", "Fractions stand behind a point"),
        ("shop-no. > 5", "whose name has other signs or blanks goes into double quotes"),
        ("a = 'x", "a quote is opened and not closed"),
        ("log(amount) > 5", "has no meaning in a rule"),
        ("amount < fee < 5", "true or false and 5 is a number"),
        ("a.b > 5", "a name with a dot in it is written in double quotes"),
        ("amount > 1e999", "is no number that can be compared"),
        ("country in ()", "expected values in brackets"),
        ("country in (home)", "only values stand in brackets"),
        ("online in (true)", "Use it alone"),
        ("coalesce(amount) > 1", "what stands for a missing value"),
        ("country like home", "`like` expected text and a pattern"),
        ("amount > 5 -- and nothing else", "holds no comments"),
        ("", "The rule is empty"),
    ],
)
def test_errors_name_what_is_meant(text: str, said: str) -> None:
    """The column, its kind, the nearest name, and what to write."""
    with pytest.raises(SettingError, match=said.replace("(", r"\(").replace(")", r"\)")):
        Condition.read(text, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch /tmp/x')",
        "amount > 5; drop table rules",
        "amount > (select 1)",
        "exists (select * from rules)",
        "cast(amount as text) = '5'",
        "amount::text = '5'",
        "amount > :limit",
        "amount > ?",
        "amount > @limit",
        "{{ amount }} > 5",
        "amount > 5 union select 1",
        "amount[0] > 5",
        "lambda x: x",
        "amount.__class__ = 'x'",
        "case when amount > 5 then true end",
        "pg_sleep(10) > 0",
        "load_extension('x') = 'y'",
        "amount ~ '(a+)+$'",
        "regexp_like(country, '(a+)+$')",
        "amount >> 5000000000 > 1",
        "power(9, 9999999) > 1",
        "repeat(country, 999999999) = 'x'",
        "current_user = 'x'",
        "time > current_date",
        "date '2026-01-01' < time",
        "(amount, fee) > 5",
        "count(*) > 3",
        "*",
        "N'x' = country",
    ],
)
def test_nothing_but_conditions_has_a_meaning(text: str) -> None:
    """Code, queries, statements, parameters, casts and unknown functions are errors, and quick ones."""
    begun = time.perf_counter()

    with pytest.raises(SettingError):
        Condition.read(text, NAMES)

    assert time.perf_counter() - begun < 2.0


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000 + "amount > 1" + ")" * 989,
        "not " * 400 + "online",
        "- " * 900 + "amount > 1",
        "amount > 1 or " * 2_000 + "online",
        "abs(" * 300 + "amount" + ")" * 300 + " > 1",
        "coalesce(" * 40 + "amount" + ", 1)" * 40 + " > 1",
        "amount + " * 210 + "1 > 1",
        f"amount in ({', '.join(['1'] * 280)})",
        "country = '" + "x" * 3_000 + "'",
        "amount between " * 100 + "1",
        "amount in (" * 60 + "1",
    ],
)
def test_long_and_deep_conditions_are_refused_at_once(text: str) -> None:
    """However they are nested; no recursion reaches its end, and no parser takes seconds."""
    begun = time.perf_counter()

    with pytest.raises(SettingError):
        Condition.read(text, NAMES)

    assert time.perf_counter() - begun < 2.0


def test_long_chains_are_fine() -> None:
    """A hundred alternatives lie beside one another, not in one another."""
    assert hits(" or ".join(f"amount = {number}" for number in range(520, 620))) == [1]
    with pytest.raises(SettingError, match="Put values into a list"):
        Condition.read(" or ".join(["online"] * 301), NAMES)


@given(st.text(max_size=200))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    """Nothing else comes of it, whatever is written."""
    with contextlib.suppress(SettingError):
        Condition.read(text, NAMES)


@given(st.text(st.sampled_from("ao n(),'\"=<>!+-*/.%0159eE_\t\nNOTINISNULLBETWEENLIKEandor "), max_size=120))
def test_texts_that_look_like_conditions_are_ones_or_errors(text: str) -> None:
    """The same, for what comes nearer."""
    try:
        found = Condition.read(text, NAMES)
    except SettingError:
        return
    found.hits(Values(ROWS, {"risk": np.zeros(4), "p_value": np.ones(4)}, lists=LISTS, time="time"))


def test_values_are_never_read_as_code() -> None:
    """What data holds is compared, however much it looks like a rule or a query."""
    evil = "x' or '1'='1"
    frame = ROWS.assign(country=pd.Series([evil, "'; drop table rules; --", "{{7*7}}", "%"], dtype="str"))

    assert hits("country = 'x'' or ''1''=''1'", frame) == [0]
    assert hits("country in ('%')", frame) == [3]
    assert hits("country = 'DE'", frame) == []


def test_names_come_from_what_was_learnt_and_what_features_are_made_of() -> None:
    """Roles, features, the raw columns behind features, and those for rules alone; never the label."""
    config = Config.model_validate(
        {
            "source": {"path": "a.csv"},
            "columns": {"key": "id", "time": "t", "entity": "card", "label": "fraud", "for_rules": ["home"]},
            "features": {"history": ["new of device by card over 30d", "mean of fee by card over 1d"]},
        }
    )
    schema = Schema(key="id", time="t", entity="card", label="fraud", numeric=("amount",), boolean=("chip",))

    names = Names.of(config, schema)

    assert names.columns["chip"] == "flag"
    assert {name: names.columns[name] for name in ("id", "t", "device", "fee", "home")} == {
        "id": "text",
        "t": "time",
        "device": "text",
        "fee": "number",
        "home": "text",
    }
    assert "fraud" not in names.columns
    raw = pd.DataFrame({"device": [3.0, None], "fee": ["1.5", "x"]})
    read = typed(raw, names.extra)
    assert read["device"].tolist()[0] == "3"
    assert np.isnan(read["fee"].tolist()[1])


def test_list_may_not_have_the_name_of_a_column() -> None:
    """Or nobody could say which is meant."""
    config = Config.model_validate({"source": {"path": "a.csv"}, "lists": {"amount": {"values": ["1"]}}})

    with pytest.raises(SettingError, match="'amount' of `lists` has the name of a column"):
        Names.of(config, Schema(numeric=("amount",)))


# Lists ----------------------------------------------------------------------------------------------------------------


def with_list(tmp_path: Path, **section: Any) -> Config:
    """A configuration with one list."""
    return Config.model_validate(
        {"source": {"path": "a.csv"}, "lists": {"watched": section}}, context={"folder": tmp_path}
    )


def test_lists_are_read_from_everywhere(tmp_path: Path) -> None:
    """Values, text, CSV with ends, and tables; what is named here goes before what is in the file."""
    (tmp_path / "a.txt").write_text("# stolen\nC1\n\n C2 \n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("card,until\nC1,2026-12-31\nC2,\n17,\n", encoding="utf-8")
    pd.DataFrame({"c": ["C9"], "valid": ["2026-01-01"]}).to_sql("l", f"sqlite:///{tmp_path}/l.db", index=False)

    text = read_list(with_list(tmp_path, path="a.txt"), "watched")
    table = read_list(with_list(tmp_path, path="b.csv", values=["C1", 5, 6.0]), "watched")
    database = read_list(with_list(tmp_path, url="sqlite:///l.db", table="l", column="c", until="valid"), "watched")

    assert text.values.to_pylist() == ["C1", "C2"]
    assert dict(zip(table.values.to_pylist(), table.until.to_pylist(), strict=True)) == {
        "C1": None,
        "C2": None,
        "17": None,
        "5": None,
        "6": None,
    }
    assert database.until.to_pylist() == [datetime(2026, 1, 1)]  # noqa: DTZ001 - as rows have times


@pytest.mark.parametrize(
    ("section", "error", "said"),
    [
        ({"path": "nothing.txt"}, SourceError, "The list 'watched' cannot be read"),
        ({"path": "nothing.csv"}, SourceError, "The list 'watched' cannot be read"),
        ({"path": "b.csv", "column": "crad"}, SchemaError, "has no column 'crad'. Did you mean 'card'"),
        ({"path": "b.csv", "until": "card"}, SettingError, "'C1' in 'card' is no time"),
    ],
)
def test_lists_that_cannot_be_read_are_named(tmp_path: Path, section: dict[str, Any], error: Any, said: str) -> None:
    """With the column and what to do."""
    (tmp_path / "b.csv").write_text("card,until\nC1,2026-12-31\n", encoding="utf-8")

    with pytest.raises(error, match=said):
        read_list(with_list(tmp_path, **section), "watched")


def test_ends_of_values_hold_for_the_time_of_rows() -> None:
    """A day is until it begins; a zone is heeded."""
    config = Config.model_validate(
        {
            "source": {"path": "a.csv"},
            "lists": {
                "watched": {
                    "values": [{"value": 7, "until": "2026-03-03"}, {"value": 8, "until": "2026-03-02T15:00:00+02:00"}]
                }
            },
        }
    )
    assert ListEntry(value="x", until=date(2026, 3, 1)).until == date(2026, 3, 1)
    found = {"watched": read_list(config, "watched")}
    scores = {"risk": np.zeros(4), "p_value": np.ones(4)}

    inside = Condition.read("card in watched", NAMES).hits(Values(ROWS, scores, lists=found, time="time"))
    numbers = Condition.read("amount in watched", NAMES)
    amounts = numbers.hits(Values(ROWS.assign(amount=[7.0, 8.0, 7.0, NAN]), scores, lists=found, time="time"))

    assert inside.tolist() == [True, False, False, False]
    assert amounts.tolist() == [True, False, False, False]


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([{"name": "a", "when": "x > 1", "sverity": "high"}], "sverity"),
        ([{"name": "a b", "when": "x > 1"}], "letters, digits, dots, dashes"),
        ([{"name": "<script>", "when": "x > 1"}], "letters, digits, dots, dashes"),
        ([{"name": "a", "when": "x > 1", "action": "never", "severity": "high"}], "`severity` is for `action: alert`"),
        ([{"name": "a", "when": "x > 1", "by": 2}], "`by` is for `action: score_up`"),
        ([{"name": "a", "when": "x > 1"}, {"name": "A", "when": "x > 2"}], "two rules named 'A'"),
        ([{"name": "a", "when": "x > 1\u202e"}], "printable"),
        ([{"name": "a", "when": "x" * 2_001}], "at most 2000"),
    ],
)
def test_settings_are_checked(tmp_path: Path, rules: list[dict[str, Any]], said: str) -> None:
    """Each error names the key and what belongs there."""
    import yaml

    (tmp_path / "detector.yaml").write_text(yaml.safe_dump({"source": {"path": "a.csv"}, "rules": rules}))

    with pytest.raises(SettingError, match=said):
        load_config(tmp_path)


def test_rules_are_about_tables() -> None:
    """Sensors have none."""
    values = {"source": {"path": "a.csv"}, "kind": "sensors", "rules": [{"name": "a", "when": "x > 1"}]}
    with pytest.raises(ValidationError, match="`rules` are about rows of tables"):
        Config.model_validate(values)


def test_versions_name_what_rules_say() -> None:
    """Order does not count; a state, a word and a severity do. The hash of a rule leaves its state out."""
    one, two = RuleSection(name="a", when="amount > 1"), RuleSection(name="b", when="amount > 2")
    live = one.model_copy(update={"state": "live"})

    assert version_of([one, two]) == version_of([two, one])
    assert len({version_of([one, two]), version_of([live, two]), version_of([one])}) == 3
    assert hash_of(one) == hash_of(live) != hash_of(RuleSection(name="a", when="amount > 1", severity="high"))


def test_rule_that_fits_no_column_is_left_out_where_scoring_goes_on() -> None:
    """And named; where somebody asks, it is an error that names the rule."""
    rules = [RuleSection(name="good", when="amount > 1"), RuleSection(name="bad", when="amuont > 1")]

    book = RuleBook.of(rules, NAMES, lambda _: {}, strict=False)

    assert [rule.name for rule in book.rules] == ["good"]
    assert "Did you mean 'amount'" in book.broken["bad"]
    with pytest.raises(SettingError, match="The rule 'bad'"):
        RuleBook.of(rules, NAMES, lambda _: {})


def test_rule_that_fails_is_left_out_of_the_whole_batch() -> None:
    """Whatever goes wrong in it, also in the middle of a batch; the others go on."""
    live = {"state": "live"}
    rules = [RuleSection(name="a", when="amount > 1", **live), RuleSection(name="b", when="country = 'DE'", **live)]
    run = RuleRun(RuleBook.of(rules, NAMES, lambda _: {}), now=datetime.now(UTC))
    measures = pd.DataFrame({"risk": np.zeros(4), "p_value": np.ones(4)})
    broken = ROWS.assign(amount=pd.Series([object()] * 4, dtype=object))

    first, second = run.override(ROWS, measures), run.override(broken, measures)

    assert first.wanted.tolist() == [True, True, False, True]
    assert second.wanted.tolist() == [True, False, False, True]
    assert "TypeError" in run.failed["a"]
    assert run.hits["a"].sum() == 0
    assert run.hits["b"].sum() == 4


def test_list_that_is_gone_fails_its_rules_and_no_other() -> None:
    """Read when a batch begins."""

    def lists(names: tuple[str, ...]) -> dict[str, ValueList]:
        if names:
            raise SourceError("The list is gone.")
        return {}

    rules = [
        RuleSection(name="a", when="card in watched", state="live"),
        RuleSection(name="b", when="online", state="live"),
    ]
    run = RuleRun(RuleBook.of(rules, NAMES, lists), now=datetime.now(UTC))

    seen = run.override(ROWS, pd.DataFrame({"risk": np.zeros(4), "p_value": np.ones(4)}))

    assert run.failed == {"a": "The list is gone."}
    assert seen.wanted.tolist() == [True, False, False, True]
    assert issubclass(SourceError, DetectorError)
