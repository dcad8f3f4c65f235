"""The functions that a condition may call: what each takes, what it gives, and how it is worked out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.rules.names import Kind


@dataclass(frozen=True)
class Function:
    """One function.

    - ``takes``: The kinds of its arguments. A second one is text that stands in the rule.
    - ``gives``: The kind of what it comes to.
    - ``run``: Works it out, for a column of Arrow and that text.
    """

    takes: tuple[Kind, ...]
    gives: Kind
    run: Callable[..., Any]


FUNCTIONS = {
    "abs": Function(("number",), "number", pc.abs),
    "contains": Function(("text", "text"), "flag", pc.match_substring),
    "ends_with": Function(("text", "text"), "flag", pc.ends_with),
    "hour": Function(("time",), "number", lambda times: pc.cast(pc.hour(times), pa.float64())),
    "length": Function(("text",), "number", lambda texts: pc.cast(pc.utf8_length(texts), pa.float64())),
    "lower": Function(("text",), "text", pc.utf8_lower),
    "starts_with": Function(("text", "text"), "flag", pc.starts_with),
    "upper": Function(("text",), "text", pc.utf8_upper),
    "weekday": Function(
        ("time",), "number", lambda times: pc.cast(pc.day_of_week(times, count_from_zero=False), pa.float64())
    ),
}
COALESCE = "coalesce"
"""It takes two of any kind, if it is the same one; see ``pipelines.rules.expression``."""
FUNCTION_NAMES = tuple(sorted((*FUNCTIONS, COALESCE)))
