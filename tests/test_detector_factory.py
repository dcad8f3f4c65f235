from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from detector.decide.policy import Budget, Policy
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.training_filters import Bounds, Filters
from detector.encoders.table import TableAutoencoder
from detector.errors import SchemaError, SettingError
from detector.persist import bundle
from detector.schema import Schema
from pipelines.config import Config, PolicySection, TrainSection
from pipelines.factory.detector import MEMBER_COLUMNS, TAKEN, detector_of, fit_warm, policy_of, refuse_taken_names
from pipelines.scoring.one_off import score

TIMED = Schema(time="when", numeric=("amount",))
Configure = Callable[..., Config]


@pytest.mark.parametrize(
    ("rules", "policy"),
    [
        ({"quantile": 0.9}, Policy(quantile=0.9)),
        ({"fdr": 0.2, "budget": {"rows": 3, "per": "batch"}}, Policy(fdr=0.2, budget=Budget(rows=3))),
        ({"budget": {"rows": 3}}, Policy(budget=Budget(rows=3, per="day"))),
    ],
)
def test_policy_is_what_the_configuration_says(rules: dict[str, Any], policy: Policy) -> None:
    """Every rule reaches the library."""
    assert policy_of(PolicySection(**rules), TIMED) == policy


def test_daily_budget_without_a_time_is_an_error() -> None:
    """It could not be told which rows share a day; per batch nothing is missing."""
    untimed = Schema(numeric=("amount",))

    assert policy_of(PolicySection(budget={"rows": 3, "per": "batch"}), untimed).budget == Budget(rows=3)
    with pytest.raises(SettingError, match="`columns.time` names no column. .* `per: batch`"):
        policy_of(PolicySection(budget={"rows": 3}), untimed)


@pytest.mark.parametrize("role", ["key", "time", "entity"])
@pytest.mark.parametrize("name", ["risk", "flagged", "forest", "scored_at"])
def test_columns_named_like_scores_are_refused(role: str, name: str) -> None:
    """A key called "risk" would be written over, or stand in the scores twice."""
    with pytest.raises(SchemaError, match=f"The {role} column is named '{name}'.* AS {name}_{role}"):
        refuse_taken_names(Schema(**{role: name}, numeric=("amount",)))


def test_features_and_label_may_be_named_like_scores() -> None:
    """They are not written beside the scores."""
    refuse_taken_names(Schema(key="id", label="flagged", numeric=("risk", "forest")))


def test_taken_names_are_those_of_the_scores(trained: Path, configure: Configure) -> None:
    """The names refused are exactly the columns that scoring adds at most, and the label's."""
    config = configure(trained, policy={"budget": {"rows": 50, "per": "batch"}, "explore": 0.1})

    report = score(config, now=pd.Timestamp("2026-03-02", tz="UTC").to_pydatetime())

    columns = set(pd.read_parquet(report.output)) - {"transaction_id", "time", "card_id"}
    rules = {"rules_hit", "hidden_by", "rules_version"}
    assert columns | {"truth", "sequence"} | rules == set(TAKEN + MEMBER_COLUMNS)
    assert set(MEMBER_COLUMNS) - {"sequence"} == set(bundle.load(config.bundle).members)


NETWORK = {
    "hidden": ("hidden", [48, 24], (48, 24)),
    "code": ("code", 12, 12),
    "noise": ("noise", 0.3, 0.3),
    "least_noise": ("least_noise", 0.1, 0.1),
    "levels": ("levels", 5, 5),
    "mask": ("mask", 0.2, 0.2),
    "groups": ("groups", 3, 3),
    "loss": ("loss", "huber", "huber"),
}
TRAINING = {
    "epochs": 7,
    "batch_size": 33,
    "max_steps": 44,
    "learning_rate": 0.05,
    "patience": 3,
    "trim": 0.1,
    "optimiser": "sgd",
    "schedule": "step",
    "decay": 0.3,
    "warmup": 0.2,
    "plateau_patience": 5,
    "momentum": 0.5,
    "weight_decay": 0.2,
    "clip": 2.0,
}


def detector(tmp_path: Path, configure: Configure, **train: Any) -> Any:
    return detector_of(configure(tmp_path, train=train, random_state=5), TIMED)


@pytest.mark.parametrize("setting", NETWORK)
def test_settings_of_the_network_arrive(tmp_path: Path, configure: Configure, setting: str) -> None:
    """Each setting of the autoencoder changes the network that is trained."""
    name, given, expected = NETWORK[setting]

    assert getattr(detector(tmp_path, configure, autoencoder={setting: given}).autoencoder, name) == expected


@pytest.mark.parametrize("setting", TRAINING)
def test_settings_of_the_training_arrive(tmp_path: Path, configure: Configure, setting: str) -> None:
    """Each setting of the training changes how the network is trained."""
    made = detector(tmp_path, configure, autoencoder={"training": {setting: TRAINING[setting]}})

    assert getattr(made.autoencoder.training, setting) == TRAINING[setting]


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"forest": {"trees": 9}}, "trees", 9),
        ({"forest": {"max_samples": 99}}, "max_samples", 99),
        ({"neighbours": {"references": 99}}, "references", 99),
        ({"neighbours": {"kernel_references": 9}}, "kernel_references", 9),
        ({"neighbours": {"clean_references": 9}}, "clean_references", 9),
        ({"clean_share": 0.4}, "clean_share", 0.4),
        ({"calibration_share": 0.4}, "calibration_share", 0.4),
        ({"calibrate_on": "all"}, "calibrate_on", "all"),
        ({"tail": "pareto"}, "tail", "pareto"),
        (
            {"cleaning": {"isolation": 0.02, "density": 0.01, "refit": 0.03}},
            "filters",
            Filters(isolation=0.02, density=0.01, refit=0.03),
        ),
        (
            {"cleaning": {"rules": ["amount >= 0", "amount<=1e4"]}},
            "filters",
            Filters(rules={"amount": Bounds(least=0, most=10_000)}),
        ),
        ({"forest": {"enabled": False}}, "members", ("autoencoder", "neighbours")),
        ({}, "random_state", 5),
        ({}, "name", "payments"),
        ({}, "schema", TIMED),
    ],
)
def test_settings_of_the_detector_arrive(
    tmp_path: Path, configure: Configure, given: dict[str, Any], name: str, expected: Any
) -> None:
    """Each setting of the other members changes the detector."""
    assert getattr(detector(tmp_path, configure, **given), name) == expected


def test_no_setting_is_left_untested() -> None:
    """A new setting of training must be added here, or nobody would notice that it does nothing."""
    sections = TrainSection.model_fields
    network = sections["autoencoder"].annotation.model_fields

    assert set(network) == {"enabled", "training", *NETWORK}
    assert set(network["training"].annotation.model_fields) == {*TRAINING, "warm_start"}
    assert set(sections) - {"autoencoder", "forest", "neighbours", "cleaning"} == {
        "rows",  # of the job, see test_train
        "review_share",  # of the job, see test_train
        "calibrate_on",
        "calibration_share",
        "clean_share",
        "tail",
        "sequence",  # see test_sequence_member
        "head",  # see test_head_jobs
    }


def test_warm_start_takes_the_detector_in_the_bundle(
    tmp_path: Path, configure: Configure, fitted: TabularDetector
) -> None:
    """Its weights are where the next network starts; without a bundle it starts from nothing."""
    warm = {"training": {"warm_start": True}}

    assert detector(tmp_path, configure, autoencoder=warm).warm_start is None
    bundle.save(fitted.scorer_, configure(tmp_path).bundle)
    started = detector(tmp_path, configure, autoencoder=warm).warm_start
    assert started.weights.keys() == fitted.scorer_.weights.keys()
    assert detector(tmp_path, configure).warm_start is None


@pytest.mark.slow
def test_weights_that_do_not_fit_any_more_are_left(
    fitted: TabularDetector,
    mixed_rows: pd.DataFrame,
    mixed_schema: Schema,
    tiny_autoencoder: TableAutoencoder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A new country is a column more for the network; the retraining of that night starts from nothing, and says so."""
    brief = replace(tiny_autoencoder, training=replace(tiny_autoencoder.training, epochs=1, least_steps=1))
    settings = {"schema": mixed_schema, "members": ("autoencoder",), "trees": 10, "autoencoder": brief}
    more = pd.concat([mixed_rows, mixed_rows.iloc[:20].assign(country="new", id=range(9_000, 9_020))])

    found = fit_warm(TabularDetector(warm_start=fitted.scorer_, **settings), more)

    assert found.warm_start is None
    assert "new" in found.scorer_.columns.levels[-1]
    assert "Training starts from nothing. The earlier weights do not fit this network" in caplog.text


def test_rule_can_leave_out_its_bound(tmp_path: Path, configure: Configure) -> None:
    """``amount > 0`` is no place for 0."""
    bounds = detector(tmp_path, configure, cleaning={"rules": ["amount > 0", "amount < 5"]}).filters.rules["amount"]

    assert 0 < bounds.least < 1e-300
    assert 4.999 < bounds.most < 5
