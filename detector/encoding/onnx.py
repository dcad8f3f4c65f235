"""A fitted table encoder → the ONNX graph that prepares rows for the members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.encoding.table import ONE_HOT_LEVELS, TableEncoder

if TYPE_CHECKING:
    import onnx


GAP = 0.3
"""What a gap counts in distances, where a standard deviation is 1. Larger, and rows are far from all others because
gaps are rare; autoencoder and forest judge gaps by how rare they are."""


def to_onnx(columns: TableEncoder) -> onnx.ModelProto:
    """The graph from ``numeric`` and ``codes`` to what the members read.

    Outputs, all float32: ``values`` (n, n_numeric) scaled, 0 where missing; ``missing`` (n, n_numeric) 1 where
    missing; ``far`` (n, n_numeric) the values before their tails are damped; ``labels`` (n, n_categorical) the codes as
    numbers; ``table`` (n, ·) values, indicators of columns
    that had gaps in training, and rarities; ``space`` (n, ·) the same with categories one-hot, at most
    ``ONE_HOT_LEVELS`` wide, and gaps smaller, so that distances mean something.
    """
    from detector.onnx import text as onnx_text

    lines: list[str] = []
    constants: dict[str, NDArray[Any] | np.generic] = {}
    table, space, outputs = [], [], ["table", "space"]
    if len(columns.centre):
        gaps = np.flatnonzero(columns.missing_rate > 0)
        constants |= {"centre": columns.centre, "scale": columns.scale, "zero": np.float64(0), "gaps": gaps}
        constants |= {"tail": np.float32(columns.tail), "low": np.float32(-columns.tail), "one": np.float32(1)}
        constants |= {"huge": np.float64(1e30), "tiny": np.float64(-1e30), "nought": np.float32(0)}
        constants["gap"] = np.float32(GAP)
        lines += [
            "is_missing = IsNaN (numeric)",
            "centred = Sub (numeric, centre)",
            "divided = Div (centred, scale)",
            "filled = Where (is_missing, zero, divided)",
            "bounded = Clip (filled, tiny, huge)",
            "z = Cast <to = 1> (bounded)",
            "far = Identity (z)",
            "size = Abs (z)",
            "sign = Sign (z)",
            "beyond = Sub (size, tail)",
            "excess = Max (beyond, nought)",
            "grown = Add (excess, one)",
            "damped = Log (grown)",
            "signed = Mul (sign, damped)",
            "inside = Clip (z, low, tail)",
            "values = Add (inside, signed)",
            "missing = Cast <to = 1> (is_missing)",
            "gap_flags = Gather <axis = 1> (missing, gaps)",
            "small_flags = Mul (gap_flags, gap)",
        ]
        table += ["values", *(["gap_flags"] if len(gaps) else [])]
        space += ["values", *(["small_flags"] if len(gaps) else [])]
        outputs += ["values", "missing", "far"]
    if columns.levels:
        lines.append("labels = Cast <to = 1> (codes)")
        outputs.append("labels")
    for i, cardinality in enumerate(columns.cardinalities):
        rarity = columns.rarity(i)[:, None]
        width = min(cardinality, ONE_HOT_LEVELS)
        one_hot = np.zeros((cardinality, width), dtype=np.float32)
        one_hot[np.arange(cardinality), np.minimum(np.arange(cardinality), width - 1)] = np.sqrt(0.5)
        constants |= {f"column_{i}": np.int64(i), f"rarity_{i}": rarity, f"one_hot_{i}": one_hot}
        lines += [
            f"code_{i} = Gather <axis = 1> (codes, column_{i})",
            f"rare_{i} = Gather (rarity_{i}, code_{i})",
            f"hot_{i} = Gather (one_hot_{i}, code_{i})",
        ]
        table.append(f"rare_{i}")
        space.append(f"hot_{i}")
    lines += [f"table = Concat <axis = 1> ({', '.join(table)})", f"space = Concat <axis = 1> ({', '.join(space)})"]
    given = {"double[n, p] numeric": len(columns.centre), "int64[n, c] codes": len(columns.levels)}
    return onnx_text.model(
        "prepare",
        [name for name, size in given.items() if size],
        [f"float[n, {name}_width] {name}" for name in outputs],
        lines,
        constants,
    )
