"""Has the world moved: the rows of today against those a detector learnt from, column by column.

A `Reference` is kept from training: bins, levels and their counts, never a row. Two figures compare a batch with it,
the population stability index (how far the whole distribution moved) and a standardised effect size (how far its
centre moved, in deviations of the reference). A small batch differs by chance alone, so each figure has to pass both
the limit a person chose and what chance explains at that number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from detector.arrays import Floats
from detector.errors import BundleError, DataError, SettingError
from detector.resolution import is_same
from detector.schema import Schema

BINS = 10
MOST_LEVELS = 50
FEWEST_A_LEVEL = 5  # rarer levels are counted together: a name that stands for one person is not kept
CHANCE_SCORE = 3.29  # standard normal score that one unmoved column in a thousand passes
MOST_EFFECT = 10.0
SMALLER = 0.2
"""Of the limit of an effect, for a share that is small or was 0: from 1 % of alerts to 3 % is three times the work and
h = 0.15."""
RISK, ALERTS = "risk", "alerts"


@dataclass(frozen=True)
class Shift:
    """How far one column of a batch is from the reference.

    - ``name``: the column; "risk" and "alerts" are the detector's own.
    - ``psi``, ``psi_limit``: the population stability index, and what it must pass to count.
    - ``effect``, ``effect_limit``: numbers: difference of the means in deviations (Cohen's d). Levels: Cohen's w. The
      share of alerts, and of other values in a column that never varied: Cohen's h.
    """

    name: str
    psi: float
    psi_limit: float
    effect: float
    effect_limit: float

    @property
    def moved(self) -> bool:
        """Whether either figure passes its limit."""
        return self.psi > self.psi_limit or abs(self.effect) > self.effect_limit


@dataclass(frozen=True)
class Profile:
    """How one column was distributed in the reference.

    - ``edges``: upper bounds of all bins but the last; empty for levels.
    - ``levels``: the levels that have a count of their own; empty for numbers.
    - ``counts``: rows in each bin or level, then (levels) in all others, then missing.
    - ``mean``, ``spread``, ``low``, ``high``: of the numbers, which are clipped to the range from ``low`` to ``high``
      (the outer thousandths).
    """

    name: str
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    mean: float = 0.0
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of_numbers(cls, name: str, values: ArrayLike) -> Self:
        """The profile of a column of numbers; missing ones have a bin of their own."""
        numbers = np.asarray(values, dtype=np.float64)
        known = numbers[np.isfinite(numbers)]
        if not len(known):
            return cls(name, edges=(0.0,), counts=(0, 0, len(numbers)))
        if is_same(known, float(known[0])).all():  # rounding is no variation
            known = np.full(len(known), known[0])
        edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
        if edges[0] <= known.min():  # many rows share the least value: anything below it is news
            edges = np.append(np.nextafter(edges[0], -np.inf), edges)
        low, high = np.quantile(known, [0.001, 0.999])
        clipped = known.clip(low, high)
        blank = cls(name, edges=tuple(edges.tolist()))
        return cls(
            name,
            edges=blank.edges,
            counts=tuple(blank.count(pd.Series(numbers)).astype(int).tolist()),
            mean=float(clipped.mean()),
            spread=float(clipped.std()),
            low=float(low),
            high=float(high),
        )

    @classmethod
    def of_levels(cls, name: str, values: pd.Series) -> Self:
        """The profile of a column of categories."""
        found = values.dropna().astype(str).value_counts()
        levels = tuple(str(level) for level in found.index[found >= FEWEST_A_LEVEL][:MOST_LEVELS])
        blank = cls(name, levels=levels)
        return cls(name, levels=levels, counts=tuple(blank.count(values).astype(int).tolist()))

    def count(self, values: pd.Series) -> Floats:
        """How many values fall in each bin or level, in the order of ``counts``."""
        if self.edges:
            numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
            known = numbers[~np.isnan(numbers)]
            if self._is_one_number:
                known = np.where(is_same(known, self.edges[1]), self.edges[1], known)
            bins = np.bincount(np.searchsorted(self.edges, known, side="left"), minlength=len(self.edges) + 1)
            return np.append(bins, len(numbers) - len(known)).astype(np.float64)
        known = values.dropna().astype(str)
        counts = known.value_counts().reindex(self.levels).fillna(0.0).to_numpy(dtype=np.float64)
        return np.append(counts, [len(known) - counts.sum(), len(values) - len(known)])

    def shift(self, values: pd.Series, *, psi: float, effect: float) -> Shift:
        """Compare new values with this profile; ``psi`` and ``effect`` are the limits a person chose."""
        reference, batch = np.array(self.counts, dtype=np.float64), self.count(values)
        noise = 1.0 / max(reference.sum(), 1.0) + 1.0 / max(batch.sum(), 1.0)
        by_chance = _chi_square_bound(len(reference) - 1) * noise
        if (usual := self._constant(reference)) is not None:
            return self._constant_shift(reference, batch, usual, psi=psi, effect=effect)
        known = values.to_numpy(dtype=np.float64, na_value=np.nan) if self.edges else None
        found = _cohen_w(reference, batch) if known is None else self._cohen_d(known)
        chance = sqrt(by_chance) if known is None else CHANCE_SCORE * sqrt(noise)
        return Shift(
            self.name,
            psi=stability_index(reference, batch),
            psi_limit=max(psi, by_chance),
            effect=found,
            effect_limit=max(effect, chance),
        )

    @property
    def _is_one_number(self) -> bool:
        """Whether all numbers of the reference were the same: below them there is only the next smaller one."""
        return len(self.edges) == 2 and self.edges[0] == np.nextafter(self.edges[1], -np.inf) and self.spread == 0.0

    def _constant(self, reference: Floats) -> int | None:
        """The bin that held every row of the reference, where that is one value or a gap; None if there is none."""
        filled = np.flatnonzero(reference)
        if len(filled) != 1 or reference.sum() < FEWEST_A_LEVEL:
            return None
        place, last = int(filled[0]), len(reference) - 1
        one_value = (place == 1 and self._is_one_number) if self.edges else place < len(self.levels)
        return place if one_value or place == last else None

    def _constant_shift(self, reference: Floats, batch: Floats, usual: int, *, psi: float, effect: float) -> Shift:
        """Of a column that never varied: the share of rows that hold anything else, which chance explains hardly."""
        rows = max(batch.sum(), 1.0)
        other = rows - batch[usual]
        chance = sqrt(1.0 / reference.sum() + 1.0 / rows)
        return Shift(
            self.name,
            psi=stability_index(reference, batch),
            psi_limit=max(psi, _chi_square_bound(1) * chance**2),
            effect=float(2.0 * np.arcsin(np.sqrt(other / rows))),
            effect_limit=max(effect * SMALLER, CHANCE_SCORE * chance),
        )

    def _cohen_d(self, values: Floats) -> float:
        known = values[~np.isnan(values)]
        if not len(known) or not sum(self.counts[:-1]):
            return 0.0
        difference = float(known.clip(self.low, self.high).mean()) - self.mean
        if self.spread <= 0.0:  # it never varied: bins tell whether it does now
            return 0.0
        return float(np.clip(difference / self.spread, -MOST_EFFECT, MOST_EFFECT))


@dataclass(frozen=True)
class Reference:
    """What a detector's training rows looked like, in counts.

    - ``rows``: how many they were.
    - ``profiles``: one a feature, and one for the risk of rows held out. Dates have none: time goes on without the
      world changing.
    - ``alert_rows``, ``alerts``: held-out rows, and those of them whose p-value was at most ``alert_level``.
    - ``alert_level``: what counts as an alert here. A budget is left out on purpose: it would hide a rising tide.

    >>> rows = pd.DataFrame({"amount": np.arange(1000.0)})
    >>> reference = Reference.of(rows, Schema(numeric=("amount",)), risk=np.arange(500.0), p_value=np.ones(500))
    >>> [shift.moved for shift in reference.compare(rows + 900.0, risk=np.arange(500.0), p_value=np.ones(500))]
    [True, False, False]
    """

    rows: int
    profiles: tuple[Profile, ...]
    alert_rows: int
    alerts: int
    alert_level: float

    @classmethod
    def of(
        cls, rows: pd.DataFrame, schema: Schema, *, risk: ArrayLike, p_value: ArrayLike, alert_level: float = 0.01
    ) -> Self:
        """Count what is needed of the cleaned rows learnt from.

        Risk and p-value are those of held-out rows: of rows learnt from they are too small. A row counts as an alert up
        to a p-value of ``alert_level``.
        """
        profiles = [Profile.of_numbers(name, rows[name]) for name in schema.numeric]
        profiles += [Profile.of_levels(name, rows[name]) for name in schema.boolean + schema.categorical]
        profiles.append(Profile.of_numbers(RISK, risk))
        found = np.asarray(p_value, dtype=np.float64)
        return cls(len(rows), tuple(profiles), len(found), int((found <= alert_level).sum()), alert_level)

    def compare(
        self, rows: pd.DataFrame, *, risk: ArrayLike, p_value: ArrayLike, psi: float = 0.2, effect: float = 0.5
    ) -> list[Shift]:
        """Compare a cleaned batch with the reference: a ``Shift`` for each feature, then the risk, then the alerts.

        ``psi`` and ``effect`` say what counts as moved. Usual values: an index of 0.1 is a little, 0.25 a lot; an
        effect of 0.2 is small, 0.5 medium, 0.8 large. Raises ``DataError`` if there is no row.
        """
        if not len(rows):
            raise DataError("Drift needs at least one row, received none. Wait until rows have come.")
        shifts = [profile.shift(rows[profile.name], psi=psi, effect=effect) for profile in self.columns]
        risks = pd.Series(np.asarray(risk, dtype=np.float64))
        shifts.append(self.profiles[-1].shift(risks, psi=psi, effect=effect))
        return [*shifts, self._alert_shift(np.asarray(p_value, dtype=np.float64), psi=psi, effect=effect)]

    @property
    def columns(self) -> tuple[Profile, ...]:
        """The profiles of the features, without that of the risk."""
        return self.profiles[:-1]

    def _alert_shift(self, p_value: Floats, *, psi: float, effect: float) -> Shift:
        reference = np.array([self.alerts, self.alert_rows - self.alerts], dtype=np.float64)
        now = float((p_value <= self.alert_level).sum())
        batch = np.array([now, len(p_value) - now])
        noise = 1.0 / max(self.alert_rows, 1) + 1.0 / len(p_value)
        shares = [(pair[0] + 0.5) / (pair.sum() + 1.0) for pair in (reference, batch)]
        height = 2.0 * (np.arcsin(np.sqrt(shares[1])) - np.arcsin(np.sqrt(shares[0])))
        return Shift(
            ALERTS,
            psi=stability_index(reference, batch),
            psi_limit=max(psi, _chi_square_bound(1) * noise),
            effect=float(height),
            effect_limit=max(effect * SMALLER, CHANCE_SCORE * sqrt(noise)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``.

        Raises ``BundleError`` if a part is missing or has no meaning.
        """
        try:
            parts: list[dict[str, Any]] = [
                {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}
                for part in values["profiles"]
            ]
            return cls(**{**values, "profiles": tuple(Profile(**part) for part in parts)})
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"The saved reference for drift cannot be used: {error!r}. Train again.") from error


def stability_index(reference: ArrayLike, batch: ArrayLike) -> float:
    """The population stability index of two rows of counts: Σ (q − p) · ln(q / p).

    It is the symmetric Kullback-Leibler divergence (Jeffreys, 1946), of shares that are smoothed a little, so that an
    empty bin is no infinity. Raises ``SettingError`` if the two have not as many counts.

    >>> round(stability_index([500, 500], [500, 500]), 3), round(stability_index([500, 500], [900, 100]), 2)
    (0.0, 0.88)
    """
    before, after = np.asarray(reference, dtype=np.float64), np.asarray(batch, dtype=np.float64)
    if before.shape != after.shape:
        raise SettingError(f"Expected as many counts in both, received {before.shape} and {after.shape}.")
    p, q = _shares(before, after)
    return float(((q - p) * np.log(q / p)).sum())


def persistent(moved: Sequence[bool], *, batches: int, needed: int) -> bool:
    """Whether ``needed`` of the last ``batches`` checks said that something moved, the latest among them.

    >>> persistent([True, False, True, True], batches=4, needed=3), persistent([True, True, False], batches=3, needed=2)
    (True, False)
    """
    recent = list(moved)[-batches:]
    return bool(recent) and recent[-1] and sum(recent) >= needed


def _shares(reference: Floats, batch: Floats) -> tuple[Floats, Floats]:
    """Shares of both, none of them zero.

    What the reference has less of than one row in a batch counts as one row: a single new level in a small batch is
    chance. The batch gets one row more, spread as the reference is, so that a bin empty in both says nothing.
    """
    rows = max(batch.sum(), 1.0)
    p = np.maximum(reference / max(reference.sum(), 1.0), 1.0 / rows)
    p = p / p.sum()
    return p, (batch + p) / (batch.sum() + 1.0)


def _cohen_w(reference: Floats, batch: Floats) -> float:
    p, q = _shares(reference, batch)
    return min(float(np.sqrt(((q - p) ** 2 / p).sum())), MOST_EFFECT)


def _chi_square_bound(freedom: int) -> float:
    """What a chi-square variable passes once in a thousand (Wilson and Hilferty, PNAS 1931).

    >>> round(_chi_square_bound(9), 1)
    28.1
    """
    ninth = 2.0 / (9.0 * max(freedom, 1))
    score = 3.09
    return max(freedom, 1) * (1.0 - ninth + score * sqrt(ninth)) ** 3
