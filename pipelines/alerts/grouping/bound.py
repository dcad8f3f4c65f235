"""The bound on what one batch has the database remember: one in which all is flagged is not to lock it for long."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.alerts.grouping.events import Event, rank
from pipelines.alerts.grouping.notify_rules import Candidate

MOST_GROUPS = 20_000


def bounded(events: Sequence[Event], *, most: int = MOST_GROUPS) -> tuple[list[Event], list[Candidate]]:
    """The events of the most severe groups; and the others, which are counted for the digest and not remembered.

    What is not remembered is counted anew if the next batch flags it again.
    """
    worst: dict[str, tuple[int, float]] = {}
    for event in events:
        level = (rank(event.severity), event.risk)
        worst[event.group] = max(worst.get(event.group, level), level)
    if len(worst) <= most:
        return list(events), []
    kept = set(sorted(worst, key=lambda group: worst[group], reverse=True)[:most])
    counted = [
        Candidate("opened", event, "", event.first_at, "", is_fresh=True) for event in events if event.group not in kept
    ]
    return [event for event in events if event.group in kept], counted
