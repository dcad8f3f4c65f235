"""Files of labelled sensor series: rows to learn from, rows to score, and the truth."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SKAB_TRAIN = 400
NOT_SENSORS = ("datetime", "anomaly", "changepoint")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One file: rows to learn from, rows to score in the order of time, and the truth of the last of them."""

    name: str
    train: Floats
    scored: Floats
    truth: NDArray[np.int64]


def load_skab(path: Path) -> Task | None:
    """Read a file of the Skoltech benchmark; ``None`` if it has no labels.

    Raises
    ------
    SystemExit
        With a sentence that names the file, if it is not such a file.
    """
    try:
        frame = pd.read_csv(path, sep=";")
        if "anomaly" not in frame:
            return None
        values = frame.drop(columns=[name for name in NOT_SENSORS if name in frame]).to_numpy(dtype=np.float64)
        truth = frame["anomaly"].to_numpy().astype(np.int64)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} is not a ';'-separated table of sensors with a column anomaly: {error}") from error
    if len(values) <= SKAB_TRAIN:
        raise SystemExit(f"{path} has {len(values)} rows; {SKAB_TRAIN} train, so that there is nothing to judge.")
    return _checked(path, Task(path.stem, values[:SKAB_TRAIN], values, truth[SKAB_TRAIN:]))


def load_skab_quiet(path: Path) -> Floats:
    """The rows of such a file up to its first anomaly; of one without labels, which holds none, all of them."""
    frame = pd.read_csv(path, sep=";")
    values = frame.drop(columns=[name for name in NOT_SENSORS if name in frame])
    sensors: Floats = values.to_numpy(dtype=np.float64)
    if "anomaly" not in frame:
        return sensors
    return sensors[: int((frame["anomaly"].cumsum() == 0).sum())]


def load_tsb(path: Path) -> Task:
    """Read a file of TSB-AD-M.

    Raises
    ------
    SystemExit
        With a sentence that names the file, if it is not such a file.
    """
    data, label, tr = _arrays(path, ("data", "label", "tr"))
    values = data.astype(np.float64)
    return _checked(path, Task(path.stem, values[: int(tr)], values, label.astype(np.int64).ravel()))


def load_asd(path: Path) -> Task:
    """Read a server of the Application Server Dataset.

    Raises
    ------
    SystemExit
        With a sentence that names the file, if it is not such a file.
    """
    train, test, label = _arrays(path, ("train", "test", "label"))
    return _checked(
        path, Task(path.stem, train.astype(np.float64), test.astype(np.float64), label.astype(np.int64).ravel())
    )


def _arrays(path: Path, names: Sequence[str]) -> list[NDArray[np.float64]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [np.asarray(arrays[name], dtype=np.float64) for name in names]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{path} is not an .npz file with numbers in {', '.join(names)}: {error}") from error


def _checked(path: Path, task: Task) -> Task:
    good = task.train.ndim == task.scored.ndim == 2 and task.train.shape[1:] == task.scored.shape[1:]
    if not good or not 0 < len(task.truth) <= len(task.scored) or not np.isin(task.truth, (0, 1)).all():
        raise SystemExit(f"{path} must hold tables of the same sensors, and a label of 0 or 1 for each row to judge.")
    train, scored = (np.where(np.isfinite(values), values, np.nan) for values in (task.train, task.scored))
    return Task(task.name, train, scored, task.truth)
