"""The ONNX graph of the novelty members."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detector.members.neighbours import CANCELLED
from detector.members.novelty import CURVED, FAR, LINEAR, MOST, NEARER, RESOLVED, SCALINGS, SCORES

if TYPE_CHECKING:
    import onnx

    from detector.members.novelty import KnownRows

VAST = np.float32(1e18)
"""Its square is still a float32. Spreads beyond which an inverse hyperbolic sine is a little too small."""
CHUNK = 2000
"""Known rows beside those of the kernel whose distances are computed together, so that memory stays bounded."""


def graph_of(known: KnownRows) -> onnx.ModelProto:
    """``far``, ``space`` → ``neighbours``, ``contraction`` (n, 1).

    Sums are matrix products, because ONNX Runtime's own reductions add in an order that depends on where a row lies
    in memory. The first known rows are those of the kernel, so their distances are computed once. An inverse hyperbolic
    sine is written out, because ONNX Runtime's own takes one number at a time.
    """
    from detector.onnx import text as onnx_text

    n_numeric, width = len(known.range), known.rows[LINEAR].shape[1]
    constants: dict[str, NDArray[Any] | np.generic] = {
        "from": np.array([n_numeric]),
        "to": np.array([width]),
        "axis": np.array([1]),
        "ones": np.ones((width, 1), dtype=np.float32),
        "behind": np.array([0, 0, 0, 1]),
        "nowhere": np.array([0]),
        "last": np.array([width + 1]),
        "nought": np.float32(0),
        "one": np.float32(1),
        "resolved": np.float32(RESOLVED),
        "kept": np.float32(1 - CANCELLED),
        "cancelled": np.float32(CANCELLED),
        "half": np.float32(1 / len(SCALINGS)),
        "nearer": np.float32(1 / NEARER**2),
        "middle": known.middle,
        "most": MOST,
        "least": -MOST,
        "far_away": FAR,
        "far_below": -FAR,
        "range": known.range,
        "spread": known.spread,
        "vast": VAST,
    }
    lines = ["rest = Slice (space, from, to, axis)"]
    if n_numeric:
        lines += [
            "wide = Clip (far, least, most)",
            "centred = Sub (wide, middle)",
            "ranged = Div (centred, range)",
            "size = Abs (ranged)",
            "sign = Sign (ranged)",
            "over = Sub (size, far_away)",
            "beyond = Max (over, nought)",
            "grown = Add (beyond, one)",
            "damped = Log (grown)",
            "signed = Mul (sign, damped)",
            "inside = Clip (ranged, far_below, far_away)",
            "linear_numbers = Add (inside, signed)",
            "spreads = Div (centred, spread)",
            "steep = Abs (spreads)",
            "held = Min (steep, vast)",
            "squares = Mul (held, held)",
            "above = Add (squares, one)",
            "root = Sqrt (above)",
            "doubled = Add (steep, root)",
            "arc = Log (doubled)",
            "curved_numbers = Mul (sign, arc)",
        ]
    for name, sizes in known.sizes.items():
        constants[f"{name}_sizes"] = sizes
        lines.append(f"{name}_rest = Mul (rest, {name}_sizes)")
    for name in SCALINGS:
        if not n_numeric:
            lines.append(f"{name} = Identity ({name}_rest)")
        elif n_numeric == width:
            lines.append(f"{name} = Identity ({name}_numbers)")
        else:
            lines.append(f"{name} = Concat <axis = 1> ({name}_numbers, {name}_rest)")
        lines += _lines(known, name, constants)
    for score in SCORES:
        lines += [
            f"{score}_sum = Add ({LINEAR}_{score}, {CURVED}_{score})",
            f"{score} = Mul ({score}_sum, half)",
        ]
    inputs = ["float[n, space_width] space"]
    inputs += ["float[n, far_width] far"] if n_numeric else []
    outputs = [f"float[n, 1] {score}" for score in SCORES]
    return onnx_text.model("known_rows", inputs, outputs, lines, constants)


def _lines(known: KnownRows, name: str, constants: dict[str, NDArray[Any] | np.generic]) -> list[str]:
    """The lines of one scaling, and their constants.

    ``pull`` is what a kernel's exponent is, up to what is the same for all known rows: their products with a row less
    half their squared length, over the squared width. The length is a product, too, with a one behind each row, and so
    is the sum of the weights, with that of its cell behind each known row: what is 2000 times as wide as a row is
    passed through memory as few times as can be.
    """
    rows, kernel = known.rows[name], known.contracted
    sharpness = 1.0 / known.bandwidth[name]
    chunks = [*pairwise([0, *range(kernel, len(rows), CHUNK), len(rows)])]
    lines = [f"{name}_longer = Pad ({name}, behind, one)"]
    for i, (start, end) in enumerate(chunks):
        constants[f"{name}_chunk_{i}"] = _augmented(rows[start:end], sharpness)
        lines += [
            f"{name}_pull_{i} = MatMul ({name}_longer, {name}_chunk_{i})",
            f"{name}_most_{i} = ReduceMax <axes = [1], keepdims = 1> ({name}_pull_{i})",
        ]
    cells = known.cells[name]
    weighted = np.hstack([cells.weight[:, None] * cells.centre, cells.weight[:, None]])
    constants |= {f"{name}_kernel": weighted, f"{name}_blunt": np.float32(-2.0 / sharpness)}
    lines += [
        f"{name}_most = Max ({', '.join(f'{name}_most_{i}' for i in range(len(chunks)))})",
        f"{name}_weight = Softmax <axis = 1> ({name}_pull_0)",
        f"{name}_pulled_all = MatMul ({name}_weight, {name}_kernel)",
        f"{name}_pulled = Slice ({name}_pulled_all, nowhere, to, axis)",
        f"{name}_total = Slice ({name}_pulled_all, to, last, axis)",
        f"{name}_mean = Div ({name}_pulled, {name}_total)",
        f"{name}_nearest = Mul ({name}_most, {name}_blunt)",
        f"{name}_square = Mul ({name}, {name})",
        f"{name}_length = MatMul ({name}_square, ones)",
        f"{name}_kept = Mul ({name}_length, kept)",
        f"{name}_shifted = Add ({name}_nearest, {name}_kept)",
        f"{name}_distance = Max ({name}_shifted, nought)",
        f"{name}_resolved = Mul ({name}_length, resolved)",
        f"{name}_residual = Sub ({name}, {name}_mean)",
        f"{name}_residual_square = Mul ({name}_residual, {name}_residual)",
        f"{name}_residual_length = MatMul ({name}_residual_square, ones)",
        f"{name}_rounding = Mul ({name}_length, cancelled)",
        f"{name}_pull_less = Sub ({name}_residual_length, {name}_rounding)",
        f"{name}_pull = Max ({name}_pull_less, nought)",
    ]
    distances = [f"{name}_distance", f"{name}_pull"]
    if len(known.suspicious[name]):
        constants[f"{name}_suspicious"] = _augmented(known.suspicious[name], sharpness)
        lines += [
            f"{name}_suspicious_pull = MatMul ({name}_longer, {name}_suspicious)",
            f"{name}_suspicious_most = ReduceMax <axes = [1], keepdims = 1> ({name}_suspicious_pull)",
            f"{name}_suspicious_nearest = Mul ({name}_suspicious_most, {name}_blunt)",
            f"{name}_suspicious_shifted = Add ({name}_suspicious_nearest, {name}_kept)",
            f"{name}_beside = Max ({name}_suspicious_shifted, nought)",
        ]
        for i, distance in enumerate(distances):
            lines += [
                f"{name}_near_{i} = Min ({distance}, {name}_beside)",
                f"{name}_nearer_{i} = Mul ({distance}, nearer)",
                f"{name}_wary_{i} = Max ({name}_near_{i}, {name}_nearer_{i})",
            ]
        distances = [f"{name}_wary_{i}" for i in range(len(SCORES))]
    for i, (score, distance) in enumerate(zip(SCORES, distances, strict=True)):
        constants |= {
            f"{name}_floor_{i}": np.float32(known.floor[name][i] ** 2),
            f"{name}_location_{i}": np.float32(2 * known.location[name][i]),
            f"{name}_scale_{i}": np.float32(2 * known.scale[name][i]),
        }
        lines += [
            f"{name}_least_{i} = Max ({name}_resolved, {name}_floor_{i})",
            f"{name}_lifted_{i} = Add ({distance}, {name}_least_{i})",
            f"{name}_log_{i} = Log ({name}_lifted_{i})",
            f"{name}_from_{i} = Sub ({name}_log_{i}, {name}_location_{i})",
            f"{name}_{score} = Div ({name}_from_{i}, {name}_scale_{i})",
        ]
    return lines


def _augmented(rows: NDArray[np.float32], sharpness: float) -> NDArray[np.float32]:
    """What a row with a one behind it is multiplied by for its pulls."""
    exact = rows.astype(np.float64)
    return (np.vstack([exact.T, -0.5 * (exact**2).sum(axis=1)]) * sharpness).astype(np.float32)
