"""A local Spark for tests, and what they compare."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.config import Config
from pipelines.scoring.one_off import score
from pipelines.scoring.reports import ScoreReport

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
JAVA = shutil.which("java") or (os.environ.get("JAVA_HOME") and Path(os.environ["JAVA_HOME"], "bin", "java").exists())
MISSING = (
    "pyspark is not installed: make spark"
    if find_spec("pyspark") is None
    else ("Java is not installed: make spark" if not JAVA else None)
)
"""Why Spark cannot be tested here; None if it can."""
PARTITIONS = 4


@contextmanager
def local_spark() -> Iterator[Any]:
    """Spark in two threads, with four partitions wherever rows are spread."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.default.parallelism": str(PARTITIONS),
        "spark.sql.shuffle.partitions": str(PARTITIONS),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()


def read_scores(report: ScoreReport) -> pd.DataFrame:
    """What a run on Spark wrote, in some order."""
    return pd.read_parquet(report.output.removeprefix("file://"))


def read_quarantine(report: ScoreReport) -> pd.DataFrame:
    """The rows that it could not use."""
    files = sorted(Path(report.quarantine.removeprefix("file://")).glob("*.csv"))
    found = [pd.read_csv(file, dtype=str) for file in files]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def assert_as_local(
    config: Config,
    folder: Path,
    *,
    by: str,
    input: str | None = None,  # noqa: A002 - the option's name
) -> tuple[ScoreReport, ScoreReport]:
    """Score on this machine alone and on Spark, and compare all that is written and said; both reports.

    Risks must agree to 1e-6; flags, reasons and all that is no number exactly. ``by`` names the rows.
    """
    from pipelines.spark.score import score_on_spark

    local = score(config, input=input, output=str(folder / "local.parquet"), now=NOW)
    spark = score_on_spark(config, input=input, output=str(folder / "scores"), batch="b", now=NOW)

    expected = pd.read_parquet(local.output).sort_values(by).reset_index(drop=True)
    found = read_scores(spark).sort_values(by).reset_index(drop=True)
    assert found.columns.tolist() == expected.columns.tolist()
    numbers = expected.select_dtypes("float").columns
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=0, atol=1e-6)
    others = expected.columns.difference(numbers)
    pd.testing.assert_frame_equal(found[others], expected[others])
    said = ("rows", "scored", "flagged", "quarantined", "policy", "note")
    assert {name: getattr(spark, name) for name in said} == {name: getattr(local, name) for name in said}
    if local.quarantined:
        bad = pd.read_csv(local.quarantine, dtype=str).sort_values(["row", "reason"]).reset_index(drop=True)
        also = read_quarantine(spark).sort_values(["row", "reason"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(also, bad)
    return local, spark
