"""Card fraud by the prequential protocol of the Fraud Detection Handbook, with and without labels in the model.

``python -m benchmarks.transactions DATA_DIR [--weeks N] [--seeds N]``; DATA_DIR holds ``transactions.parquet``. Each
week, seed and score goes to ``--output``, and the last line is JSON. For each week: train on 7 days, wait 7 for labels,
test on 7, without cards known by then to be compromised (Le Borgne et al., Reproducible Machine Learning for Credit
Card Fraud Detection, chapters 3 to 5).

What is measured:

``no labels``
    ``TabularDetector`` with its default members on the amount beside the card's own history; nothing made of labels.
``no labels, forest``
    Its isolation forest alone.
``without terminals``
    A perfect score of what can be seen without labels: frauds of large amounts and of compromised cards. A payment at a
    compromised terminal is like any other, so without labels no detector can do better but by chance.
``delayed risk``, ``delayed risk, forest``
    The same with the terminal's share of fraud known seven days before the row, which the Handbook counts among the
    features of unsupervised models, too. Its training knows no label. These are ``ap`` and ``cp100``.
``with labels``
    Boosted trees over all features and the second detector's scores, learnt from the labels of the training week.
``more labels``
    The same head, learnt from the four weeks that end with the training week: all their frauds, and three in ten of the
    other rows, which count more for it. Their labels were known, too; the published figures learn from one week.

In the first week no label counts in any training row's own past, because the data begin there. The two detectors that
know labels learn from these rows in hindsight (``compute_to_learn``), the others as they were; all means hold this
week, and a second table leaves it out.

Columns were chosen on the weeks that start on 15 April and 6 May; all weeks are reported. The heads read the scores of
the forest alone, which ranked delayed risks best in these two.

What the head learns from was chosen on those two and the week of 27 May, by the trees alone and one seed: AP / CP@100
.682 / .330 before; .691 / .333 with more windows of the terminal's known frauds; .705 / .332 with their age (frauds
known two, three and four weeks before: a compromise has an end); .707 / .335 as the mean of three models; .727 / .335
with four weeks of labels. A perfect score reaches .441 there: of the frauds at compromised terminals a third come
before any of them is known.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.tabular import write
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.recipe import MEMBERS
from detector.detectors.table.scorer import TabularScorer
from detector.features import FeatureSet, Money, compute_to_learn
from detector.head.fit import HeadRecipe, fit_head
from detector.head.model import Head
from detector.schema import Schema

CARD, TERMINAL = "customer_id", "terminal_id"
FOREST = ("forest",)
TERMINALS = 2
"""The scenario of frauds at compromised terminals."""
DAYS, DELAY = 7, 7
LINES = (
    "count by customer_id over 1h, 1d, 7d, 30d",
    "sum of tx_amount by customer_id over 1d, 7d with row",
    "mean of tx_amount by customer_id over 1d, 7d, 30d with row",
    "mean of tx_amount by customer_id over 30d, 90d",
    "std of tx_amount by customer_id over 30d",
    "max of tx_amount by customer_id over 7d, 30d",
    "ratio of tx_amount by customer_id over 7d, 30d, 90d",
    "ratio of tx_amount by customer_id over 90d delay 14d",
    "zscore of tx_amount by customer_id over 30d, 90d",
    "since by customer_id over 90d",
    "frauds by customer_id over 30d delay 7d",
    "count by terminal_id over 1d, 7d, 30d",
    "count by terminal_id over 1d, 7d, 30d delay 7d",
    "ratio of tx_amount by terminal_id over 30d",
    "mean of tx_amount by terminal_id over 1d, 7d, 30d",
    "risk by terminal_id over 1d, 7d, 30d delay 7d",
    "frauds by terminal_id over 1d, 3d, 7d, 14d, 21d, 28d, 90d delay 7d",
    "count by terminal_id over 3d, 14d, 21d, 90d delay 7d",
    "risk by terminal_id over 3d, 14d, 28d delay 7d",
    "risk by terminal_id over 7d delay 14d",
    "risk by terminal_id over 7d delay 21d",
    "risk by terminal_id over 7d, 14d delay 28d",
    "frauds by terminal_id over 7d delay 14d",
    "frauds by terminal_id over 7d delay 21d",
    "frauds by terminal_id over 7d, 14d delay 28d",
    "frauds by terminal_id over 30d delay 35d",
    "max of tx_amount by customer_id over 1d with row",
    "ratio of tx_amount by customer_id over 30d delay 7d",
    "std of tx_amount by customer_id over 90d",
)
OWN_HISTORY = (
    "tx_amount",
    "tx_amount_ratio_90d_by_customer_id",
    "tx_amount_ratio_90d_by_customer_id_delay_14d",
    "tx_amount_zscore_90d_by_customer_id",
)
RISK = tuple(f"risk_{window}_by_terminal_id_delay_7d" for window in ("1d", "7d", "30d"))
METRICS = ("auroc", "ap", "cp100")
HEAD = HeadRecipe(models=3, folds=1, calibration_share=0.05)
MORE_DAYS, MORE_SHARE = 28, 0.3
_HELD: list[pd.DataFrame] = []


def features() -> FeatureSet:
    """What is measured of each transaction."""
    return FeatureSet(
        LINES,
        time="tx_datetime",
        key="transaction_id",
        calendar=("hour", "night", "weekend"),
        money=Money("tx_amount"),
        label="tx_fraud",
    )


def split(frame: pd.DataFrame, start: pd.Timestamp) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A week to learn from and, after a week's delay, one to test on, without the cards known to be compromised."""
    day = (frame["tx_datetime"].dt.normalize() - start).dt.days
    fraud = frame["tx_fraud"] == 1
    train = frame[(day >= 0) & (day < DAYS)]
    known = set(train.loc[train["tx_fraud"] == 1, CARD])
    parts = []
    for number in range(DAYS):
        known |= set(frame.loc[(day == DAYS + number - 1) & fraud, CARD])
        today = frame[day == DAYS + DELAY + number]
        parts.append(today[~today[CARD].isin(known)])
    return train, pd.concat(parts)


def card_precision(test: pd.DataFrame, score: NDArray[np.float64], *, k: int = 100) -> float:
    """Share of the k riskiest cards of a day that are compromised, averaged; caught cards leave the later days."""
    table = test[[CARD, "tx_fraud"]].assign(day=test["tx_datetime"].dt.normalize(), score=score)
    caught: set[int] = set()
    daily = []
    for _, day in table.groupby("day", sort=True):
        cards = day[~day[CARD].isin(caught)].groupby(CARD)[["score", "tx_fraud"]].max()
        top = cards.nlargest(k, "score")
        found = top.index[top["tx_fraud"] == 1]
        caught |= set(found)
        daily.append(len(found) / k)
    return float(np.mean(daily))


def judged(test: pd.DataFrame, score: NDArray[np.float64]) -> tuple[float, float, float]:
    """AUROC, average precision and card precision at 100."""
    truth = test["tx_fraud"]
    return (
        float(roc_auc_score(truth, score)),
        float(average_precision_score(truth, score)),
        card_precision(test, score),
    )


def detector(columns: tuple[str, ...], seed: int, members: tuple[str, ...] = MEMBERS) -> TabularDetector:
    """The product's detector for tables, unsupervised: the label is no part of its schema."""
    return TabularDetector(schema=Schema(numeric=columns), members=members, random_state=seed)


def more_labels(learnt: pd.DataFrame, start: pd.Timestamp, seed: int) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The four weeks that end with the training week, normal rows sampled; and how many rows each stands for."""
    end = start + pd.Timedelta(days=DAYS)
    rows = learnt[(learnt["tx_datetime"] >= end - pd.Timedelta(days=MORE_DAYS)) & (learnt["tx_datetime"] < end)]
    fraud = rows["tx_fraud"].to_numpy() == 1
    rows = rows[fraud | (np.random.default_rng(seed).random(len(rows)) < MORE_SHARE)]
    return rows, np.where(rows["tx_fraud"] == 1, 1.0, 1 / MORE_SHARE)


def head_of(
    rows: pd.DataFrame, risk: TabularScorer, columns: list[str], seed: int, weight: NDArray[np.float64] | None = None
) -> Head:
    """The product's head."""
    return fit_head(
        rows,
        risk.unsupervised(rows),
        rows["tx_fraud"],
        rows["tx_datetime"],
        columns=columns,
        weight=weight,
        recipe=HEAD,
        random_state=seed,
    )


def one_week(frame: pd.DataFrame, learnt: pd.DataFrame, start: pd.Timestamp, seed: int) -> dict[str, tuple[float, ...]]:
    """The detectors on one week; ``learnt`` holds all rows as those who know labels may learn from them."""
    columns = ["tx_amount", *features().names]
    train, test = split(frame, start)
    found: dict[str, tuple[float, ...]] = {}
    for name, inputs in (("no labels", OWN_HISTORY), ("delayed risk", (*OWN_HISTORY, *RISK))):
        joined = detector(inputs, seed).fit(train).scorer_
        found[name] = judged(test, joined.measure(test)["risk"].to_numpy())
        risk = detector(inputs, seed, FOREST).fit(train).scorer_
        asked = risk.unsupervised(test)
        found[f"{name}, forest"] = judged(test, asked["risk"].to_numpy())
    head = head_of(learnt.loc[train.index], risk, columns, seed)
    rows, weight = more_labels(learnt, start, seed)
    more = head_of(rows, risk, columns, seed, weight)
    fraud = test["tx_fraud"].to_numpy(dtype=np.float64)
    return found | {
        "with labels": judged(test, head.risk(test, asked)),
        "more labels": judged(test, more.risk(test, asked)),
        "without terminals": judged(test, fraud * (test["tx_fraud_scenario"] != TERMINALS).to_numpy()),
        "perfect": judged(test, fraud),
    }


def side_by_side(
    frame: pd.DataFrame, learnt: pd.DataFrame, cases: list[tuple[pd.Timestamp, int]], jobs: int
) -> Iterator[dict[str, tuple[float, ...]]]:
    """``one_week`` of each start and seed in their order; forked, so that the tables are not copied."""
    with get_context("fork").Pool(jobs, initializer=_hold, initargs=(frame, learnt)) as pool:
        yield from pool.imap(_one_week_held, cases)


def _hold(*tables: pd.DataFrame) -> None:
    threadpool_limits(1)  # as many threads as cores in each of several processes wait for each other most of the time
    _HELD.extend(tables)


def _one_week_held(case: tuple[pd.Timestamp, int]) -> dict[str, tuple[float, ...]]:
    frame, learnt = _HELD
    return one_week(frame, learnt, *case)


def printed(name: str, values: NDArray[np.float64], seeds: int) -> NDArray[np.float64]:
    """Print means over weeks and seeds with their deviation over weeks, and return the means."""
    means, spread = values.mean(axis=0), values.reshape(-1, seeds, len(METRICS)).mean(axis=1).std(axis=0)
    print(f"{name:<20}" + "".join(f"{mean:>11.3f} ± {about:.3f}" for mean, about in zip(means, spread, strict=True)))
    return np.asarray(means)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA_DIR")
    parser.add_argument("--weeks", type=int, default=None, help="the first so many weeks; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="CSV file for every week, seed and score")
    parser.add_argument("--jobs", type=int, default=2, help="weeks measured side by side, one thread each")
    options = parser.parse_args()
    frame = pd.read_parquet(options.data / "transactions.parquet")
    first, last = frame["tx_datetime"].min().normalize(), frame["tx_datetime"].max().normalize()
    measured = features()
    blind = first + pd.Timedelta(days=DAYS + DELAY)
    early = compute_to_learn(measured, frame[frame["tx_datetime"] < blind], now=blind)
    began = time.perf_counter()
    frame = measured.compute(frame)
    took = time.perf_counter() - began
    print(f"{len(measured.names)} features of {len(frame):,} rows in {took:.1f} s: {len(frame) / took:,.0f} rows/s")
    learnt = pd.concat([early, frame[frame["tx_datetime"] >= blind]])
    starts = pd.date_range(first, last - pd.Timedelta(days=2 * DAYS + DELAY - 1), freq=f"{DAYS}D")[: options.weeks]
    cases = [(start, seed) for start in starts for seed in range(options.seeds)]
    found: dict[str, list[tuple[float, ...]]] = {}
    records = []
    for (start, seed), week in zip(cases, side_by_side(frame, learnt, cases, options.jobs), strict=True):
        for name, values in week.items():
            found.setdefault(name, []).append(values)
            figures = dict(zip(METRICS, values, strict=True))
            records.append({"week": f"{start:%Y-%m-%d}", "seed": seed, "score": name, **figures})
        write(pd.DataFrame(records), options.output)
        shown = "  ".join(f"{name} {values[1]:.3f} {values[2]:.3f}" for name, values in week.items())
        print(f"{start:%d %b} seed {seed}  {shown}", flush=True)
    print(f"\n{len(starts)} weeks, {options.seeds} seeds: mean ± deviation over weeks")
    print(f"{'':<20}" + "".join(f"{metric:>18}" for metric in METRICS))
    means = {name: printed(name, np.array(rows), options.seeds) for name, rows in found.items()}
    if len(starts) > 1:
        print("from the second week on")
        for name, rows in found.items():
            printed(name, np.array(rows)[options.seeds :], options.seeds)
    result = {
        "ap": means["delayed risk"][1],
        "cp100": means["delayed risk"][2],
        "auroc": means["delayed risk"][0],
        "ap_without_risk": means["no labels"][1],
        "cp100_without_risk": means["no labels"][2],
        "ap_without_risk_forest": means["no labels, forest"][1],
        "ap_without_risk_ceiling": means["without terminals"][1],
        "cp100_without_risk_ceiling": means["without terminals"][2],
        "ap_forest": means["delayed risk, forest"][1],
        "ap_with_labels": means["with labels"][1],
        "cp100_with_labels": means["with labels"][2],
        "ap_with_more_labels": means["more labels"][1],
        "cp100_with_more_labels": means["more labels"][2],
        "cp100_ceiling": means["perfect"][2],
    }
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
