"""The novelty members: how far a row lies from its nearest known row, and from where the rows around it pull it.

Both are measured in two scalings that fail on different rows: *linear*, where each number's training range is 1, a
value far outside it is as far as it is, and all categories are as far apart; and *curved*, where each number is a
hyperbolic sine away from its middle, so that the bulk of a heavy-tailed column keeps its shape and its tail does not
rule, and rare categories are farther from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats, Places
from detector.errors import SettingError
from detector.members.kernel import Cells, choose_prototypes, kernel_width, nearest_of, times
from detector.members.neighbours import CANCELLED
from detector.members.rare_values import SMOOTHING, RareValues

LINEAR, CURVED = "linear", "curved"
SCALINGS = (LINEAR, CURVED)
SCORES = ("neighbours", "contraction")
FAR = np.float32(1000.0)
"""Training ranges beyond which a value's distance grows logarithmically, so that its square is still a float32."""
MOST = np.float32(1e15)
STANDARD_ROWS = 5_000
BLOCK = 256
"""Rows whose distances are looked at together while fitting: they stay in the processor's cache."""
EXPLAINED = 16
"""Rows explained together: their distances stay in the processor's cache."""
LEAST = 1e-6
NEGLIGIBLE = 1e-3
"""Distances below this share of the median are as good as none."""
RESOLVED = 1.5e-5
"""So are squared distances below this share of a row's own squared length: float32 rounds by a tenth of that and more,
see ``KnownRows.rounding``."""
NORMAL_QUARTILES = 1.349
ALIKE = 2 * np.exp(-1) - SMOOTHING
"""Of one known row, so often is seen what tells one nat."""
USUAL_SHARE = 0.95
"""Of the known rows, those nearest to the bulk. Larger, and odd rows among them explain others as odd; smaller, and
what tells apart two kinds of normal rows is given as a reason."""
NEARER = 2.0
"""How many times nearer than to the known rows a row may count for lying beside a suspicious one. Smaller, and rare
normal rows are strange for being rare; larger, and anomalies among the training rows hide those that resemble them."""

Rows = NDArray[np.float32]
NONE: Places = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class KnownRows:
    """Known rows in two scalings, and two scores of how far a new row lies from them.

    ``neighbours`` is the logarithm of the distance to the nearest known row (Ramaswamy, Rastogi and Shim, SIGMOD 2000),
    ``contraction`` that of the distance to the mean of the known rows, weighted by a Gaussian kernel around the row:
    a row in the midst of others stays where it is, one beside them is pulled towards them. Each is standardised on
    rows left out in turn and averaged over the scalings, so 0 is usual and higher more anomalous.

    - ``rows``, by scaling, (n_references, n_inputs): rows that stand for all that are known.
    - ``suspicious``, by scaling, (n_suspicious, n_inputs): training rows that may be anomalies. Beside one of them a
      row is as near as to it, but at most ``NEARER`` times nearer than it would be without.
    - ``contracted``: over how many of these, the first, the kernel is laid.
    - ``usual``, (n_references,): which of these are, so that others are explained by how they differ from one.
    - ``cells``, by scaling: the known rows that each of them stands for.
    - ``rare``: how rare the values of categories are.
    - ``range``, ``middle``, ``spread``, (n_numeric,): of each number, in the units of ``far``.
    - ``unit``, by scaling: the spread of the numbers, by which categories and gaps are multiplied: in training ranges,
      two kinds of shop would lie farther apart than any two amounts.
    - ``bandwidth``, by scaling: squared width of the kernel, the one that best rebuilds known rows from the others.
    - ``floor``, ``location``, ``scale``, by scaling, (2,): a score is ``(log(distance) - location) / scale``, where a
      distance is not much less than the floor.

    With few references a rare but normal row has none near it; with many, scoring takes longer.

    While fitting, ``own`` says of each known row its place among ``rows``, or -1, and ``cell``, by scaling, its cell.
    """

    rows: dict[str, Rows]
    suspicious: dict[str, Rows]
    usual: Flags
    contracted: int
    cells: dict[str, Cells]
    rare: RareValues
    range: Rows
    middle: Rows
    spread: Rows
    unit: dict[str, np.float32]
    bandwidth: dict[str, float]
    floor: dict[str, Floats]
    location: dict[str, Floats]
    scale: dict[str, Floats]
    own: Places = field(default_factory=lambda: NONE)
    cell: dict[str, Places] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        far: Rows,
        space: Rows,
        chosen: Places,
        *,
        contracted: int,
        references: int | None = None,
        suspicious: Places = NONE,
        rarity: Floats | None = None,
    ) -> Self:
        """Know the chosen ones of prepared rows, in random order, and remember as many ``references``, or all.

        The first ``contracted`` of these carry the kernel. ``suspicious`` are the places of those that may be
        anomalies; scales are learnt without them. ``rarity``, (n_rows,), is how far each row lies from the bulk: the
        rarest are not usual. ``far`` and ``space`` are those of ``detector.encoding.onnx``. Raises ``SettingError`` if
        ``contracted`` is not positive.
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
            suspicious={},
            usual=np.ones(0, dtype=bool),
            contracted=min(contracted, references or len(chosen), len(chosen)),
            cells={},
            rare=RareValues.fit(space[chosen, far.shape[1] :]),
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
        every = empty.scaled(far[chosen], space[chosen])
        remembered = choose_prototypes(_together(every), references or len(chosen))
        own = np.full(len(chosen), -1)
        own[remembered] = np.arange(len(remembered))
        far_out = np.zeros(len(chosen)) if rarity is None else rarity[chosen]
        usual = far_out[remembered] <= np.quantile(far_out, USUAL_SHARE)
        usual |= not usual[: empty.contracted].any()  # then none is more usual than others
        empty = replace(empty, own=own, usual=usual)
        for name, rows in every.items():
            empty.rows[name] = np.ascontiguousarray(rows[remembered])
            kernel = empty.rows[name][: empty.contracted]
            empty.cell[name] = cell = nearest_of(rows, kernel)
            empty.cells[name] = Cells.of(rows, cell, len(kernel))
            empty.bandwidth[name] = kernel_width(rows, kernel, empty.cells[name], cell)
        empty.suspicious.update(empty.scaled(far[suspicious], space[suspicious]))
        sample = chosen[:STANDARD_ROWS]
        for name, (distances, size) in empty._distances(far[sample], space[sample], np.arange(len(sample))).items():
            empty.floor[name] = np.array([_floor(column, empty.rows[name]) for column in distances.T])
            logarithm = empty._logarithms(name, distances, size)
            spread_of = logarithm.std(axis=0)
            empty.location[name] = logarithm.mean(axis=0)
            empty.scale[name] = np.where(spread_of > LEAST, spread_of, 1.0)
        return empty

    def scaled(self, far: Rows, space: Rows) -> dict[str, Rows]:
        """Rows as distances are measured between them, by scaling, each of shape (n_rows, n_inputs)."""
        rest = space[:, far.shape[1] :]
        wide = np.clip(far, -MOST, MOST)
        linear = (wide - self.middle) / self.range
        beyond = np.maximum(np.abs(linear) - FAR, 0)
        linear = np.clip(linear, -FAR, FAR) + np.sign(linear) * np.log1p(beyond)
        parts = {LINEAR: linear, CURVED: np.arcsinh((wide - self.middle) / self.spread)}
        return {name: np.hstack([part, rest * self.sizes[name]]).astype(np.float32) for name, part in parts.items()}

    def score(self, far: Rows, space: Rows, own: Places | None = None) -> Floats:
        """Both scores of each row, shape (n_rows, 2); see ``distances`` for ``own``."""
        parts = [
            (self._logarithms(name, *found) - self.location[name]) / self.scale[name]
            for name, found in self._distances(far, space, own).items()
        ]
        return np.asarray(np.mean(parts, axis=0))

    def distances(self, far: Rows, space: Rows, own: Places | None = None) -> dict[str, Floats]:
        """By scaling, the distance to the nearest known row and to the kernel's mean, shape (n_rows, 2).

        ``own``, (n_rows,), is the place of each row among those that were chosen when this was fitted, and behind them
        the suspicious ones, which is left out; -1 where it is none.
        """
        return {name: distances for name, (distances, _) in self._distances(far, space, own).items()}

    def _distances(self, far: Rows, space: Rows, own: Places | None) -> dict[str, tuple[Floats, Floats]]:
        """The same, and the squared length of each row."""
        found = {}
        for name, rows in self.scaled(far, space).items():
            parts = []
            for block, squared, beside, mean in self._squared(name, rows, own):
                size = (block**2).sum(axis=1)
                nearest = np.maximum(squared.min(axis=1) + size * (1 - CANCELLED), 0)
                pull = ((block - mean) ** 2).sum(axis=1)
                both = np.column_stack([nearest, np.maximum(pull - CANCELLED * size, 0)])
                suspicious = np.maximum(beside + size * (1 - CANCELLED), 0)[:, None]
                parts.append(np.sqrt(np.maximum(np.minimum(both, suspicious), both / np.float32(NEARER**2))))
            distances = np.concatenate(parts or [np.zeros((0, 2))]).astype(np.float64)
            found[name] = distances, (rows.astype(np.float64) ** 2).sum(axis=1)
        return found

    def _logarithms(self, name: str, distances: Floats, size: Floats) -> Floats:
        floor = np.maximum(self.floor[name] ** 2, RESOLVED * size[:, None])
        return np.asarray(0.5 * np.log(distances**2 + floor))

    def differences(self, far: Rows, space: Rows) -> dict[str, Floats]:
        """By score, each input's share of the squared distance, averaged over the scalings, (n_rows, n_inputs).

        Distances are those to usual rows: a row may be near to one as odd as itself, and what still tells these two
        apart is not why it is odd.
        """
        found = {score: np.zeros(space.shape) for score in SCORES}
        for name, rows in self.scaled(far, space).items():
            known = self.rows[name]
            turned, half = np.ascontiguousarray(known.T), (known.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
            for start in range(0, len(rows), EXPLAINED):
                at = slice(start, start + EXPLAINED)
                squared = np.where(self.usual, half - 2 * times(rows[at], turned), np.float32(np.inf))
                mean = self.cells[name].mean(squared[:, : self.contracted], self.bandwidth[name], product=times)
                for score, target in zip(SCORES, (known[squared.argmin(axis=1)], mean), strict=True):
                    parts = (rows[at] - target).astype(np.float64) ** 2
                    total = parts.sum(axis=1, keepdims=True)
                    found[score][at] += parts / np.where(total > 0, total, 1.0) / len(SCALINGS)
        return found

    def _squared(self, name: str, rows: Rows, own: Places | None) -> Iterator[tuple[Rows, Rows, Rows, Rows]]:
        """Blocks of rows, their squared distances to the known ones, and to the nearest suspicious one, and the mean.

        Distances are less the row's own squared length.
        """
        known, count = self.rows[name], len(self.own)
        every = np.concatenate([known, self.suspicious[name]])
        half = (every.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            squared = half - 2 * block @ every.T
            if own is None:
                mean = self._mean(name, squared)
            else:
                places = own[start : start + BLOCK]
                is_known = (places >= 0) & (places < count) & (len(known) > 1)  # the only one there is stays
                of_known = np.where(is_known, places, 0)
                cell = np.where(is_known, self.cell[name][of_known], -1)
                mean = self._mean(name, squared, rows=block, cell=cell)
                place = np.where(
                    is_known, self.own[of_known], np.where(places < count, -1, places - count + len(known))
                )
                inside = np.flatnonzero(place >= 0)
                squared[inside, place[inside]] = np.inf
            yield block, squared[:, : len(known)], squared[:, len(known) :].min(axis=1, initial=np.inf), mean

    def _mean(self, name: str, squared: Rows, *, rows: Rows | None = None, cell: Places | None = None) -> Rows:
        return self.cells[name].mean(squared[:, : self.contracted], self.bandwidth[name], rows=rows, cell=cell)

    @property
    def rounding(self) -> float:
        """By how much a score may differ where the same products are added up in another order, in deviations.

        A short distance is a difference of two sums of products, each as large as the row's squared length, and each
        of as many additions as there are inputs may round to the same side.
        """
        lost = self.rows[LINEAR].shape[1] * np.finfo(np.float32).eps / RESOLVED
        narrowest = min(float(scale.min()) for scale in self.scale.values())
        return float(0.5 * np.log1p(lost) / narrowest)

    @property
    def sizes(self) -> dict[str, Rows]:
        """How large each indicator is, by scaling: in the curved one, the rarer its value the larger."""
        stretch = {LINEAR: np.ones(len(self.rare.count)), CURVED: np.sqrt(self.rare.information)}
        return {name: (self.unit[name] * size).astype(np.float32) for name, size in stretch.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays, for npz."""
        numbers = {name: getattr(self, name) for name in ("range", "middle", "spread")}
        per_scaling = {
            f"{what}_{name}": np.asarray(getattr(self, what)[name])
            for what in ("rows", "suspicious", "unit", "bandwidth", "floor", "location", "scale")
            for name in SCALINGS
        }
        per_scaling |= {f"weight_{name}": self.cells[name].weight for name in SCALINGS}
        per_scaling |= {f"centre_{name}": self.cells[name].centre for name in SCALINGS}
        rare = {"count": self.rare.count, "known": np.array(self.rare.known)}
        return {**numbers, **per_scaling, **rare, "usual": self.usual, "contracted": np.array(self.contracted)}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``; reads one without units, suspicious rows, or cells, too."""
        values: dict[str, Any] = {name: arrays[name] for name in ("range", "middle", "spread")}
        for what in ("rows", "floor", "location", "scale"):
            values[what] = {name: arrays[f"{what}_{name}"] for name in SCALINGS}
        none = {name: rows[:0] for name, rows in values["rows"].items()}
        values["suspicious"] = {name: arrays.get(f"suspicious_{name}", none[name]) for name in SCALINGS}
        bandwidth = {name: float(arrays[f"bandwidth_{name}"]) for name in SCALINGS}
        unit = {name: np.float32(arrays.get(f"unit_{name}", 1)) for name in SCALINGS}
        alike = {"known": np.array(1), "count": np.full(arrays["rows_linear"].shape[1] - len(values["range"]), ALIKE)}
        found = alike | arrays  # the first bundles of version 0.2 knew of no rare values: all told as much
        rare = RareValues(found["count"], int(found["known"]))
        usual = np.asarray(arrays.get("usual", np.ones(len(values["rows"][LINEAR]), dtype=bool)))  # earlier: all
        contracted, cells = int(arrays["contracted"]), {}
        for name, rows in values["rows"].items():  # earlier ones stood for themselves
            alone = {f"weight_{name}": np.ones(contracted, dtype=np.float32), f"centre_{name}": rows[:contracted]}
            found = alone | arrays
            cells[name] = Cells(found[f"weight_{name}"], found[f"centre_{name}"])
        return cls(unit=unit, bandwidth=bandwidth, usual=usual, contracted=contracted, cells=cells, rare=rare, **values)


def _together(scaled: dict[str, Rows]) -> Rows:
    """Rows in all scalings side by side, so that each counts as much."""
    parts = [rows - rows.mean(axis=0) for rows in scaled.values()]
    lengths = [float(np.median((part.astype(np.float64) ** 2).sum(axis=1))) for part in parts]
    return np.hstack([part / np.float32(np.sqrt(length) or 1.0) for part, length in zip(parts, lengths, strict=True)])


def _floor(distances: Floats, rows: Rows) -> float:
    """How far is as good as nowhere: less than nearly all distances, and more than they round by."""
    positive = distances[distances > 0]
    if not len(positive):
        return 1.0
    rounding = float(np.sqrt(CANCELLED * np.median((rows.astype(np.float64) ** 2).sum(axis=1))))
    return max(LEAST, rounding, 0.1 * float(np.quantile(positive, 0.01)), NEGLIGIBLE * float(np.median(positive)))
