"""What the documentation shows of an alert at each channel is what that channel sends."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
pytestmark = pytest.mark.filterwarnings("ignore:.*imghdr.*:DeprecationWarning")  # a plugin of Apprise imports it
CODE = re.compile(r"```(?:json|text)\n((?:(?!```).)*)\n```\n*\Z", re.DOTALL)


@pytest.fixture(scope="module")
def drawn() -> ModuleType:
    """The script that draws them."""
    return script("channel_pictures")


def script(name: str) -> ModuleType:
    """A script of the documentation, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", ["console", "report"])
def test_pictures_show_the_templates_of_today(part: str) -> None:
    """Whoever changes a page takes its pictures anew."""
    templates = script("drawn_templates")

    noted = json.loads(templates.DRAWN_FROM.read_text(encoding="utf-8"))[part]

    assert noted == templates.digest_of(part), (
        f"Look at the pages of today and take their pictures: make pictures ({part})."
    )


def text_of(page: str) -> str:
    """What stands on a page."""
    words: list[str] = []
    parser: Any = HTMLParser()
    parser.handle_data = words.append
    parser.feed(page.partition("</style>")[2])
    return " ".join(" ".join(words).split())


@pytest.mark.parametrize("channel", ["slack", "pagerduty", "alertmanager", "webhook", "file", "email", "apprise"])
def test_page_of_a_channel_holds_what_is_sent(drawn: ModuleType, channel: str) -> None:
    """The block of code at the end of its page is the example's payload; `make pictures` writes it."""
    sent = drawn.payloads()[channel]
    (shown,) = CODE.findall((DOCS / "channels" / f"{channel}.md").read_text(encoding="utf-8"))

    assert (shown if isinstance(sent, str) else json.loads(shown)) == (sent.strip() if isinstance(sent, str) else sent)


def test_each_picture_is_drawn_from_the_payload(drawn: ModuleType) -> None:
    """Headline, reasons and link texts of the example stand in every picture, and each picture in its page."""
    for channel, page in drawn.pages().items():
        text = text_of(page)
        assert "amount is 950.00, expected about 42" in text or '"expected": "about 42"' in text, channel
        assert "card …1234" in text, channel
        assert f"]({channel}.png)" in (DOCS / "channels" / f"{channel}.md").read_text(encoding="utf-8")
        assert (DOCS / "channels" / f"{channel}.png").stat().st_size < 150_000


def test_slack_picture_has_every_block(drawn: ModuleType) -> None:
    """No block of the message is left out, and markup is not shown as text."""
    text = text_of(drawn.pages()["slack"])

    for part in ("High: card …1234 in payments", "At stake 1,234.50", "Fraud, or fine?", "Review", "payments · al_"):
        assert part in text
    assert "*When*" not in text


def test_teams_card_is_the_one_that_apprise_posts(drawn: ModuleType) -> None:
    """An Adaptive Card with headline and text; nothing is sent for it."""
    card = drawn.teams_card()

    assert card["type"] == "AdaptiveCard"
    texts = [block["text"] for block in card["body"] if block["type"] == "TextBlock"]
    assert texts[0] == drawn.EXAMPLE.title
    assert "amount is 950.00, expected about 42" in texts[1]
