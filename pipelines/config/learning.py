"""The parts of the configuration about learning what is normal; what labels teach is in ``head``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from pipelines.config.head import HeadSection, check_whole_heads
from pipelines.config.values import Section

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
        check_whole_heads(self.encoder, self.units)
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
