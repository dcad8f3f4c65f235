"""Forms: read, checked to be the visitor's own, done in a thread; then the browser is sent on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from detector.errors import DataError, DetectorError
from pipelines.api.problems import ProblemError, status_of
from pipelines.console.rendering import form_of, page
from pipelines.console.sign_ins import Visitor

log = logging.getLogger("detector.console")


@dataclass(frozen=True)
class Form:
    """What a visitor has sent."""

    visitor: Visitor
    fields: Mapping[str, list[str]]

    def one(self, name: str) -> str:
        """A field; empty if it is not there."""
        return self.fields.get(name, [""])[-1].strip()

    def all(self, name: str) -> list[str]:
        """All values of a field, each once."""
        return list(dict.fromkeys(value for value in self.fields.get(name, []) if value))

    def number(self, name: str, otherwise: float) -> float:
        """A field as a number.

        Raises ``DataError`` if it is none.
        """
        try:
            found = float(self.one(name) or otherwise)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise DataError(f"{name}: {self.one(name)!r} is not a number.")
        return found


async def checked(request: Request, act: Callable[[Form], str | Response], *, scope: str = "review") -> Response:
    """Do what a form says, and go where ``act`` says, or show the page that it makes."""
    who: Visitor = request.state.visitor
    try:
        fields = await form_of(request)
    except ValueError:
        return page("problem.html.j2", request, status=400, title="That did not work", text="The form is too large.")
    form = Form(who, fields)
    if not who.sent(form.one("token")):
        text = "This form is not of this session. Go back, load the page again, and send it once more."
        return page("problem.html.j2", request, status=403, title="That did not work", text=text)
    if not who.caller.may(scope):
        text = f"This needs a key with the scope {scope}."
        return page("problem.html.j2", request, status=403, title="Not with this key", text=text)
    try:
        place = await run_in_threadpool(act, form)
    except ProblemError as error:
        return page("problem.html.j2", request, status=error.status, title="That did not work", text=error.detail)
    except DetectorError as error:
        return failed(request, error)
    return RedirectResponse(place, 303) if isinstance(place, str) else place


def failed(request: Request, error: DetectorError) -> Response:
    """A page that says what was wrong."""
    status = status_of(error)
    if status >= 500:
        log.warning("a page could not be made: %s", error)
    return page("problem.html.j2", request, status=status, title="That did not work", text=str(error))
