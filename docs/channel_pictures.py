"""What an alert looks like at each channel, drawn from what that channel really sends of one example.

`payloads` is what is sent, `pages` the same as HTML that looks like the place it goes to. No service is asked: Slack,
Teams and PagerDuty are drawn by their published layouts, mail is the mail itself.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html import escape
from typing import Any
from unittest import mock

import apprise

from pipelines.alerts.channels import alertmanager, email, file, log, pagerduty, slack, webhook
from pipelines.alerts.message.message import Message
from pipelines.alerts.message.templating import render
from pipelines.service.logs import PrettyFormatter

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
RISKS = [0.6, 0.7, 1.5, 0.6, 0.8, 2.3, 0.7, 0.6, 1.4, 0.7, 6.2, 7.4]
EXAMPLE = Message(
    id="al_0123456789ab",
    incident="in_0123456789ab",
    kind="opened",
    source="payments",
    label="card …1234",
    severity="high",
    model_version="abc123",
    first_at=NOW - timedelta(minutes=30),
    last_at=NOW - timedelta(minutes=5),
    created_at=NOW,
    rows=2,
    p_value=5e-5,
    amount=1234.5,
    reasons=[
        {"feature": "amount", "observed": "950.00", "expected": "about 42", "share": 0.61, "words": ""},
        {
            "feature": "amount",
            "observed": "5.2 times its 30-day mean of card",
            "expected": "about 1.1",
            "share": 0.2,
            "words": "5.2 times its 30-day mean of card, expected about 1.1",
        },
        {"feature": "country", "observed": "pl", "expected": "de", "share": 0.11, "words": ""},
    ],
    facts={
        "columns": {"merchant_category": "electronics"},
        "names": {"merchant_category": "kind of shop"},
        "keys": ["t812", "t813"],
        "previous": "",
        "course": [[10_200 * place / 11, risk, risk > 6] for place, risk in enumerate(RISKS)],
        "course_from": "2026-03-02T09:05:00",
    },
    review_url="https://review.example.com/alerts/al_0123456789ab",
    answer_url="https://detector.example.com/alerts/answer/WyJhbF8w….q8Zt…",
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the standard's own example

_CSS = """
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1d1c1d; }
body { font: 15px/1.46 Lato, "Helvetica Neue", "Liberation Sans", sans-serif; }
main { width: 760px; padding: 18px; }
h1 { font-size: 18px; margin: 2px 0 6px; line-height: 1.3; }
p { margin: 0 0 8px; }
.soft { color: #616061; font-size: 13px; }
.app { background: #eee; padding: 0 4px; }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 50%; }
.triggered { background: #c2410c; color: #fff; border-radius: 4px; padding: 3px 9px; }
.grid { display: grid; grid-template-columns: 1fr 1fr; gap: 10px 16px; }
.buttons { display: flex; gap: 8px; margin: 12px 0 8px; }
.buttons a { border: 1px solid #bbb; border-radius: 4px; padding: 5px 12px; font-weight: 700; color: #1d1c1d; }
.chip { border: 1px solid #8bb8e0; color: #14548f; border-radius: 4px; padding: 1px 8px; margin: 0 6px 6px 0;
  display: inline-block; }
.teams { background: #fff; border-radius: 6px; padding: 14px 18px; box-shadow: 0 1px 3px #0003; }
table { border-collapse: collapse; width: 100%; }
td { padding: 5px 14px 5px 0; vertical-align: top; }
td:first-child { color: #5c6670; white-space: nowrap; }
tr + tr td { border-top: 1px solid #eceff2; }
.code { background: #1d2026; color: #e4e7ea; font: 12.5px/1.5 "DejaVu Sans Mono", monospace; padding: 16px 18px;
  white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 6px; }
.code b { color: #9fd6a3; }
.code i { color: #8fb8f0; font-style: normal; }
.code u { color: #f2b277; text-decoration: none; }
"""


def payloads() -> dict[str, Any]:
    """What each channel sends of the example, as plain values; mail and Apprise as text."""
    lasts = timedelta(minutes=60)
    return {
        "file": file.as_dict(EXAMPLE),
        "slack": slack.payload_of(EXAMPLE),
        "pagerduty": pagerduty.event_of(EXAMPLE, routing_key="…"),
        "alertmanager": alertmanager.alerts_of(EXAMPLE, now=NOW, lasts=lasts),
        "webhook": json.loads(webhook.body_of(EXAMPLE)),
        "email": render("text.j2", EXAMPLE),
        "apprise": render("text.j2", EXAMPLE),
    }


def pages() -> dict[str, str]:
    """An HTML page for each channel; what is drawn is in its element ``main``."""
    sent = payloads()
    return {
        "slack": _slack(sent["slack"]),
        "pagerduty": _pagerduty(sent["pagerduty"]),
        "alertmanager": _alertmanager(sent["alertmanager"][0]),
        "webhook": _webhook(),
        "file": _code(f"<b>$ tail -1 alerts.jsonl | jq</b>\n{_json(sent['file'])}"),
        "log": _log(),
        "apprise": _teams(teams_card()),
    }


def mail_page() -> str:
    """The HTML of the mail."""
    mail: EmailMessage = email.mail_of(EXAMPLE, sender="detector@example.com", to=["risk@example.com"], now=NOW)
    (part,) = (part for part in mail.walk() if part.get_content_type() == "text/html")
    return str(part.get_content())


def teams_card() -> dict[str, Any]:
    """The Adaptive Card that Apprise posts to a workflow of Microsoft Teams."""
    service: Any = apprise.Apprise.instantiate("workflows://example.com/workflow0123/signature0123")
    with mock.patch("requests.post") as post:
        post.return_value.status_code = 202
        service.notify(body=render("text.j2", EXAMPLE), title=EXAMPLE.title, notify_type="failure")
    card: dict[str, Any] = json.loads(post.call_args.kwargs["data"])["attachments"][0]["content"]
    return card


def _page(body: str, *, ground: str = "#fff") -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>An alert</title>'
        f'<style>{_CSS}</style><main style="background: {ground}">{body}</main></html>'
    )


def _code(body: str) -> str:
    return _page(f'<div class="code">{body}</div>')


def _json(value: Any) -> str:
    text = escape(json.dumps(value, ensure_ascii=False, indent=1), quote=False)
    return re.sub(r'^(\s*)("[^"]+"):', r"\1<i>\2</i>:", text, flags=re.MULTILINE)


def _mrkdwn(text: str) -> str:
    """Slack's markup, whose signs are escaped already."""
    text = re.sub(r"(?m)(?<!\w)\*([^*\n]+)\*", r"<b>\1</b>", text)
    return re.sub(r"(?m)^_(.+)_$", r"<em>\1</em>", text).replace("\n", "<br>")


def _signs(text: str) -> str:
    """Slack's round signs as circles: not every machine has a font for them."""
    for sign, colour in (("🔴", "#d32f2f"), ("🟠", "#f57c00"), ("🟡", "#fbc02d"), ("🔵", "#1976d2"), ("🟢", "#388e3c")):
        text = text.replace(sign, f'<span class="dot" style="background: {colour}"></span>')
    return text


def _slack(payload: Mapping[str, Any]) -> str:
    sender = f'<b>detector</b> <span class="soft app">APP</span> <span class="soft">{NOW:%H:%M}</span>'
    parts = [f"<p>{sender}</p>"]
    for block in payload["blocks"]:
        if block["type"] == "header":
            parts.append(f"<h1>{_signs(escape(block['text']['text']))}</h1>")
        elif "fields" in block:
            fields = "".join(f"<div>{_mrkdwn(each['text'])}</div>" for each in block["fields"])
            parts.append(f'<div class="grid">{fields}</div>')
        elif block["type"] == "section":
            parts.append(f"<p>{_mrkdwn(block['text']['text'])}</p>")
        elif block["type"] == "actions":
            buttons = "".join(f"<a>{escape(each['text']['text'])}</a>" for each in block["elements"])
            parts.append(f'<div class="buttons">{buttons}</div>')
        else:
            parts.append(f'<div class="soft">{escape(block["elements"][0]["text"])}</div>')
    return _page("".join(parts))


def _pagerduty(event: Mapping[str, Any]) -> str:
    payload = event["payload"]
    details = {
        name: "<br>".join(map(escape, [value] if isinstance(value, str) else value))
        for name, value in payload["custom_details"].items()
    }
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{text}</td></tr>" for name, text in details.items())
    about = " · ".join((payload["source"], payload["component"], payload["timestamp"]))
    links = "".join(f"<a>{escape(each['text'])}</a>" for each in event["links"])
    return _page(
        f'<p><span class="triggered">Triggered</span> '
        f'<span class="soft">severity {payload["severity"]} · key {event["dedup_key"]}</span></p>'
        f'<h1>{escape(payload["summary"])}</h1><p class="soft">{escape(about)}</p>'
        f'<table>{rows}</table><div class="buttons">{links}</div>'
    )


def _alertmanager(alert: Mapping[str, Any]) -> str:
    chips = "".join(f'<span class="chip">{name}="{escape(value)}"</span>' for name, value in alert["labels"].items())
    notes = "".join(f"<tr><td>{name}</td><td>{escape(text)}</td></tr>" for name, text in alert["annotations"].items())
    return _page(
        f'<p><b>{alert["startsAt"]}</b> <span class="soft">active, ends {alert["endsAt"]}</span></p>'
        f"<p>{chips}</p><table>{notes}</table>"
    )


def _webhook() -> str:
    body = webhook.body_of(EXAMPLE)
    signed = webhook.sign(body, id=EXAMPLE.id, now=NOW, secrets=[SECRET])
    heads = "\n".join(f"<i>{name}</i>: {escape(value)}" for name, value in signed.items())
    return _code(f"<b>POST /alerts</b>\n<i>content-type</i>: application/json\n{heads}\n\n{_json(json.loads(body))}")


def _log() -> str:
    """What the log of the service shows of the alert as critical, as medium, and when it is over."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(PrettyFormatter())
    logger = logging.getLogger("detector.alerts")
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    clock = mock.patch("logging.time.time", return_value=NOW.timestamp())
    try:
        clock.start()
        for severity, kind in (("critical", "opened"), ("medium", "opened"), ("high", "recovered")):
            log.LogChannel().send(replace(EXAMPLE, severity=severity, kind=kind), now=NOW)
    finally:
        clock.stop()
        logger.removeHandler(handler)
        logger.level = level
    text = re.sub(r"(?m)\b(ERROR|WARNING|INFO)\b", r"<u>\1</u>", escape(written.getvalue().strip(), quote=False))
    return _code(f"<b>$ detector serve</b>\n{text}")


def _teams(card: Mapping[str, Any]) -> str:
    blocks = [block for block in card["body"] if block.get("type") == "TextBlock"]
    parts = []
    for block in blocks:
        strong = block.get("weight", "").lower() == "bolder" or block.get("style") == "heading"
        text = escape(block["text"]).replace("\n", "<br>")
        parts.append(f"<h1>{text}</h1>" if strong else f"<p>{text}</p>")
    sender = f'<p><b>Workflows</b> <span class="soft">{NOW:%H:%M}</span></p>'
    return _page(f'{sender}<div class="teams">{"".join(parts)}</div>', ground="#f5f5f5")
