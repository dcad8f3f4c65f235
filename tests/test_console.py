"""The console over HTTP: who gets in, what a page shows of what data has written, and what a form may do."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
import requests
import sqlalchemy as sa

from benchmarks.soak import Site
from detector.explain.reason import Reason
from pipelines.alerts.message import links
from pipelines.api import keys
from pipelines.config import load_config
from pipelines.store import Audit, JobState, Request, open_store
from pipelines.store.access_tables import AlertNote, SignIn
from pipelines.store.alert_tables import Alert, Answer, Silence
from tests.alert_places import config_in, give, rows, run, store_in
from tests.service_sites import score
from tests.web import COOKIE, Browser, Served, served

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7919*7907}}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Served]:
    with served(config_in(tmp_path), store_in(tmp_path)) as found:
        yield found


@pytest.fixture
def analyst(desk: Served) -> Browser:
    found = Browser(desk)
    found.sign_in("review")
    return found


def made(desk: Served, *given: tuple[str, float, str], **columns: Any) -> list[str]:
    """Alerts, the most severe first; their ids."""
    return [each["id"] for each in give(desk.store, desk.config, rows(*given, **columns), now=datetime.now(UTC))]


def all_of(desk: Served, column: Any) -> list[Any]:
    """All values of a column."""
    with desk.store.read() as session:
        return list(session.scalars(sa.select(column)))


# Who gets in ----------------------------------------------------------------------------------------------------------


def test_nobody_sees_a_page_without_signing_in(desk: Served) -> None:
    """Every page leads to the sign-in page; a form is not even read."""
    (one,) = made(desk, ("card-1", 0, "high"))
    nobody = Browser(desk)
    for path in ("/", f"/alerts/{one}", f"/alerts/{one}/source", "/models", "/health", "/nothing", "/static", "/%0A"):
        found = nobody.ask("GET", path)
        assert (found.status_code, "/console/sign-in" in found.headers["location"]) == (303, True), path
        assert "card-1" not in found.text
    for path in ("/alerts", f"/alerts/{one}/comments", "/models", "/jobs", "/sign-out"):
        found = nobody.ask("POST", path, data={"id": one, "what": "fraud"})
        assert (found.status_code, found.headers["location"]) == (303, "/console/sign-in"), path
    assert all_of(desk, Answer.id) == []


def test_cookie_stands_for_a_key_that_is_good(desk: Served) -> None:
    """It is new at each sign-in, out of reach of scripts, kept as a hash, and over with its key or its time."""
    planted = Browser(desk)
    planted.cookie = "chosen-by-somebody-else"
    first = planted.sign_in("review")
    again = Browser(desk)
    again.sign_in("review")

    header = first.headers["set-cookie"]
    assert all(word in header for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"))
    assert planted.cookie not in ("", "chosen-by-somebody-else", again.cookie)
    assert planted.cookie not in all_of(desk, SignIn.hash)
    assert planted.ask("GET", "/").status_code == 200
    with desk.store.write() as session:
        for key in keys.every(session)[:1]:
            keys.revoke(session, key.id, now=datetime.now(UTC))
        session.execute(sa.update(SignIn).where(SignIn.key != key.id).values(until=datetime.now(UTC)))
    assert planted.ask("GET", "/").status_code == 303
    assert again.ask("GET", "/").status_code == 303


def test_signing_out_ends_it(analyst: Browser) -> None:
    """The cookie opens nothing afterwards, wherever it was copied to."""
    cookie = analyst.cookie
    analyst.ask("POST", "/sign-out")
    thief = Browser(analyst.desk)
    thief.cookie = cookie

    assert thief.ask("GET", "/").status_code == 303


def test_wrong_keys_are_slowed_down(desk: Served) -> None:
    """After some tries from one address; a right key gets in all the same."""
    guesser = Browser(desk)
    found = [guesser.ask("POST", "/sign-in", data={"key": f"det_{n:012x}_{n:064x}"}) for n in range(6)]

    assert found[0].status_code == 403
    assert found[-1].status_code == 429
    assert "set-cookie" not in found[0].headers
    assert guesser.sign_in("review").status_code == 303


def test_key_that_only_scores_sees_nothing(desk: Served) -> None:
    """A till's key opens no alert."""
    till = Browser(desk)
    till.sign_in("score")

    assert till.ask("GET", "/").status_code == 403


@pytest.mark.parametrize(
    "place", ["https://evil.example", "//evil.example", "/\\evil.example", "/..//evil", "javascript:x"]
)
def test_signing_in_leads_nowhere_else(desk: Served, place: str) -> None:
    """Whatever a link to the sign-in page says, one stays in the console."""
    assert Browser(desk).sign_in("review", next=place).headers["location"] == "/console/"
    assert Browser(desk).sign_in("review", next="/models").headers["location"] == "/console/models"


# Forms of others ------------------------------------------------------------------------------------------------------


def test_forms_of_other_sites_do_nothing(analyst: Browser) -> None:
    """Without the token, with another session's, or from another origin."""
    (one,) = made(analyst.desk, ("card-1", 0, "high"))
    other = Browser(analyst.desk)
    other.sign_in("review")
    form = {"id": one, "what": "fine"}

    found = [
        analyst.ask("POST", "/alerts", data=form | {"token": ""}),
        analyst.ask("POST", "/alerts", data=form | {"token": other.token}),
        analyst.ask("POST", "/alerts", data=form, headers={"Origin": "https://evil.example"}),
        analyst.ask("POST", "/alerts", data=form, headers={"Origin": "null"}),
        analyst.ask("POST", "/alerts", data=form, headers={"Sec-Fetch-Site": "cross-site"}),
        analyst.ask("POST", "/sign-in", data={"key": "x"}, headers={"Sec-Fetch-Site": "same-site"}),
    ]

    assert [each.status_code for each in found] == [403] * 6
    assert all_of(analyst.desk, Answer.id) == []
    own = {"Origin": analyst.desk.address, "Sec-Fetch-Site": "same-origin"}
    assert analyst.ask("POST", "/alerts", data=form, headers=own).status_code == 303
    assert all_of(analyst.desk, Answer.verdict) == ["fine"]


def test_looking_changes_nothing(analyst: Browser) -> None:
    """What changes something is a POST; a GET of it is no page."""
    (one,) = made(analyst.desk, ("card-1", 0, "high"))
    for path in (f"/alerts?id={one}&what=fraud&token={analyst.token}", "/jobs", "/sign-out"):
        assert analyst.ask("GET", path).status_code in (404, 405)
    assert all_of(analyst.desk, Answer.id) == []


@pytest.mark.parametrize("size", [300_000, 50])
def test_forms_of_any_size_get_a_page(analyst: Browser, size: int) -> None:
    """Too long, or of too many fields."""
    data = {"reason": "x" * size} if size > 1_000 else {f"f{number}": "" for number in range(2_000)}

    assert analyst.ask("POST", "/alerts", data=data).status_code in (400, 413)


# What pages show ------------------------------------------------------------------------------------------------------


def test_what_data_has_written_is_text(analyst: Browser) -> None:
    """In names, reasons, values, comments and filters: no tag and no template of a payer comes alive."""
    reasons = [Reason(EVIL, EVIL, EVIL, 0.6)]
    (one,) = made(analyst.desk, (EVIL, 0, "high"), reasons=reasons)
    analyst.ask("POST", f"/alerts/{one}/comments", data={"text": EVIL})
    analyst.ask("POST", "/alerts", data={"id": one, "what": "unsure", "reason": EVIL})
    pages = [
        analyst.ask("GET", "/?state=all"),
        analyst.ask("GET", f"/alerts/{one}"),
        analyst.ask("GET", f"/alerts/{one}/source"),
        analyst.ask("GET", "/", params={"about": EVIL, "pattern": EVIL, "assignee": EVIL}),
        analyst.ask("GET", "/", params={"state": EVIL}),
        analyst.ask("GET", "/alerts/" + requests.utils.quote(EVIL, safe="")),
    ]

    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert str(7919 * 7907) not in page.text
    assert "&lt;script&gt;" in pages[0].text
    assert pages[1].text.count("&lt;script&gt;") >= 5


def test_pages_carry_a_policy_that_lets_nothing_in(analyst: Browser) -> None:
    """No script but our own file, no style but our own, nothing in a frame, nothing kept; also on errors."""
    for path in ("/", "/health", "/nothing", "/static/console.js", "/sign-in"):
        found = analyst.ask("GET", path)
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert found.headers["x-frame-options"] == "DENY"
        assert found.headers["x-content-type-options"] == "nosniff"
        if "html" in found.headers["content-type"]:
            assert not re.search(r"<script(?! src=\"/console/static/)|<[^>]+ (on\w+|style)=", found.text)
            assert not re.search(r"(src|href|action)=\"(?!/console/)", found.text.replace('href="#main"', ""))


@pytest.mark.parametrize("path", ["/static/../base.html.j2", "/static/%2e%2e/base.html.j2", "/static/..%2f..%2f..%2fx"])
def test_static_files_are_those_of_the_folder(analyst: Browser, path: str) -> None:
    """No other file."""
    session = requests.Session()
    request = requests.Request("GET", "http://x", headers={"Cookie": f"{COOKIE}={analyst.cookie}"}).prepare()
    request.url = analyst.desk.address + "/console" + path

    assert session.send(request, timeout=5).status_code == 404


def test_queue_shows_the_most_urgent_first(analyst: Browser) -> None:
    """Severity, entity, first reason in words, what is at stake and how rare; filters narrow it down."""
    made(analyst.desk, ("card-1", 0, "low"), ("card-2", 1, "critical"), ("card-3", 2, "high"))
    page = analyst.ask("GET", "/").text

    assert re.findall(r'class="open"[^>]*>([^<]*)<', page) == ["card-2", "card-3", "card-1"]
    assert "amount is 950.00, expected about 42" in page
    assert "1 in 20,000" in page
    only = analyst.ask("GET", "/?severity=high").text
    assert re.findall(r'class="open"[^>]*>([^<]*)<', only) == ["card-3"]
    assert analyst.ask("GET", "/?state=opne").status_code == 422


def test_queue_without_amounts_has_no_column_for_them(analyst: Browser) -> None:
    """Machines have nothing at stake, and an empty column says nothing."""
    made(analyst.desk, ("m1", 0, "high"))

    assert "At stake" not in analyst.ask("GET", "/").text


def test_alert_does_not_repeat_its_first_reason(analyst: Browser) -> None:
    """What happened stands above, why in the table below; other events of the entity are called so, earlier or not."""
    made(analyst.desk, ("c1", 5_000, "high"))
    (found,) = made(analyst.desk, ("c1", 0, "low"))

    page = analyst.ask("GET", f"/alerts/{found}").text

    assert "c1 in payments is unusual (low): 1 flagged row." in page
    assert "mainly" not in page.partition('class="sentence"')[2].partition("</p>")[0]
    assert "<h2>Other alerts of it</h2>" in page


def test_link_of_a_message_leads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page behind an answer link names the alert's page; who is not signed in comes back to it after that."""
    monkeypatch.setenv("LINKS", "a secret to sign links with")
    answers = {"url": "https://detector.example.com", "secret": "${LINKS}"}
    config = config_in(tmp_path, answers=answers)
    with served(config, store_in(tmp_path), answers=True) as desk:
        (one,) = made(desk, ("card-1", 0, "high"))
        token = links.sign(
            links.Claim(one, "mail", datetime.now(UTC) + timedelta(days=1)), "a secret to sign links with"
        )
        page = requests.get(f"{desk.address}{links.PATH}/{token}", timeout=5).text
        (place,) = re.findall(r'<a href="/console([^"]*)"', page)
        browser = Browser(desk)
        asked = browser.ask("GET", place).headers["location"]
        following = unquote(asked.partition("?next=")[2])

        assert browser.sign_in("review", next=following).headers["location"] == f"/console/alerts/{one}"
        assert browser.ask("GET", place).status_code == 200


def test_quality_counts_each_alert_once(tmp_path: Path) -> None:
    """How many were right, in all and by first reason; of one sent to two places, once; and how long answers took."""
    config = config_in(tmp_path, file={"path": "alerts.jsonl"}, log={"enabled": True})
    with served(config, store_in(tmp_path)) as desk:
        now = datetime.now(UTC)
        given = rows(*((f"card-{n}", n, "high") for n in range(4)))
        ids = [each["id"] for each in give(desk.store, config, given, now=now - timedelta(hours=3))]
        run(desk.store, config, now=now)
        browser = Browser(desk)
        browser.sign_in("review")
        for one, what in zip(ids, ("fraud", "fraud", "fine", "unsure"), strict=True):
            browser.ask("POST", "/alerts", data={"id": one, "what": what})
        page = re.sub(r"<[^>]*>", " ", browser.ask("GET", "/quality").text)

    text = " ".join(page.split())
    assert "Sent 4 Answered, fraud or fine 3 Fraud 2 (67 % of these) Unsure 1 Not answered 0" in text
    assert "Half of the answers within 3.0 h" in text
    assert "By first reason Reason Sent Answered Fraud Precision amount 4 3 2 67 %" in text
    assert "file 4 3 2 67 %" in text


def test_views_are_kept_for_each_person(desk: Served) -> None:
    """Saved, listed, marked where it is shown, replaced and removed; nobody else sees it, and names are only text."""
    made(desk, ("card-1", 0, "high"), ("card-2", 0, "low"))
    ann, bob = Browser(desk), Browser(desk)
    ann.sign_in("view")
    bob.ask("POST", "/sign-in", data={"key": desk.key("review", name="bob")})
    bob.cookie = bob.ask("POST", "/sign-in", data={"key": desk.key("review", name="bob")}).cookies[COOKIE]
    bob.ask("GET", "/")

    shown = "state=open&severity=high&order=urgent"
    kept = ann.ask("POST", "/views", data={"name": EVIL[:40], "query": f"{shown}&after=x&nonsense=1"})
    page = ann.ask("GET", unquote(kept.headers["location"].removeprefix("/console"))).text
    ann.ask("POST", "/views", data={"name": "mine", "query": "assignee=ann"})
    ann.ask("POST", "/views", data={"name": "mine", "query": "state=all"})
    listed = ann.ask("GET", "/").text
    empty = ann.ask("POST", "/views", data={"name": " ", "query": ""})
    theirs = bob.ask("GET", "/").text
    bob.ask("POST", "/views/remove", data={"name": "mine"})
    still = ann.ask("GET", "/").text
    ann.ask("POST", "/views/remove", data={"name": "mine"})
    gone = ann.ask("GET", "/").text
    for number in range(30):
        last = ann.ask("POST", "/views", data={"name": f"view {number}", "query": "state=all"})

    assert kept.headers["location"] == f"/console/?{shown}"
    assert f'href="/console/?{html.escape(shown)}" aria-current="page"' in page
    assert ("card-1" in page, "card-2" in page) == (True, False)
    assert "<script>alert(1)" not in page
    assert 'href="/console/?state=all"' in listed
    assert "assignee=ann&#34;" not in listed
    assert empty.status_code == 422
    assert "mine" not in theirs
    assert ">mine<" in still
    assert ">mine<" not in gone
    assert last.status_code == 422
    assert "30 views already" in last.text


def test_another_policy_is_looked_at_and_not_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    """What it would have flagged stands beside today's, and what to write to keep it; nonsense is said to be some."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    site = Site(tmp_path / "site", tmp_path / "bundle", "files to files", policy={"quantile": 0.9})
    site.add(200)
    score(site)
    config = load_config(site.folder)
    with served(config, open_store(config.service.store)) as desk:
        browser = Browser(desk)
        browser.sign_in("review")
        found = browser.ask("GET", "/what-if?quantile=0.5&days=100").text
        queries = ("quantile=2", "days=no", "quantile=off", "fdr=<b>")
        wrong = [browser.ask("GET", f"/what-if?{query}") for query in queries]

    frame = pd.concat(map(pd.read_parquet, (site.folder / "scores").glob("*.parquet")))
    counts = [int(each) for each in re.findall(r'class="number">(\d+) of 200', found)]
    assert counts == [int(frame["flagged"].sum()), int((frame["p_value"] <= 0.5).sum())]
    assert "quantile: 0.5" in found
    for page in wrong:
        assert page.status_code == 200
        assert 'role="alert"' in page.text
        assert "<b>" not in page.text


# What forms do --------------------------------------------------------------------------------------------------------


def test_pages_call_what_is_looked_for_by_its_word(tmp_path: Path) -> None:
    """Nobody who looks after machines is asked about fraud: buttons, verdicts and figures have the word."""
    with served(config_in(tmp_path, anomaly="leak"), store_in(tmp_path)) as desk:
        (one,) = made(desk, ("pump-1", 0, "high"))
        analyst = Browser(desk)
        analyst.sign_in("review")

        before = [analyst.ask("GET", path).text for path in ("/", f"/alerts/{one}")]
        analyst.ask("POST", "/alerts", data={"id": one, "what": "fraud"})
        after = [analyst.ask("GET", path).text for path in (f"/alerts/{one}", "/quality")]

    assert all(">Leak</button>" in page for page in before)
    assert "<strong>leak</strong>" in after[0]
    assert "Answered, leak or fine" in after[1]
    assert not any(re.search(r">\s*fraud\s*<", page, re.IGNORECASE) for page in (*before, *after))


def test_verdict_leads_to_the_next_alert(analyst: Browser) -> None:
    """One after the other, the most urgent first; after the last one, to the queue."""
    first, second, third = made(analyst.desk, ("card-1", 0, "critical"), ("card-2", 1, "high"), ("card-3", 2, "low"))
    form = {"then": "next", "reason": "called"}

    places = [
        analyst.ask("POST", "/alerts", data=form | {"id": each, "what": what}).headers["location"]
        for each, what in ((second, "fraud"), (third, "fine"), (first, "unsure"))
    ]

    assert places == [f"/console/alerts/{third}", f"/console/alerts/{first}", "/console/"]
    with analyst.desk.store.read() as session:
        said = session.execute(sa.select(Answer.alert, Answer.verdict, Answer.who, Answer.via, Answer.reason))
        assert [tuple(each) for each in said] == [
            (second, "fraud", "ann", "console", "called"),
            (third, "fine", "ann", "console", "called"),
            (first, "unsure", "ann", "console", "called"),
        ]


def test_many_are_answered_at_once(analyst: Browser) -> None:
    """All that were chosen, or none: an alert that is not there undoes the others."""
    ids = made(analyst.desk, *((f"card-{n}", n, "low") for n in range(5)))

    wrong = analyst.ask("POST", "/alerts", data={"id": [*ids[:3], "al_nothing"], "what": "fine"})
    nothing = analyst.ask("POST", "/alerts", data={"what": "fine"})
    right = analyst.ask("POST", "/alerts", data={"id": ids[:3], "what": "fine", "query": "severity=low"})

    assert (wrong.status_code, nothing.status_code) == (404, 422)
    assert right.headers["location"] == "/console/?severity=low"
    assert sorted(all_of(analyst.desk, Answer.alert)) == sorted(ids[:3])


def test_alert_is_taken_snoozed_and_commented(analyst: Browser) -> None:
    """Each is seen on its page, with who did it."""
    (one,) = made(analyst.desk, ("card-1", 0, "high"))
    analyst.ask("POST", "/alerts", data={"id": one, "what": "take", "then": "next"})
    analyst.ask("POST", f"/alerts/{one}/comments", data={"text": "two\nlines"})
    analyst.ask("POST", "/alerts", data={"id": one, "what": "snooze", "reason": "test card"})
    page = analyst.ask("GET", f"/alerts/{one}").text

    assert "ann has it" in page
    assert "two\nlines" in page
    assert 'class="verdict snoozed"' in page
    assert all_of(analyst.desk, Silence.reason) == ["test card"]
    assert all_of(analyst.desk, AlertNote.kind) == ["assigned", "comment"]
    assert "Nothing here" in analyst.ask("GET", "/").text


def test_only_admins_steer(desk: Served, analyst: Browser) -> None:
    """A reviewer sees jobs and models and has no button; a form without one is refused."""
    admin = Browser(desk)
    admin.sign_in("admin")
    form = {"job": "score", "step": "run"}

    assert 'value="run"' not in analyst.ask("GET", "/health").text
    assert analyst.ask("POST", "/jobs", data=form).status_code == 403
    assert analyst.ask("POST", "/models", data={"reason": "x"}).status_code == 403
    assert 'value="run"' in admin.ask("GET", "/health").text
    assert admin.ask("POST", "/jobs", data=form).status_code == 303
    assert admin.ask("POST", "/jobs", data={"job": "retrain", "step": "pause"}).status_code == 303
    assert admin.ask("POST", "/jobs", data={"job": "scroe", "step": "run"}).status_code == 404
    assert admin.ask("POST", "/models", data={"reason": "x"}).status_code == 422
    assert all_of(desk, Request.job) == ["score"]
    assert all_of(desk, JobState.paused) == [True]
    done = [each for each in all_of(desk, Audit.action) if each not in ("create key", "sign in")]
    assert done == ["run score", "pause retrain"]


def test_alert_of_another_source_is_none_of_ours(analyst: Browser) -> None:
    """A state that two projects share shows each its own."""
    (one,) = made(analyst.desk, ("card-1", 0, "high"))
    with analyst.desk.store.write() as session:
        session.execute(sa.update(Alert).values(source="others"))

    assert analyst.ask("GET", f"/alerts/{one}").status_code == 404
    assert "Nothing here" in analyst.ask("GET", "/").text
