"""The tables of the service's state; the migrations beside this file create and change them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A time with a zone; kept as UTC, and UTC when read back, also where the database knows no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - its signature
        """To UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002 - its signature
        """From UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables of the service."""

    metadata = sa.MetaData(
        naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcTime(), dict[str, Any]: sa.JSON(), float: sa.Double()}


class Cursor(Base):
    """How far a source has been scored."""

    __tablename__ = "cursors"

    source: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[dict[str, Any] | None]
    """The largest value of the ingestion column that was scored; empty for files, which have a manifest."""
    rows: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    moved_at: Mapped[datetime]


class SourceFile(Base):
    """A file of a source, and how much of it was scored."""

    __tablename__ = "source_files"
    __table_args__ = (sa.UniqueConstraint("source", "name"), sa.Index(None, "source", "state"))

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    name: Mapped[str]
    """Its path from the folder of the source."""
    generation: Mapped[int] = mapped_column(default=1)
    """Grows when the file is replaced by another of the same name and that one is scored too."""
    size: Mapped[int] = mapped_column(sa.BigInteger)
    changed_ns: Mapped[int] = mapped_column(sa.BigInteger)
    """When it was last written to, as the file system says."""
    fingerprint: Mapped[str] = mapped_column(default="")
    state: Mapped[str]
    """waiting, claimed, scored, skipped, broken or changed."""
    reason: Mapped[str] = mapped_column(default="")
    rows: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    """Rows of it that were scored or quarantined."""
    seen_at: Mapped[datetime]
    batch: Mapped[int | None]


class Batch(Base):
    """A window of the input: claimed before it is read, done when its scores are in place."""

    __tablename__ = "batches"
    __table_args__ = (sa.Index(None, "source", "state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    purpose: Mapped[str]
    """score, or backfill."""
    window: Mapped[dict[str, Any]]
    state: Mapped[str]
    """claimed or done."""
    model_version: Mapped[str] = mapped_column(default="")
    run: Mapped[int | None]
    rows: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    scored: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    flagged: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    quarantined: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    repeated: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    """Rows that were skipped, because they came before as they are."""
    corrected: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    """Scored rows that came before with other values."""
    claimed_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class DayFlags(Base):
    """How many rows of a day a batch flagged; a budget a day counts them over all batches."""

    __tablename__ = "day_flags"
    __table_args__ = (sa.Index(None, "source", "day"),)

    batch: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    source: Mapped[str]
    flagged: Mapped[int]


class RecentKey(Base):
    """A row scored within the allowed lateness, so that looking for late rows does not score it again."""

    __tablename__ = "recent_keys"
    __table_args__ = (sa.Index(None, "source", "place"),)

    source: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[float]
    """The ingestion column as a number."""


class KnownRows(Base):
    """A part of the rows that came before, by hashes of their keys: see ``pipelines.ingest.row_memory``."""

    __tablename__ = "known_rows"
    __table_args__ = (sa.UniqueConstraint("source", "run", "part"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    run: Mapped[int]
    """What was written together; a later one has a larger number."""
    part: Mapped[int]
    parts: Mapped[int]
    """Of how many the run is made: each holds an equal range of hashes."""
    columns: Mapped[str]
    """Names the columns whose values were hashed."""
    rows: Mapped[int]
    oldest: Mapped[int]
    """The day since 1970 on which the row came that did not come again for longest."""
    marks: Mapped[bytes] = mapped_column(sa.LargeBinary)


class SeriesTail(Base):
    """The last rows of each series of a source, which the next ones are scored with."""

    __tablename__ = "series_tails"

    source: Mapped[str] = mapped_column(primary_key=True)
    batch: Mapped[int]
    """The batch they go up to."""
    rows: Mapped[bytes] = mapped_column(sa.LargeBinary)
    """An Arrow file, see ``pipelines.scoring.series_tails``."""


class ScoreFile(Base):
    """A file of scores that counts; another one in the folder is left over from a crash."""

    __tablename__ = "score_files"

    name: Mapped[str] = mapped_column(primary_key=True)
    batch: Mapped[int] = mapped_column(index=True)
    model_version: Mapped[str]
    rows: Mapped[int] = mapped_column(sa.BigInteger)
    size: Mapped[int] = mapped_column(sa.BigInteger)
    written_at: Mapped[datetime]


class Run(Base):
    """One run of a job, whatever became of it."""

    __tablename__ = "runs"
    __table_args__ = (sa.Index(None, "job", "started_at"), sa.Index(None, "outcome"))

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[str]
    trigger: Mapped[str]
    """schedule, request, or the job that asked for it."""
    instance: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str]
    """running, done, skipped, failed, missed, overlapped (the last still ran), stopped, or lost (the process died)."""
    rows: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    note: Mapped[str] = mapped_column(sa.Text, default="")
    error: Mapped[str] = mapped_column(sa.Text, default="")
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Lease(Base):
    """Who leads. ``term`` counts leaders, ``beat`` their signs of life."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    term: Mapped[int] = mapped_column(sa.BigInteger)
    beat: Mapped[int] = mapped_column(sa.BigInteger)


class Request(Base):
    """A run that a command asked the leader for."""

    __tablename__ = "requests"

    id: Mapped[int] = mapped_column(primary_key=True)
    job: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    asked_at: Mapped[datetime]
    taken: Mapped[bool] = mapped_column(default=False)
    run: Mapped[int | None]


class JobState(Base):
    """Whether a job is paused."""

    __tablename__ = "job_states"

    job: Mapped[str] = mapped_column(primary_key=True)
    paused: Mapped[bool] = mapped_column(default=False)


class DueTime(Base):
    """When a job runs next."""

    __tablename__ = "due_times"

    job: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[datetime]
    settings: Mapped[dict[str, Any]]
    """What the time was worked out from; empty if an earlier version wrote it down."""


class Audit(Base):
    """Who had what done, when and why: see ``pipelines.store.trail``. The database refuses to change it."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str]
    reason: Mapped[str] = mapped_column(sa.Text)
    arguments: Mapped[dict[str, Any]]
    batches: Mapped[int]
    rows: Mapped[int] = mapped_column(sa.BigInteger)
