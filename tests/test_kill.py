"""Processes that really die: SIGKILL at every point of a scoring run, then a new start."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import backlog, soak
from benchmarks.soak import KILLED, POINTS, POINTS_OF_A_TABLE, POINTS_OF_FILES, Site, run
from tests.sensor_sites import SensorSite, bundle_of, detector
from tests.service_sites import NOTHING_WRONG, score

ROOT = Path(__file__).parents[1]
CASES = [
    *(("files to files", False, point) for point in [*POINTS, *POINTS_OF_FILES]),
    *(("table to table", False, point) for point in [*POINTS[5:-1], *POINTS_OF_A_TABLE]),
    *(("files to table", True, point) for point in ("landing.insert", "score.moving", "score.committed")),
    *(("table to files", False, point) for point in ("landing.renamed", "score.committing", "score.committed")),
]


@pytest.fixture(scope="module")
def sensor_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], SensorSite]:
    """Makes projects of a detector that looks to both sides, so that rows wait."""
    bundle = bundle_of(tmp_path_factory.mktemp("sensors"), trailing=False)
    return lambda folder: SensorSite(folder, bundle)


@pytest.mark.parametrize(("way", "shares", "point"), CASES, ids=str)
def test_killed_run_loses_and_doubles_nothing(
    tiny_bundle: Path, tmp_path: Path, way: str, shares: bool, point: str
) -> None:
    """After SIGKILL at any point, the next run scores every row once, with what has come in meanwhile."""
    site = Site(tmp_path / "site", tiny_bundle, way, shares=shares)
    site.add(60)

    assert run(site.folder, f"{point}:1") == KILLED
    site.add(40)
    assert run(site.folder) == 0

    assert site.count() == NOTHING_WRONG
    assert score(site).outcome == "skipped"


def test_many_batches_with_random_kills(tiny_bundle: Path, tmp_path: Path) -> None:
    """The short form of `make soak`: batch after batch, killed at random."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")

    found = soak.soak(site, 20, random.Random(3))

    assert {name: found[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    assert found["kills"] > 3
    assert found["failures"] == 0


SENSOR_POINTS = ["landing.renamed", "score.moving", "score.committing"]


@pytest.mark.parametrize("point", [*SENSOR_POINTS, "score.committed"])
def test_killed_run_keeps_the_memory_of_sensors(
    sensor_site: Callable[[Path], SensorSite], tmp_path: Path, point: str
) -> None:
    """What the next rows are scored with moves with the cursor: scores stay those of the whole series."""
    site = sensor_site(tmp_path / "site")
    site.add(60)
    assert run(site.folder) == 0
    site.add(50)

    assert run(site.folder, f"{point}:1") == KILLED
    site.add(40)
    assert run(site.folder) == 0

    assert len(site.scores()) == 150 - 2 * detector(trailing=False).scorer_.models[""].ahead
    assert site.scored_as_whole(detector(trailing=False).scorer_)


def test_sensors_with_random_kills(sensor_site: Callable[[Path], SensorSite], tmp_path: Path) -> None:
    """Batch after batch, of rows that wait for others, each run killed at random."""
    site, rng, kills = sensor_site(tmp_path / "site"), random.Random(5), 0

    for _ in range(5):
        site.add(rng.randint(1, 90))
        while (code := run(site.folder, f"{rng.choice(POINTS)}:1" if rng.random() < 0.6 else "")) != 0:
            assert code == KILLED
            kills += 1

    assert kills > 1
    assert len(site.scores()) >= site.written - 2 * 16
    assert site.scored_as_whole(detector(trailing=False).scorer_)


def test_full_disk_keeps_nothing_and_the_next_run_all(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where the operating system refuses to write on, the batch is undone; with room again, it is scored."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    site.add(3_000)
    code = (
        "import resource, signal, sys\n"
        "from benchmarks.soak import score_in_child\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import pipelines.sinks.batch_files as files\n"
        "stage = files.FileBatchSink.stage\n"
        "def limited(*args, **given):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        return stage(*args, **given)\n"
        "    finally:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "files.FileBatchSink.stage = limited\n"
        "score_in_child(sys.argv[1], '')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(site.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 1
    assert "(ulimit -f, or the file system). " in done.stderr
    assert site.scored() == {}
    assert list((site.folder / "scores").glob(".*")) == []
    assert score(site).rows == 3_000
    assert site.count() == NOTHING_WRONG


def test_soak_prints_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of the long form is a JSON object with the figures, and the exit code says whether all is well."""
    code = soak.main(["--batches", "4", "--seed", "1"])

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert {name: found[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    assert found["batches"] == 4


def test_backlog_is_scored_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert backlog.main(["--rows", "2500", "--file-rows", "1000", "--kills", "1", "--longest", "0.1"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found | {"rows": 2500, "lost": 0, "doubled": 0, "open": 0, "exit_code": 0, "kills": 1} == found


def test_backlog_counts_what_is_lost_and_doubled(tmp_path: Path) -> None:
    site = soak.Site(tmp_path / "site", tmp_path, "files to files")
    site.written = 4
    (site.folder / "scores").mkdir()
    for name, keys in (("1", [0, 1, 1]), ("2", [3, 1])):
        pd.DataFrame({"id": keys}).to_parquet(site.folder / "scores" / f"{name}.parquet")
    assert backlog.times_scored(site).tolist() == [1, 3, 0, 1]
