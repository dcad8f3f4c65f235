"""The parts of the configuration about time going on: learning again, and noticing that the world moved."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipelines.config.values import Section, Share


class RetrainSection(Section):
    """How `detector retrain` learns again, and what a new detector must show before it serves."""

    days: PositiveFloat = 90.0
    """Learn from the most recent days of `columns.time`; without a time, from the last `train.rows` rows."""

    label_delay_days: NonNegativeFloat = 30.0
    """How long it takes until a label can be trusted; younger labels are taken for unknown."""

    compare_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Share of those rows, the latest, that the new detector does not learn from; both are compared on them."""

    least_rows: PositiveInt = 500
    """Fewest rows to compare on; with fewer, the champion stays and nothing is trained."""

    least_anomalies: PositiveInt = 20
    """Fewest known anomalies to compare by labels; with fewer, anomalies are injected."""

    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """How sure a gain must be: the interval of the paired bootstrap."""

    least_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What the gain in average precision (or recall of injected anomalies) must exceed, surely."""

    most_loss: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """What a challenger may lose at most where it replaces a champion whose p-values are wrong."""

    most_calibration_distance: Share = 0.1
    """Largest distance of normal rows' p-values from uniform; beyond it a detector is wrongly calibrated."""

    most_alert_change: Annotated[float, Field(gt=1)] = 2.0
    """How many times the champion's alerts a challenger may raise, unless the champion is wrongly calibrated."""

    least_stability: Annotated[float, Field(ge=-1, le=1)] = 0.3
    """Least rank correlation with the champion's risks, unless the champion is wrongly calibrated; below it, look."""

    promote: Literal["auto", "never"] = "auto"
    """Whether a challenger that wins serves at once, or waits for `detector models promote`."""

    shadow_days: NonNegativeFloat = 0.0
    """How many days a challenger that wins scores in the shadow before it serves."""

    keep_versions: Annotated[int, Field(ge=2)] = 5
    """How many detectors stay on disk, to go back to."""

    timeout_minutes: PositiveFloat = 240.0
    """When a scheduled retraining is ended; the champion goes on."""


class DriftSection(Section):
    """How `detector drift` compares recent rows with those learnt from."""

    least_rows: PositiveInt = 200
    """Fewest new rows to look at; fewer wait for the next time."""

    most_rows: PositiveInt = 100_000
    """Most new rows to look at, the latest."""

    psi: PositiveFloat = 0.2
    """Population stability index from which a column has moved."""

    effect: PositiveFloat = 0.5
    """Standardised effect size from which a column has moved."""

    batches: PositiveInt = 5
    """How many checks are looked back on."""

    needed: PositiveInt = 3
    """In how many of them the same column must have moved, the latest among them, before it is called drift."""

    retrain: bool = False
    """Whether drift starts a retraining."""

    retrain_every_days: PositiveFloat = 7.0
    """At most one such retraining in so many days."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.needed > self.batches:
            raise ValueError("`needed` is larger than `batches`, so nothing would ever be drift. Lower it.")
        return self
