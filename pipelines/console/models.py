"""The page of models: what each learnt, its report, and who serves."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from detector.errors import DataError
from pipelines.api.context import AppContext
from pipelines.api.models import models_of, move
from pipelines.console.forms import Form, checked
from pipelines.console.guard import PATH
from pipelines.console.rendering import page
from pipelines.training.pages import page_of


def models_router(context: AppContext) -> APIRouter:
    """The page, its form and reports."""
    router = APIRouter()

    @router.get("/models")
    def models(request: Request) -> HTMLResponse:
        found = models_of(context)
        names = {found["serves"], *(model["name"] for model in found["models"])} - {None}
        reports = {name for name in names if page_of(context.config, name).is_file()}
        return page("models.html.j2", request, name=context.config.name, reports=reports, **found)

    @router.get("/models/{name}/report")
    def report(name: str, request: Request) -> Response:
        """The page that training wrote of a detector, as a file: it shows rows, so it is for who may see all."""
        if not request.state.visitor.caller.may("admin"):
            text = "Reports show rows as they are. This needs a key with the scope admin."
            return page("problem.html.j2", request, status=403, title="Not with this key", text=text)
        file = page_of(context.config, name)
        if re.fullmatch(r"[\w-]+", name) is None or not file.is_file():
            text = "There is no report of this detector any more: the last 20 are kept."
            return page("problem.html.j2", request, status=404, title="No report", text=text)
        return FileResponse(file, media_type="text/html", filename=f"{context.config.name}-{name}.html")

    @router.post("/models")
    async def promote(request: Request) -> Response:
        return await checked(request, lambda form: _move(context, form), scope="admin")

    return router


def _move(context: AppContext, form: Form) -> str:
    if not form.one("reason"):
        raise DataError("reason: say why; it is stored with the move.")
    move(context, form.one("model"), form.one("reason"), form.visitor.caller.name)
    return f"{PATH}/models"
