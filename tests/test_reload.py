"""A configuration that changes under a running service: taken over between batches, or refused as a whole."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from benchmarks.soak import Site
from detector.errors import SettingError
from pipelines.alerts.review.queue import EVENTS
from pipelines.cli import app
from pipelines.config import TEXT_VARIABLE, Config, load_config
from pipelines.console.application import mount_web
from pipelines.jobs.context import ProcessCache
from pipelines.scoring.batch_transaction import Scoring
from pipelines.service.configuration_file import AGAIN_SECONDS, ConfigurationFile, FoundConfiguration, check_serves
from pipelines.service.http import HttpServer, application
from pipelines.service.instance import Service
from pipelines.store import Audit, Run, Store
from pipelines.store.alert_tables import Alert
from tests.alert_places import config_in, store_in
from tests.service_sites import NOTHING_WRONG, Instance, context, opened, wait_until
from tests.web import Browser, Served, served

QUIET = {name: {"enabled": False} for name in ("retrain", "drift", "deliver", "housekeeping")}


def edit(site: Site, **sections: Any) -> None:
    """Write sections of the configuration anew; a mapping is merged into the section that is there."""
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text())
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    file.write_text(yaml.safe_dump(values))


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """What it says."""
        return self.now


class Watched:
    """The file of a site, looked at by hand."""

    def __init__(self, site: Site, check: Callable[[Config, Config], None] = lambda *_: None) -> None:
        self.site, self.clock, self.serving = site, Clock(), load_config(site.folder)
        self.file = ConfigurationFile(site.folder / "detector.yaml", check=check, clock=self.clock)
        self.look(after=5)

    def look(self, *, after: float) -> FoundConfiguration | None:
        """What is found when nothing was written for so long."""
        at_once = self.file.look(self.serving)
        self.clock.now += after
        return at_once or self.file.look(self.serving)


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    jobs = QUIET | {"score": {"when": "every 1s"}}
    return Site(tmp_path / "site", tiny_bundle, "files to files", settings={"jobs": jobs, "lease": 30.0, "log": "json"})


def test_file_is_read_once_it_is_settled(site: Site) -> None:
    """What is still being written is not read; what was read is not read again."""
    watched = Watched(site)
    edit(site, policy={"quantile": 0.9})

    assert watched.look(after=0.4) is None
    found = watched.look(after=0.7)

    assert found is not None
    assert found.changed == ("policy.quantile: 0.99 → 0.9",)
    assert watched.look(after=100) is None


def test_comments_change_nothing(site: Site) -> None:
    """A file that says the same in other words is not taken over, and not refused."""
    watched = Watched(site)
    file = site.folder / "detector.yaml"
    file.write_text("# a note\n" + file.read_text())

    found = watched.look(after=5)

    assert found is not None
    assert (found.changed, found.refused) == ((), "")


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"policy": {"quantil": 0.9}}, r"policy.quantil: is not a key"),
        ({"service": {"store": "sqlite:///other.db"}}, r"service\.store cannot change while the service runs"),
        ({"service": {"port": 9}, "policy": {"quantile": 0.9}}, r"service\.port.*no other change counts"),
        ({"name": "other"}, r"name cannot change while"),
        ({"output": {"path": "elsewhere.parquet"}}, r"output\.path cannot change"),
        ({"bundle": "elsewhere"}, r"bundle cannot change"),
    ],
)
def test_what_cannot_be_taken_over_is_said(site: Site, sections: dict[str, Any], why: str) -> None:
    """An unknown key, and what lies too deep to change while it runs, are refused by their names."""
    watched = Watched(site)
    edit(site, **sections)

    found = watched.look(after=5)

    assert found is not None
    assert found.config is None
    with pytest.raises(SettingError, match=why):
        raise SettingError(found.refused)


@pytest.mark.parametrize("text", ["", "source: [", "\x00", "- a\n"])
def test_half_a_file_is_refused(site: Site, text: str) -> None:
    """A file that is empty, cut off or no mapping takes nothing down."""
    watched = Watched(site)
    (site.folder / "detector.yaml").write_text(text)

    found = watched.look(after=5)

    assert found is not None
    assert found.refused


def test_file_that_is_gone_is_refused_and_comes_back(site: Site) -> None:
    """Who replaces it by moving files has a moment; after that it is missed; once it is back all is well."""
    watched = Watched(site)
    file = site.folder / "detector.yaml"
    text = file.read_text()
    file.unlink()

    found = watched.look(after=5)
    file.write_text(text)
    back = watched.look(after=5)

    assert found is not None
    assert "There is no configuration" in found.refused
    assert back is not None
    assert (back.refused, back.changed) == ("", ())


def test_refused_file_is_tried_again(site: Site) -> None:
    """It may fit a detector that is trained meanwhile."""
    answers: list[str] = ["the detector has learnt otherwise"]

    def check(*_: Config) -> None:
        if answers:
            raise SettingError(answers.pop())

    watched = Watched(site, check)
    edit(site, policy={"quantile": 0.9})

    first, second = watched.look(after=5), watched.look(after=AGAIN_SECONDS + 1)

    assert first is not None
    assert "learnt otherwise" in first.refused
    assert second is not None
    assert second.config is not None


def test_rule_that_does_not_fit_is_refused(site: Site) -> None:
    """A rule that is new or changed is checked against the detector; one that is off, or was there before, is not."""
    bad = {"name": "bad", "when": "amuont > 1", "state": "live"}
    good = {"name": "good", "when": "amount > 1", "state": "live"}
    cache = ProcessCache()
    watched = Watched(site, lambda serving, config: check_serves(serving, config, cache))

    def look(*rules: dict[str, Any]) -> FoundConfiguration:
        edit(site, rules=list(rules))
        found = watched.look(after=5)
        assert found is not None
        return found

    assert "The rule bad cannot be used: There is no column 'amuont' for rules. Did you mean" in look(good, bad).refused
    assert "The rule bad cannot be used" in look(bad | {"when": "amount >"}).refused
    assert look(good, bad | {"state": "off"}).refused == ""
    edit(site, rules=[bad])
    watched.serving = load_config(site.folder)  # it was there at the start
    assert look(bad, good).refused == ""


def test_signal_has_it_read_though_nothing_has_changed(site: Site) -> None:
    """SIGHUP is for a file whose change cannot be seen, such as one behind a variable."""
    watched = Watched(site)
    watched.file.read_again()

    assert watched.look(after=5) is not None
    assert watched.look(after=5) is None


@contextmanager
def running(site: Site, store: Store) -> Iterator[Service]:
    """A service in a thread of this process."""
    service = Service(context(site, store).config, store)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield service
    finally:
        service.end()
        thread.join(30)


def records(store: Store, job: str) -> list[Run]:
    with store.read() as session:
        found = list(session.scalars(sa.select(Run).where(Run.job == job).order_by(Run.id)))
        session.expunge_all()
    return found


@pytest.mark.slow
def test_taken_over_between_batches(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch in hand is finished by the old policy, the others have the new one, and no row is lost or doubled."""
    run, begun, goes_on = Scoring.run, threading.Event(), threading.Event()

    def held(self: Scoring, *args: Any, **given: Any) -> Any:
        begun.set()
        goes_on.wait(30)
        return run(self, *args, **given)

    monkeypatch.setattr(Scoring, "run", held)
    edit(site, service={"batch_rows": 50})
    for _ in range(4):
        site.add(50)
    with opened(site) as store, running(site, store) as service:
        assert begun.wait(20)
        edit(site, policy={"quantile": 0.2}, service={"keep_runs": 30})
        wait_until(lambda: service._pending is not None)
        time.sleep(1.5)
        assert service.config.policy.quantile == 0.99, "the batch in hand goes on as it began"
        goes_on.set()
        wait_until(lambda: len(site.scored()) == 200)
        wait_until(lambda: records(store, "configuration"))
        runs, told = records(store, "score"), records(store, "configuration")
        assert service.config.service.keep_runs == 30
        assert service.facts.config is service.config
        with store.read() as session:
            trail = session.scalars(sa.select(Audit)).one()

    assert site.count() == NOTHING_WRONG
    first, second = [each for each in runs if each.rows][:2]
    assert (first.rows, first.facts["flagged"] < 10) == (50, True)
    assert (second.rows, second.facts["flagged"] > 60, second.trigger) == (150, True, "configuration")
    assert told[0].note == "took over policy.quantile: 0.99 → 0.2; service.keep_runs: 90 → 30"
    assert (trail.action, trail.arguments["changed"][0]) == ("reload", "policy.quantile: 0.99 → 0.2")


@pytest.mark.slow
def test_refused_change_is_told_until_it_is_mended(site: Site) -> None:
    """The old one goes on scoring; the runs, health, an alert and `detector status` say why, and when it is over."""
    edit(site, alerts={"log": {}})
    runner = CliRunner()
    with opened(site) as store, running(site, store) as service:
        wait_until(lambda: service.leadership.is_leader)
        good = (site.folder / "detector.yaml").read_text()
        (site.folder / "detector.yaml").write_text(good + "nonsense: 1\n")
        wait_until(lambda: records(store, "configuration"))
        site.add(50)
        wait_until(lambda: len(site.scored()) == 50)
        status = runner.invoke(app, ["status", str(site.folder)])
        as_json = json.loads(runner.invoke(app, ["status", str(site.folder), "--json"]).stdout)
        refused, ready = service.facts.refused, service.facts.readiness()
        gauges = {name: value for name, _, value in service.facts.gauges()}
        (site.folder / "detector.yaml").write_text(good)
        wait_until(lambda: len(records(store, "configuration")) == 2)
        with store.read() as session:
            alerts = list(session.scalars(sa.select(Alert).where(Alert.kind.not_in(EVENTS)).order_by(Alert.created_at)))
            kinds, text = [each.kind for each in alerts], alerts[0].facts["service"]["text"]
        after = runner.invoke(app, ["status", str(site.folder)])
        outcomes = [each.outcome for each in records(store, "configuration")]

    assert status.exit_code == 1
    assert "nonsense: is not a key" in " ".join(status.stdout.split())
    assert [each["state"] for each in as_json["matters"] if each["what"] == "configuration"] == ["failed"]
    assert "nonsense: is not a key" in refused
    assert ready[0], "it serves on"
    assert "nonsense" not in json.dumps(ready[1]), "strangers are not told why"
    assert gauges["configuration_ok"] == 0.0
    assert kinds == ["service", "recovered"]
    assert "is not taken over; the one before goes on" in text
    assert outcomes == ["failed", "done"]
    assert "configuration" in after.stdout
    assert "failed" not in after.stdout


def test_unreadable_configuration_without_a_service_is_an_error(site: Site) -> None:
    """Where nothing runs, `detector status` says what is wrong with the file, as every command does."""
    (site.folder / "detector.yaml").write_text("nonsense: 1\n")

    done = CliRunner().invoke(app, ["status", str(site.folder)])

    assert done.exit_code == 2
    assert "nonsense" in done.stderr


def test_commands_of_a_service_have_its_configuration(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is a process of its own reads the text that the service holds, not what the file says by now."""
    held = site.folder / "held.yaml"
    held.write_text((site.folder / "detector.yaml").read_text())
    (site.folder / "detector.yaml").write_text("source: [")
    monkeypatch.setenv(TEXT_VARIABLE, str(held))

    config = load_config(site.folder)

    assert config.name == "soak"
    assert config.file == site.folder / "detector.yaml"
    assert config.text == held.read_text()


@pytest.mark.slow
def test_process_takes_it_over_on_its_pages(site: Site) -> None:
    """In a process of its own: other jobs, the API gone, and SIGHUP does not end it."""
    instance = Instance(site)
    try:
        wait_until(lambda: instance.said("this instance leads now"))
        assert instance.get("/v1/health")[0] == 401
        os.kill(instance.process.pid, signal.SIGHUP)
        edit(site, service={"api": {"enabled": False}, "jobs": QUIET | {"score": {"when": "every 2s"}}})
        wait_until(lambda: instance.said("the changed configuration serves now"))
        wait_until(lambda: instance.get("/v1/health")[0] == 404)
        site.add(50)
        wait_until(lambda: len(site.scored()) == 50)
        assert instance.get("/healthz")[0] == 200
        assert instance.end() == 0
    finally:
        instance.end(signal.SIGKILL)
    assert site.count() == NOTHING_WRONG


@pytest.mark.slow
def test_admin_has_it_read_and_is_told_why_not(site: Site) -> None:
    """By `/v1` and by the button: what was taken over, why not, and who asked stands in the audit trail."""
    with opened(site) as store, running(site, store) as service:
        app = application(service.facts, service.metrics)
        mount_web(app, service.config, store, service.facts)
        server = HttpServer(app, host="127.0.0.1", port=0)
        server.start()
        try:
            wait_until(lambda: service.leadership.is_leader)
            desk = Served(server.address, store, service.config, service.cache)
            path, why = "/v1/configuration/reload", {"reason": "month end"}
            same = desk.ask("POST", path, json=why)
            denied = desk.ask("POST", path, scope="review", json=why)
            edit(site, policy={"quantile": 0.2})
            taken = desk.ask("POST", path, json=why)
            good = (site.folder / "detector.yaml").read_text()
            (site.folder / "detector.yaml").write_text(good + "nonsense: 1\n")
            refused = desk.ask("POST", path, json=why)
            boss = Browser(desk)
            boss.sign_in("admin")
            shown = boss.ask("POST", "/configuration", data={"reason": "again"})
            analyst = Browser(desk)
            analyst.sign_in("review")
            other = analyst.ask("POST", "/configuration", data={"reason": "again"})
        finally:
            server.stop()
        with store.read() as session:
            trail = session.scalars(sa.select(Audit).where(Audit.action == "ask to reload").order_by(Audit.id)).all()
            told = [(each.actor, each.reason, each.arguments["outcome"]) for each in trail]
            reasons = [each.arguments["refused"] for each in trail]

    assert same.json() == {"changed": [], "note": "The file says what serves already."}
    assert denied.status_code == 403
    assert taken.json()["changed"] == ["policy.quantile: 0.99 → 0.2"]
    assert refused.status_code == 409
    assert "nonsense: is not a key" in refused.json()["detail"]
    assert shown.status_code == 409
    assert "nonsense: is not a key" in shown.text
    assert other.status_code == 403
    assert told[:3] == [("ann", "month end", outcome) for outcome in ("taken over", "taken over", "refused")]
    assert told[3:] == [("ann", "again", "refused")]
    assert "nonsense" in reasons[2]


def test_service_without_a_file_says_so(tmp_path: Path) -> None:
    """A configuration that a program made cannot be read again."""
    with served(config_in(tmp_path), store_in(tmp_path)) as desk:
        found = desk.ask("POST", "/v1/configuration/reload", json={})

    assert found.status_code == 422
    assert "no file to read again" in found.json()["detail"]
