"""Where the loader inside models logged to MLflow by an earlier version looks for ``detector.policy``."""

from __future__ import annotations

from detector.decide.policy import Budget, Policy

__all__ = ["Budget", "Policy"]
