"""The member that reads a row among the events before it."""

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.detector import TabularDetector
from detector.encoders.events import KINDS, EventAutoencoder
from detector.errors import SchemaError, SettingError
from detector.features import FeatureSet
from detector.members.event_sequence import steps_of
from detector.onnx.graph import Graph
from detector.persist import bundle
from detector.schema import Schema
from detector.training.settings import Training
from pipelines.config import load_config
from pipelines.factory.detector import detector_of

LINES = ("last 4 of amount by card over 90d", "gap 4 by card over 90d", "code 4 of kind by card over 90d")
FEATURES = FeatureSet(LINES, time="time", key="id")
SCHEMA = Schema(key="id", time="time", entity="card", numeric=("amount", *FEATURES.names))


def payments(size, *, seed=0):
    """Half of the cards pay little, half much, each about once a day."""
    rng = np.random.default_rng(seed)
    card = rng.integers(0, 40, size)
    amount = np.where(card % 2, 4.0, 400.0) * np.exp(rng.normal(0, 0.3, size))
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.sort(rng.uniform(0, size / 40, size)), unit="D")
    kind = np.where(card % 4 < 2, "food", "travel")
    return pd.DataFrame({"id": np.arange(size), "time": time, "card": card, "amount": amount.round(2), "kind": kind})


@pytest.fixture(scope="module")
def detector():
    rows = FEATURES.compute(payments(1_200))
    settings = EventAutoencoder(kind="conv1d", code=8, units=16, training=Training(epochs=8, learning_rate=5e-3))
    return TabularDetector(
        schema=SCHEMA, members=("forest", "sequence"), trees=25, events=settings, steps=steps_of(FEATURES.all)
    ).fit(rows)


@pytest.fixture(scope="module")
def burst():
    """Card testing: a card that pays much makes small payments that rise, a minute apart."""
    honest = payments(1_200, seed=1)
    start = honest["time"].iloc[-1]
    tests = pd.DataFrame({"card": 2, "amount": [2.0, 3.0, 4.0, 5.0], "kind": "travel"})
    tests = tests.assign(time=start + pd.to_timedelta(range(1, 5), unit="m"), id=range(5_000, 5_004))
    return FEATURES.compute(pd.concat([honest, tests], ignore_index=True))


def test_what_only_the_order_of_events_shows_is_found(detector, burst):
    """A burst of small payments is usual row by row, and not for this card, at this pace."""
    z = detector.scorer_.measure(burst)
    honest, tests = z[:-4], z[-3:]
    assert (tests["sequence"] > honest["sequence"].quantile(0.99)).all()
    assert (tests["forest"] < honest["forest"].quantile(0.9)).all()
    added = z["risk"] - z["forest"]
    assert (added[-3:] > 0.3).all()
    assert (added[:-4] < 1e-9).mean() > 0.98


def test_reasons_name_the_events(detector, burst):
    """What the member finds is explained by columns of its window, in the units of the table."""
    reasons = detector.explain(burst.iloc[[-1]])[0]
    assert {reason.feature for reason in reasons} <= {"amount", *FEATURES.names}
    gap = next(reason for reason in reasons if reason.feature == "gap_1_90d_by_card")
    assert gap.observed == "1.00"
    assert float(gap.expected.removeprefix("about ")) > 60


def test_a_row_is_scored_alone_as_among_others_and_after_loading(detector, burst, tmp_path):
    """The window is part of the row: no batch, and no restart, changes its score; loading needs no TensorFlow."""
    whole = detector.scorer_.measure(burst)
    loaded = bundle.load(bundle.save(detector.scorer_, tmp_path / "bundle"))
    pd.testing.assert_frame_equal(loaded.measure(burst.iloc[-3:-2]), whole.iloc[-3:-2], check_exact=True)
    assert loaded.explain(burst.iloc[-3:-2]) == detector.explain(burst.iloc[-3:-2])


def test_the_other_members_do_not_see_the_events(detector):
    """Columns of single events are no features of the row."""
    assert [feature.name for feature in detector.scorer_.columns.features] == ["amount"]
    assert detector.scorer_.members == ("forest", "sequence")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("lstm", "conv1d")])
def test_every_encoder_scores_what_it_did_not_see(kind):
    """The graph says what Keras says, foresees what the events before tell, and skips what is not there."""
    rng = np.random.default_rng(0)
    steps = np.repeat(rng.choice([-1.0, 1.0], (512, 1)), 4, axis=1).astype(np.float32)
    steps[::4, :2] = np.nan
    settings = EventAutoencoder(kind=kind, code=2, units=8, training=Training(epochs=2, learning_rate=1e-2))

    fitted = settings.fit(steps, timesteps=4, probe=steps[:64], random_state=0)

    found = Graph(fitted.scorer.SerializeToString()).run({"steps": steps[:64]})
    assert np.abs(found["residual"] - fitted.probe_residual).max() < 1e-4
    assert (found["residual"][::4, :2] == 0).all()
    assert np.corrcoef(found["foreseen"][:, 3], steps[:64, 3])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "rnn"}, "kind"),
        ({"own_weight": 0.0}, r"own_weight must lie in \(0, 1\]. Received: own_weight=0.0"),
        ({"mask": 1.0}, r"mask must lie in \[0, 1\). Received: mask=1.0"),
        ({"code": 2.5}, "code must be positive whole numbers. Received: code=2.5"),
        ({"kind": "transformer", "units": 6}, "multiple of heads. Received: units=6, heads=4"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    """A setting that is not known or not possible is an error at once."""
    with pytest.raises(SettingError, match=message):
        EventAutoencoder(**settings)


def test_the_member_needs_its_columns():
    """Without steps, or with a column that the rows lack, nothing is fitted."""
    rows = FEATURES.compute(payments(50))
    with pytest.raises(SettingError, match="sequence expected steps"):
        TabularDetector(schema=SCHEMA, members=("forest", "sequence")).fit(rows)
    lacking = SCHEMA.without(["gap_2_90d_by_card"])
    with pytest.raises(SchemaError, match="need the numeric column 'gap_2_90d_by_card'"):
        TabularDetector(schema=lacking, members=("sequence",), steps=steps_of(FEATURES.all)).fit(rows)


def test_a_configuration_turns_the_member_on(tmp_path):
    """`train.sequence` reads the events that `features.history` lists; without any it says so."""
    text = "source: {path: a.csv}\ncolumns: {key: id, time: time, entity: card}\ntrain: {sequence: {enabled: true}}\n"
    config = tmp_path / "detector.yaml"
    config.write_text(text + "features: {history: [last 4 of amount by card over 90d]}\n")
    built = detector_of(load_config(tmp_path), Schema(numeric=("amount",)))
    assert built.members[-1] == "sequence"
    assert built.steps.length == 5
    config.write_text(text + "features: {history: [count by card over 90d]}\n")
    with pytest.raises(SettingError, match=r"train\.sequence: .*Add them to `features\.history`"):
        load_config(tmp_path)
    config.write_text(text.replace("enabled: true", "encoder: transformer, units: 6"))
    with pytest.raises(SettingError, match="units expected a multiple of 4 for a transformer, received 6"):
        load_config(tmp_path)
