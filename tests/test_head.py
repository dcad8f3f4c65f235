"""The head: boosted trees over features and members' scores, on only where they prove themselves."""

import numpy as np
import pandas as pd
import pytest

from detector.errors import DataError, SchemaError, SettingError
from detector.head.fit import HeadRecipe, fit_head
from detector.head.model import Head

RECIPE = HeadRecipe(trees=20, learning_rate=0.2, leaves=6)


def world(size=1_500, *, seed=0, hidden=True):
    """Anomalies that one column tells, and the unsupervised risk only if it is not hidden from it."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"amount": rng.normal(size=size), "frauds": rng.poisson(0.35, size).astype(float)})
    rows.loc[::7, "amount"] = np.nan
    chance = rng.random(size)
    labels = pd.Series(((rows["frauds"] >= 2) & (chance < 0.9)) | (chance < 0.002)).astype(float)
    risk = rng.normal(size=size) if hidden else labels + rng.normal(scale=0.01, size=size)
    measures = pd.DataFrame({"risk": risk, "p_value": 0.5, "forest": rng.normal(size=size)})
    time = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(size), unit="h"))
    return rows, measures, labels, time


@pytest.fixture(scope="module")
def head():
    return fit_head(*world(size=3_000), columns=("amount", "frauds"), recipe=RECIPE)


def probability_of(head, rows, measures):
    """The risk is a calibrated log-odds."""
    return 1 / (1 + np.exp(-head.risk(rows, measures)))


def test_head_serves_where_it_beats_the_risk(head):
    """What verdicts tell and the risk does not see is learnt, and probabilities are about right."""
    rows, measures, labels, _ = world(seed=1)

    probability = probability_of(head, rows, measures)

    assert head.serves
    assert head.facts["ap_head"] > head.facts["ap_risk"] + 0.3
    assert probability.mean() == pytest.approx(labels.mean(), rel=0.5)
    assert probability[labels == 1].mean() > 10 * probability[labels == 0].mean()


def test_head_does_not_serve_where_the_risk_is_better():
    """A risk that knows the truth stays; the head says so."""
    head = fit_head(*world(hidden=False), columns=("amount",), recipe=RECIPE)
    assert not head.serves
    assert head.facts["gain_low"] <= 0


def test_head_survives_a_bundle(head):
    """What is saved answers the same, row by row and all at once."""
    rows, measures, _, _ = world(seed=2, size=300)
    again = Head.from_parts(head.to_parts())

    together = probability_of(again, rows, measures)

    assert (together == probability_of(head, rows, measures)).all()
    assert probability_of(again, rows.iloc[[7]], measures.iloc[[7]]) == together[7]
    assert again.columns == head.columns == ("amount", "frauds", "risk", "forest")


def test_unknown_labels_are_not_learnt_from(head):
    """A row without a verdict is neither normal nor anomalous."""
    rows, measures, labels, time = world(size=3_000)
    more = [pd.concat([part, part.iloc[:500]], ignore_index=True) for part in (rows, measures, labels, time)]
    more[2].iloc[3_000:] = np.nan

    again = fit_head(*more, columns=("amount", "frauds"), recipe=RECIPE)

    assert again.facts["ap_head"] == head.facts["ap_head"]
    assert (again.risk(rows, measures) == head.risk(rows, measures)).all()


def test_p_values_of_normal_rows_are_uniform(head):
    """They come from rows that the head did not learn from, so that a policy means what it says."""
    rows, measures, labels, _ = world(seed=4, size=6_000)

    p_value = head.calibrator.p_value(head.risk(rows, measures))[labels == 0]

    for level in (0.02, 0.1, 0.5):
        assert (p_value <= level).mean() == pytest.approx(level, abs=0.04)


def test_normal_rows_that_show_what_none_did_calibrate_lifted():
    """One in ten does here: so a new row that shows such a thing is no rarer than that."""
    rows, measures, labels, time = world()
    news = (np.arange(len(rows)) % 10 == 0).astype(float)

    plain = fit_head(rows, measures, labels, time, columns=("amount",), recipe=RECIPE).calibrator
    calibrator = fit_head(rows, measures, labels, time, columns=("amount",), recipe=RECIPE, news=news).calibrator

    new, once = np.array([plain.median]), np.ones(1)
    assert plain.p_value(plain.beyond_all(new, once)).item() < 0.01
    assert calibrator.p_value(calibrator.beyond_all(new, once)).item() == pytest.approx(0.1, abs=0.05)


def test_a_sample_of_the_normal_rows_stands_for_all():
    """With one in five of them, each standing for five, the probabilities are those of all rows."""
    rows, measures, labels, time = world(seed=5, size=12_000)
    rng = np.random.default_rng(6)
    kept = (labels == 1) | (rng.random(len(rows)) < 0.2)
    weight = np.where(labels[kept] == 1, 1.0, 5.0)

    head = fit_head(
        rows[kept],
        measures[kept],
        labels[kept],
        time[kept],
        columns=("amount", "frauds"),
        weight=weight,
        recipe=RECIPE,
    )

    assert probability_of(head, rows, measures).mean() == pytest.approx(labels.mean(), rel=0.15)


def test_a_label_that_came_late_is_not_known_before():
    """A fold is judged by what was known when it began, so labels that all come at the end prove nothing."""
    rows, measures, labels, time = world(size=3_000)
    with pytest.raises(DataError, match="earlier and the later"):
        fit_head(
            rows,
            measures,
            labels,
            time,
            columns=("amount", "frauds"),
            known_at=pd.Series(time.max(), index=time.index),
            recipe=RECIPE,
        )


def test_averaged_models_are_one_graph():
    """Models of several seeds answer as one, and as a bundle keeps them; the graph was checked against them."""
    rows, measures, labels, time = world(size=3_000)
    head = fit_head(
        rows, measures, labels, time, columns=("amount", "frauds"), recipe=HeadRecipe(trees=5, models=3, leaves=6)
    )
    assert probability_of(head, rows, measures)[labels == 1].mean() > 2 * labels.mean()


def test_contributions_name_what_the_head_saw(head):
    """Without its many frauds, the risk of an anomaly falls; without its amount it does not."""
    rows, measures, labels, _ = world(seed=5)
    falls = dict(zip(head.columns, head.contributions(rows, measures)[(labels == 1)].mean(axis=0), strict=True))
    assert falls["frauds"] > 1
    assert max(falls, key=falls.get) == "frauds"


def test_too_few_anomalies_are_refused():
    """From a handful of verdicts nothing is learnt."""
    rows, measures, labels, time = world(size=200)
    with pytest.raises(DataError, match="at least 30 labelled anomalies"):
        fit_head(rows, measures, labels * 0, time, columns=("amount",))


def test_a_missing_column_is_named(head):
    """A head says which of its inputs is not there."""
    rows, measures, _, _ = world(size=10)
    with pytest.raises(SchemaError, match="needs the column 'frauds'"):
        probability_of(head, rows.drop(columns="frauds"), measures)


@pytest.mark.parametrize(
    "setting",
    [{"trees": 0}, {"models": 0}, {"leaves": 1}, {"folds": 2.5}, {"learning_rate": 0.0}, {"calibration_share": 1.0}],
)
def test_settings_without_meaning_are_refused(setting):
    """A recipe that fits nothing is an error."""
    with pytest.raises(SettingError, match=next(iter(setting))):
        HeadRecipe(**setting)
