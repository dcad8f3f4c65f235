"""Exactly one result a batch, whatever fails: written beside, moved into place at once, known by its marker.

::

    scores/                         the output
    ├── batch=2026-03-01/           what a batch came to, as Spark reads partitions
    │   ├── part-….parquet          scores
    │   ├── _quarantine/            rows that could not be used, as CSV; readers pass over names with _
    │   └── _COMMITTED              which run wrote it, of which detector, how many rows
    └── _staging/                   runs that are under way
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from detector.errors import SettingError, SinkError
from pipelines.spark.hadoop import Folders

MARKER, STAGING, QUARANTINE = "_COMMITTED", "_staging", "_quarantine"
TRIES = 3
_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_batch(name: str) -> str:
    """A batch's name that can be part of a path.

    Raises ``SettingError`` if it cannot.
    """
    if not _BATCH.fullmatch(name):
        raise SettingError(
            f"--batch expected letters, digits, dots, dashes and underscores, such as 2026-03-01, received {name!r}."
        )
    return name


@dataclass(frozen=True)
class BatchFolder:
    """The folder of a batch in an output, and the staging folder of the run that writes it.

    - ``output``: A path or an address.
    - ``batch``: The batch's name.
    - ``run``: Names this run and no other.
    """

    folders: Folders
    output: str
    batch: str
    run: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def place(self) -> str:
        """Where the batch goes."""
        return f"{self.output}/batch={self.batch}"

    @property
    def staging(self) -> str:
        """Where it is written before; for whatever else a run must put down."""
        return f"{self.output}/{STAGING}/{self.batch}.{self.run}"

    @property
    def written(self) -> str:
        """What becomes the batch's folder. Its name keeps readers from it wherever it may be."""
        return f"{self.staging}/_written"

    @contextmanager
    def open(self) -> Iterator[None]:
        """The staging folder is gone afterwards, and that of any earlier run of this batch that was killed."""
        if self.folders.is_file(self.output):
            raise SinkError(f"{self.output} is a file, and Spark writes a folder. Name one: --output scores.")
        for name in self.folders.matching(f"{self.output}/{STAGING}/{self.batch}.*"):
            if re.fullmatch(re.escape(self.batch) + r"\.[0-9a-f]{12}", name):
                self.folders.remove(f"{self.output}/{STAGING}/{name}")
        try:
            yield
        finally:
            self.folders.remove(self.staging)

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Put what was written in the batch's place, instead of what an earlier run put there.

        Raises ``SinkError`` if other runs of the same batch keep putting theirs there.
        """
        self.folders.write(f"{self.written}/{MARKER}", json.dumps({"run": self.run, "batch": self.batch, **facts}))
        for attempt in range(TRIES):
            if self.folders.exists(self.place):
                self.folders.rename(self.place, f"{self.staging}/_replaced_{attempt}")
            if self.folders.rename(self.written, self.place) and self._is_ours():
                return
            # Where a folder came in between, a rename may have moved ours into it; _ hides it from readers.
            self.folders.rename(f"{self.place}/_written", self.written)
        raise SinkError(f"Another run writes {self.place} at the same time. Score a batch in one run at a time.")

    def _is_ours(self) -> bool:
        said = self.folders.read(f"{self.place}/{MARKER}")
        return bool(said) and json.loads(said).get("run") == self.run
