"""Single sign-on by a header: it counts from the proxies that are named, and from nowhere else."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import yaml

from detector.errors import SettingError
from pipelines.config import load_config
from pipelines.store import Audit
from pipelines.store.alert_tables import Answer
from tests.alert_places import config_in, give, rows, store_in
from tests.web import Browser, Served, served

HERE, ELSEWHERE = ["127.0.0.1"], ["10.1.2.0/28"]
ROLES = {"admins": ["ada"], "analysts": ["group:fraud team"], "viewers": ["*"]}


def behind(folder: Path, **proxy: Any) -> Any:
    """A configuration with these settings of single sign-on."""
    file = config_in(folder).file
    assert file is not None
    given = yaml.safe_load(file.read_text())
    given.setdefault("service", {})["console"] = {"proxy": proxy}
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    return load_config(file)


@contextmanager
def proxied(folder: Path, **proxy: Any) -> Iterator[Served]:
    with served(behind(folder, **proxy), store_in(folder)) as found:
        yield found


def get(desk: Served, path: str = "/", **headers: str) -> requests.Response:
    """Ask for a page of the console with these headers, their underscores as hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.get(f"{desk.address}/console{path}", headers=named, timeout=20, allow_redirects=False)


def an_alert(desk: Served) -> str:
    """The id of an alert that nobody has answered."""
    (made,) = give(desk.store, desk.config, rows(("card-1", 0, "high")), now=datetime.now(UTC))
    return str(made["id"])


def test_header_is_nothing_until_it_is_switched_on(tmp_path: Path) -> None:
    """Whatever a browser sends, it is asked for a key."""
    with served(config_in(tmp_path), store_in(tmp_path)) as desk:
        for name in ("X_Forwarded_User", "Remote_User", "X_Remote_User", "X_Forwarded_Email"):
            found = get(desk, **{name: "ada"})
            assert (found.status_code, found.headers["location"]) == (303, "/console/sign-in")


@pytest.mark.parametrize("claims", [{}, {"X_Forwarded_For": "10.1.2.3"}, {"Forwarded": "for=10.1.2.3"}])
def test_header_from_elsewhere_is_ignored(tmp_path: Path, claims: dict[str, str]) -> None:
    """Where the connection comes from counts, not what a header says of that: a key is asked for."""
    with proxied(tmp_path, header="X-Forwarded-User", addresses=ELSEWHERE, **ROLES) as desk:
        found = get(desk, X_Forwarded_User="ada", **claims)
        browser = Browser(desk)
        browser.sign_in("view")
        inside = browser.ask("GET", "/", headers={"X-Forwarded-User": "ada"})

    assert (found.status_code, found.headers["location"]) == (303, "/console/sign-in")
    assert inside.status_code == 200
    assert ">ann<" in inside.text  # whose key it is
    assert ">ada<" not in inside.text


def test_roles_decide_what_somebody_may_do(tmp_path: Path) -> None:
    """A viewer looks, an analyst answers, an admin steers; each under the name that the proxy gives."""
    settings = {"header": "X-Forwarded-User", "addresses": HERE, "groups_header": "X-Forwarded-Groups"}
    with proxied(tmp_path, **settings, **ROLES) as desk:
        (one,) = (
            each["id"] for each in give(desk.store, desk.config, rows(("card-1", 0, "high")), now=datetime.now(UTC))
        )
        people = {
            "vera": {"X-Forwarded-User": "vera", "X-Forwarded-Groups": "sales, support"},
            "anna": {"X-Forwarded-User": "anna", "X-Forwarded-Groups": "sales, fraud team"},
            "ada": {"X-Forwarded-User": "ada"},
        }
        tried = {}
        for name, headers in people.items():
            browser = Browser(desk)
            page = browser.ask("GET", "/", headers=headers)
            assert page.status_code == 200
            assert f">{name}<" in page.text
            assert "Sign out" not in page.text
            acts = "Say of the chosen alerts" in page.text
            answer = browser.ask("POST", "/alerts", headers=headers, data={"id": one, "what": "fraud"})
            audit = browser.ask("GET", "/audit", headers=headers)
            tried[name] = (acts, answer.status_code, audit.status_code)
        with desk.store.read() as session:
            answered = list(session.scalars(sa.select(Answer.who)))
            came = session.scalars(sa.select(Audit).where(Audit.action == "sign in")).all()
            noted = sorted((each.actor, each.arguments["role"]) for each in came)

    assert tried == {"vera": (False, 403, 403), "anna": (True, 303, 403), "ada": (True, 303, 200)}
    assert answered == ["anna", "ada"]
    assert noted == [("ada", "admin"), ("anna", "analyst"), ("vera", "viewer")]


def test_nobody_gets_in_by_an_odd_name(tmp_path: Path) -> None:
    """Two names, none, or one that is called like a group: refused, and so is one without a role."""
    settings = {"header": "X-Forwarded-User", "addresses": HERE, "groups_header": "X-Forwarded-Groups"}
    with proxied(tmp_path, **settings, analysts=["anna", "group:fraud team"]) as desk:
        assert get(desk, X_Forwarded_User="anna").status_code == 200
        for name in ("", "mallory", "group:fraud team", "a" * 100):
            found = get(desk, X_Forwarded_User=name)
            assert found.status_code == 403, name
            assert "queue" not in found.text
        assert get(desk, X_Forwarded_User="mallory", X_Forwarded_Groups="fraud team").status_code == 200
        assert get(desk).headers["location"] == "/console/sign-in"  # no header: by key, as ever
        line = http.client.HTTPConnection(desk.address.removeprefix("http://"), timeout=20)
        line.putrequest("GET", "/console/")
        for name in ("anna", "mallory"):
            line.putheader("X-Forwarded-User", name)
        line.endheaders()
        assert line.getresponse().status == 403
        line.close()


def test_forms_are_of_the_one_who_loaded_them(tmp_path: Path) -> None:
    """The token of one person's page is none of another's; a form from another site is refused."""
    with proxied(tmp_path, header="X-Forwarded-User", addresses=HERE, admins=["*"]) as desk:
        (one,) = (
            each["id"] for each in give(desk.store, desk.config, rows(("card-1", 0, "high")), now=datetime.now(UTC))
        )
        anna, bob = Browser(desk), Browser(desk)
        anna.ask("GET", "/", headers={"X-Forwarded-User": "anna"})
        bob.ask("GET", "/", headers={"X-Forwarded-User": "bob"})
        bob.token = anna.token
        stolen = bob.ask("POST", "/alerts", headers={"X-Forwarded-User": "bob"}, data={"id": one, "what": "fraud"})
        crossed = {"X-Forwarded-User": "anna", "Sec-Fetch-Site": "cross-site"}
        foreign = anna.ask("POST", "/alerts", headers=crossed, data={"id": one, "what": "fraud"})

    assert (stolen.status_code, foreign.status_code) == (403, 403)


def test_api_knows_keys_alone(tmp_path: Path) -> None:
    """Programs have no proxy that says who they are."""
    with proxied(tmp_path, header="X-Forwarded-User", addresses=HERE, admins=["*"]) as desk:
        found = requests.get(f"{desk.address}/v1/alerts", headers={"X-Forwarded-User": "ada"}, timeout=20)

    assert found.status_code == 401


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ({"header": "X-Forwarded-User", "viewers": ["*"]}, "addresses"),
        ({"header": "X-Forwarded-User", "addresses": HERE}, "Nobody has a role"),
        ({"addresses": HERE, "viewers": ["*"]}, "names no header"),
        ({"header": "X-Forwarded-User", "addresses": ["0.0.0.0/0"], "viewers": ["*"]}, "everybody"),
        ({"header": "X-Forwarded-User", "addresses": ["proxy.local"], "viewers": ["*"]}, "expected networks"),
        ({"header": "X Forwarded", "addresses": HERE, "viewers": ["*"]}, "name of a header"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(tmp_path: Path, proxy: dict[str, Any], why: str) -> None:
    """Or nobody; each says what to write instead."""
    with pytest.raises(SettingError, match=why):
        behind(tmp_path, **proxy)
