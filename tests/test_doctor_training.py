"""The doctor finds what training would refuse, in the words of the configuration."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.errors import DetectorError, SettingError
from pipelines.config import Config, load_config
from pipelines.config.series import in_settings
from pipelines.doctor import Check, examine
from pipelines.scoring.one_off import score
from pipelines.training.train import train

NOW = datetime(2026, 8, 1, tzinfo=UTC)


def config_for(folder: Path, **settings: Any) -> Config:
    given = {
        "name": "machines",
        "kind": "sensors",
        "source": {"path": "data"},
        "columns": {"time": "time"},
        "policy": {"quantile": 0.99, "fdr": None},
        "tracking": {"enabled": False},
    }
    return Config.model_validate(given | settings, context={"folder": folder})


def problems(checks: list[Check]) -> str:
    return " | ".join(f"{check.place}: {check.found} > {check.advice}" for check in checks if check.state == "problem")


def machine(number: int, rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(number)
    time = pd.date_range("2026-07-01", periods=rows, freq="1min") + pd.Timedelta(seconds=7 * number)
    heat = 60 + number + 3 * np.sin(np.arange(rows) / 20) + rng.normal(0, 0.3, rows)
    return pd.DataFrame({"time": time, "heat": heat, "load": rng.normal(10, 1, rows)})


def files(folder: Path, *, machines: int = 3) -> None:
    (folder / "data").mkdir()
    for number in range(1, machines + 1):
        machine(number).to_csv(folder / "data" / f"press-{number}.csv", index=False)


def uneven(folder: Path) -> None:
    (folder / "data").mkdir()
    steps = np.random.default_rng(7).choice([1, 5, 20, 60, 120, 300], 900, p=[0.1, 0.15, 0.2, 0.35, 0.15, 0.05])
    time = pd.Timestamp("2026-07-01") + pd.to_timedelta(np.cumsum(steps), unit="s")
    machine(1, 900).assign(time=time).sample(frac=1, random_state=1).to_csv(folder / "data/a.csv", index=False)


def short(folder: Path) -> None:
    (folder / "data").mkdir()
    machine(1, 5).to_csv(folder / "data" / "a.csv", index=False)


CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "machines in one series": (files, {}, "columns: {entity: machine, entity_from: filename}"),
    "uneven times": (uneven, {}, "`series.sampling.every`, or choose `series.sampling.align: mean` or"),
    "few rows": (short, {}, "at least 8 training rows"),
    "a short rest to review on": (
        uneven,
        {"series": {"sampling": {"every": "5min", "align": "mean"}}},
        "choose a shorter window (`series.window`), or `series.short: pad`",
    ),
    "a model each without a machine": (
        files,
        {"series": {"models": "entity"}},
        "`series.models: entity` needs the entity of each row. Name it in `columns.entity`",
    ),
    "gaps refused": (
        uneven,
        {"series": {"sampling": {"every": "1min", "align": "mean", "missing": "reject"}}},
        "`series.sampling.missing: mask`",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_doctor_finds_what_training_refuses_of_sensors(tmp_path: Path, case: str) -> None:
    """Before the long part, and in names that stand in the YAML; Python's are gone."""
    make, settings, text = CASES[case]
    make(tmp_path)
    config = config_for(tmp_path, **settings)

    found = problems(examine(config, now=NOW))
    with pytest.raises(DetectorError) as refused:
        train(config, now=NOW)

    assert text in found
    assert in_settings(str(refused.value)) in found
    assert not any(python in found for python in ("every=", "align=", "models=", "missing=", "Sampling("))


def test_doctor_says_which_sensors_only_count(tmp_path: Path) -> None:
    """A meter is never read again as it was, also after it was exchanged: what was used is the reading to learn."""
    (tmp_path / "data").mkdir()
    for number in (1, 2):
        rows = machine(number)
        energy = rows["load"].abs().cumsum()
        rows.assign(energy=energy.where(rows.index < 250, energy - energy[249])).to_csv(
            tmp_path / "data" / f"press-{number}.csv", index=False
        )
    columns = {"time": "time", "entity": "machine", "entity_from": "filename"}

    def warned(**settings: Any) -> list[str]:
        config = config_for(tmp_path, columns=columns, **settings)
        return [str(check) for check in examine(config) if check.state == "warning" and "counter" in check.found]

    (warning,) = warned()
    assert "'energy': readings hardly ever fall, as of a counter; those to come lie above all that is learnt" in warning
    assert "`series.sampling.counters: [energy]`" in warning
    assert warned(series={"sampling": {"counters": ["energy"]}}) == []


def test_doctor_is_content_with_what_training_takes(tmp_path: Path) -> None:
    """A grid makes a series of uneven times."""
    uneven(tmp_path)
    config = config_for(tmp_path, series={"sampling": {"every": "1min", "align": "mean"}})

    assert problems(examine(config, now=NOW)) == ""
    assert train(config, now=NOW).rows > 500


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"numeric": ["amount"]}, "No column varies"),
        ({"label": "all", "numeric": ["size"]}, "all"),
        ({"key": "risk", "numeric": ["size"]}, "risk"),
        ({"time": "never", "numeric": ["size"]}, "usable rows of 600: never: "),
    ],
)
def test_doctor_finds_what_training_refuses_of_tables(tmp_path: Path, columns: dict[str, Any], text: str) -> None:
    """Nothing varies, nothing is normal, a name that the scores have, no row that can be used."""
    rows = np.arange(600)
    frame = pd.DataFrame({"amount": 5, "size": rows % 7, "all": 1, "risk": rows, "never": "noon"})
    frame.to_csv(tmp_path / "data.csv", index=False)
    config = config_for(tmp_path, kind="table", source={"path": "data.csv"}, columns=columns | {"others": "ignore"})

    found = [check for check in examine(config, now=NOW) if check.place == "train" and check.state == "problem"]
    with pytest.raises(DetectorError):
        train(config, now=NOW)

    assert len(found) == 1
    assert text in found[0].found


@pytest.mark.parametrize(("how", "names"), [("filename", "press-2"), ("press-([0-9]+)", "2")])
def test_machine_comes_from_the_name_of_its_file(tmp_path: Path, how: str, names: str) -> None:
    """Each file is a machine of its own, in training and in scoring, also where a file is scored alone."""
    files(tmp_path)
    columns = {"time": "time", "entity": "machine", "entity_from": how}
    config = config_for(tmp_path, columns=columns, series={"models": "entity"}, output={"path": "scores.parquet"})

    checks = examine(config, now=NOW)
    train(config, now=NOW)
    scored = score(config, now=NOW, input=str(tmp_path / "data" / "press-2.csv"))

    assert problems(checks) == ""
    assert set(pd.read_parquet(scored.output)["machine"]) == {names}
    assert scored.summary()


def test_name_of_a_file_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    """With the file, the pattern and what to do; a column of that name in the file is no less an error."""
    files(tmp_path)
    strange = config_for(tmp_path, columns={"time": "time", "entity": "machine", "entity_from": "pump-([0-9]+)"})
    taken = config_for(tmp_path, columns={"time": "time", "entity": "heat", "entity_from": "filename"})

    assert "press-1.csv does not fit the pattern of `columns.entity_from`" in problems(examine(strange, now=NOW))
    assert "has a column 'heat' already" in problems(examine(taken, now=NOW))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("{entity_from: filename}", "Give it in `entity`, such as machine"),
        ("{entity: m, entity_from: 'pump'}", "a pattern with one group in brackets"),
        ("{entity: m, entity_from: 'pump-([0-9]'}", "is not a pattern"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(tmp_path: Path, columns: str, message: str) -> None:
    """When the configuration is read."""
    (tmp_path / "detector.yaml").write_text(f"source: {{path: data}}\ncolumns: {columns}\n")

    with pytest.raises(SettingError, match="line 2: columns") as caught:
        load_config(tmp_path)

    assert message in str(caught.value)


def test_names_of_files_need_files(tmp_path: Path) -> None:
    """A database has none."""
    (tmp_path / "detector.yaml").write_text(
        "source: {url: 'sqlite:///a.db', table: t}\ncolumns: {entity: m, entity_from: filename}\n"
    )

    with pytest.raises(SettingError, match="takes names of files, and `source` has none"):
        load_config(tmp_path)
