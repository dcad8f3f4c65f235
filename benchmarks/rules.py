"""How fast ten rules are over a frame: ``python -m benchmarks.rules``; the result is benchmarks/results/rules.csv.

A million rows with the columns of card payments, in slices as scoring reads them. Rules compare numbers, text, times
and lists of 100,000 values of which half have an end, and share some of their parts, as rules of one team do; the
second set shares nothing. What is measured is ``RuleRun.override``, without reading, cleaning and scoring.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.config import RuleSection
from pipelines.rules.book import RuleBook
from pipelines.rules.lists import ValueList
from pipelines.rules.names import Kind, Names
from pipelines.rules.run import RuleRun

RESULTS = Path(__file__).parent / "results" / "rules.csv"
SLICE = 65_536
ROUNDS = 5
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KINDS: Mapping[str, Kind] = {
    "card": "text",
    "country": "text",
    "home_country": "text",
    "category": "text",
    "amount": "number",
    "count_1h": "number",
    "ratio_30d": "number",
    "new_device": "flag",
    "time": "time",
    "risk": "number",
    "p_value": "number",
}
SHARING = (
    "amount > 500 and new_device and country != home_country",
    "amount > 500 and card in watched",
    "amount > 500 and hour(time) < 6",
    "country in ('BR', 'NG', 'RU') and amount > 100",
    "country in ('BR', 'NG', 'RU') and new_device",
    "category = 'digital' and count_1h > 5",
    "category = 'digital' and amount between 1 and 3",
    "p_value < 0.001 and amount < 10",
    "ratio_30d > 10 and not new_device",
    "card in watched and risk > 2",
)
ALONE = (
    "amount > 500 and new_device and country != home_country",
    "card in watched and amount > 20",
    "hour(time) < 6 and amount > 300",
    "country in ('BR', 'NG', 'RU') and amount > 100",
    "country in ('US', 'MX') and ratio_30d > 4",
    "category = 'digital' and count_1h > 5",
    "category like 'gro%' and amount between 1 and 3",
    "p_value < 0.001 and amount < 10",
    "ratio_30d > 10 and not new_device and coalesce(count_1h, 0) > 2",
    "card in blocked and risk > 2",
)


def frame_of(rows: int) -> pd.DataFrame:
    """Payments, cleaned."""
    draw = np.random.default_rng(0)
    countries = np.array(["DE", "FR", "NL", "PL", "IT", "ES", "US", "BR", "NG", "RU"])
    categories = np.array(["grocery", "fuel", "digital", "travel", "home", "fashion"])
    frame = pd.DataFrame(
        {
            "card": pd.Series(np.char.add("C", draw.integers(0, 400_000, rows).astype(str)), dtype="str"),
            "country": pd.Series(countries[draw.integers(0, 10, rows)], dtype="str"),
            "home_country": pd.Series(countries[draw.integers(0, 10, rows)], dtype="str"),
            "category": pd.Series(categories[draw.integers(0, 6, rows)], dtype="str"),
            "amount": np.exp(draw.normal(3.5, 1.4, rows)),
            "count_1h": draw.poisson(1.0, rows).astype(np.float64),
            "ratio_30d": np.exp(draw.normal(0, 1, rows)),
            "new_device": (draw.random(rows) < 0.05).astype(np.float64),
            "time": (np.datetime64("2026-01-01", "us") + draw.integers(0, 60 * 86_400, rows) * np.timedelta64(1, "s")),
        }
    )
    frame.loc[draw.random(rows) < 0.02, ["country", "ratio_30d"]] = None
    return frame


def lists_of(_: tuple[str, ...]) -> Mapping[str, ValueList]:
    """Two lists of 100,000 cards, half of them with an end."""
    until = datetime(2026, 2, 1)  # noqa: DTZ001 - as rows have times
    names = [f"C{number}" for number in range(0, 400_000, 4)]
    watched = ValueList.of({name: until if place % 2 else None for place, name in enumerate(names)})
    return {"watched": watched, "blocked": ValueList.of(dict.fromkeys(names, None))}


def measure(conditions: tuple[str, ...], frame: pd.DataFrame) -> dict[str, float]:
    """The seconds of the median round, those of all processors together, and how many rows were hit by any rule."""
    names = Names(KINDS, ("watched", "blocked"))
    rules = [RuleSection(name=f"r{number}", when=when, state="live") for number, when in enumerate(conditions)]
    book = RuleBook.of(rules, names, lists_of, time="time")
    draw = np.random.default_rng(1)
    measures = pd.DataFrame({"risk": draw.normal(0, 1, len(frame)), "p_value": draw.random(len(frame))})
    parts = [(frame.iloc[at : at + SLICE], measures.iloc[at : at + SLICE]) for at in range(0, len(frame), SLICE)]
    seconds, busy, hits = [], [], 0
    for _ in range(ROUNDS):
        run, begun, used = RuleRun(book, now=NOW), time.perf_counter(), time.process_time()
        hits = sum(int(run.override(*part).wanted.sum()) for part in parts)
        seconds.append(time.perf_counter() - begun)
        busy.append(time.process_time() - used)
        if run.failed:
            raise SystemExit(f"rules failed: {run.failed}")
    found = {"hit": hits, "seconds": round(float(np.median(seconds)), 3)}
    return found | {"processor_seconds": round(float(np.median(busy)), 3)}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    frame, found = frame_of(rows), []
    for name, conditions in (("sharing parts", SHARING), ("sharing nothing", ALONE)):
        measured = measure(conditions, frame)
        a_second = round(rows / measured["seconds"])
        found.append({"rules": name, "n_rules": len(conditions), "rows": rows} | measured | {"rows_a_second": a_second})
        print(
            f"{name}: {len(conditions)} rules over {rows:,} rows in {measured['seconds']:.3f} s "
            f"({measured['processor_seconds']:.3f} s of processors), {a_second:,} rows/s"
        )
    pd.DataFrame(found).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
