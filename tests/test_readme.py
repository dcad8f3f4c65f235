"""What the first page shows is what comes out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_readme_example_flags_what_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    """The example runs as it stands, and flags the two odd rows that it made, with the amount as the reason."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    exec(compile(code, "README.md", "exec"), {})

    printed = capsys.readouterr().out
    (shown,) = re.findall(r"```text\n( row .*?)```", README, re.DOTALL)
    for text in (printed, shown):
        rows = [line.split()[:3] for line in text.splitlines()[1:] if line.strip()]
        assert rows == [["17", "amount", "950.00,"], ["404", "amount", "480.00,"]]


def test_readme_is_short_and_its_pictures_are_there() -> None:
    """A page to read in minutes; no picture is missing."""
    assert len(README.splitlines()) <= 150
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", README)
    assert pictures
    assert all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)
