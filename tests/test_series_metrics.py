import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.series_metrics import NO_PERIOD, RowCounts, find_period, measure_volume
from detector.errors import DataError, SettingError, ShapeError


def test_counts_add_up_over_series() -> None:
    """Rates come from summed counts, not from means of rates."""
    first = RowCounts.of([1, 1, 0], [1, 0, 0])
    second = RowCounts.of([0, 0, 0, 1], [1, 1, 0, 1])

    total = first + second

    assert (total.tp, total.fp, total.tn, total.fn) == (2, 2, 2, 1)
    assert total.f1 == pytest.approx(4 / 7)
    assert total.far == 0.5
    assert total.mar == pytest.approx(1 / 3)


def test_rates_without_such_rows_are_unknown() -> None:
    """No normal rows, no false alarm rate."""
    assert math.isnan(RowCounts(tp=1).far)
    assert math.isnan(RowCounts(tn=1).mar)
    assert math.isnan(RowCounts(tn=1).f1)


def test_counts_refuse_other_labels() -> None:
    """A label of unknown meaning is named."""
    with pytest.raises(DataError, match="1 anomalous and 0 normal"):
        RowCounts.of([0, 2], [0, 0])


def test_counts_refuse_other_lengths() -> None:
    """A flag for each label, no more."""
    with pytest.raises(ShapeError, match=r"got shapes \(2,\) and \(3,\)"):
        RowCounts.of([0, 1], [0, 0, 1])


def test_volume_without_buffer_by_hand() -> None:
    """Four rows, one anomalous, ranked second: precision 0 at recall 0, then 1/2 at recall 1."""
    volume = measure_volume([0, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], buffer=0, thresholds=4)

    # Thresholds .9, .8, .2, .1: recall 0, 1, 1, 1; false alarms 1/3, 1/3, 2/3, 1.
    assert volume.pr == pytest.approx(1 / 2)
    assert volume.roc == pytest.approx(2 / 3)


def test_volume_with_a_buffer_by_hand() -> None:
    """Width 2 gives a row beside the anomaly the weight sqrt(1/2)."""
    soft = math.sqrt(0.5)
    volume = measure_volume([0, 0, 1, 0, 0], [0.1, 0.9, 0.8, 0.3, 0.2], buffer=2, thresholds=5)

    # Widths 0 and 1 know no buffer: precision 1/2 at full recall. Width 2: the first row flagged is worth `soft`.
    recall = [soft / (1 + soft / 2), 1.0, 1.0, 1.0, 1.0]
    precision = [soft, (1 + soft) / 2]
    wide = recall[0] * precision[0] + (1 - recall[0]) * precision[1]
    assert volume.pr == pytest.approx((0.5 + 0.5 + wide) / 3)


def _slow_volume(y: list[int], risk: list[float], buffer: int, thresholds: int) -> tuple[float, float]:
    """The definition with loops over rows."""
    n, stretches, row = len(y), [], 0
    while row < n:
        if y[row]:
            end = row
            while end + 1 < n and y[end + 1]:
                end += 1
            stretches.append((row, end))
            row = end
        row += 1
    ranked = sorted(risk, reverse=True)
    cuts = [ranked[int(place)] for place in np.linspace(0, n - 1, thresholds)]
    prs, rocs = [], []
    for width in range(buffer + 1):
        half, soft = width // 2, [0.0] * n
        for i in range(n):
            for first, last in stretches:
                away = max(first - i, i - last, 0)
                if away == 0:
                    soft[i] = 2.0
                elif away <= half:
                    soft[i] += math.sqrt(1 - away / width)
            soft[i] = min(soft[i], 1.0)
        wide: list[list[int]] = []
        for first, last in stretches:
            if wide and first - half <= wide[-1][1]:
                wide[-1][1] = min(last + half, n - 1)
            else:
                wide.append([max(first - half, 0), min(last + half, n - 1)])
        points = [(0.0, 0.0, 1.0)]
        for cut in cuts:
            flagged = [i for i in range(n) if risk[i] >= cut]
            hits = sum(soft[i] for i in flagged)
            total = (sum(y) + sum(y) + sum(soft[i] for i in flagged if not y[i])) / 2
            found = sum(any(risk[i] >= cut for i in range(a, b + 1)) for a, b in wide) / len(wide)
            points.append((min(hits / total, 1) * found, (len(flagged) - hits) / (n - total), hits / len(flagged)))
        prs.append(sum((b[0] - a[0]) * b[2] for a, b in pairwise(points)))
        points.append((1.0, 1.0, 0.0))
        rocs.append(sum((b[1] - a[1]) * (a[0] + b[0]) / 2 for a, b in pairwise(points)))
    return sum(prs) / len(prs), sum(rocs) / len(rocs)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=25).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    ),
    st.integers(0, 7),
)
def test_volume_is_what_loops_over_rows_find(rows: list[tuple[int, int]], buffer: int) -> None:
    """Any labels, any risks, ties too."""
    y, risk = [label for label, _ in rows], [float(value) for _, value in rows]

    volume = measure_volume(y, risk, buffer=buffer, thresholds=10)

    assert (volume.pr, volume.roc) == pytest.approx(_slow_volume(y, risk, buffer, 10))


def test_volume_ranks_better_risks_higher() -> None:
    """A risk near the anomaly beats one far off, which rows alone would not tell."""
    y = np.zeros(200, dtype=int)
    y[100:110] = 1
    near, far = np.zeros(200), np.zeros(200)
    near[112:116], far[20:24] = 1.0, 1.0

    assert measure_volume(y, near, buffer=20).pr > measure_volume(y, far, buffer=20).pr


@pytest.mark.parametrize("label", [0, 1])
def test_volume_needs_both_kinds(label: int) -> None:
    """A series of normal rows has no such figure."""
    with pytest.raises(DataError, match="expected normal and anomalous rows"):
        measure_volume([label] * 3, [1, 2, 3], buffer=1)


def test_volume_refuses_risks_that_are_not_finite() -> None:
    """NaN has no rank."""
    with pytest.raises(DataError, match="finite risk for each row, got nan"):
        measure_volume([0, 1], [np.nan, 1], buffer=1)


@pytest.mark.parametrize("settings", [{"buffer": -1}, {"buffer": 1, "thresholds": 1}])
def test_volume_refuses_settings_without_meaning(settings: dict[str, int]) -> None:
    """The values received are named."""
    with pytest.raises(SettingError, match=f"buffer={settings['buffer']}"):
        measure_volume([0, 1], [0, 1], **settings)


@pytest.mark.parametrize("period", [7, 40, 180])
def test_period_of_a_wave(period: int) -> None:
    """The lag at which a wave repeats."""
    assert find_period(np.sin(2 * np.pi * np.arange(3000) / period)) == pytest.approx(period, abs=1)


@pytest.mark.parametrize("values", [np.zeros(0), np.ones(5), np.arange(50.0), [1.0, 2.0]])
def test_period_of_none(values: np.ndarray) -> None:
    """A constant, a ramp and a handful of rows have none."""
    assert find_period(values) == NO_PERIOD


def test_period_refuses_a_table() -> None:
    """One column at a time."""
    with pytest.raises(ShapeError, match=r"got an array of shape \(3, 2\)"):
        find_period(np.ones((3, 2)))
