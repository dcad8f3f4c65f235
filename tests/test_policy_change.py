"""A policy that was looked at in what-if is kept: in the file, or in a copy of it, with who and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from benchmarks.soak import Site
from detector.errors import SettingError
from pipelines.api.problems import ProblemError
from pipelines.config import load_config
from pipelines.config.policy_edit import with_policy
from pipelines.console.application import mount_web
from pipelines.service.http import HttpServer, application
from pipelines.store import Audit
from tests.service_sites import opened, score, wait_until
from tests.test_reload import running
from tests.web import Browser, Served

ABOVE = "# Ours.\nname: payments   # short\nsource: {path: rows.csv}\n\n"
BELOW = "\n# Where scores go.\noutput:\n  path: scores.parquet  # all\n"
ASKED = {"budget": {"rows": 7}, "reason": "too many\n# at weekends"}


@pytest.mark.parametrize(
    "policy",
    [
        "policy:\n  quantile: 0.99  # one in a hundred\n  budget: {rows: 20, per: day}\n",
        "policy: {quantile: 0.99, budget: {rows: 20, per: day}}  # few\n",
        "policy:\n- wrong\n",
        'policy:\n  "quantile":\n    0.99\n\n\n',
    ],
    ids=["block", "flow", "list", "odd"],
)
@pytest.mark.parametrize("below", [BELOW, "", "\n# The end.\n"], ids=["between", "last", "comment"])
def test_only_the_policy_of_a_file_is_changed(policy: str, below: str) -> None:
    """What stands above and below stays to the byte, comments too; the note stands above it, in one line."""
    text = with_policy(ABOVE + policy + below, {"fdr": 0.2}, "ann: few\nname: evil")

    assert text.startswith(f"{ABOVE}# ann: few name: evil\npolicy:\n  fdr: 0.2\n")
    assert text.endswith(below)
    rest = yaml.safe_load(ABOVE + below) or {}
    assert yaml.safe_load(text) == rest | {"policy": {"fdr": 0.2}}


def test_a_file_without_a_policy_gets_one_and_one_line_is_refused() -> None:
    """At its end, below a line of its own; what is written in braces is for a person."""
    assert with_policy(ABOVE, {"fdr": 0.2}, "ann") == f"{ABOVE.rstrip()}\n\n# ann\npolicy:\n  fdr: 0.2\n"
    with pytest.raises(SettingError, match="Change `policy` by hand"):
        with_policy("{name: a, policy: {fdr: 0.1}}", {"fdr": 0.2}, "ann")


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    return Site(tmp_path / "site", tiny_bundle, "files to files", policy={"quantile": 0.99})


@contextmanager
def desk_of(site: Site) -> Iterator[Served]:
    """A service with its pages, and somebody to ask it."""
    with opened(site) as store, running(site, store) as service:
        app = application(service.facts, service.metrics)
        mount_web(app, service.config, store, service.facts)
        server = HttpServer(app, host="127.0.0.1", port=0)
        server.start()
        try:
            wait_until(lambda: service.leadership.is_leader)
            yield Served(server.address, store, service.config, service.cache)
        finally:
            server.stop()


@pytest.mark.slow
def test_an_admin_changes_the_policy_or_proposes_one(site: Site) -> None:
    """A copy changes nothing; the file is taken over; both stand in the audit trail with what was and what is."""
    file = site.folder / "detector.yaml"
    before = file.read_text()
    with desk_of(site) as desk:
        proposed = desk.ask("POST", "/v1/policy", json=ASKED | {"as_copy": True})
        untouched = file.read_text()
        changed = desk.ask("POST", "/v1/policy", json=ASKED)
        again = desk.ask("POST", "/v1/policy", json=ASKED)
        with desk.store.read() as session:
            trail = {each.action: each for each in session.scalars(sa.select(Audit))}

    assert untouched == before
    assert proposed.json()["file"] == "detector.proposed.yaml"
    assert load_config(site.folder / "detector.proposed.yaml").policy.budget.rows == 7
    assert "policy.budget" in changed.json()["note"]
    policy = load_config(file).policy
    assert (policy.quantile, policy.budget.rows) == (0.99, 7)
    assert ": too many # at weekends\npolicy:\n" in file.read_text()
    assert (again.status_code, again.json()["detail"][:33]) == (409, "detector.yaml has changed since i")
    assert trail["propose policy"].arguments["file"] == "detector.proposed.yaml"
    assert trail["change policy"].arguments["before"] == {"quantile": 0.99}
    assert trail["change policy"].arguments["after"]["budget"]["rows"] == 7


@pytest.mark.slow
def test_what_cannot_be_kept_leaves_the_file_as_it_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the scope or a reason, no policy at all, one that the service refuses, or a disk that is full."""
    file = site.folder / "detector.yaml"
    before = file.read_text()

    def refuse(*_: object, **__: object) -> None:
        raise ProblemError(409, "The file is not taken over.")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with desk_of(site) as desk:
        denied = desk.ask("POST", "/v1/policy", scope="review", json=ASKED)
        silent = desk.ask("POST", "/v1/policy", json=ASKED | {"reason": " "})
        nonsense = desk.ask("POST", "/v1/policy", json={"quantile": 2, "reason": "why not"})
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.api.policy.reloaded", refuse)
            refused = desk.ask("POST", "/v1/policy", json=ASKED)
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.api.policy.write_whole", full)
            unwritten = desk.ask("POST", "/v1/policy", json=ASKED)
        file.unlink()
        gone = desk.ask("POST", "/v1/policy", json=ASKED)
        file.write_text(before)
        analyst, boss = Browser(desk), Browser(desk)
        analyst.sign_in("review")
        boss.sign_in("admin")
        form = {"quantile": "0.5", "reason": "look", "as": "file"}
        other = analyst.ask("POST", "/what-if", data=form)
        same = boss.ask("POST", "/what-if", data={"reason": "look", "as": "file"})

    assert file.read_text() == before
    answers = (denied, silent, nonsense, refused, unwritten, gone, other, same)
    assert [each.status_code for each in answers] == [403, 422, 422, 409, 409, 409, 403, 422]
    assert "No space left" in unwritten.json()["detail"]
    assert "policy of today" in same.text


@pytest.mark.slow
def test_the_page_keeps_what_it_shows(site: Site) -> None:
    """Both sections stand beside each other, and the button writes the second one."""
    site.add(200)
    score(site)
    with desk_of(site) as desk:
        boss = Browser(desk)
        boss.sign_in("admin")
        page = boss.ask("GET", "/what-if?quantile=0.5&days=3000").text
        done = boss.ask("POST", "/what-if", data={"quantile": "0.5", "reason": "look", "as": "file"})

    assert "quantile: 0.99" in page
    assert "quantile: 0.5" in page
    assert "Change detector.yaml" in page
    assert "policy.quantile: 0.99 → 0.5" in done.text
    assert load_config(site.folder / "detector.yaml").policy.quantile == 0.5
