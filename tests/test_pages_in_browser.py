"""Pages in a real browser, as wide as a phone and as a desk, in light and dark: nothing clipped, faint or unnamed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.alerts.channels.email import mail_of
from pipelines.alerts.feedback.router import _page
from pipelines.backtest.plan import Plan
from pipelines.backtest.report import figures, write
from pipelines.backtest.summary import BacktestReport
from pipelines.reports.page import render
from tests.test_alert_channels import NOW, message
from tests.test_report import ALERTS, FULL, Reason

BROWSER = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]
LOOK = """<!doctype html><iframe id="page" src="page.html" width="WIDTH" height="800" style="border:0"></iframe>
<pre id="found"></pre><script>
const light = (c) => { const v = c.map((x) => { x /= 255; return x <= .04 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const parts = (text) => { const n = text.match(/[\\d.]+/g).map(Number);
  return [n.slice(0, 3), n.length > 3 ? n[3] : 1]; };
document.getElementById("page").onload = (event) => {
  const doc = event.target.contentDocument, view = event.target.contentWindow;
  doc.querySelectorAll("details").forEach((each) => { each.open = true; });
  const width = doc.documentElement.clientWidth, found = { wide: [], faint: [], unnamed: [], scroll: 0 };
  found.scroll = doc.documentElement.scrollWidth - width;
  const ground = (element) => { for (let e = element; e; e = e.parentElement) {
    const [colour, solid] = parts(view.getComputedStyle(e).backgroundColor); if (solid > .99) return colour; }
    return view.matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255]; };
  for (const element of doc.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect(), style = view.getComputedStyle(element);
    if (!box.width || style.visibility === "hidden" || element.closest("svg")) continue;
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (text && box.right > width + 1 && !element.closest(".scroll")) found.wide.push(element.textContent.slice(0, 40));
    if (!text) continue;
    const [one, two] = [light(parts(style.color)[0]), light(ground(element))];
    const ratio = (Math.max(one, two) + .05) / (Math.min(one, two) + .05);
    if (ratio < (parseFloat(style.fontSize) >= 18.6 ? 3 : 4.5))
      found.faint.push(element.textContent.trim().slice(0, 40) + " " + ratio.toFixed(1));
  }
  for (const field of doc.querySelectorAll("input, select, textarea, button"))
    if (field.type !== "hidden" && !(field.labels && field.labels.length) && !field.textContent.trim() &&
        !field.getAttribute("aria-label")) found.unnamed.push(field.outerHTML.slice(0, 60));
  for (const picture of doc.querySelectorAll("figure, img"))
    if (!picture.getAttribute("aria-label") && !picture.getAttribute("alt"))
      found.unnamed.push(picture.outerHTML.slice(0, 60));
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def a_report(_: Path) -> str:
    """With every part, reasons open, and a long name."""
    reasons = [[Reason("ratio of amount to its 30-day mean of the card", "5.2", "about 1.1", 0.61)]] * len(ALERTS)
    return render(replace(FULL, reasons=reasons, explain="detector explain /srv/payments-of-the-north"))


def a_backtest(folder: Path) -> str:
    """Of four weeks."""
    begin = pd.date_range("2026-01-05", periods=4, freq="7D")
    numbers = {"rows": 100.0, "anomalies": 9.0, "ap": 0.5, "auroc": 0.9, "prevalence": 0.1, "flagged": 3.0}
    shares = {"recall": 0.3, "precision_realised": 0.4, "precision_predicted": 0.9, "alerts_per_day": 2.0}
    periods = pd.DataFrame({"begin": begin, "seed": 0, **numbers, **shares})
    plan = Plan(begin[0].to_pydatetime(), datetime(2026, 2, 2), every="7d")  # noqa: DTZ001 - as a command reads days
    report = BacktestReport(periods, plan, {})
    write(report, figures(report), "payments", folder / "backtest", now=datetime(2026, 3, 1, tzinfo=UTC))
    return (folder / "backtest" / "backtest.html").read_text(encoding="utf-8")


def a_mail(_: Path) -> str:
    """About an event with reasons and a course."""
    (_, part) = mail_of(message(answer_url="https://d.example/a"), sender="a@b", to=["c@d"], now=NOW).iter_parts()
    return str(part.get_content())


def an_answer(_: Path) -> str:
    """The page that a link in an alert opens."""
    shown = _page(
        title="Fraud, or fine?", text="card-7 is unusual.", lines=["amount is 950"], form=True, snooze_days="7"
    )
    return bytes(shown.body).decode()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("page", [a_report, a_backtest, a_mail, an_answer])
def test_page_can_be_read(page: Callable[[Path], str], width: int, dark: bool, tmp_path: Path) -> None:
    """No text beyond the edge, none fainter than people can read (WCAG AA), every field and picture with a name."""
    (tmp_path / "page.html").write_text(page(tmp_path), encoding="utf-8")
    (tmp_path / "look.html").write_text(LOOK.replace("WIDTH", str(width)), encoding="utf-8")
    colours = ["--blink-settings=preferredColorScheme=0"] if dark else []
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", *colours]
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000"]

    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "look.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    seen: dict[str, Any] = json.loads(html.unescape(found))
    assert seen == {"wide": [], "faint": [], "unnamed": [], "scroll": 0}
