"""Many rows: what a file of them takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from detector.detectors.table.detector import TabularDetector
from detector.persist.bundle import save

PIECE = 500_000


def written(path: Path, pieces: int) -> Path:
    """The same rows again and again."""
    rows = pa.table({name: np.random.default_rng(i).normal(size=PIECE) for i, name in enumerate("ab")})
    with pq.ParquetWriter(path, rows.schema) as writer:
        for _ in range(pieces):
            writer.write_table(rows)
    return path


def peak_megabytes(config: Path, rows: Path) -> float:
    """The most memory that a process held which scored the file."""
    command = [sys.executable, "-m", "benchmarks.score_once", config, rows, rows.with_suffix(".scores.parquet")]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"])


@pytest.mark.slow
def test_ten_million_rows_are_scored_in_the_memory_of_one_million(tmp_path: Path) -> None:
    """Three numbers of a row stay in memory until all is decided, not the row, nor what its members say."""
    known = pd.DataFrame(np.random.default_rng(7).normal(size=(1_000, 2)), columns=["a", "b"])
    save(TabularDetector(members=("forest",), trees=5).fit(known).scorer_, tmp_path / "bundle")
    settings = {
        "name": "many",
        "source": {"path": "rows.parquet"},
        "output": {"path": "scores.parquet"},
        "policy": {"quantile": 0.999},
        "bundle": "bundle",
        "tracking": {"enabled": False},
    }
    config = tmp_path / "detector.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    few = peak_megabytes(config, written(tmp_path / "few.parquet", 2))
    many = peak_megabytes(config, written(tmp_path / "many.parquet", 20))

    assert pq.read_metadata(tmp_path / "many.scores.parquet").num_rows == 20 * PIECE
    assert many < 1_000
    assert (many - few) * 1e6 / (18 * PIECE) < 40, f"{few:.0f} MB, {many:.0f} MB"
