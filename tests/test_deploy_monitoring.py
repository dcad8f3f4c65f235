"""The dashboard and the alert rules in ``deploy/``, against the metrics of a service that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.soak import Site
from detector.metrics.drift import Shift
from pipelines.jobs.subprocess import outcome_of
from pipelines.monitoring.drift import DriftReport
from pipelines.service.http import HttpServer, application
from pipelines.service.instance import Service
from tests.alert_places import free_port
from tests.service_sites import context, opened, put

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "detector.rules.yml"
METRIC = re.compile(r"\b(?:detector|process)_[a-z_]+\b")
LABELS = re.compile(r"(?:\bby\s*\(([^)]*)\)|\bon\s*\(([^)]*)\))")
OF_THE_TARGET = {"job", "instance"}
SHIFT: dict[str, Any] = {"psi": 0.1, "psi_limit": 0.2, "effect": 0.1, "effect_limit": 0.2}


def binary(name: str) -> str:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"NO {name.upper()}, SO THE ALERT RULES ARE NOT TRIED IN PROMETHEUS ITSELF: make prometheus")
    return found


def expressions() -> dict[str, str]:
    """Every expression of the rules and of the dashboard, by what it is for."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    found = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "detector.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for each in board["annotations"]["list"]:
        found[each["name"]] = each["expr"]
    return found


@pytest.fixture
def server(tiny_bundle: Path, tmp_path: Path) -> Iterator[HttpServer]:
    """A service that has scored, set rows aside, sent, tidied up and looked for drift."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files", settings={"lease": 60.0})
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text()) | {"alerts": {"log": {}}}
    file.write_text(yaml.safe_dump(values))
    rows = put(site, "a.csv", 0, 50).astype(object)
    rows.loc[3, "amount"] = "much"
    rows.to_csv(site.input / "a.csv", index=False)
    with opened(site) as store:
        service = Service(context(site, store).config, store)
        assert service.leadership.lead()
        server = HttpServer(application(service.facts, service.metrics), host="127.0.0.1", port=0)
        server.start()
        try:
            for job in ("score", "deliver", "housekeeping"):
                service.run_and_follow(job, trigger="test")
            report = DriftReport(50, [Shift("amount", **SHIFT)], [], 1.0, retrain=False, note="none")
            service.metrics.on_end("drift", "done", 1.0, outcome_of(json.dumps(report.outcome())))
            yield server
        finally:
            server.stop()


def test_names_are_those_of_the_metrics_page(server: HttpServer) -> None:
    """Whatever a rule or a panel asks for is on /metrics of a running service, with the labels it is summed up by."""
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    names = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if line and not line.startswith("#")}
    labels = {"exported_job" if name == "job" else name for name in re.findall(r"[{,]([a-z_]+)=\"", page)}

    asked = {name for each in expressions().values() for name in METRIC.findall(each)}
    by = {
        name.strip()
        for each in expressions().values()
        for pair in LABELS.findall(each)
        for name in "".join(pair).split(",")
    }

    assert len(asked) > 20
    assert asked - names == set()
    assert by - labels - OF_THE_TARGET == set()


def test_rules_hold_what_promtool_asks_of_them() -> None:
    """They can be read, and fire on what they are for and on nothing else."""
    promtool = binary("promtool")
    for command in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "detector.rules.yml"],
        ["test", "rules", "detector.rules.test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tried_and_says_what_to_do() -> None:
    """No rule is without a test in which it fires, a severity, and a next step."""
    rules = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    tried = (RULES.parent / "detector.rules.test.yml").read_text(encoding="utf-8")

    assert [rule["alert"] for rule in rules if rule["alert"] not in tried] == []
    assert [rule["alert"] for rule in rules if set(rule["annotations"]) != {"summary", "todo"}] == []
    assert {rule["labels"]["severity"] for rule in rules} == {"warning", "critical"}


def ask(address: str, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        return json.load(answer)["data"]


@pytest.fixture
def prometheus(server: HttpServer, tmp_path: Path) -> Iterator[str]:
    """A real one that scrapes the service once a second, by the configuration in ``deploy``."""
    program, port = binary("prometheus"), free_port()
    settings = yaml.safe_load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(RULES)]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [server.address.removeprefix("http://")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                if ask(address, "query", query="count_over_time(up[1m]) >= 4")["result"]:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.slow
def test_real_prometheus_answers_every_panel(prometheus: str) -> None:
    """It scrapes the service, every panel has something to show, and no rule fails or fires."""
    empty = []
    for name, text in expressions().items():
        asked = text.replace("$job", "detector").replace("$__rate_interval", "1m")
        if name not in _rules(prometheus) and not ask(prometheus, "query", query=asked)["result"]:
            empty.append(name)

    assert empty == ["A new detector serves"]
    rules = _rules(prometheus)
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    assert {name for name, rule in rules.items() if rule["state"] == "firing"} <= {"DetectorModelOld"}


def _rules(address: str) -> dict[str, Any]:
    return {rule["name"]: rule for group in ask(address, "rules")["groups"] for rule in group["rules"]}
