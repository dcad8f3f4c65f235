from __future__ import annotations

import json
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from pydantic import SecretStr

from detector.explain.reason import Reason
from detector.features import Feature, in_own_words
from pipelines.alerts.channels.alertmanager import alerts_of
from pipelines.alerts.channels.email import EmailChannel, mail_of
from pipelines.alerts.channels.file import FileChannel, as_dict, files_of
from pipelines.alerts.channels.pagerduty import event_of
from pipelines.alerts.channels.slack import payload_of
from pipelines.alerts.channels.webhook import body_of
from pipelines.alerts.message.message import Message, reason_in_words
from pipelines.alerts.message.templating import render
from pipelines.alerts.network.addresses import networks_of
from pipelines.alerts.network.errors import DeliveryError
from pipelines.alerts.network.http import Poster
from pipelines.config.alert_channels import EmailSection
from pipelines.config.data import ColumnName
from pipelines.config.features import FeaturesSection
from pipelines.store.alert_tables import Delivery
from tests.alert_places import NOW, Receiver, config_in, free_port, give, receiver, rows, run, store_in

# As published: Alertmanager's api/v2/openapi.yaml (postableAlerts), PagerDuty's Events API v2, Slack's block limits.
ALERTMANAGER = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "startsAt": {"type": "string", "format": "date-time"},
            "endsAt": {"type": "string", "format": "date-time"},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}, "required": ["alertname"]},
            "generatorURL": {"type": "string", "format": "uri"},
        },
    },
}
PAGERDUTY = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string"},
        "images": {"type": "array"},
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["href"],
                "properties": {"href": {"type": "string"}, "text": {"type": "string"}},
            },
        },
        "payload": {
            "type": "object",
            "required": ["summary", "source", "severity"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "maxLength": 1024},
                "source": {"type": "string", "minLength": 1},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "timestamp": {"type": "string"},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}
_PLAIN = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "plain_text"}, "text": {"type": "string", "minLength": 1, "maxLength": 3000}},
}
SLACK = {
    "type": "object",
    "required": ["text", "blocks"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "maxLength": 3000},
        "unfurl_links": {"type": "boolean"},
        "unfurl_media": {"type": "boolean"},
        "blocks": {
            "type": "array",
            "maxItems": 50,
            "items": {
                "oneOf": [
                    {
                        "properties": {
                            "type": {"const": "header"},
                            "text": {"allOf": [_PLAIN, {"properties": {"text": {"maxLength": 150}}}]},
                        },
                        "required": ["type", "text"],
                    },
                    {
                        "properties": {
                            "type": {"const": "section"},
                            "text": {
                                "properties": {"type": {"const": "mrkdwn"}, "text": {"maxLength": 3000, "minLength": 1}}
                            },
                            "fields": {
                                "maxItems": 10,
                                "minItems": 1,
                                "items": {"properties": {"text": {"maxLength": 2000, "minLength": 1}}},
                            },
                        },
                        "required": ["type"],
                        "anyOf": [{"required": ["text"]}, {"required": ["fields"]}],
                    },
                    {
                        "properties": {
                            "type": {"const": "actions"},
                            "elements": {
                                "maxItems": 25,
                                "items": {
                                    "required": ["type", "text", "action_id"],
                                    "properties": {
                                        "type": {"const": "button"},
                                        "text": {"allOf": [_PLAIN, {"properties": {"text": {"maxLength": 75}}}]},
                                        "url": {"maxLength": 3000},
                                        "action_id": {"maxLength": 255},
                                    },
                                },
                            },
                        },
                        "required": ["type", "elements"],
                    },
                    {
                        "properties": {"type": {"const": "context"}, "elements": {"maxItems": 10, "items": _PLAIN}},
                        "required": ["type", "elements"],
                    },
                ]
            },
        },
    },
}
KEY = "0123456789abcdef0123456789abcdef"


def message(kind: str = "opened", **values: Any) -> Message:
    """An alert as a channel gets it."""
    reason = {"feature": "amount", "observed": "950.00", "expected": "about 42", "share": 0.61, "words": ""}
    facts = {
        "columns": {"shop": "Books & <Co>"},
        "keys": ["t1", "t2"],
        "previous": "",
        "course": [[0, 1.0, False], [60, 1.2, False], [120, 9.0, True]],
    }
    if kind == "digest":
        facts = {"why": "cap", "more": 12, "by_severity": {"high": 2, "low": 10}, "a_day": 5, "day": "2026-03-02"}
    if kind == "service":
        todo = "Declare `source.formats`."
        text = "30 of 60 rows could not be used."
        about = {"cause": "unusable rows", "text": text, "lines": ["amount: no number"], "todo": todo}
        facts = {"service": about, "columns": {"What to do": todo}}
    given: dict[str, Any] = {
        "id": "al_0123456789ab",
        "incident": "in_0123456789ab",
        "kind": kind,
        "source": "payments",
        "label": "" if kind in ("digest", "test") else "card-7",
        "severity": "high",
        "model_version": "abc123",
        "first_at": NOW - timedelta(minutes=30),
        "last_at": NOW - timedelta(minutes=5),
        "created_at": NOW,
        "rows": 2,
        "p_value": 5e-5,
        "amount": 1234.5,
        "reasons": [reason] if kind in ("opened", "worse", "again") else [],
        "facts": facts,
        "answer_url": "" if kind == "service" else "https://detector.example.com/alerts/answer/x.y",
    }
    return Message(**given | values)


KINDS = ["opened", "worse", "again", "recovered", "digest", "test", "service"]


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_have_the_published_shape(kind: str) -> None:
    """Whatever is reported, the receivers can read it."""
    made = message(kind)

    jsonschema.validate(alerts_of(made, now=NOW, lasts=timedelta(hours=1)), ALERTMANAGER)
    jsonschema.validate(event_of(made, routing_key=KEY), PAGERDUTY)
    jsonschema.validate(payload_of(made), SLACK)


@pytest.mark.parametrize("kind", KINDS)
def test_long_values_stay_within_the_limits(kind: str) -> None:
    """Names and values of any length fit."""
    reason = {"feature": "f" * 300, "observed": "o" * 300, "expected": "e" * 300, "share": 0.5, "words": ""}
    made = message(kind, label="x" * 300, reasons=[reason] * 3)

    jsonschema.validate(payload_of(made), SLACK)
    jsonschema.validate(event_of(made, routing_key=KEY), PAGERDUTY)


def test_content_says_what_people_ask() -> None:
    """One sentence, how rare, what was seen and expected, when, how much, and by which detector."""
    made = message()

    assert made.sentence == (
        "card-7 in payments is unusual (high): 2 flagged rows, 1,234.50 at stake; "
        "mainly amount is 950.00, expected about 42."
    )
    assert made.rarity == "1 in 20,000 normal rows look like this"
    assert made.reason_lines == ["amount is 950.00, expected about 42 (61 % of the risk)"]
    assert dict(made.table) == {
        "When": "2026-03-02 11:30 to 11:55 UTC",
        "How rare": "1 in 20,000 normal rows look like this",
        "At stake": "1,234.50",
        "shop": "Books & <Co>",
        "Rows": "t1, t2",
        "Detector": "payments, version abc123",
    }


def test_history_is_given_in_its_own_words(tmp_path: Path) -> None:
    """A feature about the entity's own past is said as the configuration says it."""
    config = config_in(tmp_path, history={"amount_to_card_mean": "{value} times its 30-day mean"})
    reason = Reason("amount_to_card_mean", "5.2", "about 1.1", 0.7)

    (alert,) = give(store_in(tmp_path), config, rows(("a", 0, "high"), reasons=[reason]))

    assert alert["facts"]["reasons"][0]["words"] == "5.2 times its 30-day mean"


def test_measured_history_is_reported_as_it_was_measured(tmp_path: Path) -> None:
    """Features of an entity's history keep their names, however many words they have, and say what was measured."""
    features = ["count by card_id over 1h", "new of device by card_id over 90d", "ratio of amount by card_id over 30d"]
    config = config_in(tmp_path).model_copy(update={"features": FeaturesSection(history=tuple(features))})
    (count,), (new,), _ = (Feature.parse(line) for line in features)
    reasons = [
        Reason(count.name, "12", "about 1", 0.5),
        Reason(new.name, "1", "about 0", 0.3),
        Reason("amount", "950.00", "about 42", 0.09),
    ]

    given = rows(("a", 0, "high"), reasons=in_own_words(reasons, [count, new]))
    (alert,) = give(store_in(tmp_path), config, given)

    assert alert["pattern"] == "events of this card_id"
    assert [reason_in_words(each) for each in alert["facts"]["reasons"]] == [
        "events of this card_id: 12 in the hour before, expected about 1",
        "device: not seen with this card_id in 90 days",
        "amount is 950.00, expected about 42",
    ]


def test_columns_that_are_shown_go_by_the_names_that_people_have(tmp_path: Path) -> None:
    """People read the name; whoever deletes or masks a column, and programs, find it by its own."""
    config = config_in(tmp_path, shown=["shop_kind", "channel"])
    named = config.columns.model_copy(update={"names": {"shop_kind": ColumnName(name="kind of shop")}})
    config = config.model_copy(update={"columns": named})

    (alert,) = give(store_in(tmp_path), config, rows(("a", 0, "high"), shop_kind="fuel", channel="chip"))

    shown = message(facts=alert["facts"])
    assert dict(shown.table)["kind of shop"] == "fuel"
    assert dict(shown.table)["channel"] == "chip"
    assert "shop_kind" not in str(payload_of(shown))
    assert alert["facts"]["columns"] == {"shop_kind": "fuel", "channel": "chip"}


# Alertmanager ---------------------------------------------------------------------------------------------------------


def test_alertmanager_labels_hold_no_id_and_no_score() -> None:
    """What differs from one time to the next would make it another alert there."""
    (found,) = alerts_of(message(), now=NOW, lasts=timedelta(hours=1))

    assert found["labels"] == {
        "alertname": "Anomaly",
        "detector": "payments",
        "severity": "high",
        "about": "card-7",
    }
    assert found["endsAt"] == "2026-03-02T13:00:00.000Z"


def test_alertmanager_hears_the_end() -> None:
    """Recovery resolves the alert by the same labels; one that gets worse takes the place of the milder one."""
    facts = {"previous": "high"}
    (over,) = alerts_of(message("recovered", facts=facts), now=NOW, lasts=timedelta(hours=1))
    worse = alerts_of(message("worse", severity="critical", facts=facts), now=NOW, lasts=timedelta(hours=1))
    (opened,) = alerts_of(message(), now=NOW, lasts=timedelta(hours=1))

    assert over["labels"] == opened["labels"]
    assert datetime.fromisoformat(over["endsAt"]) <= NOW
    assert [(alert["labels"]["severity"], alert["endsAt"] > "2026-03-02T12:00:00.000Z") for alert in worse] == [
        ("critical", True),
        ("high", False),
    ]


def test_alertmanager_keeps_the_services_own_until_they_are_over(tmp_path: Path) -> None:
    """Labels of its own, the same when it is over; it does not end by itself before it is repeated."""
    from pipelines.alerts.channels.alertmanager import AlertmanagerChannel

    config = config_in(tmp_path, alertmanager={"url": "http://127.0.0.1:1"})
    assert config.alerts.alertmanager is not None
    channel = AlertmanagerChannel(config.alerts.alertmanager, config.alerts)
    about = {"service": {"cause": "unusable rows"}, "previous": "high"}
    (fires,) = json.loads(channel.request(message("service"), NOW)[0])
    (over,) = alerts_of(message("recovered", facts=about), now=NOW, lasts=timedelta(hours=1))

    assert fires["labels"] == over["labels"] | {"alertname": "DetectorService"}
    assert datetime.fromisoformat(fires["endsAt"]) - NOW > timedelta(minutes=config.alerts.again_minutes)


@pytest.mark.parametrize("kind", ["service", "recovered"])
def test_services_own_alert_is_rendered_everywhere(kind: str) -> None:
    """Every channel shows what is wrong and what to do, and none asks "Fraud, or fine?"."""
    told = message("service") if kind == "service" else replace(message("service"), kind="recovered")
    texts = [
        *(part.get_content() for part in mail_of(told, sender="a@b", to=["c@d"], now=NOW).iter_parts()),
        *(render(name, told) for name in ("text.j2", "log.j2")),
        *(json.dumps(each) for each in (payload_of(told), alerts_of(told, now=NOW, lasts=timedelta(hours=1)))),
        json.dumps(event_of(told, routing_key=KEY)),
        json.dumps(as_dict(told), default=str),
        body_of(told).decode(),
    ]

    assert not any("Fraud" in text or "answer/" in text for text in texts)
    if kind == "service":
        assert all("30 of 60 rows could not be used" in text for text in texts)
        assert sum("Declare `source.formats`" in text for text in texts) == len(texts) - 1, "the log is one sentence"


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """A real one on loopback."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    binary = shutil.which("prometheus-alertmanager", path=places) or shutil.which("alertmanager", path=places)
    if binary is None:
        pytest.skip("NO ALERTMANAGER, SO ALERTS ARE NOT TESTED AGAINST ONE: make alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n", encoding="utf-8")
    port = free_port()
    command = [
        binary,
        f"--config.file={tmp_path}/am.yml",
        f"--storage.path={tmp_path}/am",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "am.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            assert process.poll() is None, (tmp_path / "am.log").read_text(encoding="utf-8")
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def firing(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


@pytest.mark.slow
def test_real_alertmanager_takes_and_resolves(alertmanager: str, tmp_path: Path) -> None:
    """It shows the alert, sent twice as one, and no longer once the event is over."""
    config = config_in(tmp_path, alertmanager={"url": alertmanager}, recovery=True)
    store, now = store_in(tmp_path), datetime.now(UTC)
    start = now.replace(tzinfo=None) - timedelta(hours=1)

    for severity in ("medium", "critical"):
        give(store, config, rows(("m1", 0, severity)).assign(time=start), now=now)
        run(store, config, now=now)
    shown = firing(alertmanager)
    give(store, config, rows(("m1", 0, ""), flagged=False).assign(time=start + timedelta(minutes=30)), now=now)
    run(store, config, now=now)

    assert [(alert["labels"]["about"], alert["labels"]["severity"]) for alert in shown] == [("m1", "critical")]
    assert "mainly amount" in shown[0]["annotations"]["description"]
    assert firing(alertmanager) == []


# PagerDuty and Slack --------------------------------------------------------------------------------------------------


def test_pagerduty_gets_one_incident_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened, worse and recovered share a key; severities are its own."""
    monkeypatch.setenv("PD_KEY", KEY)
    with receiver() as server:
        server.answer = lambda _: (202, {}, b'{"status":"success"}')
        config = config_in(
            tmp_path, pagerduty={"routing_key": "${PD_KEY}", "url": f"{server.url}/v2/enqueue"}, recovery=True
        )
        store = store_in(tmp_path)
        for verdicts in (rows(("a", 0, "low")), rows(("a", 5, "critical")), rows(("a", 60, ""), flagged=False)):
            give(store, config, verdicts)
            run(store, config)

        events = server.bodies
    for event in events:
        jsonschema.validate(event, PAGERDUTY)
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "resolve"]
    assert [event["payload"]["severity"] for event in events[:2]] == ["info", "critical"]
    assert len({event["dedup_key"] for event in events}) == 1


def test_slack_gets_blocks_and_is_left_alone_when_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values cannot ring everybody; 429 with Retry-After is honoured."""
    with receiver() as server:
        monkeypatch.setenv("SLACK", f"{server.url}/services/T0/B0/token-in-the-path")
        server.answer = lambda n: (429, {"Retry-After": "30"}, b"") if n == 1 else (200, {}, b"ok")
        config, store = config_in(tmp_path, slack={"url": "${SLACK}"}, shown=["shop"]), store_in(tmp_path)
        give(store, config, rows(("a", 0, "high"), shop="<!channel> & co"))
        for seconds in (0, 20, 31):
            run(store, config, now=NOW + timedelta(seconds=seconds))

        payloads = server.bodies
    assert len(payloads) == 2
    jsonschema.validate(payloads[1], SLACK)
    text = json.dumps(payloads[1], ensure_ascii=False)
    assert "<!channel>" not in text
    assert "&lt;!channel&gt; &amp; co" in text


# Mail -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, signed by itself, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    moment = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


class Mailbox:
    """Keeps what is delivered."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        """Take a mail, or refuse it."""
        if self.refuse:
            return self.refuse
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def smtp(certificate: Path) -> Iterator[tuple[Mailbox, int]]:
    """A mail server that wants STARTTLS and a password."""
    box = Mailbox()

    def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"pass-word-1", handled=False)

    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=server_context(certificate),
        require_starttls=True,
        authenticator=login,
        auth_required=True,
    )
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


def mail_channel(port: int, certificate: Path | None, password: str = "pass-word-1") -> EmailChannel:
    section = EmailSection.model_construct(
        least_severity="low",
        host="localhost",
        port=port,
        tls="starttls",
        user="detector",
        password=SecretStr(password),
        sender="detector@example.com",
        to=("risk@example.com", "ann@example.com"),
    )
    context = None if certificate is None else ssl.create_default_context(cafile=str(certificate))
    return EmailChannel(section, timeout=3, allowed=networks_of(["127.0.0.0/8", "::1"]), context=context)


def test_mail_is_sent_over_tls(smtp: tuple[Mailbox, int], certificate: Path) -> None:
    """Text and HTML in one mail without attachments, which is known by the alert's id."""
    box, port = smtp

    mail_channel(port, certificate).send(message(), now=NOW)

    (mail,) = box.mails
    parts = {part.get_content_type(): part for part in mail.walk()}
    assert mail["Subject"] == "High: card-7 in payments"
    assert mail["Message-ID"] == "<al_0123456789ab@example.com>"
    assert "1 in 20,000 normal rows look like this" in parts["text/plain"].get_content()
    assert "Books &amp; &lt;Co&gt;" in parts["text/html"].get_content()
    assert set(parts) == {"multipart/alternative", "text/plain", "text/html"}


def test_mail_server_that_is_not_trusted_gets_nothing(smtp: tuple[Mailbox, int]) -> None:
    """A certificate that nobody vouches for ends the connection before the password."""
    box, port = smtp

    with pytest.raises(DeliveryError, match="certificate of localhost is not to be trusted"):
        mail_channel(port, None).send(message(), now=NOW)
    assert box.mails == []


def test_revoked_mail_password_is_reported_without_it(smtp: tuple[Mailbox, int], certificate: Path) -> None:
    """The reason is named, the password is not, and the alert is tried again later."""
    _, port = smtp

    with pytest.raises(DeliveryError, match="does not accept the user and the password") as caught:
        mail_channel(port, certificate, "old-password").send(message(), now=NOW)
    assert caught.value.kind == "later"
    assert "old-password" not in str(caught.value)


@pytest.mark.parametrize(("reply", "kind"), [("554 spam", "refused"), ("451 try later", "later")])
def test_mail_that_is_refused(smtp: tuple[Mailbox, int], certificate: Path, reply: str, kind: str) -> None:
    """A permanent refusal is about the mail, a temporary one about the server."""
    box, port = smtp
    box.refuse = reply

    with pytest.raises(DeliveryError, match=reply[:3]) as caught:
        mail_channel(port, certificate).send(message(), now=NOW)
    assert caught.value.kind == kind


def test_mail_header_cannot_be_broken() -> None:
    """A line break in a value does not become a header."""
    mail = mail_of(message(label="x\r\nBcc: all@example.com"), sender="a@example.com", to=["b@example.com"], now=NOW)

    assert mail["Bcc"] is None
    assert "Bcc" in mail["Subject"]


def test_course_of_the_risk_is_a_sparkline() -> None:
    """Text shows it in blocks, HTML marks the flagged rows; where one row is known there is none."""
    parts = [part.get_content() for part in mail_of(message(), sender="a@b", to=["c@d"], now=NOW).iter_parts()]
    alone = message(facts={"course": [[0, 9.0, True]]})
    bare = [part.get_content() for part in mail_of(alone, sender="a@b", to=["c@d"], now=NOW).iter_parts()]

    assert "Risk over time: ▁▁█ (flagged from 9.00)\n" in parts[0]
    assert '▁▁<b style="color:#d0342c">█</b>' in parts[1]
    assert not any("Risk over time" in part for part in bare)


def test_course_of_the_risk_has_a_time_axis_and_a_threshold() -> None:
    """When it begins and ends, and from which risk on rows were flagged; across midnight with both days."""
    course = [[0, 1.0, False], [600, 3.5, True], [50_400, 9.0, True]]
    given = message(facts={"course": course, "course_from": "2026-03-01T20:05:00"})

    text, html = [part.get_content() for part in mail_of(given, sender="a@b", to=["c@d"], now=NOW).iter_parts()]

    said = "2026-03-01 20:05 to 2026-03-02 10:05 UTC, flagged from 3.50"
    assert f"({said})" in text
    assert f"{said}; flagged rows are red" in html


def test_the_sentence_is_not_said_again_by_the_first_reason() -> None:
    """Where reasons stand below it, the sentence ends before the first; by itself, it has it."""
    given = message()
    text, html = [part.get_content() for part in mail_of(given, sender="a@b", to=["c@d"], now=NOW).iter_parts()]

    assert "; mainly amount" in given.sentence
    assert text.count("amount is 950.00") == 1
    assert "mainly" not in text + html
    assert "mainly" not in str(payload_of(given)["blocks"])
    assert "mainly amount" in payload_of(given)["text"]


def test_machines_are_asked_about_faults() -> None:
    """Mail, Slack and PagerDuty ask what is looked for; whatever it is called, it counts as the same answer."""
    given = message(facts={"anomaly": "fault"}, answer_url="https://d.example/a")
    text, html = [part.get_content() for part in mail_of(given, sender="a@b", to=["c@d"], now=NOW).iter_parts()]

    for shown in (text, html, str(payload_of(given)), str(event_of(given, routing_key="k"))):
        assert "Fault, or fine?" in shown
        assert "Fraud" not in shown
    assert message().question == "Fraud, or fine?"


def test_mail_is_made_for_phones_and_for_the_dark() -> None:
    """It has the width of the screen, colours for both, and no table wider than a phone."""
    html = list(mail_of(message(), sender="a@b", to=["c@d"], now=NOW).iter_parts())[1].get_content()

    assert 'name="viewport" content="width=device-width' in html
    assert 'name="color-scheme" content="light dark"' in html
    assert "@media (prefers-color-scheme: dark)" in html
    assert not re.search(r"<th|width:\d{3,}px", html.replace("max-width:600px", ""))


# TLS, Apprise, file and log -------------------------------------------------------------------------------------------


def tls_server(certificate: Path) -> Receiver:
    server = Receiver()
    server.server.socket = server_context(certificate).wrap_socket(server.server.socket, server_side=True)
    return server


@pytest.mark.parametrize(("trusted", "host"), [(True, "localhost"), (False, "localhost"), (True, "127.0.0.1")])
def test_https_is_verified(certificate: Path, trusted: bool, host: str) -> None:
    """A certificate must be trusted and be the host's."""
    server = tls_server(certificate)
    context = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    poster = Poster(
        f"https://{host}:{server.port}/x", timeout=2, allowed=networks_of(["127.0.0.0/8", "::1"]), context=context
    )
    try:
        if trusted:
            assert poster.post(b"{}", {}).status == 200
        else:
            with pytest.raises(DeliveryError, match="certificate of localhost is not to be trusted"):
                poster.post(b"{}", {})
    finally:
        poster.close()
        server.close()


apprise_itself = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def apprise_config(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    monkeypatch.setenv("APPRISE_ONE", url)
    return config_in(folder, apprise={"urls": ["${APPRISE_ONE}"]}, **more)


@apprise_itself
def test_apprise_sends_to_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any service Apprise knows gets title and text."""
    store = store_in(tmp_path)
    with receiver() as server:
        config = apprise_config(tmp_path, f"json://127.0.0.1:{server.port}/here", monkeypatch)
        give(store, config, rows(("a", 0, "critical")))
        outcome = run(store, config)
        (body,) = server.bodies
    assert outcome.rows == 1
    assert (body["title"], body["type"]) == ("Critical: a in payments", "failure")
    assert "amount is 950.00" in body["message"]


@apprise_itself
def test_apprise_cannot_reach_private_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that its own library connects to is checked as well."""
    store = store_in(tmp_path)
    with receiver() as server:
        config = apprise_config(tmp_path, f"json://127.0.0.1:{server.port}/", monkeypatch, allow_addresses=[])
        give(store, config, rows(("a", 0, "critical")))
        outcome = run(store, config)
        assert server.got == []
    assert "did not take it" in outcome.note


@apprise_itself
def test_unknown_apprise_service_is_reported_without_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address Apprise cannot read is an error that shows its kind only."""
    store = store_in(tmp_path)
    config = apprise_config(tmp_path, "nosuch://token-secret-1/x", monkeypatch)
    give(store, config, rows(("a", 0, "critical")))

    outcome = run(store, config)

    assert "begins with nosuch://" in outcome.note
    assert "token-secret-1" not in outcome.note


def test_file_holds_one_object_a_line(tmp_path: Path) -> None:
    """A line that a crash cut off spoils no other."""
    config, store = config_in(tmp_path, file={"path": "out/alerts.jsonl"}), store_in(tmp_path)
    give(store, config, rows(("a", 0, "high")))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "alerts.jsonl").write_text('{"id": "cut o', encoding="utf-8")

    run(store, config)

    lines = (tmp_path / "out" / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["about"] == "a"


def test_file_takes_each_alert_once(tmp_path: Path) -> None:
    """A crash between the line and the note that it was written does not write it again."""
    config, store = config_in(tmp_path, file={"path": "alerts.jsonl"}), store_in(tmp_path)
    give(store, config, rows(("a", 0, "high"), ("b", 0, "high")))
    run(store, config)
    with store.write() as session:
        session.execute(sa.update(Delivery).values(state="waiting", next_at=Delivery.created_at))

    run(store, config)

    lines = (tmp_path / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["about"] for line in lines) == ["a", "b"]
    with store.read() as session:
        assert set(session.scalars(sa.select(Delivery.state))) == {"sent"}


def test_full_file_is_set_aside(tmp_path: Path) -> None:
    """Under the next number, that of a file that is there already left alone; nothing is lost, or written again."""
    (tmp_path / "alerts.7.jsonl").write_text("of an earlier year\n", encoding="utf-8")
    file = {"path": "alerts.jsonl", "most_megabytes": 0.0005}
    config, store = config_in(tmp_path, file=file), store_in(tmp_path)
    give(store, config, rows(*((name, 0, "high") for name in "abcde")))
    run(store, config)
    with store.write() as session:
        session.execute(sa.update(Delivery).values(state="waiting", next_at=Delivery.created_at))

    written = [path.read_bytes() for path in files_of(tmp_path / "alerts.jsonl")]
    run(store, config)

    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [
        *(f"alerts.{number}.jsonl" for number in range(10, 12)),
        *(f"alerts.{number}.jsonl" for number in (7, 8, 9)),
        "alerts.jsonl",
    ]
    lines = b"".join(written[1:]).splitlines()
    assert sorted(json.loads(line)["about"] for line in lines) == list("abcde")
    assert [path.read_bytes() for path in files_of(tmp_path / "alerts.jsonl")] == written


def test_file_that_another_program_moved_is_begun_anew(tmp_path: Path) -> None:
    """As logrotate does, even in the moment between opening and locking."""
    channel = FileChannel(tmp_path / "alerts.jsonl")
    with (tmp_path / "alerts.jsonl").open("a") as old:
        (tmp_path / "alerts.jsonl").rename(tmp_path / "old")
        assert not channel._is_ours(old.fileno())
        (tmp_path / "alerts.jsonl").touch()
        assert not channel._is_ours(old.fileno())


def test_log_says_it_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Critical alerts are errors in the log."""
    config, store = config_in(tmp_path, log={"enabled": True}), store_in(tmp_path)
    give(store, config, rows(("a", 0, "critical")))

    with caplog.at_level(logging.INFO, logger="detector.alerts"):
        run(store, config)

    (record,) = [each for each in caplog.records if "flagged row" in each.message]
    assert record.levelno == logging.ERROR
    assert record.message.startswith("a in payments is unusual (critical)")


def test_template_of_ones_own_is_sandboxed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A template may change the text; one that reaches for more is not used, and the alert still goes out."""
    (tmp_path / "mine").mkdir()
    template = tmp_path / "mine" / "log.j2"
    template.write_text("Look at {{ alert.label }}!", encoding="utf-8")
    config, store = config_in(tmp_path, log={"enabled": True}, templates="mine"), store_in(tmp_path)
    give(store, config, rows(("a", 0, "high"), ("b", 0, "low")))

    with caplog.at_level(logging.INFO, logger="detector.alerts"):
        run(store, config)
    assert "Look at a!" in caplog.text

    caplog.clear()
    from pipelines.alerts.message import templating

    templating._environment.cache_clear()
    template.write_text("{{ alert.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8")
    give(store, config, rows(("c", 0, "high")))
    with caplog.at_level(logging.INFO, logger="detector.alerts"):
        run(store, config)
    assert "the shipped one is used" in caplog.text
    assert "c in payments is unusual" in caplog.text


def test_threads_end_with_the_run(tmp_path: Path) -> None:
    """Delivery leaves no thread behind."""
    config, store = config_in(tmp_path, log={"enabled": True}), store_in(tmp_path)
    run(store, config)

    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("alerts-")]
