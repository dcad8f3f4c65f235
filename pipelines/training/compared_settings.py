"""The settings that a reviewer compares from run to run: few enough to be read, out of nearly two hundred."""

from __future__ import annotations

from typing import Any

import yaml

from pipelines.config import Config
from pipelines.tracking.facts import flat_params

MOST = 60
APART = (
    "service",
    "alerts",
    "output",
    "tracking",
    "bundle",
    "report",
    "source.path",
    "source.url",
    "source.topic",
    "columns.names",
)
"""Where things are and go: of no account for what a detector finds."""
ALWAYS = (
    *("name", "kind", "random_state", "policy.quantile", "policy.fdr", "policy.budget.rows", "policy.budget.per"),
    *("columns.key", "columns.time", "columns.entity", "columns.label", "columns.others", "columns.ignore"),
    *("features.history", "features.calendar", "features.reported", "train.rows", "train.review_share"),
    *("train.clean_share", "train.tail", "train.autoencoder.enabled", "train.forest.enabled", "train.head.enabled"),
    *("train.neighbours.enabled", "train.sequence.enabled", "train.autoencoder.training.epochs", "retrain.promote"),
    *("train.forest.trees", "train.neighbours.references", "retrain.days", "retrain.label_delay_days"),
)
OF_SENSORS = ("series.models", "series.members", "series.window", "series.smoothing", "series.quantile")


def compared_settings(config: Config) -> dict[str, str]:
    """Those that always matter, and those that are not as by default; at most 60, by name.

    >>> config = Config(source={"path": "a.csv"}, policy={"quantile": 0.99}, train={"forest": {"max_samples": 64}})
    >>> found = compared_settings(config)
    >>> found["policy.quantile"], found["train.forest.max_samples"], "service.port" in found, len(found) <= 60
    ('0.99', '64', False, True)
    """
    given, usual = flat_params(config.to_dict()), flat_params(Config(source={"path": "x"}).to_dict())
    here = {name: value for name, value in given.items() if not name.startswith(APART)}
    of_kind = OF_SENSORS if config.kind == "sensors" else ()
    first = [name for name in (*ALWAYS, *of_kind) if name in here]
    changed = [name for name in here if name not in first and here[name] != usual.get(name)]
    return {name: here[name] for name in sorted([*first, *changed][:MOST])}


def whole_settings(config: Config) -> str:
    """All settings as YAML, those that were not given with their defaults; passwords hidden."""
    values: dict[str, Any] = config.to_dict()
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
