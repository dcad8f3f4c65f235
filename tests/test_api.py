"""The API: what programs get, and what nobody gets."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from benchmarks.service import memory_of
from benchmarks.soak import Site, draw
from detector.detectors.table.detector import TabularDetector
from detector.schema import Schema
from pipelines.api import keys
from pipelines.api.models import MoveReason
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.jobs.context import Context, ProcessCache
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.job import score_new
from pipelines.service.facts import Facts
from pipelines.service.housekeeping import tidy
from pipelines.service.runs import run_job
from pipelines.store import Audit, JobState, Request, open_store
from pipelines.store.access_tables import AnsweredRequest, ApiKey
from pipelines.store.alert_tables import Answer, Silence
from tests import payment_sites, web
from tests.alert_places import config_in, give, rows, store_in
from tests.payment_sites import LATER, PAYMENTS, put, settle
from tests.sensor_sites import SensorSite, bundle_of
from tests.service_sites import score
from tests.web import Browser, Served, events, fields_of, is_problem, served, with_api

home, trained = payment_sites.home, payment_sites.trained
service, site = web.service, web.site

ROOT = Path(__file__).parents[1]
DAY = timedelta(days=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Served]:
    """A service with alerts and no detector."""
    with served(config_in(tmp_path), store_in(tmp_path)) as found:
        yield found


def made(desk: Served, *given: tuple[str, float, str], **columns: Any) -> list[str]:
    """Alerts, the most severe first; their ids."""
    return [each["id"] for each in give(desk.store, desk.config, rows(*given, **columns), now=datetime.now(UTC))]


def paths_of(service: Served) -> list[tuple[str, str]]:
    """Every path of the API, with its method."""
    found = service.ask("GET", "/v1/openapi.json").json()["paths"]
    return [(method.upper(), f"/v1{path}") for path, methods in found.items() for method in methods]


# Keys -----------------------------------------------------------------------------------------------------------------


def test_nothing_but_health_answers_without_a_key(service: Served) -> None:
    """Not one path of the API, nor what it is made of, nor whether a path is there; with a wrong key neither."""
    paths = [*paths_of(service), ("GET", "/v1"), ("GET", "/v1/"), ("GET", "/v1/nothing"), ("OPTIONS", "/v1/alerts")]
    paths += [("GET", "/v1/%0A"), ("GET", "/v1/alerts/%0Ax"), ("POST", "/v1/jobs/a%0D%0Ab/run")]
    assert len(paths) > 20

    for method, path in paths:
        for headers in ({}, {"Authorization": "Bearer det_000000000000_" + "0" * 64}, {"Authorization": "Basic YTpi"}):
            found = requests.request(method, service.address + path, headers=headers, timeout=5)
            assert found.status_code in (401, 429), (method, path)
            assert found.headers["content-type"] == "application/problem+json"
    for path in ("/docs", "/redoc", "/openapi.json", "/", "/console/../v1/alerts"):
        found = requests.get(service.address + path, timeout=5, allow_redirects=False)
        assert found.status_code in (303, 401, 404)
        assert found.headers.get("location", "/console/") == "/console/"
    assert requests.get(service.address + "/healthz", timeout=5).status_code == 200


def test_keys_are_made_listed_and_revoked_by_command(site: Site, service: Served) -> None:
    """A key is shown once and kept as a hash; revoked, it opens nothing from the next request on."""

    def said(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["keys", words[0], str(site.folder), *words[1:]])
        assert done.exit_code == code, done.output
        return done.output

    key = said("create", "--name", "till 4\n[red]", "--scope", "score", "--days", "30").splitlines()[0]
    assert re.fullmatch("det_[0-9a-f]{12}_[0-9a-f]{64}", key)
    with service.store.read() as session:
        kept = session.scalars(sa.select(ApiKey)).one()
        assert key.split("_")[2] not in kept.hash
        assert kept.scopes == "score"
    assert service.ask("GET", "/v1/health", key=key).status_code == 200
    assert "till 4 [red]" in said("list")
    assert "is revoked" in said("revoke", key.split("_")[1])
    assert "revoked" in said("list")
    assert is_problem(service.ask("GET", "/v1/health", key=key), 401)
    assert "could be revoked" in said("revoke", key, code=2)
    assert "Did you mean 'review'" in said("create", "--name", "x", "--scope", "revew", code=2)
    assert "revew" not in said("list")


def test_health_does_not_wait_for_a_broker_that_is_down(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the source does not answer; that is what one looks for."""
    ends = threading.Event()
    monkeypatch.setattr(Facts, "lag", lambda _: ends.wait(20))
    monkeypatch.setattr("pipelines.service.facts.LAG_PATIENCE", 0.1)
    began = time.monotonic()

    found = service.ask("GET", "/v1/health").json()
    took = time.monotonic() - began
    ends.set()

    assert took < 10
    assert "has not answered" in found["lag"]
    assert "waiting" not in found
    assert found["model_age_days"] >= 0


def test_old_key_is_none(service: Served) -> None:
    """A key that was made for a day opens nothing the day after."""
    now = datetime.now(UTC)
    young, old = (service.key("admin", days=1, now=now - age * DAY) for age in (0.5, 1.5))

    assert service.ask("GET", "/v1/jobs", key=young).status_code == 200
    assert is_problem(service.ask("GET", "/v1/jobs", key=old), 401)


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("score", "GET", "/v1/alerts"),
        ("score", "POST", "/v1/alerts/al_1/verdict"),
        ("score", "GET", "/v1/entities/a"),
        ("score", "POST", "/v1/what-if"),
        ("review", "POST", "/v1/score"),
        ("review", "POST", "/v1/jobs/score/run"),
        ("review", "POST", "/v1/jobs/score/pause"),
        ("review", "POST", "/v1/models/x/promote"),
        ("review", "POST", "/v1/models/rollback"),
        ("review", "POST", "/v1/models/compare"),
        ("review", "GET", "/v1/models/compare/1"),
    ],
)
def test_scope_is_needed(desk: Served, scope: str, method: str, path: str) -> None:
    """A key does what its scopes say, and nothing else."""
    bodies = {"score": {"event": {"a": 1}}, "verdict": {"verdict": "fine"}, "what-if": {}}
    body = bodies.get(path.rpartition("/")[2], {"reason": "x"}) if method == "POST" else None

    found = desk.ask(method, path, scope=scope, json=body)

    assert is_problem(found, 403)
    assert "scope" in found.json()["detail"]


def test_wrong_keys_have_to_wait_and_right_ones_do_not(service: Served) -> None:
    """Guessing is slowed down by address; who has a key is not kept out by others who guess."""
    guesses = [service.ask("GET", "/v1/health", key=f"det_{n:012x}_{n:064x}").status_code for n in range(12)]

    assert guesses[0] == 401
    assert guesses[-1] == 429
    assert service.ask("GET", "/v1/health").status_code == 200


def test_key_may_ask_so_often(site: Site) -> None:
    """Beyond its rate a key is told when to come again; another one is not."""
    config = with_api(site, per_second=0.3)
    with served(config, open_store(config.service.store)) as service:
        found = [service.ask("GET", "/v1/jobs") for _ in range(4)]

        assert [each.status_code for each in found] == [200, 200, 200, 429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 4
        assert service.ask("GET", "/v1/jobs", scope="review").status_code == 200


def test_single_events_are_scored_for_keys_that_may(site: Site) -> None:
    """Keys are looked up together with what scores need: every refusal is that of any other request."""
    config = with_api(site, per_second=0.2)
    with served(config, open_store(config.service.store)) as service:
        event = {"event": events(draw(1, first=0, seed=0))[0], "dry_run": True}

        def ask(key: str) -> requests.Response:
            return service.ask("POST", "/v1/score", json=event, key=key)

        good, looks, gone, old = (service.key(scope) for scope in ("score", "view", "score", "score"))
        assert [ask(key).status_code for key in (good, gone)] == [200, 200]
        with service.store.write() as session:
            keys.revoke(session, gone.split("_")[1], now=datetime.now(UTC))
            session.execute(
                sa.update(ApiKey).where(ApiKey.id == old.split("_")[1]).values(until=datetime.now(UTC) - DAY)
            )
        found = [ask(good), ask(good)]

        for key in (gone, old, good[:-1] + ("0" if good[-1] != "0" else "1"), "nonsense"):
            assert is_problem(ask(key), 401)
        assert is_problem(ask(looks), 403)
        assert [each.status_code for each in found] == [200, 429]
        assert 1 <= int(found[-1].headers["retry-after"]) <= 5


# Bodies ---------------------------------------------------------------------------------------------------------------


def test_large_bodies_are_refused_before_they_are_read(site: Site) -> None:
    """By what they say of their size, and by what comes where they say nothing."""
    config = with_api(site, most_megabytes=0.01)
    with served(config, open_store(config.service.store)) as service:
        parts = (b"x" * 1_000 for _ in range(50))
        for body in (b"[" * 20_000, parts):
            found = service.ask("POST", "/v1/score", data=body, headers={"Content-Type": "application/json"})
            assert is_problem(found, 413)
            assert "10,000 bytes" in found.json()["detail"]
        assert service.ask("GET", "/v1/health").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"event": ' + b'{"a": ' * 50_000,
        b'{"event": {"amount": [[[1]]]}}',
        b'{"event": {"amount": {"$gt": ""}}}',
        b"\xff\xfe",
        b"",
        b"null",
        b'{"event": {"id": 1}, "extra": 1}',
        b'{"events": []}',
        b'{"event": {"id": 1, "at": "2026-01-01", "amount": 1, "fee": 1}, "events": [{"id": 1}]}',
        b'{"event": {"id": NaN, "at": "2026-01-01", "amount": 1e999, "fee": -Infinity}}',
        b'{"event": {"id": 1, "at": "never", "amount": 1, "fee": 1}}',
    ],
)
def test_bodies_of_any_kind_get_a_problem(service: Served, body: bytes) -> None:
    """Deeply nested, of another shape, or no JSON at all: what is wrong is said, and nothing goes wrong inside."""
    found = service.ask("POST", "/v1/score", data=body, headers={"Content-Type": "application/json"})

    assert found.status_code in (400, 422)
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"id": 1, "amount": 1}, "event", 'Give one event as {"event": {…}}, or several'),
        ([{"id": 1}], "event", 'Give one event as {"event": {…}}, or several'),
        ({"event": {"id": 1}, "dry_rn": True}, "dry_rn", "is not a field here. Did you mean 'dry_run'?"),
    ],
)
def test_what_is_sent_first_is_answered_with_what_to_send(service: Served, body: Any, field: str, said: str) -> None:
    """The event by itself, a bare list, and a slip in a name."""
    found = service.ask("POST", "/v1/score", json=body).json()

    assert found["errors"][0]["field"] == field
    assert said in f"{found['detail']} {found['errors'][0]['detail']}"


def test_an_address_that_is_none_is_named(service: Served) -> None:
    """With where to look for those that are."""
    found = service.ask("GET", "/v1/alrts")

    assert found.status_code == 404
    assert found.json()["detail"] == "There is nothing at /v1/alrts. `/v1/openapi.json` lists what there is."


def test_slow_body_is_cut(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends a byte now and then loses the connection, and nobody else notices."""
    monkeypatch.setattr("pipelines.service.connections.READ_SECONDS", 0.5)
    host, _, port = service.address.removeprefix("http://").partition(":")
    key = service.key("admin")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 900\r\n\r\n{{"
        slow.sendall(head.encode())
        assert service.ask("GET", "/v1/health").status_code == 200
        slow.settimeout(5)
        assert slow.recv(1_000) == b""


# Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_batch(site: Site, service: Served) -> None:
    """To the last bit, together and one by one; with reasons on request."""
    frame = draw(40, first=0, seed=0)
    site.add(40)
    score(site)
    wanted = pd.read_parquet(next((site.folder / "scores").glob("*.parquet")))
    wanted = wanted.set_index(wanted["id"].astype(int))

    together = service.ask("POST", "/v1/score", scope="score", json={"events": events(frame), "reasons": True}).json()
    alone = [service.ask("POST", "/v1/score", json={"event": each}).json()["scores"][0] for each in events(frame)[:5]]

    found = pd.DataFrame(together["scores"]).set_index("key")
    assert found["p_value"].tolist() == wanted.loc[found.index, "p_value"].tolist()
    assert found["risk"].tolist() == wanted.loc[found.index, "risk"].tolist()
    assert found["flagged"].tolist() == wanted.loc[found.index, "flagged"].tolist()
    assert together["model_version"] == wanted["model_version"].iloc[0]
    assert all(each and each[0]["feature"] in ("amount", "fee") for each in found["reasons"])
    assert [each["risk"] for each in alone] == found["risk"].tolist()[:5]
    assert alone[0]["reasons"] is None


def test_errors_name_the_field(service: Served) -> None:
    """A value that is missing, of the wrong kind or not to be read, by event and column."""
    good, bad = events(draw(2, first=0, seed=0))
    missing = {name: value for name, value in bad.items() if name != "amount"} | {"amuont": 3}

    lacking = service.ask("POST", "/v1/score", json={"events": [good, missing]})
    wrong = service.ask("POST", "/v1/score", json={"events": [good, bad | {"amount": "much"}, good]})
    one = service.ask("POST", "/v1/score", json={"event": bad | {"amount": "much"}})
    kind = service.ask("POST", "/v1/score", json={"events": [good, bad | {"amount": [1]}]})

    assert is_problem(lacking, 422)
    assert "Did you mean 'amuont'" in fields_of(lacking)["events.1.amount"]
    assert wrong.status_code == 200
    assert [(each["place"], each["field"]) for each in wrong.json()["refused"]] == [
        (1, "events.1.amount"),
        (2, "events.2.id"),
    ]
    assert "not a number" in fields_of(one)["event.amount"]
    assert any(name.startswith("events.1.amount") for name in fields_of(kind))


@pytest.mark.parametrize("name", ["id", "at", "amount", "fee"])
def test_null_is_advised_where_it_is_accepted(service: Served, name: str) -> None:
    """Key and time must have a value; null is one of a feature."""
    (good,) = events(draw(1, first=0, seed=0))
    lacking = {column: value for column, value in good.items() if column != name}

    missing = service.ask("POST", "/v1/score", json={"event": lacking})
    null = service.ask("POST", "/v1/score", json={"event": good | {name: None}})

    advice = fields_of(missing)[f"event.{name}"]
    assert ("give null" in advice) == (null.status_code == 200)
    assert ("must have a value" in advice) == (name in ("id", "at"))


def test_no_more_events_than_allowed(site: Site) -> None:
    """One more is an error that names the setting."""
    config = with_api(site, most_events=2)
    with served(config, open_store(config.service.store)) as service:
        found = service.ask("POST", "/v1/score", json={"events": events(draw(3, first=0, seed=0))})

    assert "service.api.most_events" in fields_of(found)["events"]


def test_no_detector_is_a_problem_of_the_service(desk: Served) -> None:
    """Whoever asks is told that it is not their fault."""
    assert is_problem(desk.ask("POST", "/v1/score", json={"event": {"a": 1}}), 503)


# Alerts ---------------------------------------------------------------------------------------------------------------


def test_queue_is_listed_page_by_page(desk: Served) -> None:
    """The most severe first, each event once, whatever is answered between two pages."""
    ids = made(desk, *((f"card-{n}", n, "high" if n % 2 else "low") for n in range(7)))
    first = desk.ask("GET", "/v1/alerts?limit=3").json()
    desk.ask("POST", f"/v1/alerts/{first['alerts'][0]['id']}/verdict", json={"verdict": "fraud"})
    second = desk.ask("GET", f"/v1/alerts?limit=3&after={first['next']}").json()
    third = desk.ask("GET", f"/v1/alerts?limit=3&after={second['next']}").json()

    pages = [*first["alerts"], *second["alerts"], *third["alerts"]]
    assert sorted(each["id"] for each in pages) == sorted(ids)
    assert [each["severity"] for each in pages] == ["high"] * 3 + ["low"] * 4
    assert (first["total"], second["total"], third["next"]) == (7, 6, None)
    newest = desk.ask("GET", "/v1/alerts?order=newest&limit=500&state=all").json()
    assert {each["id"] for each in newest["alerts"]} == set(ids)


def test_alerts_are_filtered(desk: Served) -> None:
    """By state, severity, entity, pattern and who has it."""
    one, two, three = made(desk, ("card-1", 0, "critical"), ("card-2", 1, "high"), ("card-3", 2, "low"))
    desk.ask("POST", f"/v1/alerts/{one}/verdict", json={"verdict": "fine", "reason": "known trip"})
    desk.ask("POST", f"/v1/alerts/{two}/snooze", json={"hours": 2, "reason": "asked the customer"})
    desk.ask("POST", f"/v1/alerts/{three}/assignee", json={"assignee": "bob"})

    def ids(query: str) -> list[str]:
        return [each["id"] for each in desk.ask("GET", f"/v1/alerts?{query}").json()["alerts"]]

    assert ids("state=open") == [three]
    assert ids("state=answered") == [one]
    assert ids("state=snoozed") == [two]
    assert ids("state=all&severity=high") == [two]
    assert ids("state=all&about=card-3") == [three]
    assert ids("state=all&pattern=amount") == [one, two, three]
    assert ids("state=all&assignee=bob") == [three]
    assert ids("state=all&assignee=") == [one, two]
    assert ids("state=all&since=2030-01-01T00:00:00Z") == []
    assert is_problem(desk.ask("GET", "/v1/alerts?state=opne"), 422)
    with desk.store.read() as session:
        assert session.scalars(sa.select(Silence.reason)).all() == ["asked the customer"]


def test_detail_holds_all_that_was_said(desk: Served) -> None:
    """Verdicts, notes, deliveries, earlier alerts of the entity, similar ones of others."""
    (earlier,) = made(desk, ("card-1", 0, "low"))
    (one,) = made(desk, ("card-1", 600, "high"))
    (other,) = made(desk, ("card-2", 601, "high"))
    desk.ask("POST", f"/v1/alerts/{other}/verdict", json={"verdict": "fraud"})
    desk.ask("POST", f"/v1/alerts/{one}/comments", json={"text": "called\nno answer"})
    desk.ask("POST", f"/v1/alerts/{one}/verdict", json={"verdict": "unsure", "reason": "?"})

    found = desk.ask("GET", f"/v1/alerts/{one[:10]}").json()

    assert found["id"] == one
    assert [(each["verdict"], each["who"], each["via"]) for each in found["verdicts"]] == [("unsure", "ann", "api")]
    assert [(each["kind"], each["text"]) for each in found["notes"]] == [("comment", "called\nno answer")]
    assert [each["id"] for each in found["earlier"]] == [earlier]
    assert [each["id"] for each in found["similar"]] == [other]
    assert found["table"]["How rare"]


def test_write_that_comes_again_is_done_once(desk: Served) -> None:
    """Under one name the same request gets the same answer; another request, or another key, is another thing."""
    (one,) = made(desk, ("card-1", 0, "high"))
    path, name = f"/v1/alerts/{one}/verdict", {"Idempotency-Key": "a-1"}

    first = desk.ask("POST", path, json={"verdict": "fraud"}, headers=name)
    again = desk.ask("POST", path, json={"verdict": "fraud"}, headers=name)
    other = desk.ask("POST", path, json={"verdict": "fine"}, headers=name)
    elsewhere = desk.ask("POST", f"/v1/alerts/{one}/comments", json={"text": "x"}, headers=name)
    somebody = desk.ask("POST", path, json={"verdict": "fine"}, headers=name, scope="review")
    unnamed = desk.ask("POST", path, json={"verdict": "fine"}, headers={"Idempotency-Key": "x" * 300})

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["idempotent-replay"] == "true"
    assert is_problem(other, 422)
    assert is_problem(elsewhere, 422)
    assert somebody.status_code == 200
    assert is_problem(unnamed, 400)
    with desk.store.read() as session:
        assert session.scalars(sa.select(Answer.verdict)).all() == ["fraud", "fine"]


def test_write_whose_process_died_may_come_again(desk: Served) -> None:
    """A request that was in hand is refused meanwhile, and taken up once it must have been lost."""
    one, other = ("m-1", 2), ("m-2", 20)
    desk.ask("GET", "/v1/jobs")
    with desk.store.write() as session:
        caller = session.scalars(sa.select(ApiKey.id)).one()
        path = "/v1/models/rollback"
        said = MoveReason(reason="x").model_dump_json()
        fingerprint = hashlib.sha256(f"POST {path}?\n{said}".encode()).hexdigest()
        for name, minutes in (one, other):
            at = datetime.now(UTC) - timedelta(minutes=minutes)
            values = {"key": caller, "name": name, "fingerprint": fingerprint, "status": 0, "answer": {}, "at": at}
            session.add(AnsweredRequest(**values))

    found = [
        desk.ask("POST", path, json={"reason": "x"}, headers={"Idempotency-Key": each}) for each, _ in (one, other)
    ]

    assert is_problem(found[0], 409)
    assert is_problem(found[1], 422)  # taken up: there is no detector to go back to


@pytest.mark.slow
def test_queue_works_on_postgresql(tmp_path: Path, postgres: Any) -> None:
    """Filters, pages, notes, silences and repeated requests, as on SQLite."""
    config, store = config_in(tmp_path), open_store(postgres.url(f"api_{abs(hash(tmp_path))}"))
    with served(config, store) as desk:
        ids = made(desk, *((f"card-{n}", n, "high" if n % 2 else "low") for n in range(5)))
        name = {"Idempotency-Key": "a"}
        said = [
            desk.ask("POST", f"/v1/alerts/{ids[0]}/verdict", json={"verdict": "fraud"}, headers=name) for _ in range(2)
        ]
        desk.ask("POST", f"/v1/alerts/{ids[1]}/snooze", json={"hours": 2, "reason": "test"})
        desk.ask("POST", f"/v1/alerts/{ids[2]}/assignee", json={"assignee": "bob"})
        first = desk.ask("GET", "/v1/alerts?limit=2").json()
        second = desk.ask("GET", f"/v1/alerts?limit=2&after={first['next']}").json()
        newest = desk.ask("GET", "/v1/alerts?state=all&order=newest").json()
        bobs = desk.ask("GET", "/v1/alerts?assignee=bob").json()
        evil = desk.ask("GET", "/v1/alerts", params={"about": "' OR 1=1 --", "pattern": "x\x00"})
        detail = desk.ask("GET", f"/v1/alerts/{ids[1]}").json()

    assert [each.status_code for each in said] == [200, 200]
    assert said[1].headers["idempotent-replay"] == "true"
    assert sorted(each["id"] for each in first["alerts"] + second["alerts"]) == sorted(ids[2:])
    assert len(newest["alerts"]) == 5
    assert [each["id"] for each in bobs["alerts"]] == [ids[2]]
    assert evil.status_code in (200, 422)
    assert detail["state"] == "snoozed"


def test_refused_write_may_come_again(desk: Served) -> None:
    """A request that failed leaves nothing under its name."""
    (one,) = made(desk, ("card-1", 0, "high"))
    path, name = f"/v1/alerts/{one}/verdict", {"Idempotency-Key": "a-1"}

    assert is_problem(desk.ask("POST", path, json={"verdict": "fruad"}, headers=name), 422)
    assert desk.ask("POST", path, json={"verdict": "fraud"}, headers=name).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        "' OR 1=1 --",
        "%",
        "_",
        "al_%",
        "\\",
        "\x00",
        "'; DROP TABLE alerts; --",
        "{{7*7}}",
        "../../etc/passwd",
        "é" * 50,
    ],
)
def test_texts_are_no_commands(desk: Served, text: str) -> None:
    """What a database, a template or a file system would take for its own finds nothing and breaks nothing."""
    (one,) = made(desk, ("card-1", 0, "high"))
    quoted = requests.utils.quote(text, safe="")

    listed = desk.ask("GET", f"/v1/alerts?state=all&about={quoted}&pattern={quoted}&assignee={quoted}")
    shown = desk.ask("GET", f"/v1/alerts/{quoted}")
    entity = desk.ask("GET", f"/v1/entities/{quoted}")
    said = desk.ask("POST", f"/v1/alerts/{one}/comments", json={"text": text})
    model = desk.ask("POST", f"/v1/models/{quoted}/promote", json={"reason": text})
    job = desk.ask("POST", f"/v1/jobs/{quoted}/run", json={})

    assert listed.status_code == 200
    assert listed.json()["alerts"] == []
    assert shown.status_code in (404, 422)
    assert entity.status_code == 200
    assert entity.json()["rows"] == []
    assert said.status_code in (200, 422)
    assert model.status_code in (404, 405, 422)
    assert job.status_code in (404, 405)
    assert desk.ask("GET", f"/v1/alerts/{one}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/../detector.yaml", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/alerts/..%2f..%2fx", "//v1"]
)
def test_paths_lead_nowhere_else(desk: Served, path: str) -> None:
    """No path reaches a file."""
    host, _, port = desk.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {desk.key('admin')}\r\nConnection: close\r\n\r\n"
        )
        line.sendall(head.encode())
        answer = b"".join(iter(lambda: line.recv(65_536), b""))

    assert answer.split()[1] in (b"404", b"405")
    assert b"root:" not in answer
    assert b"transaction_id" not in answer


# Jobs and models ------------------------------------------------------------------------------------------------------


def test_jobs_are_run_and_left_out(service: Served) -> None:
    """By asking the leader; who asked, and why, stands in the trail."""
    asked = service.ask("POST", "/v1/jobs/score/run", json={"reason": "month end"}).json()
    service.ask("POST", "/v1/jobs/retrain/pause", json={"reason": "labels are wrong"})
    states = {each["job"]: each["state"] for each in service.ask("GET", "/v1/jobs", scope="review").json()["jobs"]}

    assert states["retrain"] == "paused"
    assert service.ask("GET", f"/v1/jobs/requests/{asked['request']}").json()["state"] == "waiting"
    assert is_problem(service.ask("GET", "/v1/jobs/requests/99"), 404)
    assert is_problem(service.ask("POST", "/v1/jobs/scroe/run", json={}), 404)
    with service.store.read() as session:
        assert session.scalars(sa.select(Request.job)).all() == ["score"]
        ours = sa.select(Audit.actor, Audit.action, Audit.reason).where(Audit.action != "create key")
        trail = session.execute(ours.order_by(Audit.id)).all()
    assert [tuple(each) for each in trail] == [
        ("ann", "run score", "month end"),
        ("ann", "pause retrain", "labels are wrong"),
    ]
    assert service.ask("POST", "/v1/jobs/retrain/resume", json={}).json() == {"job": "retrain", "paused": False}
    with service.store.read() as session:
        assert not session.get_one(JobState, "retrain").paused


def test_models_are_promoted_and_rolled_back_with_a_reason(service: Served) -> None:
    """What serves changes from one moment to the next, and back; the reason names who said so."""
    registry, now = ModelRegistry(service.config.bundle), datetime.now(UTC)
    schema = Schema(key="id", time="at", numeric=("amount", "fee"))
    other = TabularDetector(schema=schema, members=("forest",), trees=5).fit(draw(300, first=0, seed=1))
    with registry.locked():
        first = registry.adopt(now=now).champion
        second = registry.add(other.scorer_, facts={}, now=now)
    event = events(draw(1, first=0, seed=0))[0]

    def version() -> str:
        return str(service.ask("POST", "/v1/score", json={"event": event}).json()["model_version"])

    before = version()
    name = {"Idempotency-Key": "move-1"}
    moved = service.ask("POST", f"/v1/models/{second[:5]}/promote", json={"reason": "fewer alerts"}, headers=name)
    replayed = service.ask("POST", f"/v1/models/{second[:5]}/promote", json={"reason": "fewer alerts"}, headers=name)
    after = version()
    listed = service.ask("GET", "/v1/models", scope="review").json()
    back = service.ask("POST", "/v1/models/rollback", json={"reason": "too quiet"})

    assert (before, after, version()) == (first, second, first)
    assert moved.json() == replayed.json()
    assert moved.json()["reason"] == "fewer alerts (ann)"
    assert {each["name"]: each["role"] for each in listed["models"]}[second] == "champion"
    assert back.json()["serves"] == first
    assert is_problem(service.ask("POST", f"/v1/models/{first}/promote", json={"reason": "again"}), 422)
    assert is_problem(service.ask("POST", "/v1/models/nope/promote", json={"reason": "x"}), 404)
    assert "reason" in fields_of(service.ask("POST", "/v1/models/rollback", json={}))


def test_models_are_compared_by_a_job(service: Served) -> None:
    """Asked for and answered later, by the process that leads, in a process of its own; who asked is written down."""
    registry, now = ModelRegistry(service.config.bundle), datetime.now(UTC)
    rows = draw(400, first=0, seed=1)
    schema = Schema(key="id", time="at", numeric=("amount", "fee"))
    other = TabularDetector(schema=schema, members=("forest",), trees=5).fit(rows.iloc[:200])
    with registry.locked():
        first = registry.adopt(now=now).champion
        second = registry.add(other.scorer_, facts={}, now=now)
    rows.to_parquet(service.config.file.parent / "in" / "recent.parquet")

    unknown = service.ask("POST", "/v1/models/compare", json={"first": "--help", "second": second})
    name = {"Idempotency-Key": "pair"}
    asked = [
        service.ask("POST", "/v1/models/compare", json={"first": first[:5], "second": second}, headers=name)
        for _ in range(2)
    ]
    number = asked[0].json()["request"]
    path = f"/v1/models/compare/{number}"
    waiting = service.ask("GET", path).json()
    with service.store.read() as session:
        (request,) = session.scalars(sa.select(Request)).all()
        session.expunge_all()
    context = Context(service.config, service.store, now, arguments=request.arguments)
    run, outcome = run_job(context, "compare", trigger="request", instance="this one")
    with service.store.write() as session:
        session.execute(sa.update(Request).values(taken=True, run=run))
    found = service.ask("GET", path).json()
    with service.store.read() as session:
        trail = session.scalars(sa.select(Audit).where(Audit.action == "compare models")).all()
        session.expunge_all()

    assert [each.status_code for each in (unknown, *asked)] == [404, 202, 202]
    assert waiting == {
        "first": first,
        "second": second,
        "request": number,
        "state": "waiting",
        **dict.fromkeys(("figures", "note", "error")),
    }
    assert outcome is not None
    assert (found["state"], found["error"]) == ("ended", "")
    assert outcome.facts["champion"] == first
    assert found["figures"] == outcome.facts["figures"] != {}
    assert second in found["note"]
    assert [each.actor for each in trail] == ["ann"]
    assert is_problem(service.ask("GET", "/v1/models/compare/99"), 404)


# Looking --------------------------------------------------------------------------------------------------------------


def test_what_if_counts_what_is_stored(site: Site, service: Served) -> None:
    """A lower quantile flags more; the policy of today flags what it flagged."""
    assert is_problem(service.ask("POST", "/v1/what-if", json={}), 422)
    site.add(200)
    score(site)
    frame = pd.concat(map(pd.read_parquet, (site.folder / "scores").glob("*.parquet")))
    days = {"days": 3_000}

    found = service.ask("POST", "/v1/what-if", json={"quantile": 0.5} | days).json()
    budget = {"quantile": 0.5, "budget": {"rows": 3, "per": "batch"}}
    capped = service.ask("POST", "/v1/what-if", json=budget | days).json()
    none = service.ask("POST", "/v1/what-if", json={"quantile": None} | days)

    assert found["today"]["flagged"] == int(frame["flagged"].sum())
    assert found["then"]["flagged"] == int((frame["p_value"] <= 0.5).sum())
    assert capped["then"]["flagged"] == 3
    assert is_problem(none, 422)


def test_what_if_says_what_money_it_would_miss(site: Site) -> None:
    """Of events that people called fraud, by what their alerts had at stake; nothing where nobody has said so."""
    file = site.folder / "detector.yaml"
    given = yaml.safe_load(file.read_text())
    given["alerts"] = {"amount": "amount", "file": {"path": "alerts.jsonl"}, "a_day": 100, "key": ["fee"]}
    file.write_text(yaml.safe_dump(given))
    site.add(200)
    score(site)
    config = load_config(site.folder)
    asked = {"quantile": 0.9999, "days": 3_000}
    with served(config, open_store(config.service.store)) as service:
        before = service.ask("POST", "/v1/what-if", json=asked).json()
        alerts = service.ask("GET", "/v1/alerts").json()["alerts"]
        for one, verdict in zip(alerts[:3], ("fraud", "fraud", "fine"), strict=True):
            service.ask("POST", f"/v1/alerts/{one['id']}/verdict", json={"verdict": verdict})
        found = service.ask("POST", "/v1/what-if", json=asked).json()
        service.ask("POST", f"/v1/alerts/{alerts[0]['id']}/verdict", json={"verdict": "fine"})
        corrected = service.ask("POST", "/v1/what-if", json=asked).json()
        browser = Browser(service)
        browser.sign_in("view")
        page = browser.ask("GET", "/what-if?quantile=0.9999&days=3000").text
    first, second = (round(one["amount"], 2) for one in alerts[:2])

    assert (before["today"]["money_caught"], before["today"]["money_missed"]) == (None, None)
    assert found["today"]["money_caught"] == round(first + second, 2)
    assert (found["today"]["money_missed"], found["then"]["money_caught"]) == (0, 0)
    assert found["then"]["money_missed"] == round(first + second, 2)
    assert corrected["then"]["money_missed"] == second
    assert "Money missed" in page
    assert f"{second:,.2f}" in page


def test_description_names_every_path(service: Served) -> None:
    """OpenAPI is served to whoever has a key, and says which one is needed."""
    found = service.ask("GET", "/v1/openapi.json", scope="score").json()

    assert {"/score", "/alerts", "/alerts/{alert}/verdict", "/jobs/{job}/run", "/models/rollback"} <= set(
        found["paths"]
    )
    assert found["security"] == [{"key": []}]
    assert requests.get(service.address + "/openapi.json", timeout=5).status_code == 404


def test_lists_and_objects_matter_only_where_they_are_read(site: Site, service: Served) -> None:
    """A program sends its order as it is, with the items in it; a score reads no list, and says so by the field."""
    event = events(draw(1, first=0, seed=0))[0]

    plain = service.ask("POST", "/v1/score", json={"event": event, "dry_run": True})
    nested = service.ask("POST", "/v1/score", json={"event": event | {"items": [{"n": 1}]}, "dry_run": True})
    several = service.ask("POST", "/v1/score", json={"events": [event | {"place": {}}], "dry_run": True})
    read = service.ask("POST", "/v1/score", json={"event": event | {"amount": [1]}, "dry_run": True})

    assert nested.json()["scores"] == several.json()["scores"] == plain.json()["scores"]
    assert read.json()["detail"] == "1 field of the request cannot be used."
    assert read.json()["errors"] == [
        {"field": "event.amount", "detail": "expected text, a number, true, false or null"}
    ]


def test_description_calls_no_two_things_alike(service: Served) -> None:
    """Programs that write clients leave out all that is made of one of two schemas of the same title."""
    schemas = service.ask("GET", "/v1/openapi.json").json()["components"]["schemas"]
    titles = [schema["title"] for schema in schemas.values()]

    assert sorted(titles) == sorted(schemas)


def test_operations_have_names_that_a_client_can_be_made_of(service: Served) -> None:
    """A generated client's methods are called by them: ``get_alert``, not ``show_alerts__alert__get``."""
    paths = service.ask("GET", "/v1/openapi.json").json()["paths"]
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]

    assert {"score", "list_alerts", "get_alert", "answer_alert", "promote_model"} <= set(names)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*(?<!_get)(?<!_post)", name) for name in names)


def test_housekeeping_forgets_old_answers(service: Served) -> None:
    """After two days a request under the same name is another one."""
    service.ask("POST", "/v1/jobs/score/pause", json={}, headers={"Idempotency-Key": "p"})

    for days, left in ((1, 1), (3, 0)):
        tidy(Context(service.config, service.store, datetime.now(UTC) + timedelta(days=days), cache=ProcessCache()))
        with service.store.read() as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(AnsweredRequest)) == left


@pytest.mark.slow
def test_nothing_that_can_be_asked_fails_inside(site: Site, service: Served, tmp_path: Path) -> None:
    """Whatever the OpenAPI document allows, and what it does not: no answer is a 500, and each is as described."""
    document = tmp_path / "openapi.json"
    document.write_text(service.ask("GET", "/v1/openapi.json").text)
    key = f"Authorization: Bearer {service.keys['admin']}"
    site.add(50)
    score(site)
    words = ["run", str(document), "--url", f"{service.address}/v1", "-H", key, "--max-examples", "40", "--seed", "1"]
    checks = ["--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"]
    command = [sys.executable, "-m", "schemathesis.cli", *words, *checks, "--no-color"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert re.search(r"\d{3,} generated, \d{3,} passed", done.stdout), done.stdout


@pytest.mark.slow
def test_sensors_are_looked_at_and_not_scored_on_request(tmp_path: Path) -> None:
    """Readings are scored with those around them, and the answer says so; alerts, rows and pages are there."""
    site = SensorSite(tmp_path / "site", bundle_of(tmp_path))
    site.rows.loc[300:320, "flow"] = 500.0
    site.add(400)
    config = load_config(site.folder)
    with served(config, open_store(config.service.store)) as service:
        score_new(Context(config, service.store, datetime.now(UTC), cache=service.cache))
        refused = service.ask("POST", "/v1/score", json={"event": {"id": 1}})
        looked = service.ask("POST", "/v1/what-if", json={"quantile": 0.9})
        browser = Browser(service)
        browser.sign_in("view")
        page = browser.ask("GET", "/what-if").text
        alerts = service.ask("GET", "/v1/alerts").json()["alerts"]
        found = service.ask("GET", f"/v1/alerts/{alerts[0]['id']}/rows?limit=3").json()
        entity = service.ask("GET", f"/v1/entities/{alerts[0]['about']}?days=3000").json()

    assert is_problem(refused, 422)
    assert "through the source" in refused.json()["detail"]
    assert is_problem(looked, 422)
    assert "<code>detector score</code> shows another policy" in page
    assert 'name="quantile"' not in page  # nothing to fill in that could not be answered
    assert found["missing"] == 0
    assert {row["flow"] for row in found["rows"]} == {500.0}
    assert entity["total"] == int((site.rows["pump"].iloc[:400] == alerts[0]["about"]).sum())


@pytest.mark.slow
def test_process_has_one_address_for_all(tiny_bundle: Path, tmp_path: Path) -> None:
    """`detector serve` names it; a job that is asked for there runs; the process stays small."""
    quiet = {name: {"enabled": False} for name in ("score", "retrain", "drift", "deliver", "housekeeping")}
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"jobs": quiet})
    site.add(40)
    store = open_store(load_config(site.folder).service.store)
    with store.write() as session:
        key = {"Authorization": f"Bearer {keys.create(session, 'ann', ['admin'], days=None, now=datetime.now(UTC))}"}
    store.close()
    log = tmp_path / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "pipelines", "serve", str(site.folder)]
        process = subprocess.Popen(command, stderr=stream, cwd=ROOT)
    try:
        said = r"answering on (http\S+): /console, /v1, /healthz"
        address = eventually(lambda: re.search(said, log.read_text()))[1]
        asked = requests.post(f"{address}/v1/jobs/score/run", json={}, headers=key, timeout=20).json()["request"]
        place = f"{address}/v1/jobs/requests/{asked}"
        ended = eventually(lambda: requests.get(place, headers=key, timeout=20).json()["run"])
        event = events(draw(1, first=90, seed=1))[0]
        scored = requests.post(f"{address}/v1/score", json={"event": event}, headers=key, timeout=20)
        page = requests.get(address, timeout=20)
        memory = memory_of(process.pid)
    finally:
        process.terminate()
        code = process.wait(30)

    assert (ended["outcome"], ended["rows"]) == ("done", 40)
    assert scored.status_code == 200
    assert "Sign in" in page.text
    assert memory < 350, f"{memory:.0f} MB"
    assert code == 0


def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What is found, once there is something."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found
    return found


def test_scoring_a_file_imports_nothing_of_the_web() -> None:
    """Whoever scores a file by hand waits for no server."""
    code = "import sys, pipelines.cli, pipelines.scoring.one_off; print(*({'fastapi', 'uvicorn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_alert_is_followed_to_its_rows_and_its_entity(home: Path) -> None:
    """Its rows as the source has them, masked where alerts are; the entity's scores and alerts."""
    alerts = {"amount": "amount", "file": {"enabled": False}, "log": {"enabled": False}}
    config = settle(home, policy={"quantile": 0.8}, alerts=alerts | {"mask": {"merchant_category": "hide"}})
    put(home, "a", PAYMENTS.iloc[750:])
    with served(config, open_store(config.service.store)) as service:
        score_new(Context(config, service.store, LATER, cache=service.cache))
        one = service.ask("GET", "/v1/alerts?limit=1").json()["alerts"][0]
        found = service.ask("GET", f"/v1/alerts/{one['id']}/rows").json()
        entity = service.ask("GET", f"/v1/entities/{one['about']}?days=3000").json()
        health = service.ask("GET", "/v1/health").json()

    source = PAYMENTS.set_index("transaction_id")
    assert (found["missing"], len(found["rows"])) == (0, one["rows"])
    for row in found["rows"]:
        assert row["amount"] == pytest.approx(source.loc[row["transaction_id"], "amount"])
        assert row["card_id"] == one["about"]
        assert row["merchant_category"] == "(hidden)"
        assert row["flagged"] is True
    mine = PAYMENTS.iloc[750:]
    assert entity["total"] == int((mine["card_id"] == one["about"]).sum())
    assert one["id"] in [each["id"] for each in entity["alerts"]]
    assert (health["ready"], health["waiting"], health["batches"][0]["rows"]) == (True, 0, 750)
