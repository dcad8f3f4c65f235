"""Machines of one kind share a model: the kind is told by their names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from detector.cleaning.clean import clean
from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.series.stream import Tail, continue_series
from detector.errors import SchemaError, SettingError
from detector.persist.bundle import load, save
from pipelines.config import load_config
from pipelines.factory.kinds import KINDS
from pipelines.factory.machines import some_machines
from pipelines.sources import open_source
from tests.series_examples import PUMPS, SENSORS, readings, small

PATTERN = "^([a-z]+)-"


def machine(name: str, rows: int = 200) -> pd.DataFrame:
    """Readings of one machine; those of presses are ten times as large."""
    frame = readings(rows, seed=sum(map(ord, name)), pump=name)
    frame[SENSORS] *= 10.0 if name.startswith("press") else 1.0
    return frame


@pytest.fixture(scope="module")
def trained() -> pd.DataFrame:
    return pd.concat([machine(name) for name in ("press-1", "fan-1", "press-2", "fan-2")], ignore_index=True)


@pytest.fixture(scope="module")
def scorer(trained: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SequenceScorer:
    """Fitted, saved and loaded."""
    found = small(schema=PUMPS, group_by=PATTERN).fit(trained).scorer_
    loaded = load(save(found, tmp_path_factory.mktemp("groups") / "bundle"))
    assert isinstance(loaded, SequenceScorer)
    return loaded


def test_each_kind_has_a_model_learnt_from_its_machines_alone(scorer: SequenceScorer, trained: pd.DataFrame) -> None:
    """A machine that is new is scored by that of its kind, as if there were no other kind."""
    assert set(scorer.models) == {"press", "fan"}
    fresh = pd.concat([machine("fan-9", 60), machine("press-9", 60)], ignore_index=True)
    rows = clean(fresh, scorer.schema).rows

    found = scorer.measure(rows)["risk"]

    for kind in ("press", "fan"):
        own = trained[trained["pump"].str.startswith(kind)].reset_index(drop=True)
        alone = small(schema=PUMPS).fit(own).scorer_
        part = rows[rows["pump"].str.startswith(kind)]
        pd.testing.assert_series_equal(found[part.index], alone.measure(part)["risk"], rtol=1e-5)


def test_a_kind_that_was_not_learnt_from_is_refused(scorer: SequenceScorer) -> None:
    """In a file the error names it; in the service its rows are quarantined, and others scored."""
    rows = clean(pd.concat([machine("lift-1", 60), machine("fan-9", 60)], ignore_index=True), scorer.schema).rows

    with pytest.raises(SchemaError, match="No model was fitted for 'lift'"):
        scorer.measure(rows)
    found = continue_series(scorer, Tail.empty(rows), rows, is_last=True)

    assert scorer.can_score(rows).tolist() == (rows["pump"] == "fan-9").tolist()
    assert found.refused["reason"].str.startswith("pump: 'lift-1' has no model").sum() == 60
    assert set(found.rows["pump"]) == {"fan-9"}


def test_settings_say_it(tmp_path: Path, trained: pd.DataFrame) -> None:
    """The configured detector has groups, and a sample of machines is drawn of each."""
    trained.to_csv(tmp_path / "rows.csv", index=False)
    path = tmp_path / "detector.yaml"
    values = {
        "name": "groups",
        "kind": "sensors",
        "source": {"path": "rows.csv"},
        "columns": {"time": "when", "entity": "pump"},
        "policy": {"quantile": 0.99},
    }
    path.write_text(yaml.safe_dump(values | {"series": {"group_by": PATTERN, "learn_from": 1}}), encoding="utf-8")
    config = load_config(path)

    learnt = some_machines(open_source(config.source), config).read()
    detector = KINDS["sensors"].detector(config, KINDS["sensors"].schema(learnt, config), lambda *_: None)

    assert sorted(name[:3] for name in learnt["pump"].unique()) == ["fan", "pre"]
    assert detector.group_by == PATTERN
    for series, match in (
        ({"group_by": "("}, "expected a pattern"),
        ({"group_by": "a", "models": "entity"}, "that none do"),
    ):
        path.write_text(yaml.safe_dump(values | {"series": series}), encoding="utf-8")
        with pytest.raises(SettingError, match=match):
            load_config(path)
