"""The parts of the configuration about learning and deciding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from pipelines.config.data import SourceSection
from pipelines.config.values import Section, Share

RULE = re.compile(r"(.+?)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


class TrainingSection(Section):
    """How a network is trained."""

    epochs: PositiveInt = 30
    """Most passes over the rows; training stops earlier when held-out rows no longer gain."""

    batch_size: PositiveInt = 256
    """Rows a step."""

    max_steps: PositiveInt = 6000
    """Most steps in all, whatever the number of rows."""

    optimiser: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """How steps are taken: adam, adamw (with decoupled weight decay), rmsprop, or sgd (with momentum)."""

    learning_rate: PositiveFloat = 1e-3
    """Largest step size; the schedule decides how it is reached and left."""

    schedule: Literal["cosine", "constant", "exponential", "plateau", "step", "warmup_cosine"] = "cosine"
    """The step size over time: falling evenly (cosine, exponential), in thirds (step), or when gains end (plateau)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor by which exponential (over the whole training), step and plateau lower the step size."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which warmup_cosine rises."""

    plateau_patience: PositiveInt = 3
    """Passes without gain after which plateau lowers the step size."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last step sgd keeps."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Share of each weight that adamw takes off a step, times the step size."""

    clip: Annotated[float, Field(ge=0)] = 1.0
    """Longest gradient of a weight matrix; longer ones are cut. 0 cuts nothing."""

    patience: PositiveInt = 10
    """Passes without gain after which training stops; the best weights are kept."""

    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the worst rows of a batch that the loss leaves out."""

    warm_start: bool = False
    """Whether training starts from the weights in the bundle, if there is one; columns and sizes must be the same."""


class AutoencoderSection(Section):
    """The network that learns to rebuild a normal row from a noisy copy of it."""

    enabled: bool = True
    """Whether this member takes part."""

    hidden: tuple[PositiveInt, ...] = (128,)
    """Width of each hidden layer, from the input inwards; the decoder mirrors them."""

    code: PositiveInt = 64
    """Width of the innermost layer."""

    noise: Annotated[float, Field(ge=0)] = 1.0
    """Largest standard deviation of the noise that training adds to scaled inputs; each row has its own."""

    least_noise: Annotated[float, Field(gt=0)] = 0.05
    """Smallest standard deviation of that noise."""

    levels: NonNegativeInt = 3
    """Levels of noise at which numbers are scored; 0 scores them as categories are, hidden in groups."""

    mask: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Largest share of a row's cells that training hides; every second row has some hidden."""

    groups: NonNegativeInt = 2
    """At scoring, categories are hidden in so many groups and scored by the others; 0 is faster and blinder."""

    loss: Literal["mse", "mae", "huber", "log_cosh"] = "mse"
    """How a reconstruction error counts: mse, or one that large errors pull less."""

    training: TrainingSection = TrainingSection()
    """How the network is trained."""


class ForestSection(Section):
    """The isolation forest: how few random cuts set a row apart."""

    enabled: bool = True
    """Whether this member takes part."""

    trees: PositiveInt = 100
    """Number of trees; below 100 the result depends on the seed."""

    max_samples: PositiveInt = 256
    """Rows each tree sees."""


class NeighboursSection(Section):
    """The neighbours: how far a row is from its nearest known row, and from where the rows around it pull it."""

    enabled: bool = True
    """Whether this member takes part."""

    references: PositiveInt = 2_000
    """Most rows to remember, which stand for all that are known; scoring time grows with it. Too few, and a rare \
    normal row has none near it."""

    kernel_references: PositiveInt = 2_000
    """Of these, the rows that pull."""

    clean_references: PositiveInt = 512
    """Known rows that stand for the bulk, by which training rows are ranked."""


def _check_whole_heads(encoder: str, units: int) -> None:
    if encoder == "transformer" and units % 4:
        raise ValueError(f"units expected a multiple of 4 for a transformer, received {units}.")


class SequenceSection(Section):
    """The network that reads a row among the events before it: what this entity did, in which order.

    Its window is made of `last`, `gap` and `code` in `features.history`, of one entity.
    """

    enabled: bool = False
    """Whether this member takes part."""

    encoder: Literal["gru", "lstm", "transformer", "conv1d"] = "gru"
    """What reads the window."""

    code: PositiveInt = 16
    """Width of the innermost layer."""

    units: PositiveInt = 32
    """Width of the network; for a transformer a multiple of 4."""

    mask: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the readings before the row that training hides; the row itself is always hidden."""

    own_weight: Annotated[float, Field(gt=0, le=1)] = 0.8
    """What the row itself counts against all that was before it."""

    loss: Literal["mse", "mae", "huber", "log_cosh"] = "mse"
    """How a reconstruction error counts: mse, or one that large errors pull less."""

    training: TrainingSection = TrainingSection()
    """How the network is trained; a warm start does not reach it."""

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        _check_whole_heads(self.encoder, self.units)
        return self


class CleaningSection(Section):
    """What is left out of training, though it can be read. The rows and reasons go to a file beside the bundle."""

    rules: tuple[str, ...] = ()
    """What a normal row obeys, such as ["amount > 0", "amount <= 10000"]: numeric columns, and < <= > >=."""

    isolation: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the rows to leave out, those an isolation forest finds easiest to isolate."""

    density: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the rows to leave out, those farthest from their nearest neighbours."""

    refit: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the rows, those a first detector finds riskiest, that a second one does not learn from; trains twice."""

    @field_validator("rules")
    @classmethod
    def _readable(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            if RULE.fullmatch(rule.strip()) is None:
                raise ValueError(f"expected a column, one of < <= > >=, and a number, received {rule!r}.")
        return rules

    def bounds(self) -> Iterator[tuple[str, str, float]]:
        """The rules in parts: column, comparison, number."""
        for rule in self.rules:
            column, comparison, number = RULE.fullmatch(rule.strip()).groups()  # type: ignore[union-attr]  # checked
            yield column, comparison, float(number)


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
        _check_whole_heads(self.encoder, self.units)
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


class TrainSection(Section):
    """How the detector learns."""

    rows: PositiveInt | None = 200_000
    """Most rows to learn from, a random sample of all; empty for every row."""

    review_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the rows kept from the detector altogether, at most 20,000, to measure how good it is."""

    calibration_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Share of the rows that networks do not learn from, at most 50,000: they tell how much better networks know the \
others. Every row calibrates, scored by what has not learnt from it."""

    cleaning: CleaningSection = CleaningSection()
    """What is left out of training, though it can be read. The rows and reasons go to a file beside the bundle."""

    clean_share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the rows, the forest's most unusual, that the other members do not learn from."""

    calibrate_on: Literal["known", "all"] = "known"
    """Which rows make p-values: those known to be normal (by `columns.label`, `features.reported` and \
`retrain.label_delay_days`), where half of all rows or more have a known label; or all. Anomalies that nobody has \
reported yet would hide others."""

    tail: Literal["extrapolated", "empirical", "pareto"] = "extrapolated"
    """How p-values go on beyond the riskiest calibration row: a little, by a heavy tail; not at all (empirical), so \
that few rows may flag nothing; or along a Pareto tail fitted to the riskiest 2 %, which promises nothing."""

    autoencoder: AutoencoderSection = AutoencoderSection()
    """The network that learns to rebuild a normal row from a noisy copy of it."""

    forest: ForestSection = ForestSection()
    """The isolation forest: how few random cuts set a row apart."""

    neighbours: NeighboursSection = NeighboursSection()
    """The neighbours: how far a row is from its nearest known row, and from where the rows around it pull it."""

    sequence: SequenceSection = SequenceSection()
    """The network that reads a row among the events before it: what this entity did, in which order."""

    head: HeadSection = HeadSection()
    """What labels teach: boosted trees over columns, features and the members' scores, once there are enough labels."""

    @model_validator(mode="after")
    def _some_member(self) -> Self:
        members = (self.autoencoder, self.forest, self.neighbours, self.sequence)
        if not any(member.enabled for member in members):
            raise ValueError("autoencoder, forest, neighbours and sequence are all disabled. Enable at least one.")
        return self


class BudgetSection(Section):
    """How many rows people can look at."""

    rows: PositiveInt
    """Most rows to flag."""

    per: Literal["batch", "day"] = "day"
    """In one run (batch), or on each day of the time column (day)."""


class PolicySection(Section):
    """Which rows are flagged. Of several rules, all must agree: a cap and a floor."""

    fdr: Share | None = None
    """False discovery rate: the share of false alarms among the flagged rows (Benjamini-Hochberg)."""

    quantile: Share | None = None
    """Flag rows riskier than this share of normal rows, such as 0.999."""

    explore: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the budget kept for rows sampled at random, whatever their risk: they show how much is missed."""

    rows_a_day: PositiveInt | None = None
    """About how many rows come a day; needed to explore with a budget a day, for the chance of each row."""

    budget: BudgetSection | None = None
    """Flag at most so many rows, the riskiest first."""

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if self.fdr is None and self.quantile is None and self.budget is None:
            raise ValueError("expected `fdr`, `quantile` or `budget`, or several; without any, nothing decides.")
        return self

    @model_validator(mode="after")
    def _room_to_explore(self) -> Self:
        if not self.explore:
            return self
        if self.budget is None or self.budget.rows <= self.explored:
            raise ValueError(
                "`explore` expected a `budget` that is larger than what is drawn. Set `budget.rows`, such as 50."
            )
        if self.budget.per == "day" and self.rows_a_day is None:
            raise ValueError(
                "`explore` with a budget a day expected `rows_a_day`, to know the chance of each row. Give it about, "
                "or set `per: batch` in the budget."
            )
        return self

    @property
    def explored(self) -> int:
        """How many rows of the budget are for those drawn at random."""
        return 0 if self.budget is None else ceil(round(self.explore * self.budget.rows, 9))
