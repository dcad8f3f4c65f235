from __future__ import annotations

import json
import logging
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import requests
import sqlalchemy as sa
from fastapi import FastAPI
from typer.testing import CliRunner

from detector.errors import DataError, SettingError
from detector.explain.reason import Reason
from detector.schema import Schema
from pipelines.alerts.channels.targets import secrets_of, without_secrets
from pipelines.alerts.feedback.answers import answer, find, in_all, precision, realised
from pipelines.alerts.feedback.router import answer_router
from pipelines.alerts.message import links
from pipelines.alerts.network.addresses import guarded, is_allowed, networks_of
from pipelines.cli import app
from pipelines.config import Config, load_config
from pipelines.labels.feedback import Statements
from pipelines.labels.known import with_statements
from pipelines.service.http import HttpServer
from pipelines.store import Store, open_store
from pipelines.store.alert_tables import Alert, Answer, Delivery, Silence
from tests.alert_places import NOW, SECRET, config_in, deliveries, free_port, give, receiver, rows, run, store_in

LINK_SECRET = "a secret to sign links with"
CARD = "4929123412347777"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


def answering(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Config:
    monkeypatch.setenv("LINKS", LINK_SECRET)
    answers = {"url": "https://detector.example.com/", "secret": "${LINKS}"}
    return config_in(folder, answers=answers, file={"path": "alerts.jsonl"}, **more)


def link_of(folder: Path) -> str:
    line = (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return str(urlsplit(json.loads(line)["links"]["answer"]).path)


def kept(store: Store) -> list[tuple[str, str, str, str]]:
    with store.read() as session:
        found = session.scalars(sa.select(Answer).order_by(Answer.id)).all()
        return [(each.verdict, each.reason, each.who, each.via) for each in found]


def test_link_is_answered_by_the_service(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at the link changes nothing; the form behind it keeps who, why, when and by which version."""
    config = answering(tmp_path, monkeypatch)
    give(store, config, rows(("<b>a</b>", 0, "high"), ("<b>a</b>", 1, "high")))
    run(store, config)
    times = [NOW]
    page = FastAPI()
    page.include_router(answer_router(config, store, clock=lambda: times[0]))
    server = HttpServer(page, host="127.0.0.1", port=0)
    server.start()
    url = server.address + link_of(tmp_path)
    form = {"verdict": "fine", "reason": "known trip", "who": "ann", "snooze": "yes"}
    try:
        for _ in range(3):
            looked = requests.get(url, timeout=5)
        unchanged = kept(store)
        nobody = requests.post(url, data=form | {"who": " "}, timeout=5)
        wrong = requests.post(url, data=form | {"verdict": "maybe"}, timeout=5)
        forged = requests.get(url[:-2] + ("AA" if not url.endswith("AA") else "BB"), timeout=5)
        huge = requests.post(url, data={"reason": "x" * 50_000}, timeout=5)
        posted = requests.post(url, data=form, timeout=5)
        again = requests.get(url, timeout=5)
        times[0] = NOW + timedelta(days=15)
        old = requests.post(url, data=form, timeout=5)
    finally:
        server.stop()

    assert (looked.status_code, unchanged) == (200, [])
    assert "&lt;b&gt;a&lt;/b&gt;" in looked.text
    assert looked.headers["cache-control"] == "no-store"
    assert (nobody.status_code, wrong.status_code, forged.status_code, huge.status_code) == (400, 400, 400, 413)
    assert "not valid" in forged.text
    assert posted.status_code == 200
    assert "fine, by ann on 2026-03-02" in again.text
    assert (old.status_code, "valid until" in old.text) == (400, True)
    assert kept(store) == [("fine", "known trip", "ann", "file")]
    with store.read() as session:
        assert session.scalars(sa.select(Answer.model_version)).all() == ["abc123def456"]
        assert session.scalars(sa.select(Silence.pattern)).all() == ["amount"]
    assert give(store, config, rows(("<b>a</b>", 300, "critical")), now=NOW + timedelta(days=1)) == []


def test_forms_of_any_kind_get_a_page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many fields, a token too long, or none at all: a page that says so, and nothing that went wrong inside."""
    config = answering(tmp_path, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    run(store, config)
    page = FastAPI()
    page.include_router(answer_router(config, store, clock=lambda: NOW))
    server = HttpServer(page, host="127.0.0.1", port=0)
    server.start()
    url, many = server.address + link_of(tmp_path), {f"f{number}": "" for number in range(40)}
    try:
        answered = [
            requests.post(url, data=many, timeout=5),
            requests.post(f"{server.address}{links.PATH}/x", data=many, timeout=5),
            requests.post(f"{server.address}{links.PATH}/x", data=b"\xff\x00;" * 5_000, timeout=5),
            requests.get(f"{server.address}{links.PATH}/{'x' * 3_000}", timeout=5),
            requests.get(f"{server.address}{links.PATH}/%00%ff.%C3%A4", timeout=5),
            requests.post(f"{server.address}{links.PATH}/{'x' * 3_000}", data={"who": "ann"}, timeout=5),
        ]
    finally:
        server.stop()

    assert [each.status_code for each in answered] == [400] * 6
    assert all("That did not work" in each.text and "</html>" in each.text for each in answered)
    assert kept(store) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_answer_of_any_characters_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    """A character that a database knows nothing of does not have the answer refused for ever."""
    config = answering(tmp_path, monkeypatch)
    if kind == "sqlite":
        store = store_in(tmp_path)
    else:
        store = open_store(request.getfixturevalue("postgres").url(f"answers_{abs(hash(tmp_path))}"))
    try:
        made = give(store, config, rows(("card\x00", 0, "high")))[0]["id"]
        with store.write() as session:
            alert = find(session, made)
            answer(
                session,
                alert,
                "fine",
                reason="known\x00\r\ntrip\ud800",
                who="an\x00n\nbob",
                via="cli",
                config=config,
                now=NOW,
                snooze=True,
            )
        found, silenced = kept(store), store
        with silenced.read() as session:
            silence = session.scalars(sa.select(Silence)).one().reason
    finally:
        store.close()

    assert found == [("fine", "known\\x00\ntrip\\ud800", "an\\x00n bob", "cli")]
    assert silence == "fine: known\\x00\ntrip\\ud800"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_beginning_of_a_name_is_looked_up_and_not_searched_for(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Whatever the collation; unknown names cost no look at every alert either."""
    if kind == "sqlite":
        store = store_in(tmp_path)
    else:
        server = request.getfixturevalue("postgres")
        admin = sa.create_engine(sa.make_url(server.url("finding_admin")).set(drivername="postgresql+psycopg"))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            icu = "CREATE DATABASE finding TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"
            connection.execute(sa.text(icu))
        store = open_store(str(admin.url.set(drivername="postgresql", database="finding")))
        admin.dispose()
    plans: list[str] = []

    def listen(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "LIMIT" in statement:
            with closing(connection.connection.cursor()) as own:
                if kind == "postgresql":
                    own.execute("SET enable_seqscan = off")
                own.execute(f"EXPLAIN {'QUERY PLAN ' if kind == 'sqlite' else ''}{statement}", parameters)
                plans.append("\n".join(str(line[-1]) for line in own.fetchall()))

    try:
        made = [
            each["id"] for each in give(store, config_in(tmp_path), rows(*((f"c{n}", n, "high") for n in range(9))))
        ]
        first = min(made)
        unique = next(first[:length] for length in range(4, 28) if sum(i.startswith(first[:length]) for i in made) == 1)
        sa.event.listen(store.engine, "before_cursor_execute", listen)
        with store.read() as session:
            assert find(session, unique).id == first
            assert find(session, unique.removeprefix("al_")).id == first
            for name, message in (
                ("al_", "several"),
                ("zzz", "no alert"),
                (f"{first}0", "no alert"),
                ("_l", "no alert"),
            ):
                with pytest.raises(DataError, match=f"There (is|are) {message}"):
                    find(session, name)
    finally:
        store.close()

    assert len(plans) == 6
    assert all(("SEARCH" if kind == "sqlite" else "Index Cond") in plan for plan in plans)


def test_file_with_links_is_for_its_owner_only(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it can answer; a file that is there keeps the mode that somebody gave it."""
    config = answering(tmp_path, monkeypatch)
    file, modes = tmp_path / "alerts.jsonl", []
    for number, mode in enumerate((None, 0o640)):
        if mode is not None:
            file.chmod(mode)
        give(store, config, rows((f"a{number}", 0, "high")))
        run(store, config)
        modes.append(file.stat().st_mode & 0o777)

    assert modes == [0o600, 0o640]
    assert len(file.read_text().splitlines()) == 2


def test_no_answers_section_means_no_pages(store: Store, tmp_path: Path) -> None:
    """Without a secret there is nothing to answer by."""
    assert answer_router(config_in(tmp_path), store, clock=lambda: NOW).routes == []


def test_changed_link_is_refused() -> None:
    """A link for one alert is none for another, nor for longer."""
    token = links.sign(links.Claim("al_1", "slack", NOW), LINK_SECRET)
    other = links.sign(links.Claim("al_2", "slack", NOW + timedelta(days=99)), "another secret of mine")

    mixed = f"{other.partition('.')[0]}.{token.partition('.')[2]}"
    for wrong in (mixed, other, token[:-3], "", ".", "é.é", token.replace(".", "")):
        with pytest.raises(DataError, match="not valid"):
            links.read(wrong, LINK_SECRET, now=NOW)


def test_answers_are_counted_by_channel_reason_and_week(store: Store, tmp_path: Path) -> None:
    """The last answer counts; unsure counts for neither; labels carry when they became known."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"})
    give(store, config, rows(*[(name, 0, "high") for name in "abcde"]))
    run(store, config)
    with store.write() as session:
        alerts = {alert.label: alert for alert in session.scalars(sa.select(Alert))}
        said = [("a", "fine"), ("a", "fraud"), ("b", "fine"), ("c", "unsure"), ("d", "fraud")]
        for number, (name, verdict) in enumerate(said):
            answer(
                session,
                alerts[name],
                verdict,
                reason="",
                who="ann",
                via="cli",
                config=config,
                now=NOW + timedelta(hours=number),
            )
    with store.read() as session:
        (line,) = precision(session, source="payments").to_dict("records")

    assert line == {
        "channel": "file",
        "reason": "amount",
        "week": "2026-W10",
        "alerts": 5,
        "answered": 3,
        "fraud": 2,
        "precision": pytest.approx(2 / 3),
    }
    schema = Schema(key="transaction_id", label="is_fraud")
    keys = pd.DataFrame({"transaction_id": ["t0", "t1", "t2", "t3"]})
    statements = Statements.answers(config)
    joined, _ = with_statements(keys, schema, statements)
    said = statements.verdicts.set_index("key").loc["t0"]
    assert said["known_at"].dt.tz_localize(UTC).tolist() == [NOW, NOW + timedelta(hours=1)]
    assert joined["is_fraud"].tolist() == pytest.approx([1, 0, float("nan"), 1], nan_ok=True)


@pytest.mark.parametrize("mask", [{}, {"transaction_id": "hash"}])
def test_answers_are_labels_in_evaluation(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: dict[str, str]
) -> None:
    """Either source may say fraud; fine counts where the label column says nothing; a look makes no state.

    A key that alerts show hashed finds its row.
    """
    monkeypatch.setenv("MASK", "what hashes are made with")
    assert Statements.answers(config_in(tmp_path / "new")).verdicts.empty
    assert realised(config_in(tmp_path / "new")) is None
    assert not (tmp_path / "new" / "service.db").exists()
    config = config_in(tmp_path, log={"enabled": True}, mask=mask, mask_secret="${MASK}")
    names = {each["label"]: each["id"] for each in give(store, config, rows(*((f"c{i}", i, "high") for i in range(4))))}
    run(store, config)
    with store.write() as session:
        for who, verdict in (("c0", "fraud"), ("c1", "fine"), ("c2", "fine"), ("c3", "unsure")):
            answer(session, find(session, names[who]), verdict, reason="", who="ann", via="log", config=config, now=NOW)
    table = pd.DataFrame({"transaction_id": ["t0", "t1", "t2", "t3"], "is_fraud": [0, 1, None, None]})
    schema = Schema(key="transaction_id", label="is_fraud")

    joined, said = with_statements(table, schema, Statements.answers(config))

    assert joined["is_fraud"].tolist() == pytest.approx([1, 1, 0, float("nan")], nan_ok=True)
    assert said == 3
    assert realised(config) == "Alerts that people answered and that were fraud: log 1 of 3."
    assert with_statements(table, Schema(label="is_fraud"), Statements.answers(config))[1] == 0
    assert (
        with_statements(table[["transaction_id"]], schema, Statements.answers(config))[0]["is_fraud"].isna().sum() == 1
    )


def test_answer_to_nothing_is_refused(store: Store, tmp_path: Path) -> None:
    """An alert that is not there, and an answer that is none, are errors that say so."""
    config = config_in(tmp_path)
    with store.read() as session:
        with pytest.raises(DataError, match="There is no alert 'al_nope'"):
            find(session, "al_nope")
        with pytest.raises(DataError, match="There is no answer 'frod'. Did you mean 'fraud'"):
            answer(session, Alert(), "frod", reason="", who="", via="", config=config, now=NOW)


# The command line -----------------------------------------------------------------------------------------------------


def printed(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["alerts", *words], env={"COLUMNS": "160"})
    assert done.exit_code == code, done.output
    return re.sub(r"\s+", " ", done.output)


def test_command_line_shows_answers_and_silences(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person does with alerts by hand."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"})
    now = datetime.now(UTC)
    (alert,) = give(store, config, rows(("card-7", 0, "high")), now=now)
    run(store, config, now=now)
    folder, name = str(tmp_path), alert["id"][:12]

    assert "card-7 in payments is unusual (high)" in printed("list", folder)
    assert "1 in 20,000 normal rows" in printed("show", folder, name)
    assert "file up 0 0" in printed("list", folder, "--targets").replace("low ", "")
    assert "is fine" in printed("answer", folder, name, "fine", "--reason", "known", "--who", "ann", "--snooze")
    assert "fine by ann" in printed("show", folder, name)
    assert "0 %" in printed("list", folder, "--precision")
    assert re.search(r"card-7 \S+ \S+ UTC amount ", printed("silence", folder, "--list"))
    assert "Silence 2: card-8 until" in printed(
        "silence", folder, "--entity", "card-8", "--reason", "test", "--hours", "2"
    )
    assert "Silence 2 is over" in printed("silence", folder, "--lift", "2")
    assert "needs a reason" in printed("silence", folder, "--everything", code=1)
    assert "--alert ALERT" in printed("silence", folder, "--reason", "x", code=2)
    assert "There is no state 'ded'. Did you mean 'dead'?" in printed("list", folder, "--state", "ded", code=1)


def test_silenced_entity_is_the_same_by_hand(store: Store, tmp_path: Path) -> None:
    """``--entity`` names the same group as the rows do."""
    config = config_in(tmp_path)
    printed("silence", str(tmp_path), "--entity", "a", "--reason", "planned work")

    assert give(store, config, rows(("a", 0, "critical")), now=datetime.now(UTC)) == []


def test_dead_letters_are_sent_by_retry(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up goes out when a person says so, and a disabled target is on again."""
    monkeypatch.setenv("HOOK", SECRET)
    with receiver() as server:
        server.answer = lambda n: (410, {}, b"") if n == 1 else (200, {}, b"")
        config = config_in(tmp_path, webhook={"url": server.url, "secrets": ["${HOOK}"]})
        give(store, config, rows(("a", 0, "high")))
        run(store, config)
        run(store, config, now=NOW + timedelta(days=5))
        before = [each["state"] for each in deliveries(store)]

        said = printed("retry", str(tmp_path), "--target", "webhook")

        assert before == ["dead"]
        assert "sent 1" in said
        assert len(set(server.ids)) == 1
    assert [each["state"] for each in deliveries(store)] == ["sent"]


def test_targets_are_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``test`` sends to each target and says which of them did not take it."""
    monkeypatch.setenv("HOOK", SECRET)
    config_in(
        tmp_path,
        file={"path": "alerts.jsonl"},
        webhook={"url": f"http://127.0.0.1:{free_port()}/", "secrets": ["${HOOK}"]},
    )

    said = printed("test", str(tmp_path), code=1)

    assert "file: took it" in said
    assert "webhook: 127.0.0.1 cannot be reached" in said
    file, webhook = json.loads(printed("test", str(tmp_path), "--json", code=1))
    assert (file["taken"], webhook["taken"]) == (True, False)
    assert "127.0.0.1 cannot be reached" in webhook["problem"]
    assert "no target 'flie'. Did you mean 'file'" in printed("test", str(tmp_path), "--target", "flie", code=2)


# What must not be seen ------------------------------------------------------------------------------------------------


def test_masked_columns_are_read_nowhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A card number and a name that are masked stand in no message, no table of ours, no log, no output."""
    monkeypatch.setenv("MASK", "what hashes are made with")
    monkeypatch.setenv("HOOK", SECRET)
    with receiver() as server:
        monkeypatch.setenv("SLACK", f"{server.url}/slack")
        monkeypatch.setenv("PD", "p" * 32)
        config = answering(
            tmp_path,
            monkeypatch,
            mask={"card_id": "last4", "holder": "hide", "transaction_id": "hash", "country": "hash"},
            mask_secret="${MASK}",
            shown=["holder"],
            recovery=True,
            log={"enabled": True},
            webhook={"url": server.url, "secrets": ["${HOOK}"]},
            slack={"url": "${SLACK}"},
            pagerduty={"routing_key": "${PD}", "url": f"{server.url}/pd"},
            alertmanager={"url": server.url},
        )
        given = rows((CARD, 0, "high"), holder="Anna Secretname").assign(transaction_id="tx-998877")
        reasons = [Reason("country", "Ruritania", "Freedonia", 0.61), Reason("holder", "Anna Secretname", "", 0.09)]
        with caplog.at_level(logging.DEBUG):
            (alert,) = give(store, config, given.assign(reasons=[reasons]))
            give(store, config, rows((CARD, 60, ""), flagged=False))
            run(store, config)
        seen = b"\n".join(body for _, _, body in server.got).decode()
        paths = {path for path, _, _ in server.got}
    seen += caplog.text + json.dumps(alert, default=str) + (tmp_path / "alerts.jsonl").read_text(encoding="utf-8")
    seen += printed("list", str(tmp_path)) + printed("show", str(tmp_path), alert["id"])
    for file in tmp_path.glob("service.db*"):
        seen += file.read_bytes().decode("latin-1")

    assert paths == {"/", "/slack", "/pd", "/api/v2/alerts"}
    assert "…7777" in seen
    for hidden in (CARD, "Secretname", "tx-998877", "Ruritania", "Freedonia"):
        assert hidden not in seen, hidden


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_secrets_are_shown_nowhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every secret of every channel is absent from texts, dumps, logs, the state, errors and the command line."""
    (tmp_path / "key.txt").write_text("f" * 32 + "\n", encoding="utf-8")
    port = free_port()
    secrets = {
        "HOOK": SECRET,
        "HOOK_URL": f"http://user:hook-password-1@127.0.0.1:{port}/hook-token-2",
        "SLACK": f"http://127.0.0.1:{port}/services/slack-token-3",
        "MAIL": "mail-password-4",
        "LINKS": "link-secret-5-long-enough",
        "MASK": "mask-secret-6",
        "APPRISE": f"json://127.0.0.1:{port}/apprise-token-7",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    config = config_in(
        tmp_path,
        mask={"card_id": "hash"},
        mask_secret="${MASK}",
        answers={"url": "https://d.example.com", "secret": "${LINKS}"},
        webhook={"url": "${HOOK_URL}", "secrets": ["${HOOK}"]},
        slack={"url": "${SLACK}"},
        pagerduty={"routing_key": "file:key.txt", "url": f"http://127.0.0.1:{port}/v2"},
        email={
            "host": "127.0.0.1",
            "port": port,
            "user": "u",
            "password": "${MAIL}",
            "sender": "a@example.com",
            "to": ["b@example.com"],
        },
        apprise={"urls": ["${APPRISE}"]},
    )
    with caplog.at_level(logging.DEBUG):
        give(store, config, rows(("a", 0, "critical")))
        outcome = run(store, config)
    seen = "\n".join(
        [
            repr(config),
            str(config.to_dict()),
            config.model_dump_json(),
            caplog.text,
            str(outcome),
            printed("list", str(tmp_path), "--targets"),
            printed("test", str(tmp_path), code=1),
        ]
    )
    for file in tmp_path.glob("service.db*"):
        seen += file.read_bytes().decode("latin-1")

    assert outcome.rows == 0
    assert len(outcome.facts["failed"]) == 5
    tokens = ("hook-password-1", "hook-token-2", "slack-token-3", "apprise-token-7", "f" * 32)
    for hidden in (*secrets.values(), SECRET.removeprefix("whsec_"), *tokens):
        assert hidden not in seen, hidden
    assert without_secrets("x slack-token-3 x", secrets_of(config.alerts)) == "x *** x"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"pagerduty": {"routing_key": "plain-key-123"}}, "a secret does not belong in this file"),
        ({"pagerduty": {"routing_key": "${NOT_SET_AT_ALL}"}}, "variable NOT_SET_AT_ALL is not set"),
        ({"pagerduty": {"routing_key": "file:nowhere.txt"}}, "nowhere.txt cannot be read"),
        ({"pagerduty": {"routing_key": ["plain-key-123"]}}, "expected \\$\\{NAME\\}"),
        ({"webhook": {"url": "https://x.example", "secrets": []}}, "expected at least one secret"),
        ({"webhook": {"url": "https://x.example", "secrets": ["${SHORT}"]}}, "24 to 64 bytes in base64"),
        ({"webhook": {"url": "x.example", "secrets": []}}, "expected an address with its scheme"),
        ({"answers": {"url": "https://x", "secret": "${SHORT}"}}, "too short to sign with"),
        ({"mask": {"card": "hash"}}, "Set `mask_secret`"),
        ({"mask": {"card": "rot13"}}, "expected 'hash', 'last4' or 'hide'"),
        ({"large_amount": 5}, "set `amount`"),
        ({"amount": "a", "small_amount": 5, "large_amount": 5}, "must be less than"),
        ({"allow_addresses": ["ten.0.0.0"]}, "expected networks such as"),
        ({"quiet": {"since": "25:00"}}, "a time of day such as 22:00"),
        ({"quiet": {"timezone": "Mars/Olympus"}}, "expected a time zone"),
        ({"email": {"host": "h", "sender": "a", "to": ["b@c"]}}, "expected a mail address"),
        ({"email": {"host": "h", "sender": "a@b", "to": []}}, "`to` is empty"),
        (
            {"email": {"host": "h", "sender": "a@b", "to": ["b@c"], "tls": "none", "password": "${SHORT}"}},
            "in the clear",
        ),
        ({"slak": {}}, "Did you mean 'slack'"),
    ],
)
def test_wrong_settings_are_named_without_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], message: str
) -> None:
    """Each mistake is reported in plain words; a secret that stands in the wrong place is not repeated."""
    monkeypatch.setenv("SHORT", "c2hvcnQ=")

    with pytest.raises(SettingError, match=message) as caught:
        config_in(tmp_path, **section)

    assert "plain-key-123" not in str(caught.value)
    assert "c2hvcnQ=" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
        "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "localhost",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(address: str) -> None:
    """However an inner address is written, it is not sent to; allowed networks are."""
    assert not is_allowed(address)
    assert is_allowed("10.1.2.3", networks_of(["10.0.0.0/8"]))
    assert is_allowed("2606:4700::1111")


def test_name_that_points_inwards_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the address behind the name, looked up when the connection is made."""
    monkeypatch.setenv("HOOK", SECRET)
    with receiver() as server:
        config = config_in(
            tmp_path,
            allow_addresses=["10.9.9.9"],
            webhook={"url": f"http://localhost:{server.port}/", "secrets": ["${HOOK}"]},
        )
        give(store, config, rows(("a", 0, "high")))

        outcome = run(store, config)

        assert server.got == []
    assert "localhost is at a private address" in outcome.note


def test_guard_is_for_its_own_thread_and_block_only() -> None:
    """Libraries that connect by themselves are held to the same rule, and nobody else is."""
    with receiver() as server:
        with guarded(()), pytest.raises(requests.ConnectionError):
            requests.post(server.url, timeout=2)
        assert requests.post(server.url, timeout=2).status_code == 200


def test_default_configuration_has_a_hidden_nothing(tmp_path: Path) -> None:
    """Two targets by default, and neither is a network."""
    (tmp_path / "detector.yaml").write_text("source: {path: a.csv}\n", encoding="utf-8")
    config = load_config(tmp_path)
    store = store_in(tmp_path)

    give(store, config, rows(("a", 0, "high")))

    with store.read() as session:
        assert set(session.scalars(sa.select(Delivery.target))) == {"file", "log"}


def test_alert_that_went_to_two_channels_counts_once_in_all(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By channel it is in two lines; how many alerts were right is about alerts, not deliveries."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"}, log={"enabled": True})
    give(store, config, rows(*[(name, 0, "high") for name in "abc"]))
    run(store, config)
    with store.write() as session:
        for alert, verdict in zip(session.scalars(sa.select(Alert)).all(), ("fraud", "fine", "unsure"), strict=True):
            answer(session, alert, verdict, reason="", who="ann", via="cli", config=config, now=NOW)

    with store.read() as session:
        assert precision(session, source="payments")["alerts"].tolist() == [3, 3]
        assert in_all(session, source="payments") == "In all 3 alerts, 2 answered, 50 % of them fraud."
    assert "In all 3 alerts, 2 answered, 50 % of them fraud." in printed("list", str(tmp_path), "--precision")
    assert realised(config) == (
        "Alerts that people answered and that were fraud: file 1 of 2, log 1 of 2, 1 of 2 in all, each counted once."
    )


@pytest.mark.parametrize("rule", ["hash", "last4", "hide"])
@pytest.mark.parametrize("key", [["card_id"], ["shop", "card_id"]], ids=["one column", "two columns"])
def test_silences_are_listed_masked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, key: list[str]
) -> None:
    """Whether the mask was there when the silence was set, or came later."""
    monkeypatch.setenv("MASK", "a secret for hashes")
    card, folder = "4929123412341234", str(tmp_path)
    entity = [part for name in key for part in ("--entity", card if name == "card_id" else "s1")]
    config_in(tmp_path, key=key)
    printed("silence", folder, *entity, "--reason", "before")
    config_in(tmp_path, key=key, mask={"card_id": rule}, mask_secret="${MASK}")
    made = printed("silence", folder, *entity, "--reason", "after")

    listed = printed("silence", folder, "--list")

    assert card not in made + listed
    assert "before" in listed
    assert ("shop s1, card_id" in listed) == (len(key) == 2)


def test_times_of_an_alert_say_their_zone(store: Store, tmp_path: Path) -> None:
    """Those of the event, of deliveries and of answers; and of the row, if it is shown."""
    config = config_in(tmp_path, log={"enabled": True}, shown=["time"])
    (alert,) = give(store, config, rows(("a", 0, "high")))
    run(store, config)
    printed("answer", str(tmp_path), alert["id"], "fine")

    lines = printed("show", str(tmp_path), alert["id"])

    times = re.findall(r"20\d\d-\d\d-\d\d \d\d:\d\d(?::\d\d)?( UTC)?", lines)
    assert len(times) >= 4
    assert set(times) == {" UTC"}
