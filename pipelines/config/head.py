"""The parts of the configuration about what labels teach: the head, and the reports it learns from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipelines.config.data import SourceSection
from pipelines.config.values import Section


def check_whole_heads(encoder: str, units: int) -> None:
    """Raise ``ValueError`` if a transformer's width cannot be parted among its four attention heads."""
    if encoder == "transformer" and units % 4:
        raise ValueError(f"units expected a multiple of 4 for a transformer, received {units}.")


class ReportsSection(Section):
    """Reports of fraud that come later than the rows: chargebacks in a file or a table, by the key of the row."""

    source: SourceSection
    """Where they are: files, or a database."""

    key: str | None = None
    """The column that names the reported row. By default as in `columns.key`."""

    at: str = "reported_at"
    """The column that says when it was reported; what is reported later than now is not known yet."""

    label: str | None = None
    """The column that says what was found, 1 fraud and 0 not. Without it, every report is of a fraud."""


class HeadEventsSection(Section):
    """A network that reads each row among the events before it, and learns from labels: one more input of the head.

    Its window is made of `last`, `gap` and `code` in `features.history`, of one entity. It stays only if, on the later
    of the labelled rows, the head ranks better with it.
    """

    enabled: bool = False
    """Whether it is fitted."""

    encoder: Literal["gru", "lstm", "transformer"] = "gru"
    """What reads the window."""

    units: PositiveInt = 32
    """Width of the network; for a transformer a multiple of 4."""

    epochs: PositiveInt = 8
    """Passes over the labelled rows."""

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        check_whole_heads(self.encoder, self.units)
        return self


class HeadSection(Section):
    """What labels teach: boosted trees over columns, features and the members' scores, once there are enough labels."""

    enabled: bool = True
    """Whether it is fitted; it decides only if it has beaten the unsupervised risk on later labelled rows."""

    least_anomalies: PositiveInt = 100
    """Fewest known anomalies to learn from."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the rows that it learns from and the members do not, or their scores would look too good to it."""

    trees: PositiveInt = 100
    """Trees a model."""

    models: PositiveInt = 3
    """Models of different seeds, averaged."""

    verdicts: bool = True
    """Whether answers to alerts count as labels too, from the moment they were given; also for `features`."""

    events: HeadEventsSection = HeadEventsSection()
    """A network that reads each row among the events before it, and learns from labels: one more input of the head."""

    trusted: tuple[str, ...] = ()
    """Columns that tell the labels nearly perfectly and are known when a row happens. With others that do, no head \
decides: they are likely filled in afterwards, as the state of a case is."""

    reports: ReportsSection | None = None
    """Later reports of fraud, by key of the row; for `features` too. Rows in none are normal after the label delay."""
