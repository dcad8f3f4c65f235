"""Measure how many sensor windows a second an encoder scores, in a process that never loads TensorFlow.

``python -m benchmarks.windows [--encoder conv1d]``

Windows of 64 readings of 8 sensors. The encoder learns from a few of them and is saved; a second process loads it and
scores many, from the array of windows to the scores, the best of five runs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.encoders import (
    Conv1dAutoencoder,
    DenseAutoencoder,
    RecurrentAutoencoder,
    TransformerAutoencoder,
    load,
    save,
)
from detector.training.settings import Training

TIMESTEPS, SENSORS = 64, 8
ENCODERS: dict[str, Any] = {
    "conv1d": Conv1dAutoencoder,
    "dense": DenseAutoencoder,
    "recurrent": RecurrentAutoencoder,
    "transformer": TransformerAutoencoder,
}


def make_windows(n_windows: int, *, seed: int) -> NDArray[np.float64]:
    """Waves of one frequency and another phase for each sensor, with noise, flattened.

    >>> make_windows(3, seed=0).shape
    (3, 512)
    """
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(1, 6, (n_windows, 1, 1)), rng.uniform(0, 2 * np.pi, (n_windows, 1, SENSORS))
    waves = np.sin(2 * np.pi * frequency * np.arange(TIMESTEPS)[None, :, None] / TIMESTEPS + phase)
    return (waves + rng.normal(0, 0.05, waves.shape)).reshape(n_windows, -1)


def measure(folder: Path, n_windows: int, runs: int) -> dict[str, Any]:
    """Load an encoder and score windows; the best of some runs."""
    encoder, windows = load(folder), make_windows(n_windows, seed=1)
    encoder.score_samples(windows[:1000])
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        scores = encoder.score_samples(windows)
        seconds.append(time.perf_counter() - started)
    if not np.isfinite(scores).all():
        raise SystemExit("A window got no score.")
    return {
        "windows_per_second": round(n_windows / min(seconds)),
        "tensorflow": any(name in sys.modules for name in ("keras", "tensorflow")),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, save, and let another process measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", choices=sorted(ENCODERS), default="conv1d")
    parser.add_argument("--windows", type=int, default=50_000, help="windows to score")
    parser.add_argument("--train", type=int, default=2_000, help="windows to learn from")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="measure this saved encoder only")
    chosen = parser.parse_args(arguments)
    if chosen.folder is not None:
        print(json.dumps(measure(chosen.folder, chosen.windows, chosen.runs)))
        return
    encoder = ENCODERS[chosen.encoder]()
    if "timesteps" in encoder.get_params():
        encoder.set_params(timesteps=TIMESTEPS)
    encoder.set_params(training=Training(epochs=chosen.epochs)).fit(make_windows(chosen.train, seed=0))
    with tempfile.TemporaryDirectory() as kept:
        command = [sys.executable, "-m", "benchmarks.windows", "--folder", str(save(encoder, Path(kept) / "encoder"))]
        command += ["--windows", str(chosen.windows), "--runs", str(chosen.runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{type(encoder).__name__}: windows of {TIMESTEPS} x {SENSORS}, {found['windows_per_second']:,} a second")
    print(json.dumps({"encoder": chosen.encoder, "timesteps": TIMESTEPS, "sensors": SENSORS, **found}))


if __name__ == "__main__":
    main()
