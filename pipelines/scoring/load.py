"""The trained detector as something that scores batches, loaded once a process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from detector.detectors.series.scorer import SequenceScorer
from detector.errors import SettingError, nearest
from detector.persist import bundle
from pipelines.config import Config
from pipelines.factory.detector import audit_sample_of, policy_of
from pipelines.factory.gates import gated
from pipelines.features.wording import wording_of
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.contract import BatchScorer
from pipelines.scoring.series import SeriesBatchScorer
from pipelines.scoring.staleness import Staleness
from pipelines.scoring.table import TableBatchScorer


def load_scorer(config: Config, cache: ProcessCache) -> BatchScorer:
    """The detector that serves, kept in memory until another one takes its place.

    Raises
    ------
    BundleError
        If there is none, or it was changed.
    SettingError
        See ``scorer_of``.
    """
    place = config.bundle  # a link to a bundle may be moved to another one meanwhile, and then has another stamp
    return cache.of("serving", _token(config, place, bundle.stamp(place)), lambda: _load(config, cache))


def _load(config: Config, cache: ProcessCache) -> BatchScorer:
    folder = config.bundle.resolve()
    version = bundle.fingerprint(folder)
    return cache.of(
        "scorer",
        _token(config, folder, version),
        lambda: scorer_of(bundle.load(folder), version=version, config=config),
    )


def load_challenger(config: Config, folder: Path, cache: ProcessCache) -> BatchScorer:
    """A detector on trial, kept likewise. It explains nothing and samples nothing."""
    version = bundle.fingerprint(folder)
    return cache.of(
        "challenger",
        _token(config, folder, version),
        lambda: scorer_of(bundle.load(folder), version=version, config=config, explains=False),
    )


def scorer_of(scorer: bundle.Scorer, *, version: str, config: Config, explains: bool = True) -> BatchScorer:
    """A detector with the policy and the words of a configuration; unless it explains, its scores are only counted.

    Raises ``SettingError`` if the policy does not fit the rows, or alerts name a column whose values are not at hand.
    """
    wanted = tuple(config.alerts.columns_wanted(config.columns)) if config.alerts.enabled and explains else ()
    for name in wanted:
        if name not in scorer.schema.features:
            raise SettingError(
                f"`alerts` names the column {name!r}, which the detector does not learn from, so its values are not at "
                f"hand. Name the key, the time, the entity or a feature. {nearest(name, scorer.schema.features)}"
            )
    policy = policy_of(config.policy, scorer.schema)
    if isinstance(scorer, SequenceScorer):
        return SeriesBatchScorer(
            gated(scorer, config),
            version=version,
            policy=policy,
            alert_columns=wanted,
            staleness=Staleness.of(config),
            wording=wording_of(config),
            join=config.series.join,
            explains=explains,
            lateness=timedelta(minutes=config.series.late_minutes),
        )
    return TableBatchScorer(
        scorer,
        version,
        policy,
        alert_columns=wanted,
        wording=wording_of(config),
        sample=audit_sample_of(config) if explains else None,
        explains=explains,
    )


def _token(config: Config, folder: Path, version: object) -> object:
    return (
        folder,
        version,
        config.policy,
        config.series,
        config.alerts,
        config.columns,
        config.features,
        config.service.timezone,
    )
