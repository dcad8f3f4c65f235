"""From the configuration to the library's own objects."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from detector.decide.audit_sample import AuditSample
from detector.decide.policy import Budget, Policy
from detector.errors import SchemaError, SettingError, WarmStartError
from detector.schema import Schema
from pipelines.config.values import VERDICTS

if TYPE_CHECKING:
    import pandas as pd

    from detector.detectors.series.detector import SequenceDetector
    from detector.detectors.table.detector import TabularDetector
    from detector.detectors.table.scorer import TabularScorer
    from detector.detectors.table.training_filters import Filters
    from detector.members.event_sequence import Steps
    from detector.training.settings import OnStep, Training
    from pipelines.config import CleaningSection, Config, PolicySection, TrainingSection


log = logging.getLogger("detector.training")

# Columns of the scores that a column of the table would hide.
TAKEN = (*VERDICTS, "truth", "model_version", "scored_at")
NOT_OF_DETECTOR = {
    "sampling",
    "encoder",
    "timezone",
    "join",
    "learn_from",
    "late_minutes",
    "silent_minutes",
    "silent_by_clock",
    "gates",
    "sensors",
    "maintenance",
}
"""Settings of series that say how a detector serves, or are read by themselves."""
MEMBER_COLUMNS = ("autoencoder", "forest", "neighbours", "contraction", "rare_values", "sequence")


def policy_of(section: PolicySection, schema: Schema) -> Policy:
    """The flagging rule a configuration asks for; its budget is without what is kept for rows drawn at random.

    Raises ``SettingError`` if it has a budget a day, and the rows have no time.
    """
    if section.budget is not None and section.budget.per == "day" and schema.time is None:
        raise SettingError(
            "`policy.budget` is per day, but `columns.time` names no column. Name it (and train again), "
            "or set `per: batch` in the budget."
        )
    budget = None
    if section.budget is not None:
        budget = Budget(rows=section.budget.rows - section.explored, per=section.budget.per)
    return Policy(quantile=section.quantile, fdr=section.fdr, budget=budget)


def audit_sample_of(config: Config) -> AuditSample | None:
    """How rows are drawn that the policy does not flag; None if none are."""
    policy = config.policy
    if not policy.explore or policy.budget is None:
        return None
    among = policy.rows_a_day if policy.budget.per == "day" else None
    return AuditSample(policy.explore * policy.budget.rows, among=among, random_state=config.random_state)


def refuse_taken_names(schema: Schema) -> None:
    """Make sure that the columns that go with the scores can stand beside them.

    Raises ``SchemaError`` if the key, the time or the entity has the name of a column of the scores.

    >>> refuse_taken_names(Schema(key="id", numeric=("risk",)))
    """
    for role, name in schema.roles.items():
        if role != "label" and name in TAKEN + MEMBER_COLUMNS:
            raise SchemaError(
                f"The {role} column is named {name!r}, and so is a column of the scores. Rename it; "
                f"for a database, in `source.query`: SELECT {name} AS {name}_{role}, ..."
            )


def detector_of(config: Config, schema: Schema, *, on_step: OnStep | None = None) -> TabularDetector:
    """An unfitted detector as a configuration describes it.

    Raises ``SettingError`` if the member `sequence` takes part, and no feature says what came before a row.
    """
    from detector.detectors.table.detector import TabularDetector
    from detector.encoders.events import EventAutoencoder
    from detector.encoders.table import TableAutoencoder

    section = config.train
    chosen = {name: getattr(section, name) for name in ("autoencoder", "forest", "neighbours", "sequence")}
    network, events = section.autoencoder, section.sequence
    return TabularDetector(
        schema=schema,
        members=tuple(name for name, member in chosen.items() if member.enabled),
        autoencoder=TableAutoencoder(
            hidden=network.hidden,
            code=network.code,
            noise=network.noise,
            least_noise=network.least_noise,
            levels=network.levels,
            mask=network.mask,
            groups=network.groups,
            loss=network.loss,
            training=training_of(network.training),
        ),
        trees=section.forest.trees,
        max_samples=section.forest.max_samples,
        references=section.neighbours.references,
        kernel_references=section.neighbours.kernel_references,
        clean_references=section.neighbours.clean_references,
        filters=_filters(section.cleaning),
        clean_share=section.clean_share,
        calibration_share=section.calibration_share,
        calibrate_on=section.calibrate_on,
        tail=section.tail,
        name=config.name,
        random_state=config.random_state,
        events=EventAutoencoder(
            kind=events.encoder,
            training=training_of(events.training),
            **events.model_dump(exclude={"enabled", "encoder", "training"}),
        ),
        steps=event_steps(config),
        warm_start=_earlier(config) if network.training.warm_start else None,
        on_step=on_step,
    )


def event_steps(config: Config) -> Steps | None:
    """The columns that hold the events before each row, if a member or the head reads them.

    Raises ``SettingError`` if no feature says what came before a row.
    """
    from detector.members.event_sequence import steps_of

    if not config.train.sequence.enabled and not config.train.head.events.enabled:
        return None
    return steps_of(config.features.feature_set(config.columns).all)


def sequence_detector_of(config: Config, schema: Schema, *, on_step: OnStep | None = None) -> SequenceDetector:
    """An unfitted detector of series as a configuration describes it."""
    from detector.detectors.series.detector import SequenceDetector
    from detector.series.sampling import Sampling

    section = config.series
    return SequenceDetector(
        schema=schema,
        sampling=Sampling(**section.sampling.model_dump(), clock=config.zone_of_times),
        encoder=section.encoder.kind,
        fall_back=section.encoder.fall_back,
        training=training_of(section.encoder.training) if section.encoder.kind is not None else None,
        name=config.name,
        random_state=config.random_state,
        on_step=on_step,
        timezone=config.clock,
        **section.model_dump(exclude=NOT_OF_DETECTOR),
    )


def fit_warm(detector: Any, rows: pd.DataFrame) -> Any:
    """Fit, from nothing where the earlier weights do not fit any more, as after a new category or another release."""
    try:
        return detector.fit(rows)
    except WarmStartError as error:
        log.warning("Training starts from nothing. %s", error)
        return detector.set_params(warm_start=None).fit(rows)


def training_of(section: TrainingSection) -> Training:
    """How a network is trained, as a configuration says."""
    from detector.training.settings import Training

    return Training(**section.model_dump(exclude={"warm_start"}))


def _filters(section: CleaningSection) -> Filters:
    """What is left out of training; an excluded bound becomes the nearest number beyond it."""
    from detector.detectors.table.training_filters import Bounds, Filters

    rules: dict[str, Bounds] = {}
    for column, comparison, number in section.bounds():
        bounds = rules.get(column, Bounds())
        if comparison.startswith(">"):
            least = number if comparison == ">=" else math.nextafter(number, math.inf)
            rules[column] = replace(bounds, least=max(least, bounds.least))
        else:
            most = number if comparison == "<=" else math.nextafter(number, -math.inf)
            rules[column] = replace(bounds, most=min(most, bounds.most))
    return Filters(rules=rules, isolation=section.isolation, density=section.density, refit=section.refit)


def _earlier(config: Config) -> TabularScorer | None:
    """The detector in the bundle, if there is one of this kind; training starts from nothing otherwise."""
    from detector.detectors.table.scorer import TabularScorer
    from detector.errors import BundleError
    from detector.persist import bundle

    try:
        earlier = bundle.load(config.bundle)
    except BundleError:
        return None
    return earlier if isinstance(earlier, TabularScorer) and earlier.weights else None
