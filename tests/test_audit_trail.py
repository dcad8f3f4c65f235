"""The audit trail: what is written down, that nobody changes it, and how it is seen and exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from detector.errors import DataError, StoreError
from pipelines.alerts.feedback.answers import answer, find
from pipelines.alerts.grouping import silences
from pipelines.alerts.review import notes
from pipelines.cli import app
from pipelines.store import Audit, Store
from pipelines.store.trail import TrailQuery, as_dict, entries, exported, write_down
from tests.alert_places import NOW, config_in, give, rows, store_in
from tests.web import Browser, Served, served


@pytest.fixture
def store(each_store: Store) -> Store:
    return each_store


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Served]:
    with served(config_in(tmp_path), store_in(tmp_path)) as found:
        yield found


def actions(store: Store, **wanted: object) -> list[str]:
    """What was done, the latest first."""
    with store.read() as session:
        return [each.action for each in entries(session, TrailQuery(**wanted))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'bob'",
        "UPDATE audit SET at = '2020-01-01'",
        "UPDATE audit SET arguments = '{}'",
        "DELETE FROM audit",
    ],
)
def test_database_refuses_to_change_it(store: Store, change: str) -> None:
    """Whoever can write to the state cannot make a record of today vanish, nor name somebody else."""
    now = datetime.now(UTC)
    with store.write() as session:
        write_down(session, "promote", actor="ann", reason="better", arguments={"to": "x"}, now=now)

    with pytest.raises(StoreError, match="the audit trail is only added to"), store.write() as session:
        session.execute(sa.text(change))

    with store.read() as session:
        kept = session.scalars(sa.select(Audit)).one()
        assert (kept.actor, kept.at, kept.arguments) == ("ann", now, {"to": "x"})


def test_counts_of_a_backfill_may_grow_and_old_records_may_go(store: Store) -> None:
    """What is written while a job goes on, and what housekeeping does, is no change of what was said."""
    with store.write() as session:
        record = write_down(session, "backfill", actor="ann", now=datetime.now(UTC))
        write_down(session, "pause score", actor="ann", now=datetime.now(UTC) - timedelta(days=40))
        session.flush()
        record.batches += 1
    with store.write() as session:
        session.execute(sa.delete(Audit).where(Audit.at < datetime.now(UTC) - timedelta(days=31)))

    assert actions(store) == ["backfill"]


def test_what_people_do_is_written_down_without_naming_the_entity(tmp_path: Path) -> None:
    """Verdicts, comments, names and silences leave who, what and the alert; reasons stay with the alert."""
    config, store = config_in(tmp_path), store_in(tmp_path)
    (made,) = give(store, config, rows(("card-7", 0, "high")))
    with store.write() as session:
        alert = find(session, made["id"])
        given = {"config": config, "now": NOW, "who": "ann", "via": "cli", "reason": "card-7 was stolen"}
        answer(session, alert, "fraud", **given)  # type: ignore[arg-type]
        notes.comment(session, alert, "called card-7", who="ann", now=NOW)
        notes.assign(session, alert, "bob", who="ann", now=NOW)
        quiet = notes.snooze(session, alert, hours=8, reason="card-7 travels", who="bob", now=NOW)
        silences.lift(session, quiet.id, who="bob", now=NOW + timedelta(hours=1))
    with store.read() as session:
        found = [as_dict(each) for each in entries(session, TrailQuery())]

    assert [(each["actor"], each["action"]) for each in found] == [
        ("bob", "lift silence"),
        ("bob", "silence"),
        ("ann", "assign"),
        ("ann", "comment"),
        ("ann", "verdict fraud"),
    ]
    assert found[-1]["arguments"] == {"alert": made["id"], "via": "cli"}
    assert "card-7" not in json.dumps(found)


def test_commands_leave_a_trail(tmp_path: Path) -> None:
    """Keys, pauses and retries from a terminal are written down as those from the console are."""
    config_in(tmp_path)
    runner, place = CliRunner(), str(tmp_path)
    made = runner.invoke(app, ["keys", "create", place, "--name", "till", "--scope", "score"]).stdout.split()[0]
    for command in (
        ["keys", "revoke", place, made],
        ["jobs", "pause", place, "retrain"],
        ["jobs", "resume", place, "retrain"],
        ["alerts", "retry", place],
    ):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.output
    shown = runner.invoke(app, ["audit", place, "--json"])
    found = json.loads(shown.stdout)

    assert [each["what"] for each in found] == [
        "retry alerts",
        "resume retrain",
        "pause retrain",
        "revoke key",
        "create key",
    ]
    assert made.split("_")[2] not in shown.stdout, "the key itself is nowhere"


@pytest.fixture
def full(store: Store) -> Store:
    """More records than one page of the database has."""
    with store.write() as session:
        for number in range(2_300):
            actor, moment = ("ann", "=cmd()")[number % 2], NOW + timedelta(minutes=number)
            write_down(session, f"verdict {'fraud' if number % 3 else 'fine'}", actor=actor, now=moment)
        write_down(session, "verdict_100%", actor="bob", now=NOW + timedelta(days=9))
    return store


def test_pages_and_filters(full: Store) -> None:
    """By who, what, when and page; the first word finds all that begin with it, and signs of patterns are signs."""
    with full.read() as session:
        first = entries(session, TrailQuery(action="verdict", most=100))
        second = entries(session, TrailQuery(action="verdict", before=first[-1].id, most=100))

        assert [len(first), len(second)] == [100, 100]
        assert first[-1].id == second[0].id + 1
        assert {each.action for each in entries(session, TrailQuery(action="verdict fine", most=999))} == {
            "verdict fine"
        }
        assert entries(session, TrailQuery(action="verdict%")) == []
        assert {each.actor for each in entries(session, TrailQuery(actor="ann", most=999))} == {"ann"}
        between = TrailQuery(since=NOW + timedelta(minutes=10), until=NOW + timedelta(minutes=20))
        assert len(entries(session, between)) == 10


def test_all_of_it_is_exported(full: Store) -> None:
    """Every record once, in either form; no cell is a formula."""
    lines = "".join(exported(full, TrailQuery(most=3), form="jsonl")).splitlines()
    table = list(csv.DictReader(io.StringIO("".join(exported(full, TrailQuery(), form="csv")))))

    assert len(lines) == len(table) == 2_301
    assert [json.loads(line)["id"] for line in lines] == [int(line["id"]) for line in table]
    assert {line["actor"] for line in table} == {"ann", "bob", "'=cmd()"}
    with pytest.raises(DataError, match="expected csv or jsonl, received 'xlsx'"):
        exported(full, TrailQuery(), form="xlsx")


def test_command_exports_to_a_file(tmp_path: Path) -> None:
    """By its suffix, or to standard output; another suffix, or a place that is none, is an error."""
    config_in(tmp_path)
    with store_in(tmp_path).write() as session:
        write_down(session, "promote", actor="ann", reason="two\nlines", now=NOW)
    runner, place = CliRunner(), str(tmp_path)

    assert runner.invoke(app, ["audit", place, "--export", str(tmp_path / "a.csv")]).exit_code == 0
    (line,) = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text()))
    assert (line["action"], line["reason"]) == ("promote", "two\nlines")
    printed = runner.invoke(app, ["audit", place, "--export", "-", "--until", "2026-03-03"]).stdout
    assert json.loads(printed)["actor"] == "ann"
    assert runner.invoke(app, ["audit", place, "--export", "-", "--since", "2026-03-03"]).stdout == ""
    for wrong, why in (("a.xlsx", "expected a .csv or .jsonl file"), ("no/where.csv", "cannot be written")):
        done = runner.invoke(app, ["audit", place, "--export", str(tmp_path / wrong)])
        assert done.exit_code != 0
        assert why in " ".join(done.stderr.split())


def test_api_shows_and_exports_it_to_admins(desk: Served) -> None:
    """Reviewers do not see what others do."""
    desk.ask("POST", "/v1/jobs/retrain/pause", json={"reason": "labels are wrong"})

    found = desk.ask("GET", "/v1/audit?limit=1").json()
    (record,) = found["records"]
    assert (record["actor"], record["action"], record["reason"]) == ("ann", "pause retrain", "labels are wrong")
    assert found["next"] == record["id"]
    assert desk.ask("GET", f"/v1/audit?before={found['next']}&action=pause").json()["records"] == []
    assert desk.ask("GET", "/v1/audit", scope="review").status_code == 403
    assert desk.ask("GET", "/v1/audit?since=2026-01-01T00:00:00").status_code == 200
    assert desk.ask("GET", "/v1/audit?before=x").status_code == 422
    export = desk.ask("GET", "/v1/audit/export?format=csv&action=pause")
    assert export.headers["content-type"].startswith("text/csv")
    assert export.text.splitlines()[1].split(",")[2:4] == ["ann", "pause retrain"]
    assert json.loads(desk.ask("GET", "/v1/audit/export?action=pause").text)["action"] == "pause retrain"
    assert desk.ask("GET", "/v1/audit/export?format=exe").status_code == 422
    assert desk.ask("GET", "/v1/audit/export", scope="review").status_code == 403


def test_console_has_a_page_for_admins(desk: Served) -> None:
    """Escaped, by pages, as a file; others are told which scope it takes."""
    admin, analyst = Browser(desk), Browser(desk)
    analyst.sign_in("review")
    admin.sign_in("admin")
    with desk.store.write() as session:
        for _ in range(120):
            write_down(session, "pause score", actor="<b>eve</b>", reason="<script>", now=NOW)

    shown = admin.ask("GET", "/audit")

    assert "&lt;b&gt;eve&lt;/b&gt;" in shown.text
    assert "<script>" not in shown.text.replace('<script src="', "")
    assert "Earlier ones" in shown.text
    assert "sign in" in admin.ask("GET", "/audit?action=sign+in").text
    assert "Nothing is on record" in admin.ask("GET", "/audit?actor=nobody&before=99999999999999999999").text
    assert admin.ask("GET", "/audit.jsonl?action=pause").text.count("\n") == 120
    assert admin.ask("GET", "/audit.exe").status_code in (400, 404, 422)
    assert "/console/audit" in admin.ask("GET", "/health").text
    assert "/console/audit" not in analyst.ask("GET", "/health").text
    for path in ("/audit", "/audit.csv"):
        assert analyst.ask("GET", path).status_code == 403
