"""From the configuration to gates: what is told of sensors, and rows in maintenance, which nothing is learnt from."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd

from detector.detectors.series.scorer import SequenceScorer
from detector.detectors.table.scorer import TabularScorer
from detector.errors import nearest
from detector.persist.bundle import Scorer
from detector.schema import Schema
from detector.series.gates import Gates, SensorGate
from pipelines.config import Config
from pipelines.config.gates import GateSection
from pipelines.factory.maintenance import calendar_of
from pipelines.progress import counted

AnyScorer = TypeVar("AnyScorer", SequenceScorer, TabularScorer, Scorer)
SECONDS = 60.0


def gates_of(config: Config, *, has_times: bool = True) -> Gates:
    """The gates of a configuration: those of a sensor are those of all, but for what is said of it.

    Raises ``SettingError`` if the calendar of maintenance cannot be used.
    """
    section = config.series
    scale = SECONDS if has_times else 1.0
    sensors = {
        name: _gate(section.gates.model_copy(update={key: getattr(own, key) for key in own.model_fields_set}), scale)
        for name, own in section.sensors.items()
    }
    units = {name: said.unit for name, said in config.columns.names.items() if said.unit}
    names = {name: said.name for name, said in config.columns.names.items() if said.name}
    return Gates(sensors, _gate(section.gates, scale), calendar_of(config), units, names)


def gated(scorer: AnyScorer, config: Config) -> AnyScorer:
    """The detector with the gates of a configuration; one of tables as it is.

    Raises ``SettingError`` if they name a sensor that it does not have.
    """
    if isinstance(scorer, SequenceScorer):
        return scorer.with_gates(gates_of(config, has_times=scorer.schema.time is not None))
    return scorer


def without_maintenance(rows: pd.DataFrame, config: Config, schema: Schema) -> tuple[pd.DataFrame, str | None]:
    """Cleaned rows to learn from that are in no maintenance, and what to say of the others; all if none is planned.

    Raises ``SettingError`` as ``gates_of``, and if a gate names a sensor that there is not.
    """
    if config.kind != "sensors":
        return rows, None
    gates = gates_of(config, has_times=schema.time is not None)
    gates.check(schema.numeric + schema.boolean)
    if gates.calendar is None or schema.time is None or rows.empty:
        return rows, None
    whose = pd.Index(rows[schema.entity]) if schema.entity is not None else pd.Index([""] * len(rows))
    times = rows[schema.time].to_numpy().astype("datetime64[us]")
    quiet = gates.is_quiet(times, whose)
    unknown = _unknown_machines(gates, times, whose, has_machines=schema.entity is not None)
    said = f"Left out of training, in maintenance: {counted(int(quiet.sum()))}." if quiet.any() else ""
    if not quiet.any() and not unknown:
        said = "No row is in maintenance (`series.maintenance`)."
    return rows[~quiet], " ".join(part for part in (said, unknown) if part)


def _unknown_machines(gates: Gates, times: np.ndarray, whose: pd.Index, *, has_machines: bool) -> str:
    assert gates.calendar is not None
    spans = gates.calendar.spans(pd.Timestamp(times.min()), pd.Timestamp(times.max()))
    known = sorted({str(name) for name in whose.unique()})
    strange = sorted({span.entity for span in spans if span.entity is not None and span.entity not in known})
    if not strange:
        return ""
    if not has_machines:
        return (
            f"`series.maintenance` names the machine {strange[0]!r}, and `columns.entity` names no column of machines."
        )
    said = f"`series.maintenance` names the machine {strange[0]!r}, of which there are no rows."
    return f"{said} {nearest(strange[0], known)}"


def _gate(section: GateSection, seconds: float) -> SensorGate:
    low, high = section.range or (None, None)
    return SensorGate(
        direction=section.direction,
        least_deviation=section.least_deviation,
        least_relative=section.least_relative,
        least_seconds=seconds * section.least_minutes,
        stuck=section.stuck,
        low=-np.inf if low is None else low,
        high=np.inf if high is None else high,
    )
