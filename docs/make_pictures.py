"""All pictures of the documentation, and every page on a desk, on a phone and in the dark: ``make pictures``.

They are taken in Debian's Chromium: the report and MLflow's pages from the demo's folder, the console over the demo's
state, and an alert at each channel from what that channel really sends. What is sent is written into the channels'
pages, so that these cannot grow old; the tests compare. Of report and console a test compares the templates.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from channel_pictures import mail_page, pages, payloads
from drawn_templates import DRAWN_FROM, TEMPLATES, digest_of
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parent
LOOKS = DOCS.parent / "build" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = (1400, 1000), (390, 844)
COLOURS = 128
MLFLOW = "http://127.0.0.1:5019"
BLOCK = re.compile(r"```(json|text)\n(?:(?!```).)*\n```\n*\Z", re.DOTALL)
RULES: dict[str, dict[str, Any]] = {
    "large-online": {
        "when": "amount > 500 and channel == 'online'",
        "severity": "high",
        "tag": "online",
        "reason": "a large amount online",
        "state": "live",
        "why": "asked for by the fraud team",
    },
    "small-at-the-till": {"when": "amount < 5 and channel == 'chip'", "action": "never", "why": "too many to look at"},
}
VIEWS = (("desk", DESK, False), ("dark", DESK, True), ("phone", PHONE, False), ("phone-dark", PHONE, True))


def main() -> None:
    """Take all pictures of a demo's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Where `detector demo` left its results.")
    parser.add_argument("--only", default="", help="channels, report, console, mlflow or site.")
    given = parser.parse_args()
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit(f"None of {', '.join(BROWSERS)} was found. Install one: make chromium")
    LOOKS.mkdir(parents=True, exist_ok=True)
    parts = {"channels": channels, "report": report, "console": console, "mlflow": mlflow, "site": site}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, take in parts.items():
            if given.only in ("", name):
                print(f"{name} …", file=sys.stderr)  # noqa: T201 - a command
                take(browser, given.folder)
                if name in TEMPLATES:
                    note_templates(name)
        browser.close()


def note_templates(part: str) -> None:
    """Write down which templates a part's pictures show; a test says when they are no longer those."""
    noted = json.loads(DRAWN_FROM.read_text(encoding="utf-8")) if DRAWN_FROM.exists() else {}
    text = json.dumps(noted | {part: digest_of(part)}, indent=2, sort_keys=True)
    DRAWN_FROM.write_text(f"{text}\n", encoding="utf-8")


def channels(browser: Browser, _: Path) -> None:
    """An alert at each channel, and what is sent in the channel's page."""
    for name, content in pages().items():
        with opened(browser, content, width=796, height=400, scale=1.5) as page:
            save(page.locator("main").screenshot(), DOCS / "channels" / f"{name}.png")
    mail(browser)
    for name, sent in payloads().items():
        place = DOCS / "channels" / f"{name}.md"
        place.write_text(with_payload(place.read_text(encoding="utf-8"), sent), encoding="utf-8")


def with_payload(text: str, sent: Any) -> str:
    """A channel's page with its last block of code replaced by what is sent."""
    kind, code = (
        ("text", sent.strip()) if isinstance(sent, str) else ("json", json.dumps(sent, ensure_ascii=False, indent=1))
    )
    return BLOCK.sub(lambda _: f"```{kind}\n{code}\n```\n", text)


def mail(browser: Browser) -> None:
    """The mail in light on a desk, and beside it in the dark on a phone."""
    shown = []
    for width, dark in ((640, False), (390, True)):
        with opened(browser, mail_page(), width=width, height=700, dark=dark) as page:
            shown.append(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
    both = Image.new("RGB", (sum(each.width for each in shown) + 24, max(each.height for each in shown)), "white")
    both.paste(shown[0], (0, 0))
    both.paste(shown[1], (shown[0].width + 24, 0))
    packed = io.BytesIO()
    both.save(packed, "PNG")
    save(packed.getvalue(), DOCS / "channels" / "mail.png")
    look(browser, "mail", content=mail_page())


def report(browser: Browser, folder: Path) -> None:
    """The report of the demo's training; which machine it was made on is nobody's business."""
    place = str(folder.resolve())
    content = (folder / "report.html").read_text(encoding="utf-8").replace(place, folder.name)
    with opened(browser, content, width=1200, height=1160) as page:
        save(page.screenshot(), DOCS / "pictures" / "report.png")
    with opened(browser, content, width=390, height=1500, dark=True) as page:
        save(page.screenshot(), DOCS / "pictures" / "report-phone-dark.png")
    look(browser, "report", content=content)


def console(browser: Browser, folder: Path) -> None:
    """The console over the demo's state: the queue, one alert, and its health on a phone in the dark."""
    with served(folder) as (address, key):
        for name, rule in RULES.items():
            add_rule(f"{address}/v1/rules/{name}", rule, key)
        with opened(browser, f"{address}/console/", width=1100, height=520) as page:
            _sign_in(page, key)
            save(page.screenshot(), DOCS / "console" / "queue.png")
            page.keyboard.press("Enter")
            page.wait_for_selector("#acts")
            page.wait_for_load_state("networkidle")
            path = page.url
            page.set_viewport_size({"width": 1100, "height": 900})
            save(page.screenshot(), DOCS / "console" / "alert.png")
            cookies = page.context.cookies()
        with opened(browser, f"{address}/console/health", width=390, height=760, dark=True, cookies=cookies) as page:
            save(page.screenshot(), DOCS / "console" / "phone.png")
        with opened(browser, f"{address}/console/rules/new", width=1280, height=900, cookies=cookies) as page:
            page.fill("input[name=name]", "new_device_online")
            page.fill("#when", "amount > 500 and device_new_90d_by_card_id and channel = 'online'")
            page.fill("input[name=days]", "120")
            page.click("text=Try on the past")
            page.wait_for_selector("#trial", timeout=300_000)
            page.evaluate("document.activeElement.blur()")
            save(page.screenshot(full_page=True), DOCS / "console" / "rule.png")
        for name in ("", "what-if", "quality", "models", "health", "audit", "rules", "rules/new", "rules/history"):
            look(
                browser,
                f"console-{name.replace('/', '-') or 'queue'}",
                address=f"{address}/console/{name}",
                cookies=cookies,
            )
        look(browser, "console-alert", address=path, cookies=cookies)


def add_rule(address: str, rule: dict[str, Any], key: str) -> None:
    """Keep a rule, as a program would."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(rule).encode(), headers, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def _sign_in(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("tr.current")


def mlflow(browser: Browser, folder: Path) -> None:
    """MLflow's own pages over the demo's runs: the views Review and Loss, and one run."""
    uri = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    with started(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", MLFLOW[-4:], "--workers", "1"]
    ):
        wait_for(f"{MLFLOW}/health")
        views = {
            "review": (560, "viewStateShareKey=detector-review", "text=demo-payments v1"),
            "loss": (860, "viewStateShareKey=detector-loss&compareRunsMode=CHART", ".js-plotly-plot"),
        }
        for name, (height, query, shown) in views.items():
            with opened(browser, "about:blank", width=1500, height=height) as page:
                page.add_init_script(
                    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
                    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
                )
                page.goto(f"{MLFLOW}/#/experiments/1/runs?{query}")
                page.wait_for_selector(shown, timeout=180_000)
                page.wait_for_timeout(3_000)
                save(page.screenshot(), DOCS / "pictures" / f"mlflow-{name}.png")
                if name == "review":
                    page.set_viewport_size({"width": 1500, "height": 860})
                    page.locator("a[href*='/runs/']").first.click()  # the latest
                    page.wait_for_selector("text=About this run", timeout=180_000)
                    page.wait_for_timeout(4_000)
                    save(page.screenshot(), DOCS / "pictures" / "mlflow-run.png")


def site(browser: Browser, _: Path) -> None:
    """Every page of the built documentation, to be looked at."""
    built = DOCS.parent / "site"
    for place in sorted(built.rglob("index.html")):
        look(browser, f"site-{place.parent.relative_to(built).as_posix().replace('/', '-')}", address=place.as_uri())


def look(browser: Browser, name: str, *, content: str = "", address: str = "", cookies: Any = ()) -> None:
    """A page as people see it on a desk, in the dark, on a phone, and there in the dark, to be looked at."""
    for which, (width, height), dark in VIEWS:
        with opened(browser, content or address, width=width, height=height, dark=dark, cookies=cookies) as page:
            page.wait_for_load_state("networkidle")
            page.screenshot(path=LOOKS / f"{name}-{which}.png", full_page=True)


@contextmanager
def opened(
    browser: Browser, what: str, *, width: int, height: int, dark: bool = False, scale: float = 1.0, cookies: Any = ()
) -> Iterator[Page]:
    """A page at an address, or of HTML."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    context.add_cookies(list(cookies))
    page = context.new_page()
    if what.lstrip().startswith("<"):
        page.set_content(what)
    else:
        page.goto(what)
    yield page
    context.close()


def save(picture: bytes, place: Path) -> None:
    """Keep a picture with few colours, which makes it small."""
    place.parent.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(place, optimize=True)


@contextmanager
def started(command: list[str]) -> Iterator[None]:
    """A server that ends with the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, seconds: float = 180.0) -> None:
    """Wait until a server answers."""
    for _ in range(int(seconds)):
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit(f"{address} did not answer within {seconds:.0f} s.")


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """The pages of a project without its jobs, over a copy of its state, and a key for them."""
    from pipelines.api import keys
    from pipelines.config import load_config
    from pipelines.console.standalone import served_alone
    from pipelines.store import open_store

    state = LOOKS / "service.db"
    shutil.copy(folder / "service.db", state)
    store = open_store(f"sqlite:///{state}")
    with store.write() as session:
        key = keys.create(session, "ann", ("admin",), days=1, now=datetime.now(UTC))
    try:
        with served_alone(load_config(folder), store) as address:
            yield address, key
    finally:
        store.close()


if __name__ == "__main__":
    main()
