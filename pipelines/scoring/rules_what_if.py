"""What rules add to the rows that a policy flags, and what they hide, from the hits that were stored with scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector.arrays import Flags
from pipelines.config import Config
from pipelines.config.rules import RuleSection
from pipelines.rules.book import version_of
from pipelines.rules.stored import held_rules, in_force
from pipelines.store import Store

HITS = "rules_hit"

Stakes = Sequence[tuple[float, NDArray[np.intp]]]


@dataclass(frozen=True)
class RulesOutlook:
    """What live rules come to beside a policy, over the days of an outlook.

    - ``flagged``, ``a_day``: rows that are flagged in the end.
    - ``added``: those of them that the policy alone would not flag: by a rule, or in the room that hidden rows leave.
    - ``hidden``: rows that the policy or another rule would flag, and nobody hears of.
    - ``money_added``, ``money_hidden``: what was at stake in the events that people called fraud and that only rules
      catch, or that only rules keep from being caught; None where that of the policy is.
    """

    flagged: int
    a_day: float
    added: int
    added_a_day: float
    hidden: int
    hidden_a_day: float
    money_added: float | None = None
    money_hidden: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON, for programs."""
        return dict(vars(self))


@dataclass(frozen=True)
class StoredHits:
    """Which live rules hit each row when it was scored.

    - ``codes``, (n_rows,): which of ``texts``, the names of rules as they are stored; -1 for none.
    """

    codes: NDArray[np.intp]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> StoredHits | None:
        """Those of stored scores; None where no rule has hit a row."""
        if HITS not in frame:
            return None
        codes, texts = pd.factorize(frame[HITS].where(frame[HITS] != ""))
        return cls(codes, tuple(map(str, texts))) if len(texts) else None

    def by(self, names: Iterable[str]) -> Flags:
        """The rows that some of these rules hit."""
        wanted = frozenset(names)
        hits = [not wanted.isdisjoint(text.split(", ")) for text in self.texts]
        return np.array([*hits, False])[self.codes]  # the last for rows that none has hit


@dataclass(frozen=True)
class LiveRules:
    """The rules that act today.

    - ``alert``, ``never``: the names of those that flag rows, and of those that hide some.
    - ``version``: of all rules and their states.
    """

    alert: frozenset[str]
    never: frozenset[str]
    version: str

    @classmethod
    def of(cls, config: Config, store: Store) -> LiveRules | None:
        """Those of the file and of the service; None if none flags or hides rows."""
        with store.read() as session:
            sections = in_force(held_rules(config, session))
        alert, never = (_live(sections, action) for action in ("alert", "never"))
        return cls(alert, never, version_of(sections)) if alert or never else None

    def outlook(
        self, hits: StoredHits | None, decided: Callable[[Flags | None], Flags], *, days: float, stakes: Stakes
    ) -> RulesOutlook:
        """What they come to.

        - ``decided``: the rows that the policy flags of those that it sees; None for all.
        """
        whole = decided(None)
        alert, never = (
            np.zeros(len(whole), dtype=bool) if hits is None else hits.by(names) for names in (self.alert, self.never)
        )
        seen = decided(~never) if never.any() else whole
        flagged, otherwise = (seen | alert) & ~never, whole | alert
        added, hidden = flagged & ~whole, otherwise & ~flagged & never
        money = [
            round(sum(amount for amount, rows in stakes if one[rows].any() and not other[rows].any()), 2)
            for one, other in ((flagged, whole), (otherwise, flagged))
        ]
        counts = [int(each.sum()) for each in (flagged, added, hidden)]
        a_day = [round(count / max(days, 1.0), 2) for count in counts]
        return RulesOutlook(
            flagged=counts[0],
            a_day=a_day[0],
            added=counts[1],
            added_a_day=a_day[1],
            hidden=counts[2],
            hidden_a_day=a_day[2],
            money_added=money[0] if stakes else None,
            money_hidden=money[1] if stakes else None,
        )


def _live(sections: Iterable[RuleSection], action: str) -> frozenset[str]:
    return frozenset(each.name for each in sections if each.state == "live" and each.action == action)
