from __future__ import annotations

import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from standardwebhooks import Webhook

from detector.errors import StoreError
from detector.explain.reason import Reason
from pipelines.alerts.channels.webhook import sign
from pipelines.alerts.delivery import queue
from pipelines.alerts.delivery.deliver import deliver
from pipelines.alerts.network.http import backoff
from pipelines.config import Config
from pipelines.jobs.context import Context
from pipelines.service import housekeeping
from pipelines.store import Store
from pipelines.store.alert_tables import Delivery, TargetState
from pipelines.testing.failpoints import VARIABLE
from tests.alert_places import (
    NOW,
    SECRET,
    Receiver,
    config_in,
    deliveries,
    free_port,
    give,
    receiver,
    rows,
    run,
    store_in,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_in(tmp_path)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def hooked(folder: Path, server: Receiver | str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Config:
    """A configuration with a webhook."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    url = server if isinstance(server, str) else f"{server.url}/hook"
    return config_in(folder, webhook={"url": url, "secrets": ["${HOOK_SECRET}"]}, **more)


def target_state(store: Store, name: str = "webhook") -> str:
    with store.read() as session:
        return str(session.scalar(sa.select(TargetState.state).where(TargetState.name == name)))


def test_alert_is_sent_once(store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that was taken is not sent again."""
    config = hooked(tmp_path, server, monkeypatch)
    made = give(store, config, rows(("a", 0, "high")))

    first, second = run(store, config), run(store, config, now=NOW + timedelta(hours=1))

    assert (first.rows, first.outcome, second.rows, second.outcome) == (1, "done", 0, "skipped")
    assert server.ids == [made[0]["id"]]
    assert [each["state"] for each in deliveries(store)] == ["sent"]


def test_alerts_and_deliveries_are_told_apart(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that goes to two channels is one alert; the job says so, and counts it once."""
    config = hooked(tmp_path, server, monkeypatch, file={"path": "alerts.jsonl"})
    give(store, config, rows(("a", 0, "high"), ("b", 1, "high")))

    found = housekeeping.deliver(Context(config=config, store=store, now=NOW))

    assert found.note == "sent 2 alerts in 4 deliveries"
    assert (found.rows, found.facts["alerts"]) == (2, 2)


@pytest.mark.parametrize("status", [500, 503, 301, 302, 401, 403, 404, 400])
def test_target_that_refuses_is_tried_again(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Only 2xx counts; a redirect is not followed; after a pause the same id comes again."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda n: (status, {"Location": f"{server.url}/elsewhere"}, b"") if n == 1 else (200, {}, b"")

    failed = run(store, config)
    too_early = run(store, config, now=NOW + timedelta(seconds=1))
    later = run(store, config, now=NOW + timedelta(seconds=10))

    assert (failed.rows, too_early.rows, later.rows) == (0, 0, 1)
    assert f"answered {status}" in failed.note
    assert len(set(server.ids)) == 1
    assert {path for path, _, _ in server.got} == {"/hook"}
    assert target_state(store) == "up"


@pytest.mark.parametrize(("hours", "number", "messages"), [(3, 12, 2), (3, 11, 11), (0.01, 12, 12)])
def test_long_outage_ends_in_one_digest(
    store: Store,
    server: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hours: float,
    number: int,
    messages: int,
) -> None:
    """People get the alert that was tried and one digest of the others, if those are many; machines get all."""
    monkeypatch.setenv("SLACK_URL", f"{server.url}/slack")
    config = hooked(tmp_path, server, monkeypatch, slack={"url": "${SLACK_URL}"})
    give(store, config, rows(*((f"c{at}", at, "high") for at in range(number))))
    server.answer = lambda _: (500, {}, b"")
    run(store, config)
    server.answer, server.got = lambda _: (200, {}, b"ok"), []

    run(store, config, now=NOW + timedelta(hours=hours))

    sent = {kind: [body for path, _, body in server.got if path == f"/{kind}"] for kind in ("hook", "slack")}
    assert (len(sent["hook"]), len(sent["slack"])) == (number, messages)
    is_digest = f"{number - 1} alerts of payments came while nothing could be sent here".encode() in sent["slack"][-1]
    assert is_digest == (messages == 2)
    assert {each["state"] for each in deliveries(store)} <= {"sent", "digested"}


def test_outage_is_reported_to_the_other_targets(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has lasted for an hour, once; and its end. Shorter ones are nobody's business."""
    config = hooked(tmp_path, server, monkeypatch, file={"path": "alerts.jsonl"})
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda _: (500, {}, b"")
    for minutes in (0, 30, 30.01, 61, 61.01, 61.02):
        run(store, config, now=NOW + timedelta(minutes=minutes))
    server.answer = lambda _: (200, {}, b"ok")
    for minutes in (120, 121):
        run(store, config, now=NOW + timedelta(minutes=minutes))

    told = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in told] == ["opened", "service", "recovered"]
    assert "do not reach webhook since 2026-03-02 12:00 UTC: 127.0.0.1 answered 500" in told[1]["text"]


def test_outage_that_ends_at_night_wakes_nobody(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What quiet hours hold back waits for their end, but for the one that was tried; what may wake people is sent."""
    monkeypatch.setenv("SLACK_URL", f"{server.url}/slack")
    config = config_in(tmp_path, slack={"url": "${SLACK_URL}"}, quiet={"since": "22:00", "until": "07:00"})
    give(
        store,
        config,
        rows(("first", 0, "critical"), *((f"c{at}", at, "high") for at in range(12)), ("z", 9, "critical")),
    )
    server.answer = lambda _: (500, {}, b"")
    run(store, config)
    server.answer, server.got = lambda _: (200, {}, b"ok"), []

    run(store, config, now=NOW.replace(hour=23))
    at_night = len(server.got)
    run(store, config, now=NOW.replace(day=3, hour=7, minute=1))

    assert (at_night, len(server.got)) == (3, 4)


def test_retry_after_is_honoured(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that answers 429 is left alone as long as it asked."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high"), ("b", 0, "high")))
    server.answer = lambda n: (429, {"Retry-After": "600"}, b"") if n == 1 else (200, {}, b"")

    run(store, config)
    run(store, config, now=NOW + timedelta(seconds=590))
    before = len(server.got)
    run(store, config, now=NOW + timedelta(seconds=605))

    assert (before, len(server.got)) == (1, 3)


@pytest.mark.parametrize("fault", ["hang", "close", "break"])
def test_target_that_hangs_or_breaks_off_gets_the_same_id_again(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """No answer, a closed connection, and half an answer are all no answer."""
    config = hooked(tmp_path, server, monkeypatch, retry={"timeout": 0.4})
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda n: fault if n == 1 else (200, {}, b"")

    failed = run(store, config)
    later = run(store, config, now=NOW + timedelta(seconds=10))

    assert (failed.rows, later.rows) == (0, 1)
    assert len(server.got) == 2
    assert len(set(server.ids)) == 1


def test_answer_that_trickles_is_cut_off(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that sends a byte now and then cannot hold a delivery for ever."""
    import socket

    listening = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)
            for _ in range(40):
                try:
                    connection.sendall(b"X")
                except OSError:
                    return
                time.sleep(0.1)

    threading.Thread(target=trickle, daemon=True).start()
    config = hooked(tmp_path, f"http://127.0.0.1:{listening.getsockname()[1]}/", monkeypatch, retry={"timeout": 0.3})
    give(store, config, rows(("a", 0, "high")))
    started = time.monotonic()

    outcome = run(store, config)
    listening.close()

    assert outcome.rows == 0
    assert time.monotonic() - started < 3


def test_410_disables_the_target(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that says it wants no more is not asked again, until a person says so."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda _: (410, {}, b"")

    run(store, config)
    run(store, config, now=NOW + timedelta(hours=5))

    assert len(server.got) == 1
    assert target_state(store) == "disabled"


def test_alert_the_target_cannot_take_is_given_up(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alert that is itself at fault becomes a dead letter, and those behind it go out."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high"), ("b", 0, "low")))
    server.answer = lambda n: (413, {}, b"") if n == 1 else (200, {}, b"")

    outcome = run(store, config)

    assert [each["state"] for each in deliveries(store)] == ["dead", "sent"]
    assert outcome.gauges["alerts_dead"] == 1


def test_target_down_for_hours_gets_all_in_order(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost while a target is away, it is not asked all the time, and an entity's alerts come in order."""
    config = hooked(tmp_path, f"http://127.0.0.1:{free_port()}/", monkeypatch)
    made, attempts = [], 0
    for quarter in range(16):  # four hours
        now = NOW + timedelta(minutes=15 * quarter)
        made += give(store, config, rows(("a", 100 * quarter, "low"), ("b", 100 * quarter, "low")), now=now)
        run(store, config, now=now)
        attempts = max(each["attempts"] for each in deliveries(store))

    with receiver() as server:
        config = hooked(tmp_path, server, monkeypatch)
        for minutes in range(0, 60, 5):
            run(store, config, now=NOW + timedelta(hours=4, minutes=minutes))

    assert attempts < 16
    assert sorted(server.ids) == sorted(alert["id"] for alert in made)
    for who in "ab":
        wanted = [alert["id"] for alert in made if alert["label"] == who]
        assert [each for each in server.ids if each in wanted] == wanted


def test_too_old_is_a_dead_letter(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the set time an alert is given up, with the last error."""
    config = hooked(tmp_path, f"http://127.0.0.1:{free_port()}/", monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    run(store, config)

    run(store, config, now=NOW + timedelta(hours=73))

    (dead,) = deliveries(store)
    assert dead["state"] == "dead"
    assert "cannot be reached" in dead["error"]


def test_slow_target_keeps_no_other_waiting(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one target hangs, another gets what it has, and also what comes meanwhile."""
    config = hooked(tmp_path, server, monkeypatch, retry={"timeout": 2.0}, file={"path": "alerts.jsonl"})
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda _: "hang"
    thread = threading.Thread(target=run, args=(store, config))

    thread.start()
    time.sleep(0.5)
    give(store, config, rows(("b", 0, "high")))
    time.sleep(0.8)
    lines = (tmp_path / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    still_hanging = thread.is_alive()
    thread.join()

    assert [json.loads(line)["about"] for line in lines] == ["a", "b"]
    assert still_hanging


def test_target_that_hangs_holds_up_no_later_cycle(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cycle ends in time though a target hangs; the next ones leave it out, and serve the others."""
    config = hooked(tmp_path, server, monkeypatch, retry={"timeout": 4.0}, file={"path": "alerts.jsonl"})
    config = config.model_copy(update={"service": config.service.model_copy(update={"stop_within": 0.4})})
    server.answer = lambda _: "hang"
    context = Context(config=config, store=store, now=NOW)
    began = time.monotonic()

    outcomes = []
    for who in "abc":
        give(store, config, rows((who, 0, "high")))
        outcomes.append(deliver(context, most_seconds=0.3))

    took = time.monotonic() - began
    for thread in context.cache.of("alert threads", None, dict).values():
        thread.join()
    assert took < 3
    assert [outcome.rows for outcome in outcomes] == [1, 1, 1]
    assert all("webhook: no answer yet" in outcome.note for outcome in outcomes)
    assert outcomes[-1].gauges["alert_target_down:webhook"] == 1
    assert len(server.got) == 1


def test_target_that_hangs_does_not_keep_the_service_from_ending(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM ends `detector serve` within `service.stop_within`, though a target has not answered for longer."""
    service = {"store": "sqlite:///service.db", "stop_within": 4.0, "port": 0, "log": "json"}
    jobs = {name: {"enabled": False} for name in ("score", "retrain", "drift", "housekeeping")}
    config = hooked(tmp_path, server, monkeypatch)
    values = yaml.safe_load((tmp_path / "detector.yaml").read_text())
    values["alerts"]["retry"]["timeout"] = 60.0
    values["service"] = service | {"jobs": jobs | {"deliver": {"when": "every 1s"}}}
    (tmp_path / "detector.yaml").write_text(yaml.safe_dump(values))
    give(store, config, rows(("a", 0, "high")), now=datetime.now(UTC))
    server.answer = lambda _: "hang"

    process = subprocess.Popen([sys.executable, "-m", "pipelines", "serve", str(tmp_path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while not server.got and time.monotonic() < deadline:
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()

    assert (len(server.got), code) == (1, 0)
    assert took < 4.0


CHILD = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pipelines.config import load_config
from pipelines.store import Store
from tests.alert_places import NOW, give, rows, run
folder = Path(sys.argv[1])
store, config = Store(f"sqlite:///{folder}/service.db"), load_config(folder)
if sys.argv[2] == "give":
    give(store, config, rows(("a", 0, "high"), ("b", 0, "low")))
run(store, config, now=NOW + timedelta(minutes=int(sys.argv[3])))
"""


def child(folder: Path, *words: str, fault: str = "") -> int:
    environment = os.environ | {VARIABLE: fault, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *words], cwd=ROOT, env=environment, check=False, capture_output=True
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize(("point", "before"), [("alerts.claimed", 0), ("alerts.sent", 1)])
def test_killed_delivery_is_sent_again_with_the_same_id(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, before: int
) -> None:
    """Kill -9 between commit and send loses nothing; between send and acknowledgement, the same id comes again."""
    hooked(tmp_path, server, monkeypatch)

    killed = child(tmp_path, "give", "0", fault=f"{point}:1")
    seen = list(server.ids)
    done = child(tmp_path, "run", "5")

    assert (killed, done) == (-signal.SIGKILL, 0)
    assert len(seen) == before
    assert len(server.ids) == 2 + before
    assert len(set(server.ids)) == 2
    assert {each["state"] for each in deliveries(store)} == {"sent"}


def test_locked_database_is_waited_for(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the database, delivery waits and then goes on; nothing is sent twice."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    other = sqlite3.connect(tmp_path / "service.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.7, lambda: other.execute("COMMIT"))
    release.start()

    outcome = run(store, config)
    release.join()
    other.close()

    assert outcome.rows == 1
    assert len(server.got) == 1


def test_state_that_fails_after_the_send_means_the_same_id_again(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what was sent cannot be written down, the run fails, and a later one sends it again under its id."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    record = queue.record

    def broken(*_: Any, **__: Any) -> None:
        raise StoreError("database is locked")

    monkeypatch.setattr(queue, "record", broken)
    with pytest.raises(StoreError, match="locked"):
        run(store, config)
    monkeypatch.setattr(queue, "record", record)
    run(store, config, now=NOW + timedelta(minutes=1))

    assert len(server.ids) == 2
    assert len(set(server.ids)) == 1


def test_revoked_credential_is_reported_and_kept(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A target that no longer knows us is named with the reason; the alert waits until it does."""
    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))
    server.answer = lambda n: (401, {}, b"") if n < 3 else (200, {}, b"")

    with caplog.at_level(logging.WARNING, logger="detector.alerts"):
        outcome = run(store, config)
    for minutes in (1, 5):
        run(store, config, now=NOW + timedelta(minutes=minutes))

    assert "credential is not valid any more" in outcome.note
    assert "credential is not valid any more" in caplog.text
    assert [each["state"] for each in deliveries(store)] == ["sent"]


def test_signature_is_that_of_the_standard(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published package verifies what is sent, with the old and the new secret while they change over."""
    old, new = SECRET, "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrs="
    monkeypatch.setenv("HOOK_SECRETS", new)
    monkeypatch.setenv("HOOK_SECRET", old)
    config = config_in(tmp_path, webhook={"url": server.url, "secrets": ["${HOOK_SECRETS}", "${HOOK_SECRET}"]})
    now = datetime.now(UTC)
    give(store, config, rows(("a", 0, "high")), now=now)

    run(store, config, now=now)

    _, headers, body = server.got[0]
    for secret in (old, new):
        assert Webhook(secret).verify(body.decode(), headers)["type"] == "alert.opened"
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(old).verify(body.decode().replace("high", "low!"), headers)
    assert len(body) < 20_000
    assert headers["content-type"] == "application/json"


def test_huge_alert_stays_thin(store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the names and values, the body is under 20 kB."""
    config = hooked(tmp_path, server, monkeypatch)
    reasons = [Reason("f" * 900 + str(i), "ä" * 3000, "é" * 3000, 0.3) for i in range(3)]
    give(store, config, rows(*[("x" * 5000, i, "high") for i in range(50)], reasons=reasons))

    run(store, config)

    assert len(server.got[0][2]) < 20_000


def test_backoff_doubles_with_jitter_and_ends() -> None:
    """Waits grow up to the longest, and no two services wait the same."""
    waits = [backoff(n, first=5, most=900, draw=random.Random(n)) for n in range(1, 12)]

    assert all(0.5 * min(900, 5 * 2**i) <= wait <= min(900, 5 * 2**i) for i, wait in enumerate(waits))
    assert backoff(10_000, first=5, most=900, draw=random.Random(0)) <= 900


def test_leader_that_was_replaced_sends_nothing(
    store: Store, server: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fence refuses is not sent."""
    from pipelines.alerts.delivery.deliver import deliver
    from pipelines.jobs.context import Context

    config = hooked(tmp_path, server, monkeypatch)
    give(store, config, rows(("a", 0, "high")))

    def fence(_: Any) -> None:
        raise StoreError("another instance leads")

    with pytest.raises(StoreError, match="another instance leads"):
        deliver(Context(config=config, store=store, now=NOW, fence=fence))

    assert server.got == []


def test_target_that_left_the_configuration_keeps_its_letters(store: Store, tmp_path: Path) -> None:
    """Alerts for a target that is no longer named wait, and are given up in the end."""
    give(store, config_in(tmp_path, file={"path": "alerts.jsonl"}), rows(("a", 0, "high")))
    config = config_in(tmp_path, log={"enabled": True})

    run(store, config, now=NOW + timedelta(hours=80))

    with store.read() as session:
        assert session.scalars(sa.select(Delivery.state)).all() == ["dead"]


def test_verification_in_the_documentation_works() -> None:
    """What a receiver copies from the page accepts what the standard's package signs, and nothing else."""
    text = (ROOT / "docs" / "channels" / "webhook.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    now, body = datetime.now(UTC), b'{"type":"alert.test"}'
    headers = {
        "webhook-id": "al_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": "v1,AAAA " + Webhook(SECRET).sign("al_1", now, body.decode()),
    }

    assert names["verify"](body, headers, [SECRET])
    assert names["verify"](body, sign(body, id="al_1", now=now, secrets=[SECRET]), ["whsec_" + "A" * 32, SECRET])
    assert not names["verify"](body + b" ", headers, [SECRET])
    assert not names["verify"](body, headers, ["whsec_" + "A" * 32])
    assert not names["verify"](body, sign(body, id="al_1", now=NOW, secrets=[SECRET]), [SECRET])
