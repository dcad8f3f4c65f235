"""Text → a tree of a few kinds of nodes, by sqlglot's parser: bounded before it is parsed, and nothing in it is run.

Rules are conditions as SQL has them. Of all that SQL can say only what ``pipelines.rules.expression`` knows has a
meaning; the rest (queries, casts, parameters, statements) is an error that names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detector.errors import SettingError
from pipelines.config.rules import MOST_WHEN

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.tokens import Token  # type: ignore[attr-defined]  # it is what sqlglot documents

MOST_DEPTH = 30
MOST_TOKENS = 600
MOST_VALUES = 200
_NAMED_OTHERWISE = {"StartsWith": "starts_with", "EndsWith": "ends_with"}
DEEP = "The rule lies too deep in itself. Split it into several rules."
_COMMA = re.compile(r"\d,\d")
_SIGNS = frozenset(["(", ")", ",", "=", "==", "!=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "."])
_SQL_WORDS = frozenset(
    [
        "select",
        "from",
        "where",
        "join",
        "union",
        "insert",
        "update",
        "delete",
        "create",
        "drop",
        "alter",
        "case",
        "when",
        "then",
        "else",
        "end",
        "exists",
        "any",
        "all",
        "some",
        "cast",
        "interval",
        "over",
        "partition",
        "limit",
        "offset",
        "with",
        "escape",
        "collate",
    ]
)


def parse(text: str) -> exp.Expr:
    """The tree of a condition.

    Raises ``SettingError`` if it is no condition, is too long, or lies too deep in brackets.

    >>> parse("amount > 500 and country != 'DE'").sql()
    "amount > 500 AND country <> 'DE'"
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(text) > MOST_WHEN:
        raise SettingError(f"The rule has {len(text):,} characters; it may have {MOST_WHEN:,}. Put values into a list.")
    try:
        tokens = sqlglot.tokenize(text)
    except SqlglotError:
        raise SettingError(
            "The rule cannot be read: a quote is opened and not closed, or a sign has no meaning."
        ) from None
    _check(tokens)
    try:
        tree = sqlglot.parse_one(text, into=exp.Condition)
    except SqlglotError as error:
        details = getattr(error, "errors", None) or [{}]
        place = int(details[0].get("col") or 0)
        near = text[max(0, place - 20) : place].strip()
        where = f" near {near!r}" if near else ""
        raise SettingError(
            f"The rule is no condition{where}. Write, for example: amount > 500 and country in ('BR', 'US'). "
            f"{_hint(text)}"
        ) from None
    except RecursionError:
        raise SettingError(DEEP) from None
    if _depth(tree) > 2 * MOST_DEPTH:
        raise SettingError(DEEP)
    return tree


def links_of(node: exp.Expr) -> list[exp.Expr]:
    """The links of a chain of one kind, in order."""
    found, kind = [], type(node)
    while type(node) is kind:
        found.append(node.expression)
        node = node.this
    return [node, *reversed(found)]


def function_name(node: exp.Expr) -> str:
    """What a function is called in a rule, in small letters."""
    name = type(node).__name__
    found = str(node.this) if name == "Anonymous" else _NAMED_OTHERWISE.get(name, name)
    return found.lower()


def arguments_of(node: exp.Expr) -> list[exp.Expr]:
    """What stands in its brackets."""
    if type(node).__name__ == "Anonymous":
        return list(node.expressions)
    return list(node.iter_expressions())


def as_sql(node: exp.Expr) -> str:
    """A node as people have written it, for errors; a long one is cut."""
    text = node.sql()
    return text if len(text) <= 80 else f"{text[:80]}…"


def _hint(text: str) -> str:
    """What people most often mean by what is no condition.

    >>> _hint("amount > 1.000,50")
    'Fractions stand behind a point, and nothing parts thousands: 1000.5.'
    """
    if _COMMA.search(text):
        return "Fractions stand behind a point, and nothing parts thousands: 1000.5."
    return 'A column whose name has other signs or blanks goes into double quotes: "shop no." = 7.'


def _depth(tree: exp.Expr) -> int:
    """How deep nodes lie in one another; a chain of ``and`` or of ``or`` is one step."""
    from sqlglot import exp

    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        for child in node.iter_expressions():
            chained = isinstance(node, exp.And | exp.Or) and type(child) is type(node)
            waiting.append((child, depth if chained else depth + 1))
    return deepest


def _check(tokens: list[Token]) -> None:
    """Refuse before parsing what may take long or has no meaning here."""
    from sqlglot.tokens import TokenType  # type: ignore[attr-defined]  # it is what sqlglot documents

    if not tokens:
        raise SettingError("The rule is empty. Write, for example: amount > 500")
    if len(tokens) > MOST_TOKENS:
        raise SettingError(
            f"The rule has {len(tokens)} words and signs; it may have {MOST_TOKENS}. Put values into a list."
        )
    depth = nots = 0
    plain = (TokenType.NUMBER, TokenType.STRING, TokenType.IDENTIFIER)
    for token in tokens:
        kind, word = token.token_type, token.text
        if token.comments:
            raise SettingError("A rule holds no comments: `--` and `/*` have no meaning in it. Put them into `reason`.")
        if kind in plain:
            continue
        nots = nots + 1 if word.casefold() in ("not", "-") else 0
        depth += (word == "(") - (word == ")")
        if max(depth, nots) > MOST_DEPTH:
            raise SettingError(
                f"The rule has more than {MOST_DEPTH} brackets in one another. Split it into several rules."
            )
        if word.casefold() in _SQL_WORDS:
            raise SettingError(
                f'{word!r} has no meaning in a rule. If a column has this name, write it in double quotes: "{word}"'
            )
        if word not in _SIGNS and not word.replace("_", "a").isalnum():
            raise SettingError(
                f"The sign {word!r} has no meaning in a rule. Known: {' '.join(sorted(_SIGNS))}, and words."
            )
