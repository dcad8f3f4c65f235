"""One entity's data is deleted: nothing that the service keeps names it afterwards, and nobody else's is touched."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from detector.errors import DataError, SettingError
from detector.features import load_history
from pipelines.alerts.feedback.answers import answer, find
from pipelines.alerts.review import notes
from pipelines.cli import app
from pipelines.config import Config, load_config
from pipelines.features.held_events import HeldEvents
from pipelines.jobs.context import Context
from pipelines.scoring.job import score_new
from pipelines.service import forget as forgetting
from pipelines.service.forget import Forgotten, forget, hidden
from pipelines.service.leader import Leadership
from pipelines.sinks.stored_scores import ScoresQuery, stored_scores
from pipelines.store import Audit, Run, ScoreFile, Store, open_store
from pipelines.store.access_tables import AlertNote, AnsweredRequest, HeldEvent
from pipelines.store.alert_tables import Alert, AlertDay, Answer, Delivery, Silence
from tests import payment_sites
from tests.alert_places import NOW, config_in, give, rows, run, store_in
from tests.payment_sites import LATER, PAYMENTS, expected, put, scores, settle

home, trained = payment_sites.home, payment_sites.trained

WHO = PAYMENTS["card_id"].iloc[750:1_000].value_counts().index[0]
OTHERS = PAYMENTS[PAYMENTS["card_id"] != WHO]
ALERTS = {"alerts": {"file": {"enabled": True}, "log": {"enabled": False}}, "policy": {"quantile": 0.5}}


def forgotten(config: Config, who: str, **given: Any) -> Forgotten:
    with closing(open_store(config.service.store)) as store:
        return forget(config, store, who, actor="ann", reason=f"{who} asked us", now=datetime.now(UTC), **given)


def scored(config: Config, folder: Path, number: int) -> None:
    """One more batch of 250 payments is scored, with a row that cannot be used and alerts that are sent."""
    begin = 750 + 250 * number
    put(folder, f"part{number}", PAYMENTS.iloc[begin : begin + 250])
    with closing(open_store(config.service.store)) as store:
        assert score_new(Context(config, store, LATER)).rows == 250
        run(store, config, now=LATER)


def places(folder: Path, who: str) -> list[str]:
    """The files below a folder, without the source, that hold a name in any form that can be read."""
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = str(path.relative_to(folder))
        if name.startswith(("in/", "bundle/", "past.parquet", "report")):
            continue
        held = who.encode() in path.read_bytes()
        if path.suffix == ".parquet":
            held = who in pd.read_parquet(path).to_csv()
        elif path.suffix == ".npz":
            history = load_history(path)
            held = any(who in entity for store in history.stores.values() for entity in store.entities)
        if held:
            found.append(name)
    return found


@pytest.fixture
def site(home: Path) -> tuple[Config, Path]:
    config = settle(home, **ALERTS)
    for number in range(2):
        scored(config, home, number)
    return config, home


@pytest.mark.slow
def test_nothing_that_the_service_keeps_names_it(site: tuple[Config, Path]) -> None:
    """Scores, alerts and their file, pasts, runs: no file but the source and the detector holds the name."""
    config, folder = site
    with closing(open_store(config.service.store)) as store, store.write() as session:
        values = {"job": "score", "trigger": "", "instance": "", "started_at": LATER, "outcome": "failed", "rows": 0}
        session.add(Run(**values, error=f"card {WHO}: no such card", note="", facts={"notices": [f"'{WHO}' is odd"]}))
    before, count = places(folder, WHO), len(scores(folder))
    own = int((PAYMENTS.iloc[750:1_250]["card_id"] == WHO).sum())
    assert {"service.db", "alerts.jsonl", "bundle.features/history.npz"} <= set(before)
    assert any(name.startswith("scores/") for name in before)
    assert any(name.startswith("bundle.features/payments/") for name in before)

    would = forgotten(config, WHO, dry=True)
    assert places(folder, WHO) == before, "a dry run touches nothing"
    found = forgotten(config, WHO)

    assert found.deleted == would.deleted
    assert places(folder, WHO) == []
    assert len(scores(folder)) == count - own
    assert found.deleted["rows in scores and quarantine"] == own
    assert found.deleted["alerts"] > 0
    assert found.deleted["feature histories"] > 0
    assert sum(forgotten(config, WHO).deleted.values()) == 0, "done again, there is nothing left"
    with closing(open_store(config.service.store)) as store, store.read() as session:
        run_record = session.scalars(sa.select(Run).where(Run.outcome == "failed")).one()
        assert run_record.error == "card (forgotten): no such card"
        assert run_record.facts == {"notices": ["'(forgotten)' is odd"]}
        for each in session.scalars(sa.select(ScoreFile)):
            file = folder / "scores" / each.name
            assert (each.rows, each.size) == (pq.read_metadata(file).num_rows, file.stat().st_size)


@pytest.mark.slow
def test_others_are_scored_as_if_nothing_had_been(site: tuple[Config, Path]) -> None:
    """The service goes on, and features of other cards are what they would have been."""
    config, folder = site
    forgotten(config, WHO)

    scored(config, folder, 2)

    third = set(PAYMENTS["transaction_id"].iloc[1_250:])
    own = set(PAYMENTS.loc[PAYMENTS["card_id"] != WHO, "transaction_id"])
    engine = expected(config, 1_250, before=PAYMENTS.iloc[:1_250])
    found = scores(folder)
    wanted = engine[engine.index.isin(third & own)]
    # the risk of a category counts the deleted card's rows until they are older than it looks back
    assert (found[wanted.index] - wanted).abs().median() < 1e-6
    assert set(wanted.index) <= set(found.index)


def test_audit_record_does_not_name_it(tmp_path: Path) -> None:
    """It can be checked against a name, and not be read; nor does the reason name it."""
    config, store = config_in(tmp_path), store_in(tmp_path)
    forget(config, store, "card-7", actor="ann", reason="card-7 wrote to us", now=NOW)

    with store.read() as session:
        asked, done = session.scalars(sa.select(Audit).order_by(Audit.id)).all()
        assert [asked.action, done.action, asked.actor] == ["forget", "forgotten", "ann"]
        assert asked.reason == "(forgotten) wrote to us"
        kept = asked.arguments["entity"]
    assert kept == hidden("card-7", salt=kept.split(":")[1])
    assert "card-7" not in json.dumps([asked.arguments, done.arguments])


def full(tmp_path: Path, **alerts: Any) -> tuple[Config, Store]:
    """Alerts about two cards whose names begin alike, with all that can stand beside them."""
    config, store = config_in(tmp_path, a_day=4, **alerts), store_in(tmp_path)
    verdicts = rows(*((f"card-{number}", 0, "high") for number in (7, 71)))
    verdicts["transaction_id"] = [f"k{number}" for number in (7, 71)]
    for each in give(store, config, verdicts, now=NOW):
        with store.write() as session:
            alert = find(session, each["id"])
            said = {"config": config, "now": NOW, "who": "ann", "via": "cli", "reason": "x", "snooze": True}
            answer(session, alert, "fine", **said)  # type: ignore[arg-type]
            notes.comment(session, alert, f"called about {alert.label}", who="ann", now=NOW)
    with store.write() as session:
        for number in (7, 71):
            row = {"card_id": f"card-{number}", "amount": 3}
            session.add(HeldEvent(source="payments", key=f"h{number}", row=row, at=NOW))
            given = {"key": "k", "name": str(number), "fingerprint": "", "status": 200, "at": NOW}
            session.add(AnsweredRequest(**given, answer={"scores": [{"key": f"h{number}"}]}))
        lines = [[2, 1.0, f"card-{number}: 1 flagged row"] for number in (7, 71)]
        session.add(
            AlertDay(
                source="payments, backlog",
                day=NOW.date() - timedelta(days=3),
                told=0,
                more=2,
                said=2,
                worst={"events": lines},
            )
        )
    return config, store


def test_what_stands_beside_alerts_goes_and_others_stay(tmp_path: Path) -> None:
    """Verdicts, comments, deliveries, silences, held events, answers, lines of digests: card-71 is not card-7."""
    config, store = full(tmp_path, file={"enabled": True})
    run(store, config, now=NOW)
    shutil.copy(tmp_path / "alerts.jsonl", tmp_path / "alerts.1.jsonl")  # one that was full

    found = forget(config, store, "card-7", actor="ann", reason="", now=NOW)

    deleted = {name: count for name, count in found.deleted.items() if count}
    assert deleted == {
        "alerts": 1,
        "verdicts": 1,
        "silences": 1,
        "lines of digests": 1,
        "lines of the alert file": 2,
        "held events": 1,
        "answered requests": 1,
    }
    with store.read() as session:
        for table in (Alert, Answer, AlertNote, Silence, HeldEvent, AnsweredRequest, Delivery):
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 1, table
        assert session.scalars(sa.select(Alert.label)).one() == "card-71"
        assert session.scalars(sa.select(AlertDay.worst).where(AlertDay.told == 0, AlertDay.more == 2)).one() == {
            "events": [[2, 1.0, "card-71: 1 flagged row"]]
        }
    assert '"card-7"' not in (tmp_path / "alerts.1.jsonl").read_text(), "nor in a file that was full"
    text = (tmp_path / "alerts.jsonl").read_text()
    assert ("card-71" in text, '"card-7"' in text) == (True, False)
    assert (tmp_path / "alerts.jsonl").stat().st_mode & 0o777 == 0o600, "its links are for those who could read it"


@pytest.mark.parametrize("rule", ["hash", "last4", "hide"])
def test_masked_alerts_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """The group of an alert tells whose it is, whatever people may read of it."""
    monkeypatch.setenv("MASK", "0123456789abcdef0123456789abcdef")
    config, store = full(tmp_path, mask={"card_id": rule}, mask_secret="${MASK}")

    assert forget(config, store, "card-7", actor="ann", reason="", now=NOW).deleted["alerts"] == 1


def test_alerts_about_something_else_that_show_it_go(tmp_path: Path) -> None:
    """Where alerts are about shops, those that show the card go with their rows."""
    config, store = config_in(tmp_path, key=["shop"], shown=["card_id"]), store_in(tmp_path)
    verdicts = rows(("card-7", 0, "high"), ("card-8", 0, "high")).assign(shop=["a", "b"])
    give(store, config, verdicts, now=NOW)

    found = forget(config, store, "card-7", actor="ann", reason="", now=NOW)

    assert found.deleted["alerts"] == 1
    with store.read() as session:
        assert session.scalars(sa.select(Alert.label)).all() == ["b"]


def test_deleted_pages_of_sqlite_are_gone(tmp_path: Path) -> None:
    """A deleted row stays readable in the file of a database until it is written anew: it is."""
    config, store = full(tmp_path)
    forget(config, store, "card-7", actor="ann", reason="", now=NOW)
    store.close()

    for path in tmp_path.glob("service.db*"):
        assert b'card-7"' not in path.read_bytes()
        assert b"about card-7" not in path.read_bytes().replace(b"about card-71", b"")


@pytest.mark.parametrize("place", ["service.db", "scores.db"])
def test_scores_in_a_table_go(tmp_path: Path, place: str) -> None:
    """Rows of the entity leave the table, also one in another database; those of others stay."""
    config = config_in(tmp_path)
    file = tmp_path / "detector.yaml"
    file.write_text(file.read_text() + f"output: {{url: 'sqlite:///{place}', table: scores}}\n")
    config, store = load_config(tmp_path), store_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / place)) as connection:
        frame = pd.DataFrame({"transaction_id": ["a", "b", "c"], "card_id": ["7", "71", "7"], "batch": [1, 1, None]})
        frame.assign(risk=1.0, scored_at="2026-01-01").to_sql("scores", connection, index=False)

    assert forget(config, store, "7", actor="ann", reason="", now=NOW, dry=True).deleted["keys"] == 0
    found = forget(config, store, "7", actor="ann", reason="", now=NOW)

    assert found.deleted["rows in scores and quarantine"] == 1, "a row without a batch is none of the service's"
    assert stored_scores(config, store, ScoresQuery(("risk",)))["transaction_id"].tolist() == ["b", "c"]


def test_quarantined_rows_go_and_others_stay_as_they_are(tmp_path: Path) -> None:
    """CSV files are written anew as text: what stays is not read as numbers."""
    config, store = config_in(tmp_path), store_in(tmp_path)
    folder = tmp_path / "scores.quarantine"
    folder.mkdir()
    text = '"row","reason","card_id","amount"\n"0","no, number","card-7","x"\n"1","two\nlines","card-71","007"\n'
    (folder / "batch-1.csv").write_text(text)

    found = forget(config, store, "card-7", actor="ann", reason="", now=NOW)

    assert found.deleted["rows in scores and quarantine"] == 1
    head, kept = '"row","reason","card_id","amount"\n', '"1","two\nlines","card-71","007"\n'
    assert (folder / "batch-1.csv").read_text() == head + kept


def test_service_that_runs_is_not_touched(tmp_path: Path) -> None:
    """It would write the past that it holds again; a dry run only looks."""
    config, store = full(tmp_path)
    config = config.model_copy(update={"service": config.service.model_copy(update={"lease": 0.3})})
    leads = Leadership(store, seconds=60, instance="other/1/x/2")
    assert leads.lead()
    stop = datetime.now(UTC) + timedelta(seconds=5)

    class Beats(Leadership):
        def lead(self) -> bool:
            leads.lead()
            assert datetime.now(UTC) < stop
            return super().lead()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "Leadership", Beats)
        with pytest.raises(SettingError, match="The service runs.*Stop every instance"):
            forget(config, store, "card-7", actor="ann", reason="", now=NOW)

    assert forget(config, store, "card-7", actor="ann", reason="", now=NOW, dry=True).deleted["alerts"] == 1
    with store.read() as session:
        assert session.scalars(sa.select(Audit.action).where(Audit.action.like("forg%"))).all() == []


def test_bad_names_and_projects_without_entities(tmp_path: Path) -> None:
    """Each says what is wrong."""
    config, store = config_in(tmp_path), store_in(tmp_path)
    with pytest.raises(DataError, match="received empty text"):
        forget(config, store, "  ", actor="ann", reason="", now=NOW)
    columns = config.columns.model_copy(update={"entity": None})
    with pytest.raises(SettingError, match=r"`columns\.entity` names no column"):
        forget(config.model_copy(update={"columns": columns}), store, "x", actor="ann", reason="", now=NOW)


def test_command_says_what_goes_and_what_stays(tmp_path: Path) -> None:
    """For people and programs; what it cannot delete is named with what to do."""
    full(tmp_path, alertmanager={"url": "http://127.0.0.1:1"})
    runner, place = CliRunner(), str(tmp_path)

    dry = runner.invoke(app, ["forget", place, "card-7", "--dry-run", "--json"])
    done = runner.invoke(app, ["forget", place, "card-7"])
    nobody = runner.invoke(app, ["forget", place, "card-9"])

    assert (dry.exit_code, done.exit_code, nobody.exit_code) == (0, 0, 0), done.output
    assert json.loads(dry.stdout)["deleted"]["alerts"] == 1
    stays = json.loads(dry.stdout)["stays"]
    assert [each.split(":")[0] for each in stays] == [
        "source",
        "detectors",
        "features",
        "alerts that were sent",
        "files by hand",
    ]
    assert "alerts" in done.stdout
    assert "Nothing: the service keeps nothing of it" in nobody.stdout


def test_held_events_are_not_counted_any_more(tmp_path: Path) -> None:
    """What the API was asked about is gone from the past of later events as well."""
    config, store = full(tmp_path)
    forget(config, store, "card-7", actor="ann", reason="", now=NOW)

    held = HeldEvents(store, "payments", hours=48).frame(now=NOW)

    assert held.index.tolist() == ["h71"]
