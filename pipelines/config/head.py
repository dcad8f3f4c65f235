"""The part of the configuration about learning from labels: chargebacks, and what people said of alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from pipelines.config.data import SourceSection
from pipelines.config.section import Section


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

    reports: ReportsSection | None = None
    """Later reports of fraud, by key of the row; for `features` too. Rows in none are normal after the label delay."""
