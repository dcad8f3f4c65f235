"""Text that data may have written, made harmless for where it is shown: one function for each medium.

A name, a value or a header can hold line breaks, commands for a terminal, marks that turn the direction of writing, or
a formula. HTML is escaped by its templates, and Slack's signs by its channel.
"""

from __future__ import annotations

import re

_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20].", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+|inf|nan)([eE][+-]?\d+)?%?", re.IGNORECASE)


def for_terminal(text: str) -> str:
    r"""A text whose characters all show: what a terminal would take for a command is spelled out. Lines stay.

    >>> for_terminal("card \x1b[2J\x1b]0;title\x07 \x9b31m\tred\n")
    'card \\x1b[2J\\x1b]0;title\\x07 \\x9b31m\tred\n'
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    r"""The same without line breaks: no value or name is to begin a line of its own.

    >>> one_line("Aldi\n- card is 4929")
    'Aldi - card is 4929'
    """
    return for_terminal(" ".join(text.splitlines()).replace("\t", " "))


def for_log(text: str) -> str:
    r"""An entry of a log: further lines are set in, so that none can pass for an entry of its own.

    >>> for_log("no column 'a\n2026-01-01 all is well'")
    "no column 'a\n    2026-01-01 all is well'"
    """
    return "\n    ".join(for_terminal(text).split("\n"))


def for_json_log(text: str) -> str:
    r"""A line of JSON for a log that people may read in a terminal; its value stays the same.

    >>> for_json_log('{"card": "\x9b31m"}')
    '{"card": "\\u009b31m"}'
    """
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def for_spreadsheet(cell: str) -> str:
    r"""A cell that no spreadsheet takes for a formula: with a ' before it if need be. Numbers stay as they are.

    >>> for_spreadsheet("=HYPERLINK(A1)"), for_spreadsheet("-12.5"), for_spreadsheet("-")
    ("'=HYPERLINK(A1)", '-12.5', '-')
    """
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
