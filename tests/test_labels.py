"""What is known of rows at a moment: labels, reports that came later, and answers to alerts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.errors import SchemaError
from detector.schema import Schema
from pipelines.config import Config
from pipelines.labels.known import known_labels
from pipelines.store import open_store
from pipelines.store.alert_tables import Alert, Answer

Configure = Callable[..., Config]
NOW = datetime(2026, 3, 31, tzinfo=UTC)
SCHEMA = Schema(key="id", time="when", label="fraud", numeric=("amount",))


def a_config(folder: Path, configure: Configure, **head: Any) -> Config:
    values = {
        "source": {"path": "rows.csv"},
        "columns": {"key": "id", "time": "when", "label": "fraud"},
        "features": {"reported": "told"},
        "retrain": {"label_delay_days": 10},
        "service": {"store": "sqlite:///service.db"},
        "train": {"head": head},
    }
    return configure(folder, **values)


def rows(**columns: Any) -> pd.DataFrame:
    """Four rows: three old ones, and one of yesterday."""
    when = pd.to_datetime(["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-30"])
    return pd.DataFrame({"id": ["a", "b", "c", "d"], "when": when, "fraud": 0} | columns)


def say(config: Config, key: str, verdict: str, at: datetime) -> None:
    """A person answers an alert about one row."""
    store = open_store(config.service.store)
    with store.write() as session:
        name = f"al_{key}{at:%m%d}{verdict}"
        session.add(
            Alert(
                id=name,
                source=config.name,
                kind="opened",
                group="g",
                incident="in_1",
                label="",
                severity="low",
                created_at=at,
                first_at=at,
                last_at=at,
                rows=1,
                p_value=0.001,
                model_version="",
                pattern="",
                facts={"keys": [key]},
            )
        )
        session.add(Answer(alert=name, verdict=verdict, reason="", who="me", via="cli", at=at, model_version=""))
    store.close()


def test_a_young_row_without_complaint_is_unknown(tmp_path: Path, configure: Configure) -> None:
    """Silence means normal only once the label delay has passed; a fraud that is reported is known at once."""
    table = rows(fraud=[0, 0, 1, 1], told=[None, None, "2026-03-20", "2026-03-30 12:00"])

    known = known_labels(table, a_config(tmp_path, configure), SCHEMA, now=NOW)

    assert known.label.tolist() == [0, 0, 1, 1]
    assert known.known_at[3] == pd.Timestamp("2026-03-30 12:00")
    earlier = known_labels(table, a_config(tmp_path, configure), SCHEMA, now=NOW - timedelta(days=12))
    assert earlier.label[:2].tolist() == [0, 0]
    assert earlier.label[2:].isna().all()


def test_the_last_word_that_is_known_counts(tmp_path: Path, configure: Configure) -> None:
    """A chargeback overrides an earlier "fine", a later "fine" the chargeback; "unsure" is unknown."""
    reports = pd.DataFrame({"id": ["a", "b", "z"], "reported_at": ["2026-03-10", "2026-03-10", "2026-03-10"]})
    reports.to_csv(tmp_path / "chargebacks.csv", index=False)
    config = a_config(tmp_path, configure, reports={"source": {"path": "chargebacks.csv"}})
    say(config, "a", "fine", datetime(2026, 3, 5, tzinfo=UTC))
    say(config, "b", "fine", datetime(2026, 3, 15, tzinfo=UTC))
    say(config, "c", "unsure", datetime(2026, 3, 5, tzinfo=UTC))
    say(config, "d", "fraud", datetime(2026, 3, 30, 9, tzinfo=UTC))

    known = known_labels(rows(), config, SCHEMA, now=NOW)

    np.testing.assert_array_equal(known.label, [1, 0, np.nan, 1])
    assert known.counts == {"reports": 2, "verdicts": 4}
    before = known_labels(rows(), config, SCHEMA, now=datetime(2026, 3, 12, tzinfo=UTC))
    np.testing.assert_array_equal(before.label, [1, 1, np.nan, np.nan])


def test_the_same_said_again_is_no_news(tmp_path: Path, configure: Configure) -> None:
    """A fraud is known since the first report; a label without a date never delays a report with one."""
    lines = [("a", "2026-03-20"), ("b", "2026-03-05"), ("c", "2026-03-06"), ("c", "2026-03-25")]
    pd.DataFrame(lines, columns=["id", "reported_at"]).to_csv(tmp_path / "chargebacks.csv", index=False)
    config = a_config(tmp_path, configure, reports={"source": {"path": "chargebacks.csv"}})
    say(config, "c", "fine", datetime(2026, 3, 8, tzinfo=UTC))

    table = rows(fraud=[1, 1, 0, 0], told=["2026-03-04", None, None, None])
    found = known_labels(table, config, SCHEMA, now=NOW)

    assert found.label.iloc[:3].tolist() == [1, 1, 1]
    assert found.known_at.iloc[:3].dt.strftime("%m-%d").tolist() == ["03-04", "03-05", "03-25"]
    assert found.assumed.tolist()[:3] == [False, False, False]


def test_without_a_service_nothing_is_made(tmp_path: Path, configure: Configure) -> None:
    """Where no service has run there are no verdicts, and no database appears."""
    known = known_labels(rows(), a_config(tmp_path, configure), SCHEMA, now=NOW)
    assert known.counts["verdicts"] == 0
    assert not (tmp_path / "service.db").exists()


def test_reports_without_their_column_are_refused(tmp_path: Path, configure: Configure) -> None:
    """A misnamed column of the reports is reported, with the likeliest name."""
    pd.DataFrame({"id": ["a"], "reported": ["2026-03-10"]}).to_csv(tmp_path / "chargebacks.csv", index=False)
    config = a_config(tmp_path, configure, reports={"source": {"path": "chargebacks.csv"}})
    with pytest.raises(SchemaError, match="no column 'reported_at'"):
        known_labels(rows(), config, SCHEMA, now=NOW)
