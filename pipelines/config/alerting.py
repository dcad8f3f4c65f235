"""The part of the configuration about alerts: what becomes one, when, and where it goes."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipelines.config.section import Section
from pipelines.config.values import VERDICTS, Place, Url, resolve_path, resolve_url
from pipelines.cron import zone_of

if TYPE_CHECKING:
    from pipelines.config.data import ColumnsSection

Severity = Literal["low", "medium", "high", "critical"]
Mask = Literal["hash", "last4", "hide"]

_CLOCK = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d")
_VARIABLES = re.compile(r"^(?:[^${}]*\$\{[^}]+\}[^${}]*)+$")
_NOT_A_GROUP = (*VERDICTS, "row")


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


Secret = Annotated[SecretStr, BeforeValidator(_read_secret)]
"""A secret: ``${NAME}`` or ``file:PATH``, never the value itself."""

Address = Annotated[SecretStr, BeforeValidator(_read_address)]
"""An address with a token in it; hidden like a secret."""


class QuietSection(Section):
    """Hours in which nobody is to be woken."""

    since: str = "22:00"
    """When they begin, by the clock of the time zone."""

    until: str = "07:00"
    """When they end; what waited is then told in one digest."""

    timezone: str = "UTC"
    """Whose clock."""

    wake_from: Severity = "critical"
    """Alerts at least as severe are told at once all the same."""

    @field_validator("since", "until")
    @classmethod
    def _is_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError(f"expected a time of day such as 22:00, received {value!r}.")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone_of(value)
        return value


class AnswersSection(Section):
    """How people answer an alert: fraud, fine, or unsure."""

    url: Url
    """Where people reach the running service, such as https://detector.example.com."""

    secret: Secret
    """What the links are signed with: ${NAME} or file:PATH, at least 16 characters."""

    days: PositiveFloat = 14.0
    """How long a link is valid."""

    snooze_days: NonNegativeFloat = 7.0
    """How long "fine" keeps the same pattern of the same entity quiet, if the person asks for it; 0 never."""

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("the secret is too short to sign with. Use at least 16 random characters.")
        return value


class RetrySection(Section):
    """How delivery goes on when a target does not take an alert."""

    first_seconds: PositiveFloat = 5.0
    """The wait after the first failure; it doubles each time, and up to half of it is left out at random."""

    most_seconds: PositiveFloat = 900.0
    """The longest such wait."""

    give_up_hours: PositiveFloat = 72.0
    """When an alert is put aside as a dead letter; `detector alerts retry` sends it after all."""

    timeout: PositiveFloat = 10.0
    """Seconds to wait for a target to connect or to go on answering; three times as long for all of it."""


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


# Read like values of the file, so that their paths start from the folder of the file.
DEFAULT_ALERTS: Any = {}
_DEFAULT_FILE: Any = {}


class AlertsSection(Section):
    """What becomes an alert, when it is told, and where it goes."""

    enabled: bool = True
    """Whether flagged rows become alerts."""

    key: tuple[str, ...] = ()
    """Columns that say what an alert is about; by default the entity. Never a unique id, or every row is an alert."""

    window_minutes: PositiveFloat = 60.0
    """Flagged rows of one key, no further apart than this, are one event and told once."""

    again_minutes: PositiveFloat = 1440.0
    """An event that lasts so long after it was told is told again."""

    a_day: PositiveInt = 50
    """Most alerts a day; beyond that, one digest says how many more there were."""

    least_severity: Severity = "low"
    """Events less severe are no alerts."""

    amount: str | None = None
    """The column that says what is at stake; the sum over an event moves its severity, see the next two."""

    large_amount: PositiveFloat | None = None
    """From this sum on, an event is one level more severe."""

    small_amount: PositiveFloat | None = None
    """Below this sum, an event is one level less severe."""

    shown: tuple[str, ...] = ()
    """Further columns to show in an alert."""

    mask: dict[str, Mask] = Field(default_factory=dict)
    """Columns nobody is to read in full: hash, last4 (all but the last four signs), or hide."""

    mask_secret: Secret | None = None
    """What hashes are made with, or anybody could try all card numbers: ${NAME} or file:PATH."""

    history: dict[str, str] = Field(default_factory=dict)
    """Features about an entity's own past, and how to say them, such as "{value} times its 30-day mean"."""

    recovery: bool = False
    """Whether it is told when an event is over, as it should be for sensors."""

    recovery_minutes: PositiveFloat = 15.0
    """How long an entity must have been normal for that."""

    quiet: QuietSection | None = None
    """Hours in which nobody is to be woken."""

    review_url: str | None = None
    """The address of a page about an alert; {id}, {entity} and {version} are filled in."""

    run_url: str | None = None
    """The address of the MLflow run or model version; {version} is filled in."""

    answers: AnswersSection | None = None
    """How people answer an alert by a link: fraud, fine, or unsure."""

    templates: Place | None = None
    """A folder with texts of your own, such as text.j2 or slack.j2, in place of those shipped."""

    allow_addresses: tuple[str, ...] = ()
    """Private networks that may be sent to, such as 10.1.0.0/16 or 127.0.0.1; public ones always may."""

    retry: RetrySection = RetrySection()
    """How delivery goes on when a target does not take an alert."""

    file: FileSection = Field(default=_DEFAULT_FILE)
    """A file with one JSON object a line."""

    log: LogSection = LogSection()
    """The log of the service."""

    webhook: WebhookSection | None = None
    """A receiver of your own, by Standard Webhooks 1.0."""

    alertmanager: AlertmanagerSection | None = None
    """Prometheus Alertmanager."""

    pagerduty: PagerDutySection | None = None
    """PagerDuty, Events API v2."""

    slack: SlackSection | None = None
    """Slack, by an incoming webhook."""

    email: EmailSection | None = None
    """Mail by SMTP."""

    apprise: AppriseSection | None = None
    """Any of the services that Apprise knows: Teams, Telegram, Matrix, ntfy, Opsgenie and a hundred more."""

    @field_validator("allow_addresses")
    @classmethod
    def _networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ipaddress.ip_network(value, strict=False)
            except ValueError:
                raise ValueError(f"expected networks such as 10.1.0.0/16 or 127.0.0.1, received {value!r}.") from None
        return values

    @field_validator("key")
    @classmethod
    def _no_score(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value in _NOT_A_GROUP:
                raise ValueError(f"{value!r} differs from row to row, so every row would be an alert. Leave it out.")
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "hash" in self.mask.values() and self.mask_secret is None:
            raise ValueError("`mask` asks for a hash. Set `mask_secret`, or all card numbers could be tried out.")
        if self.amount is None and (self.large_amount is not None or self.small_amount is not None):
            raise ValueError("`large_amount` and `small_amount` need the column: set `amount`.")
        if self.large_amount is not None and self.small_amount is not None and self.small_amount >= self.large_amount:
            raise ValueError("`small_amount` must be less than `large_amount`.")
        return self

    def check(self, columns: ColumnsSection) -> None:
        """Refuse a key that names each row.

        Raises
        ------
        ValueError
            If the key holds the column that tells rows apart.
        """
        for name in self.key:
            if name in (columns.key, columns.time):
                raise ValueError(
                    f"`alerts.key` holds {name!r}, which differs from row to row, so every row would be an alert. "
                    f"Group by what a person would look into, such as the account."
                )

    def group_by(self, columns: ColumnsSection) -> tuple[str, ...]:
        """The columns that say what an alert is about; none if all rows are about the same."""
        return self.key or ((columns.entity,) if columns.entity is not None else ())

    def columns_wanted(self, columns: ColumnsSection) -> tuple[str, ...]:
        """The columns of the rows that alerts need beside the verdicts, without the key, the time and the entity."""
        wanted = (*self.group_by(columns), *((self.amount,) if self.amount else ()), *self.shown)
        have = (columns.key, columns.time, columns.entity)
        return tuple(dict.fromkeys(name for name in wanted if name not in have))
