"""The console in Debian's Chromium: three alerts by keyboard, on a desk, in the dark and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.soak import Site
from detector.explain.reason import Reason
from pipelines.config import load_config
from pipelines.store import open_store
from pipelines.store.alert_tables import Answer
from pipelines.store.rule_tables import StoredRule
from tests.alert_places import config_in, give, rows, run, store_in
from tests.web import Served, served

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    # Playwright's own loop is closed by its process, not by Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Served]:
    with served(config_in(tmp_path), store_in(tmp_path)) as found:
        yield found


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Served]:
    """A desk whose alerts go to a file."""
    with served(config_in(tmp_path, file={"path": "alerts.jsonl"}), store_in(tmp_path)) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, with all that it asked for and complained of."""

    def __init__(self, chromium: Any, desk: Served, **given: Any) -> None:
        self.page = chromium.new_context(**given).new_page()
        self.desk = desk
        self.asked: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.add(request.url.split("/console")[0]))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def sign_in(self) -> None:
        """As a person does."""
        self.page.goto(f"{self.desk.address}/console/")
        self.page.fill("#key", self.desk.key("admin", now=datetime.now(UTC)))
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("tr.current")


def made(desk: Served, number: int) -> list[str]:
    """Alerts, the most urgent first."""
    given = rows(*((f"card-{n}", n, "high") for n in range(number)))
    return [each["id"] for each in give(desk.store, desk.config, given, now=datetime.now(UTC))]


def has_rows(page: Any, number: int) -> None:
    """Wait until the queue has so many rows."""
    from playwright.sync_api import expect

    expect(page.locator(".queue tbody tr")).to_have_count(number)


def said(desk: Served) -> dict[str, str]:
    """What was answered."""
    with desk.store.read() as session:
        return {answer.alert: answer.verdict for answer in session.scalars(sa.select(Answer).order_by(Answer.id))}


def test_three_alerts_are_answered_by_keyboard(chromium: Any, desk: Served) -> None:
    """From the queue and from the page of one; nothing comes from elsewhere, and nothing complains."""
    made(desk, 5)
    found = Watched(chromium, desk, viewport=DESK)
    page = found.page
    found.sign_in()
    order = page.eval_on_selector_all(".queue tbody tr", "rows => rows.map(row => row.dataset.id)")

    page.keyboard.press("j")
    page.keyboard.press("f")  # the second, from the queue
    has_rows(page, 4)
    page.keyboard.press("k")
    page.keyboard.press("Enter")  # the first, on its own page
    page.wait_for_selector("#acts[data-next]")
    page.wait_for_load_state("networkidle")
    page.fill("#reason", "known trip")
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    page.wait_for_url(f"**/alerts/{order[2]}")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("u")  # the third, where that led to
    page.wait_for_url(f"**/alerts/{order[3]}")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")

    assert said(desk) == {order[1]: "fraud", order[0]: "fine", order[2]: "unsure"}
    assert found.errors == []
    assert found.asked == {desk.address}


def test_many_are_chosen_by_keyboard(chromium: Any, desk: Served) -> None:
    """X chooses, the verdict is for all that were chosen."""
    ids = made(desk, 4)
    found = Watched(chromium, desk, viewport=DESK)
    found.sign_in()

    for key in ("x", "j", "x", "o"):
        found.page.keyboard.press(key)
    has_rows(found.page, 2)

    assert len(said(desk)) == 2
    assert set(said(desk)) < set(ids)
    assert found.errors == []


def test_a_slider_shows_what_it_comes_to(chromium: Any, sending: Served) -> None:
    """Of a quantile it moves the digits behind the nines; the page is that of the number it writes."""
    made(sending, 1)
    page = (found := Watched(chromium, sending, viewport=DESK)).page
    found.sign_in()
    page.goto(f"{sending.address}/console/what-if?quantile=0.99&budget=20")

    for name, key in (("quantile", "ArrowRight"), ("budget", "ArrowLeft")):
        page.locator(f"input[data-for={name}]").press(key)
        page.wait_for_load_state("networkidle")

    page.wait_for_url("**/what-if?quantile=0.9911&budget=19&*")
    assert found.errors == []


def test_pages_fit(chromium: Any, sending: Served, tmp_path: Path) -> None:
    """No page is wider than the screen, also with a long reason, and text stands out from what is behind it."""
    (one, *_) = made(sending, 3)
    long = Reason("known fraud of this terminal_of_the_northern_branch", "50 % in the 7 days before", "about 1 %", 0.9)
    give(sending.store, sending.config, rows(("card-9", 0, "low"), reasons=[long]), now=datetime.now(UTC))
    run(sending.store, sending.config, now=datetime.now(UTC))
    page = (found := Watched(chromium, sending, viewport=DESK)).page
    found.sign_in()

    pages = ("what-if", "quality", "models", "health", "audit", "rules", "rules/history")
    for path in ("/", f"/alerts/{one}", *(f"/{name}" for name in pages)):
        page.goto(f"{sending.address}/console{path}")
        page.wait_for_load_state("networkidle")
        for size, scheme in product((DESK, PHONE), ("light", "dark")):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            case = (path, size, scheme)
            wide = "each => each.getBoundingClientRect().right > window.innerWidth + 1"
            wide += " && !each.closest('.wide, .hidden')"
            names = f"Array.from(document.querySelectorAll('body *')).filter({wide}).map(each => each.outerHTML)"
            assert page.evaluate(names) == [], case
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), case
            style = "getComputedStyle(document.body)"
            text, ground = (
                sum(map(int, colour[4:-1].split(",")))
                for colour in page.evaluate(f"[{style}.color, {style}.backgroundColor]")
            )
            assert (ground - text if scheme == "light" else text - ground) > 500, case
    assert found.errors == []


def test_phone_says_what_each_number_is(chromium: Any, sending: Served) -> None:
    """Where a table has become records, its head is gone: each number has its name before it."""
    made(sending, 1)
    run(sending.store, sending.config, now=datetime.now(UTC))
    page = (found := Watched(chromium, sending, viewport=PHONE)).page
    found.sign_in()
    before = "each => getComputedStyle(each, '::before').content"

    page.goto(f"{sending.address}/console/quality")

    named = page.eval_on_selector_all(".records tbody td.number, .records td.bar", f"all => all.map({before})")
    assert set(named) == {'"sent "', '"answered "', '"fraud "', '"precision "'}
    assert page.locator("td.bar").first.inner_text() == "–"
    assert "Nobody has said yet what these alerts were." in page.inner_text("main")


def test_rule_is_written_with_names_completed_tried_and_saved(chromium: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """By keyboard: a name is chosen by Enter, another by arrow and Tab; on a phone nothing is too wide."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    site = Site(tmp_path / "site", tmp_path / "bundle", "files to files", policy={"quantile": 0.9})
    site.add(100)
    config = load_config(site.folder)
    with served(config, open_store(config.service.store)) as service:
        found = Watched(chromium, service, viewport=PHONE)
        page = found.page
        page.goto(f"{service.address}/console/")
        page.fill("#key", service.key("admin", now=datetime.now(UTC)))
        page.keyboard.press("Enter")
        page.wait_for_selector("nav")
        page.goto(f"{service.address}/console/rules/new")
        page.fill("input[name=name]", "large")
        page.click("#when")
        page.keyboard.type("am")
        page.keyboard.press("Enter")
        page.keyboard.type(" > 45 and p_value < 1 and not fe")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.type(" > 'am")  # in quotes nothing is completed
        hidden = page.locator("#names").is_hidden()
        written = page.input_value("#when")
        page.fill("#when", "amount > 45")
        page.fill("input[name=days]", "3000")
        page.click("text=Try on the past")
        page.wait_for_selector("#trial")
        fits = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=tmp_path / "rule.png", full_page=True)
        page.click("button:has-text('Save')")
        page.wait_for_selector("table.rules")
        with service.store.read() as session:
            (kept,) = session.scalars(sa.select(StoredRule))
            said = (kept.name, kept.definition["when"], kept.state, kept.who)

    assert written == "amount > 45 and p_value < 1 and not fee > 'am"
    assert hidden
    assert fits
    assert said == ("large", "amount > 45", "shadow", "ann")
    assert found.errors == []
    assert found.asked == {service.address}
