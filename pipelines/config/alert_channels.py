"""The part of the configuration about where alerts go: the channels, and the secrets they need."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PositiveFloat,
    SecretStr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from detector.errors import SettingError
from pipelines.config.values import VARIABLE, Place, Section, Url, resolve_path, resolve_url

Severity = Literal["low", "medium", "high", "critical"]

_VARIABLES = re.compile(r"^(?:[^${}]*\$\{[^}]+\}[^${}]*)+$")


class MissingSecret(SecretStr):
    """A secret whose variable or file is not there, for commands that send nothing; an error once it is used."""

    def __init__(self, reason: str) -> None:
        super().__init__("missing")
        self.reason = reason

    def get_secret_value(self) -> str:
        """There is none.

        Raises ``SettingError``.
        """
        raise SettingError(f"A secret is needed here: {self.reason}")


def _unless_missing(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """A secret as it is read, or, where the command needs none, one that says what is missing."""
    if isinstance(value, MissingSecret):
        return value
    reason = _missing(value, info) if isinstance(value, str) else None
    if reason is None:
        return handler(value)
    if info.context is None or info.context.get("needs_secrets", True):
        raise ValueError(reason)
    return MissingSecret(reason)


def _missing(value: str, info: ValidationInfo) -> str | None:
    for name in VARIABLE.findall(value):
        if name not in os.environ:
            return (
                f"the environment variable {name} is not set. Set it where this command runs (export {name}=…, or the "
                f"environment of the service), or keep the secret in a file and write file:PATH."
            )
    if value.startswith("file:"):
        path = Path(resolve_path(value.removeprefix("file:"), info))
        if not path.is_file():
            return f"the file {path} cannot be read: it is not there. Write it there, readable by you only."
    return None


def _read_secret(value: Any, info: ValidationInfo) -> Any:
    """The text of a variable or of a file; a secret that stands in the file itself is refused."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("expected ${NAME} for an environment variable, or file:PATH.")
    if value.startswith("file:"):
        path = Path(resolve_path(value.removeprefix("file:"), info))
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file {path} cannot be read: {type(error).__name__}.") from None
    elif _VARIABLES.match(value):
        text = resolve_url(f"x://{value}", info).removeprefix("x://").strip()
    else:
        raise ValueError("a secret does not belong in this file. Write ${NAME} (quoted), or file:PATH.")
    if not text:
        raise ValueError("the secret is empty. Check the variable or the file.")
    return SecretStr(text)


def _read_address(value: Any, info: ValidationInfo) -> Any:
    """An address that may be a secret in itself; it is never shown."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("expected an address, such as https://host/path, ${NAME} or file:PATH.")
    if value.startswith("file:"):
        return _read_secret(value, info)
    text = resolve_url(value if "://" in value else f"x://{value}", info).removeprefix("x://").strip()
    if "://" not in text:
        raise ValueError("expected an address with its scheme, such as https://host/path.")
    return SecretStr(text)


_STARS = PlainSerializer(lambda _: "**********", return_type=str, when_used="json")

Secret = Annotated[SecretStr, BeforeValidator(_read_secret), WrapValidator(_unless_missing), _STARS]
"""A secret: ``${NAME}`` or ``file:PATH``, never the value itself."""

Address = Annotated[SecretStr, BeforeValidator(_read_address), WrapValidator(_unless_missing), _STARS]
"""An address with a token in it; hidden like a secret."""


class ChannelSection(Section):
    """A place alerts go to."""

    least_severity: Severity = "low"
    """Alerts less severe do not go there."""


class FileSection(ChannelSection):
    """A file with one JSON object a line."""

    enabled: bool = True
    """Whether alerts go there."""

    path: Place = Path("alerts.jsonl")
    """The file."""

    most_megabytes: PositiveFloat = 100.0
    """A file of that size is kept as `alerts.1.jsonl`, the next as `alerts.2.jsonl`, and so on, and a new one begun. \
None is deleted."""


class LogSection(ChannelSection):
    """The log of the service."""

    enabled: bool = True
    """Whether alerts go there."""


class WebhookSection(ChannelSection):
    """A receiver of your own, by Standard Webhooks 1.0."""

    url: Address
    """Where to post to."""

    secrets: tuple[Secret, ...]
    """What each message is signed with, as whsec_ and base64; two while you change over to a new one."""

    @field_validator("secrets")
    @classmethod
    def _usable(cls, values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        import base64
        import binascii

        if not values:
            raise ValueError("expected at least one secret. Make one: openssl rand -base64 32, with whsec_ before it.")
        for value in values:
            if isinstance(value, MissingSecret):
                continue
            try:
                key = base64.b64decode(value.get_secret_value().removeprefix("whsec_"), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not 24 <= len(key) <= 64:
                raise ValueError("expected whsec_ and 24 to 64 bytes in base64, as of: openssl rand -base64 32.")
        return values


class AlertmanagerSection(ChannelSection):
    """Prometheus Alertmanager."""

    url: Address
    """Its address, such as http://alertmanager:9093, without the path of the API."""

    lasts_minutes: PositiveFloat = 60.0
    """How long after being sent an alert counts as firing, if nothing else is heard of it."""


class PagerDutySection(ChannelSection):
    """PagerDuty, Events API v2."""

    routing_key: Secret
    """The integration key of the service: ${NAME} or file:PATH."""

    url: Url = "https://events.pagerduty.com/v2/enqueue"
    """Where events are posted to; another one for the European region."""


class SlackSection(ChannelSection):
    """Slack, by an incoming webhook."""

    url: Address
    """The address Slack gave, which is a secret: ${NAME} or file:PATH."""


class EmailSection(ChannelSection):
    """Mail by SMTP."""

    host: str
    """The mail server."""

    port: Annotated[int, Field(gt=0, le=65_535)] = 587
    """Its port: 587 with starttls, 465 with tls."""

    tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is kept private; `none` only for a server on this machine."""

    user: str = ""
    """The account, if it wants one."""

    password: Secret | None = None
    """Its password: ${NAME} or file:PATH."""

    sender: str
    """The address it comes from."""

    to: tuple[str, ...]
    """Whom it goes to."""

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for address in (self.sender, *self.to):
            if "@" not in address or any(sign in address for sign in "\r\n"):
                raise ValueError(f"expected a mail address such as risk@example.com, received {address!r}.")
        if not self.to:
            raise ValueError("`to` is empty. Name at least one address.")
        if self.tls == "none" and self.password is not None:
            raise ValueError("`tls: none` would send the password in the clear. Use starttls or tls.")
        return self


class AppriseSection(ChannelSection):
    """Any of the services that Apprise knows: Teams, Telegram, Matrix, ntfy, Opsgenie and a hundred more."""

    urls: tuple[Secret, ...]
    """Addresses as Apprise writes them, each ${NAME} or file:PATH; each is a target of its own."""
