"""The metrics agree with scikit-learn, with SciPy and with what a person computes by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from detector.errors import DataError, SettingError, ShapeError
from detector.metrics import ranking
from detector.metrics.budget import budget_metrics, decision_metrics
from detector.metrics.calibration import alert_curve, calibration_metrics


@pytest.fixture(params=[0, 1, 2])
def judged(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Labels and risks, the risks rounded so that many are equal."""
    random = np.random.default_rng(request.param)
    labels = (random.random(2_000) < 0.04).astype(float)
    return labels, np.round(random.normal(size=2_000) + 1.5 * labels, 1)


def test_ranking_metrics_match_scikit_learn(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """AUROC and average precision are scikit-learn's, ties included."""
    labels, risk = judged

    found = ranking.ranking_metrics(labels, risk)

    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, risk))
    assert found["ap"] == pytest.approx(metrics.average_precision_score(labels, risk))
    assert found["prevalence"] == pytest.approx(labels.mean())


def test_pr_curve_matches_scikit_learn(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """The curve has scikit-learn's points, in the other direction and without its artificial end."""
    labels, risk = judged
    precision, recall, threshold = metrics.precision_recall_curve(labels, risk)

    curve = ranking.pr_curve(labels, risk)

    np.testing.assert_allclose(curve["threshold"], threshold[::-1])
    np.testing.assert_allclose(curve["precision"], precision[-2::-1])
    np.testing.assert_allclose(curve["recall"], recall[-2::-1])


def test_unknown_labels_are_left_out(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """Rows whose label is missing change nothing, whatever type the labels have."""
    labels, risk = judged
    more = pd.Series([*labels, None, pd.NA, np.nan], dtype="Float64")

    found = ranking.ranking_metrics(more, [*risk, 99.0, np.nan, -99.0])

    assert found == ranking.ranking_metrics(labels, risk)


@pytest.mark.parametrize("labels", [[True, False, True], ["1", "0", "1"], pd.array([1, 0, 1], dtype="Int8")])
def test_labels_of_any_common_type(labels: object) -> None:
    """Booleans, numbers as text and nullable integers are labels too."""
    assert ranking.ranking_metrics(labels, [3.0, 2.0, 1.0])["auroc"] == 0.5  # type: ignore[arg-type]


def test_precision_at_budget_shares_out_ties() -> None:
    """Half of four equal rows, of which one is an anomaly, hold half an anomaly."""
    labels, risk = [1, 1, 0, 0, 0, 0], [9, 5, 5, 5, 5, 1]

    assert budget_metrics(labels, risk, 1)["precision_at_budget"] == 1.0
    assert budget_metrics(labels, risk, 3)["precision_at_budget"] == pytest.approx(1.5 / 3)


def test_budget_metrics_by_hand() -> None:
    """Two of the three highest rows are anomalies, of four among ten."""
    labels = [1, 1, 0, 1, 0, 0, 0, 1, 0, 0]

    found = budget_metrics(labels, np.arange(10, 0, -1), 3)

    assert found["precision_at_budget"] == pytest.approx(2 / 3)
    assert found["recall_at_budget"] == pytest.approx(2 / 4)
    assert found["lift_at_budget"] == pytest.approx((2 / 3) / 0.4)


def test_budget_larger_than_the_table_is_the_table() -> None:
    """A budget of a thousand rows on four labelled rows is a budget of four."""
    found = budget_metrics([1, 0, 0, 0, np.nan], [5, 4, 3, 2, 1], 1_000)

    assert found == {
        "budget": 4.0,
        "precision_at_budget": 0.25,
        "recall_at_budget": 1.0,
        "lift_at_budget": 1.0,
    }


def test_decision_metrics_match_scikit_learn(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """Precision, recall and F1 of the flags are scikit-learn's."""
    labels, risk = judged
    flagged = risk > 1.4

    found = decision_metrics([*labels, np.nan], [*flagged, True])

    assert found["precision"] == pytest.approx(metrics.precision_score(labels, flagged))
    assert found["recall"] == pytest.approx(metrics.recall_score(labels, flagged))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, flagged))
    assert found["false_alarm_rate"] == pytest.approx(flagged[labels == 0].mean())


def test_decision_metrics_without_flags() -> None:
    """No flag means no precision, not a division by zero."""
    found = decision_metrics([1, 0], [False, False])

    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


def test_interval_matches_resampled_rows(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """The compressed bootstrap gives the interval of the plain one, which draws rows and measures again."""
    labels, risk = judged
    random = np.random.default_rng(7)
    anomalies, normal = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    plain = []
    for _ in range(300):
        rows = np.append(random.choice(anomalies, len(anomalies)), random.choice(normal, len(normal)))
        plain.append(metrics.average_precision_score(labels[rows], risk[rows]))

    found = ranking.average_precision_interval(labels, risk, repeats=2_000)

    assert found.low < found.estimate < found.high
    np.testing.assert_allclose([found.low, found.high], np.quantile(plain, [0.025, 0.975]), atol=0.02)


def test_interval_is_the_same_every_time(judged: tuple[np.ndarray, np.ndarray]) -> None:
    """The seed decides the draw."""
    assert ranking.average_precision_interval(*judged) == ranking.average_precision_interval(*judged)


def test_alert_curve_of_uniform_values_is_the_diagonal() -> None:
    """Among normal rows a threshold flags the share it names."""
    curve = alert_curve((np.arange(10_000) + 1) / 10_000)

    np.testing.assert_allclose(curve["alert_rate"], curve["threshold"], atol=1e-4)
    assert curve["alert_rate"].iloc[-1] == 1.0


def test_calibration_distance_matches_scipy() -> None:
    """The distance is the Kolmogorov-Smirnov statistic."""
    values = np.random.default_rng(0).beta(0.8, 1.0, size=500)

    found = calibration_metrics([*values, np.nan])

    assert found["calibration_distance"] == pytest.approx(stats.kstest(values, "uniform").statistic)
    assert found["share_below_0.01"] == pytest.approx(np.mean(values <= 0.01))
    assert found["calibration_rows"] == 500


def test_member_correlation_matches_scipy() -> None:
    """The matrix is Spearman's, and a constant member correlates with nothing."""
    random = np.random.default_rng(0)
    scores = pd.DataFrame(random.normal(size=(200, 2)), columns=["forest", "neighbours"])
    scores["autoencoder"] = scores["forest"] ** 3 + random.normal(size=200)

    found = ranking.member_correlation(scores.assign(constant=1.0))

    expected = stats.spearmanr(scores["forest"], scores["autoencoder"]).statistic
    assert found.loc["forest", "autoencoder"] == pytest.approx(expected)
    assert found["constant"].isna().all()


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0], [1, 1, 1], [np.nan] * 3, [1, np.nan, np.nan]],
    ids=["normal", "anomalous", "unknown", "one"],
)
def test_one_class_is_an_error(labels: list[float]) -> None:
    """Nothing can be ranked among rows of one class, and the message counts them."""
    assert not ranking.has_both_classes(labels)
    with pytest.raises(DataError, match=r"received \d anomalies and \d normal rows"):
        ranking.ranking_metrics(labels, [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="Ranking needs"):
        decision_metrics(labels, [True, False, True])


@pytest.mark.parametrize("labels", [[1, 0, 2], [1, 0, -1]])
def test_other_labels_are_an_error(labels: list[float]) -> None:
    """A label that is neither 1 nor 0 is named."""
    with pytest.raises(DataError, match="received -?[12] as well"):
        ranking.ranking_metrics(labels, [1.0, 2.0, 3.0])


def test_labels_in_words_are_an_error() -> None:
    """Words are not labels."""
    with pytest.raises(DataError, match="Labels must be 1, 0 or missing"):
        ranking.ranking_metrics(["fraud", "fine"], [1.0, 2.0])


def test_wrong_arguments_are_errors() -> None:
    """Each wrong argument is named with what was received."""
    with pytest.raises(ShapeError, match=r"\(2,\) labels and \(3,\) risks"):
        ranking.ranking_metrics([1, 0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="1 labelled rows have no risk"):
        ranking.ranking_metrics([1, 0], [1.0, np.nan])
    with pytest.raises(SettingError, match="received 0"):
        budget_metrics([1, 0], [1.0, 2.0], 0)
    with pytest.raises(SettingError, match=r"received 1\.5"):
        ranking.average_precision_interval([1, 0], [1.0, 2.0], confidence=1.5)
    with pytest.raises(DataError, match="no p-values"):
        alert_curve([])
    with pytest.raises(DataError, match=r"received 0\.1 to 1\.2"):
        calibration_metrics([0.1, 1.2])
    with pytest.raises(DataError, match="at least two rows, received 1"):
        ranking.member_correlation(pd.DataFrame({"forest": [1.0]}))
