"""The detector as executors get it: one file, fetched once by each, loaded once by each process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from detector.detectors.table.scorer import TabularScorer
from detector.errors import SettingError
from detector.persist import bundle

if TYPE_CHECKING:
    from pyspark import SparkContext

_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of zip files: the same bundle is the same file


def ship(context: SparkContext, folder: Path) -> str:
    """Offer a bundle to the executors; what it is called there."""
    return _shipped(context, folder, bundle.fingerprint(folder))


@cache
def _shipped(context: SparkContext, folder: Path, fingerprint: str) -> str:
    name = f"detector-{fingerprint}.zip"
    place = Path(tempfile.mkdtemp(prefix="detector-spark-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)  # an executor that comes later fetches it too
    with zipfile.ZipFile(place / name, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            file.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix(), _BEGINNING), path.read_bytes())
    context.addFile(str(place / name))
    return name


@cache
def shipped_scorer(name: str) -> TabularScorer:
    """The detector, in an executor. Spark runs a process a core, so each keeps to one thread."""
    from pyspark import SparkFiles

    place = Path(SparkFiles.get(name))
    folder = place.with_suffix("")
    if not folder.is_dir():
        _unpack(place, folder)
    scorer = bundle.load(folder)
    if not isinstance(scorer, TabularScorer):
        raise SettingError("Spark scores tables.")
    scorer.graph.threads = scorer.inside.threads = 1
    return scorer


def _unpack(place: Path, folder: Path) -> None:
    """Unpack beside, then rename: processes of one executor share the folder."""
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    with zipfile.ZipFile(place) as file:
        file.extractall(beside)
    try:
        os.rename(beside, folder)  # noqa: PTH104 - Path.rename, of folders, says less of what it does
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)  # another process was first
        if not folder.is_dir():
            raise
