"""Judge labelled sensor series: the default detector, and each of its members and neural encoders beside it.

``python -m benchmarks.sensors skab FOLDER``, and ``--encoders conv1d,lstm`` to train those too.

- *skab* (Skoltech Anomaly Benchmark): every CSV file below the folder with ``;`` between its columns and a column
  ``anomaly``. The first 400 rows train, the rest are judged; rows are counted by flag and truth, summed over files.
- *tsb* (TSB-AD-M): every ``.npz`` file with ``data``, ``label`` and ``tr``. The first ``tr`` rows train, the whole
  series is scored; VUS-PR with the buffer of the first sensor's period, averaged over files.
- *single* (NAB, as in TSB-AD-U): the same with one sensor a file.
- *asd* (Application Server Dataset): every ``.npz`` file with ``train``, ``test`` and ``label``; average precision,
  averaged over files.

Configuration and threshold rule are the same for all; they use no label, and are printed before anything is
scored. Rows are taken in the order they come, one interval apart: what ``Sampling(jitter=1)`` makes of SKAB's clock,
which cuts off parts of a second. Values that are not finite are missing, and a file without both kinds of rows has no
VUS-PR or average precision. Results are added to those of earlier runs, of which those of the same methods are
replaced, so that encoders can be trained one by one. The last line is one JSON object: the figures of the default
detector.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from sklearn.metrics import average_precision_score

from benchmarks.kept import keep
from benchmarks.sensor_files import Floats, Task, load_asd, load_skab, load_tsb
from benchmarks.series_metrics import RowCounts, find_period, measure_volume
from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.encoders import ENCODERS

RESULTS = Path(__file__).parent / "results"
DEFAULT = "default"


@dataclass(frozen=True)
class Scored:
    """Risks of the rows with a truth, and the threshold by the declared rule."""

    risk: Floats
    threshold: float


def default_detector(**changed: Any) -> SequenceDetector:
    """The default configuration; a series shorter than a window is judged too, so that no file ends the run."""
    return SequenceDetector(**{"short": "pad", **changed})


def score_default(task: Task) -> dict[str, Scored]:
    """Score by the default detector, and by each of its members alone."""
    detector = default_detector().fit(task.train)
    scorer = detector.scorer_
    measured = scorer.measure(pd.DataFrame(task.scored, columns=list(scorer.sensors)))[-len(task.truth) :]
    alone = {name: Scored(measured[name].to_numpy(), scorer.metrics[f"threshold_{name}"]) for name in scorer.members}
    return {DEFAULT: _scored(detector, task)} | alone


def score_encoder(name: str, task: Task) -> tuple[Scored, bool]:
    """Score by a neural encoder whether it beats the principal components or not; and whether it does."""
    detector = default_detector(encoder=name, fall_back=False).fit(task.train)
    facts = detector.scorer_.metrics
    better = facts["encoder"] == name and facts["encoder_error_holdout"] < facts["pca_error_holdout"]
    return _scored(detector, task), better


def _scored(detector: SequenceDetector, task: Task) -> Scored:
    threshold = detector.threshold_
    assert isinstance(threshold, float)  # one series, one model
    return Scored(detector.risk(task.scored)[-len(task.truth) :], threshold)


def _judge_skab(task: Task, scored: Scored) -> dict[str, float]:
    counts = RowCounts.of(task.truth, scored.risk > scored.threshold)
    rates = {"f1": counts.f1, "far": counts.far, "mar": counts.mar}
    return rates | {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}


def _judge_tsb(task: Task, scored: Scored) -> dict[str, float]:
    first = task.scored[:, 0]
    buffer = find_period(np.where(np.isnan(first), np.nanmean(first), first))
    if len(np.unique(task.truth)) < 2:
        return {"vus_pr": np.nan, "vus_roc": np.nan, "buffer": buffer}
    volume = measure_volume(task.truth, scored.risk, buffer=buffer)
    return {"vus_pr": volume.pr, "vus_roc": volume.roc, "buffer": buffer}


def _judge_asd(task: Task, scored: Scored) -> dict[str, float]:
    counts = RowCounts.of(task.truth, scored.risk > scored.threshold)
    precision = float(average_precision_score(task.truth, scored.risk)) if task.truth.any() else np.nan
    return {"ap": precision, "far": counts.far, "mar": counts.mar}


@dataclass(frozen=True)
class Protocol:
    """How a kind of benchmark is read and judged, and which of its figures count."""

    pattern: str
    load: Callable[[Path], Task | None]
    judge: Callable[[Task, Scored], dict[str, float]]
    figures: tuple[str, ...]


PROTOCOLS = {
    "skab": Protocol("**/*.csv", load_skab, _judge_skab, ("f1", "far", "mar")),
    "tsb": Protocol("*.npz", load_tsb, _judge_tsb, ("vus_pr",)),
    "single": Protocol("*.npz", load_tsb, _judge_tsb, ("vus_pr",)),
    "asd": Protocol("*.npz", load_asd, _judge_asd, ("ap",)),
}


def measure(
    paths: Sequence[Path], folder: Path, protocol: Protocol, *, encoders: Sequence[str], alone: bool
) -> Iterator[list[dict[str, object]]]:
    """Yield the records of each file, one a method; none for a file without labels."""
    for path in paths:
        task = protocol.load(path)
        if task is None:
            yield []
            continue
        begun = time.process_time()
        scored = score_default(task)
        default_seconds = time.process_time() - begun
        if alone:
            scored = {DEFAULT: scored[DEFAULT]}
        better: dict[str, bool] = {}
        seconds = {DEFAULT: default_seconds}
        for name in encoders:
            begun = time.process_time()
            scored[name], better[name] = score_encoder(name, task)
            seconds[name] = time.process_time() - begun
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield [
            {
                "file": name,
                "method": method,
                **protocol.judge(task, found),
                "seconds": seconds.get(method, np.nan),
                "beats_pca": better.get(method, np.nan),
            }
            for method, found in scored.items()
        ]


def summarise(records: pd.DataFrame, protocol: Protocol) -> dict[str, float]:
    """One method's figures over all files: from summed counts where rows are counted, else the mean of what is known.

    >>> records = pd.DataFrame({"tp": [1, 1], "fp": [0, 2], "tn": [4, 4], "fn": [0, 0]})
    >>> summarise(records, PROTOCOLS["skab"])
    {'f1': 0.6667, 'far': 0.2, 'mar': 0.0}
    """
    if "tp" in records:
        counts = RowCounts(*(int(records[name].sum()) for name in ("tp", "fp", "tn", "fn")))
        return {name: round(float(getattr(counts, name)), 4) for name in protocol.figures}
    return {name: round(float(records[name].mean()), 4) for name in protocol.figures}


def compare(results: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """All methods' figures, one line a method, and on how many files an encoder beats the principal components."""
    lines = {}
    for method, own in results.groupby("method", sort=False):
        beaten = own["beats_pca"].dropna()
        floor = f"{int(beaten.sum())} of {len(beaten)}" if len(beaten) else ""
        seconds = own["seconds"].sum() if own["seconds"].notna().any() else np.nan
        figures = {**summarise(own, protocol), "files": len(own), "seconds": seconds}
        lines[str(method)] = {**figures, "beats window-PCA held out": floor}
    return pd.DataFrame.from_dict(lines, orient="index")


def declare() -> str:
    """The configuration and the rule, as printed before anything is scored."""
    settings = default_detector().get_params()
    shown = {name: value for name, value in settings.items() if value is not None}
    shown["smoothing"] = "3 to 10 rows, by the number of training rows"
    return (
        f"Declared before scoring, for every file: SequenceDetector with {json.dumps(shown, default=str)}.\n"
        f"Threshold: the {settings['quantile']} quantile of the smoothed risks of the training rows, each judged by a "
        f"model of the other folds, and a margin where rows are few. No label is used.\n"
        f"Members count by weights learnt from planted faults; 'reconstruction' is the window-PCA, whose place an "
        f"encoder takes, calibrated as it is."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sensors", description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", choices=sorted(PROTOCOLS))
    parser.add_argument("folder", type=Path, help="folder of such files")
    parser.add_argument("--encoders", default="", help=f"some of {','.join(ENCODERS)}, to train them too")
    parser.add_argument("--alone", action="store_true", help="score by the default detector alone")
    options = parser.parse_args(arguments)
    protocol: Protocol = PROTOCOLS[options.protocol]
    encoders = [name for name in options.encoders.split(",") if name]
    if unknown := [name for name in encoders if name not in ENCODERS]:
        parser.error(f"there is no encoder {unknown[0]}; there are {', '.join(ENCODERS)}")
    paths = sorted(options.folder.glob(protocol.pattern))
    if not paths:
        parser.error(f"no {protocol.pattern} files in {options.folder}")

    print(declare())
    output = RESULTS / f"sensors-{options.protocol}.csv"
    records: list[dict[str, object]] = []
    skipped: list[str] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(options.protocol, total=len(paths))
        found_by_file = measure(paths, options.folder, protocol, encoders=encoders, alone=options.alone)
        for path, found in zip(paths, found_by_file, strict=True):
            progress.update(task, description=path.stem, advance=1)
            records += found
            if found:
                keep(pd.DataFrame(records).drop(columns="beats_pca"), output, by=["file", "method"])
            skipped += [] if found else [str(path.relative_to(options.folder))]
    if skipped:
        print(f"Without labels, not judged: {', '.join(skipped)}")
    if not records:
        parser.error(f"no labelled file in {options.folder}")

    results = pd.DataFrame(records)
    keep(results.drop(columns="beats_pca"), output, by=["method"])  # an earlier run may have been on other files
    own = results[results["method"] == DEFAULT].drop(columns=["method", "beats_pca"])
    print(f"\n{DEFAULT}, by file\n{own.to_string(index=False, float_format='{:.3f}'.format)}")
    print(f"\nall methods, {options.protocol}\n{compare(results, protocol).to_string()}")
    print("\n" + json.dumps(summarise(own, protocol)))


if __name__ == "__main__":
    main()
