"""What commands print: for a wide terminal, for a narrow one, for programs; and where they find the configuration."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

from detector.errors import StoreError
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.ingest.listing import base_of
from pipelines.listing import Column, Listing
from pipelines.service.status import status_of
from pipelines.store import Lease, Run, SourceFile, existing_store, open_store
from pipelines.store.alert_tables import Alert, Delivery, TargetState
from pipelines.store.engine import HEAD

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LISTS = (
    "doctor",
    "status",
    "jobs list",
    "jobs trail",
    "alerts list",
    "models list",
    "keys list",
    "audit",
    "rules list",
)
OTHERS = ("alerts list --targets", "alerts list --precision", "alerts silence --list")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and some rows, as the working folder."""
    (tmp_path / "data.csv").write_text("id,amount\n" + "".join(f"T{n},{n % 9}\n" for n in range(600)))
    settings = "name: payments\nsource: {path: data.csv}\ncolumns: {key: id}\ntracking: {enabled: false}\n"
    (tmp_path / "detector.yaml").write_text(settings)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, *more: str, columns: int | None = None) -> Any:
    environment = {} if columns is None else {"COLUMNS": str(columns)}
    return CliRunner().invoke(app, [*command.split(), *more], env=environment)


@pytest.mark.parametrize(("width", "is_table"), [(200, True), (139, True), (138, False), (120, False)])
def test_a_table_cuts_no_name_and_no_date_into_pieces(width: int, is_table: bool) -> None:
    """Where it has not the room for them and for 30 letters of each sentence, it is told as records."""
    names = ("first seen", "alerts a day", "learnt from", "report")
    columns = (Column("name", head=True), *(Column(name) for name in names), Column("why", is_sentence=True))
    cells = ("2026-03-02 12:00", "2.6", "2024-10-02 to 2024-10-27", "bundle.models/reports/35b165831c47.html")
    row = {"name": "35b165831c47", **dict(zip(names, cells, strict=True)), "why": "A gain is not sure. " * 4}
    console = Console(file=StringIO(), width=width)

    console.print(Listing(columns, [row]))

    shown = console.file.getvalue()
    assert ("first seen   " in shown) is is_table
    assert all(text in shown for text in ("first seen", "alerts a day", *cells[:3]))


@pytest.mark.parametrize("command", [*LISTS, *OTHERS])
@pytest.mark.usefixtures("home")
def test_every_list_is_json_on_demand(command: str) -> None:
    """Without a configuration named, in the folder that holds one; nothing but JSON on standard output."""
    result = run(command, "--json")

    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), list | dict)


REPORTS = (
    *("init", "train", "score", "explain", "evaluate", "backtest", "retrain", "drift", "models compare"),
    *(
        "backfill",
        "replay",
        "jobs run",
        "alerts show",
        "alerts test",
        "rules try",
        "rules history",
        "keys create",
        "forget",
    ),
)


@pytest.mark.parametrize("command", REPORTS)
def test_every_report_can_be_json(command: str) -> None:
    """Each command that reports says so in its help."""
    assert "--json" in run(command, "--help").output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_report_in_json_holds_the_figures(home: Path) -> None:
    """Of a training and of a score: counts, places, and no rows."""
    lines = "train: {autoencoder: {enabled: false}, neighbours: {enabled: false}}\npolicy: {quantile: 0.98}\n"
    (home / "detector.yaml").write_text((home / "detector.yaml").read_text() + lines)

    trained, scored = (json.loads(run(command, "--json").stdout) for command in ("train", "score"))

    assert trained["rows"] == 540
    assert trained["bundle"] == str(home / "bundle")
    assert trained["reviewed"]["review_rows"] == 60
    assert (scored["rows"], scored["scored"]) == (600, 600)
    assert scored["output"].endswith("scores.parquet")
    (model,) = json.loads(run("models list", "--json").stdout)["models"]
    assert (model["role"], model["rows"]) == ("champion", 540)
    assert f"There is only one detector, {model['name']}" in run("models compare").output


@pytest.mark.usefixtures("home")
def test_keys_are_listed_newest_first_and_fit_the_terminal() -> None:
    """The secret is shown once, when the key is made; a narrow terminal gets records."""
    made = [json.loads(run(f"keys create --name {name} --scope view --json").stdout) for name in ("ann", "bob")]

    listed = json.loads(run("keys list --json").stdout)
    narrow = run("keys list", columns=80).stdout

    assert [key["name"] for key in listed] == ["bob", "ann"]
    assert all(key["key"].startswith("det_") and key["key"] not in narrow for key in made)
    assert [line.split()[1:4] for line in narrow.splitlines()[1:]] == [[name, "view", "·"] for name in ("bob", "ann")]


def test_the_end_of_an_event_stands_above_its_beginning(home: Path) -> None:
    """Alerts are listed by when they happened, the newest first; of one event its end comes later."""
    config = load_config(home)
    facts = {"source": "payments", "group": "g", "incident": "in_1", "label": "press-1", "severity": "high", "rows": 1}
    facts |= {"p_value": 0.001, "model_version": "", "pattern": "", "facts": {}, "created_at": NOW, "last_at": NOW}
    with closing(open_store(config.service.store)) as store, store.write() as session:
        for name, kind, hours in (("al_a", "opened", 2), ("al_b", "recovered", 2), ("al_c", "opened", 1)):
            session.add(Alert(id=name, kind=kind, first_at=NOW - timedelta(hours=hours), **facts))

    listed = json.loads(run("alerts list --json").stdout)

    assert [alert["id"] for alert in listed] == ["al_c", "al_b", "al_a"]


@pytest.mark.usefixtures("home")
def test_narrow_terminals_get_records_and_wide_ones_a_table() -> None:
    """No line is cut off or longer than the terminal; a wide one has a head and a line a row."""
    narrow, wide = (run("doctor", columns=columns).stdout.splitlines() for columns in (80, 200))

    assert max(map(len, narrow)) <= 80
    assert not any("what is there" in line for line in narrow)
    assert any(line.startswith("ok  columns.key") for line in narrow)
    (head,) = [line for line in wide if "what is there" in line]
    assert head.split()[:2] == ["state", "where"]


@pytest.mark.usefixtures("home")
def test_arguments_behind_the_configuration_need_none() -> None:
    """`jobs pause retrain` means the retraining of this folder; a name with room for no more is a configuration."""
    assert run("jobs pause retrain").exit_code == 0
    assert run("jobs pause . drift").exit_code == 0
    jobs = {job["job"]: job["next"] for job in json.loads(run("jobs list --json").stdout)["jobs"]}
    assert (jobs["retrain"], jobs["drift"]) == ("paused", "paused")

    for key in ("2026/17", "amount / 2 > 1"):
        assert f"There is no alert {key!r}" in run("alerts show", key).output

    misspelt = run("doctor paymnets")

    assert misspelt.exit_code == 2
    assert "There is no configuration paymnets" in misspelt.output


def test_without_a_configuration_the_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another argument is missing too."""
    monkeypatch.chdir(tmp_path)

    for command in ("status", "alerts show"):
        result = run(command)

        assert result.exit_code == 2
        assert "There is no detector.yaml in this folder. Name one" in " ".join(result.output.replace("│", "").split())


def test_help_has_groups() -> None:
    """Commands stand with those that are used together."""
    shown = run("--help", columns=100).output

    places = [shown.index(group) for group in ("Start", "Detect", "Serve and answer", "Keep the detector good")]
    assert places == sorted(places)
    assert places[0] < shown.index(" doctor ") < places[1] < shown.index(" backtest ") < places[2]
    assert places[2] < shown.index(" status ") < places[3] < shown.index(" retrain ")


@pytest.mark.parametrize(("revision", "said"), [("0003", "that of an earlier version"), ("9999", "by a newer version")])
def test_state_of_another_version_is_called_so(home: Path, revision: str, said: str) -> None:
    """Status says the rest of what there is to say, and nothing advises to remove the state."""
    config = load_config(home)
    store = open_store(config.service.store)
    with store.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
        if revision < HEAD:
            session.execute(sa.text("DROP TABLE due_times"))
    store.close()

    found = {each.what: each for each in status_of(config, now=NOW, place=".").matters}

    assert found["service"].state == "failed"
    assert said in found["service"].said
    assert "remove the file" not in found["service"].said
    assert "detector" in found
    with pytest.raises(StoreError, match=said):
        existing_store(config.service.store)
    if revision > HEAD:  # an older one is brought up to date, as by all that writes
        assert said in run("models promote . 3f2a").output


def test_status_of_a_new_project_says_how_to_begin(home: Path) -> None:
    """There is no detector and no service: nothing has failed, and training comes first."""
    found = status_of(load_config(home), now=NOW, place=".")

    assert found.well
    assert [(each.what, each.state) for each in found.matters] == [("detector", "waits"), ("service", "off")]
    assert found.summary()[1:] == ["", "To do:", "  detector train"]


def test_status_says_since_when_a_target_is_down(home: Path) -> None:
    """And when it is tried again; what was given up hides nothing that waits."""
    config = load_config(home)
    with closing(open_store(config.service.store)) as store, store.write() as session:
        later = NOW + timedelta(minutes=9)
        session.add(TargetState(name="file", state="down", failures=7, retry_at=later, since=NOW, error="no disk"))
        line = {"group": "g", "attempts": 1, "created_at": NOW, "next_at": NOW, "error": ""}
        for at, state in enumerate(("dead", "waiting", "waiting")):
            session.add(Delivery(alert=f"al_{at}", target="file", state=state, **line))

    found = {each.what: each for each in status_of(config, now=NOW, place="payments").matters}

    at, then = (moment.astimezone() for moment in (NOW, later))
    said = f"is down since {at:%Y-%m-%d %H:%M}, is tried again at {then:%Y-%m-%d %H:%M %Z}: no disk"
    assert found["target file"].said == said
    assert found["target file"].todo == "detector alerts test payments --target file"
    assert found["alerts"].said == "1 given up, 2 not delivered yet"


def test_status_says_what_failed_and_what_to_do(home: Path) -> None:
    """A failed job, a file that cannot be read and a paused job; the exit code tells a script."""
    config = load_config(home)
    base_of(str(config.source.path)).joinpath("a.csv").touch()
    with closing(open_store(config.service.store)) as store, store.write() as session:
        session.add(Lease(name="service", holder="", term=1, beat=1))
        run_of = {"trigger": "schedule", "instance": "i", "started_at": NOW, "ended_at": NOW}
        session.add(Run(job="score", outcome="failed", error="Traceback\nSourceError: gone", **run_of))
        session.add(
            Run(job="score", outcome="overlapped", note="it was due while its last run still went on", **run_of)
        )
        session.add(Run(job="score", outcome="running", **run_of))
        session.add(Run(job="deliver", outcome="running", **run_of))
        session.add(Run(job="retrain", outcome="done", note="kept the champion", **run_of))
        session.add(
            SourceFile(
                source="payments", name="a.csv", size=1, changed_ns=1, state="broken", reason="no lines", seen_at=NOW
            )
        )
    run("jobs pause drift")

    found = {each.what: each for each in status_of(config, now=NOW, place="payments").matters}
    result = run("status", columns=80)

    assert result.exit_code == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert (found["score"].state, found["score"].todo) == ("failed", "detector jobs run payments score")
    assert found["score"].said.endswith(f"SourceError: gone (it runs since {NOW.astimezone():%Y-%m-%d %H:%M})")
    assert found["deliver"].said == f"runs since {NOW.astimezone():%Y-%m-%d %H:%M}"
    assert found["retrain"].state == "ok"
    assert (found["drift"].state, found["drift"].todo) == ("off", "detector jobs resume payments drift")
    assert found["input"].said == "1 file cannot be used: a.csv; the first: no lines"
    assert found["service"].said == "not running"
