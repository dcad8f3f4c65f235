"""``python -m pipelines`` is ``detector``."""

from __future__ import annotations

from pipelines.cli import app
from pipelines.parent import end_with_parent

if __name__ == "__main__":
    end_with_parent()  # a job of the service ends with it
    app(prog_name="detector")
