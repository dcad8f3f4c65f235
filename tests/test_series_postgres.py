"""The service for sensors with PostgreSQL: source, cursor and lateness, scores and what is kept of each series."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.soak import KILLED, run
from pipelines.config import load_config
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.replay import replay
from pipelines.scoring.shadow import begin_shadow, settle_shadow
from pipelines.store import Batch, SeriesTail
from tests.postgres_server import PostgresServer
from tests.sensor_sites import SensorSite, bundle_of, detector, minute
from tests.service_sites import context, opened, score
from tests.test_series_late import delayed

ROWS = 240
SCORER = {"trailing": False}


class PostgresSensors(SensorSite):
    """Two pumps whose readings, scores and state are in one database; readings may come ten minutes late."""

    def __init__(self, folder: Path, url: str) -> None:
        service = {"store": url, "settle": 0, "cursor": "when", "lateness": 1_200, "lease": 2.0, "port": 0}
        super().__init__(
            folder / "site",
            bundle_of(folder, **SCORER),
            source={"url": url, "table": "readings"},
            output={"url": url, "table": "scores"},
            series={"late_minutes": 10, "trailing": False},
            retrain={"shadow_days": 1},
            service=service,
        )
        self.engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    def put(self, rows: pd.DataFrame) -> None:
        """Have these rows come in."""
        self.written += len(rows)
        with self.engine.begin() as connection:
            rows.to_sql("readings", connection, if_exists="append", index=False)

    def scores(self) -> pd.DataFrame:
        """All scores so far, in the order of the rows."""
        with self.engine.connect() as connection:
            return pd.read_sql(sa.text("SELECT * FROM scores ORDER BY id, model_version"), connection)

    def is_right(self, found: pd.DataFrame) -> bool:
        """Whether these rows have the risks of ordered arrival."""
        expected = detector(**SCORER).scorer_.measure(self.rows.iloc[:ROWS])["risk"][found["id"]]
        return bool(np.allclose(found["risk"], expected, rtol=1e-4, atol=1e-5))


@pytest.fixture
def site(postgres: PostgresServer, tmp_path: Path) -> Iterator[PostgresSensors]:
    found = PostgresSensors(tmp_path, postgres.url(f"sensors_{abs(hash(tmp_path))}"))
    yield found
    found.engine.dispose()


def test_late_readings_of_a_table_are_scored_in_their_place(site: PostgresSensors) -> None:
    """Each row once, whatever the cursor has passed; what is later than allowed is set aside with the reason."""
    for part in delayed(site.rows.iloc[:ROWS], "when", seed=2):
        site.put(part)
        score(site)
    odd = site.rows.iloc[ROWS : ROWS + 2].assign(when=minute(105) + timedelta(seconds=30), pump="a")

    site.put(odd.head(1))
    outcome = score(site)

    found = site.scores()
    assert found["id"].is_unique
    assert ROWS - 2 * (10 + 15 + 2) <= len(found) < ROWS
    assert site.is_right(found)
    assert site.quarantined()["reason"].str.contains("is more than 10 min before").tolist() == [True]
    assert outcome.facts["quarantined_by_reason"]
    with opened(site) as store, store.read() as session:
        last = session.scalars(sa.select(sa.func.max(Batch.id))).one()
        assert session.scalars(sa.select(SeriesTail.batch)).one() == last


@pytest.mark.parametrize("point", ["score.computed", "score.committing", "score.committed"])
def test_a_killed_run_loses_no_reading(site: PostgresSensors, point: str) -> None:
    """Scores, cursor and what is kept of the series move together, or not at all."""
    site.add(80)
    score(site)
    site.add(80)

    assert run(site.folder, f"{point}:1") == KILLED
    site.add(80)
    assert run(site.folder) == 0

    found = site.scores()
    assert found["id"].is_unique
    assert len(found) == ROWS - 2 * (10 + 15)
    assert site.is_right(found)


def test_a_challenger_is_tried_and_what_it_scores_again_stands_beside(site: PostgresSensors) -> None:
    """The trial, its end, and a replay by the detector that serves then."""
    now = datetime.now(UTC)
    site.add(80)
    score(site, now=now)
    config = load_config(site.folder)
    registry = ModelRegistry(config.bundle)
    registry.adopt(now=now)
    name = registry.add(detector(trailing=False, smoothing=1.0).scorer_, facts={}, now=now)
    begin_shadow(config, name, reason="It finds more.", now=now)
    for _ in range(2):
        site.add(80)
        score(site, now=now)
    before = site.scores()

    assert settle_shadow(config, now=now + timedelta(days=1)) == "promote"
    with opened(site) as store:
        replay(context(site, store))

    found = site.scores()
    assert found["id"].value_counts().to_dict() == dict.fromkeys(before["id"], 2)
    assert site.is_right(found[found["model_version"] == before["model_version"].iloc[0]])
