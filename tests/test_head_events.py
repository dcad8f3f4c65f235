"""A head that reads the events before a row: only where later labels say so, and with one score on every path."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.scorer import TabularScorer
from detector.encoders.event_classifier import READERS, EventClassifier
from detector.errors import SettingError
from detector.features import FeatureSet
from detector.head import fit_events
from detector.head.events import EVENTS
from detector.head.fit import HeadRecipe, fit_head
from detector.head.fit_events import EventRecipe
from detector.head.labelled import LabelledRows
from detector.head.model import Head
from detector.members.event_sequence import steps_of
from detector.onnx.graph import Graph
from detector.persist import bundle
from detector.training.settings import Training
from pipelines.config import load_config
from pipelines.jobs.context import Context, ProcessCache
from pipelines.scoring.event_scorer import EventScorer
from pipelines.scoring.job import score_new
from pipelines.store import open_store
from pipelines.training.train import train
from tests.payment_sites import LATER, START, put, scores, settle

LINES = ("last 3 of amount by card over 90d", "gap 3 by card over 90d")
FEATURES = FeatureSet(LINES, time="time", key="id")
NETWORK = EventClassifier(units=8, training=Training(epochs=6, learning_rate=1e-2))
RECIPE = HeadRecipe(trees=20, learning_rate=0.2, leaves=6)
DAY = pd.Timedelta(days=1)


def payments(size: int = 4_000, *, seed: int = 0, by_order: bool = True) -> pd.DataFrame:
    """A fraud is a large payment after two small ones, which are all as frequent elsewhere; or any of the largest."""
    rng = np.random.default_rng(seed)
    time = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, 60, size)), unit="D")
    rows = pd.DataFrame({"id": np.arange(size), "time": time, "card": rng.integers(0, 40, size)})
    large = rng.random(size) < 0.4
    rows["amount"] = np.round(np.where(large, 200.0, 5.0) * np.exp(rng.normal(0, 0.2, size)), 2)
    rows = FEATURES.compute(rows)
    before = rows[["amount_last_1_90d_by_card", "amount_last_2_90d_by_card"]]
    rows["fraud"] = (large & (before < 40).all(axis=1)) if by_order else rows["amount"] > rows["amount"].quantile(0.9)
    return rows.astype({"fraud": float})


def measures_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Members that know nothing."""
    noise = np.sin(rows["id"] * 12.9898) * 43758.5453 % 1.0
    return pd.DataFrame({"risk": noise, "p_value": 0.5}, index=rows.index)


def fitted(rows: pd.DataFrame, events: EventRecipe) -> Head:
    """A head that knows of the amount only, and may read the events."""
    return fit_head(
        rows,
        measures_of(rows),
        rows["fraud"],
        rows["time"],
        columns=("amount",),
        known_at=rows["time"] + DAY,
        recipe=RECIPE,
        events=events,
    )


class Noise(EventRecipe):
    """A network that learns nothing; ``seen`` are the rows it was given."""

    @cached_property
    def seen(self) -> list[pd.DataFrame]:
        """Empty at first."""
        return []

    def fit(self, rows: pd.DataFrame, truth: Any, random_state: int) -> Any:
        """Nothing is learnt."""
        self.seen.append(rows)
        return self, 0.0

    def score(self, rows: pd.DataFrame) -> Any:
        """Anything."""
        return np.random.default_rng(len(rows)).normal(size=len(rows))


def test_events_are_left_out_where_they_add_nothing() -> None:
    """A head that tells all frauds by the amount gets no further input, and keeps no network."""
    head = fitted(payments(by_order=False), Noise(steps_of(FEATURES.all), NETWORK))

    assert not head.facts["events_serve"]
    assert head.columns == ("amount", "risk")
    assert head.events is None
    assert "events" not in head.to_parts().facts


def test_no_row_is_scored_by_a_network_that_saw_its_part_or_a_later_label() -> None:
    """Each part is scored by what the others taught, the last by what was known when it began."""
    rows = payments(800)
    known_at, kept = rows["time"] + DAY, np.arange(len(rows)) % 3 == 0
    truth = rows["fraud"].to_numpy() == 1
    labelled = LabelledRows(truth, np.ones(len(rows), bool), ~kept, rows["time"], known_at)
    parts = labelled.parts(4)

    recipe = Noise(steps_of(FEATURES.all), NETWORK)

    found = recipe.held_out(rows, labelled, parts, 0)

    last = rows.iloc[parts[-1]]
    assert not np.isnan(found).any()
    assert len(recipe.seen) == len(parts)
    for part, seen in zip(parts, recipe.seen, strict=True):
        assert len(seen) > 100
        assert not set(seen.index) & set(rows.index[part])
        assert not set(seen.index) & set(rows.index[kept])
        assert (known_at[seen.index] <= last["time"].min()).all()


def test_a_sample_of_the_normal_rows_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that learnt from one normal row in eight says how likely a fraud is among all."""
    monkeypatch.setattr(fit_events, "MOST_NORMAL_ROWS", 400)
    rows = payments()

    score, _ = EventRecipe(steps_of(FEATURES.all), NETWORK).fit(rows, rows["fraud"].to_numpy() == 1, 0)

    assert score.shift == pytest.approx(np.log(400 / (rows["fraud"] == 0).sum()))
    assert (1 / (1 + np.exp(-score.score(rows)))).mean() == pytest.approx(rows["fraud"].mean(), rel=0.25)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "gru"])
def test_every_reader_says_what_keras_says(kind: str) -> None:
    """A graph that answers differently would be refused; missing events are skipped."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(400, 8)).astype(np.float32)
    steps[::4, :4] = np.nan
    network = EventClassifier(kind=kind, units=8, training=Training(epochs=1))

    fitted = network.fit(steps, steps[:, -1] > 0, timesteps=4, probe=steps[:64], random_state=0)

    found = Graph(fitted.scorer.SerializeToString()).run({"steps": steps[:64]})["log_odds"]
    assert np.abs(found - fitted.probe).max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "rnn"}, "kind"),
        ({"units": 0}, "units"),
        ({"units": 2.5}, "units must be positive whole numbers. Received: units=2.5"),
        ({"kind": "transformer", "units": 6}, "multiple of heads. Received: units=6, heads=4"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    """A setting that is not known or not possible is an error at once."""
    with pytest.raises(SettingError, match=message):
        EventClassifier(**settings)


def raw_payments(seed: int = 0) -> pd.DataFrame:
    """The same payments as a source has them."""
    rows = payments(3_000, seed=seed)[["id", "time", "card", "amount", "fraud"]]
    shifted = rows["time"] - rows["time"].min() + pd.Timestamp(START.replace(tzinfo=None))
    return rows.assign(time=shifted, transaction_id=rows["id"], card_id=rows["card"], is_fraud=rows["fraud"])


SECTIONS: dict[str, Any] = {
    "features": {"history": ["last 3 of amount by card_id over 90d", "gap 3 by card_id over 90d"]},
    "train": {
        "autoencoder": {"enabled": False},
        "neighbours": {"enabled": False},
        "forest": {"trees": 20},
        "head": {
            "least_anomalies": 50,
            "share": 0.9,
            "trees": 30,
            "models": 1,
            "events": {"enabled": True, "units": 8, "epochs": 10},
        },
    },
}


def featured(seed: int = 0) -> pd.DataFrame:
    """The same with their features."""
    features = FeatureSet(SECTIONS["features"]["history"], time="time", key="transaction_id")
    return features.compute(raw_payments(seed))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a detector that learnt from most of the payments, and what the training said."""
    folder = tmp_path_factory.mktemp("events")
    config = settle(folder, **SECTIONS | {"source": {"path": "past.parquet"}})
    raw_payments().iloc[:2_800].to_parquet(folder / "past.parquet")
    report = train(config, now=LATER)
    return folder, "\n".join(report.summary())


@pytest.fixture(scope="module")
def scorer(trained: tuple[Path, str]) -> TabularScorer:
    """The detector of the bundle."""
    found = bundle.load(trained[0] / "bundle")
    assert isinstance(found, TabularScorer)
    return found


def test_events_stay_where_later_labels_agree(scorer: TabularScorer, trained: tuple[Path, str]) -> None:
    """What only the order of events tells is found on the latest rows, becomes an input of the head, and is told."""
    head = scorer.serving_head

    assert head is not None
    assert head.facts["events_serve"]
    assert head.facts["ap_with_events"] > head.facts["ap_without_events"] + 0.2
    assert head.facts["events_parity"] < 1e-3
    assert head.columns == ("amount", "risk", "forest", EVENTS)
    assert "It reads the events before a row: they change its average precision on the latest rows by +0." in trained[1]
    assert scorer.metrics["head_events_gain_low"] > 0
    assert [feature.name for feature in scorer.columns.features] == ["amount"]


def test_head_with_events_survives_a_bundle_and_scores_rows_alone(scorer: TabularScorer) -> None:
    """What is saved answers the same, row by row and all at once."""
    rows = featured().iloc[-300:]
    head = scorer.serving_head
    assert head is not None
    again = scorer.with_head(Head.from_parts(head.to_parts()))

    together = scorer.measure(rows)

    assert np.ptp(together["risk"]) > 1
    pd.testing.assert_frame_equal(again.measure(rows), together, check_exact=True)
    pd.testing.assert_frame_equal(again.measure(rows.iloc[[7]]), together.iloc[[7]], check_exact=True)


def test_p_values_of_normal_rows_are_uniform(scorer: TabularScorer) -> None:
    """They come from rows that neither trees nor network learnt from."""
    rows = featured(seed=1)
    p_value = scorer.measure(rows)["p_value"][rows["is_fraud"] == 0]
    for level in (0.05, 0.2, 0.5):
        assert (p_value <= level).mean() == pytest.approx(level, abs=0.06)


def test_falls_name_the_channel(scorer: TabularScorer) -> None:
    """Without the amounts before it, a fraud looks less like one; the pauses say nothing here."""
    rows, head = featured(), scorer.serving_head
    assert head is not None
    assert head.events is not None

    falls = head.events.falls(rows[rows["is_fraud"] == 1]).mean(axis=0)

    named = dict(zip([channel.said_as for channel in head.events.window.steps.channels], falls, strict=True))
    assert named["amount"] > 3 * named["since_90d_by_card_id"]


def test_batch_and_service_score_alike(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Asked on request before they come, one by one, rows have the risks that the service's batch then gives them."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "home", symlinks=True))
    fresh, config = raw_payments().iloc[2_800:2_860], settle(folder, **SECTIONS)
    store, cache = open_store(config.service.store), ProcessCache()
    try:
        desk = EventScorer(config, store, cache, is_leader=lambda: True)
        asked = [
            desk.score(fresh.iloc[[at]].astype({"time": "str"}), now=LATER, explain=False, keep=True).scores
            for at in range(len(fresh))
        ]
        put(folder, "fresh", fresh.sample(frac=1, random_state=1))
        score_new(Context(config, store, LATER, cache=cache))
    finally:
        store.close()

    found = pd.concat(asked).set_index("transaction_id")["risk"]
    batch = scores(folder)
    assert np.ptp(batch) > 1
    pd.testing.assert_series_equal(found.sort_index(), batch.loc[found.sort_index().index], rtol=1e-12)


def test_reasons_of_events_name_columns_that_people_know(scorer: TabularScorer) -> None:
    """What the order of events adds is said of the amount, not of numbered events."""
    rows = featured()

    reasons = scorer.explain(rows[rows["is_fraud"] == 1].iloc[-20:])

    assert {reason.feature for each in reasons for reason in each} == {"amount"}


def test_the_setting_needs_events(tmp_path: Path) -> None:
    """`train.head.events` reads the events that `features.history` lists; without any it says so."""
    sections = {"features": {"history": ["count by card_id over 90d"]}, "train": SECTIONS["train"]}
    with pytest.raises(SettingError, match=r"train\.head\.events: .*Add them to `features\.history`"):
        settle(tmp_path, **sections)
    wide = {**SECTIONS["train"], "head": {"events": {"encoder": "transformer", "units": 6}}}
    with pytest.raises(SettingError, match="units expected a multiple of 4 for a transformer, received 6"):
        settle(tmp_path, **SECTIONS | {"train": wide})
    assert not load_config(settle(tmp_path).file).train.head.events.enabled  # type: ignore[arg-type]
