"""Errors as RFC 9457 has them: ``application/problem+json``, with the fields that are wrong and what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from detector.errors import BundleError, DataError, DetectorError, NotFoundError, SchemaError, SettingError, StoreError

log = logging.getLogger("detector.api")

MEDIA_TYPE = "application/problem+json"
MOST_FIELDS = 20
MOST_TEXT = 500
_FIELD = {"type": "object", "properties": {"field": {"type": "string"}, "detail": {"type": "string"}}}
DESCRIBED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What is wrong (RFC 9457), and in which fields",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "errors": {"type": "array", "items": _FIELD},
                    },
                }
            }
        },
    }
}
"""What OpenAPI says of them."""
EXTRA = "Extra inputs are not permitted"
_PLAIN = ("str", "int", "float", "bool")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class ProblemError(Exception):
    """What is wrong with a request, for its sender."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The response that says it."""
        return problem(self.status, self.detail, fields=self.fields, headers=self.headers)


def problem(
    status: int, detail: str, *, fields: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that says what is wrong; ``fields`` says it of each field by its path, such as ``events.3.amount``."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body["detail"] = detail[: 4 * MOST_TEXT]
    if fields:
        body["errors"] = [{"field": name, "detail": text[:MOST_TEXT]} for name, text in list(fields.items())]
    return JSONResponse(body, status, media_type=MEDIA_TYPE, headers={**HEADERS, **(headers or {})})


def answer_problems(app: FastAPI) -> None:
    """Have every error of an application answered that way."""

    @app.exception_handler(ProblemError)
    async def of_request(_: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def of_fields(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = _fields(error.errors())
        return problem(422, f"{_counted(len(fields))} of the request cannot be used.", fields=fields)

    @app.exception_handler(HTTPException)
    async def of_path(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
            detail = f"There is nothing at {request.url.path}. `/v1/openapi.json` lists what there is."
        return problem(error.status_code, detail, headers=error.headers)

    @app.exception_handler(DetectorError)
    async def of_service(_: Request, error: DetectorError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            log.warning("a request could not be answered: %s", error)
        return problem(status, str(error))

    @app.exception_handler(Exception)
    async def of_us(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed unexpectedly", exc_info=error)
        return problem(500, "Something unexpected went wrong; the log of the service says what.")


def status_of(error: DetectorError) -> int:
    """The HTTP status of an error: 4xx where who asks can mend it, 5xx where only the service can."""
    if isinstance(error, StoreError | BundleError):
        return 503
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, DataError | SchemaError | SettingError):
        return 422
    return 500


def _fields(errors: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for error in errors:
        place = [str(part) for part in error["loc"] if part != "body"]
        text = str(error["msg"])
        if error["type"] == "json_invalid":
            place, text = ["body"], f"it is no JSON: {text}"
        elif error["type"] == "extra_forbidden" and text == EXTRA:
            text = "is not a field here"
        elif place and place[-1] in _PLAIN:  # pydantic says of each kind that a value is not of it
            place, text = place[:-1], "expected text, a number, true, false or null"
        if len(found) < MOST_FIELDS:
            found.setdefault(".".join(place) or "body", text)
    return found


def _counted(number: int) -> str:
    return "1 field" if number == 1 else f"{number} fields"
