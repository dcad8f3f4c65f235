"""The record of a training goes to disk and back whole, and one of an earlier version is still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from detector import Budget, Policy
from pipelines.tracking import DatasetFacts, Spool, TrainingRecord, keep_training

PNG = b"\x89PNG"
EXAMPLE = pd.DataFrame({"amount": [40.0], "fee": [1.0]})

# What a spool of the version before this record was a class holds, key by key.
OLDER: dict[str, Any] = {
    "experiment": "payments",
    "model_name": "payments",
    "dataset": {"name": "rows", "source": "rows.csv", "rows": 1, "digest": "d", "columns": {"amount": "numeric"}},
    "compared": None,
    "params": {"a.b": "1"},
    "metrics": {"ap": 0.5, "auroc": None},
    "members": {"forest": {"ap": 0.4, "parity": None}},
    "curves": {"loss": [2.0, 1.0]},
    "texts": {"decision.md": "postgresql://ann:***@db/x"},
    "usage": [[1000, "process_memory_megabytes", 120.5]],
    "config_text": "source:\n  url: postgresql://ann:***@db/x\n",
    "tags": {"job": "retrain"},
    "description": "## Promoted",
    "policy": {"policy": {"budget": {"rows": 50, "per": "day"}, "fdr": 0.1}},
    "alias": "challenger",
    "serving": "champion",
    "run_name": "retrain v{version}: keep",
    "started": 1.5,
    "ended": 2.5,
}


@pytest.fixture
def record(tmp_path: Path) -> TrainingRecord:
    """A record with every part."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    return TrainingRecord(
        experiment="payments",
        model_name="payments",
        bundle=tmp_path / "bundle",
        example=EXAMPLE,
        dataset=DatasetFacts("rows", "rows.csv", 1, "d", {"amount": "numeric"}),
        params={"a": {"b": 1}},
        metrics={"ap": 0.5, "auroc": None},
        members={"forest": {"ap": 0.4, "parity": None}},
        curves={"loss": [2, 1]},
        figures={"risk": PNG},
        texts={"decision.md": "postgresql://ann:s3cret@db/x"},
        usage=[(1000, "process_memory_megabytes", 120.5)],
        config_text="source:\n  url: postgresql://ann:s3cret@db/x\n",
        tags={"job": "retrain"},
        description="## Promoted",
        policy=Policy(fdr=0.1, budget=Budget(rows=50, per="day")),
        alias="challenger",
        run_name="retrain v{version}: keep",
        started=1.5,
        ended=2.5,
    )


def test_record_is_written_as_the_versions_before_wrote_it(record: TrainingRecord) -> None:
    """So that either version reads the entries of the other; passwords stay out."""
    assert json.loads(json.dumps(record.to_json())) == OLDER


def test_record_comes_back_from_the_spool(record: TrainingRecord, tmp_path: Path) -> None:
    """Facts, example, figures and bundle."""
    spool = Spool(tmp_path / "spool")
    name = keep_training(spool, record)

    (entry,) = spool.entries()
    found = TrainingRecord.read(entry.values, entry.folder)

    assert (entry.kind, entry.folder.name) == ("training", name)
    assert found.to_json() == record.to_json()
    assert found.policy == record.policy
    assert found.usage == record.usage
    assert found.figures == {"risk": PNG}
    assert (found.bundle / "bundle.json").read_text() == "{}"
    pd.testing.assert_frame_equal(found.example, EXAMPLE)


def test_record_of_an_earlier_version_lacks_what_is_newer(tmp_path: Path) -> None:
    """Facts that came later have their default."""
    EXAMPLE.to_parquet(tmp_path / "example.parquet")
    needed = ("experiment", "model_name", "dataset")

    found = TrainingRecord.read({name: OLDER[name] for name in needed}, tmp_path)

    assert (found.alias, found.policy, found.metrics) == ("champion", None, {})


def test_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A fact that is unknown here is not lost without a word."""
    EXAMPLE.to_parquet(tmp_path / "example.parquet")

    with pytest.raises(TypeError, match="colour"):
        TrainingRecord.read(OLDER | {"colour": "blue"}, tmp_path)
