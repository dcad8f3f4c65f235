"""From an autoencoder's errors to its surprise about each input, and to its score of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detector.encoders.table import FittedNetwork
from detector.encoding.table import TableEncoder

if TYPE_CHECKING:
    import onnx

FLOOR = 1e-3


def surprise_of(network: FittedNetwork, columns: TableEncoder, n_rows: int) -> onnx.ModelProto:
    """``error`` → ``surprise`` of each input in nats, and its logarithm summed as the member's score.

    A number's residual counts as under one Gaussian for all columns, whose variance is the mean squared residual of
    rows the network was not trained on; a category by its cross-entropy; a missing cell by how rare gaps are in
    its column.
    """
    from detector.onnx import text as onnx_text

    n_numeric, n_labels = len(columns.centre), len(columns.levels)
    variance = max(float(network.probe_error[:, :n_numeric].mean()), 1e-6) if n_numeric else 1.0
    constants: dict[str, Any] = {
        "weight": np.array([0.5 / variance] * n_numeric + [1.0] * n_labels, dtype=np.float32),
        "floor": np.float32(FLOOR),
        "share": np.full((n_numeric + n_labels, 1), 1 / (n_numeric + n_labels), dtype=np.float32),
    }
    lines = ["weighted = Mul (error, weight)"]
    inputs = [f"float[n, {n_numeric + n_labels}] error"]
    if n_numeric:
        cost = np.hstack([np.diag(columns.missing_surprise(n_rows)), np.zeros((n_numeric, n_labels), dtype=np.float32)])
        constants["cost"] = cost.astype(np.float32)
        inputs.append(f"float[n, {n_numeric}] missing")
        lines += ["gap = MatMul (missing, cost)", "surprise = Add (weighted, gap)"]
    else:
        lines.append("surprise = Identity (weighted)")
    lines += [
        "mean = MatMul (surprise, share)",
        "lifted = Add (mean, floor)",
        "autoencoder = Log (lifted)",
    ]
    outputs = [f"float[n, {n_numeric + n_labels}] surprise", "float[n, 1] autoencoder"]
    return onnx_text.model("surprise", inputs, outputs, lines, constants)
