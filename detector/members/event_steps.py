"""Features of single events → which columns make up which step of a window, for a member that reads sequences."""

from __future__ import annotations

from collections.abc import Iterable

from detector.errors import SettingError
from detector.features.feature import OF_EVENT, Feature
from detector.members.event_sequence import Sensor, Steps


def steps_of(features: Iterable[Feature]) -> Steps:
    """The window that ``last``, ``gap`` and ``code`` describe, the row itself its last step.

    A step has the amount, the minutes since the event before, and the codes. Where there are fewer events of one kind
    than of another, the oldest steps lack it.

    Raises
    ------
    SettingError
        If there is no such feature, or they are of several entities.

    >>> steps = steps_of(Feature.parse("last 1 of amount by card over 1d") + Feature.parse("gap 2 by card over 1d"))
    >>> for sensor in steps.sensors:
    ...     print(sensor.columns)
    ('amount_last_1_1d_by_card', 'amount')
    ('gap_2_1d_by_card', 'gap_1_1d_by_card')
    """
    events = [feature for feature in features if feature.measure in OF_EVENT]
    entities = {(feature.by, feature.window) for feature in events}
    if len(entities) != 1:
        raise SettingError(
            f"A sequence expected features such as `last 8 of amount by card_id over 90d` of one entity and window, "
            f"received {len(entities)} of these. Add them to `features.history`, of one entity only."
        )
    found: dict[tuple[str, ...], dict[int, Feature]] = {}
    for feature in events:
        found.setdefault((feature.measure, *feature.of), {})[feature.back] = feature
    past = max(max(own) - (measure == "gap") for (measure, *_), own in found.items())
    sensors = []
    for (measure, *of), own in found.items():
        if measure == "last":
            columns = [*(own[back].name if back in own else None for back in range(past, 0, -1)), of[0]]
        else:
            ahead = int(measure == "gap")
            columns = [own[back].name if (back := step + ahead) in own else None for step in range(past, -1, -1)]
        sensors.append(Sensor(tuple(columns), coded=measure == "code"))
    return Steps(tuple(sensors), beside=tuple(feature.name for feature in events))
