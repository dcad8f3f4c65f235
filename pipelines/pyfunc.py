"""Where models already logged to MLflow look for their loader: ``loader_module: pipelines.pyfunc`` stands in them."""

from __future__ import annotations

from pipelines.tracking.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
