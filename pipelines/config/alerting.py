"""The part of the configuration about alerts: what becomes one, and when."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from pipelines.config.alert_channels import (
    AlertmanagerSection,
    AppriseSection,
    EmailSection,
    FileSection,
    LogSection,
    MissingSecret,
    PagerDutySection,
    Secret,
    Severity,
    SlackSection,
    WebhookSection,
)
from pipelines.config.values import VERDICTS, Place, Section, Url, Zone

if TYPE_CHECKING:
    from pipelines.config.data import ColumnsSection

Mask = Literal["hash", "last4", "hide"]

_CLOCK = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d")
_NOT_A_GROUP = (*VERDICTS, "row")


class QuietSection(Section):
    """Hours in which nobody is to be woken."""

    since: str = "22:00"
    """When they begin, by the clock of the time zone."""

    until: str = "07:00"
    """When they end; what waited is then sent in one digest."""

    timezone: Zone = "UTC"
    """Whose clock."""

    wake_from: Severity = "critical"
    """Alerts at least as severe are sent at once all the same."""

    @field_validator("since", "until")
    @classmethod
    def _is_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError(f"expected a time of day such as 22:00, received {value!r}.")
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
        if not isinstance(value, MissingSecret) and len(value.get_secret_value()) < 16:
            raise ValueError("the secret is too short to sign with. Use at least 16 random characters.")
        return value


class RetrySection(Section):
    """How delivery goes on when a target does not take an alert."""

    first_seconds: PositiveFloat = 5.0
    """The wait after the first failure; it doubles each time, and up to half of it is left out at random."""

    most_seconds: PositiveFloat = 900.0
    """The longest such wait."""

    give_up_hours: PositiveFloat = 72.0
    """When an alert is given up as a dead letter; `detector alerts retry` sends it after all."""

    timeout: PositiveFloat = 10.0
    """Seconds to wait for a target to connect or to go on answering; three times as long for all of it."""


# Read like values of the file, so that their paths start from the folder of the file.
DEFAULT_ALERTS: Any = {}
_DEFAULT_FILE: Any = {}


class AlertsSection(Section):
    """What becomes an alert, when it is sent, and where it goes."""

    enabled: bool = True
    """Whether flagged rows become alerts."""

    key: tuple[str, ...] = ()
    """Columns that say what an alert is about; by default the entity. Never a unique id, or every row is an alert."""

    window_minutes: PositiveFloat = 60.0
    """Flagged rows of one key, no further apart than this, are one event and sent once."""

    again_minutes: PositiveFloat = 1440.0
    """An event that lasts so long after it was sent is sent again."""

    a_day: PositiveInt = 50
    """Most alerts a day; beyond that, one digest says how many more there were, and lists the most severe."""

    backlog_hours: PositiveFloat = 48.0
    """Events that ended so long before they are scored are a backlog: reported where `a_day` has room, taking none."""

    least_severity: Severity = "low"
    """Events less severe are no alerts."""

    anomaly: str = ""
    """What alerts ask people about: fraud, fault, intrusion, in one word. By default fault of sensors, else fraud."""

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
    """Whether it is reported when an event is over, as it should be for sensors."""

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

        Raises ``ValueError`` if the key holds the column that tells rows apart.
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
        """The columns of the rows that alerts need beside the scores, without the key, the time and the entity."""
        wanted = (*self.group_by(columns), *((self.amount,) if self.amount else ()), *self.shown)
        have = (columns.key, columns.time, columns.entity)
        return tuple(dict.fromkeys(name for name in wanted if name not in have))
