"""``python -m pipelines`` is ``detector``."""

from __future__ import annotations

from pipelines.cli import app

if __name__ == "__main__":
    app(prog_name="detector")
