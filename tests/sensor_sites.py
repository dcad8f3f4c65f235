"""Projects of sensors for the tests of the service: machines whose readings come in files, and what became of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.soak import Site
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.scorer import SequenceScorer
from detector.persist.bundle import save
from detector.schema import Schema
from tests.series_examples import SENSORS, START, readings, small

PUMPS = Schema(key="id", time="when", entity="pump", numeric=tuple(SENSORS))
NAMES = ("a", "b")


def pump_rows(minutes: int, *, names: tuple[str, ...] = NAMES) -> pd.DataFrame:
    """Readings of some pumps, a row each and minute in the order of time, each with its number."""
    parts = [readings(minutes, seed=10 + number, pump=name) for number, name in enumerate(names)]
    rows = pd.concat(parts).sort_values(["when", "pump"], kind="stable", ignore_index=True)
    rows.insert(0, "id", np.arange(len(rows)))
    return rows


@cache
def detector(*, trailing: bool = True, **given: Any) -> SequenceDetector:
    """Fitted once on good rows of both pumps."""
    return small(schema=PUMPS, trailing=trailing, quantile=0.999, **given).fit(pump_rows(400))


def bundle_of(folder: Path, **given: Any) -> Path:
    """The same, saved."""
    return save(detector(**given).scorer_, folder / "bundle")


class SensorSite(Site):
    """A project of two pumps.

    Parameters
    ----------
    folder, bundle, way
        As of ``Site``.
    sections
        Of the configuration, besides or in place of those of ``Site``.
    """

    def __init__(self, folder: Path, bundle: Path, way: str = "files to files", **sections: Any) -> None:
        shares = bool(sections.pop("shares", False))
        super().__init__(folder, bundle, way, shares=shares, policy={"quantile": 0.998})
        path = folder / "detector.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        columns = {"key": "id", "time": "when", "entity": "pump"}
        alerts = {"recovery": True, "log": {"enabled": False}}
        values |= {"kind": "sensors", "columns": columns, "alerts": alerts} | sections
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        self.rows = pump_rows(400)

    def add(self, rows: int) -> None:
        """Have the next rows come in a file."""
        self.put(self.rows.iloc[self.written : self.written + rows])

    def put(self, rows: pd.DataFrame) -> None:
        """Have these rows come in a file."""
        self.written += len(rows)
        self.batches += 1
        rows.to_csv(self.input / f"{self.batches:05d}.csv", index=False)

    def scores(self) -> pd.DataFrame:
        """All scores so far, in the order of the rows."""
        files = sorted((self.folder / "scores").glob("*.parquet"))
        if not files:
            return pd.DataFrame(columns=["id"])
        found = pd.concat([pd.read_parquet(file) for file in files])
        return found.astype({"id": int}).sort_values("id", ignore_index=True)

    def quarantined(self) -> pd.DataFrame:
        """All rows in quarantine."""
        files = sorted((self.folder / "scores.quarantine").glob("*.csv"))
        return pd.concat([pd.read_csv(file) for file in files], ignore_index=True) if files else pd.DataFrame()

    def scored_as_whole(self, scorer: SequenceScorer) -> bool:
        """Whether each row that came has the risk it has in the whole series."""
        expected = scorer.measure(self.rows.iloc[: self.written])["risk"]
        found = self.scores()
        assert found["id"].tolist() == list(range(len(found)))
        return bool(np.allclose(found["risk"], expected.iloc[: len(found)], rtol=1e-4, atol=1e-5))


def minute(number: int) -> pd.Timestamp:
    """The time of the rows of a minute."""
    return START + pd.Timedelta(minutes=number)
