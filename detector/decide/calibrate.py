"""Risk → p-value: the share of normal rows at least this risky, counted among rows that were not learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.arrays import Flags, Floats
from detector.checks import one_of
from detector.decide.contamination import find_contamination
from detector.decide.numbers import level, row_of_numbers, share
from detector.decide.support import Support
from detector.decide.tails import MIN_ROWS_FOR_TAIL, MOST_TRUST, SMALLEST_TAIL_P, BeyondLargest, ParetoTail
from detector.errors import BundleError, DataError, SettingError

EMPIRICAL, PARETO, EXTRAPOLATED = "empirical", "pareto", "extrapolated"
TAILS = (EMPIRICAL, PARETO, EXTRAPOLATED)
MAX_ROWS = 200_000
BLOCK = 65_536
STEP = 1.0
"""How far beyond the largest risk a row comes that shows what none showed: a deviation of a score, or a unit of
log-odds. 0, and it would tie with the largest; larger, and no other oddity comes between."""
RISK_RESOLUTION = 1e-5
"""Risks, in deviations of a member's score, that differ by less are alike: scores are float32, and the same row's last
bits depend on the processor. Larger, and true differences would count as ties."""


class Calibrator:
    """Conformal p-values from rows that were not learnt from: held out, or scored out of fold.

    For a new row from the same source, P(p-value ≤ t) ≤ t for every t, whatever the detector and whatever the
    distribution (Bates, Candès, Lei, Romano and Sesia, Annals of Statistics 2023); if each row was scored by a
    detector that learnt from the others, this holds but for what one row changes in it (Barber, Candès, Ramdas and
    Tibshirani, Annals of Statistics 2021).

    - ``risk``, (n_rows,): risks of normal rows; higher is more anomalous.
    - ``tail``: how ``p_value`` counts. "empirical": never below 1 / (n + 1). "extrapolated": the same up to the
      riskiest row, so the promise above holds for every t ≥ 1 / (n + 1), and beyond it down to 1 / 100 of that, along
      ``BeyondLargest``. "pareto": along a ``ParetoTail`` fitted to the riskiest 2 %, without any promise there.
    - ``max_rows``: more rows than this are sampled down; a random sample keeps the guarantee.
    - ``random_state``: seed of that sample.
    - ``resolution``: a risk that is larger by less than this is a tie, lest equal rows be told apart by rounding.
    - ``trimmed``: how many rows were taken out before, see ``learn``.
    - ``stands_out``: the risk above which a group of calibration rows lies apart, too small to be taken out.

    ``apart``, (n_rows,), says which rows ``learn`` took out; it is not saved.

    Raises ``SettingError`` if ``tail`` is none of the three, or if ``max_rows`` is below 1; ``ShapeError`` if ``risk``
    is not a plain row of numbers; ``DataError`` if there is no risk, if one is not finite, or if there are too few for
    a Pareto tail.

    >>> calibrator = Calibrator(np.array([0.1, 0.2, 0.3, 0.4]))
    >>> calibrator.p_value(np.array([0.0, 0.3, 9.0]))
    array([1. , 0.6, 0.2])
    """

    def __init__(
        self,
        risk: ArrayLike,
        *,
        tail: str = EMPIRICAL,
        max_rows: int = MAX_ROWS,
        random_state: int = 0,
        resolution: float = 0.0,
        trimmed: int = 0,
        stands_out: float = float("inf"),
    ) -> None:
        if max_rows < 1:
            raise SettingError(f"max_rows must be at least 1. Received: max_rows={max_rows}.")
        values = _finite(risk)
        if len(values) > max_rows:
            values = np.random.default_rng(random_state).choice(values, max_rows, replace=False)
        self.risk: Floats = np.sort(values)
        self.resolution = resolution
        self.trimmed = trimmed
        self.stands_out = stands_out
        self.apart: Flags = np.zeros(len(values), dtype=bool)
        self.lifts: tuple[float, float] | None = None
        """The median and the largest step before some of the rows were lifted themselves."""
        self.pareto = ParetoTail.fit(self.risk, least=resolution)
        self.beyond = BeyondLargest.fit(self.risk, least=resolution)
        self.tail = self._known_tail(tail)

    @classmethod
    def learn(
        cls,
        risk: ArrayLike,
        *,
        views: Sequence[Floats] = (),
        excused: Callable[[Flags], Flags] | None = None,
        tail: str = EXTRAPOLATED,
        max_rows: int = MAX_ROWS,
        random_state: int = 0,
        resolution: float = 0.0,
    ) -> Self:
        """Calibrate on rows among which anomalies may be: a group apart from all others is taken out first.

        ``views`` are other scores of the same rows in which such a group may show, and ``excused`` says which rows of
        it stay all the same; see ``find_contamination``. Nothing is taken out where ``tail`` is not "extrapolated".
        Raises as the constructor does.
        """
        values = _finite(risk)
        if tail != EXTRAPOLATED:
            return cls(values, tail=tail, max_rows=max_rows, random_state=random_state, resolution=resolution)
        found = find_contamination(values, views, resolution=resolution, excused=excused)
        calibrator = cls(
            values[~found.apart],
            tail=tail,
            max_rows=max_rows,
            random_state=random_state,
            resolution=resolution,
            trimmed=int(found.apart.sum()),
            stands_out=found.stands_out,
        )
        calibrator.apart = found.apart
        return calibrator

    def with_trimmed(self, rows: int) -> Self:
        """The same p-values, where so many rows more were taken out before."""
        changed = copy(self)
        changed.trimmed = self.trimmed + rows
        return changed

    def __repr__(self) -> str:
        return f"Calibrator({self.size:,} rows, tail={self.tail!r})"

    @property
    def size(self) -> int:
        """How many calibration rows are remembered."""
        return len(self.risk)

    @property
    def smallest(self) -> float:
        """The smallest p-value a row can get."""
        if self.tail == PARETO:
            return SMALLEST_TAIL_P
        trust = MOST_TRUST if self.tail == EXTRAPOLATED and self.beyond is not None else 1.0
        return 1.0 / (self.size + 1) / trust

    @property
    def support(self) -> Support | None:
        """What a false discovery rate can rest on; None for the tails that know of no fallback."""
        if self.tail != EXTRAPOLATED:
            return None
        return Support(rows=self.size, smallest=self.smallest, trimmed=self.trimmed, stands_out=self.stands_out)

    def p_value(self, risk: ArrayLike, *, tail: str | None = None) -> Floats:
        """(1 + number of calibration risks ≥ this one) / (n + 1) for each row, in (0, 1]; beyond them by the tail.

        A tie, up to the resolution, counts against the row being anomalous. ``tail`` takes the place of the
        calibrator's own. Raises ``ShapeError`` if ``risk`` is not a plain row of numbers; ``DataError`` if a risk is
        NaN, or if there is no Pareto tail.
        """
        tail = self.tail if tail is None else self._known_tail(tail)
        values = row_of_numbers(risk, "risk")
        if np.isnan(values).any():
            raise DataError(f"{int(np.isnan(values).sum())} risks are NaN. Send such rows to quarantine before.")
        p_value = (1.0 + self.size - _count_below(self.risk + self.resolution, values)) / (1.0 + self.size)
        certain = values - self.resolution
        if tail == PARETO and self.pareto is not None:
            beyond = certain > self.pareto.threshold
            p_value[beyond] = self.pareto.survival(certain[beyond])
        if tail == EXTRAPOLATED and self.beyond is not None:
            beyond = certain > self.risk[-1]
            p_value[beyond] *= self.beyond.survival(certain[beyond])
        return p_value

    def beyond_all(self, risk: Floats, times: Floats, *, least: float = 0.0) -> Floats:
        """The risks of rows that show so many things which no calibration row showed; where ``times`` is 0, as before.

        Such a thing alone has a p-value of 1 / (n + 1), or more, see ``with_lifted``. So each lifts a risk, at least
        the median, as far as it is from the median to just beyond the largest, and by ``least``. What else is odd about
        a row adds to it. Less than 1 lifts it by that part: something that few calibration rows showed.

        >>> Calibrator(np.array([0.0, 1.0, 3.0])).beyond_all(np.array([-2.0, 2.0, 2.0]), np.array([1, 1, 0])).tolist()
        [4.0, 5.0, 2.0]
        """
        step = max(self.largest_step, least)
        return np.where(times > 0, np.maximum(risk, self.median) + times * step, risk)

    def with_lifted(self, risk: Floats, times: Floats, *, least: float = 0.0) -> Self:
        """Calibrated on the same rows, of which some showed ``times`` things that no other row did.

        Left out, they would have been lifted, as a new row is that shows what none did. So they are, and with many
        things that nearly never change, a new row that changes one is no rarer than it should be (Good, Biometrika
        1953): its p-value is the share of the rows that were the only ones to change one.

        - ``risk``, (n_rows,): as this was learnt from; ``least``: as ``beyond_all`` takes it.
        """
        if not times.any():
            return self
        found = type(self)(
            self.beyond_all(risk, times, least=least)[~self.apart],
            tail=self.tail,
            max_rows=max(1, len(risk)),
            resolution=self.resolution,
            trimmed=self.trimmed,
            stands_out=self.stands_out,
        )
        found.apart, found.lifts = self.apart, (self.median, max(self.largest_step, least))
        return found

    @property
    def median(self) -> float:
        """The median calibration risk, of rows that are not lifted."""
        return self.lifts[0] if self.lifts is not None else self._median

    @cached_property
    def _median(self) -> float:
        return float(np.median(self.risk))

    @property
    def largest_step(self) -> float:
        """From the median to just beyond the largest risk of rows that are not lifted."""
        return self.lifts[1] if self.lifts is not None else float(self.risk[-1]) - self.median + STEP

    def threshold(self, quantile: float) -> float:
        """Return the risk above which, and only above which, the p-value is at most 1 - quantile.

        Infinite where there are too few calibration rows for any row to come so far. Raises ``SettingError`` if
        ``quantile`` is not between 0 and 1.

        >>> Calibrator(np.arange(1.0, 100.0)).threshold(0.95)
        95.0
        """
        limit = level(share("quantile", quantile))
        if self.tail == PARETO and self.pareto is not None and limit < self.pareto.share:
            return self.pareto.risk_at(limit) + self.resolution if limit >= SMALLEST_TAIL_P else float("inf")
        least = 1.0 / (self.size + 1.0)
        if self.tail == EXTRAPOLATED and self.beyond is not None and self.smallest <= limit < least:
            return self.beyond.risk_at(limit / least) + self.resolution
        above = np.arange(self.size + 1)
        allowed = int(((1.0 + above) / (self.size + 1.0) <= limit).sum())
        return float(self.risk[self.size - allowed]) + self.resolution if allowed else float("inf")

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything ``from_state`` needs, as arrays fit for an ``.npz`` without pickle."""
        state = {"risk": self.risk, "tail": np.array(self.tail), "resolution": np.array(self.resolution)}
        return (
            state
            | {"trimmed": np.array(self.trimmed), "stands_out": np.array(self.stands_out)}
            | ({} if self.lifts is None else {"lifts": np.array(self.lifts)})
        )

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of ``state``.

        Raises ``BundleError`` if a part is missing or has no meaning.
        """
        try:
            risk, tail = state["risk"], str(state["tail"])
            found = cls(
                risk,
                tail=tail,
                max_rows=max(1, np.size(risk)),
                resolution=float(state.get("resolution", 0.0)),  # bundles of 0.1 knew none, and nothing below
                trimmed=int(state.get("trimmed", 0)),
                stands_out=float(state.get("stands_out", float("inf"))),
            )
            if "lifts" in state:
                found.lifts = float(state["lifts"][0]), float(state["lifts"][1])
            return found
        except (KeyError, ValueError) as error:
            raise BundleError(f"The saved calibration cannot be used: {error}. Train the detector again.") from error

    def _known_tail(self, tail: str) -> str:
        one_of("tail", tail, TAILS)
        if tail == PARETO and self.pareto is None:
            raise DataError(
                f"A Pareto tail needs {MIN_ROWS_FOR_TAIL} held-out rows whose largest risks differ, "
                f"got {self.size}. Hold more rows back, or use tail='extrapolated'."
            )
        return tail


def _finite(risk: ArrayLike) -> Floats:
    values = row_of_numbers(risk, "risk")
    if not len(values):
        raise DataError("Calibration needs at least one held-out row, got none. Hold some rows back from fitting.")
    if not np.isfinite(values).all():
        raise DataError(f"Calibration risks must be finite, got {values[~np.isfinite(values)][0]}.")
    return values


def _count_below(ordered: Floats, values: Floats) -> Floats:
    """How many of the ordered numbers are less than each value."""
    counts = np.empty(len(values))
    # Searched in sorted blocks, neighbours in the search are neighbours in the cache: three times as fast.
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        order = np.argsort(block)
        counts[start + order] = np.searchsorted(ordered, block[order], side="left")
    return counts
