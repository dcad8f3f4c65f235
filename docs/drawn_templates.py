"""Which templates the pictures of report and console were drawn from, so that a test can tell when they grow old."""

from __future__ import annotations

import hashlib
from pathlib import Path

DRAWN_FROM = Path(__file__).parent / "pictures" / "drawn_from.json"
TEMPLATES = {
    "console": (
        *(f"console/{name}.html.j2" for name in ("base", "macros", "queue", "alert", "rule", "health")),
        "console/static/console.css",
    ),
    "report": ("report.html.j2", "page.css"),
}


def digest_of(part: str) -> str:
    """The fingerprint of a part's templates as they are now."""
    folder = Path(__file__).parents[1] / "pipelines" / "templates"
    found = hashlib.sha256()
    for name in TEMPLATES[part]:
        found.update((folder / name).read_bytes())
    return found.hexdigest()[:16]
