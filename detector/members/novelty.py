"""The novelty members: how far a row lies from its nearest known row, and from where the rows around it pull it.

Both are measured in two scalings that fail on different rows: *linear*, where each number's training range is 1, and a
value far outside it is as far as it is; and *curved*, where each number is a hyperbolic sine away from its middle, so
that the bulk of a heavy-tailed column keeps its shape and its tail does not rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Floats, Places
from detector.errors import SettingError
from detector.members.kernel import kernel_width
from detector.members.neighbours import CANCELLED, CHUNK

if TYPE_CHECKING:
    import onnx

LINEAR, CURVED = "linear", "curved"
SCALINGS = (LINEAR, CURVED)
SCORES = ("neighbours", "contraction")
FAR = np.float32(1000.0)
"""Training ranges beyond which a value's distance grows logarithmically, so that its square is still a float32."""
MOST = np.float32(1e15)
STANDARD_ROWS = 5_000
BLOCK = 1_024
LEAST = 1e-6
NEGLIGIBLE = 1e-3
"""Distances below this share of the median are as good as none."""
NORMAL_QUARTILES = 1.349

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class KnownRows:
    """Known rows in two scalings, and two scores of how far a new row lies from them.

    ``neighbours`` is the logarithm of the distance to the nearest known row (Ramaswamy, Rastogi and Shim, SIGMOD 2000),
    ``contraction`` that of the distance to the mean of the known rows, weighted by a Gaussian kernel around the row:
    a row in the midst of others stays where it is, one beside them is pulled towards them. Each is standardised on
    rows left out in turn and averaged over the scalings, so 0 is usual and higher more anomalous.

    - ``rows``, by scaling, (n_references, n_inputs).
    - ``contracted``: how many of them, the first, the kernel is laid over.
    - ``range``, ``middle``, ``spread``, (n_numeric,): of each number, in the units of ``far``.
    - ``unit``, by scaling: the spread of the numbers, by which categories and gaps are multiplied: in training ranges,
      two kinds of shop would lie farther apart than any two amounts.
    - ``bandwidth``, by scaling: squared width of the kernel, the one that best rebuilds known rows from the others.
    - ``floor``, ``location``, ``scale``, by scaling, (2,): a score is ``(log(distance + floor) - location) / scale``.

    With few references a rare but normal row has none near it; with many, scoring takes longer.
    """

    rows: dict[str, Rows]
    contracted: int
    range: Rows
    middle: Rows
    spread: Rows
    unit: dict[str, np.float32]
    bandwidth: dict[str, float]
    floor: dict[str, Floats]
    location: dict[str, Floats]
    scale: dict[str, Floats]

    @classmethod
    def fit(cls, far: Rows, space: Rows, chosen: Places, *, contracted: int) -> Self:
        """Remember the chosen ones of prepared rows, in the order given; the first ``contracted`` carry the kernel.

        ``far`` and ``space`` are those of ``detector.encoding.onnx``. Raises ``SettingError`` if ``contracted`` is not
        positive.
        """
        if contracted < 1:
            raise SettingError(f"contracted must be at least 1. Received: contracted={contracted}.")
        known = np.clip(far[chosen], -MOST, MOST).astype(np.float64)
        low, middle, high = np.percentile(known, [25, 50, 75], axis=0) if known.shape[1] else np.zeros((3, 0))
        extent = np.ptp(known, axis=0)
        quartiles = (high - low) / NORMAL_QUARTILES
        spread = np.where(quartiles > LEAST, quartiles, known.std(axis=0))
        empty = cls(
            rows={},
            contracted=min(contracted, len(chosen)),
            range=np.where(extent > LEAST, extent, 1.0).astype(np.float32),
            middle=np.asarray(middle, dtype=np.float32),
            spread=np.where(spread > LEAST, spread, 1.0).astype(np.float32),
            unit=dict.fromkeys(SCALINGS, np.float32(1)),
            bandwidth={},
            floor={},
            location={},
            scale={},
        )
        for name, rows in empty.scaled(far[chosen], space[chosen]).items():
            variance = rows[:, : far.shape[1]].astype(np.float64).var(axis=0)
            typical = np.sqrt(variance.mean()) if len(variance) else 0.0
            empty.unit[name] = np.float32(typical if typical > LEAST else 1.0)
        for name, rows in empty.scaled(far[chosen], space[chosen]).items():
            empty.rows[name] = np.ascontiguousarray(rows)
            empty.bandwidth[name] = kernel_width(rows[: empty.contracted])
        sample = chosen[:STANDARD_ROWS]
        for name, distances in empty.distances(far[sample], space[sample], np.arange(len(sample))).items():
            floor = np.array([_floor(column, empty.rows[name]) for column in distances.T])
            logarithm = np.log(distances + floor)
            spread_of = logarithm.std(axis=0)
            empty.floor[name], empty.location[name] = floor, logarithm.mean(axis=0)
            empty.scale[name] = np.where(spread_of > LEAST, spread_of, 1.0)
        return empty

    def scaled(self, far: Rows, space: Rows) -> dict[str, Rows]:
        """Rows as distances are measured between them, by scaling, each of shape (n_rows, n_inputs)."""
        rest = space[:, far.shape[1] :]
        wide = np.clip(far, -MOST, MOST)
        linear = (wide - self.middle) / self.range
        beyond = np.maximum(np.abs(linear) - FAR, 0)
        linear = np.clip(linear, -FAR, FAR) + np.sign(linear) * np.log1p(beyond)
        curved = np.arcsinh((wide - self.middle) / self.spread)
        parts = ((LINEAR, linear), (CURVED, curved))
        return {name: np.hstack([part, rest * self.unit[name]]).astype(np.float32) for name, part in parts}

    def score(self, far: Rows, space: Rows, own: Places | None = None) -> Floats:
        """Both scores of each row, shape (n_rows, 2); see ``distances`` for ``own``."""
        parts = [
            (np.log(distances + self.floor[name]) - self.location[name]) / self.scale[name]
            for name, distances in self.distances(far, space, own).items()
        ]
        return np.asarray(np.mean(parts, axis=0))

    def distances(self, far: Rows, space: Rows, own: Places | None = None) -> dict[str, Floats]:
        """By scaling, the distance to the nearest known row and to the kernel's mean, shape (n_rows, 2).

        ``own``, (n_rows,), is the place of each row among the known ones, which is left out; -1 where it is none.
        """
        found: dict[str, Floats] = {}
        for name, rows in self.scaled(far, space).items():
            parts = []
            for block, squared in self._squared(name, rows, own):
                size = (block**2).sum(axis=1)
                nearest = np.sqrt(np.maximum(squared.min(axis=1) + size * (1 - CANCELLED), 0))
                pull = ((block - self._mean(name, squared)) ** 2).sum(axis=1)
                pulled = np.sqrt(np.maximum(pull - CANCELLED * size, 0))
                parts.append(np.column_stack([nearest, pulled]))
            found[name] = np.concatenate(parts or [np.zeros((0, 2))]).astype(np.float64)
        return found

    def differences(self, far: Rows, space: Rows) -> dict[str, Floats]:
        """By score, each input's share of the squared distance, averaged over the scalings, (n_rows, n_inputs)."""
        found = {score: np.zeros(space.shape) for score in SCORES}
        for name, rows in self.scaled(far, space).items():
            half = (self.rows[name].astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
            row = np.empty(rows.shape[1], dtype=np.float32)
            for at in range(len(rows)):  # one by one: products of many rows add up in an order that depends on how many
                row[:] = rows[at]
                squared = half - 2 * (self.rows[name] @ row)
                nearest = self.rows[name][squared.argmin()]
                for score, target in (("neighbours", nearest), ("contraction", self._mean(name, squared[None])[0])):
                    parts = (row - target).astype(np.float64) ** 2
                    found[score][at] += parts / (parts.sum() or 1.0) / len(SCALINGS)
        return found

    def _squared(self, name: str, rows: Rows, own: Places | None) -> Iterator[tuple[Rows, Rows]]:
        """Blocks of rows, and their squared distances to the known ones less their own squared length."""
        half = (self.rows[name].astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            squared = half - 2 * block @ self.rows[name].T
            if own is not None:
                places = own[start : start + BLOCK]
                known = np.flatnonzero(places >= 0)
                if squared.shape[1] > 1:
                    squared[known, places[known]] = np.inf
            yield block, squared

    def _mean(self, name: str, squared: Rows) -> Rows:
        near = squared[:, : self.contracted]
        least = near.min(axis=1, keepdims=True)
        least = np.where(np.isfinite(least), least, 0)
        weight = np.exp((least - near) * np.float32(0.5 / self.bandwidth[name]))
        total = np.maximum(weight.sum(axis=1, keepdims=True), np.float32(1e-30))
        return np.asarray(weight @ self.rows[name][: self.contracted] / total)

    def to_onnx(self) -> onnx.ModelProto:
        """``far``, ``space`` → ``neighbours``, ``contraction`` (n, 1).

        Sums are matrix products, because ONNX Runtime's own reductions add in an order that depends on where a row lies
        in memory. The first chunk of the known rows is that of the kernel, so its distances are computed once.
        """
        from detector.onnx import text as onnx_text

        n_numeric, width = len(self.range), self.rows[LINEAR].shape[1]
        constants: dict[str, NDArray[Any] | np.generic] = {
            "from": np.array([n_numeric]),
            "to": np.array([width]),
            "axis": np.array([1]),
            "ones": np.ones((width, 1), dtype=np.float32),
            "every": np.ones((self.contracted, 1), dtype=np.float32),
            "nought": np.float32(0),
            "one": np.float32(1),
            "kept": np.float32(1 - CANCELLED),
            "cancelled": np.float32(CANCELLED),
            "half": np.float32(1 / len(SCALINGS)),
            "middle": self.middle,
            "most": MOST,
            "least": -MOST,
            "far_away": FAR,
            "far_below": -FAR,
            "range": self.range,
            "spread": self.spread,
            **{f"{name}_unit": self.unit[name] for name in SCALINGS},
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
                "curved_numbers = Asinh (spreads)",
            ]
        for name in SCALINGS:
            if n_numeric == width:
                lines.append(f"{name} = Identity ({name}_numbers)")
            else:
                parts = f"{name}_numbers, {name}_rest" if n_numeric else f"{name}_rest"
                lines += [f"{name}_rest = Mul (rest, {name}_unit)", f"{name} = Concat <axis = 1> ({parts})"]
            lines += self._lines(name, constants)
        for score in SCORES:
            lines += [
                f"{score}_sum = Add ({LINEAR}_{score}, {CURVED}_{score})",
                f"{score} = Mul ({score}_sum, half)",
            ]
        inputs = ["float[n, space_width] space"]
        inputs += ["float[n, far_width] far"] if n_numeric else []
        outputs = [f"float[n, 1] {score}" for score in SCORES]
        return onnx_text.model("known_rows", inputs, outputs, lines, constants)

    def _lines(self, name: str, constants: dict[str, NDArray[Any] | np.generic]) -> list[str]:
        """The lines of one scaling, and their constants."""
        rows, kernel = self.rows[name], self.contracted
        starts = [0, *range(kernel, len(rows), CHUNK), len(rows)] if len(rows) > kernel else [0, len(rows)]
        lines = []
        for i, (start, end) in enumerate(pairwise(starts)):
            chunk = rows[start:end]
            constants[f"{name}_chunk_{i}"] = np.ascontiguousarray(-2.0 * chunk.T)
            constants[f"{name}_norm_{i}"] = (chunk.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
            lines += [
                f"{name}_product_{i} = MatMul ({name}, {name}_chunk_{i})",
                f"{name}_squared_{i} = Add ({name}_product_{i}, {name}_norm_{i})",
                f"{name}_near_{i} = ReduceMin <axes = [1], keepdims = 1> ({name}_squared_{i})",
            ]
        constants |= {
            f"{name}_kernel": rows[:kernel],
            f"{name}_sharpness": np.float32(-0.5 / self.bandwidth[name]),
        }
        near = ", ".join(f"{name}_near_{i}" for i in range(len(starts) - 1))
        lines += [
            f"{name}_candidates = Concat <axis = 1> ({near})",
            f"{name}_nearest = ReduceMin <axes = [1], keepdims = 1> ({name}_candidates)",
            f"{name}_square = Mul ({name}, {name})",
            f"{name}_length = MatMul ({name}_square, ones)",
            f"{name}_kept = Mul ({name}_length, kept)",
            f"{name}_shifted = Add ({name}_nearest, {name}_kept)",
            f"{name}_bounded = Max ({name}_shifted, nought)",
            f"{name}_distance = Sqrt ({name}_bounded)",
            f"{name}_excess = Sub ({name}_squared_0, {name}_near_0)",
            f"{name}_exponent = Mul ({name}_excess, {name}_sharpness)",
            f"{name}_weight = Exp ({name}_exponent)",
            f"{name}_total = MatMul ({name}_weight, every)",
            f"{name}_pulled = MatMul ({name}_weight, {name}_kernel)",
            f"{name}_mean = Div ({name}_pulled, {name}_total)",
            f"{name}_residual = Sub ({name}, {name}_mean)",
            f"{name}_residual_square = Mul ({name}_residual, {name}_residual)",
            f"{name}_residual_length = MatMul ({name}_residual_square, ones)",
            f"{name}_rounding = Mul ({name}_length, cancelled)",
            f"{name}_pull_less = Sub ({name}_residual_length, {name}_rounding)",
            f"{name}_pull_bounded = Max ({name}_pull_less, nought)",
            f"{name}_pull = Sqrt ({name}_pull_bounded)",
        ]
        for i, (score, distance) in enumerate(zip(SCORES, (f"{name}_distance", f"{name}_pull"), strict=True)):
            for what in ("floor", "location", "scale"):
                constants[f"{name}_{what}_{i}"] = np.float32(getattr(self, what)[name][i])
            lines += [
                f"{name}_lifted_{i} = Add ({distance}, {name}_floor_{i})",
                f"{name}_log_{i} = Log ({name}_lifted_{i})",
                f"{name}_from_{i} = Sub ({name}_log_{i}, {name}_location_{i})",
                f"{name}_{score} = Div ({name}_from_{i}, {name}_scale_{i})",
            ]
        return lines

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        numbers = {name: getattr(self, name) for name in ("range", "middle", "spread")}
        per_scaling = {
            f"{what}_{name}": np.asarray(getattr(self, what)[name])
            for what in ("rows", "unit", "bandwidth", "floor", "location", "scale")
            for name in SCALINGS
        }
        return {**numbers, **per_scaling, "contracted": np.array(self.contracted)}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``; reads one without units, too."""
        values: dict[str, Any] = {name: arrays[name] for name in ("range", "middle", "spread")}
        for what in ("rows", "floor", "location", "scale"):
            values[what] = {name: arrays[f"{what}_{name}"] for name in SCALINGS}
        bandwidth = {name: float(arrays[f"bandwidth_{name}"]) for name in SCALINGS}
        unit = {name: np.float32(arrays.get(f"unit_{name}", 1)) for name in SCALINGS}
        return cls(unit=unit, bandwidth=bandwidth, contracted=int(arrays["contracted"]), **values)


def _floor(distances: Floats, rows: Rows) -> float:
    """What is added to distances before their logarithm: less than nearly all of them, and more than they round by."""
    positive = distances[distances > 0]
    if not len(positive):
        return 1.0
    rounding = float(np.sqrt(CANCELLED * np.median((rows.astype(np.float64) ** 2).sum(axis=1))))
    return max(LEAST, rounding, 0.1 * float(np.quantile(positive, 0.01)), NEGLIGIBLE * float(np.median(positive)))
