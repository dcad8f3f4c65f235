"""What an operator looks at: why rows were set aside, what drifts, room on the disk, and what promises came to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.soak import Site
from pipelines.alerts.feedback.answers import answer
from pipelines.alerts.grouping.audit_sample import SAMPLED
from pipelines.config import load_config
from pipelines.jobs.context import ProcessCache
from pipelines.registry.registry import ModelRegistry
from pipelines.scoring.promises import promises_kept
from pipelines.store import Run
from pipelines.store.alert_tables import Alert
from pipelines.training.pages import page_of
from tests.alert_places import run
from tests.service_sites import opened, score
from tests.web import Browser, served


def test_health_says_why_rows_were_set_aside_and_what_drifts(tiny_bundle: Path, tmp_path: Path) -> None:
    """Reasons without values, the last comparison that was one, and the disk; the page and the API alike."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    site.add(60)
    (file,) = site.input.glob("*")
    frame = pd.read_csv(file).astype({"amount": "object"})
    frame.loc[[3, 7], "amount"] = ["4111-secret", "much"]
    frame.to_csv(file, index=False)
    score(site)
    columns = [{"column": "fee", "state": "drift", "index": 0.61, "limit": 0.2}]
    with opened(site) as store:
        begun = {"job": "drift", "trigger": "schedule", "instance": "one", "started_at": datetime.now(UTC)}
        with store.write() as session:
            session.add(Run(**begun, outcome="done", note="fee drifts", facts={"columns": columns}))
            session.add(Run(**begun, outcome="skipped", note="too few rows"))
        with served(load_config(site.folder), store) as desk:
            found = desk.ask("GET", "/v1/health", scope="view").json()
            viewer = Browser(desk)
            viewer.sign_in("view")
            page = viewer.ask("GET", "/health").text

    assert found["set_aside"] == [{"reason": "amount: … is not a number", "rows": 2}]
    assert (found["drift"]["note"], found["drift"]["columns"]) == ("fee drifts", columns)
    assert found["disk"][0]["free_gb"] > 0
    for text in ("amount: … is not a number", "fee drifts", "0.61", "GB free"):
        assert text in page
    assert "secret" not in page


@pytest.fixture
def audited(tiny_bundle: Path, tmp_path: Path) -> Site:
    """A service that has rows drawn at random, and has scored some and told of them."""
    policy = {"quantile": 0.9, "budget": {"rows": 20, "per": "batch"}, "explore": 0.5}
    site = Site(tmp_path / "site", tiny_bundle, "files to files", policy=policy)
    site.add(200)
    score(site)
    return site


def test_quality_sets_promises_beside_what_came_of_them(audited: Site) -> None:
    """Flagged rows, false alarms by verdicts, and what is missed by those that were drawn and answered."""
    config, now = load_config(audited.folder), datetime.now(UTC)
    frame = pd.read_parquet(audited.folder / "scores")
    with opened(audited) as store:
        before = promises_kept(config, store, ProcessCache(), now=now)
        run(store, config, now=now + timedelta(minutes=1))
        with store.write() as session:
            for alert in session.query(Alert).filter(Alert.kind == "opened"):
                verdict = "fraud" if alert.pattern == SAMPLED else "fine"
                answer(session, alert, verdict, reason="", who="ann", via="test", config=config, now=now)
        after = promises_kept(config, store, ProcessCache(), now=now)

    assert before[0].startswith("Promised: 10.00 % of normal rows are flagged at most. Of the 200 rows of 30 days")
    assert before[-1].startswith("What is missed is not known: none of")
    assert "100 % were false" in after[1]
    drawn = int(frame["explored"].sum())
    assert after[2].startswith("About ")
    assert f"{drawn} of {drawn} rows that were drawn at random and answered were fraud." in after[2]


def test_quality_says_how_misses_could_be_known(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where nothing is drawn at random, nobody knows; the setting is named."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    with opened(site) as store:
        (said,) = promises_kept(load_config(site.folder), store, ProcessCache(), now=datetime.now(UTC))

    assert "`policy.explore`" in said


def test_an_admin_gets_the_report_of_a_detector(tiny_bundle: Path, tmp_path: Path) -> None:
    """As a file, which no page of the console can run; nobody else, for it shows rows; no other file by its name."""
    site = Site(tmp_path / "site", tiny_bundle, "files to files")
    config = load_config(site.folder)
    name = ModelRegistry(config.bundle).served()
    place = page_of(config, str(name))
    place.parent.mkdir(parents=True)
    place.write_text("<script>report</script>")
    (place.parent.parent / "secret.html").write_text("no")
    with opened(site) as store, served(config, store) as desk:
        viewer, boss = Browser(desk), Browser(desk)
        viewer.sign_in("view")
        boss.sign_in("admin")
        link = f"/models/{name}/report"
        shown = [browser.ask("GET", "/models").text for browser in (viewer, boss)]
        denied, found = (browser.ask("GET", link) for browser in (viewer, boss))
        others = [boss.ask("GET", f"/models/{other}/report").status_code for other in ("..%2Fsecret", "nothing")]

    assert [link in text for text in shown] == [False, True]
    assert denied.status_code == 403
    assert found.text == "<script>report</script>"
    assert found.headers["content-disposition"].startswith("attachment")
    assert others == [404, 404]
