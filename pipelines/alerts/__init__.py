"""Alerts: flagged rows → events → few, explained alerts → an outbox in the transaction of the scores → targets.

``enqueue`` is called in the transaction that keeps the scores; ``deliver`` is a job of the service.
"""

from __future__ import annotations

from typing import Any

__all__ = ["deliver", "enqueue"]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used, so that the command line stays quick."""
    from importlib import import_module

    homes = {"deliver": "pipelines.alerts.delivery.deliver", "enqueue": "pipelines.alerts.outbox.enqueue"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
