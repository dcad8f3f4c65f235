"""What has changed from one configuration to another, and what of it a service cannot take over while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from pipelines.config import Config

FIXED = (
    "name",
    "kind",
    "source",
    "columns",
    "output",
    "bundle",
    "service.store",
    "service.cursor",
    "service.lease",
    "service.host",
    "service.port",
    "service.log",
)
"""What says whose state it is, where it lies, what was learnt, and where the service answers."""


def changes(before: Config, after: Config) -> list[str]:
    """The settings that differ, by their place in the file; numbers and switches with both values, never a text.

    >>> before = Config(source={"path": "a.csv"}, policy={"fdr": 0.1})
    >>> after = Config(source={"path": "a.csv"}, policy={"fdr": 0.05}, service={"timezone": "Europe/Berlin"})
    >>> changes(before, after)
    ['policy.fdr: 0.1 → 0.05', 'service.timezone']
    """
    return [
        f"{place}: {_shown(one)} → {_shown(two)}" if _is_plain(one, two) else place
        for place, one, two in _differences(before, after, "")
    ]


def fixed_changes(before: Config, after: Config) -> list[str]:
    """Those of them that need a new start.

    >>> before = Config(source={"path": "a.csv"})
    >>> fixed_changes(before, Config(source={"path": "b.csv"}, policy={"fdr": 0.05}, service={"port": 8000}))
    ['source.path', 'service.port']
    """
    places = [place for place, _, _ in _differences(before, after, "")]
    return [place for place in places if any(place == each or place.startswith(f"{each}.") for each in FIXED)]


def _differences(before: BaseModel, after: BaseModel, place: str) -> Iterator[tuple[str, object, object]]:
    for name in type(before).model_fields:
        one, two = getattr(before, name), getattr(after, name)
        if one == two:
            continue
        if isinstance(one, BaseModel) and type(one) is type(two):
            yield from _differences(one, two, f"{place}{name}.")
        else:
            yield f"{place}{name}", one, two


def _is_plain(*values: object) -> bool:
    return all(value is None or isinstance(value, bool | int | float) for value in values)


def _shown(value: object) -> str:
    return (
        {None: "none", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else f"{value:g}"
    )


def listed(places: Sequence[str]) -> str:
    """Some of them in a sentence.

    >>> listed(["policy.fdr: 0.1 → 0.05", "service.keep_runs: 90 → 30"])
    'policy.fdr: 0.1 → 0.05; service.keep_runs: 90 → 30'
    """
    return "; ".join(places[:8]) + (f"; and {len(places) - 8} more" if len(places) > 8 else "")
