"""Lists for people and programs: a table in a wide terminal, records of two lines in a narrow one, JSON if asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NARROW = 110
"""Columns of a terminal below which a table would be of words cut into pieces."""
READABLE, GAP, MOST_WIDTH = 30, 3, 1_000
"""How wide a longer text must at least be to be read in a column, what is between two columns, and no limit."""


@dataclass(frozen=True)
class Cell:
    """A value for programs, with what people read in its place and how it looks."""

    value: Any
    text: str
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a list.

    - ``head``: whether it stands in the first line of a record, without its name.
    - ``is_sentence``: whether it says by itself what it is, so that a record shows no name before it.
    - ``is_number``: set to the right.
    - ``hidden``: only for programs.
    - ``key``: what programs know it by; its name by default.
    """

    name: str
    head: bool = False
    is_sentence: bool = False
    is_number: bool = False
    hidden: bool = False
    key: str = ""


@dataclass(frozen=True)
class Listing:
    """A list, newest or most important first.

    - ``rows``: by the names of the columns: plain values, or a ``Cell``.
    - ``empty``: what to say where there is nothing.

    >>> listing = Listing((Column("job", head=True), Column("rows", is_number=True)), [{"job": "score", "rows": 1200}])
    >>> Console(width=60).print(listing, end="")
    score  rows 1,200
    >>> Console(width=14).print(listing, end="")
    score
      rows 1,200
    >>> listing.to_json()
    [{'job': 'score', 'rows': 1200}]
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    empty: str = "Nothing yet."

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values, a mapping a row."""
        keys = [(each.key or each.name.lower().replace(" ", "_"), each.name) for each in self.columns]
        return [{key: as_plain(_value(row.get(name))) for key, name in keys} for row in self.rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As a table, or as records where that would be too narrow."""
        if self.title:
            yield Text(self.title, style="bold")
        if not self.rows:
            yield Text(self.empty, style="dim")
        elif options.max_width >= max(NARROW, self._least_width):
            yield self._table()
        else:
            yield from self._records(options.max_width)

    @property
    def _shown(self) -> list[Column]:
        return [each for each in self.columns if not each.hidden]

    @property
    def _least_width(self) -> int:
        """How wide a table must be so that no name or number in it is cut into pieces, and longer texts can be read."""
        widths = [
            min(
                max(len(each.name), *(_text(row.get(each.name)).cell_len for row in self.rows)),
                max(READABLE, len(each.name)) if not each.head or each.is_sentence else MOST_WIDTH,
            )
            for each in self._shown
        ]
        return sum(widths) + GAP * (len(widths) - 1)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for each in self._shown:
            whole = each.head and not each.is_sentence
            least = min(len(each.name), READABLE)
            table.add_column(
                each.name,
                justify="right" if each.is_number else "left",
                no_wrap=whole,
                overflow="fold",
                min_width=least,
            )
        for row in self.rows:
            table.add_row(*(_text(row.get(each.name)) for each in self._shown))
        return table

    def _records(self, width: int) -> Iterable[Any]:
        for row in self.rows:
            heads = [_text(row.get(each.name)) for each in self._shown if each.head]
            first = Text("  ").join(text for text in heads if text.plain)
            first.stylize("bold")
            others = [
                text if each.is_sentence else Text.assemble((f"{each.name} ", "dim"), text)
                for each in self._shown
                if not each.head and (text := _text(row.get(each.name))).plain
            ]
            rest = Text(" · ").join(others)
            if len(first) + 2 + len(rest) <= width:
                yield Text("  ").join([first, rest] if others else [first])
            else:
                yield from (first, Padding(rest, (0, 0, 0, 2)))


def as_plain(value: Any) -> Any:
    """A value as JSON can hold it; what is no fact (a figure, a detector) becomes None.

    >>> as_plain({"at": datetime(2026, 3, 1), "share": np.float64(0.5), "place": Path("a"), "none": float("nan")})
    {'at': '2026-03-01T00:00:00', 'share': 0.5, 'place': 'a', 'none': None}
    """
    if hasattr(value, "to_json") and not isinstance(value, pd.DataFrame | pd.Series):
        return as_plain(value.to_json())
    if isinstance(value, Enum):
        return as_plain(value.value)
    if isinstance(value, np.generic):
        return as_plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date):
        return None if value is pd.NaT else value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, pd.DataFrame):
        return [as_plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(name): as_plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each) for each in value]
    if is_dataclass(value):
        return {each.name: as_plain(getattr(value, each.name)) for each in fields(value)}
    return None


def in_json(value: Any) -> str:
    """A list, a report or plain values as JSON."""
    return json.dumps(as_plain(value), ensure_ascii=False, indent=2)


def _value(given: Any) -> Any:
    return given.value if isinstance(given, Cell) else given


def _text(given: Any) -> Text:
    if isinstance(given, Cell):
        return Text(given.text, style=given.style)
    if isinstance(given, datetime):
        return Text(given.strftime("%Y-%m-%d %H:%M") + (" UTC" if given.tzinfo is None else given.strftime(" %Z")))
    if isinstance(given, bool):
        return Text("yes" if given else "no")
    if isinstance(given, int):
        return Text(f"{given:,}")
    if isinstance(given, float):
        return Text(f"{given:,.3g}")
    return Text("" if given is None else str(given))
