"""Whether an event names the sensor at fault first, and says rightly which way it went.

``python -m benchmarks.events simulated|skab|tsb|asd|single [FOLDER]``

- *simulated*: machines of the simulator, with the truth of every fault; the first two fifths train. A fault's direction
  is that of its readings beside those of the same machine without faults.
- *skab*, *tsb*, *asd*, *single*: real series, read as ``benchmarks.sensors`` reads them. Of the rows that train there
  (of SKAB, of all rows up to the first anomaly), the first three fifths train; in the others faults are planted, one
  sensor each, one kind after the other, with quiet rows between them; four times anew. Files with fewer than 500 rows
  are passed over.

A fault counts where an event overlaps it that is not there without it, so that none of its rows is flagged then: the
event's first sensor is or is not the one at fault; and of spikes, level shifts and drifts, the way that the event says.
Faults that nothing flags are not counted here. Seeds, sizes and kinds are declared below, and no fault is left out
after looking. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.sensor_files import Floats, load_skab_quiet
from benchmarks.sensors import PROTOCOLS, RESULTS, default_detector
from detector.schema import Schema
from pipelines.simulate.sensors import simulate_sensors

SEEDS = (1, 2, 3, 4)
PLANTINGS = 4
SIMULATED_ROWS = 18_000
TRAINED = 0.6
LEAST_ROWS, MOST_ROWS = 500, 12_000
PAUSE = 150
LEAST_CHANGE = 0.5
"""Standard deviations of the sensor: what changes no reading by more is no fault, and is not planted."""
LENGTHS = {
    "spike": (1, 3),
    "level_shift": (30, 90),
    "drift": (40, 120),
    "stuck": (40, 120),
    "noise": (30, 90),
    "lost_correlation": (40, 120),
}
SIZES = (3.0, 6.0)
"""Of spikes, shifts, drifts and noise, in standard deviations of the sensor."""
DIRECTED = ("spike", "level_shift", "drift")


@dataclass(frozen=True)
class Fault:
    """Rows ``start`` to ``stop`` (not included); the sensors at fault; 1 up, -1 down, 0 neither."""

    kind: str
    start: int
    stop: int
    sensors: tuple[str, ...]
    direction: int


def plant(values: Floats, names: Sequence[str], rng: np.random.Generator) -> tuple[Floats, list[Fault]]:
    """The rows with faults of all kinds in turn, each in one sensor that moves; and what they are."""
    changed, faults, kinds = values.copy(), [], list(LENGTHS)
    spread = np.nanstd(values, axis=0)
    moving = np.flatnonzero(spread > 0)
    row, number = PAUSE, int(rng.integers(len(kinds)))
    while len(moving):
        kind = kinds[number % len(kinds)]
        rows = int(rng.integers(LENGTHS[kind][0], LENGTHS[kind][1] + 1))
        if row + rows + PAUSE > len(values):
            break
        sensor, part = int(rng.choice(moving)), slice(row, row + rows)
        size = float(rng.uniform(*SIZES)) * spread[sensor] * float(rng.choice([-1, 1]))
        if kind in ("spike", "level_shift"):
            changed[part, sensor] += size
        elif kind == "drift":
            changed[part, sensor] += size * np.linspace(0, 1, rows)
        elif kind == "noise":
            changed[part, sensor] += abs(size) / 2 * rng.normal(size=rows)
        elif kind == "stuck":
            changed[part, sensor] = changed[row, sensor]
        else:
            other = int(rng.integers(0, len(values) - rows))
            changed[part, sensor] = values[other : other + rows, sensor]
        if np.nanmax(np.abs(changed[part, sensor] - values[part, sensor])) < LEAST_CHANGE * spread[sensor]:
            changed[part, sensor] = values[part, sensor]
            row, number = row + PAUSE, number + 1
            continue
        direction = int(np.sign(size)) if kind in DIRECTED else 0
        faults.append(Fault(kind, row, row + rows, (names[sensor],), direction))
        row, number = row + rows + PAUSE, number + 1
    return changed, faults


@dataclass(frozen=True)
class Planted:
    """Rows to learn from, later rows as they are, and those rows with faults, once for each planting."""

    name: str
    train: pd.DataFrame
    quiet: pd.DataFrame
    faulty: list[tuple[pd.DataFrame, list[Fault]]]


def planted_tasks(protocol: str, folder: Path) -> Iterator[Planted]:
    """One for each file."""
    found = PROTOCOLS[protocol]
    for place, path in enumerate(sorted(folder.glob(found.pattern))):
        task = found.load(path)
        whole = load_skab_quiet(path) if protocol == "skab" else np.empty((0, 0)) if task is None else task.train
        whole = whole[:MOST_ROWS]
        if len(whole) < LEAST_ROWS:
            continue
        names = [f"x{number}" for number in range(whole.shape[1])]
        split = int(TRAINED * len(whole))
        train, quiet = (pd.DataFrame(rows, columns=names) for rows in (whole[:split], whole[split:]))
        planted = [plant(whole[split:], names, np.random.default_rng([place, turn])) for turn in range(PLANTINGS)]
        faulty = [(pd.DataFrame(rows, columns=names), faults) for rows, faults in planted]
        yield Planted(path.stem, train, quiet, faulty)


def simulated_tasks() -> Iterator[Planted]:
    """One for each seed: a machine of eight sensors."""
    for seed in SEEDS:
        frame = simulate_sensors(SIMULATED_ROWS, seed=seed, sensors=8)
        quiet = simulate_sensors(SIMULATED_ROWS, seed=seed, sensors=8, anomalies=[])
        names = [name for name in quiet if name not in ("time", "machine") and not name.startswith("anomaly")]
        first = int(0.4 * SIMULATED_ROWS)
        own = frame["anomaly_sensor"] + frame["anomaly_kind"]
        number = ((own != own.shift()) & (own != "")).cumsum().where(own != "")
        faults = []
        for rows in frame.groupby(number).groups.values():
            kind, sensors = str(frame.at[rows[0], "anomaly_kind"]), str(frame.at[rows[0], "anomaly_sensor"]).split(",")
            moved = (frame.loc[rows, sensors] - quiet.loc[rows, sensors]).mean()
            direction = int(np.sign(moved.iloc[0])) if kind in DIRECTED else 0
            faults.append(Fault(kind, int(rows[0]) - first, int(rows[-1]) - first + 1, tuple(sensors), direction))
        quiet, faulty = (rows.loc[first:, names].reset_index(drop=True) for rows in (quiet, frame))
        yield Planted(f"seed {seed}", frame.loc[: first - 1, names], quiet, [(faulty, faults)])


def judge(task: Planted) -> Iterator[dict[str, object]]:
    """One record for each fault that an event overlaps; those that are flagged without it do not count."""
    detector = default_detector(schema=Schema(numeric=tuple(task.train.columns))).fit(task.train)
    usual = detector.scorer_.score_frame(task.quiet).frame["flagged"].to_numpy(dtype=bool)
    for faulty, faults in task.faulty:
        if faults:
            yield from _judge(task.name, detector.events(faulty, join=5), usual, faults)


def _judge(
    name: str, events: pd.DataFrame, usual: NDArray[np.bool_], faults: Sequence[Fault]
) -> Iterator[dict[str, object]]:
    for fault in faults:
        over = events[(events["start"] < fault.stop) & (events["end"] >= fault.start)]
        event = None if over.empty else over.loc[over["risk"].idxmax()]
        if event is None or usual[event["start"] : event["end"] + 1].any():
            yield {"file": name, "kind": fault.kind, "counts": False, "found": event is not None}
            continue
        said = _direction(event)
        yield {
            "file": name,
            "kind": fault.kind,
            "counts": True,
            "found": True,
            "true_sensor": ",".join(fault.sensors),
            "first_sensor": event["sensors"].split(", ")[0],
            "first": event["sensors"].split(", ")[0] in fault.sensors,
            "direction": np.nan if not fault.direction else float(said == fault.direction),
            "text": event["text"],
        }


def _direction(event: pd.Series) -> int:
    return {"up": 1, "down": -1}.get(str(event["direction"]), 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", choices=["simulated", *sorted(PROTOCOLS)])
    parser.add_argument("folder", type=Path, nargs="?", help="folder of such files")
    options = parser.parse_args(arguments)
    if options.protocol != "simulated" and options.folder is None:
        parser.error(f"{options.protocol} needs the folder of its files")
    tasks = simulated_tasks() if options.protocol == "simulated" else planted_tasks(options.protocol, options.folder)
    records = []
    for task in tasks:
        own = list(judge(task))
        print(f"{task.name}: {sum(bool(record['counts']) for record in own)} of {len(own)} faults count", flush=True)
        records += own
    if not records:
        parser.error(f"no file of {LEAST_ROWS} rows in {options.folder}")
    found = pd.DataFrame(records)
    counted = found[found["counts"]]
    RESULTS.mkdir(exist_ok=True)
    counted.drop(columns=["counts", "found", "text"]).to_csv(RESULTS / f"events-{options.protocol}.csv", index=False)
    by_kind = counted.groupby("kind").agg(
        faults=("first", "size"), first=("first", "mean"), direction=("direction", "mean")
    )
    print(by_kind.round(3).to_string())
    wrong = counted[~counted["first"].astype(bool) | (counted["direction"] == 0)]
    print(wrong[["file", "kind", "true_sensor", "text"]].to_string(index=False, max_colwidth=150))
    figures = {
        "faults": len(found),
        "counted": len(counted),
        "first": round(float(counted["first"].mean()), 4),
        "direction": round(float(counted["direction"].mean()), 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
