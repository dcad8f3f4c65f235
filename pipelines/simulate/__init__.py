"""Data with known anomalies: card payments and machines, so that the project can show what it finds."""

from __future__ import annotations

from pipelines.simulate.history import with_history
from pipelines.simulate.sensors import simulate_sensors
from pipelines.simulate.transactions import simulate as simulate_transactions

__all__ = ["simulate_sensors", "simulate_transactions", "with_history"]
