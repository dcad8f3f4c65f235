"""Flag rows of labelled tables by a false discovery rate, and count what became of the promise.

``python -m benchmarks.flags FOLDER --protocol one-class --alpha 0.1 --seeds 3``

Sets and protocols are those of ``benchmarks.tabular``. For each set and seed: ``fdp``, the share of the flagged rows
that are normal (0 if none are flagged); ``power``, the share of the anomalies that are flagged; ``oracle_power``, the
same for the best cut of the same ranking whose flags are right to 1 - alpha; whether the rate was promised; the rows
flagged at half and at twice alpha. Means are over sets, each the mean of its seeds. The last line is one JSON object;
``silent_sets`` is how many sets flag nothing, averaged over seeds, and ``fdp_worst`` the largest mean of a set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.tabular import load, parser_of, sets_of, split, write
from detector.decide.policy import Policy
from detector.detectors.table.detector import TabularDetector

METRICS = ["fdp", "power", "oracle_power", "promised"]


def best_cut(truth: NDArray[np.int64], risk: NDArray[np.float64], precision: float) -> float:
    """The largest share of anomalies above one threshold, at a precision; rows of equal risk are cut together.

    >>> best_cut(np.array([1, 1, 0, 1]), np.array([4.0, 3.0, 2.0, 1.0]), 0.9)
    0.6666666666666666
    """
    order = np.argsort(-risk, kind="stable")
    found, ordered = np.cumsum(truth[order]), risk[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    right = last & (found >= precision * np.arange(1, len(order) + 1) - 1e-9)
    return float(found[right].max() / truth.sum()) if right.any() else 0.0


def flags(path: Path, *, protocol: str, alpha: float, seed: int) -> dict[str, Any]:
    """Train on a set, flag its other rows, and count."""
    X, y = load(path)
    parts = split(X, y, protocol=protocol, seed=seed)
    columns = [f"x{i}" for i in range(X.shape[1])]
    detector = TabularDetector(random_state=seed).fit(pd.DataFrame(parts.train, columns=columns))
    verdicts = detector.judge(pd.DataFrame(parts.test, columns=columns), policy=Policy(fdr=alpha))
    flagged, truth = verdicts.frame["flagged"].to_numpy(dtype=bool), parts.truth
    right, calibrator = int(truth[flagged].sum()), detector.scorer_.calibrator
    half, twice = verdicts.neighbours.values()
    return {
        "set": path.stem,
        "seed": seed,
        "rows": len(truth),
        "anomalies": int(truth.sum()),
        "calibration_rows": calibrator.size,
        "trimmed": calibrator.trimmed,
        "flagged": int(flagged.sum()),
        "fdp": (flagged.sum() - right) / max(1, flagged.sum()),
        "power": right / truth.sum(),
        "oracle_power": best_cut(truth, verdicts.frame["risk"].to_numpy(), 1 - alpha),
        "promised": verdicts.promised,
        "flagged_at_half": half,
        "flagged_at_twice": twice,
        "note": verdicts.note or "",
    }


def measure(paths: Sequence[Path], *, protocol: str, alpha: float, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a record for each set and seed."""
    for path in paths:
        for seed in range(seeds):
            yield flags(path, protocol=protocol, alpha=alpha, seed=seed)


def summary(records: pd.DataFrame) -> dict[str, float]:
    """The means over sets that the last line prints."""
    by_set = records.groupby("set")[METRICS].mean()
    means = by_set.mean()
    silent = records["flagged"].eq(0).groupby(records["seed"]).sum().mean()
    found = {
        "fdp": means["fdp"],
        "fdp_worst": by_set["fdp"].max(),
        "power": means["power"],
        "oracle_power": means["oracle_power"],
        "of_the_best_cut": means["power"] / max(means["oracle_power"], 1e-9),
        "silent_sets": silent,
        "promised": means["promised"],
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = parser_of("flags", __doc__.partition("\n")[0])
    parser.add_argument("--alpha", type=float, default=0.1, help="false discovery rate asked for (default: 0.1)")
    options = parser.parse_args(arguments)
    paths = sets_of(parser, options, ".npz")
    if not 0 < options.alpha < 1:
        parser.error(f"--alpha must lie between 0 and 1, got {options.alpha}")

    records: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(options.protocol, total=len(paths) * options.seeds)
        for record in measure(paths, protocol=options.protocol, alpha=options.alpha, seeds=options.seeds):
            progress.update(task, description=f"{record['set']}, seed {record['seed']}", advance=1)
            records.append(record)

    results = pd.DataFrame(records)
    write(results, options.output)
    print(f"\nFlags at {options.alpha:g}, {options.protocol}, mean over {options.seeds} seeds")
    print(results.drop(columns=["seed", "note"]).groupby("set").mean().to_string(float_format="{:.3f}".format))
    for note, count in results.loc[results["note"].ne(""), "note"].value_counts().head(5).items():
        print(f"{count} times: {note}")
    print("\n" + json.dumps(summary(results)))


if __name__ == "__main__":
    main()
