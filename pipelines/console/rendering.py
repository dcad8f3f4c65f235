"""Templates of the console: everything that data has written is escaped, and what is missing is an error."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.alerts.message import words
from pipelines.alerts.message.message import reason_in_words
from pipelines.console.guard import PATH
from pipelines.console.sign_ins import Visitor
from pipelines.reports.page import prose

TEMPLATES = Path(__file__).parents[1] / "templates" / "console"
MOST_FIELDS = 1_000


def page(template: str, request: Request, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page by its template."""
    who: Visitor | None = getattr(request.state, "visitor", None)
    text = _environment().get_template(template).render(values | {"who": who, "here": request.url.path, "base": PATH})
    return HTMLResponse(text, status)


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form, each with all its values.

    Raises ``ValueError`` if there are too many.
    """
    body = await request.body()
    return parse_qs(body.decode("utf-8", errors="replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "age": age,
        "cell": cell,
        "moment": moment,
        "money": words.money,
        "prose": prose,
        "part": lambda text: quote(str(text), safe=""),
        "reason": reason_in_words,
        "counted": words.counted,
    }
    return found


def moment(value: datetime | str | None) -> str:
    """A time for people.

    >>> moment("2026-03-01T09:05:00+00:00"), moment(None)
    ('2026-03-01 09:05', '')
    """
    if value is None:
        return ""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{found:%Y-%m-%d %H:%M}"


def cell(value: object, column: str) -> str:
    """A value of a row for people; scores with four digits, fractions with their thousands apart.

    >>> (
    ...     cell(1750.34, "amount"),
    ...     cell(0.000371823, "p_value"),
    ...     cell(float("nan"), "amount"),
    ...     cell(None, "x"),
    ...     cell(7, "n"),
    ... )
    ('1,750.34', '0.0003718', '', '', '7')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        form = ".4g" if column in ("risk", "p_value") else ".10g" if value.is_integer() else ",.10g"
        return f"{value:{form}}"
    return str(value)


def age(value: datetime, now: datetime) -> str:
    """How long ago something was, in one unit.

    >>> from datetime import UTC, timedelta
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> age(now - timedelta(minutes=5), now), age(now - timedelta(hours=30), now), age(now - timedelta(days=9), now)
    ('5 min', '30 h', '9 d')
    """
    minutes = max(0, int((now - value).total_seconds() // 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"
