"""Commands that find their configuration: the detector.yaml of the working folder, where none is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

FILE_NAME = "detector.yaml"
HERE = "."
F = TypeVar("F", bound=Callable[..., Any])


class ProjectCommand(TyperCommand):
    """A command whose first argument, CONFIG, may be left out in a folder that holds a detector.yaml.

    ``detector alerts show al_3f2a`` is then ``detector alerts show . al_3f2a``: what is no file or folder, and has room
    behind a configuration, is the argument after it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, with the configuration put in where it was left out."""
        places = [each for each in self.params if each.param_type_name == "argument"]
        if places and places[0].name == "config" and not {"-h", "--help"} & set(args):
            given = self._given(ctx, list(args), [str(each.name) for each in places])
            if given is not None and len(given) < len(places) and not (given and _is_place(given[0])):
                if Path(FILE_NAME).is_file():
                    args = [HERE, *args]
                elif not given:
                    ctx.fail(
                        f"There is no {FILE_NAME} in this folder. Name one, or its folder: {ctx.command_path} FOLDER"
                    )
        return list(super().parse_args(ctx, args))

    def _given(self, ctx: Any, args: list[str], names: list[str]) -> list[str] | None:
        """The arguments of a command line without its options; None if it cannot be read, which is said later."""
        try:
            values, rest, _ = self.make_parser(ctx).parse_args(args)
        except Exception:  # noqa: BLE001 - the same parser runs again and says it
            return None
        return [value for name in names if isinstance(value := values.get(name), str)] + list(rest)


class Commands(typer.Typer):
    """A group of such commands."""

    def command(  # type: ignore[override]  # the others of its settings have names that are kept
        self, name: str | None = None, *, cls: type[TyperCommand] = ProjectCommand, **settings: Any
    ) -> Callable[[F], F]:
        """Add a command."""
        return super().command(name, cls=cls, **settings)


def _is_place(text: str) -> bool:
    """Whether an argument can only be a file or a folder; keys such as 2026/17 and rules such as a / b > 1 are none."""
    is_below = os.sep in text and Path(Path(text).parts[0]).exists()
    return is_below or text.endswith((".yaml", ".yml")) or Path(text).exists()
