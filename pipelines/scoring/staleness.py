"""Machines that say nothing at all: there is no row to flag, so their silence is reported beside the rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from detector.cleaning.values import naive_utc
from detector.decide.severity import severity
from detector.detectors.series.reasons import duration
from detector.detectors.series.scorer import SequenceScorer
from detector.explain.reason import Reason
from pipelines.config import Config

FORGOTTEN = timedelta(days=30)
"""A machine that has been silent for so long is no longer waited for."""


@dataclass(frozen=True)
class Staleness:
    """When a machine counts as silent.

    - ``after``: Its newest row is so much older than the present, and than is normal for its sensors.
    - ``by_clock``: Whether the present is now; if not, it is the newest row of all machines, which cannot be later than
      now.
    - ``is_reported``: Whether there are alerts, of one machine each.
    """

    after: timedelta = timedelta(minutes=15)
    by_clock: bool = False
    is_reported: bool = True

    @classmethod
    def of(cls, config: Config) -> Staleness:
        """The limits that a configuration sets."""
        entity = config.columns.entity
        one_each = config.alerts.group_by(config.columns) == (() if entity is None else (entity,))
        after = timedelta(minutes=config.series.silent_minutes)
        return cls(after, config.series.silent_by_clock, config.alerts.enabled and one_each)

    def present(self, newest: pd.Series, now: datetime) -> pd.Timestamp:
        """The time that silence is measured to.

        >>> from datetime import UTC
        >>> newest = pd.Series(pd.to_datetime(["2026-03-01 10:00", "2026-03-01 12:00"]))
        >>> Staleness().present(newest, datetime(2026, 3, 1, 11, tzinfo=UTC))
        Timestamp('2026-03-01 11:00:00')
        """
        clock = naive_utc(now)
        return clock if self.by_clock else min(clock, newest.max())

    def silent(self, scorer: SequenceScorer, newest: pd.Series, present: pd.Timestamp) -> pd.Series:
        """The machines that are silent, and since when.

        - ``scorer``: Knows the normal silence of each sensor.
        - ``newest``: The time of each machine's last row, by entity.
        - ``present``: See ``present``.
        """
        newest = newest[[scorer.has_model(name) for name in newest.index]]
        if newest.empty:
            return newest
        patience = [max(self.after, _shortest_alarming(scorer, entity)) for entity in newest.index]
        return newest[(present - newest).to_numpy() > np.array(patience, dtype="timedelta64[us]")]


def notices_of(
    scorer: SequenceScorer, silent: pd.Series, present: pd.Timestamp, *, version: str, entity: str | None, time: str
) -> pd.DataFrame:
    """What alerts are made of: a flagged row for each silent machine, now."""
    lines = []
    pace = duration(pd.Timedelta(microseconds=scorer.sampling.interval or 0))
    for name, since in silent.items():
        model = scorer.model_of(name)
        risk = np.array([model.threshold + model.alarm * max(1, int(model.scaling.known.sum()))])
        p_value = model.calibrator.p_value(risk)
        tail = p_value if model.calibrator.pareto is None else model.calibrator.p_value(risk, tail="pareto")
        silence = f"of {duration(present - since)} since {since:%Y-%m-%d %H:%M}"
        lines.append(
            {
                time: present,
                "risk": float(risk[0]),
                "p_value": float(p_value[0]),
                "flagged": True,
                "severity": severity(tail, np.array([True]))[0],
                "reasons": [Reason("silence", silence, f"a reading every {pace}", 1.0)],
                "model_version": version,
            }
            | ({} if entity is None else {entity: name})
        )
    return pd.DataFrame(lines)


def with_notices(scored: pd.DataFrame, notices: pd.DataFrame | None) -> pd.DataFrame:
    """What alerts are made of: a batch's scores, and notices that belong to no row."""
    if notices is None or notices.empty:
        return scored
    if scored.empty:
        return notices
    whole = [name for name in scored if name not in notices and pd.api.types.is_integer_dtype(scored[name])]
    nothing = dict.fromkeys(whole, "")  # or numbers that name rows would turn into fractions
    return pd.concat([scored.astype(dict.fromkeys(whole, object)), notices.assign(**nothing)], ignore_index=True)


def _shortest_alarming(scorer: SequenceScorer, entity: object) -> timedelta:
    """The shortest silence of a sensor that is news."""
    limits = [limit for limit in scorer.model_of(entity).staleness.limits if limit is not None]
    return timedelta(microseconds=(scorer.sampling.interval or 0) * min(limits, default=0))
