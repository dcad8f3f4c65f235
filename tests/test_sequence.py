from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from detector.detectors.series.detector import SequenceDetector
from detector.detectors.series.recipe import MEMBERS
from detector.errors import DataError, SchemaError, SettingError, UnfittedError
from detector.schema import Schema
from detector.series.sampling import Sampling
from tests.series_examples import PUMPS, SCHEMA, SENSORS, START, readings, small, waves

CONTEXT = "a row's risk depends on the rows around it, so on the batch and its order"
CHECKS = parametrize_with_checks(
    [SequenceDetector(short="pad")],
    expected_failed_checks=lambda _: {
        "check_methods_subset_invariance": CONTEXT,
        "check_methods_sample_order_invariance": CONTEXT,
    },
)


@pytest.fixture(scope="module")
def timed() -> SequenceDetector:
    """Fitted on one series with times."""
    return small(schema=SCHEMA).fit(readings(400))


@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)  # pytest 9 takes no generator
def test_detector_is_a_scikit_learn_estimator(estimator: SequenceDetector, check: Any) -> None:
    """All of scikit-learn's checks but two, which a series cannot pass."""
    check(estimator)


class Swapped(SequenceDetector):
    """Broken on purpose."""

    def decision_function(self, X: Any) -> Any:
        """Turn the sign once more."""
        return -super().decision_function(X)


@pytest.mark.slow
def test_the_checks_are_not_vacuous() -> None:
    """They are executed, not skipped; only the two fail that must, and more in an estimator that breaks a promise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(small(short="pad"), on_skip=None, on_fail=None)

    status = Counter(result["status"] for result in results)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed == {"check_methods_subset_invariance", "check_methods_sample_order_invariance"}
    assert status["passed"] >= 40
    assert status["skipped"] <= 1
    with pytest.raises(AssertionError):
        estimator_checks.check_outliers_train("Swapped", Swapped(short="pad"))


@pytest.mark.parametrize("name", ["check_estimators_pickle", "check_fit_idempotent", "check_outliers_fit_predict"])
def test_a_detector_with_all_members_is_one_too(name: str) -> None:
    """The checks that a forest could fail."""
    getattr(estimator_checks, name)("SequenceDetector", small(short="pad", members=MEMBERS))


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_share_of_training_rows_called_anomalous(contamination: float) -> None:
    """As in scikit-learn; the threshold of ``judge`` does not know it."""
    detector = small(contamination=contamination).fit(waves(400))

    assert (detector.predict(waves(400)) == -1).mean() == pytest.approx(contamination, abs=0.005)
    assert detector.threshold_ == small().fit(waves(400)).threshold_


def test_a_frame_and_an_array_are_scored_alike(timed: SequenceDetector) -> None:
    """Times one interval apart say no more than the order of rows."""
    plain = small().fit(waves(400))

    np.testing.assert_allclose(timed.risk(readings(100, 1)), plain.risk(waves(100, 1)), rtol=1e-4, atol=1e-5)
    assert timed.threshold_ == pytest.approx(plain.threshold_)


def test_signs_agree(timed: SequenceDetector) -> None:
    """The sign turns once; predict, decision and threshold say the same."""
    rows = readings(100, 1)
    rows.loc[50:60, "flow"] = 0.0

    risk = timed.risk(rows)

    assert (timed.score_samples(rows) == -risk).all()
    assert (timed.decision_function(rows) == -risk - timed.offset_).all()
    assert ((timed.predict(rows) == -1) == (-risk < timed.offset_)).all()
    np.testing.assert_allclose(timed.contributions(rows).sum(axis=1), risk)


def test_p_values_of_normal_rows_are_spread_out(timed: SequenceDetector) -> None:
    """Roughly uniform on new normal rows, and smallest where something is wrong."""
    rows = readings(400, 1)

    p_value = timed.p_value(rows)

    assert 0.3 < np.median(p_value) < 0.7
    rows.loc[200:220, "heat"] = 30.0
    assert timed.p_value(rows).min() == pytest.approx(1 / 401)


def test_an_event_names_times_and_sensors(timed: SequenceDetector) -> None:
    """Start, end, peak, the sensor at fault, how far it went, what it should have read and what it read in training."""
    rows = readings(200, 1)
    rows.loc[100:104, "flow"] += 12.0

    events = timed.events(rows)

    event = events.loc[events["risk"].idxmax()]
    assert event["start"] <= START + pd.Timedelta(minutes=100) <= event["end"]
    assert START + pd.Timedelta(minutes=98) <= event["peak"] <= START + pd.Timedelta(minutes=106)
    assert event["sensors"].split(", ")[0] == "flow"
    place = int((event["peak"] - START) / pd.Timedelta(minutes=1))
    reason = event["reasons"][0]
    assert reason.observed == f"up to {rows['flow'][100:105].max():.4g}"
    assert re.fullmatch(r"about [456]\d\.?\d* \(learnt range 39\.\d+ to 60\.\d+\)", reason.expected)
    assert event["risk"] == pytest.approx(timed.risk(rows)[place])
    assert "% of the risk" in event["text"]


def test_events_of_normal_rows_keep_their_columns() -> None:
    """No event is an empty frame, not an error."""
    events = small(quantile=0.9999, deviation_floor=5.0).fit(waves(400)).events(waves(100))

    assert len(events) == 0
    assert list(events)[:4] == ["entity", "start", "end", "peak"]


def test_events_close_by_are_joined() -> None:
    """Two stretches with a short pause are one event if so asked."""
    detector = small(smoothing=0.0).fit(waves(400))
    rows = waves(200, 1)
    rows[50:55] += 50
    rows[90:95] += 50

    apart, joined = detector.events(rows), detector.events(rows, join=60)

    assert len(apart) >= 2
    assert len(joined) == 1
    assert (joined["start"][0], joined["end"][0]) == (apart["start"].min(), apart["end"].max())
    with pytest.raises(SettingError, match="join must be at least 0. Received: join=-1"):
        detector.events(rows, join=-1)


def test_a_sensor_that_stops_reporting_raises_the_risk(timed: SequenceDetector) -> None:
    """A value missing here and there does not; silence does, and is named."""
    usual = timed.risk(readings(200, 1))
    once, silent = readings(200, 1), readings(200, 1)
    once.loc[100, "flow"] = np.nan
    silent.loc[100:, "flow"] = np.nan

    events = timed.events(silent)

    assert timed.risk(once)[:150].max() < 3 * usual.max()
    assert timed.risk(silent)[110:].min() > 5 * timed.threshold_
    assert events.loc[events["risk"].idxmax(), "reasons"][0].observed.startswith("no reading since ")


def test_missing_values_may_be_rejected() -> None:
    """By policy, an error names the place."""
    detector = small(schema=SCHEMA, sampling=Sampling(missing="reject")).fit(readings(400))
    rows = readings(100)
    rows.loc[7, "heat"] = np.nan

    with pytest.raises(DataError, match=r"no value of 'heat' at .*row 7"):
        detector.risk(rows)


def test_unsorted_times_are_sorted_or_rejected(timed: SequenceDetector) -> None:
    """By default each row keeps its risk, wherever it stands; a strict policy refuses."""
    rows = readings(100, 1)
    mixed = rows.sample(frac=1, random_state=0)

    risk = timed.risk(mixed)

    np.testing.assert_allclose(risk, timed.risk(rows)[mixed.index], rtol=1e-6)
    strict = small(schema=SCHEMA, sampling=Sampling(unsorted="reject")).fit(readings(400))
    with pytest.raises(DataError, match="not in order of time"):
        strict.risk(mixed)


def test_rows_that_cannot_be_read_have_no_risk(timed: SequenceDetector) -> None:
    """A repeated time and a broken one: NaN, and anomalous to predict; all other rows keep their place."""
    rows = readings(100, 1).astype({"when": object})
    rows.loc[10, "when"] = "no time"
    rows.loc[20, "when"] = rows.loc[19, "when"]

    risk = timed.risk(rows)

    assert np.flatnonzero(np.isnan(risk)).tolist() == [10, 20]
    assert timed.predict(rows)[[10, 20]].tolist() == [-1, -1]


def test_known_anomalies_are_not_learnt_from() -> None:
    """Rows labelled 1 leave threshold and model alone."""
    rows = readings(400).assign(bad=0)
    spoilt = rows.copy()
    spoilt.loc[200:210, SENSORS] = 900.0
    spoilt.loc[200:210, "bad"] = 1
    labelled = Schema(time="when", label="bad", numeric=tuple(SENSORS))

    clean, kept = (small(schema=labelled).fit(frame).threshold_ for frame in (rows, spoilt))

    assert kept == pytest.approx(clean, rel=0.5)
    assert small(schema=SCHEMA).fit(spoilt).scorer_.models[""].scaling.span.max() > 800
    assert small(schema=labelled).fit(spoilt).scorer_.models[""].scaling.span.max() < 30


def test_entities_share_a_model_or_have_their_own() -> None:
    """A pump of another level is strange to a shared model, not to its own."""
    rows = pd.concat([readings(300, 0, pump="a"), readings(300, 1, pump="b")], ignore_index=True)
    rows.loc[300:, SENSORS] *= 3
    shared = small(schema=PUMPS).fit(rows)
    apart = small(schema=PUMPS, models="entity").fit(rows)

    swapped = rows.assign(pump=np.repeat(["b", "a"], 300))

    assert isinstance(shared.threshold_, float)
    assert set(apart.threshold_) == {"a", "b"}
    assert apart.risk(swapped).mean() > 3 * shared.risk(swapped).mean()
    assert (apart.predict(rows) == 1).mean() > 0.95
    assert set(apart.events(swapped)["entity"]) <= {"a", "b"}


def test_each_series_is_scored_alone() -> None:
    """Other series in the batch change nothing."""
    rows = pd.concat([readings(300, 0, pump="a"), readings(300, 1, pump="b")], ignore_index=True)
    detector = small(schema=PUMPS).fit(rows)

    np.testing.assert_allclose(detector.risk(rows)[:300], detector.risk(rows[:300]), rtol=1e-4, atol=1e-5)


def test_trailing_scores_do_not_change_with_what_comes() -> None:
    """Scored as rows arrive, a row keeps its risk."""
    detector = small(trailing=True).fit(waves(400))
    rows = waves(100, 1)
    rows[60:] += 40

    np.testing.assert_allclose(detector.risk(rows)[:50], detector.risk(rows[:50]), rtol=1e-4, atol=1e-5)


def test_constant_and_dead_sensors_are_declared() -> None:
    """A constant one must stay so; one that never read is passed over."""
    rows = readings(400).assign(still=4.0, dead=np.nan)
    schema = Schema(time="when", numeric=(*SENSORS, "still", "dead"))
    detector = small(schema=schema).fit(rows)
    later = rows.assign(still=9.0)

    assert detector.contributions(rows)[["still", "dead"]].abs().to_numpy().max() < 1e-6
    assert detector.contributions(later).mean().idxmax() == "still"
    assert detector.expected(rows)["still"].eq(4.0).all()
    assert detector.expected(rows)["dead"].isna().all()


def test_a_lost_sensor_is_named(timed: SequenceDetector) -> None:
    """So is what was probably meant."""
    with pytest.raises(SchemaError, match=r"'flow' is missing from the table. Did you mean 'Flow'?"):
        timed.risk(readings(100).rename(columns={"flow": "Flow"}))


def test_a_new_sensor_is_passed_over_with_a_schema_and_refused_without(timed: SequenceDetector) -> None:
    """A schema says which columns count; without one all do."""
    rows = readings(100)
    plain = small().fit(readings(400)[SENSORS])

    assert (timed.risk(rows.assign(extra=1.0)) == timed.risk(rows)).all()
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- extra"):
        plain.risk(rows[SENSORS].assign(extra=1.0))


@pytest.mark.parametrize("n", [1, 7])
def test_a_series_shorter_than_the_window_is_refused_or_padded(n: int) -> None:
    """By declared policy."""
    with pytest.raises(DataError, match=f"The series has {n} rows, a window 8"):
        small().fit(waves(400)).risk(waves(n))
    assert np.isfinite(small(short="pad").fit(waves(400)).risk(waves(n))).all()


def test_a_short_series_of_many_is_named() -> None:
    """The entity and its rows, at scoring and at fit."""
    rows = pd.concat([readings(300, 0, pump="a"), readings(5, 1, pump="b")], ignore_index=True)

    with pytest.raises(DataError, match="The series of 'b' has 5 rows, a window 8"):
        small(schema=PUMPS).fit(rows)
    with pytest.raises(DataError, match="at least 8 training rows in order of time; received n_samples = 5 of 'b'"):
        small(schema=PUMPS, models="entity").fit(rows)


def test_an_entity_without_a_model_is_named() -> None:
    """An own model for each means none for a stranger."""
    detector = small(schema=PUMPS, models="entity").fit(readings(300, pump="pump-1"))

    with pytest.raises(SchemaError, match="No model was fitted for 'pump-2'. Did you mean 'pump-1'?"):
        detector.risk(readings(100, pump="pump-2"))


def test_one_row_is_no_series(timed: SequenceDetector) -> None:
    """Neither to learn from nor, unless short ones are padded, to judge; nor is none."""
    with pytest.raises(DataError, match="One row is no series: received n_samples = 1. Give the rows before it"):
        small(schema=SCHEMA).fit(readings(1))
    with pytest.raises(DataError, match="The series has 1 rows, a window 8; received n_samples = 1"):
        timed.risk(readings(1))
    assert np.isfinite(small(schema=SCHEMA, short="pad").fit(readings(100)).risk(readings(1))).all()
    for ask in (small(schema=SCHEMA).fit, timed.risk):
        with pytest.raises(DataError, match="No row can be read: received n_samples = 0"):
            ask(readings(0))


def test_a_spike_in_noise_is_found_by_short_windows() -> None:
    """Components that rebuilt whatever came counted alone, so that no risk was above 0."""
    values = np.random.default_rng(0).normal(40, 1, (400, 1))
    detector = SequenceDetector(window=8).fit(values)
    values[200] = 100

    risk = detector.risk(values)

    assert abs(int(np.argmax(risk)) - 200) < 8
    assert risk[200] > detector.threshold_


@pytest.mark.parametrize("slope", [1.0, 1.8, -1.0])
def test_a_spike_in_twins_of_noise_is_found_by_short_windows(slope: float) -> None:
    """Two sensors of which one follows from the other: components rebuilt whatever both did, and counted alone."""
    one = np.random.default_rng(0).normal(40, 1, (1000, 1))
    one[600] = 60
    values = np.hstack([one, slope * one + 32])

    detector = SequenceDetector(window=8).fit(values[:500])
    risk = detector.risk(values[500:])

    assert abs(int(np.argmax(risk)) - 100) < 8
    assert risk[100] > detector.threshold_


def test_series_of_which_no_row_can_be_read_says_why(timed: SequenceDetector) -> None:
    """Times in another form than ISO 8601 were "no row", without the reason."""
    rows = readings(100).assign(when="31.12.2025 23:59")

    for ask in (small(schema=SCHEMA).fit, timed.risk):
        with pytest.raises(DataError, match=r"n_samples = 0, and 100 that cannot: when: not a date \(100\)"):
            ask(rows)


def test_the_interval_is_that_of_the_training_rows(timed: SequenceDetector) -> None:
    """A window of eight minutes stays one: readings of another pace are refused, or leave gaps."""
    fast, slow = readings(100, 1), readings(100, 1)
    fast["when"] = START + pd.to_timedelta(np.arange(100) * 20, unit="s")
    slow["when"] = START + pd.to_timedelta(np.arange(100) * 5, unit="min")

    with pytest.raises(DataError, match="Readings come faster than every 1 min"):
        timed.risk(fast)
    assert timed.scorer_.score_steps(slow).series.report.gaps["handled"].eq("masked").all()


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"models": "each"}, SettingError, "knows no models='each'. Known: entity, shared"),
        ({"short": "drop"}, SettingError, "knows no short='drop'"),
        ({"quantile": 1.0}, SettingError, "quantile must lie between 0 and 1. Received: quantile=1.0"),
        ({"contamination": 0.6}, SettingError, r"contamination must lie in \(0, 0.5\]. Received: contamination=0.6"),
        ({"window": 1}, SettingError, "window must be at least 2"),
        ({"window": "1h"}, SettingError, "window must be at least 2. Received: window='1h'"),
        ({"window": 16.5}, SettingError, "window must be a whole number, of type int. Received: window=16.5"),
        ({"folds": 2.5}, SettingError, "folds must be a whole number"),
        ({"trees": 10.5}, SettingError, "trees must be a whole number"),
        ({"lags": 4.5}, SettingError, "lags must be a whole number"),
        ({"random_state": 1.5}, SettingError, "random_state must be a whole number"),
        ({"random_state": -1}, SettingError, r"random_state must lie in \[0, 4294967295\]"),
        ({"timezone": "Mars"}, SettingError, "timezone must name a time zone, such as Europe/Berlin"),
        ({"models": "entity"}, SettingError, "needs a schema that names the entity column"),
        ({"schema": Schema(numeric=("heat",), categorical=("mode",))}, SchemaError, r"lists \['mode'\] as text"),
    ],
)
def test_fit_refuses_settings_without_meaning(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    """Before any row is read."""
    with pytest.raises(error, match=match):
        small(**settings).fit(waves(100))


def test_judge_refuses_what_is_no_policy() -> None:
    """Such as the name of a rule."""
    detector = small().fit(waves(200))

    with pytest.raises(SettingError, match="policy must be a Policy.* Received: 'fdr'"):
        detector.judge(waves(100), policy="fdr")  # type: ignore[arg-type]


def test_an_array_does_not_fit_a_schema() -> None:
    """Names are needed."""
    with pytest.raises(SchemaError, match="expects a pandas DataFrame with named columns, received ndarray"):
        small(schema=SCHEMA).fit(waves(100))


def test_a_frame_without_columns_is_refused() -> None:
    """To learn from and to score."""
    for ask in (small().fit, small().fit(waves(200)).risk):
        with pytest.raises(SchemaError, match="Expected a frame with columns, received one of 100 rows without any"):
            ask(pd.DataFrame(index=range(100)))


def test_times_without_a_schema_are_refused() -> None:
    """What is no sensor needs a meaning."""
    with pytest.raises(SchemaError, match="Column 'when' is of type datetime64.*, which is no sensor"):
        small().fit(readings(100))


def test_nothing_is_known_before_fit() -> None:
    """Each question says so."""
    with pytest.raises(UnfittedError, match="not fitted yet"):
        small().risk(waves(100))
    with pytest.raises(AttributeError, match="threshold_ is known after fit"):
        _ = small().threshold_


def test_clones_are_alike() -> None:
    """The constructor only stores, and fitting is not random."""
    detector = small()

    assert (clone(detector).fit(waves(200)).risk(waves(50)) == detector.fit(waves(200)).risk(waves(50))).all()
