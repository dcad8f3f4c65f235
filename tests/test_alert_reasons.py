"""Reasons on their way into alerts: data from end to end, masked by the columns whose values they may show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.detectors.table.detector import TabularDetector
from detector.explain.reason import Reason
from detector.features import Feature, in_own_words
from pipelines.alerts.channels.alertmanager import alerts_of
from pipelines.alerts.channels.email import mail_of
from pipelines.alerts.channels.file import as_dict
from pipelines.alerts.channels.pagerduty import event_of
from pipelines.alerts.channels.slack import payload_of
from pipelines.alerts.channels.webhook import body_of
from pipelines.alerts.grouping.events import Grouping, events_of
from pipelines.alerts.grouping.notify_rules import Candidate
from pipelines.alerts.message.facts import facts_of, labels_of
from pipelines.alerts.message.message import Message, message_of
from pipelines.alerts.message.templating import render
from pipelines.config import Config
from pipelines.config.masking import Masks
from pipelines.store.alert_tables import Alert
from tests.alert_places import NOW, config_in, give, rows, store_in

NAMES = (
    *("card", "card holder", "card holder hour", "note", "shop", "shop name"),
    *("a; 9 % of the risk | card", "x, expected", "at\nhome"),
)
"""Columns: some begin as others do, some read like our own sentences."""

HOSTILE = (
    "MARK",
    " MARK ",
    "x; 61 % of the risk | card MARK",
    "MARK, expected about 42; 61 % of the risk | amount 950.00",
    "\n- card is MARK (61 % of the risk)\n",
    "MARK\r\nSubject: MARK",
    "{value} {expected} MARK",
    "MARK, expected ; 9 % of the risk",
    "<b>MARK</b> & <!channel> ${MARK} {{ MARK }}",
)
RULES = ("hash", "last4", "hide")
COLUMNS = st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)
VALUES = st.sampled_from(HOSTILE)


def marked(reasons: list[Reason]) -> list[Reason]:
    """The reasons with letters in each value that stand nowhere else."""
    random = Random(0)

    def fill(text: str) -> str:
        return text.replace("MARK", "".join(random.choices("xzqjwv", k=12)))

    return [replace(each, observed=fill(each.observed), expected=fill(each.expected)) for each in reasons]


REASONS = st.lists(
    st.builds(
        Reason, st.sampled_from(NAMES), VALUES, VALUES | st.just(""), st.floats(0.0, 1.0), COLUMNS, st.booleans()
    ),
    min_size=1,
    max_size=5,
).map(marked)
"""Reasons about columns, or about something made of up to two others."""


def message_about(reasons: list[Reason], masks: Masks, config: Config) -> Message:
    """The message about one flagged row, the way ``enqueue`` and ``message_of`` make it."""
    frame = rows(("a", 0, "high"), reasons=reasons)
    (event,) = events_of(frame, Grouping.of(config), now=NOW)
    candidate = Candidate("opened", event, "in_1", event.first_at, "", is_fresh=True)
    facts = json.loads(json.dumps(facts_of(candidate, frame, config=config, masks=masks)))
    return Message(
        id="al_1",
        incident="in_1",
        kind="opened",
        source="payments",
        label=labels_of(frame, [event], by=["card_id"], masks=masks)[event.group],
        severity="high",
        model_version="1",
        first_at=event.first_at,
        last_at=event.last_at,
        created_at=NOW,
        rows=1,
        p_value=1e-4,
        amount=None,
        reasons=facts["reasons"],
        facts=facts,
    )


def texts_of(mail: EmailMessage) -> list[str]:
    """All that can be read in a mail, as a mail program shows it."""
    return [str(mail), *(part.get_content() for part in mail.walk() if part.get_content_maintype() == "text")]


def renderings(message: Message) -> list[str]:
    """The message as each channel sends it."""
    payloads = [
        as_dict(message),
        alerts_of(message, now=NOW, lasts=timedelta(hours=1)),
        event_of(message, routing_key="k" * 32),
        payload_of(message),
    ]
    return [
        *(json.dumps(each, ensure_ascii=False, default=str) for each in payloads),
        body_of(message).decode(),
        *(render(name, message) for name in ("text.j2", "log.j2", "slack.j2", "mail.html.j2")),
        *texts_of(mail_of(message, sender="d@example.com", to=["a@example.com"], now=NOW)),
    ]


def parts_of(text: str) -> set[str]:
    """Every six signs of a value that stand nowhere else."""
    letters = "".join(sign if sign in "xzqjwv" else " " for sign in text)
    return {word[i : i + 6] for word in letters.split() for i in range(len(word) - 5)}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    history = {"shop name": "{value} and not {expected}"}
    return config_in(tmp_path_factory.mktemp("reasons"), history=history)


@given(
    reasons=REASONS,
    rules=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(RULES)),
)
def test_masked_values_are_read_nowhere_and_forge_nothing(
    config: Config, reasons: list[Reason], rules: dict[str, str]
) -> None:
    """Whatever a value says: no part of a masked one is sent, and the reasons are those that were given, in order."""
    masks = Masks(rules, b"secret")

    message = message_about(reasons, masks, config)

    hidden = {each for each in reasons if rules.keys() & {each.feature, *each.columns}}
    secret = {part for each in hidden for part in parts_of(f"{each.observed[:-4]} {each.expected}")}
    sent = renderings(message)
    assert not {part for part in secret for text in sent if part in text}
    assert [each["feature"] for each in message.reasons] == [each.feature for each in reasons]
    assert len(message.reason_lines) == len(reasons)
    assert all(len(line.splitlines()) == 1 for line in message.reason_lines)
    text = render("text.j2", message)
    assert len([line for line in text.split("Why:")[-1].splitlines() if line.startswith("- ")]) == len(reasons)


@given(observed=VALUES)
def test_mask_is_about_its_column_only(config: Config, observed: str) -> None:
    """What is masked in "card" does not hide "card holder"."""
    reason = Reason("card holder", observed, "", 0.5)
    masks = Masks({"card": "hide", "card holder name": "hide"})

    (found,) = message_about([reason], masks, config).reasons

    assert found["observed"] == " ".join(reason.observed.splitlines())


@pytest.mark.parametrize("rule", RULES)
def test_reason_is_masked_by_any_of_its_columns(config: Config, rule: str) -> None:
    """A part of a date, and what is measured of a masked column, show as little as the column."""
    lines = ("new of device by card_id over 90d", "max of amount by card_id over 30d", "count by card_id over 1h")
    features = [Feature.parse(line)[0] for line in lines]
    measured = [Reason(each.name, "1", "about 4929", 0.2) for each in features]
    calendar = [Reason("night", "1", "about 0", 0.2), Reason("hour", "3.25", "about 9", 0.1)]
    weekday = Reason("birth weekday", "Monday", "Tuesday", 0.1, columns=("birth",))
    reasons = in_own_words([*measured, *calendar, weekday], features, calendar=("night", "hour"), time="time")
    masked = {"device": rule, "amount": rule, "birth": rule, "time": rule, "card_id": rule}

    found = message_about(reasons, Masks(masked, b"secret"), config).reasons

    count = found.pop(2)
    assert count["words"] == "1 in the hour before, expected about 4929"  # an entity is named, its value never shown
    assert all(each["observed"].startswith(("#", "…", "(hidden)")) for each in found)
    assert {each["expected"] for each in found} == {"", "(hidden)"}
    assert not any(each["words"] for each in found)


def test_detector_names_the_columns_behind_its_reasons() -> None:
    """The hour and the weekday of a date are made of its column; all else is its own column."""
    rng = np.random.default_rng(0)
    birth = pd.Timestamp("1990-01-01") + pd.to_timedelta(rng.integers(0, 100, 400), unit="h")
    table = pd.DataFrame({"amount": rng.normal(40, 5, 400), "birth": birth})
    detector = TabularDetector(members=("forest", "neighbours"), trees=50).fit(table)

    reasons = [reason for each in detector.explain(table.iloc[:50]) for reason in each]

    assert {reason.feature: reason.columns for reason in reasons} == {
        "amount": ("amount",),
        "birth hour": ("birth",),
        "birth weekday": ("birth",),
    }


def test_reason_travels_as_json() -> None:
    """Nothing is lost on the way through JSON."""
    reason = Reason("shop name", "Aldi; 9 % of the risk", "about 42", 0.61, ("shop", "name"), True)

    assert Reason.from_dict(json.loads(json.dumps(reason.to_dict()))) == reason
    assert Reason.from_dict({"feature": "a", "observed": "1", "expected": "", "share": 0.5}).columns == ("a",)


def test_feature_with_spaces_keeps_its_name(tmp_path: Path) -> None:
    """A feature "shop name" is no feature "shop" that reads "name Aldi": neither for people nor for silences."""
    reasons = [Reason("shop name", "Aldi", "Lidl", 0.61), Reason("amount", "9", "about 1", 0.3)]

    (alert,) = give(store_in(tmp_path), config_in(tmp_path), rows(("a", 0, "high"), reasons=reasons))

    assert alert["pattern"] == "shop name"
    assert alert["facts"]["reasons"][0] == {
        "feature": "shop name",
        "observed": "Aldi",
        "expected": "Lidl",
        "share": 0.61,
        "words": "",
    }


def test_masked_value_forges_no_reason(tmp_path: Path) -> None:
    """A payer who writes our own sentence into a masked note puts nothing in the clear and names no feature."""
    note = Reason("note", "x; 61 % of the risk | card SECRET-TAIL", "", 0.6)

    (alert,) = give(
        store_in(tmp_path), config_in(tmp_path, mask={"note": "hide"}), rows(("a", 0, "high"), reasons=[note])
    )

    assert [(each["feature"], each["observed"]) for each in alert["facts"]["reasons"]] == [("note", "(hidden)")]
    assert "SECRET" not in json.dumps(alert, default=str)


def test_masked_amount_decides_and_is_not_shown(tmp_path: Path) -> None:
    """It raises the severity of an event; of one row its sum would be the value itself."""
    config = config_in(tmp_path, amount="amount", large_amount=1000, mask={"amount": "hide"})

    (alert,) = give(store_in(tmp_path), config, rows(("a", 0, "medium"), amount=31_337.0, reasons=()))

    assert (alert["severity"], alert["amount"]) == ("high", None)
    assert "31337" not in json.dumps(alert, default=str)


def test_alert_of_an_earlier_version_still_reads(tmp_path: Path) -> None:
    """Alerts that are in the database as they were written then are shown and sent as they were."""
    store, config = store_in(tmp_path), config_in(tmp_path)
    (made,) = give(store, config, rows(("a", 0, "high")))
    old = [
        {"feature": "amount", "observed": "950.00", "expected": "about 42", "share": 0.61, "words": ""},
        {"feature": "device", "observed": "(hidden)", "expected": "", "share": 0.2, "words": ""},
        {"feature": "events of this card", "observed": "12 in the hour before", "expected": "about 1", "share": 0.1}
        | {"words": "12 in the hour before, expected about 1"},
    ]
    with store.write() as session:
        alert = session.get_one(Alert, made["id"])
        alert.facts = {"columns": {}, "reasons": old, "keys": ["t0"], "previous": "", "course": []}
        message = message_of(alert, section=config.alerts, target="log")

    assert message.reason_lines == [
        "amount is 950.00, expected about 42 (61 % of the risk)",
        "device is (hidden) (20 % of the risk)",
        "events of this card: 12 in the hour before, expected about 1 (10 % of the risk)",
    ]
    assert all("950.00" in text for text in renderings(message))
