"""From the configuration to the library's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.policy import Budget, Policy

if TYPE_CHECKING:
    from detector.assembly import OnStep
    from detector.schema import Schema
    from detector.tabular import TabularDetector
    from pipelines.config import Config, PolicySection


def policy_of(section: PolicySection) -> Policy:
    """The flagging rule a configuration asks for."""
    budget = None if section.budget is None else Budget(rows=section.budget.rows, per=section.budget.per)
    return Policy(quantile=section.quantile, fdr=section.fdr, budget=budget)


def detector_of(config: Config, schema: Schema, *, on_step: OnStep | None = None) -> TabularDetector:
    """An unfitted detector as a configuration describes it."""
    from detector.encoders.dense import DenseAutoencoder
    from detector.tabular import TabularDetector
    from detector.training import Training

    section = config.train
    chosen = {name: getattr(section, name) for name in ("autoencoder", "forest", "neighbours")}
    network = section.autoencoder
    return TabularDetector(
        schema=schema,
        members=tuple(name for name, member in chosen.items() if member.enabled),
        autoencoder=DenseAutoencoder(
            hidden=network.hidden,
            code=network.code,
            noise=network.noise,
            mask=network.mask,
            groups=network.groups,
            loss=network.loss,
            training=Training(
                epochs=network.epochs,
                batch_size=network.batch_size,
                max_steps=network.max_steps,
                learning_rate=network.learning_rate,
                patience=network.patience,
                trim=network.trim,
            ),
        ),
        trees=section.forest.trees,
        max_samples=section.forest.max_samples,
        references=section.neighbours.references,
        clean_references=section.neighbours.clean_references,
        clean_share=section.clean_share,
        calibration_share=section.calibration_share,
        tail=section.tail,
        name=config.name,
        random_state=config.random_state,
        on_step=on_step,
    )
