"""The targets a configuration names, and their channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, Protocol

from pydantic import BaseModel, SecretStr

from pipelines.alerts.grouping.events import rank
from pipelines.alerts.message.message import Message
from pipelines.config import Config
from pipelines.config.alert_channels import MissingSecret

_PEOPLE = ("pagerduty", "slack", "email", "apprise")
_HONOUR_IDS = ("webhook", "alertmanager", "pagerduty")
_KINDS = ("file", "log", "webhook", "alertmanager", "pagerduty", "slack", "email", "apprise")


class Channel(Protocol):
    """A place alerts go to."""

    def send(self, message: Message, *, now: datetime) -> None:
        """Send one alert; that it returns means that the place has it.

        Raises ``DeliveryError`` if it has not, as far as is known.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True)
class Target:
    """A place alerts go to, by name."""

    name: str  # the kind, with a number behind it where there are several
    kind: str
    least_severity: str  # alerts less severe do not go there
    number: int = 0  # which address of several

    @property
    def wakes_people(self) -> bool:
        """Whether quiet hours are for it."""
        return self.kind in _PEOPLE

    @property
    def honours_ids(self) -> bool:
        """Whether the receiver drops a second copy with the same id."""
        return self.kind in _HONOUR_IDS

    def takes(self, severity: str) -> bool:
        """Whether alerts of this severity go there."""
        return rank(severity) >= rank(self.least_severity)

    def open(self, config: Config) -> Channel:
        """Its channel; the libraries it needs are loaded now."""
        section = getattr(config.alerts, self.kind)
        made: Channel = import_module(f"pipelines.alerts.channels.{self.kind}").open_channel(
            section, config.alerts, self.number
        )
        return made


def targets_of(config: Config) -> list[Target]:
    """All targets that are switched on."""
    found = []
    for kind in _KINDS:
        section = getattr(config.alerts, kind)
        if section is None or not getattr(section, "enabled", True):
            continue
        if kind == "apprise":
            names = [kind if len(section.urls) == 1 else f"{kind}-{number + 1}" for number in range(len(section.urls))]
            found += [Target(name, kind, section.least_severity, number) for number, name in enumerate(names)]
        else:
            found.append(Target(kind, kind, section.least_severity))
    return found


def secrets_of(section: BaseModel) -> list[str]:
    """Every secret in a section, the longest first, with the parts of addresses that may be secrets too."""
    found: set[str] = set()
    for value in _values(section):
        if isinstance(value, SecretStr) and not isinstance(value, MissingSecret):
            text = value.get_secret_value()
            found.add(text)
            if "://" in text:
                found.update(part for part in text.replace("?", "/").replace("@", "/").split("/")[3:] if len(part) > 7)
    return sorted((each for each in found if len(each) > 3), key=len, reverse=True)


def without_secrets(text: str, secrets: list[str]) -> str:
    """A text with stars for every secret in it."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _values(getattr(value, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _values(each)
    else:
        yield value
