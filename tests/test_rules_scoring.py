"""Rules in scoring: by batch, by file and by the API; alerts, what is hidden, what is only counted, what fails."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from benchmarks.soak import Site, draw
from detector.errors import SettingError
from pipelines.cli import app
from pipelines.config import load_config
from pipelines.rules.stored import held_rules, history, put_rule, section_of, set_state
from pipelines.scoring.one_off import score as score_file
from pipelines.scoring.rule_trial import try_rule
from pipelines.store import Audit, Batch, open_store
from pipelines.store.alert_tables import Alert
from pipelines.store.rule_tables import RuleChange, RuleHits
from tests import payment_sites
from tests.payment_sites import LATER, PAYMENTS
from tests.service_sites import opened, score
from tests.web import Browser, events, served

home, trained = payment_sites.home, payment_sites.trained

NOW = datetime.now(UTC)
LOW = {"name": "low", "when": "amount < 36", "severity": "critical", "tag": "cheap", "reason": "cheap", "state": "live"}


@pytest.fixture
def site(tiny_bundle: Path, tmp_path: Path) -> Site:
    """Ten rows in a hundred are flagged by the policy."""
    place = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, place)
    return Site(tmp_path / "site", place, "files to files", policy={"quantile": 0.9})


def with_rules(site: Site, *rules: dict[str, Any], **sections: Any) -> None:
    """The project with these rules."""
    file = site.folder / "detector.yaml"
    values = yaml.safe_load(file.read_text()) | {"rules": list(rules)} | sections
    file.write_text(yaml.safe_dump(values), encoding="utf-8")


def scores_of(site: Site) -> pd.DataFrame:
    """All scores, by their keys."""
    found = pd.concat([pd.read_parquet(path) for path in sorted((site.folder / "scores").glob("*.parquet"))])
    return found.set_index(found["id"].astype(int)).sort_index()


def all_of(site: Site, kind: Any) -> list[Any]:
    """All lines of a table."""
    with opened(site) as store, store.read() as session:
        found = list(session.scalars(sa.select(kind)))
        session.expunge_all()
    return found


def plain(site: Site) -> pd.DataFrame:
    """What is scored without rules."""
    with_rules(site)
    report = score_file(load_config(site.folder), output=str(site.folder / "plain.parquet"), now=NOW)
    assert report.scored
    found = pd.read_parquet(site.folder / "plain.parquet")
    return found.set_index(found["id"].astype(int)).sort_index()


def test_without_rules_nothing_is_new(site: Site) -> None:
    """No column more, nothing written down."""
    site.add(100)

    score(site)

    assert {"rules_hit", "hidden_by", "rules_version"} & set(scores_of(site).columns) == set()
    assert all_of(site, RuleHits) == all_of(site, RuleChange) == []


def test_live_rules_flag_hide_and_raise(site: Site) -> None:
    """The scores say which rules hit and which hid; severities and reasons are the rules' beside the model's."""
    site.add(200)
    before = plain(site)
    rows = draw(200, first=0, seed=0).set_index("id")
    high = rows["amount"] > 45
    with_rules(
        site,
        LOW,
        {"name": "calm", "when": "amount > 45", "action": "never", "state": "live"},
        {"name": "up", "when": "fee > 1.1 and amount <= 45", "action": "score_up", "by": 100, "state": "live"},
    )

    score(site)

    found = scores_of(site)
    low, up = rows["amount"] < 36, (rows["fee"] > 1.1) & ~high
    hidden = high & (before["flagged"] | up)
    assert found["flagged"].tolist() == (((before["flagged"] | up) & ~high) | low).tolist()
    assert (found["hidden_by"] == "calm").tolist() == (high & before["flagged"]).tolist()
    assert hidden.sum() > 3 < low.sum() < 100
    assert (found.loc[low, "severity"] == "critical").all()
    assert found.loc[up, "risk"].to_numpy() == pytest.approx(before.loc[up, "risk"].to_numpy() + 100)
    assert (found.loc[up, "p_value"] <= before.loc[up, "p_value"]).all()
    assert found.loc[~up, "risk"].tolist() == before.loc[~up, "risk"].tolist()
    wanted = [
        ", ".join(name for name, hit in (("low", a), ("calm", b), ("up", c)) if hit)
        for a, b, c in zip(low, high, up, strict=True)
    ]
    assert found["rules_hit"].tolist() == wanted
    texts = found.loc[low, "reasons"]
    assert texts.str.startswith("rule low: cheap | ").all()
    assert texts.str.contains("% of the risk").all()
    assert found["rules_version"].nunique() == 1
    assert "rule_tags" not in found.columns


def test_alerts_say_what_rules_say(site: Site) -> None:
    """With the words of the rule first, its severity, and its tag for machines; what is hidden makes none."""
    site.add(60)
    with_rules(
        site,
        LOW,
        {"name": "hush", "when": "amount >= 36", "action": "never", "state": "live"},
        alerts={"file": {"path": "alerts.jsonl"}},
    )

    score(site)

    (alert,) = (each for each in all_of(site, Alert) if each.kind == "opened")
    assert (alert.pattern, alert.severity, alert.rows) == (
        "rule low",
        "critical",
        int((draw(60, first=0, seed=0)["amount"] < 36).sum()),
    )
    first, second = alert.facts["reasons"][:2]
    assert (first["feature"], first["words"], first["share"]) == ("rule low", "cheap", 0.0)
    assert second["share"] > 0
    assert (alert.facts["rules"], alert.facts["tags"]) == (["low"], ["cheap"])


def test_shadow_is_counted_and_told_to_nobody(site: Site) -> None:
    """Scores, flags and alerts are those without it; its hits of each day stand in the state."""
    site.add(100)
    before = plain(site)
    with_rules(site, LOW | {"state": "shadow"}, {"name": "gone", "when": "amount > 0", "state": "off"})

    score(site)

    found = scores_of(site)
    assert found["flagged"].tolist() == before["flagged"].tolist()
    assert found["reasons"].tolist() == before["reasons"].tolist()
    assert set(found["rules_hit"]) == {""}
    low = draw(100, first=0, seed=0).set_index("id")["amount"] < 36
    (line,) = all_of(site, RuleHits)
    assert (line.rule, line.state, line.hits) == ("low", "shadow", int(low.sum()))
    assert line.model == int((low & before["flagged"]).sum())
    assert line.flagged == int((low & ~before["flagged"]).sum())  # what it would add


def test_numbers_of_the_api_are_those_of_the_batch(site: Site) -> None:
    """Which rules hit, flags, severities and reasons; to the last bit."""
    site.add(60)
    with_rules(site, LOW, {"name": "calm", "when": "amount > 45", "action": "never", "state": "live"})
    score(site)
    wanted = scores_of(site)
    config = load_config(site.folder)

    with served(config, open_store(config.service.store)) as service:
        body = {"events": events(draw(60, first=0, seed=0)), "reasons": True}
        found = service.ask("POST", "/v1/score", json=body).json()["scores"]

    assert [each["flagged"] for each in found] == wanted["flagged"].tolist()
    assert [each["severity"] for each in found] == wanted["severity"].tolist()
    assert [", ".join(each["rules"]) for each in found] == wanted["rules_hit"].tolist()
    assert [", ".join(each["hidden_by"]) for each in found] == wanted["hidden_by"].tolist()
    assert all(each["reasons"][0]["feature"] == "rule low" for each in found if "low" in each["rules"])


def test_what_if_says_what_rules_add_and_hide(site: Site) -> None:
    """Beside today's policy as the batch had it; beside another as it would; once a rule is off, no more of it."""
    calm = {"name": "calm", "when": "amount > 45", "action": "never", "state": "live"}
    with_rules(site, LOW, calm, alerts={"amount": "amount", "file": {"path": "alerts.jsonl"}, "a_day": 1_000})
    site.add(200)
    score(site)
    found, config = scores_of(site), load_config(site.folder)
    low, never = (
        found["rules_hit"].str.split(", ").map(lambda names, rule=rule: rule in names) for rule in ("low", "calm")
    )
    with served(config, open_store(config.service.store)) as service:
        alert = service.ask("GET", "/v1/alerts").json()["alerts"][0]
        service.ask("POST", f"/v1/alerts/{alert['id']}/verdict", json={"verdict": "fraud"})
        said = service.ask("POST", "/v1/what-if", json={"quantile": 0.5, "days": 3_000}).json()
        browser = Browser(service)
        browser.sign_in("view")
        page = browser.ask("GET", "/what-if?quantile=0.5&days=3000").text
        with service.store.write() as session:
            set_state(session, "calm", "off", config=config, who="ann", reason="", now=NOW)
        less = service.ask("POST", "/v1/what-if", json={"quantile": 0.5, "days": 3_000}).json()

    for quantile, each in ((0.9, said["today"]), (0.5, said["then"])):
        policy = found["p_value"] <= 1 - quantile + 1e-12
        assert each["flagged"] == policy.sum()
        assert each["rules"]["flagged"] == ((policy | low) & ~never).sum()
        assert each["rules"]["added"] == (low & ~policy & ~never).sum()
        assert each["rules"]["hidden"] == ((policy | low) & never).sum() > 0
    assert said["today"]["rules"]["flagged"] == found["flagged"].sum()
    assert said["today"]["rules"]["hidden"] == (found["hidden_by"] != "").sum()
    assert said["today"]["rules"]["money_hidden"] == 0
    assert said["today"]["rules"]["money_added"] + said["today"]["money_caught"] == round(alert["amount"], 2)
    assert "With the rules that act today" in page
    assert "Money that only rules catch" in page
    assert less["then"]["rules"]["hidden"] == 0
    assert less["then"]["rules"]["flagged"] == ((found["p_value"] <= 0.5) | low).sum()


def test_rules_take_nothing_of_a_budget(tiny_bundle: Path, tmp_path: Path) -> None:
    """What rules flag comes beside it, and what is hidden leaves its room to others."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    site = Site(
        tmp_path / "site", tmp_path / "bundle", "files to files", policy={"budget": {"rows": 10, "per": "batch"}}
    )
    site.add(100)
    before = plain(site)
    riskiest = before.index[before["flagged"]]
    amounts = draw(100, first=0, seed=0).set_index("id")["amount"]
    ids = ", ".join(f"'{each}'" for each in riskiest[:4])
    added = amounts.index[(amounts > 39) & ~before["flagged"]][:5]
    more = ", ".join(f"'{each}'" for each in added)
    with_rules(
        site,
        {"name": "known", "when": f"id in ({ids})", "action": "never", "state": "live"},
        {"name": "more", "when": f"id in ({more})", "state": "live"},
    )

    score(site)

    found = scores_of(site)
    others = before.drop(riskiest[:4]).nlargest(10, "risk").index
    assert set(found.index[found["flagged"]]) == {*others, *added}
    (batch,) = all_of(site, Batch)
    assert batch.flagged == found["flagged"].sum()


@pytest.mark.parametrize("how", ["gone list", "unknown column"])
def test_rule_that_fails_is_switched_off_and_reported(site: Site, how: str) -> None:
    """Scoring goes on without it; who operates the service is told once, and it is on record."""
    (site.folder / "watched.txt").write_text("1\n", encoding="utf-8")
    lists = {"watched": {"path": "watched.txt"}}
    bad = {"name": "bad", "when": "id in watched" if how == "gone list" else "amuont > 1", "state": "live"}
    with_rules(site, bad, LOW, lists=lists, alerts={"file": {"path": "alerts.jsonl"}})
    if how == "gone list":
        (site.folder / "watched.txt").unlink()
    site.add(50)
    score(site)
    site.add(50)
    score(site)

    found = scores_of(site)
    low = (
        pd.concat([draw(50, first=0, seed=0), draw(50, first=50, seed=50)]).set_index("id")["amount"] < 36
    ).to_numpy()
    assert len(found) == 100
    assert ((found["rules_hit"] == "low").to_numpy() == low).all()
    told = [each for each in all_of(site, Alert) if each.kind == "service"]
    assert [each.facts["service"]["cause"] for each in told] == ["rule bad"]
    assert "switched off" in told[0].facts["service"]["text"]
    assert ("watched.txt" if how == "gone list" else "Did you mean 'amount'?") in told[0].facts["service"]["text"]
    change = [each for each in all_of(site, RuleChange) if each.what == "failed"]
    assert [(each.rule, each.who, each.after["state"]) for each in change] == [("bad", "service", "off")]
    assert [each.arguments["rule"] for each in all_of(site, Audit) if each.actor == "service"] == ["bad"]
    with opened(site) as store, store.read() as session:
        states = {rule.name: rule.section.state for rule in held_rules(load_config(site.folder), session)}
    assert states == {"bad": "off", "low": "live"}

    with_rules(site, bad | {"when": "amount < 0"}, LOW)  # mended in the file: what it says there holds again
    with opened(site) as store, store.read() as session:
        assert held_rules(load_config(site.folder), session)[0].section.state == "live"


def test_failing_rule_stops_no_request(site: Site) -> None:
    """It is switched off there as well."""
    with_rules(site, {"name": "bad", "when": "id in watched", "state": "live"}, lists={"watched": {"path": "no.txt"}})
    config = load_config(site.folder)

    with served(config, open_store(config.service.store)) as service:
        found = service.ask("POST", "/v1/score", json={"event": events(draw(1, first=0, seed=0))[0]})
        listed = service.ask("GET", "/v1/rules").json()["rules"]

    assert found.status_code == 200, found.text
    assert (listed[0]["state"], listed[0]["changed_by"]) == ("off", "service")


def test_file_says_which_rules_do_not_fit(site: Site) -> None:
    """A person who scores a file is told at once; nothing is written."""
    site.add(10)
    with_rules(site, {"name": "bad", "when": "amuont > 1", "state": "live"})

    with pytest.raises(
        SettingError, match="The rule 'bad': There is no column 'amuont' for rules. Did you mean 'amount'"
    ):
        score_file(load_config(site.folder), output=str(site.folder / "x.parquet"), now=NOW)

    assert not (site.folder / "x.parquet").exists()


def test_changes_are_on_record(site: Site) -> None:
    """Of the file when it is first applied, of people with who and why; the version is that of the scores."""
    with_rules(site, LOW)
    site.add(20)
    score(site)
    config = load_config(site.folder)
    with opened(site) as store, store.write() as session:
        rule = section_of({"name": "own", "when": "fee > 1", "state": "shadow"})
        put_rule(session, rule, config=config, who="ann", reason="a try", now=NOW)
        set_state(session, "own", "live", config=config, who="bob", reason="good", now=NOW)
        set_state(session, "low", "off", config=config, who="bob", reason="loud", now=NOW)
    site.add(20)
    score(site)
    with_rules(site)
    site.add(20)
    score(site)

    with opened(site) as store, store.read() as session:
        changes = [(each.who, each.what, each.rule, each.reason) for each in history(session, config=config)]
        versions = [each.version for each in history(session, config=config)]
    assert changes == [
        ("file", "file", "low", "no longer in the file"),
        ("bob", "state", "low", "loud"),
        ("bob", "state", "own", "good"),
        ("ann", "created", "own", "a try"),
        ("file", "file", "low", ""),
    ]
    assert scores_of(site)["rules_version"].unique().tolist() == [versions[4], versions[1], versions[0]]
    assert set(scores_of(site)["rules_hit"].iloc[20:]) == {"", "own"}


def test_replay_counts_once(site: Site) -> None:
    """What rules came to in a batch is replaced when it is scored again."""
    with_rules(site, LOW)
    site.add(50)
    score(site)
    first = [(each.batch, each.hits) for each in all_of(site, RuleHits)]
    runner = CliRunner()

    done = runner.invoke(app, ["replay", str(site.folder), "--batch", "1", "--reason", "again"])

    assert done.exit_code == 0, done.output
    assert [(each.batch, each.hits) for each in all_of(site, RuleHits)] == first
    assert len(first) == 1


# A trial --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def past(home: Path) -> Path:
    """A detector of payments with features, and as many payments more."""
    PAYMENTS.to_parquet(home / "past.parquet")
    return home


def test_trial_counts_what_scoring_would_do(past: Path) -> None:
    """Hits, frauds, false alarms, money and overlaps are those of the rows counted by hand."""
    config = load_config(past)

    found = try_rule(config, "amount > 200 or count_1d_by_card_id > 3", [], now=LATER)
    some = try_rule(config, "amount > 200", [], since=datetime(2026, 3, 20, tzinfo=UTC), now=LATER)

    large = PAYMENTS["amount"] > 200
    later = large & (PAYMENTS["time"] >= "2026-03-20")
    assert found.rows == len(PAYMENTS)
    assert found.hits >= large.sum() > 0
    assert (some.hits, some.rows) == (int(later.sum()), int((PAYMENTS["time"] >= "2026-03-20").sum()))
    assert some.frauds == int((later & (PAYMENTS["is_fraud"] == 1)).sum())
    assert some.false_alarms == int((later & (PAYMENTS["is_fraud"] == 0)).sum())
    assert sum(day["hits"] for day in some.days) == some.hits
    assert len(some.examples) == min(10, some.hits)
    assert some.overlaps[0].rule == "the model"
    assert some.flagged_then >= some.flagged_before
    assert some.flagged_then == some.flagged_before + some.hits - some.overlaps[0].both


def test_trial_of_a_rule_that_hides(past: Path) -> None:
    """It says what would be gone, and how much of that was fraud."""
    config = load_config(past)
    rule = section_of({"name": "quiet", "when": "amount > 0", "action": "never"})

    found = try_rule(config, rule, [], now=LATER)

    assert found.hidden == found.flagged_before > 0
    assert found.flagged_then == 0
    assert "would hide" in " ".join(found.sentences())


def test_trial_is_printed_and_in_json(past: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name or condition; an unknown name gets the nearest one."""
    values = yaml.safe_load((past / "detector.yaml").read_text())
    values["rules"] = [{"name": "large", "when": "amount > 200", "state": "live", "severity": "high"}]
    (past / "detector.yaml").write_text(yaml.safe_dump(values))
    runner = CliRunner()

    def said(*words: str) -> Any:
        return runner.invoke(app, ["rules", *words])

    listed, tried = said("list", str(past)), said("try", str(past), "large")
    wrong, unknown = said("try", str(past), "lareg"), said("try", str(past), "amuont > 5")
    off = said("set", str(past), "large", "off", "--reason", "loud")
    again = json.loads(said("list", str(past), "--json").output)
    changed = said("history", str(past))

    assert "large" in listed.output
    assert "amount > 200" in listed.output
    assert "known frauds" in tried.output
    assert wrong.exit_code == unknown.exit_code == 2
    assert "Did you mean 'large'" in wrong.output
    assert "Did you mean 'amount'" in unknown.output
    assert off.output == "large is off.\n"
    assert again["rules"][0]["state"] == "off"
    assert "state: live → off" in changed.output
    assert "loud" in changed.output
