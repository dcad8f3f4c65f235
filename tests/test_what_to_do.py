"""A message that says what is wrong says what to do as well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from detector.errors import SettingError, SourceError
from pipelines.backtest.plan import Plan
from pipelines.backtest.summary import summarise
from pipelines.cli.program import app
from pipelines.config import Config, load_config
from pipelines.config.masking import masks_of
from pipelines.doctor import examine
from pipelines.sources.files import find_files
from pipelines.training.train import train

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRETS = """
name: payments
source: {path: data.csv}
tracking: {enabled: false}
alerts:
  mask: {card: hash}
  mask_secret: "${NO_SUCH_MASK}"
  webhook: {url: "https://example.com/x", secrets: ["file:no_such_file"]}
  slack: {url: "${NO_SUCH_SLACK}"}
  answers: {url: "https://detector.example.com", secret: "${NO_SUCH_ANSWER}"}
"""


@pytest.fixture
def unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose alerts have secrets that are not there."""
    for name in ("NO_SUCH_MASK", "NO_SUCH_SLACK", "NO_SUCH_ANSWER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "detector.yaml").write_text(SECRETS)
    rows = np.arange(600)
    pd.DataFrame({"amount": rows % 7, "size": rows % 11}).to_csv(tmp_path / "data.csv", index=False)
    return tmp_path


def test_an_unset_secret_says_where_it_may_be(unset: Path) -> None:
    """Not "write its value here", which is refused."""
    with pytest.raises(SettingError) as caught:
        load_config(unset)

    said = str(caught.value)
    assert "NO_SUCH_SLACK is not set. Set it where this command runs" in said
    assert "write file:PATH" in said
    assert "no_such_file cannot be read: it is not there. Write it there" in said
    assert "write its value here" not in said


@pytest.mark.parametrize(
    "command",
    [["train"], ["doctor"], ["jobs", "list"], ["alerts", "list"], ["alerts", "list", "--targets"], ["models", "list"]],
)
def test_commands_that_send_nothing_need_no_secret(unset: Path, command: list[str]) -> None:
    """They work, or fail for another reason; those that send say what is missing."""
    found = CliRunner().invoke(app, [*command, str(unset)])
    sending = CliRunner().invoke(app, ["alerts", "test", str(unset)])

    assert found.exit_code == (1 if command == ["doctor"] else 0), found.output
    assert sending.exit_code == 2
    assert "NO_SUCH_SLACK is not set" in sending.output


def test_a_missing_secret_is_an_error_where_it_is_used(unset: Path) -> None:
    """Nothing is ever signed or hashed with what stands in for it; the doctor names each."""
    config = load_config(unset, needs_secrets=False)

    with pytest.raises(SettingError, match="NO_SUCH_MASK is not set"):
        masks_of(config).show("card", "4929")
    assert config.alerts.slack is not None
    with pytest.raises(SettingError, match="A secret is needed here"):
        config.alerts.slack.url.get_secret_value()
    places = {check.place for check in examine(config) if check.state == "problem"}
    assert places == {"alerts.mask_secret", "alerts.webhook.secrets", "alerts.slack.url", "alerts.answers.secret"}
    assert config.to_dict()["alerts"]["slack"]["url"] == "**********"


def test_a_missing_file_names_the_nearest_only(tmp_path: Path) -> None:
    """Of forty files the few that hold rows and are called alike; no logs, no reports."""
    for name in ["report.html", "clean.log", "clean.py", *(f"day-{n:02}.csv" for n in range(40)), "new.parquet"]:
        (tmp_path / name).write_text("x")

    with pytest.raises(SourceError) as misspelt:
        find_files(str(tmp_path / "day-7.csv"))
    with pytest.raises(SourceError) as strange:
        find_files(str(tmp_path / "zzz"))

    assert "Did you mean 'day-" in str(misspelt.value)
    assert "the nearest names are " in str(strange.value)
    assert str(strange.value).rpartition("nearest names")[2].count(",") == 2
    assert "clean" not in str(strange.value)


@pytest.mark.parametrize(("realised", "told"), [(0.38, True), (0.58, False), (0.9, False)])
def test_a_promise_that_was_not_kept_says_what_to_change(realised: float, told: bool) -> None:
    """By how much, and which settings."""
    periods = pd.DataFrame(
        {"begin": pd.to_datetime(["2026-01-01"]), "seed": 0, "flagged": 100.0, "alerts_per_day": 3.0}
    )
    periods = periods.assign(precision_realised=realised, precision_predicted=0.6)
    plan = Plan(datetime(2026, 1, 1), datetime(2026, 2, 1), every="31d")  # noqa: DTZ001 - as a command reads days

    said = " ".join(summarise(periods, plan))

    assert ("there are 1.5 times the false alarms that were promised" in said) is told
    assert ("`policy.budget`" in said) is told


def payments(days: int, rows: int = 3_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    when = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, rows)), unit="s")
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "when": when,
            "amount": rng.normal(40, 5, rows),
            "fraud": (rng.random(rows) < 0.05).astype(int),
        }
    )


@pytest.mark.parametrize(
    ("days", "least", "parts"),
    [
        (90, 500, ["`train.head.least_anomalies` asks for 500", "more are needed: answer alerts, or name a table"]),
        (10, 50, ["span 10 days", "30 days after its row (`retrain.label_delay_days`)", "`features.reported`"]),
    ],
)
def test_a_head_that_cannot_learn_says_what_is_missing(
    tmp_path: Path, configure: Callable[..., Config], days: int, least: int, parts: list[str]
) -> None:
    """How many labels, where they may come from, and the setting that asks for them; never only "wait"."""
    payments(days).to_parquet(tmp_path / "rows.parquet")
    members = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 10}}
    config = configure(
        tmp_path,
        source={"path": "rows.parquet"},
        columns={"key": "id", "time": "when", "label": "fraud", "numeric": ["amount"]},
        train=members | {"head": {"least_anomalies": least, "trees": 5, "models": 1}},
    )

    report = train(config, now=NOW)

    assert report.head is not None
    assert all(part in report.head for part in parts), report.head


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("when", "Labels are not learnt from. Answers to alerts are, once 50 anomalies are known"),
        (None, None),
    ],
)
def test_where_nothing_is_labelled_little_is_said_of_labels(
    tmp_path: Path, configure: Callable[..., Config], time: str | None, said: str | None
) -> None:
    """Nobody waits for labels that no column, table or answer could give."""
    payments(90, 300).drop(columns="fraud").to_parquet(tmp_path / "rows.parquet")
    members = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 10}}
    config = configure(
        tmp_path,
        source={"path": "rows.parquet"},
        columns={"key": "id", "time": time, "numeric": ["amount"], "others": "ignore"},
        train=members | {"head": {"least_anomalies": 50}},
    )

    report = train(config, now=NOW)

    assert report.head == (None if said is None else f"{said} (`train.head.least_anomalies`).")
