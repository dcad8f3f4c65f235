from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from detector.decide.policy import Policy
from detector.schema import Schema
from pipelines.alerts.review.queue import QueueQuery, page
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.config.template import TEMPLATES
from pipelines.demo import sensors
from pipelines.demo import transactions as demo
from pipelines.demo.comparison import ALONE, decided_both_ways, side_by_side
from pipelines.store import open_store
from pipelines.training import review

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SMALL = """
tracking: {enabled: false}
"""


def _small(config: str) -> str:
    members = "train:\n  autoencoder: {enabled: false}\nretrain:\n"
    return config.replace("0.998", "0.97").replace("retrain:\n", members) + SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No autoencoder, no MLflow (test_train has them), no pictures (test_review has them)."""
    monkeypatch.setattr(demo, "CONFIG", _small(demo.CONFIG))
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})


def test_demo_configuration_can_be_read(tmp_path: Path) -> None:
    """The configuration that the demo leaves behind is valid as it is, and logs to MLflow."""
    (tmp_path / "detector.yaml").write_text(demo.CONFIG, encoding="utf-8")

    config = load_config(tmp_path)

    assert config.name == "demo-payments"
    assert config.tracking.enabled
    template = TEMPLATES["transactions"]["features"]
    assert list(config.features.history) == template["history"]
    assert (list(config.features.calendar), config.features.reported) == (template["calendar"], template["reported"])


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [([], "demo"), (["--template", "transactions"], "demo"), (["--template", "sensors"], "demo-sensors")],
)
def test_each_demo_has_a_folder_of_its_own(
    arguments: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make demo` and then the demo of sensors leave two projects; a second run of one replaces the first."""
    monkeypatch.chdir(tmp_path)
    places: list[Path] = []
    monkeypatch.setattr(demo, "run_demo", lambda place, **_: places.append(place))
    monkeypatch.setattr(sensors, "run_sensor_demo", lambda place, **_: places.append(place))
    Path("demo").mkdir()
    Path("demo", "detector.yaml").write_text(demo.CONFIG, encoding="utf-8")

    result = CliRunner().invoke(app, ["demo", *arguments])

    assert result.exit_code == 0, result.output
    assert places == [Path(folder)]


@pytest.mark.parametrize("found", [demo.CONFIG, "name: mine\n", "name: [", "- 1\n", ""])
def test_demo_replaces_no_other_project(found: str, tmp_path: Path) -> None:
    """A configuration of another name, or one that cannot be read, stays, and a free folder is named."""
    (tmp_path / "detector.yaml").write_text(found, encoding="utf-8")

    result = CliRunner().invoke(app, ["demo", "--template", "sensors", "--folder", str(tmp_path)])

    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "the demo would replace it. Name another folder: detector demo --template sensors --folder" in said
    assert (tmp_path / "detector.yaml").read_text(encoding="utf-8") == found
    assert [path.name for path in tmp_path.iterdir()] == ["detector.yaml"]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_demo_shows_the_whole_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains on the past, scores later rows, shows alerts with reasons, compares with the truth, says where."""
    folder = tmp_path / "new" / "demo"
    demo.run_demo(folder, now=NOW, rows=3_000)

    shown = capsys.readouterr().out.rpartition("Train on past payments")[2]
    past, fresh = (pd.read_parquet(folder / "payments" / f"{name}.parquet") for name in ("past", "fresh"))
    scores = pd.concat([pd.read_parquet(file) for file in (folder / "scores").glob("*.parquet")])
    alerts = [json.loads(line) for line in (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (len(past), len(fresh), len(scores)) == (3000, 750, 750)
    assert past["time"].max() <= fresh["time"].min()
    assert fresh["time"].max() < pd.Timestamp(NOW.replace(tzinfo=None))
    for step in ("2  Score", "3  Compare with the known truth", "4  Alerts", "5  Where things are"):
        assert step in shown
    frauds = int(fresh["is_fraud"].sum())
    assert f"750 rows, {frauds} of them fraud" in shown
    found = re.search(r"^flagged +(\d+)$", shown, re.MULTILINE)
    assert found is not None
    assert int(found[1]) == scores["flagged"].sum()
    assert "The members decide" in shown
    assert 1 <= len([each for each in alerts if each["kind"] == "opened"]) <= 12
    assert "of card" in json.dumps(alerts) or "of this card" in json.dumps(alerts)
    with open_store(load_config(folder).service.store).read() as session:
        queued = [line.alert.id for line in page(session, QueueQuery(), config=load_config(folder), now=NOW)]
    assert [each["id"] for each in demo.events_and_digests(alerts)[0]] == queued
    assert f"alerts show {folder} {queued[0][:9]}" in " ".join(shown.split())
    assert "card_id" not in shown.partition("4  Alerts")[2].partition("5  Where")[0]
    flagged = set(scores.loc[scores["flagged"], "transaction_id"])
    assert {key for each in alerts for key in each["keys"]} <= flagged
    assert f"detector alerts show {folder}" in shown.replace("\n", "")
    assert 'slack: {url: "${SLACK_URL}"}' in shown
    assert " fraud --reason 'somebody looked'" in shown.replace("\n", "")
    assert "detector alerts test" in shown
    kept = ("detector.yaml", "bundle", "report.html", "scores")
    assert all((folder / name).exists() for name in kept)


class _Both:
    """A detector whose members and head disagree; its p-values are one tenth to the power of the risk."""

    schema = Schema(time="time", numeric=("amount",))
    serving_head: object | None = "a head"

    class calibrator:  # noqa: N801 - stands for an attribute
        support = None

        @staticmethod
        def p_value(risk: NDArray[np.float64]) -> NDArray[np.float64]:
            return 10.0**-risk


def test_both_ways_are_decided_by_their_own_risk_on_the_same_rows() -> None:
    """The members flag by their p-values, the head's flags stay as written; each column counts its own."""
    scores = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-01"),
            "risk": [9.0, 8.0, 0.0, 0.0],
            "flagged": [True, True, False, False],
            "unsupervised_risk": [3.0, 1.0, 4.0, 0.0],
            "is_fraud": [1, 1, 0, 0],
            "scenario": ["stolen_card", "stolen_card", "", ""],
        }
    )

    both = decided_both_ways(scores, _Both(), Policy(quantile=0.99))  # type: ignore[arg-type]  # stands for one
    console = Console(file=StringIO(), width=80)
    console.print(side_by_side(both, label="is_fraud", scenario="scenario"))

    assert both[ALONE]["flagged"].tolist() == [True, False, True, False]
    lines = [re.split(r"  +", line.strip()) for line in console.file.getvalue().splitlines()]
    assert ["4 rows, 2 of them fraud", "members alone", "with chargebacks"] in lines
    assert ["flagged", "2", "2"] in lines
    assert ["of these fraud", "1", "2"] in lines
    assert ["share of the frauds flagged", "0.50", "1.00"] in lines
    assert ["average precision (blind: 0.500)", "0.583", "1.000"] in lines
    assert ["flagged of stolen card", "1 of 2", "2 of 2"] in lines


def test_without_a_head_there_is_one_way() -> None:
    """What the members decide is shown alone."""
    scores = pd.DataFrame({"time": pd.Timestamp("2026-01-01"), "unsupervised_risk": [3.0, 0.0]})
    scorer = _Both()
    scorer.serving_head = None

    assert list(decided_both_ways(scores, scorer, Policy(quantile=0.99))) == [ALONE]  # type: ignore[arg-type]


@pytest.mark.parametrize("first_line", ["name: mine", demo.CONFIG.partition("\n")[0]])
def test_only_what_a_demo_left_is_cleared_away(tmp_path: Path, first_line: str) -> None:
    """A folder of somebody else is left alone; in a demo's own, its input, scores and alerts go."""
    (tmp_path / "payments").mkdir()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "detector.yaml").write_text(f"{first_line}\n", encoding="utf-8")

    demo.clear_away(tmp_path, demo.CONFIG)

    assert (tmp_path / "payments").exists() == (first_line == "name: mine")
    assert (tmp_path / "mine.txt").exists()


def test_alerts_are_listed_by_urgency_and_digests_apart() -> None:
    """The most severe, then the most at stake, then the rarest, as in the queue; that one is over is no other alert."""

    def alert(about: str, severity: str, amount: float | None, p_value: float = 1e-3, kind: str = "opened") -> Any:
        return {"about": about, "severity": severity, "amount": amount, "p_value": p_value, "kind": kind}

    sent = [
        alert("small", "medium", 20.0),
        alert("", "low", None, kind="digest"),
        alert("nothing at stake", "high", None),
        alert("large", "medium", 2_000.0),
        alert("rare", "medium", 20.0, p_value=1e-4, kind="worse"),
        alert("large", "medium", 2_000.0, kind="recovered"),
    ]

    events, digests = demo.events_and_digests(sent)

    assert [each["about"] for each in events] == ["nothing at stake", "large", "rare", "small"]
    assert [each["kind"] for each in digests] == ["digest"]


@pytest.mark.parametrize("shown", [0, 2])
def test_alerts_are_shown_as_they_are(shown: int) -> None:
    """Square brackets in the data are no markup, the truth stands beside, and no alert at all is no fault."""
    truth = {"t1": "lost_card", "t2": "", "t3": ""}
    reason = {"feature": "shop", "observed": "[/bold] new", "expected": "", "share": 0.6, "words": ""}
    event = {"first_at": "2026-03-01T00:00:00+00:00", "rows": 2, "amount": 1234.5, "reasons": [reason]}
    events = [
        event | {"about": "C[red]1", "severity": "critical", "keys": ["t1", "t2"]},
        event | {"about": "C2", "severity": "low", "keys": ["t3"], "amount": None},
    ][:shown]

    table = demo._alerts(events, lambda event: {truth[key] for key in event["keys"]}, entity="card")

    console = Console(file=StringIO(), width=140)
    console.print(table)
    _, *lines = console.file.getvalue().splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines if line.strip(" ─")] if shown else []
    assert (
        cells
        == [
            ["01 Mar 00:00", "C[red]1", "critical", "2", "1,234.50", "lost card", "shop is [/bold] new"],
            ["01 Mar 00:00", "C2", "low", "2", "nothing wrong", "shop is [/bold] new"],
        ][:shown]
    )
