"""Where each demo puts its project, and that it replaces no other."""

from __future__ import annotations

from pathlib import Path

import yaml

from detector.errors import SettingError
from pipelines.config import FILE_NAME

FOLDERS = {"table": Path("demo"), "transactions": Path("demo"), "sensors": Path("demo-sensors")}
NAMES = {"table": "demo-payments", "transactions": "demo-payments", "sensors": "demo-machines"}


def refuse_other_project(folder: Path, template: str) -> None:
    """Raise ``SettingError`` if a folder holds a configuration that is not of this demo.

    A demo replaces what an earlier one of its kind left, which nobody wrote.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = found.get("name") if isinstance(found, dict) else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        name = None
    if name != NAMES[template]:
        what = f"the project {name!r}" if name else "another project"
        raise SettingError(
            f"{file} is of {what}, and the demo would replace it. Name another folder: "
            f"detector demo --template {template} --folder {folder}-{NAMES[template].removeprefix('demo-')}"
        )


def from_here(place: Path) -> str:
    """A path as short as it can be typed in the working folder."""
    here = Path.cwd()
    return str(place.relative_to(here)) if place.is_relative_to(here) and place != here else str(place)
