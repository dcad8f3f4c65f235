"""How rows become windows and risks: the settings of a model of series."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np

from detector.arrays import Floats
from detector.checks import check_interval, check_least, check_whole, check_zone
from detector.errors import SettingError, nearest
from detector.members.residuals import Residuals
from detector.series.rhythm import period_of
from detector.series.row_errors import How
from detector.series.scaling import SeriesScaling
from detector.series.segments import reach as smoothed_over

Member = Literal["reconstruction", "forest", "forecast", "long", "spectrum"]
MEMBERS: tuple[Member, ...] = get_args(Member)
WEIGHTS = {"reconstruction": 1.0, "long": 0.5, "spectrum": 1.5, "forest": 0.25, "forecast": 0.25, "phase": 1.0}
"""What is held of the members before any fault is planted; of the spectrum, where much was learnt from."""
NO_PERIOD = "none"
PHASE = "phase"
"""The member that knows the time of the day and the kind of day; it takes part where a rhythm is found."""
ENOUGH_WINDOWS = 32
"""Windows without a common row from which a spectrum is half learnt: it says less of fewer."""
EARLIER_WEIGHTS = {"reconstruction": 1.0, "forest": 0.1, "forecast": 0.25}
"""What members of bundles counted that did not say so."""
WIDEST_SMOOTHING, NARROWEST_SMOOTHING = 10.0, 3.0
SMOOTHING_ROWS = 350.0
FEW_ROWS, FLOOR_OF_FEW = 1_000, 0.1
"""With fewer training rows than these, the least range of a sensor, as a share of the usual one."""
LEAST_FACTOR, MARGIN = 1.2, 4.5
LAG_SHARE = 8


@dataclass(frozen=True)
class SeriesRecipe:
    """Settings of one model of series.

    Parameters
    ----------
    members : tuple of str
        What scores a row: "reconstruction" of windows, the same of "long" ones over averaged rows, the "spectrum" of a
        sensor's oscillation, an isolation "forest" on windows' features, one-step "forecast".
    weights : mapping of str to float, optional
        What each member counts; one that is not named counts as in ``WEIGHTS``. By default learnt from faults planted
        in rows that the members did not learn from.
    residuals : {"z", "mahalanobis"}
        Whether a residual is compared with what is usual sensor by sensor, or all together.
    window : int
        Rows in a window; never more than an eighth of the training rows.
    variance : float
        Share of the windows' variance that the principal components keep.
    range_floor : float, optional
        Least range of a sensor, as a share of the median range of the sensors that move, and 0 for none. It depends on
        their units: too large, and a sensor is as good as not there; too small, and one that hardly moves raises false
        alarms where few rows tell what it usually does. By default a tenth with less than 1,000 training rows, else 0.
    reach : float
        Scaled values are cut so many ranges outside the training range.
    folds : int
        Contiguous blocks of the training rows, each scored by models of the others.
    deviation_floor : float
        Least deviation of a residual, in ranges. Also the most that a sensor's smallest step in training counts as its
        resolution: a residual below the resolution adds nothing. A larger step is a state, such as open and shut.
    z_cap : float
        A sensor's z-score counts at most so much, lest one sensor drown the others.
    smoothing : float, optional
        Rows in which the weight of a neighbour falls to 1/e; 0 for none. More suits long anomalies, less short ones. By
        default 350 over the square root of the number of training rows, at least 3 and at most 10: what little is
        learnt from tells less of a single row.
    trailing : bool
        Whether a row is scored from the rows up to it alone, for use as rows arrive. If not, windows and smoothing
        reach to both sides, which finds more.
    wait : int, optional
        How many rows after it a row's risk may hang on at most: of a long window that goes on for longer, those of its
        steps count that do not. Never less than what the other members look at. By default all steps count, which finds
        a little more.
    trees : int
        Trees of the forest.
    lags : int
        Rows a forecast is made from; never more than an eighth of the training rows.
    quantile : float
        The threshold is this quantile of the risks of rows that were not learnt from, and a margin for how little so
        few rows say of it, see ``cautious``.
    period : str, optional
        After which time readings are alike, such as "1d", "7d" or "8h"; "none" if there is none. By default it is
        looked for in training: a day, weeks, then any other. What is configured too counts only if held-out rows agree.
    timezone : str
        Whose clock tells the hour and the day.

    Raises
    ------
    SettingError
        If a value has no meaning.

    >>> SeriesRecipe(members=("reconstruction", "forest"), weights={"forest": 3.0}).shares.tolist()
    [0.25, 0.75]
    """

    members: tuple[str, ...] = MEMBERS
    weights: Mapping[str, float] | None = None
    residuals: Residuals = "z"
    window: int = 32
    variance: float = 0.95
    range_floor: float | None = None
    reach: float = 10.0
    folds: int = 5
    deviation_floor: float = 0.05
    z_cap: float = 100.0
    smoothing: float | None = None
    trailing: bool = False
    wait: int | None = None
    trees: int = 100
    lags: int = 8
    quantile: float = 0.99
    period: str | None = None
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        known = [name for name in self.members if name in (*MEMBERS, PHASE)]
        if not known or len({*known}) < len(self.members):
            raise SettingError(
                f"members must be some of {', '.join(MEMBERS)}, each once. Received: members={self.members!r}."
            )
        check_least(self, 2, "window", "folds")
        check_least(self, 1, "trees", "lags")
        check_whole(self, "window", "folds", "trees", "lags")
        for name in ("smoothing", "wait", "range_floor"):
            if getattr(self, name) is not None:
                check_least(self, 0, name)
        check_interval(self, "(0, 1]", "variance")
        check_interval(self, "(0, 1)", "quantile")
        for name in ("reach", "deviation_floor", "z_cap"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be above 0. Received: {name}={getattr(self, name)}.")
        if self.residuals not in get_args(Residuals):
            raise SettingError(
                f"Residuals are not judged by {self.residuals!r}. {nearest(str(self.residuals), get_args(Residuals))}"
            )
        self._check_weights()
        if self.period not in (None, NO_PERIOD):
            period_of(self.period)
        check_zone("timezone", self.timezone)

    def _check_weights(self) -> None:
        for name, weight in (self.weights or {}).items():
            if name not in WEIGHTS:
                raise SettingError(f"weights names no member by {name!r}. {nearest(str(name), MEMBERS)}")
            if not weight >= 0:
                raise SettingError(f"A weight must not be negative. Received: weights={{{name!r}: {weight}}}.")
        if not sum(self._weight(name) for name in self.members) > 0:
            raise SettingError(f"One of {', '.join(self.members)} must count. Received: weights={self.weights!r}.")

    def _weight(self, name: str) -> float:
        return float((self.weights or {}).get(name, WEIGHTS[name]))

    @property
    def shares(self) -> Floats:
        """What each member counts before anything is learnt, as an array that sums to 1."""
        weights = np.array([self._weight(name) for name in self.members])
        return np.asarray(weights / weights.sum())

    def prior(self, windows: float) -> Floats:
        """As ``shares``, where so many windows without a common row were learnt from.

        >>> SeriesRecipe(members=("reconstruction", "spectrum")).prior(32.0).round(2).tolist()
        [0.57, 0.43]
        """
        learnt = windows / (windows + ENOUGH_WINDOWS)
        weights = np.array([self._weight(name) * (learnt if name == "spectrum" else 1.0) for name in self.members])
        return np.asarray(weights / weights.sum())

    def resolved(self, n_rows: int) -> SeriesRecipe:
        """The same for so many training rows: smoothing and floor that suit them, and lags of at most an eighth.

        >>> resolved = SeriesRecipe().resolved(10_000)
        >>> resolved.smoothing, resolved.range_floor, SeriesRecipe().resolved(400).range_floor
        (3.5, 0.0, 0.1)
        """
        suits = min(max(SMOOTHING_ROWS / math.sqrt(max(1, n_rows)), NARROWEST_SMOOTHING), WIDEST_SMOOTHING)
        smoothing = suits if self.smoothing is None else self.smoothing
        floor = (FLOOR_OF_FEW if n_rows < FEW_ROWS else 0.0) if self.range_floor is None else self.range_floor
        return replace(self, smoothing=smoothing, range_floor=floor, lags=min(self.lags, max(1, n_rows // LAG_SHARE)))

    def scaling_of(self, seen: Floats) -> SeriesScaling:
        """How readings of training, NaN where missing, are scaled; the recipe is ``resolved`` for them."""
        assert self.range_floor is not None
        return SeriesScaling.fit(seen, range_floor=self.range_floor, reach=self.reach, coarsest=self.deviation_floor)

    def cautious(self, risk: Floats) -> Floats:
        """Risks of rows that were not learnt from, as those of normal rows of other days may be.

        Those are a little unlike all rows of training. And neighbouring risks are alike, so few rows hold few that are
        independent, and a high quantile of those is too low. So what lies above the median is moved away from it: by a
        fifth, and by 4.5 times the root of the smoothing over the rows.

        >>> SeriesRecipe(smoothing=4.0).cautious(np.arange(101.0))[[0, 50, 90]].round(2).tolist()
        [0.0, 50.0, 133.82]
        """
        above = np.maximum(risk - np.median(risk), 0.0)
        return np.asarray(risk + (LEAST_FACTOR - 1 + MARGIN * math.sqrt((self.smoothing or 0.0) / len(risk))) * above)

    def threshold(self, risk: Floats) -> float:
        """Where risk is unusual, from risks of rows that were not learnt from, see ``cautious``.

        >>> SeriesRecipe(smoothing=4.0, quantile=0.9).threshold(np.arange(101.0))
        133.82...
        """
        return float(np.quantile(self.cautious(risk), self.quantile))

    def rows_around(self, length: int) -> int:
        """How many rows to either side bear on a row's risk, but for what long windows say."""
        windows = 2 if "forest" in self.members else 1  # a forest looks at what windows left of the rows of a window
        return windows * (length - 1) + smoothed_over(self.smoothing or 0.0)

    def long_since(self, length: int, stride: int) -> int:
        """From which of its steps on a long window counts, so that no row waits for longer than it may.

        >>> recipe = SeriesRecipe(smoothing=3.0)
        >>> [replace(recipe, wait=wait).long_since(32, 4) for wait in (None, 100, 0)]
        [0, 10, 17]
        """
        if self.wait is None or self.trailing:
            return 0
        most = max(self.wait, self.rows_around(length)) - smoothed_over(self.smoothing or 0.0) - (stride - 1)
        return min(max(0, length - 1 - most // stride), length - 1)

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
