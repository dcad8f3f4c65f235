"""The pages behind the links of alerts. Looking at one changes nothing, because mail scanners look at every link."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from detector.errors import DataError, DetectorError
from pipelines.alerts.feedback.answers import answer, find
from pipelines.alerts.message import links
from pipelines.alerts.message.message import message_of
from pipelines.alerts.message.templating import SHIPPED
from pipelines.config import Config
from pipelines.config.alerting import AnswersSection
from pipelines.store import Store
from pipelines.store.alert_tables import Answer

MOST_BYTES = 20_000
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
log = logging.getLogger("detector.alerts")
_pages = Environment(loader=FileSystemLoader(SHIPPED), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def answer_router(config: Config, store: Store, *, clock: Callable[[], datetime]) -> APIRouter:
    """The pages to include in the service's application; none if ``alerts.answers`` is not set."""
    router = APIRouter()
    if config.alerts.answers is None:
        return router
    pages = _Pages(config, config.alerts.answers, store, clock)

    @router.get(f"{links.PATH}/{{token}}", response_class=HTMLResponse)
    def look(token: str) -> HTMLResponse:
        return _answered(lambda: pages.question(token))

    @router.post(f"{links.PATH}/{{token}}", response_class=HTMLResponse)
    async def take(token: str, request: Request) -> HTMLResponse:
        if (refusal := _answered(lambda: pages.check(token))).status_code != 200:
            return refusal  # before anything of the form is read
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return _page(title="Too long", text="Please write less.", status=413)
        try:
            fields = parse_qs(body.decode("utf-8", errors="replace"), max_num_fields=20, keep_blank_values=True)
        except ValueError:
            return _page(title="That did not work", text="This is not the form of this page.", status=400)
        form = {name: values[-1] for name, values in fields.items()}
        return await run_in_threadpool(_answered, lambda: pages.store_answer(token, form))

    return router


@dataclass(frozen=True)
class _Pages:
    config: Config
    section: AnswersSection
    store: Store
    clock: Callable[[], datetime]

    def check(self, token: str) -> HTMLResponse:
        """An empty page, if the link is valid."""
        self._claim(token, self.clock())
        return _page(title="", text="")

    def question(self, token: str) -> HTMLResponse:
        """The alert, and a form to answer it."""
        claim = self._claim(token, self.clock())
        with self.store.read() as session:
            alert = find(session, claim.alert)
            message = message_of(alert, section=self.config.alerts, target=claim.via)
            last = session.scalar(sa.select(Answer).where(Answer.alert == alert.id).order_by(Answer.id.desc()).limit(1))
            earlier = f"{last.verdict}, by {last.who} on {last.at:%Y-%m-%d %H:%M} UTC" if last is not None else ""
        days = self.section.snooze_days
        return _page(
            title=message.question,
            text=message.lead,
            anomaly=message.anomaly.capitalize(),
            lines=[*message.reason_lines, *(f"{name}: {value}" for name, value in message.table)],
            form=True,
            earlier=earlier,
            snooze_days=f"{days:g}" if days else "",
            console=f"{links.CONSOLE}/{claim.alert}" if self.config.service.console.enabled else "",
        )

    def store_answer(self, token: str, form: dict[str, str]) -> HTMLResponse:
        """Store what the form says."""
        now = self.clock()
        claim, who = self._claim(token, now), form.get("who", "").strip()
        if not who:
            raise DataError("Please say who you are. Go back and fill in the first field.")
        with self.store.write() as session:
            said = answer(
                session,
                find(session, claim.alert),
                form.get("verdict", ""),
                reason=form.get("reason", "").strip(),
                who=who,
                via=claim.via,
                config=self.config,
                now=now,
                snooze=form.get("snooze") == "yes",
            )
            verdict = said.verdict
        return _page(title="Thank you", text=f"Kept: {verdict}. To change it, open the link again.")

    def _claim(self, token: str, now: datetime) -> links.Claim:
        return links.read(token, self.section.secret.get_secret_value(), now=now)


def _answered(make: Callable[[], HTMLResponse]) -> HTMLResponse:
    try:
        return make()
    except DataError as error:
        return _page(title="That did not work", text=str(error), status=400)
    except DetectorError as error:
        log.warning("an answer could not be kept: %s", error)
        return _page(title="That did not work", text="The answer could not be kept. Try again in a minute.", status=503)


def _page(*, title: str, text: str, status: int = 200, **more: Any) -> HTMLResponse:
    values = {"title": title, "text": text, "lines": [], "form": False, "earlier": "", "snooze_days": ""}
    values |= {"anomaly": "", "console": "", **more}
    return HTMLResponse(_pages.get_template("answer.html.j2").render(values), status_code=status, headers=HEADERS)
