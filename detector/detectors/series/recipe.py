"""How rows become windows and risks: the settings of a model of series, and its rows prepared by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from detector.arrays import Flags, Floats
from detector.checks import check_interval, check_least
from detector.errors import SettingError, nearest
from detector.members.residuals import Residuals
from detector.members.window_forest import window_features
from detector.members.window_pca import Rebuilder, WindowPCA, expected_values, squared_errors
from detector.resolution import beyond
from detector.series.row_errors import How
from detector.series.scaling import SeriesScaling
from detector.series.segmented_windows import LaidWindows

MEMBERS = ("reconstruction", "forest", "forecast")
WEIGHTS = {"reconstruction": 1.0, "forest": 0.1, "forecast": 0.25}
"""What a member counts where nothing else is said."""


@dataclass(frozen=True)
class SeriesRecipe:
    """Settings of one model of series.

    Parameters
    ----------
    members : tuple of str
        What scores a row: "reconstruction" of windows, an isolation "forest" on their features, one-step "forecast".
    weights : mapping of str to float, optional
        What each member counts; one that is not named counts as in ``WEIGHTS``.
    residuals : {"z", "mahalanobis"}
        Whether a residual is compared with what is usual sensor by sensor, or all together.
    window : int
        Rows in a window; never more than an eighth of the training rows.
    variance : float
        Share of the windows' variance that the principal components keep.
    range_floor : float
        Least range of a sensor, as a share of the median range of the sensors that move.
    reach : float
        Scaled values are cut so many ranges outside the training range.
    folds : int
        Contiguous blocks of the training rows, each scored by models of the others.
    deviation_floor : float
        Least deviation of a residual, in ranges. Also the most that a sensor's smallest step in training counts as its
        resolution: a residual below the resolution adds nothing. A larger step is a state, such as open and shut.
    z_cap : float
        A sensor's z-score counts at most so much, lest one sensor drown the others.
    smoothing : float
        Rows in which the weight of a neighbour falls to 1/e; 0 for none. More suits long anomalies, less short ones.
    trailing : bool
        Whether a row is scored from the rows up to it alone, for use as rows arrive. If not, windows and smoothing
        reach to both sides, which finds more.
    trees : int
        Trees of the forest.
    lags : int
        Rows a forecast is made from.
    quantile : float
        The threshold is this quantile of the risks of rows that were not learnt from.

    Raises
    ------
    SettingError
        If a value has no meaning.

    >>> SeriesRecipe(members=("reconstruction", "forest"), weights={"forest": 3.0}).shares.tolist()
    [0.25, 0.75]
    """

    members: tuple[str, ...] = ("reconstruction",)
    weights: Mapping[str, float] | None = None
    residuals: Residuals = "z"
    window: int = 32
    variance: float = 0.95
    range_floor: float = 0.1
    reach: float = 10.0
    folds: int = 5
    deviation_floor: float = 0.05
    z_cap: float = 100.0
    smoothing: float = 5.0
    trailing: bool = False
    trees: int = 100
    lags: int = 8
    quantile: float = 0.99

    def __post_init__(self) -> None:
        known = [name for name in self.members if name in MEMBERS]
        if not known or len({*known}) < len(self.members):
            raise SettingError(
                f"members must be some of {', '.join(MEMBERS)}, each once. Received: members={self.members!r}."
            )
        check_least(self, 2, "window", "folds")
        check_least(self, 1, "trees", "lags")
        check_least(self, 0, "smoothing")
        check_interval(self, "(0, 1]", "variance")
        check_interval(self, "(0, 1)", "quantile")
        for name in ("range_floor", "reach", "deviation_floor", "z_cap"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be above 0. Received: {name}={getattr(self, name)}.")
        if self.residuals not in get_args(Residuals):
            raise SettingError(
                f"Residuals are not judged by {self.residuals!r}. {nearest(str(self.residuals), get_args(Residuals))}"
            )
        self._check_weights()

    def _check_weights(self) -> None:
        for name, weight in (self.weights or {}).items():
            if name not in MEMBERS:
                raise SettingError(f"weights names no member by {name!r}. {nearest(str(name), MEMBERS)}")
            if not weight >= 0:
                raise SettingError(f"A weight must not be negative. Received: weights={{{name!r}: {weight}}}.")
        if not sum(self._weight(name) for name in self.members) > 0:
            raise SettingError(f"One of {', '.join(self.members)} must count. Received: weights={self.weights!r}.")

    def _weight(self, name: str) -> float:
        return float((self.weights or {}).get(name, WEIGHTS[name]))

    @property
    def shares(self) -> Floats:
        """What each member counts, as an array that sums to 1."""
        weights = np.array([self._weight(name) for name in self.members])
        return np.asarray(weights / weights.sum())

    @property
    def how(self) -> How:
        """How errors of windows become errors of rows."""
        return "trailing" if self.trailing else "overlap"

    @property
    def signed(self) -> bool:
        """Whether residuals keep their sign."""
        return self.residuals == "mahalanobis"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        >>> SeriesRecipe.from_dict(SeriesRecipe(window=8).to_dict()) == SeriesRecipe(window=8)
        True
        """
        values = {name: _plain(value) for name, value in vars(self).items()}
        if self.weights is not None:
            values["weights"] = {name: float(weight) for name, weight in self.weights.items()}
        return values | {"members": list(self.members)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**{**values, "members": tuple(values["members"])})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Prepared:
    """Scaled rows with windows laid over them, for fitting and for scoring.

    - ``values``, (n_rows, n_sensors): NaN where missing.
    - ``segment``, (n_rows,): which unbroken segment each row belongs to.
    - ``scaling``: how.
    - ``recipe``: settings.
    - ``length``: rows in a window.
    - ``overdue``, (n_rows, n_sensors): where a sensor is silent for so long that its last value is no longer believed.
    """

    def __init__(
        self,
        values: Floats,
        segment: NDArray[Any],
        scaling: SeriesScaling,
        recipe: SeriesRecipe,
        length: int,
        overdue: Flags | None = None,
    ) -> None:
        self.segment, self.scaling, self.recipe, self.length = segment, scaling, recipe, length
        self.missing = None if overdue is None else overdue[:, scaling.moving]
        self.scaled = scaling.scale(values, segment)
        self.moving = np.ascontiguousarray(self.scaled[:, scaling.moving])

    @cached_property
    def laid(self) -> LaidWindows:
        """The windows over the moving sensors."""
        lead = self.recipe.trailing
        return LaidWindows.lay(self.moving, self.segment, self.length, lead=lead, missing=self.missing)

    @cached_property
    def ahead(self) -> LaidWindows:
        """A window for each row, of the rows it is forecast from and itself."""
        return LaidWindows.lay(self.moving, self.segment, self.recipe.lags + 1, lead=True)

    def residuals(self, model: Rebuilder, *, pca: WindowPCA, signed: bool, chosen: Flags | None = None) -> Floats:
        """Squared residuals of the moving sensors, or, ``signed``, residuals; NaN where no chosen window covers."""
        if not signed:
            return squared_errors(model, self.laid, how=self.recipe.how, pca=pca, chosen=chosen)
        return self.moving - expected_values(model, self.laid, how=self.recipe.how, pca=pca, chosen=chosen)

    def widen(self, errors: Floats, *, signed: bool) -> Floats:
        """What errors have beyond the sensors' resolution, for all sensors.

        A constant one deviates from its value, one that never read has none.
        """
        wide = self.scaled.astype(np.float64)
        wide = wide if signed else wide**2
        wide[:, self.scaling.moving] = errors
        return beyond(wide, self.scaling.resolution, signed=signed)

    def features(self, squares: Floats) -> NDArray[np.float32]:
        """What the forest looks at: windows, and the moving sensors' squared residuals beyond their resolution."""
        resolution = self.scaling.resolution[self.scaling.moving]
        return window_features(self.laid, beyond(squares, resolution, signed=False))
