from __future__ import annotations

import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from pipelines import demo, kinds
from pipelines.config import load_config

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SMALL = """
train:
  autoencoder: {enabled: false}
tracking: {enabled: false}
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No autoencoder, no MLflow (test_train has them), no pictures (test_review has them)."""
    monkeypatch.setattr(demo, "CONFIG", demo.CONFIG.replace("fdr: 0.2", "quantile: 0.98") + SMALL)
    monkeypatch.setattr(kinds, "figures", lambda *_, **__: {})


def test_demo_configuration_can_be_read(tmp_path: Path) -> None:
    """The configuration that the demo leaves behind is valid as it is, and logs to MLflow."""
    (tmp_path / "detector.yaml").write_text(demo.CONFIG, encoding="utf-8")

    config = load_config(tmp_path)

    assert config.name == "demo-payments"
    assert config.tracking.enabled


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_shows_the_whole_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains on the past, scores later rows, shows alerts with reasons, compares with the truth, says where."""
    folder = tmp_path / "new" / "demo"

    demo.run_demo(folder, now=NOW, rows=3_000)

    shown = capsys.readouterr().out
    past, fresh = pd.read_parquet(folder / "payments.parquet"), pd.read_parquet(folder / "fresh.parquet")
    scores = pd.read_parquet(folder / "scores.parquet")
    assert (len(past), len(fresh), len(scores)) == (3000, 750, 750)
    assert past["time"].max() <= fresh["time"].min()
    assert fresh["time"].max() < pd.Timestamp(NOW.replace(tzinfo=None))
    for step in ("1  Train", "2  Score", "3  Alerts", "4  Against the known truth", "5  Where things are"):
        assert step in shown
    frauds = int(fresh["is_fraud"].sum())
    found = re.search(r"Flagged (\d+) of 750: precision ([\d.]+), recall ([\d.]+) of (\d+) frauds", shown)
    assert found is not None
    assert (int(found[1]), int(found[4])) == (scores["flagged"].sum(), frauds)
    assert scores["flagged"].any()
    assert "expected" in shown
    assert str(folder / "scores.parquet") in shown.replace("\n", "")
    assert all((folder / name).exists() for name in ("detector.yaml", "bundle", "report.html"))


@pytest.mark.parametrize("flagged", [0, 3])
def test_alerts_are_shown_as_they_are(flagged: int) -> None:
    """Square brackets in the data are no markup, a card appears once, and no alert at all is no fault."""
    rows = pd.DataFrame(
        {
            "time": pd.date_range("2026-03-01", periods=4, freq="h"),
            "card_id": ["C[red]1", "C[red]1", "C2", "C3"],
            "risk": [9.0, 8.0, 7.0, 0.0],
            "p_value": 0.001,
            "flagged": [position < flagged for position in range(4)],
            "severity": ["critical", "high", "low", ""],
            "reasons": ["shop [/bold] new; 61 % of the risk", "", "", ""],
            "is_fraud": [1, 1, 0, 0],
            "scenario": ["lost_card", "lost_card", "", ""],
        }
    )

    table = demo._alerts(rows)

    console = Console(file=StringIO(), width=140)
    console.print(table)
    _, *lines = console.file.getvalue().splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines if line.strip(" ─")]
    assert table.row_count == min(flagged, 2)
    if flagged:
        first, second = cells
        assert first == [
            "01 Mar 00:00", "C[red]1", "2", "critical", "0.001", "lost card", "shop [/bold] new; 61 %"
        ]  # fmt: skip
        assert second[:3] == ["01 Mar 02:00", "C2", "1"]
