from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import day
from pipelines.config import load_config
from pipelines.registry.registry import ModelRegistry
from pipelines.tracking.messages import spool_of


@pytest.mark.slow
def test_season_holds_all_that_can_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retrainings by schedule and by drift, a promotion, rejected challengers and a way back, each with its reason.

    MLflow is down, so the whole story waits for it, in order.
    """
    monkeypatch.setattr("pipelines.training.review.figures", lambda *_, **__: {})
    monkeypatch.setattr("pipelines.training.run_record.comparison_figure", lambda _: None)
    monkeypatch.setattr("pipelines.reports.style.to_png", lambda _: b"")

    season = day.play(tmp_path, uri="http://127.0.0.1:9")

    config = load_config(tmp_path)
    state = ModelRegistry(config.bundle).state()
    assert season.decisions[0] == "promote"
    assert season.decisions.count("promote") >= 2
    assert season.decisions.count("keep") >= 2
    assert any("retrain (drift)" in line for line in season.lines)
    assert not any("moved" in line or "Drift in" in line for line in season.lines[:5])
    assert len(set(season.served)) >= 2
    assert season.served[-1] == state.champion == state.promotions[-1].to
    assert season.served[-1] in season.served[:-1]
    kinds = [entry.kind for entry in spool_of(config).entries()]
    assert kinds.count("training") == len(season.decisions)
    assert kinds[-1] == "move"
