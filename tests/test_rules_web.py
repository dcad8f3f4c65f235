"""Rules by the API and in the console: scopes, trials, changes, and texts that are no commands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site
from pipelines.config import load_config
from pipelines.store import open_store
from pipelines.store.alert_tables import Alert, Answer
from pipelines.store.rule_tables import RuleChange, StoredRule
from tests.service_sites import score
from tests.test_console import EVIL
from tests.web import Browser, Served, fields_of, is_problem, served

RULE = {"when": "amount > 45", "severity": "high", "reason": "large", "why": "a try"}
FILED = {"name": "filed", "when": "amount < 36", "state": "live", "reason": "cheap"}


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    """A project with one rule in the file."""
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    site = Site(tmp_path / "site", place, "files to files", policy={"quantile": 0.9})
    file = site.folder / "detector.yaml"
    lists = {"watched": {"values": ["1", "2"]}}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"rules": [FILED], "lists": lists}))
    return site


@pytest.fixture
def service(site: Site) -> Iterator[Served]:
    config = load_config(site.folder)
    with served(config, open_store(config.service.store)) as found:
        yield found


@pytest.fixture
def admin(service: Served) -> Browser:
    found = Browser(service)
    found.sign_in("admin")
    return found


def changes_of(service: Served) -> list[tuple[str, str, str]]:
    """Who did what to which rule."""
    with service.store.read() as session:
        found = session.scalars(sa.select(RuleChange).where(RuleChange.what != "file").order_by(RuleChange.id))
        return [(each.who, each.what, each.rule) for each in found]


# The API --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "method", "path", "body"),
    [
        ("score", "GET", "/v1/rules", None),
        ("score", "GET", "/v1/rules/names", None),
        ("score", "GET", "/v1/rules/history", None),
        ("score", "POST", "/v1/rules/try", {"when": "amount > 1"}),
        ("review", "PUT", "/v1/rules/a", {"when": "amount > 1"}),
        ("review", "POST", "/v1/rules/filed/state", {"state": "off"}),
        ("review", "DELETE", "/v1/rules/filed", None),
    ],
)
def test_scope_is_needed(service: Served, scope: str, method: str, path: str, body: Any) -> None:
    """Who reviews reads and tries; only admin changes."""
    assert is_problem(service.ask(method, path, scope=scope, json=body), 403)
    assert changes_of(service) == []


def test_rule_is_tried_kept_switched_and_removed(site: Site, service: Served) -> None:
    """It acts from the next batch on; who did what is on record."""
    site.add(100)
    tried = service.ask("POST", "/v1/rules/try", scope="review", json={"when": "amount > 45", "days": 3000})
    kept = service.ask("PUT", "/v1/rules/large", json=RULE | {"state": "live"})
    score(site)
    listed = {each["name"]: each for each in service.ask("GET", "/v1/rules", scope="review").json()["rules"]}
    off = service.ask("POST", "/v1/rules/large/state", json={"state": "off", "why": "loud"})
    removed = service.ask("DELETE", "/v1/rules/large")
    changes = service.ask("GET", "/v1/rules/history?rule=large").json()["changes"]

    assert tried.status_code == kept.status_code == off.status_code == removed.status_code == 200, (
        tried.text + kept.text
    )
    hits = tried.json()["hits"]
    assert hits > 0
    assert (listed["large"]["week"], listed["large"]["origin"], listed["large"]["changed_by"]) == (
        hits,
        "console",
        "ann",
    )
    assert listed["filed"]["origin"] == "file"
    assert off.json()["state"] == "off"
    assert [(each["what"], each["why"]) for each in changes] == [
        ("removed", ""),
        ("state", "loud"),
        ("created", "a try"),
    ]
    assert changes[0]["before"]["when"] == "amount > 45"


@pytest.mark.parametrize(
    ("name", "body", "field", "said"),
    [
        ("a", {"when": "amuont > 5"}, "when", "Did you mean 'amount'"),
        ("a", {"when": "amount > 'x'"}, "when", "Write the number without quotes"),
        ("a", {"when": "amount > 5", "action": "explode"}, "action", "alert"),
        ("a", {"when": "amount > 5", "state": "on"}, "state", "off"),
        ("a", {"when": "amount > 5", "action": "never", "tag": "x"}, "rule", "`tag` is for"),
        ("a", {"when": "amount > 5", "color": "red"}, "color", "is not a field here"),
        ("a", {"when": "x" * 2_001}, "when", "at most 2000"),
        ("a", {"when": "amount > 5", "by": 0}, "by", "greater than 0"),
        ("<script>", {"when": "amount > 5"}, "name", "match pattern"),
    ],
)
def test_errors_name_the_field(service: Served, name: str, body: dict[str, Any], field: str, said: str) -> None:
    """What is wrong and what belongs there; nothing is kept."""
    found = service.ask("PUT", f"/v1/rules/{name}", json=body)

    assert is_problem(found, 422)
    assert said in fields_of(found)[field]
    assert changes_of(service) == []


def test_names_clash_plainly(service: Served) -> None:
    """A rule of the file is changed in the file; one that is not there is not found."""
    taken = service.ask("PUT", "/v1/rules/Filed", json=RULE)
    gone = service.ask("DELETE", "/v1/rules/filed")
    unknown = service.ask("POST", "/v1/rules/field/state", json={"state": "off"})
    state = service.ask("POST", "/v1/rules/filed/state", json={"state": "shadow"})

    assert is_problem(taken, 422)
    assert "holds a rule named 'Filed'. Change it there" in taken.json()["detail"]
    assert is_problem(gone, 422)
    assert "stands in the file" in gone.json()["detail"]
    assert is_problem(unknown, 404)
    assert "Did you mean 'filed'" in unknown.json()["detail"]
    assert state.json()["state"] == "shadow"


def test_clash_that_comes_later_is_told_and_the_file_runs(site: Site, service: Served) -> None:
    """A rule that people kept before the file got one of its name."""
    service.ask("PUT", "/v1/rules/own", json=RULE)
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text())
    values["rules"] = [FILED, FILED | {"name": "own", "when": "amount < 0"}]
    file.write_text(yaml.safe_dump(values))
    config = load_config(site.folder)

    with served(config, open_store(config.service.store)) as other:
        found = [each for each in other.ask("GET", "/v1/rules").json()["rules"] if each["name"] == "own"]

    assert [(each["origin"], each["when"]) for each in found] == [("file", "amount < 0"), ("console", "amount > 45")]
    assert "the file's is the one that runs" in found[1]["problem"]


def test_write_that_comes_again_is_done_once(service: Served) -> None:
    """Under an idempotency key."""
    given = {"headers": {"Idempotency-Key": "k1"}, "json": RULE}

    first, second = service.ask("PUT", "/v1/rules/a", **given), service.ask("PUT", "/v1/rules/a", **given)

    assert first.json() == second.json()
    assert len(changes_of(service)) == 1


# The console ----------------------------------------------------------------------------------------------------------


def test_pages_need_a_session(service: Served) -> None:
    """Like all others."""
    nobody = Browser(service)

    for path in ("/rules", "/rules/new", "/rules/history", "/rules/edit?rule=filed"):
        assert nobody.ask("GET", path).headers["location"].startswith("/console/sign-in"), path
    for path in ("/rules", "/rules/try", "/rules/state", "/rules/remove"):
        assert (
            nobody.ask("POST", path, data={"name": "a", "when": "amount > 1"}).headers["location"] == "/console/sign-in"
        )
    assert changes_of(service) == []


def test_rule_is_tried_and_saved(site: Site, service: Served, admin: Browser) -> None:
    """The editor keeps what was written; the list shows the rule, its state and what it came to."""
    site.add(80)
    admin.ask("GET", "/rules/new")
    data = {"name": "large", "when": "amount > 45", "action": "alert", "severity": "high", "days": "3000"}

    tried = admin.ask("POST", "/rules/try", data=data)
    nothing = changes_of(service)
    saved = admin.ask("POST", "/rules", data=data | {"state": "live", "why": "a try"})
    score(site)
    listed = admin.ask("GET", "/rules").text
    edited = admin.ask("GET", "/rules/edit?rule=large").text
    admin.ask("POST", "/rules/state", data={"rule": "filed", "state": "shadow", "why": "loud"})
    history = admin.ask("GET", "/rules/history").text

    assert tried.status_code == 200
    assert "What it would have done" in tried.text
    assert 'value="large"' in tried.text
    assert nothing == []
    assert (saved.status_code, saved.headers["location"]) == (303, "/console/rules")
    assert "amount &gt; 45" in listed
    assert re.search(r'<span class="state live">live</span>', listed)
    assert "amount &gt; 45</textarea>" in edited
    assert changes_of(service) == [("ann", "created", "large"), ("ann", "state", "filed")]
    assert "loud" in history


def test_editor_names_columns_and_lists(admin: Browser) -> None:
    """What a script completes stands in the page, and no script does."""
    page = admin.ask("GET", "/rules/new").text

    assert {"amount", "fee", "risk", "p_value", "watched", "hour"} <= set(re.findall(r'data-name="([^"]*)"', page))
    assert "<script>" not in page
    assert " on" + "click" not in page


@pytest.mark.parametrize("path", ["/rules", "/rules/state", "/rules/remove"])
def test_who_reviews_changes_nothing(service: Served, path: str) -> None:
    """They may try, and see no form to save."""
    analyst = Browser(service)
    analyst.sign_in("review")
    page = analyst.ask("GET", "/rules/new").text

    found = analyst.ask("POST", path, data={"name": "a", "rule": "filed", "when": "amount > 1", "state": "off"})

    assert found.status_code == 403
    assert "<button>Save</button>" not in page
    assert changes_of(service) == []


def test_forms_of_other_sites_are_refused(service: Served, admin: Browser) -> None:
    """Without the token of the session nothing is changed or tried."""
    for path in ("/rules", "/rules/try", "/rules/state", "/rules/remove"):
        admin.token = "guessed"
        found = admin.ask("POST", path, data={"name": "a", "rule": "filed", "when": "amount > 1", "state": "off"})
        assert found.status_code == 403, path
    assert changes_of(service) == []


@pytest.mark.parametrize("field", ["name", "when", "reason", "tag", "by", "severity", "action", "state", "days", "why"])
def test_texts_are_no_commands(service: Served, admin: Browser, field: str) -> None:
    """Whatever field a script, a template or a query is written into, it is shown as it is or refused."""
    good = {"name": "a", "when": "amount > 1", "action": "alert", "severity": "high", "days": "30", "state": "shadow"}
    for path in ("/rules/try", "/rules"):
        found = admin.ask("POST", path, data=good | {field: EVIL})
        assert found.status_code < 500
        assert "<script>alert" not in found.text
        assert "<img src=x" not in found.text
        assert "62615533" not in found.text
    for path in (
        "/rules",
        "/rules/history",
        "/rules/edit?rule=a",
        f"/rules/edit?rule={EVIL}",
        f"/rules/history?rule={EVIL}",
    ):
        text = admin.ask("GET", path).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        assert "62615533" not in text, path


def test_precision_counts_the_last_answers(site: Site, service: Served, admin: Browser) -> None:
    """Of alerts that a rule is among the reasons of."""
    site.add(30)
    score(site)
    with service.store.write() as session:
        (alert,) = session.scalars(sa.select(Alert).where(Alert.kind == "opened"))
        for verdict in ("fraud", "fine", "fraud"):
            said = {"alert": alert.id, "verdict": verdict, "who": "ann", "reason": "", "via": "cli"}
            session.add(Answer(**said, at=datetime.now(UTC), model_version=""))
        pattern = alert.pattern

    line = service.ask("GET", "/v1/rules").json()["rules"][0]
    page = admin.ask("GET", "/rules").text

    assert pattern == "rule filed"
    assert (line["alerts"], line["answered"], line["fraud"], line["precision"]) == (1, 1, 1, 1.0)
    assert "1 of 1 (100 %)" in page


def test_kept_rules_are_masked_by_nothing_they_say(service: Served, admin: Browser) -> None:
    """A kept rule is what was saved, without what its action does not use."""
    data = {"name": "calm", "when": "amount > 45", "action": "never", "severity": "high", "tag": "x", "by": "3"}

    admin.ask("POST", "/rules", data=data)

    with service.store.read() as session:
        (kept,) = session.scalars(sa.select(StoredRule))
    assert (kept.definition["action"], kept.definition["severity"], kept.definition["tag"]) == ("never", "medium", "")
    assert kept.state == "shadow"
