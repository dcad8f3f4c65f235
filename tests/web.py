"""A service on loopback with its API and console, over a project whose alerts are given by hand."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
import yaml

from benchmarks.soak import Site
from pipelines.alerts.feedback.router import answer_router
from pipelines.api import keys
from pipelines.config import Config, load_config
from pipelines.console.application import mount_web
from pipelines.jobs.context import ProcessCache
from pipelines.service.facts import Facts
from pipelines.service.http import HttpServer, application
from pipelines.service.metrics import Metrics
from pipelines.store import Store, open_store
from tests.alert_places import NOW

COOKIE = "__Host-detector"


class Served:
    """What is served, and how to ask it."""

    def __init__(self, address: str, store: Store, config: Config, cache: ProcessCache) -> None:
        self.address, self.store, self.config, self.cache = address, store, config, cache
        self.keys: dict[str, str] = {}

    def key(self, *scopes: str, name: str = "ann", days: float | None = None, now: datetime = NOW) -> str:
        """A key with these scopes."""
        with self.store.write() as session:
            return keys.create(session, name, scopes, days=days, now=now)

    def ask(self, method: str, path: str, *, scope: str = "admin", key: str = "", **given: Any) -> requests.Response:
        """What is answered to a request with a key of a scope, or with that key."""
        if not key and scope not in self.keys:
            self.keys[scope] = self.key(scope)
        headers = {"Authorization": f"Bearer {key or self.keys[scope]}"} | given.pop("headers", {})
        return requests.request(method, self.address + path, headers=headers, timeout=20, **given)


@contextmanager
def served(config: Config, store: Store, *, leads: bool = True, answers: bool = False) -> Iterator[Served]:
    """Serve a project; with ``answers``, the pages behind the links of alerts as well."""
    cache = ProcessCache()
    facts = Facts(config, store, is_leader=lambda: leads, last_beat=time.monotonic, cache=cache)
    app = application(facts, Metrics(facts))
    if answers:
        app.include_router(answer_router(config, store, clock=lambda: datetime.now(UTC)))
    mount_web(app, config, store, facts)
    server = HttpServer(app, host="127.0.0.1", port=0)
    server.start()
    try:
        yield Served(server.address, store, config, cache)
    finally:
        server.stop()
        store.close()


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    return Site(tmp_path / "site", place, "files to files", policy={"quantile": 0.9})


@pytest.fixture
def service(site: Site) -> Iterator[Served]:
    """A service with a detector of one small forest."""
    config = load_config(site.folder)
    with served(config, open_store(config.service.store)) as found:
        yield found


def with_api(site: Site, **settings: Any) -> Config:
    """The project with settings of ``service.api``."""
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text())
    values["service"]["api"] = settings
    file.write_text(yaml.safe_dump(values))
    return load_config(site.folder)


def is_problem(found: requests.Response, status: int) -> bool:
    """Whether an answer is a problem of that status."""
    assert found.status_code == status, found.text
    body = found.json()
    return found.headers["content-type"] == "application/problem+json" and body["status"] == status


def fields_of(found: requests.Response) -> dict[str, str]:
    """What a problem says of each field."""
    return {each["field"]: each["detail"] for each in found.json()["errors"]}


def events(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    return found


class Browser:
    """As much of one as is asked: it keeps the cookie, and knows the token of the forms it has seen."""

    def __init__(self, desk: Served) -> None:
        self.desk = desk
        self.cookie = ""
        self.token = ""

    def ask(self, method: str, path: str, **given: Any) -> requests.Response:
        """Ask for a page, or send a form with the token."""
        headers = {"Cookie": f"{COOKIE}={self.cookie}"} | given.pop("headers", {})
        if method == "POST":
            given["data"] = {"token": self.token} | given.get("data", {})
        place = self.desk.address + "/console" + path
        found = requests.request(method, place, headers=headers, timeout=20, allow_redirects=False, **given)
        if (token := re.search(r'name="token" value="([^"]*)"', found.text)) is not None:
            self.token = token[1]
        return found

    def sign_in(self, *scopes: str, **given: Any) -> requests.Response:
        """Sign in with a new key."""
        found = self.ask("POST", "/sign-in", data={"key": self.desk.key(*scopes)} | given)
        self.cookie = found.cookies.get(COOKIE, "")
        self.ask("GET", "/")
        return found
