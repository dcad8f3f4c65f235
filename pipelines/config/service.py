"""The part of the configuration about the service: when its jobs run, and where it keeps its state."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipelines.config.values import DEFAULT_STORE, Section, Url, Zone, hide_password
from pipelines.cron import parse

_HEADER = re.compile(r"[A-Za-z0-9-]+")


class JobSection(Section):
    """When a job runs: its keys, or just when, or no for never."""

    enabled: bool = True
    """Whether it runs at all."""

    when: str = "every 5m"
    """Such as `every 5m` (s, m, h, d), or five fields as in crontab, with a time zone behind them if need be."""

    jitter: NonNegativeInt = 0
    """Seconds by which a run is put off at most, at random, so that not all services start at once."""

    grace: PositiveInt = 43_200
    """Seconds after which a missed run is left out; of several missed runs, one is made up for."""

    @model_validator(mode="before")
    @classmethod
    def _in_a_word(cls, given: Any) -> Any:
        """``score: every 10s`` says when, and ``score: false`` whether at all."""
        if isinstance(given, str):
            return {"when": given}
        return {"enabled": given} if isinstance(given, bool) else given

    @field_validator("when")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse(value)
        return value


class RetrainJob(JobSection):
    """When the detector is trained again."""

    when: str = "0 3 * * sun"
    """Such as `every 5m` (s, m, h, d), or five fields as in crontab, with a time zone behind them if need be."""


class DriftJob(JobSection):
    """When drift is looked for."""

    when: str = "30 4 * * *"
    """Such as `every 5m` (s, m, h, d), or five fields as in crontab, with a time zone behind them if need be."""


class DeliverJob(JobSection):
    """When what waits is sent."""

    when: str = "every 1m"
    """Such as `every 5m` (s, m, h, d), or five fields as in crontab, with a time zone behind them if need be."""


class HousekeepingJob(JobSection):
    """When the service tidies up."""

    when: str = "15 2 * * *"
    """Such as `every 5m` (s, m, h, d), or five fields as in crontab, with a time zone behind them if need be."""


class JobsSection(Section):
    """When the jobs run."""

    score: JobSection = JobSection()
    """Score what has come since the last run."""

    retrain: RetrainJob = RetrainJob()
    """Learn again, compare with the detector that serves, keep the better one."""

    drift: DriftJob = DriftJob()
    """Compare recent rows with those learnt from."""

    deliver: DeliverJob = DeliverJob()
    """Send out what waits to be sent."""

    housekeeping: HousekeepingJob = HousekeepingJob()
    """Tidy up: old records, files left over from a crash, rows that came too late."""


class ApiSection(Section):
    """What programs may ask of the service under `/v1`, with keys that `detector keys create` makes."""

    enabled: bool = True
    """Whether there is anything under `/v1`; without a key, nothing there answers."""

    per_second: PositiveFloat = 300.0
    """Requests a second that a key may make on average, and ten times as many at once; beyond, it is told to wait."""

    most_megabytes: PositiveFloat = 10.0
    """The largest request that is read."""

    most_events: PositiveInt = 10_000
    """Events that one request may have scored."""

    hold_hours: PositiveFloat = 48.0
    """Hours for which an event that was scored on request counts in the past of later ones, unless it comes before."""


class ProxySection(Section):
    """Single sign-on: a proxy before the console says in a header who somebody is. Off until a header is named.

    The proxy must take the header away from what browsers send, and nothing else at its address may reach the service.
    """

    header: str | None = None
    """The header with the name of whoever is signed in, such as `X-Forwarded-User` or `Remote-User`."""

    addresses: tuple[str, ...] = ()
    """Addresses or networks of the proxies, such as 127.0.0.1 or 10.1.0.0/28; from elsewhere the header is ignored."""

    groups_header: str | None = None
    """A header with the groups they are in, with commas between them, such as `X-Forwarded-Groups`."""

    viewers: tuple[str, ...] = ()
    """Names, and groups as `group:NAME`, of those who may look at everything; `*` for all whom the proxy lets in."""

    analysts: tuple[str, ...] = ()
    """The same of those who may answer alerts as well."""

    admins: tuple[str, ...] = ()
    """The same of those who may also run jobs, promote models and change rules."""

    @field_validator("header", "groups_header")
    @classmethod
    def _is_header(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER.fullmatch(value):
            raise ValueError(f"expected the name of a header, such as X-Forwarded-User, received {value!r}.")
        return value

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                network = ipaddress.ip_network(value, strict=False)
            except ValueError:
                raise ValueError(f"expected networks such as 10.1.0.0/28 or 127.0.0.1, received {value!r}.") from None
            if network.prefixlen == 0:
                raise ValueError(f"{value} is everybody, and anybody could say who they are. Name the proxy's address.")
        return values

    @model_validator(mode="after")
    def _is_whole(self) -> ProxySection:
        if self.header is None and (self.addresses or self.groups_header):
            raise ValueError("`header` names no header, so nobody is signed in by it. Name it, or leave the rest out.")
        if self.header is not None and not self.addresses:
            raise ValueError("`addresses` names no proxy, so the header would never count. Name the proxy's address.")
        if self.header is not None and not (self.viewers or self.analysts or self.admins):
            raise ValueError("Nobody has a role. Name somebody, or a group, in `viewers`, `analysts` or `admins`.")
        return self


class ConsoleSection(Section):
    """The pages under `/console` that people work in; they sign in with a key: `view`, `review` or `admin`."""

    enabled: bool = True
    """Whether there are any."""

    hours: PositiveFloat = 12.0
    """Hours for which a browser stays signed in."""

    proxy: ProxySection = ProxySection()
    """Single sign-on by a header of a proxy."""


class ServiceSection(Section):
    """What `detector serve` does, and when."""

    store: Url = DEFAULT_STORE
    """The database of the service's own state: an SQLite file, or a PostgreSQL database."""

    timezone: Zone = "UTC"
    """The time zone of jobs that name none."""

    jobs: JobsSection = JobsSection()
    """When the jobs run."""

    cursor: str | None = None
    """For a table: the column that grows with every row that comes in, a number or a time of arrival."""

    lateness: NonNegativeFloat = 60.0
    """For a table: how far behind the newest row a late one is looked for, in seconds, or in numbers."""

    start: Literal["all", "new"] = "all"
    """What the first run scores: all that is there, or only what comes after; `detector backfill` scores the rest."""

    settle: NonNegativeFloat = 5.0
    """For files: seconds that a file must not have changed before it is read."""

    broken_after: PositiveFloat = 3_600.0
    """For files: seconds after which a file that is still incomplete is quarantined, with the reason."""

    replaced: Literal["keep", "rescore"] = "keep"
    """A file that was scored and is then replaced: keep its scores and say so, or score it as a new file."""

    repeated_rows: Literal["skip", "score"] | None = None
    """A row whose `columns.key` and values came before, in another file or batch: skip and count it, or score it \
again. By default, rows of files are skipped. One with other values is a correction, and is scored."""

    keep_keys: Annotated[int, Field(ge=1, le=10_000)] = 90
    """Days that a row is known after it came last, in 24 bytes; up to half as many more. Longer than from one export \
to the next."""

    batch_rows: PositiveInt = 1_000_000
    """Rows of one batch, about; a whole file is never split."""

    most_quarantined: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The share of a batch's rows that may be unusable; above it the log warns, and an alert says so once."""

    most_failures: PositiveInt = 3
    """Failures of a job in a row after which an alert says so, until it works again; two, if they last for a day."""

    lease: PositiveFloat = 15.0
    """Seconds without a sign of life after which another instance takes over."""

    stop_within: PositiveFloat = 20.0
    """Seconds that a batch in hand is given to finish when the service is to end; then it is undone."""

    keep_runs: PositiveInt = 90
    """Days that records of runs and of requests for them are kept, and files that a crash left over."""

    keep_scores: PositiveInt | None = None
    """Days that stored scores are kept after they were written, and rows that could not be used; by default, for \
ever. Fewer make what-if and the history of an entity shorter."""

    keep_alerts: PositiveInt | None = None
    """Days that alerts are kept after their last row, with deliveries, verdicts and comments; by default, for ever. \
Verdicts teach the next detector: fewer days leave it less to learn from."""

    keep_audit: Annotated[int, Field(ge=30)] = 3_650
    """Days that the audit trail is kept: who had what done. The database refuses less than 30."""

    host: str = "127.0.0.1"
    """The address to answer on: 0.0.0.0 for all."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 8321
    """The port to answer on, with /console, /v1, /healthz, /readyz and /metrics; 0 for any that is free."""

    api: ApiSection = ApiSection()
    """What programs may ask under `/v1`."""

    console: ConsoleSection = ConsoleSection()
    """The pages that people work in, under `/console`."""

    log: Literal["pretty", "json"] = "pretty"
    """How the log is written: for people, or one JSON object a line."""

    @property
    def may_have_state(self) -> bool:
        """False where the state would be an SQLite file that is not there; a look that loads no database driver.

        >>> ServiceSection(store="sqlite:////nowhere/service.db").may_have_state
        False
        >>> ServiceSection(store="postgresql://host/name").may_have_state
        True
        """
        kind, _, place = self.store.partition(":///")
        return not kind.startswith("sqlite") or Path(place.partition("?")[0]).is_file()

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, hide_password(value) if name == "store" else value


# Read like values of the file, so that its path starts from the folder of the file.
DEFAULT_SERVICE: Any = {}
