"""The texts of alerts: Jinja2 in a sandbox, shipped ones and those of a folder of your own."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipelines.alerts.message.message import Message

SHIPPED = Path(__file__).parents[2] / "templates" / "alerts"
MOST_TEXT = 20_000
log = logging.getLogger("detector.alerts")


def render(name: str, message: Message, *, folder: Path | None = None) -> str:
    """The text of a message by a template.

    If a template in a folder of one's own fails, the shipped one is used: no alert is lost over it. In a template the
    message is called ``alert``.
    """
    if folder is not None:
        try:
            return _environment(folder).get_template(name).render(alert=message)[:MOST_TEXT]
        except (TemplateError, ArithmeticError, AttributeError, TypeError, ValueError, OSError) as error:
            log.warning("the template %s in %s failed, the shipped one is used: %s", name, folder, error)
    return _environment(None).get_template(name).render(alert=message)[:MOST_TEXT]


@lru_cache(maxsize=8)
def _environment(folder: Path | None) -> ImmutableSandboxedEnvironment:
    places = [FileSystemLoader(each) for each in (folder, SHIPPED) if each is not None]
    return ImmutableSandboxedEnvironment(
        loader=ChoiceLoader(places),
        autoescape=select_autoescape(enabled_extensions=("html.j2", "html"), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
