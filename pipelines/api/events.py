"""The events of a request to score, as JSON or as an Arrow stream: one frame of what is read of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, get_args

import pandas as pd
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from detector.errors import nearest
from pipelines.api.arrow_stream import frame_of
from pipelines.api.limits import check_number
from pipelines.api.problems import MOST_FIELDS, ProblemError
from pipelines.features.plain_frame import framed
from pipelines.scoring.event_scorer import EventColumns
from pipelines.sources.json_rows import flat

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
MOST_COLUMNS = 2_000

Value = str | int | float | bool | None
PLAIN = frozenset(get_args(Value))
Event = Annotated[dict[str, Value], Field(min_length=1, max_length=MOST_COLUMNS)]


class Events(BaseModel):
    """Events to score: one, or several."""

    model_config = ConfigDict(extra="forbid")

    event: Event | None = Field(None, description="One event: the columns of a row, times as ISO 8601.")
    events: list[Event] | None = Field(None, min_length=1, description="Several, which count in each other's past.")
    reasons: bool = Field(default=False, description="Whether each gets its reasons, flagged or not.")
    dry_run: bool = Field(default=False, description="Whether later events are not to count these.")

    @classmethod
    def read(cls, body: bytes, columns: Container[str] | None = None) -> Events:
        """Those of a body.

        - ``columns``: Those that are read; of others, lists are passed over, and the fields of objects are columns, as
          in JSON lines, see ``flat``. All by default.

        Raises ``RequestValidationError`` that names what cannot be used.
        """
        try:
            given = from_json(body)
            if not isinstance(given, dict) or not given.keys() & {"event", "events"}:
                raise _no_event()
            if isinstance(given, dict) and "event" not in given and _are_plain(given.get("events")):
                events = given.pop("events")
                return cls.model_validate(given).model_copy(update={"events": events})
            return cls.model_validate(given if columns is None else _without_unread(given, columns))
        except ValidationError as error:
            raise RequestValidationError([_with_nearest(each, cls.model_fields) for each in error.errors()]) from None
        except ValueError as error:
            raise RequestValidationError([{"type": "json_invalid", "loc": (), "msg": str(error)}]) from None


@dataclass(frozen=True)
class ScoreRequest:
    """What a request to score holds, however it was written.

    - ``frame``: The events, labelled 0, 1, …, with the columns that are read of them.
    - ``reasons``, ``dry_run``: See ``Events``.
    - ``one``: The event, where it came by itself.
    """

    frame: pd.DataFrame
    reasons: bool
    dry_run: bool
    one: Mapping[str, Value] | None = None

    @classmethod
    def read(
        cls, body: bytes, media_type: str, columns: EventColumns, *, most: int, reasons: bool, dry_run: bool
    ) -> ScoreRequest:
        """The events of a body.

        - ``most``: How many there may be.
        - ``reasons``, ``dry_run``: As the address of the request has them.

        Raises ``RequestValidationError`` or ``ProblemError`` that name what is wrong.
        """
        kind = media_type.partition(";")[0].strip().lower()
        if kind == ARROW:
            frame, given = frame_of(body, columns.read, most=most, most_columns=MOST_COLUMNS)
            _refuse_missing([(f"events.{name}", name, given) for name in columns.needed if name not in frame], columns)
            return cls(frame, reasons, dry_run)
        if kind != JSON:
            raise ProblemError(415, f"Content-Type: expected {JSON} or {ARROW}, received {kind or 'none'!r}.")
        events = Events.read(body, columns.read)
        if (events.event is None) == (events.events is None):
            raise _no_event()
        listed = [events.event] if events.event is not None else events.events or []
        check_number(len(listed), most=most)
        found = cls(framed(listed, columns.read), events.reasons or reasons, events.dry_run or dry_run, events.event)
        needed = frozenset(columns.needed)
        lacking = ((number, event) for number, event in enumerate(listed) if not needed <= event.keys())
        _refuse_missing(
            [
                (found.place(number, name), name, event)
                for number, event in lacking
                for name in columns.needed
                if name not in event
            ],
            columns,
        )
        return found

    def place(self, number: int, name: str = "") -> str:
        """How a field is called in an error."""
        return ".".join(part for part in ("event" if self.one is not None else f"events.{number}", name) if part)


def _no_event() -> ProblemError:
    text = 'Give one event as {"event": {…}}, or several as {"events": [{…}, …]}.'
    return ProblemError(422, text, fields={"event": "expected this, or `events`"})


def _with_nearest(error: ErrorDetails, known: Iterable[str]) -> ErrorDetails:
    """What is wrong with a field, with the name that was probably meant."""
    if error["type"] != "extra_forbidden" or len(error["loc"]) != 1:
        return error
    return {**error, "msg": f"is not a field here. {nearest(str(error['loc'][0]), known)}"}


def _are_plain(events: Any) -> bool:
    """Whether these are events of values that need no look at each: what ``Events`` says of them, in a few passes."""
    if not isinstance(events, list) or set(map(type, events)) != {dict}:
        return False
    if not all(0 < columns <= MOST_COLUMNS for columns in set(map(len, events))):
        return False
    return set(map(type, chain.from_iterable(map(dict.values, events)))) <= PLAIN


def _without_unread(given: Any, columns: Container[str]) -> Any:
    """What a request gives; objects in columns that are not read as columns of their own, without lists in such."""
    if not isinstance(given, dict):
        return given
    event, events = given.get("event"), given.get("events")
    changed: dict[str, Any] = {"event": _plain_event(event, columns)} if isinstance(event, dict) else {}
    if isinstance(events, list):
        changed["events"] = [_plain_event(each, columns) if isinstance(each, dict) else each for each in events]
    return given | changed


def _plain_event(event: Mapping[str, Any], columns: Container[str]) -> dict[str, Any]:
    fields = flat(event, columns).items()
    return {name: value for name, value in fields if name in columns or not isinstance(value, list)}


def _refuse_missing(lacking: Sequence[tuple[str, str, Iterable[str]]], columns: EventColumns) -> None:
    """Say what is missing: how the field is called, the column, and the columns that are there."""
    if not lacking:
        return
    fields = {
        field: f"missing; {_remedy(name, columns)}. {nearest(name, given)}"
        for field, name, given in lacking[:MOST_FIELDS]
    }
    text = "1 value is missing." if len(lacking) == 1 else f"{len(lacking):,} values are missing."
    raise ProblemError(422, text, fields=fields)


def _remedy(name: str, columns: EventColumns) -> str:
    """What to do where a column is missing."""
    return "every event must have a value here" if name in columns.valued else "give null if it has no value"
