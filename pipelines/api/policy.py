"""``/v1/policy``: another policy for the service, written into its file or into a copy that somebody looks at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError

from detector.atomic import write_whole
from detector.errors import DataError, SettingError
from pipelines.api.configuration import reloaded
from pipelines.api.context import AppContext, caller_of, needs
from pipelines.api.problems import ProblemError
from pipelines.api.request_body import RequestBody
from pipelines.api.what_if import Budget, no_such_policy
from pipelines.api.writes import as_json, once
from pipelines.config import Config, PolicySection
from pipelines.config.policy_edit import with_policy
from pipelines.config.reading import read_settings
from pipelines.store.trail import write_down


class NewPolicy(RequestBody):
    """What to change of the policy, where null takes a rule away; and why."""

    quantile: float | None = None
    budget: Budget | None = None
    fdr: float | None = None
    reason: str = Field(min_length=1, max_length=1_000)
    as_copy: bool = Field(default=False, description="Whether to leave the file as it is, and write one beside it.")


def policy_router(context: AppContext) -> APIRouter:
    """The path."""
    router = APIRouter(prefix="/policy", tags=["configuration"])

    @router.post("", dependencies=[Depends(needs("admin"))])
    def change_policy(given: NewPolicy, request: Request) -> JSONResponse:
        """Write another policy into the file of the configuration, and have it taken over; or into a copy of it."""
        who = caller_of(request).name
        changes = given.model_dump(exclude_unset=True, exclude={"reason", "as_copy"})
        return once(
            context,
            request,
            given,
            lambda: changed_policy(context, changes, who=who, reason=given.reason, as_copy=given.as_copy),
            as_json,
        )

    return router


def policy_with(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the section ``policy`` says with some rules changed; None takes one away."""
    given = config.policy.model_dump(mode="json", exclude_unset=True) | dict(changes)
    return {name: value for name, value in given.items() if value is not None}


def changed_policy(
    context: AppContext, changes: Mapping[str, Any], *, who: str, reason: str, as_copy: bool
) -> dict[str, Any]:
    """Write another policy, leave a trail, and say where it is and what became of it.

    Raises ``ProblemError`` if there is no such policy, the file has changed since it was read, cannot be written, or is
    refused; then it is as it was.
    """
    config, now = context.config, context.clock()
    if config.file is None:
        raise DataError("This service was given its configuration by a program, and has no file to change.")
    if not reason.strip():
        raise ProblemError(422, "Say why: it stands in the file and in the audit trail.", fields={"reason": "empty"})
    policy = policy_with(config, changes)
    try:
        PolicySection.model_validate(policy)
    except ValidationError as error:
        raise no_such_policy(error) from None
    file = config.file.resolve()
    before = _read(file)
    if before != config.text:
        raise ProblemError(409, f"{file.name} has changed since it was read. Have it read again, then change it.")
    text = with_policy(before, policy, f"{now:%Y-%m-%d %H:%M} UTC, {who}: {reason}")
    try:
        read_settings(file, Config, text=text, needs_secrets=False)
    except SettingError as error:
        raise ProblemError(422, str(error)) from None
    target = file.with_name(f"{file.stem}.proposed{file.suffix}") if as_copy else file
    _write(target, text)
    note = f"Written to {target.name}; {file.name} and the service are as they were."
    if not as_copy:
        note = _taken_over(context, file, before, who=who, reason=reason)
    with context.store.write() as session:
        facts = {"file": target.name, "before": policy_with(config, {}), "after": policy}
        action = "propose policy" if as_copy else "change policy"
        write_down(session, action, actor=who, reason=reason, arguments=facts, now=now)
    return {"file": target.name, "policy": policy, "note": note}


def _taken_over(context: AppContext, file: Path, before: str, *, who: str, reason: str) -> str:
    try:
        return str(reloaded(context, who=who, reason=reason)["note"])
    except (ProblemError, DataError):
        _write(file, before)
        raise


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ProblemError(409, f"{file.name} cannot be read ({type(error).__name__}). Put it back first.") from None


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        raise ProblemError(
            409, f"{file.name} cannot be written: {error.strerror}. Put the section into the file where it is kept."
        ) from None
