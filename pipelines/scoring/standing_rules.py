"""The rules that hold when a command scores rows by hand: those of the file, and of the service where there is one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from detector.schema import Schema
from pipelines.config import Config
from pipelines.jobs.context import ProcessCache

if TYPE_CHECKING:
    from pipelines.rules.run import RuleRun


def standing_rules(config: Config, schema: Schema, *, now: datetime) -> RuleRun | None:
    """The rules that hold now, for one run over rows; None if there are none.

    Raises ``SettingError`` if a rule does not fit the columns.
    """
    book = None
    if config.service.may_have_state:
        from pipelines.rules.serving import stored_rule_book  # it loads SQLAlchemy

        book = stored_rule_book(config, schema)
    elif config.rules:
        from pipelines.rules.checked import book_of  # it loads the reader of conditions

        book = book_of(config, config.rules, schema, ProcessCache())
    if book is None:
        return None
    from pipelines.rules.run import RuleRun

    return RuleRun(book, now=now)
