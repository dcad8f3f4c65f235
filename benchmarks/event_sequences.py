"""What is found by those who read a row among its card's last events: a head that learnt from labels, and a member.

``python -m benchmarks.event_sequences payments [--seeds N ...]`` simulates payments, 5,700 a day of which .8 % are
fraud; ``python -m benchmarks.event_sequences FOLDER [--weeks DATE ...]`` reads ``transactions.parquet`` of the
Fraud Detection Handbook in FOLDER. Learnt from is what was known at the begin of the rows to test; cards leave once
they are known to be compromised. ``--output`` adds a line a seed (or week) and detector to a CSV file: average
precision, and the share of the frauds of each scenario among the 100 riskiest rows of a day.

``members``
    The default members, which know no label.
``members and sequence``
    With ``--member``: the same with the member `sequence`, which reads the events without labels.
``head``
    The supervised head on features and members' scores.
``head and events``
    The same with the score of a network that reads the last 32 events, where the later of the labelled rows say that
    it stays (``stays``); else it is the head.

What the networks read, and how a head is taught their scores, was chosen on seed 101.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from benchmarks import transactions
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.recipe import MEMBERS, SEQUENCE
from detector.encoders.event_classifier import READERS, EventClassifier
from detector.encoders.events import EventAutoencoder
from detector.features import FeatureSet, Money
from detector.head.fit import HeadRecipe, fit_head
from detector.head.fit_events import EventRecipe
from detector.members.event_sequence import Steps, steps_of
from detector.schema import Schema
from pipelines.config.template import TEMPLATES
from pipelines.simulate import simulate_transactions

PAYMENTS = "payments"
ROWS, DAYS, LEARNT, WARM = 400_000, 70, 49, 7
START = datetime(2024, 9, 1)  # noqa: DTZ001 - local time, as rows have it
DELAY = pd.Timedelta(days=7)
MOST_LEARNT, SHARE, A_DAY = 60_000, 0.3, 100
EVENTS = (
    "last 31 of amount by card_id over 90d",
    "gap 32 by card_id over 90d",
    "code 31 of merchant_category by card_id over 90d",
    "code 31 of channel by card_id over 90d",
    "code 31 of country by card_id over 90d",
)
WEEKS = ("2018-05-13", "2018-06-10", "2018-07-01", "2018-07-15")
HANDBOOK = ("last 31 of tx_amount by customer_id over 90d", "gap 32 by customer_id over 90d")


@dataclass(frozen=True)
class Split:
    """Rows to learn from and to test on.

    - ``truth``, ``scenario``: of the rows to test.
    - ``label``, ``known_at``: of the labelled rows: what is known of them, and since when; each stands for ``weight``.
    """

    name: str
    steps: Steps
    schema: Schema
    members: tuple[str, ...]
    recipe: HeadRecipe
    unlabelled: pd.DataFrame
    labelled: pd.DataFrame
    label: pd.Series
    known_at: pd.Series
    weight: np.ndarray[Any, np.dtype[np.float64]]
    test: pd.DataFrame
    time: str
    truth: str
    scenario: str


def simulated(seed: int) -> Split:
    """Seven weeks to learn from, the first for histories only, and three to test."""
    template = TEMPLATES["transactions"]["features"]
    features = FeatureSet(
        (*template["history"], *EVENTS),
        time="time",
        key="transaction_id",
        calendar=tuple(template["calendar"]),
        label="is_fraud",
        reported="reported_at",
    )
    rows = features.compute(simulate_transactions(ROWS, seed=seed, start=START, days=DAYS))
    now, rng = pd.Timestamp(START) + pd.Timedelta(days=LEARNT), np.random.default_rng(seed)
    past = rows[(rows["time"] < now) & (rows["time"] >= pd.Timestamp(START) + pd.Timedelta(days=WARM))]
    fraud = past["reported_at"] <= now
    label = pd.Series(np.where(fraud, 1.0, np.where(past["time"] < now - DELAY, 0.0, np.nan)), index=past.index)
    chosen = fraud | (rng.random(len(past)) < SHARE)
    others = past[~chosen]
    reported = rows.loc[rows["is_fraud"] == 1].groupby("card_id")["reported_at"].min()
    blocked = rows["card_id"].map(reported) <= rows["time"].dt.normalize()
    return Split(
        name=f"seed {seed}",
        steps=steps_of(features.all),
        schema=Schema(numeric=("amount", *features.names), categorical=("merchant_category", "channel")),
        members=MEMBERS,
        recipe=HeadRecipe(models=3, least_anomalies=100),
        unlabelled=others.sample(min(MOST_LEARNT, len(others)), random_state=seed).sort_index(),
        labelled=past[chosen],
        label=label[chosen],
        known_at=past["reported_at"].where(fraud, past["time"] + DELAY)[chosen],
        weight=np.where(fraud, 1.0, 1 / SHARE)[chosen],
        test=rows[(rows["time"] >= now) & ~blocked],
        time="time",
        truth="is_fraud",
        scenario="scenario",
    )


def handbook(folder: Path, weeks: Sequence[str]) -> Iterator[Split]:
    """Weeks of ``benchmarks.transactions`` with four weeks of labels; the folds of the head are its own."""
    measured = transactions.features()
    features = FeatureSet(
        (*transactions.LINES, *HANDBOOK),
        time="tx_datetime",
        key="transaction_id",
        calendar=measured.calendar,
        money=Money("tx_amount"),
        label="tx_fraud",
    )
    rows = features.compute(pd.read_parquet(folder / "transactions.parquet"))
    steps = steps_of(features.all)
    for start in map(pd.Timestamp, weeks):
        train, test = transactions.split(rows, start)
        labelled, weight = transactions.more_labels(rows, start, 0)
        own = (*transactions.OWN_HISTORY, *transactions.RISK)
        yield Split(
            name=f"{start:%d %b}",
            steps=steps,
            schema=Schema(numeric=("tx_amount", *(name for name in features.names))),
            members=("forest",),
            recipe=HeadRecipe(models=3, calibration_share=0.05),
            unlabelled=train[[*own, *steps.beside]],
            labelled=labelled,
            label=labelled["tx_fraud"].astype(float),
            known_at=labelled["tx_datetime"] + DELAY,
            weight=weight,
            test=test,
            time="tx_datetime",
            truth="tx_fraud",
            scenario="tx_fraud_scenario",
        )


def found_by(risk: pd.Series, split: Split) -> dict[str, float]:
    """Average precision, and the share of the frauds of each scenario among the riskiest rows of a day."""
    test, fraud = split.test, split.test[split.truth] == 1
    top = risk.groupby(test[split.time].dt.normalize()).rank(ascending=False, method="first") <= A_DAY
    shares = {str(name): top[rows.index].mean() for name, rows in test[fraud].groupby(split.scenario)}
    return {"ap": average_precision_score(fraud, risk), "recall": top[fraud].mean(), **shares}


def one(split: Split, seed: int, network: EventClassifier, *, member: bool) -> Iterator[dict[str, Any]]:
    """What each detector finds in one split."""
    schema = Schema(
        numeric=tuple(name for name in split.schema.numeric if name in split.unlabelled),
        categorical=split.schema.categorical,
    )
    members = TabularDetector(schema=schema, members=split.members, steps=split.steps, random_state=seed)
    scorer = members.fit(split.unlabelled).scorer_
    asked = scorer.unsupervised(split.test)
    yield {"detector": "members", **found_by(asked["risk"], split)}
    if member:
        members.set_params(members=(*split.members, SEQUENCE), events=EventAutoencoder(kind=network.kind))
        risk = members.fit(split.unlabelled).scorer_.unsupervised(split.test)["risk"]
        yield {"detector": "members and sequence", **found_by(risk, split)}
    columns = [name for name in split.schema.numeric if name not in split.steps.beside]
    measures = scorer.unsupervised(split.labelled)
    for name, events in (("head", None), ("head and events", EventRecipe(split.steps, network))):
        began = time.process_time()
        head = fit_head(
            split.labelled,
            measures,
            split.label,
            split.labelled[split.time],
            columns=columns,
            known_at=split.known_at,
            weight=split.weight,
            recipe=split.recipe,
            events=events,
            random_state=seed,
        )
        facts: dict[str, Any] = {
            key: head.facts[key] for key in ("events_gain", "events_gain_low") if key in head.facts
        }
        if events is not None:
            facts["stays"] = head.facts["events_serve"]
        seconds = time.process_time() - began
        risk = pd.Series(head.risk(split.test, asked), index=split.test.index)
        yield {"detector": name, **found_by(risk, split), **facts, "seconds_to_fit": seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.event_sequences", description=__doc__)
    parser.add_argument("data", help="'payments', or the folder of transactions.parquet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[201, 202, 203], help="of the simulated payments")
    parser.add_argument("--weeks", nargs="+", default=list(WEEKS), help="the days on which training weeks begin")
    parser.add_argument("--encoder", choices=READERS, default="gru")
    parser.add_argument("--member", action="store_true", help="measure the member `sequence` too")
    parser.add_argument("--output", type=Path, help="CSV file, a line a split and detector; lines are added")
    options = parser.parse_args(arguments)
    is_simulated = options.data == PAYMENTS
    splits = map(simulated, options.seeds) if is_simulated else handbook(Path(options.data), options.weeks)
    seeds = options.seeds if is_simulated else range(len(options.weeks))
    found = []
    for seed, split in zip(seeds, splits, strict=True):
        for values in one(split, seed, EventClassifier(kind=options.encoder), member=options.member):
            line = {"data": PAYMENTS if is_simulated else "handbook", "split": split.name, **values}
            print(
                "  ".join(
                    f"{key} {value:.3f}" if isinstance(value, float) else str(value) for key, value in line.items()
                )
            )
            found.append(line)
    table = pd.DataFrame(found)
    if options.output is not None:
        written = pd.concat([pd.read_csv(options.output), table]) if options.output.exists() else table
        written.to_csv(options.output, index=False, float_format="%.4f", lineterminator="\n")
    means = table.drop(columns=["data", "split"]).groupby("detector", sort=False).mean(numeric_only=True)
    print(means.round(3).to_string())
    print(json.dumps({name: values.dropna().round(4).to_dict() for name, values in means.iterrows()}))


if __name__ == "__main__":
    main()
