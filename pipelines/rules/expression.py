"""A condition, checked against the columns: what it names, which kinds go together, and how it is worked out.

A missing value is neither true nor false, as in SQL, and a row is hit only where the whole condition is true. So no
rule hits a row by what is missing, unless it asks for that: ``country is null``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from detector.cleaning.values import read_dates
from detector.errors import SettingError, nearest
from detector.features.feature import is_new
from pipelines.rules.functions import COALESCE, FUNCTION_NAMES, FUNCTIONS
from pipelines.rules.names import IN_WORDS, Kind, Names
from pipelines.rules.syntax import MOST_VALUES, arguments_of, as_sql, function_name, links_of, parse
from pipelines.rules.values import Values

if TYPE_CHECKING:
    from sqlglot import exp

_ORDER = {"GT": pc.greater, "GTE": pc.greater_equal, "LT": pc.less, "LTE": pc.less_equal}
_EQUALITY = {"EQ": pc.equal, "NEQ": pc.not_equal}
_ARITHMETIC = {"Add": pc.add, "Sub": pc.subtract, "Mul": pc.multiply}
_NO_ROWS = Values.none()
_SIGNS = {"GT": ">", "GTE": ">=", "LT": "<", "LTE": "<=", "EQ": "=", "NEQ": "!=", "Add": "+", "Sub": "-", "Mul": "*"}


@dataclass(frozen=True)
class Part:
    """A part of a condition: its kind, and how it is worked out for the rows of a frame.

    - ``key``: The same for parts that are worked out the same way; their result is kept.
    - ``literal``: Its value, if it stands in the rule.
    """

    kind: Kind
    key: str
    run: Callable[[Values], Any]
    literal: str | float | bool | None = None

    def of(self, values: Values) -> Any:
        """An array of the rows, or one value for all."""
        return values.kept(self.key, lambda: self.run(values))


@dataclass(frozen=True)
class Condition:
    """A condition that fits the columns.

    - ``columns``, ``lists``: What it names.
    """

    text: str
    part: Part
    columns: tuple[str, ...]
    lists: tuple[str, ...]

    @classmethod
    def read(cls, text: str, names: Names) -> Condition:
        """Read and check a condition.

        Raises ``SettingError`` if it cannot be read, names something that is not there, or compares what cannot be
        compared; the message names the column, the kind it has, and the nearest name.

        >>> names = Names({"amount": "number", "country": "text"}, ("watched",))
        >>> Condition.read("amount > 500 and country in watched", names).columns
        ('amount', 'country')
        """
        reader = _Reader(names)
        part = reader.condition(parse(text))
        return cls(text, part, tuple(reader.columns), tuple(reader.lists))

    def hits(self, values: Values) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows it hits, (n_rows,)."""
        found = self.part.of(values)
        if isinstance(found, pa.Scalar):
            return np.full(len(values), bool(found.as_py()))
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)


class _Reader:
    """Turns sqlglot's tree into parts; whatever it does not know is an error."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.columns: dict[str, None] = {}
        self.lists: dict[str, None] = {}

    def condition(self, node: exp.Expr) -> Part:
        """A part that is true or false of each row."""
        part = self.part(node)
        if part.kind == "flag":
            return part
        if part.kind == "number" and part.key in self.names.columns and _is_one_or_zero(part.key):
            return Part("flag", f"({part.key} <> 0)", lambda values: pc.not_equal(part.of(values), 0.0))
        raise SettingError(
            f"{as_sql(node)} is {IN_WORDS[part.kind]}, and a condition is true or false. Compare it, such as "
            f"{as_sql(node)} {'> 0' if part.kind == 'number' else 'is not null'}."
        )

    def part(self, node: exp.Expr) -> Part:
        """Any part."""
        name = type(node).__name__
        if name == "Paren":
            return self.part(node.this)
        if name == "Column":
            return self._column(node)
        if name in ("Literal", "Boolean", "Neg"):
            return self._value(node)
        if name in ("And", "Or"):
            return self._chain(node, name)
        if name == "Not":
            inner = self.condition(node.this)
            return Part("flag", f"not {inner.key}", lambda values: pc.invert(inner.of(values)))
        if name in _ORDER or name in _EQUALITY:
            return self._comparison(name, node, node.this, node.expression)
        if name in _ARITHMETIC or name == "Div":
            return self._arithmetic(name, node)
        if name == "Between":
            low = self._comparison("GTE", node, node.this, node.args["low"])
            high = self._comparison("LTE", node, node.this, node.args["high"])
            return _both(low, high)
        if name == "In":
            return self._membership(node)
        if name == "Is":
            return self._is(node)
        if name == "Like":
            return self._like(node)
        return self._function(node)

    def _column(self, node: exp.Expr) -> Part:
        if node.args.get("table") is not None:
            raise SettingError(f"{as_sql(node)}: a name with a dot in it is written in double quotes.")
        name = str(node.name)
        if node.this.args.get("quoted") and name not in self.names.columns:
            raise SettingError(
                f"In double quotes stands a column, and there is none named {name!r}. Text goes into single quotes: "
                f"'{name}'. {nearest(name, self.names.columns)}"
            )
        kind = self.names.kind_of(name)
        self.columns[name] = None
        return Part(kind, name, lambda values: values.column(name, kind))

    def _value(self, node: exp.Expr) -> Part:
        name = type(node).__name__
        if name == "Boolean":
            truth = bool(node.this)
            return Part("flag", str(truth), lambda _: pa.scalar(truth), literal=truth)
        if name == "Neg":
            inner = self.part(node.this)
            if inner.kind != "number":
                raise SettingError(
                    f"{as_sql(node)}: {as_sql(node.this)} is {IN_WORDS[inner.kind]}, and has no opposite."
                )
            minus = -float(inner.literal) if isinstance(inner.literal, float) else None
            return Part("number", f"-({inner.key})", lambda values: pc.negate(inner.of(values)), literal=minus)
        if node.is_string:
            text = str(node.this)
            return Part("text", repr(text), lambda _: pa.scalar(text, pa.large_string()), literal=text)
        try:
            number = float(node.this)
        except ValueError:
            number = float("inf")
        if not np.isfinite(number):
            raise SettingError(f"{as_sql(node)} is no number that can be compared.")
        return Part("number", repr(number), lambda _: pa.scalar(number), literal=number)

    def _chain(self, node: exp.Expr, name: str) -> Part:
        parts = [self.condition(each) for each in links_of(node)]
        join = pc.and_kleene if name == "And" else pc.or_kleene

        def run(values: Values) -> Any:
            found = parts[0].of(values)
            for part in parts[1:]:
                found = join(found, part.of(values))
            return found

        return Part("flag", f"({f' {name} '.join(part.key for part in parts)})", run)

    def _comparison(self, name: str, node: exp.Expr, first: exp.Expr, second: exp.Expr) -> Part:
        if any(type(each).__name__ == "Null" for each in (first, second)):
            raise SettingError(f"{as_sql(node)} is never true: nothing equals a missing value. Write `is null`.")
        left, right = self._of_one_kind(node, first, second)
        if name in _ORDER and left.kind in ("text", "flag"):
            raise SettingError(
                f"{as_sql(node)}: {as_sql(first)} is {IN_WORDS[left.kind]}, and only numbers and times have an order. "
                f"Compare with = or in."
            )
        how: Callable[..., Any] = _ORDER[name] if name in _ORDER else _EQUALITY[name]
        key = f"({left.key} {_SIGNS[name]} {right.key})"
        return Part("flag", key, lambda values: how(left.of(values), right.of(values)))

    def _of_one_kind(self, node: exp.Expr, first: exp.Expr, second: exp.Expr) -> tuple[Part, Part]:
        """Two parts of one kind; text beside a time is read as one."""
        left, right = self.part(first), self.part(second)
        if left.kind == "time" and isinstance(right.literal, str):
            right = _moment(right.literal)
        elif right.kind == "time" and isinstance(left.literal, str):
            left = _moment(left.literal)
        if left.kind != right.kind:
            raise SettingError(
                f"{as_sql(node)}: {as_sql(first)} is {IN_WORDS[left.kind]} and {as_sql(second)} is "
                f"{IN_WORDS[right.kind]}, which cannot be compared."
                f"{_hint(left, second, right) or _hint(right, first, left)}"
            )
        return left, right

    def _arithmetic(self, name: str, node: exp.Expr) -> Part:
        parts = []
        for each in (node.this, node.expression):
            part = self.part(each)
            if part.kind != "number":
                raise SettingError(
                    f"{as_sql(node)}: {as_sql(each)} is {IN_WORDS[part.kind]}, and one calculates with numbers."
                )
            parts.append(part)
        left, right = parts
        if name == "Div":
            return Part(
                "number", f"({left.key} / {right.key})", lambda values: _divided(left.of(values), right.of(values))
            )
        how = _ARITHMETIC[name]
        key = f"({left.key} {_SIGNS[name]} {right.key})"
        return Part("number", key, lambda values: how(left.of(values), right.of(values)))

    def _membership(self, node: exp.Expr) -> Part:
        part, place = self.part(node.this), node.args.get("field")
        if place is not None:
            name = str(place.name) if type(place).__name__ == "Column" else ""
            if name not in self.names.lists:
                raise SettingError(
                    f"There is no list {name or as_sql(place)!r} in `lists`. {nearest(name, self.names.lists)}"
                )
            if part.kind not in ("text", "number"):
                raise SettingError(
                    f"{as_sql(node)}: {as_sql(node.this)} is {IN_WORDS[part.kind]}; lists hold text or numbers."
                )
            self.lists[name] = None
            kind = part.kind
            return Part(
                "flag", f"({part.key} in list {name})", lambda values: values.in_list(part.of(values), name, kind)
            )
        given = node.args.get("expressions") or []
        if not given or node.args.get("query") is not None:
            raise SettingError(
                f"{as_sql(node)}: expected values in brackets, such as country in ('BR', 'US'), or a list."
            )
        if len(given) > MOST_VALUES:
            raise SettingError(f"{len(given)} values in brackets are too many: put them into a list under `lists`.")
        several = []
        for each in given:
            _, other = self._of_one_kind(node, node.this, each)
            if other.literal is None and other.kind != "time":
                raise SettingError(f"{as_sql(each)}: only values stand in brackets behind `in`. Use `or`.")
            several.append(other)
        if part.kind == "flag":
            raise SettingError(f"{as_sql(node)}: {as_sql(node.this)} is true or false. Use it alone, or behind `not`.")
        key = f"({part.key} in {sorted(each.key for each in several)})"
        options = [each.run(_NO_ROWS) for each in several]

        def run(values: Values) -> Any:
            column = part.of(values)
            if isinstance(column, pa.Scalar):
                return pa.scalar(column.as_py() in [each.as_py() for each in options])
            found = pc.is_in(column, value_set=pa.array([each.as_py() for each in options], column.type))
            return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))

        return Part("flag", key, run)

    def _is(self, node: exp.Expr) -> Part:
        what, part = node.expression, self.part(node.this)
        if type(what).__name__ == "Null":
            return Part("flag", f"({part.key} is null)", lambda values: pc.is_null(part.of(values)))
        if type(what).__name__ == "Boolean":
            return self._comparison("EQ", node, node.this, what)
        raise SettingError(f"{as_sql(node)}: behind `is` stands null, not null, true or false.")

    def _like(self, node: exp.Expr) -> Part:
        part, pattern = self.part(node.this), self.part(node.expression)
        if part.kind != "text" or not isinstance(pattern.literal, str):
            raise SettingError(f"{as_sql(node)}: `like` expected text and a pattern, such as merchant like 'shop%'.")
        text = pattern.literal
        return Part("flag", f"({part.key} like {text!r})", lambda values: pc.match_like(part.of(values), text))

    def _function(self, node: exp.Expr) -> Part:
        name, given = function_name(node), arguments_of(node)
        if name == COALESCE:
            return self._coalesce(node, given)
        if name not in FUNCTIONS:
            raise SettingError(f"{as_sql(node)} has no meaning in a rule. {nearest(name, FUNCTION_NAMES)}")
        function, parts = FUNCTIONS[name], [self.part(each) for each in given]
        if tuple(part.kind for part in parts) != function.takes:
            raise SettingError(
                f"{as_sql(node)}: {name} expected {' and '.join(IN_WORDS[kind] for kind in function.takes)}, received "
                f"{' and '.join(IN_WORDS[part.kind] for part in parts) or 'nothing'}."
            )
        first, key = parts[0], f"{name}({', '.join(part.key for part in parts)})"
        if len(parts) == 1:
            return Part(function.gives, key, lambda values: function.run(first.of(values)))
        text = parts[1].literal
        if not isinstance(text, str):
            raise SettingError(f"{as_sql(node)}: the second part of {name} is text in single quotes.")
        return Part(function.gives, key, lambda values: function.run(first.of(values), text))

    def _coalesce(self, node: exp.Expr, given: Sequence[exp.Expr]) -> Part:
        if len(given) != 2:
            raise SettingError(
                f"{as_sql(node)}: expected a column and what stands for a missing value, such as coalesce(amount, 0)."
            )
        left, right = self._of_one_kind(node, *given)
        return Part(
            left.kind,
            f"coalesce({left.key}, {right.key})",
            lambda values: pc.coalesce(left.of(values), right.of(values)),
        )


def _divided(left: Any, right: Any) -> Any:
    """A quotient; missing where it would be by zero."""
    return pc.divide(left, pc.if_else(pc.equal(right, 0.0), pa.scalar(None, pa.float64()), right))


def _both(left: Part, right: Part) -> Part:
    return Part(
        "flag", f"({left.key} And {right.key})", lambda values: pc.and_kleene(left.of(values), right.of(values))
    )


def _moment(text: str) -> Part:
    read, unread = read_dates(pd.Series([text], dtype="str"))
    if unread[0] or read.isna()[0]:
        raise SettingError(f"'{text}' is no time. Write it as '2026-01-31' or '2026-01-31 14:00'.")
    moment: datetime = read[0].to_pydatetime()
    return Part("time", repr(moment), lambda _: pa.scalar(moment, pa.timestamp("us")))


def _hint(column: Part, node: exp.Expr, value: Part) -> str:
    if value.literal is not None and column.kind == "text":
        return f" Write it as text: '{node.sql()}'."
    if value.kind == "text" and column.kind == "number" and isinstance(value.literal, str):
        return " Write the number without quotes."
    if column.kind == "time" and value.kind == "number":
        return " Write the time in single quotes, such as '2026-01-31'."
    return ""


def _is_one_or_zero(name: str) -> bool:
    """Whether a column is a feature that is 1 or 0: something is new, or it is night or the weekend."""
    return is_new(name) or name in ("night", "weekend")
