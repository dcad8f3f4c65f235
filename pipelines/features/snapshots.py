"""The past on disk: snapshots of it after some batch, and beside them what each later batch adds."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pandas as pd

from detector.atomic import whole_file
from detector.errors import BundleError
from detector.features import History, load_history
from pipelines.features import stored_history
from pipelines.features.engine import FeatureEngine
from pipelines.testing.failpoints import failpoint

log = logging.getLogger("detector.features")

SNAPSHOT = re.compile(r"past-(\d{8})\.(npz|state)")


class Snapshots:
    """The files of one source's past.

    - ``folder``: Made when missing.
    - ``engine``: Holds the history in memory.
    """

    def __init__(self, folder: Path, engine: FeatureEngine) -> None:
        self.folder = folder
        self.engine = engine

    def latest(self, mark: int) -> tuple[int, History | None]:
        """The latest snapshot that is not ahead of the database, if it is of these features and of the same sources."""
        numbers = sorted(self._paths())
        for number in [each for each in numbers if each > mark]:  # the database was set back
            stored_history.remove(self._paths()[number])
        fitting = [each for each in numbers if each <= mark]
        if not fitting:
            return 0, None
        try:
            history = load_history(self._paths()[fitting[-1]])
        except BundleError as error:
            log.warning("%s", error)
            return 0, None
        fits = self.engine.continues(history) and history.lateness == self.engine.history.lateness
        return fitting[-1], history if fits else None

    def write(self, mark: int) -> None:
        """Write the history, then delete what it makes needless."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored_history.forget_idle(self.engine.history)
        failpoint("past.snapshot")
        place = self.folder / f"past-{mark:08d}"
        written = stored_history.keep(self.engine.history, place, most=self.engine.most_bytes)
        if written.is_file():
            _sync(written)
        failpoint("past.snapped")
        for path in self.folder.iterdir():
            number = int("".join(filter(str.isdigit, path.name)) or 0)
            if number < mark or (number == mark and path.suffix == ".parquet") or path.suffix == ".part":
                stored_history.remove(path)
        for path in stored_history.leftovers(self.folder):
            stored_history.remove(path)

    def keep(self, batch: int, added: pd.DataFrame) -> None:
        """Write down what a batch adds; doing it twice is the same as doing it once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.added(batch)) as file:
            added.to_parquet(file)
            failpoint("past.write")
        failpoint("past.written")

    def added(self, batch: int) -> Path:
        """Where it is written what a batch adds."""
        return self.folder / f"batch-{batch:08d}.parquet"

    def _paths(self) -> dict[int, Path]:
        found = {match[1] for path in self.folder.glob("past-*") if (match := SNAPSHOT.fullmatch(path.name))}
        return {int(number): stored_history.find(self.folder / f"past-{number}") for number in found}


def _sync(path: Path) -> None:
    """Have the disk hold a file before a database says that it counts."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
