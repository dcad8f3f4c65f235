"""The curves of an alert about sensors: what they read and should have read, found in the batches they came in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from pipelines.config import Config, load_config
from pipelines.config.data import ColumnName
from pipelines.console.charts import curves
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.alert_curves import SHOWN_AROUND, SensorCurve, curves_of_alert
from pipelines.scoring.alert_rows import rows_of_alert
from pipelines.store import Store
from pipelines.store.alert_tables import Alert
from tests.sensor_sites import SensorSite, bundle_of, detector, minute
from tests.series_examples import SENSORS
from tests.service_sites import opened, score

FAULT = (100, 106)
AHEAD = 15
"""Steps after a reading on which what is expected of it hangs."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SensorSite:
    """A project of two pumps whose files are shorter than the readings wait; one pump has a fault."""
    folder = tmp_path_factory.mktemp("pumps")
    site = SensorSite(folder, bundle_of(folder, trailing=False))
    wrong = (site.rows["pump"] == "b") & (site.rows["when"].between(minute(FAULT[0]), minute(FAULT[1])))
    site.rows.loc[wrong, SENSORS[0]] += 50.0
    for _ in range(14):
        site.add(20)
        score(site)
    return site


@pytest.fixture
def store(site: SensorSite) -> Iterator[Store]:
    with opened(site) as found:
        yield found


def alert_in(store: Store) -> Alert:
    """The alert about the fault."""
    with store.read() as session:
        (found,) = session.scalars(sa.select(Alert).where(Alert.kind == "opened"))
        session.expunge_all()
    return found


def found_in(store: Store, config: Config, *, entity: str | None = "b") -> list[SensorCurve]:
    given = curves_of_alert(alert_in(store), entity=entity, config=config, store=store, cache=ProcessCache())
    assert given.note == ""
    return list(given.curves)


def test_curves_are_those_of_the_whole_series(site: SensorSite, store: Store) -> None:
    """The sensor at fault is first; observed is what came, expected what the detector says of all rows at once."""
    alert = alert_in(store)

    first, *_ = found_in(store, load_config(site.folder))

    assert first.title == SENSORS[0]
    rows = site.rows[(site.rows["pump"] == "b")].set_index("when")
    np.testing.assert_array_equal(first.observed, rows.loc[first.when, SENSORS[0]])
    scorer = detector(trailing=False).scorer_
    event = {"entity": "b", "start": minute(FAULT[0]), "end": minute(FAULT[1])}
    whole = scorer.curves(site.rows.iloc[: site.written], pd.DataFrame([event]), margin=400)
    own = whole[whole["sensor"] == SENSORS[0]].set_index("when").loc[first.when, "expected"]
    np.testing.assert_allclose(first.expected[:-AHEAD], own[:-AHEAD], atol=1e-4)
    around = timedelta(minutes=SHOWN_AROUND)
    assert first.when[0].tz_localize(UTC) <= alert.first_at - around
    assert first.when[-1].tz_localize(UTC) > alert.last_at


def test_readings_that_waited_are_found_again(site: SensorSite, store: Store) -> None:
    """Rows of an alert came in earlier files than the one that told it."""
    rows = rows_of_alert(alert_in(store), config=load_config(site.folder), store=store, cache=ProcessCache())

    assert rows.missing == 0
    assert len(rows.rows) == len(alert_in(store).facts["keys"]) > 0
    assert (rows.rows["pump"] == "b").all()


def test_sensors_have_the_names_of_the_configuration(site: SensorSite, store: Store) -> None:
    """A curve is called what people call its sensor, with its unit; a masked one is not drawn."""
    config = load_config(site.folder)
    names = {SENSORS[0]: ColumnName(unit="bar")}
    named = config.model_copy(update={"columns": config.columns.model_copy(update={"names": names})})
    masked = config.model_copy(update={"alerts": config.alerts.model_copy(update={"mask": {SENSORS[0]: "hide"}})})

    assert found_in(store, named)[0].title == f"{SENSORS[0]} (bar)"
    assert SENSORS[0] not in [each.title for each in found_in(store, masked)]


def test_no_curve_without_the_machine(site: SensorSite, store: Store, tmp_path: Path) -> None:
    """Where the machine may not be shown, or is not there, nothing is drawn; a source that is gone is said."""
    config = load_config(site.folder)

    assert found_in(store, config, entity=None) == []
    assert found_in(store, config, entity="c") == []
    source = config.source.model_copy(update={"path": tmp_path})
    config = config.model_copy(update={"source": source})
    gone = curves_of_alert(alert_in(store), entity="b", config=config, store=store, cache=ProcessCache())
    assert gone.curves == ()
    assert "cannot be drawn" in gone.note


def test_long_curve_keeps_its_extremes() -> None:
    """Of more steps than can be seen, the highest and lowest of each place are drawn; gaps stay open."""
    when = pd.date_range("2026-03-01", periods=10_000, freq="min")
    observed = np.zeros(10_000)
    observed[4_321] = 9.0
    curve = SensorCurve("flow", when, observed, np.where(np.arange(10_000) < 5_000, 1.0, np.nan))
    first, last = (when[at].tz_localize(UTC).to_pydatetime() for at in (4_000, 5_000))

    drawn = curves(curve, first=first, last=last)

    assert (drawn.low, drawn.high) == ("0", "9")
    assert " 10L" in drawn.observed  # the spike reaches the upper edge
    assert drawn.observed.count("L") < 1_300
    assert drawn.expected.count("M") == 1
    assert drawn.here == (258.0, 320.0)
