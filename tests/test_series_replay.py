"""Batches of readings scored again: each row by the rows around it, which came in other batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from detector.detectors.series.detector import SequenceDetector
from detector.persist.bundle import save
from pipelines.scoring.replay import replay
from pipelines.store import Audit, SeriesTail
from pipelines.store.alert_tables import Alert
from tests.sensor_sites import PUMPS, SensorSite, bundle_of, detector, minute, pump_rows
from tests.series_examples import SMALL
from tests.service_sites import context, opened, score

CUTS = (3, 40, 1, 77, 30, 60)
SHOWN = ["id", "risk", "p_value", "flagged", "reasons", "batch"]


def played(site: SensorSite, **arguments: Any) -> Any:
    """The job, once."""
    with opened(site) as store:
        return replay(context(site, store, arguments=arguments))


def with_bundle(site: SensorSite, old: Path, new: Path) -> None:
    """Another detector serves from now on."""
    path = site.folder / "detector.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(str(old), str(new)), encoding="utf-8")


def named(file: Path) -> pd.DataFrame:
    """The scores of rows without a key, by what names them."""
    return pd.read_parquet(file).drop(columns="scored_at").set_index(["file", "row"]).sort_index()


@pytest.mark.parametrize("trailing", [True, False])
def test_the_same_detector_says_the_same(tmp_path: Path, trailing: bool) -> None:
    """Of each batch, in whatever order they are played: rows, scores, flags and reasons; what is kept stays."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path, trailing=trailing))
    faulty = (site.rows["pump"] == "a") & site.rows["when"].between(minute(40), minute(60))
    site.rows.loc[faulty, "flow"] += 60.0
    site.rows.loc[(site.rows["pump"] == "b") & (site.rows["when"] > minute(30)), "heat"] = np.nan
    for rows in CUTS:
        site.add(rows)
        score(site)
    before = site.scores()
    with opened(site) as store, store.read() as session:
        kept = session.scalars(sa.select(SeriesTail.rows)).one()
        told = len(session.scalars(sa.select(Alert)).all())

    again = [played(site, batches=[number]) for number in (5, 2, 6, 1, 3, 4)]

    found = site.scores()
    pd.testing.assert_frame_equal(found[SHOWN], before[SHOWN], rtol=1e-4, atol=1e-5)
    assert before["flagged"].sum() > 20
    assert sum(each.facts["scored"] for each in again) == len(before)
    with opened(site) as store, store.read() as session:
        assert session.scalars(sa.select(SeriesTail.rows)).one() == kept
        assert len(session.scalars(sa.select(Audit)).all()) == len(CUTS)
        assert len(session.scalars(sa.select(Alert)).all()) == told > 0


def test_another_detector_scores_the_same_rows_beside(tmp_path: Path) -> None:
    """One that waits for later rows finds them in later batches; a row has a score of each, as in the whole series."""
    trailing, centred = bundle_of(tmp_path / "a"), bundle_of(tmp_path / "b", trailing=False)
    site = SensorSite(tmp_path / "site", trailing)
    for rows in CUTS:
        site.add(rows)
        score(site)
    before = site.scores()["model_version"].iloc[0]
    with_bundle(site, trailing, centred)

    played(site, batches=[2, 3, 4])

    found = site.scores()
    assert found["id"].value_counts().value_counts().to_dict() == {1: 90, 2: 3 + 40 + 1 + 77}
    newer = found[found["model_version"] != before].sort_values("id")
    expected = detector(trailing=False).scorer_.measure(site.rows.iloc[: site.written])["risk"].iloc[newer["id"]]
    np.testing.assert_allclose(newer["risk"], expected, rtol=1e-4, atol=1e-5)


def test_rows_without_a_key_are_found_again(tmp_path: Path) -> None:
    """By their file and number, also those that had waited."""
    keyless = SequenceDetector(**SMALL, schema=replace(PUMPS, key=None)).fit(pump_rows(400))
    columns = {"time": "when", "entity": "pump", "ignore": ["id"]}
    site = SensorSite(tmp_path / "site", save(keyless.scorer_, tmp_path / "bundle"), columns=columns)
    for rows in (60, 60):
        site.add(rows)
        score(site)
    files = sorted((site.folder / "scores").glob("*.parquet"))
    before = [named(file) for file in files]

    played(site)

    for file, expected in zip(files, before, strict=True):
        assert len(expected) >= 30
        pd.testing.assert_frame_equal(named(file), expected, rtol=1e-4, atol=1e-5)


def test_what_was_quarantined_stays_so(tmp_path: Path) -> None:
    """A row that came too late is not sorted in, nor one of the future or with a known key."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path))
    rows = site.rows
    site.put(rows.iloc[:60])
    score(site)
    odd = rows.iloc[60:64].copy()
    odd["when"] = [minute(3), minute(29), pd.Timestamp("2199-01-01"), minute(60)]
    odd["id"] = [900, 901, 902, 58]
    site.put(pd.concat([odd, rows.iloc[64:100]]))
    score(site)
    before, aside = site.scores(), site.quarantined()

    played(site)

    pd.testing.assert_frame_equal(site.scores()[SHOWN], before[SHOWN], rtol=1e-4, atol=1e-5)
    assert sorted(site.quarantined()["reason"]) == sorted(aside["reason"])


def test_a_batch_whose_rows_are_gone_stays_as_it_is(tmp_path: Path) -> None:
    """Where rows that waited came in a file that is gone, or its own is."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path, trailing=False))
    for rows in (60, 60, 60):
        site.add(rows)
        score(site)
    before = site.scores()
    (site.input / "00001.csv").unlink()

    outcome = played(site)

    assert "batch 1 was left as it is: its files have changed or are gone" in outcome.note
    assert "batch 2 was left as it is: 30 of its rows are no longer in the source" in outcome.note
    assert outcome.facts["batches"] == 1
    pd.testing.assert_frame_equal(site.scores()[["id", "risk"]].iloc[:90], before[["id", "risk"]].iloc[:90])
    assert site.scores()["id"].tolist() == before["id"].tolist()
