"""Every command as Markdown: ``python -m pipelines.cli.reference FILE`` writes the page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from pipelines.cli import app

INTRODUCTION = """\
# Commands

What `detector --help` says, in one page. In a folder that holds a `detector.yaml`, CONFIG can be left out. A command
ends with 0 when it worked, 2 when the command line or the configuration is wrong, and 1 when it failed. Progress goes
to standard error, so what a command prints can be piped.

This page is written by `make settings` from the program itself.
"""


def render() -> str:
    """The page that documents every command.

    >>> "## detector alerts answer" in render()
    True
    """
    program = typer.main.get_command(app)
    lines = [INTRODUCTION]
    for name, command in _listed(program):
        lines += list(_command(f"detector {name}", command))
    return "\n".join(lines)


def _listed(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name, in the order of the help; hidden ones left out."""
    for name, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            yield from _listed(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _command(name: str, command: Any) -> Iterator[str]:
    shown = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    places = [each for each in shown if each.param_type_name == "argument"]
    usage = " ".join(_place(each) for each in places)
    yield from (f"## {name}", "", _plain(command.help), "", "```sh", f"{name} {usage}".strip(), "```", "")
    if shown:
        yield from ("| | |", "|---|---|")
        for each in shown:
            yield f"| {_name(each)} | {_cell(each)} |"
        yield ""
    if command.epilog:
        yield from (f"Example: `{_plain(command.epilog).removeprefix('Example: ')}`", "")


def _place(each: Any) -> str:
    name = _metavar(each)
    return name if each.required else f"[{name}]"


def _metavar(each: Any) -> str:
    return str(each.metavar or each.name).strip("[]").upper()


def _name(each: Any) -> str:
    if each.param_type_name == "argument":
        return f"`{_metavar(each)}`".replace("|", "\\|")
    value = "" if each.is_flag else f" {each.metavar or str(each.name).upper()}"
    return ", ".join(f"`{option}{value}`" for option in each.opts)


def _cell(each: Any) -> str:
    text = _plain(getattr(each, "help", "") or "")
    default = each.default
    if isinstance(default, Enum):
        text += f" One of {', '.join(f'`{choice.value}`' for choice in type(default))}."
    if default not in (None, False, "", ()) and not callable(default) and not getattr(each, "is_flag", False):
        text += f" By default `{getattr(default, 'value', default)}`."
    return text.strip().replace("|", "\\|")


def _plain(text: str | None) -> str:
    """Without the marks that rich reads."""
    return re.sub(r"\[/?(?:bold)?\]", "", (text or "").strip())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
