"""The built documentation in a real browser: what Lighthouse asks of accessibility, and no sideways scroll."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    # Playwright's own loop is closed by its process, not by Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
EXAMINE = """() => {
  const straight = (x) => x <= .04 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = (c) => { const v = c.map((x) => straight(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const once = (make) => { const known = new Map();
    return (key) => { if (!known.has(key)) known.set(key, make(key)); return known.get(key); }; };
  const parts = once((text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [[r, g, b], a / 255]; });
  const over = ([top, solid], below) => top.map((value, place) => value * solid + below[place] * (1 - solid));
  const ground = once((element) => element
    ? over(parts(getComputedStyle(element).backgroundColor), ground(element.parentElement)) : [255, 255, 255]);
  const width = document.documentElement.clientWidth, found = [];
  const name = (element) => (element.textContent.trim() || element.outerHTML).slice(0, 60);
  const say = (what, element) => found.push(what + ": " + name(element));
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  if (!document.documentElement.lang) found.push("no language");
  if (!document.title.trim()) found.push("no title");
  if (!document.querySelector("meta[name=viewport]")) found.push("no viewport");
  if (document.querySelectorAll("article h1").length !== 1) found.push("not one h1");
  let level = 1;
  for (const heading of document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")) {
    const own = Number(heading.tagName[1]); if (own > level + 1) say("a level is left out", heading); level = own; }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place))) found.push("two of id " + id);
  for (const picture of document.querySelectorAll("article img")) {
    if (!picture.alt) say("picture without a name", picture);
    if (!picture.naturalWidth) say("picture that is not there", picture); }
  for (const link of document.querySelectorAll("article a[href]"))
    if (!link.textContent.trim() && !link.getAttribute("aria-label") && !link.title && !link.querySelector("img[alt]"))
      say("link without a name", link);
  for (const element of document.querySelectorAll("article *")) {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    const unseen = !box.width || style.visibility === "hidden" || +style.opacity < .1;
    if (unseen || element.closest("svg, .headerlink")) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    if (box.right > width + 1 && !element.closest("pre, .scroll, .md-typeset__scrollwrap")) say("cut off", element);
    const back = ground(element), [one, two] = [light(over(parts(style.color), back)), light(back)];
    const ratio = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) say("faint, " + ratio.toFixed(1), element);
  }
  return [...new Set(found)];
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The documentation as it is published: its address, and its pages."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(place.parent.relative_to(built).as_posix() for place in built.rglob("index.html"))
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read(chromium: Any, site: tuple[str, list[str]], scheme: str) -> None:
    """Contrast, names, order of headings, pictures that are there, nothing cut off; and nothing is asked elsewhere."""
    address, pages = site
    page = chromium.new_context(color_scheme=scheme).new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))

    wrong = {}
    for name in pages:
        for width in (1400, 390):  # opened on the desk: a page that has grown scrolls until its script has seen it
            page.set_viewport_size({"width": width, "height": 900})
            if width == 1400:
                page.goto(f"{address}/{name}/")
            if found := page.evaluate(EXAMINE):
                wrong[name, width] = found

    assert len(pages) > 30
    assert wrong == {}
    assert {url for url in asked if not url.startswith((address, "data:"))} == set()


@pytest.mark.parametrize("word", ["threshold", "quantile", "false alarm", "currency", "time zone"])
def test_search_finds(chromium: Any, site: tuple[str, list[str]], word: str) -> None:
    """What people look for leads to pages that speak of it."""
    page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(f"{site[0]}/quickstart/")
    for _ in range(30):
        page.fill("input.md-search__input", word)
        page.press("input.md-search__input", "End")
        page.wait_for_timeout(1_000)
        if page.locator(".md-search-result__link").count():
            break  # what was typed before the page's script listened is lost

    assert word.split()[0] in page.inner_text(".md-search-result__list").lower()


def test_steps_are_counted_on(chromium: Any, site: tuple[str, list[str]]) -> None:
    """A numbered list whose steps hold code is one list, not many that each begin with 1."""
    page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
    page.goto(f"{site[0]}/channels/slack/")

    assert page.eval_on_selector_all("article ol", "all => all.map(each => each.children.length)") == [4]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("document.querySelector('article p').style.color = '#aaa'", "faint"),
        ("document.querySelector('article h2').outerHTML = '<h4>Deep</h4>'", "a level is left out: Deep"),
        ("document.querySelector('article').innerHTML += '<img src=\"/none.png\">'", "picture without a name"),
        ("document.querySelector('article p').style.width = '800px'", "cut off"),
    ],
)
def test_the_look_sees_what_is_wrong(chromium: Any, site: tuple[str, list[str]], break_it: str, said: str) -> None:
    """A page that is broken on purpose does not pass."""
    page = chromium.new_context(viewport={"width": 390, "height": 900}).new_page()
    page.goto(f"{site[0]}/quickstart/")
    page.evaluate(break_it)

    assert said in "\n".join(page.evaluate(EXAMINE))
