"""What is imported when: scoring needs little, and importing the package needs almost nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import detector
from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save

ONLY_FOR_FITTING = ["tensorflow", "keras", "onnx", "tf2onnx", "sklearn", "mlflow", "matplotlib", "pyspark"]
ROOT = Path(__file__).parents[1]


def modules_after(code: str, *arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_scoring_imports_nothing_that_only_fitting_needs(
    fitted: TabularDetector, fresh_rows: pd.DataFrame, tmp_path: Path
) -> None:
    """Load a bundle with all members, judge, explain, encode, decode: no TensorFlow, no scikit-learn, no onnx."""
    save(fitted.scorer_, tmp_path / "bundle")
    fresh_rows.iloc[:50].to_pickle(tmp_path / "rows.pkl")
    code = (
        "import pandas as pd, detector\n"
        "scorer = detector.load(sys.argv[1])\n"
        "rows = pd.read_pickle(sys.argv[2])\n"
        "verdicts = scorer.judge(rows, policy=detector.Policy(budget=detector.Budget(rows=5)))\n"
        "assert verdicts.frame['flagged'].sum() == 5 and verdicts.frame['reasons'].ne('').sum() == 5\n"
        "from detector.cleaning.clean import clean\n"
        "cleaned = clean(rows, scorer.schema).rows\n"
        "assert len(scorer.decode(scorer.encode(cleaned))) == len(scorer.reconstruct(cleaned)) == 50\n"
        "scorer.feature_errors(cleaned)"
    )

    loaded = modules_after(code, str(tmp_path / "bundle"), str(tmp_path / "rows.pkl"))

    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(ONLY_FOR_FITTING)


def test_executors_of_spark_need_what_scoring_needs() -> None:
    """What their tasks import brings no training, no MLflow, no database and no Spark session."""
    parts = ("deciding", "features", "measuring", "repeats", "shipped", "text_rows", "writing")
    loaded = modules_after("import " + ", ".join(f"pipelines.spark.{part}" for part in parts))

    assert "onnxruntime" in loaded
    assert loaded.isdisjoint([*ONLY_FOR_FITTING, "sqlalchemy", "fastapi"])


def test_service_imports_nothing_that_only_fitting_needs() -> None:
    """It scores, alerts and answers for months; what training needs would be 100 MB and two seconds more."""
    loaded = modules_after(
        "import pipelines.service.serve, pipelines.scoring.batch_transaction, pipelines.alerts.delivery.deliver"
    )

    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(ONLY_FOR_FITTING)


def test_jobs_are_loaded_before_threads_begin() -> None:
    """All that run in the service's process, and nothing that only a training needs."""
    code = "from pipelines.jobs.catalogue import JOBS, load_jobs\nload_jobs()\nbefore = set(sys.modules)\n"
    code += "import pipelines.scoring.job, pipelines.scoring.replay, pipelines.service.housekeeping\n"
    code += "import pipelines.alerts.delivery.deliver, pipelines.tracking.messages\nassert set(sys.modules) == before"

    assert modules_after(code).isdisjoint(ONLY_FOR_FITTING)


def fastest(*command: object) -> float:
    """The seconds of a process, the least of three."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, check=True)
        taken.append(time.perf_counter() - started)
    return min(taken)


@pytest.mark.slow
def test_a_row_is_scored_soon_after_the_start(
    fitted: TabularDetector, fresh_rows: pd.DataFrame, tmp_path: Path
) -> None:
    """A whole process that scores a file of one row takes a few times what importing pandas takes, no more."""
    save(fitted.scorer_, tmp_path / "bundle")
    fresh_rows.iloc[:1].to_parquet(tmp_path / "row.parquet")
    settings = {"name": "one", "source": {"path": "row.parquet"}, "output": {"path": "scores.parquet"}}
    (tmp_path / "detector.yaml").write_text(json.dumps(settings))
    program = "from pipelines.cli import app; app()"
    subprocess.run([sys.executable, "-c", program, "score", tmp_path], cwd=ROOT, capture_output=True, check=True)

    baseline = fastest(sys.executable, "-c", "import pandas")

    assert fastest(sys.executable, "-c", program, "score", tmp_path) < 5 * baseline
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 1


def test_importing_the_package_is_cheap() -> None:
    """Not even NumPy is loaded before a name is used."""
    loaded = modules_after("import detector\nassert 'TabularDetector' in dir(detector)")

    assert "detector" in loaded
    assert loaded.isdisjoint([*ONLY_FOR_FITTING, "numpy", "pandas", "onnxruntime"])


@pytest.mark.slow
def test_importing_the_estimator_loads_no_tensorflow() -> None:
    """Defining a detector is quick; TensorFlow comes with ``fit``."""
    loaded = modules_after("import detector\ndetector.TabularDetector()")

    assert "sklearn" in loaded
    assert loaded.isdisjoint(["tensorflow", "keras", "onnx", "mlflow"])


def test_every_public_name_can_be_had() -> None:
    """``__all__`` is what there is, and each name is the thing of that name."""
    assert [getattr(detector, name).__name__ for name in detector.__all__] == detector.__all__
    assert set(dir(detector)) == {*detector.__all__, "__version__"}


def test_package_knows_its_version() -> None:
    """As installed, or said to be unknown."""
    assert detector.__version__[0].isdigit()


def test_unknown_name_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="module 'detector' has no attribute 'Tabular'"):
        _ = detector.Tabular


def test_a_past_in_memory_loads_nothing_that_one_on_disk_needs() -> None:
    """RocksDB is loaded where a past lies on disk, and nowhere else."""
    code = (
        "import tempfile, pathlib, pandas as pd\n"
        "from detector.features import FeatureSet, History, load_history, save_history\n"
        "import pipelines.features.feature_state, pipelines.scoring.one_off\n"
        "history = History(FeatureSet(('count by card over 1d',), time='time'))\n"
        "history.push(pd.DataFrame({'time': pd.to_datetime(['2024-01-01']), 'card': ['c']}))\n"
        "load_history(save_history(history, pathlib.Path(tempfile.mkdtemp()) / 'history.npz'))"
    )

    assert "rocksdict" not in modules_after(code)
