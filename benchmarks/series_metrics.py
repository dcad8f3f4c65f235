"""How well risks find anomalous stretches of a series: counts of rows, and the volume under the surface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import DataError, SettingError, ShapeError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NO_PERIOD = 125
LAGS = 400
FIRST_LAG = 3
LONGEST_PERIOD = 300
PERIOD_ROWS = 20_000


@dataclass(frozen=True)
class RowCounts:
    """Rows by flag and truth; counts of several series are added.

    Parameters
    ----------
    tp, fp, tn, fn : int
        Anomalous and flagged, normal and flagged, normal and not flagged, anomalous and not flagged.

    >>> counts = RowCounts.of([1, 1, 0, 0], [True, False, True, False]) + RowCounts(tp=1)
    >>> counts
    RowCounts(tp=2, fp=1, tn=1, fn=1)
    >>> round(counts.f1, 3), counts.far, round(counts.mar, 3)
    (0.667, 0.5, 0.333)
    """

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0

    @classmethod
    def of(cls, y: ArrayLike, flagged: ArrayLike) -> Self:
        """Count rows.

        Parameters
        ----------
        y : array of shape (n_rows,)
            1 anomalous, 0 normal.
        flagged : array of shape (n_rows,)
            True or 1 where flagged.

        Raises
        ------
        ShapeError
            If the two differ in length.
        DataError
            If ``y`` holds anything but 0 and 1.
        """
        truth, flags = _truth(y), np.asarray(flagged).astype(bool)
        _check_lengths(truth, flags)
        return cls(
            tp=int((truth & flags).sum()),
            fp=int((~truth & flags).sum()),
            tn=int((~truth & ~flags).sum()),
            fn=int((truth & ~flags).sum()),
        )

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(self.tp + other.tp, self.fp + other.fp, self.tn + other.tn, self.fn + other.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where nothing is anomalous and nothing flagged."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def far(self) -> float:
        """False alarm rate: share of the normal rows that are flagged."""
        return _ratio(self.fp, self.fp + self.tn)

    @property
    def mar(self) -> float:
        """Missed alarm rate: share of the anomalous rows that are not flagged."""
        return _ratio(self.fn, self.fn + self.tp)


@dataclass(frozen=True)
class Volume:
    """Volume under the precision-recall and the ROC surface: the mean of the range-based areas over buffer widths."""

    pr: float
    roc: float


def measure_volume(y: ArrayLike, risk: ArrayLike, *, buffer: int, thresholds: int = 250) -> Volume:
    """Compute VUS-PR and VUS-ROC of a whole series.

    A row near an anomalous stretch counts in part, the less the further off, up to half a buffer on either side; a
    stretch found at all weighs with the rows found. So a risk that peaks a little early or late is not punished as if
    it had peaked anywhere. Source: Paparrizos, Boniol, Palpanas, Tsay, Elmore and Franklin, Volume Under the Surface,
    VLDB 2022, sections 3 and 4, with the thresholds and buffers of the TSB-AD benchmark (NeurIPS 2024).

    Parameters
    ----------
    y : array of shape (n_rows,)
        1 anomalous, 0 normal.
    risk : array of shape (n_rows,)
        Higher is more anomalous.
    buffer : int
        The widest buffer, in rows, such as from ``find_period``; all widths from 0 on are averaged.
    thresholds : int
        How many thresholds, at evenly spaced ranks of the risk.

    Raises
    ------
    ShapeError
        If the two differ in length.
    DataError
        If ``y`` holds anything but 0 and 1, or only one of them, or if a risk is not finite.
    SettingError
        If ``buffer`` is negative or there are fewer than 2 thresholds.

    >>> y = np.array([0, 0, 0, 1, 1, 0, 0, 0])
    >>> measure_volume(y, y, buffer=0).pr
    1.0
    """
    truth, risk = _truth(y), np.asarray(risk, dtype=np.float64)
    _check_lengths(truth, risk)
    if truth.all() or not truth.any():
        raise DataError(
            f"The volume under the surface expected normal and anomalous rows, got {int(truth.sum())} anomalous of "
            f"{len(truth)}. Score a series that has both."
        )
    if not np.isfinite(risk).all():
        raise DataError(f"Expected a finite risk for each row, got {risk[~np.isfinite(risk)][0]}. Leave such rows out.")
    if buffer < 0 or thresholds < 2:
        raise SettingError(
            f"Expected a buffer of at least 0 and at least 2 thresholds. Received: buffer={buffer}, "
            f"thresholds={thresholds}."
        )
    surface = _Surface(truth, risk, thresholds)
    areas = np.array([surface.areas(width) for width in range(buffer + 1)])
    pr, roc = areas.mean(axis=0).tolist()
    return Volume(pr=pr, roc=roc)


class _Surface:
    """One series, its risks in order once for all widths."""

    def __init__(self, truth: Flags, risk: Floats, thresholds: int) -> None:
        self.truth, self.risk, self.n = truth, risk, len(truth)
        edges = np.diff(np.r_[0, truth.astype(int), 0])
        self.first, self.last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        self.order = np.argsort(-risk, kind="stable")
        ranked = risk[self.order]
        self.cuts = ranked[np.linspace(0, self.n - 1, thresholds).astype(int)]
        self.flagged = np.searchsorted(-ranked, -self.cuts, side="right")

    def areas(self, width: int) -> tuple[float, float]:
        """The areas under the precision-recall and the ROC curve with one buffer width."""
        soft = self._soften(width)
        hits = np.cumsum(soft[self.order])[self.flagged - 1]
        buffered = np.cumsum(np.where(self.truth, 0.0, soft)[self.order])[self.flagged - 1]
        positives = int(self.truth.sum())
        total = positives + buffered / 2  # the mean of the anomalous rows with and without the buffer met so far
        recall = np.minimum(hits / total, 1.0) * self._found(width)
        tpr, fpr = np.r_[0.0, recall, 1.0], np.r_[0.0, (self.flagged - hits) / (self.n - total), 1.0]
        pr = np.dot(np.diff(tpr[:-1]), hits / self.flagged)
        roc = np.dot(np.diff(fpr), (tpr[1:] + tpr[:-1]) / 2)
        return float(pr), float(roc)

    def _soften(self, width: int) -> Floats:
        """1 in anomalous rows, falling as a square root to either side within half the width."""
        soft = np.zeros(self.n)
        half = width // 2
        for first, last in zip(self.first.tolist(), self.last.tolist(), strict=True):
            before, after = np.arange(max(first - half, 0), first), np.arange(last + 1, min(last + half + 1, self.n))
            if half:
                soft[before] += np.sqrt(1.0 - (first - before) / width)
                soft[after] += np.sqrt(1.0 - (after - last) / width)
        soft = np.minimum(soft, 1.0)
        soft[self.truth] = 1.0
        return soft

    def _found(self, width: int) -> Floats:
        """The share of the buffered stretches in which each threshold is reached."""
        half = width // 2
        apart = np.flatnonzero(self.last[:-1] + half < self.first[1:] - half)
        begins = np.maximum(np.r_[self.first[0], self.first[apart + 1]] - half, 0)
        ends = np.minimum(np.r_[self.last[apart], self.last[-1]] + half, self.n - 1)
        peaks = np.array([self.risk[a : b + 1].max() for a, b in zip(begins, ends, strict=True)])
        share: Floats = (peaks[None, :] >= self.cuts[:, None]).mean(axis=1)
        return share


def find_period(column: ArrayLike) -> int:
    """The lag, in rows, at which a series is most like itself; 125 where there is none.

    The highest local maximum of the autocorrelation of at most 20,000 rows, between lag 6 and lag 303: the rule by
    which the TSB-AD benchmark sets its buffers.

    Parameters
    ----------
    column : array of shape (n_rows,)
        The first sensor.

    Raises
    ------
    ShapeError
        If it is not a plain row of numbers.

    >>> find_period(np.sin(2 * np.pi * np.arange(1000) / 50))
    50
    >>> find_period(np.ones(1000))
    125
    """
    values = np.asarray(column, dtype=np.float64)
    if values.ndim != 1:
        raise ShapeError(f"find_period expected one column, got an array of shape {values.shape}. Pass X[:, 0].")
    values = values[:PERIOD_ROWS]
    values = values - values.mean() if len(values) else values
    if not (values**2).sum() > 0:
        return NO_PERIOD
    spectrum = np.fft.rfft(values, 2 * len(values))
    alike = np.fft.irfft(spectrum * np.conj(spectrum))[: min(LAGS + 1, len(values))]
    alike = (alike / alike[0])[FIRST_LAG:]
    peaks = 1 + np.flatnonzero((alike[1:-1] > alike[:-2]) & (alike[1:-1] > alike[2:]))
    if not len(peaks):
        return NO_PERIOD
    best = int(peaks[np.argmax(alike[peaks])])
    return best + FIRST_LAG if FIRST_LAG <= best <= LONGEST_PERIOD else NO_PERIOD


def _truth(y: ArrayLike) -> Flags:
    values: NDArray[Any] = np.asarray(y)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise DataError("Expected a row of labels, 1 anomalous and 0 normal. Leave rows of unknown truth out.")
    return values.astype(bool)


def _check_lengths(truth: Flags, values: NDArray[Any]) -> None:
    if values.shape != truth.shape:
        raise ShapeError(f"Expected one value a label, got shapes {truth.shape} and {values.shape}.")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
