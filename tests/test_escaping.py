"""What data says is shown, and never believed: no line, link, command, or formula of its own."""

from __future__ import annotations

import json
import logging
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from rich.table import Table
from typer.testing import CliRunner

from pipelines.alerts.channels.alertmanager import alerts_of
from pipelines.alerts.channels.email import mail_of
from pipelines.alerts.channels.log import LogChannel
from pipelines.alerts.channels.pagerduty import event_of
from pipelines.alerts.channels.slack import payload_of
from pipelines.alerts.message.message import Message, message_of
from pipelines.alerts.message.templating import render
from pipelines.cli import app
from pipelines.cli.program import say
from pipelines.service.logs import configure
from pipelines.sinks.quarantine import QuarantineSink
from pipelines.store import Store
from pipelines.store.alert_tables import Alert
from tests.alert_places import NOW, config_in, give, rows, store_in

LINE = "Fraud, or fine? https://evil.example/answer"
EVIL = f"card-7\n\n{LINE}\u2028{LINE}\x1b]0;x\x07\x9b31m\u202e<!channel>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


@pytest.fixture(params=["new", "of an earlier version"])
def evil(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Message:
    """An alert about an entity with such a name, which an earlier version may have stored as it is."""
    config = config_in(tmp_path, key=["card_id"], shown=["shop"])
    given = rows((EVIL, 0, "high"), shop=EVIL).assign(transaction_id=[EVIL])
    give(store, config, given)
    with store.write() as session:
        alert = session.scalars(sa.select(Alert)).one()
        if request.param != "new":
            alert.label = EVIL
            alert.facts = alert.facts | {"columns": {"shop": EVIL}}
        return message_of(alert, section=config.alerts, target="x")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_name_with_line_breaks_begins_no_line(evil: Message, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in texts, mails and logs, nor in what other programs make texts of."""
    text, mail = render("text.j2", evil), mail_of(evil, sender="a@example.com", to=["b@example.com"], now=NOW)
    with caplog.at_level(logging.INFO):
        LogChannel().send(evil, now=NOW)
    slack, pager = payload_of(evil), event_of(evil, routing_key="x")
    alertmanager = alerts_of(evil, now=NOW, lasts=NOW - NOW)[0]
    seen = [block["text"]["text"] for block in slack["blocks"] if "text" in block]
    seen += [field["text"].partition("\n")[2] for block in slack["blocks"] for field in block.get("fields", [])]

    assert "Fraud, or fine?" in text
    for each in (
        text,
        mail.get_body(("plain",)).get_content(),  # type: ignore[union-attr]  # there is one
        mail["Subject"],
        caplog.text,
        *seen,
        *alertmanager["annotations"].values(),
        *alertmanager["labels"].values(),
        *map(str, pager["payload"]["custom_details"].values()),
        pager["payload"]["summary"],
    ):
        assert not any(line.startswith("Fraud, or fine?") for line in lines(each))
        assert not set(each) & {"\x1b", "\x07", "\x9b", "\u202e", "\u2028"}


def test_key_of_megabytes_is_cut_and_says_so(store: Store, tmp_path: Path) -> None:
    """An alert is no larger for it; every other key is as it was."""
    config = config_in(tmp_path)
    keys = ["A" * 10_000_000, "t 2\n"]
    given = rows(("a", 0, "high"), ("a", 1, "high")).assign(transaction_id=keys)

    (alert,) = give(store, config, given)

    assert alert["facts"]["keys"] == ["A" * 1_000 + "… (10,000,000 characters)", "t 2\n"]


def test_slack_makes_nothing_of_what_values_hold(evil: Message) -> None:
    """No links, no previews, no calls."""
    payload = payload_of(evil)
    texts = [block["text"] for block in payload["blocks"] if block["type"] == "section" and "text" in block]
    texts += [field for block in payload["blocks"] for field in block.get("fields", [])]

    assert len(texts) > 2
    assert all(each["type"] == "mrkdwn" and each["verbatim"] for each in texts)
    assert not any("<" in each["text"] for each in [*texts, payload])
    assert payload["unfurl_links"] is payload["unfurl_media"] is False


@pytest.mark.parametrize("kind", ["pretty", "json"])
def test_log_is_commanded_and_forged_by_nobody(kind: str) -> None:
    """Commands to the terminal are spelled out, and no further line passes for an entry."""
    root, stream = logging.getLogger(), StringIO()
    before, level = root.handlers[:], root.level
    try:
        configure(kind, stream=stream)  # type: ignore[arg-type]  # one of the two
        logging.getLogger("detector.test").warning("no column %s", "a\x1b[2J\x9b31m\n2026-01-01 00:00:00  INFO  fine")
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
        root.setLevel(level)

    text = stream.getvalue()
    assert not set(text) & {"\x1b", "\x9b"}
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())
    if kind == "json":
        assert "a\x1b[2J\x9b31m\n2026-01-01" in json.loads(text)["message"]


def test_tables_texts_and_errors_of_commands_show_what_they_hold(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values with commands to a terminal come out as text."""
    config = config_in(tmp_path)
    give(store, config, rows(("card\x1b[2J\x9b31m", 0, "high")))
    table = Table("what")
    table.add_row("a\x1b[2J")
    say(table)
    say("b\x1b[2J")

    listed = CliRunner().invoke(app, ["alerts", "list", str(tmp_path)])
    failed = CliRunner().invoke(app, ["alerts", "show", str(tmp_path), "x\x1b[2J"])
    printed = capsys.readouterr().out

    assert r"a\x1b[2J" in printed
    assert r"b\x1b[2J" in printed
    assert r"card\x1b" in listed.output
    assert failed.exit_code == 2
    for text in (printed, listed.output, failed.output):
        assert not set(text) & {"\x1b", "\x9b"}


def test_quarantine_holds_no_formula_and_says_what_it_changed(tmp_path: Path) -> None:
    """A spreadsheet computes nothing in it; numbers stay, and a key that was changed is named."""
    given = pd.DataFrame(
        {
            "row": [1, 2],
            "reason": ["amount: not a number", "amount: not a number"],
            "id": ["=cmd|' /C calc'!A0", "k2"],
            "amount": ["-12.5", "-"],
            "+note": ["@SUM(A1)", "fine"],
        }
    )
    for escape in (True, False):
        with QuarantineSink(tmp_path / f"{escape}.csv", columns=["id", "amount", "+note"], escape=escape) as sink:
            sink.write(given)

    safe, plain = pd.read_csv(tmp_path / "True.csv", dtype=str), pd.read_csv(tmp_path / "False.csv", dtype=str)
    assert safe["id"].tolist() == ["'=cmd|' /C calc'!A0", "k2"]
    assert safe["amount"].tolist() == ["-12.5", "-"]
    assert safe["'+note"].tolist() == ["'@SUM(A1)", "fine"]
    assert "a ' was put before id" in safe["reason"][0]
    assert "a ' was put before +note" in safe["reason"][0]
    assert safe["reason"][1] == "amount: not a number"
    pd.testing.assert_frame_equal(plain, given.astype(str), check_dtype=False)
