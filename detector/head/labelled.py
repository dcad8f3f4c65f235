"""Labelled rows in the order of time: what was known when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from detector.arrays import Flags, Places


@dataclass(frozen=True)
class LabelledRows:
    """What is known of rows, each (n_rows,).

    - ``truth``: the rows known to be anomalous; ``known``: those of which it is known either way.
    - ``learnt``: the known rows that may be learnt from; the others calibrate.
    - ``time``, ``known_at``: when each row happened, and when that became known.
    """

    truth: Flags
    known: Flags
    learnt: Flags
    time: pd.Series
    known_at: pd.Series

    def parts(self, count: int) -> list[Places]:
        """The known rows in equal parts, one later than the other."""
        when = self.time.to_numpy()[self.known]
        return np.array_split(np.flatnonzero(self.known)[np.argsort(when, kind="stable")], count)

    def before(self, parts: list[Places], number: int) -> Places:
        """The rows of earlier parts that may be learnt from, as far as they were known when a part began."""
        past = np.concatenate(parts[:number])
        if len(parts[number]):
            began = self.time.to_numpy()[parts[number][0]]
            past = past[self.learnt[past] & (self.known_at.to_numpy()[past] <= began)]
        return past

    def has_both(self, places: Places) -> bool:
        """Whether rows are of both kinds, so that something can be learnt from them."""
        return bool(self.truth[places].any() and not self.truth[places].all())
