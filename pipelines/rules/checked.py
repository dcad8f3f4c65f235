"""Rules checked against the columns of a detector; it needs no database."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from detector.errors import SettingError
from detector.schema import Schema
from pipelines.config import Config, RuleSection
from pipelines.jobs.context import ProcessCache
from pipelines.rules.book import RuleBook
from pipelines.rules.expression import Condition
from pipelines.rules.lists import ValueList, lists_of
from pipelines.rules.names import Names


def book_of(
    config: Config, sections: Sequence[RuleSection], schema: Schema, cache: ProcessCache, *, strict: bool = True
) -> RuleBook:
    """These rules, checked against the columns of a detector."""
    lists = partial(_lists, config, cache)
    return RuleBook.of(sections, Names.of(config, schema), lists, time=schema.time, strict=strict)


def problems_of(config: Config, sections: Sequence[RuleSection], schema: Schema) -> dict[str, str]:
    """Why some rules do not fit the columns of a detector, whatever their state; lists are not read."""
    names, found = Names.of(config, schema), {}
    for section in sections:
        try:
            Condition.read(section.when, names)
        except SettingError as error:
            found[section.name] = str(error)
    return found


def _lists(config: Config, cache: ProcessCache, names: tuple[str, ...]) -> Mapping[str, ValueList]:
    return lists_of(config, cache, names, seconds=time.monotonic())
