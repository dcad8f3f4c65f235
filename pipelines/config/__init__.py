"""The configuration: one typed YAML file that says what is read, learned, flagged and written.

The text under a field is its documentation and its comment in the file that ``detector init`` writes.
Unknown keys are errors. Relative paths are relative to the folder of the file, ``~`` is the home folder, and
``${NAME}`` in a path or a URL is the environment variable of that name, so that secrets stay out of files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PrivateAttr, model_validator

from pipelines.config.alerting import DEFAULT_ALERTS, AlertsSection
from pipelines.config.data import ColumnsSection, OutputSection, SourceSection
from pipelines.config.features import FeaturesSection
from pipelines.config.learning import (
    AutoencoderSection,
    CleaningSection,
    ForestSection,
    NeighboursSection,
    TrainingSection,
    TrainSection,
)
from pipelines.config.policy import BudgetSection, PolicySection
from pipelines.config.reading import read_settings, read_text
from pipelines.config.retraining import DriftSection, RetrainSection
from pipelines.config.rules import ListSection, RuleSection, check_names
from pipelines.config.series import SeriesSection
from pipelines.config.service import DEFAULT_SERVICE, ServiceSection
from pipelines.config.values import Place, Section, Uri, hide_password

__all__ = [
    "AlertsSection",
    "AutoencoderSection",
    "BudgetSection",
    "CleaningSection",
    "ColumnsSection",
    "Config",
    "DriftSection",
    "FeaturesSection",
    "ForestSection",
    "ListSection",
    "NeighboursSection",
    "OutputSection",
    "PolicySection",
    "RetrainSection",
    "RuleSection",
    "Section",
    "SeriesSection",
    "ServiceSection",
    "SourceSection",
    "TrackingSection",
    "TrainSection",
    "TrainingSection",
    "load_config",
]

FILE_NAME = "detector.yaml"
TEXT_VARIABLE = "DETECTOR_CONFIG_TEXT"
"""Names a file whose text stands for that of the configuration: of the service, for the commands that it runs."""

# Read like values of the file, not built here, so that their paths start from the folder of the file.
_DEFAULT_OUTPUT: Any = {"path": "scores.parquet"}
_DEFAULT_TRACKING: Any = {}


class TrackingSection(Section):
    """Where runs and models are recorded: MLflow."""

    enabled: bool = True
    """Whether training is logged and the model registered."""

    uri: Uri = "sqlite:///mlflow.db"
    """A database file, a folder, or the address of an MLflow server."""

    experiment: str | None = None
    """The experiment that holds the runs. By default the name above."""

    model: str | None = None
    """The name of the registered model. By default the name above."""

    alias: str = "champion"
    """The alias that marks the version that serves."""


class Config(Section):
    """Everything a job needs to know."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "transactions"
    """What is watched: letters, digits, dots, dashes and underscores."""

    kind: Literal["table", "sensors"] = "table"
    """What the rows are: each to be scored by itself (table), or readings of sensors in the order of time (sensors)."""

    random_state: NonNegativeInt = 0
    """The seed; the same seed on the same rows gives the same detector."""

    source: SourceSection
    """Where the rows come from: files, or a database."""

    columns: ColumnsSection = ColumnsSection()
    """What the columns mean. Columns that are named nowhere are looked at, and their kind is guessed."""

    features: FeaturesSection = FeaturesSection()
    """What is measured of each row's past: of its card, account, terminal or device, as it was at that time."""

    train: TrainSection = TrainSection()
    """How the detector learns."""

    series: SeriesSection = SeriesSection()
    """How sensors are scored, where `kind` is sensors: windows of readings, rebuilt by a model of normal ones."""

    policy: PolicySection = PolicySection(fdr=0.1)
    """Which rows are flagged. Of several rules, all must agree: a cap and a floor."""

    rules: tuple[RuleSection, ...] = ()
    """What people know beside the model, each with `name`, `when`, `action`, `state`; see docs/rules.md."""

    lists: dict[str, ListSection] = Field(default={})
    """Lists that rules may look a column up in, by their names: stolen: {path: stolen.csv}."""

    output: OutputSection = Field(default=_DEFAULT_OUTPUT)
    """Where the scores go: a file, or a database table."""

    bundle: Place = Path("bundle")
    """The folder that holds the trained detector."""

    report: Place = Path("report.html")
    """The page that tells about the last training."""

    tracking: TrackingSection = Field(default=_DEFAULT_TRACKING)
    """Where runs and models are recorded: MLflow."""

    retrain: RetrainSection = RetrainSection()
    """How `detector retrain` learns again, and what a new detector must show before it serves."""

    drift: DriftSection = DriftSection()
    """How `detector drift` compares recent rows with those learnt from."""

    service: ServiceSection = Field(default=DEFAULT_SERVICE)
    """What `detector serve` does, and when."""

    alerts: AlertsSection = Field(default=DEFAULT_ALERTS)
    """What becomes an alert, when it is sent, and where it goes."""

    _file: Path | None = PrivateAttr(default=None)
    _text: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _two_places(self) -> Self:
        self.alerts.check(self.columns)
        if self.columns.entity_from is not None and self.source.path is None:
            raise ValueError("`columns.entity_from` takes names of files, and `source` has none. Leave it out.")
        self.source.with_columns(self.columns)
        if self.policy.explore and self.kind == "sensors":
            raise ValueError("`policy.explore` draws rows of tables, and `kind` is sensors. Leave it out.")
        check_names(self.rules)
        if self.rules and self.kind == "sensors":
            raise ValueError("`rules` are about rows of tables, and `kind` is sensors. Leave them out.")
        for setting, section in (
            ("train.sequence", self.train.sequence),
            ("train.head.events", self.train.head.events),
        ):
            if section.enabled:
                self.features.check_events(setting)
        if self.source.path is not None and self.source.path in (self.output.path, self.output.quarantine):
            raise ValueError("`output` would replace the file that `source` reads. Name another file.")
        if self.source.url is not None and (self.source.url, self.source.table) == (
            self.output.url,
            self.output.table,
        ):
            raise ValueError("`output` would append to the table that `source` reads. Name another table.")
        return self

    @property
    def anomaly(self) -> str:
        """What is looked for, in a word: fraud, or, of machines, a fault; a table of one's own says what."""
        return self.alerts.anomaly or ("fault" if self.kind == "sensors" else "fraud")

    @property
    def zone_of_times(self) -> str | None:
        """Whose clock tells the times of rows, where ``source.formats`` says it."""
        form = self.source.formats.get(self.columns.time or "")
        return None if form is None else form.timezone

    @property
    def clock(self) -> str:
        """Whose clock tells hour and weekday of readings."""
        return self.series.timezone or self.zone_of_times or self.service.timezone

    @property
    def skips_repeated_rows(self) -> bool:
        """Whether the service leaves out rows that came before: of files, if nothing else is said."""
        return (self.service.repeated_rows or ("score" if self.source.path is None else "skip")) == "skip"

    @property
    def file(self) -> Path | None:
        """The file this was read from."""
        return self._file

    @property
    def text(self) -> str:
        """The text it was read from."""
        return self._text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a log, passwords hidden."""
        values = self.model_dump(mode="json")
        for section, key in (("source", "url"), ("output", "url"), ("tracking", "uri"), ("service", "store")):
            if values[section][key] is not None:
                values[section][key] = hide_password(values[section][key])
        for each in values["lists"].values():
            each["url"] = each["url"] and hide_password(each["url"])
        return values


def load_config(path: str | Path, *, needs_secrets: bool = True) -> Config:
    """Read and check a configuration file.

    - ``path``: the file, or a folder that holds a ``detector.yaml``.
    - ``needs_secrets``: whether a secret of the alerts whose variable or file is not there is an error at once; else it
      is one where it is used, for commands that send nothing.

    Raises ``SettingError`` if there is no such file, it is not YAML, or a key or value has no meaning: all of them at
    once, each with its line.
    """
    file = file_of(path)
    text = read_text(Path(os.environ.get(TEXT_VARIABLE) or file))
    config = read_settings(file, Config, text=text, needs_secrets=needs_secrets)
    config._file, config._text = file.absolute(), text
    return config


def file_of(path: str | Path) -> Path:
    """The configuration that a command names: the file, or the one in the folder."""
    file = Path(path)
    return file / FILE_NAME if file.is_dir() else file
