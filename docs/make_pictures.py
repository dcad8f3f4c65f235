"""Pictures of the pages, from the demo: ``make pictures``. Needs a Chromium; nothing else in the project does."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Name, page in the demo's folder, width, height, dark.
WANTED = (
    ("report", "report.html", 1200, 1160, False),
    ("report-phone-dark", "report.html", 390, 1500, True),
)
FRAME = """<!doctype html>
<style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<iframe src="{page}" width="{width}" height="{height}"></iframe>
"""


def take(browser: str, page: Path, *, width: int, height: int, dark: bool, into: Path) -> None:
    """One picture; in a frame of the width, because a browser's own window is never as narrow as a phone."""
    with tempfile.TemporaryDirectory() as folder:
        frame, shown = Path(folder) / "frame.html", Path(folder) / page.name
        place = str(page.resolve().parent)  # which machine it was made on is nobody's business
        shown.write_text(page.read_text(encoding="utf-8").replace(place, page.parent.name), encoding="utf-8")
        frame.write_text(FRAME.format(page=shown.as_uri(), width=width, height=height), encoding="utf-8")
        colours = ["--blink-settings=preferredColorScheme=0"] if dark else []
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--allow-file-access-from-files",
                *colours,
                f"--window-size={width},{height}",
                f"--screenshot={into}",
                frame.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Take all pictures of a demo's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Where `detector demo` left its results.")
    folder = parser.parse_args().folder
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"None of {', '.join(BROWSERS)} was found. Install one: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    for name, page, width, height, dark in WANTED:
        take(browser, folder / page, width=width, height=height, dark=dark, into=PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
