"""Where the loader inside models logged to MLflow by an earlier version looks for ``detector.bundle``."""

from __future__ import annotations

from detector.persist.bundle import Scorer, load

__all__ = ["Scorer", "load"]
