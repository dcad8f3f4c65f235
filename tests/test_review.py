from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from detector.cleaning.clean import clean
from detector.decide.policy import Budget, Policy
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.scorer import TabularScorer
from pipelines.reports.style import percent
from pipelines.training.merit import MOST_SHOWN, Review
from pipelines.training.review import figures, review_table

POLICY = Policy(quantile=0.95)


@pytest.fixture(scope="module")
def scorer(fitted: TabularDetector) -> TabularScorer:
    return fitted.scorer_


@pytest.fixture(scope="module")
def labelled(mixed_rows: pd.DataFrame, scorer: TabularScorer) -> pd.DataFrame:
    """Cleaned rows: 300 usual ones, of which 50 have no label, and 30 with the amount of another row."""
    table = mixed_rows.head(300).copy()
    table["is_fraud"] = table["is_fraud"].astype(float)
    table.loc[250:, "is_fraud"] = np.nan
    odd = table.head(30).assign(id=range(5000, 5030), amount=lambda t: t["amount"] * 2.5, is_fraud=1.0)
    return clean(pd.concat([table, odd]), scorer.schema, labelled=True).rows


@pytest.fixture(scope="module")
def reviewed(scorer: TabularScorer, labelled: pd.DataFrame) -> Review:
    return review_table(scorer, labelled, policy=POLICY)


def test_truth_agrees_with_scikit_learn(reviewed: Review, labelled: pd.DataFrame) -> None:
    """AUROC and average precision are scikit-learn's, over rows with a label only."""
    known = labelled["is_fraud"].notna().to_numpy()
    labels, risk = labelled["is_fraud"][known], reviewed.scored["risk"][known]

    assert reviewed.truth is not None
    assert reviewed.truth["auroc"] == pytest.approx(roc_auc_score(labels, risk))
    assert reviewed.truth["ap"] == pytest.approx(average_precision_score(labels, risk))
    assert (reviewed.truth["labelled"], reviewed.truth["anomalies"]) == (280, 30)
    assert 0.8 < reviewed.truth["auroc"] < 1
    assert reviewed.interval is not None
    assert reviewed.interval.low <= reviewed.truth["ap"] <= reviewed.interval.high


def test_each_member_is_scored_alone(reviewed: Review, scorer: TabularScorer) -> None:
    """Every member has its own figures, and every pair its rank correlation."""
    assert reviewed.truth is not None
    for name in scorer.members:
        assert {f"auroc_{name}", f"ap_{name}"} <= set(reviewed.truth)
    pairs = [name for name in reviewed.metrics if name.startswith("rank_correlation_")]
    assert len(pairs) == len(scorer.members) * (len(scorer.members) - 1) / 2


def test_review_without_labels(scorer: TabularScorer, labelled: pd.DataFrame) -> None:
    """Without labels there is calibration and the share flagged, but no truth."""
    found = review_table(scorer, labelled.drop(columns="is_fraud"), policy=POLICY)

    assert found.truth is None
    assert found.interval is None
    assert "truth" not in found.scored
    assert found.metrics["flagged_share"] == found.scored["flagged"].mean()
    assert found.all_metrics == found.metrics
    assert any(name.startswith("share_below") for name in found.metrics)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_review_with_one_class_has_no_truth(scorer: TabularScorer, labelled: pd.DataFrame, label: float) -> None:
    """Nothing can be ranked above nothing."""
    found = review_table(scorer, labelled.assign(is_fraud=label), policy=POLICY)

    assert found.truth is None


def test_calibration_is_that_of_rows_not_known_to_be_anomalous(
    scorer: TabularScorer, labelled: pd.DataFrame, reviewed: Review
) -> None:
    """Known anomalies have small p-values for a good reason; they must not make calibration look bad."""
    normal = review_table(scorer, labelled[labelled["is_fraud"] != 1], policy=POLICY)

    for name, value in normal.metrics.items():
        if name.startswith(("calibration", "share_below")):
            assert reviewed.metrics[name] == value


def test_alerts_are_the_riskiest_flagged_rows(reviewed: Review) -> None:
    """The riskiest come first, each with its reasons in words."""
    flagged = reviewed.scored[reviewed.scored["flagged"]]

    assert reviewed.alerts["risk"].tolist() == sorted(flagged["risk"], reverse=True)[:MOST_SHOWN]
    assert len(reviewed.reasons) == len(reviewed.alerts)
    assert all(reviewed.alerts["reasons"])


def test_alerts_are_few(scorer: TabularScorer, labelled: pd.DataFrame) -> None:
    """A policy that flags all rows still shows 100."""
    found = review_table(scorer, labelled, policy=Policy(budget=Budget(rows=10_000)))

    assert found.metrics["flagged_share"] == 1.0
    assert len(found.alerts) == MOST_SHOWN


@pytest.mark.parametrize(("policy", "budget"), [(POLICY, 3), (Policy(budget=Budget(rows=7)), 7)])
def test_budget_is_the_policy_s_or_one_in_a_hundred(
    scorer: TabularScorer, labelled: pd.DataFrame, policy: Policy, budget: int
) -> None:
    """Precision is measured where people stop looking."""
    found = review_table(scorer, labelled, policy=policy)

    assert found.truth is not None
    assert found.truth["budget"] == budget


@pytest.mark.parametrize("rows", [1, 2])
def test_review_of_hardly_any_rows(scorer: TabularScorer, labelled: pd.DataFrame, rows: int) -> None:
    """One row can be reviewed; figures that need more are left out."""
    few = labelled.head(rows)

    found = review_table(scorer, few, policy=POLICY)
    drawn = figures(scorer, few, found, policy=POLICY)

    assert len(found.scored) == rows
    assert "risk" in drawn


def test_pictures_say_what_the_tiles_say(
    scorer: TabularScorer, labelled: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few dots are drawn, precision, share flagged and calibration are of all rows, and so is the threshold."""
    monkeypatch.setattr("pipelines.training.review.MOST_DRAWN", 40)
    policy = Policy(budget=Budget(rows=150))
    found = review_table(scorer, labelled, policy=policy)

    drawn = figures(scorer, labelled, found, policy=policy)

    assert found.truth is not None
    shown = drawn["precision_recall"].axes[0].get_legend_handles_labels()[1][-1]
    assert shown == (
        f"150 rows looked at: precision {percent(found.truth['precision_at_budget'])}, "
        f"recall {percent(found.truth['recall_at_budget'])}"
    )
    least = found.scored["risk"][found.scored["flagged"]].min()
    assert f"flagged from {least:.2f}" in drawn["risk"].axes[0].get_legend_handles_labels()[1]
    normal = found.metrics["calibration_rows"]
    assert f"{normal:,.0f} normal rows held out" in drawn["calibration"].axes[0].get_legend_handles_labels()[1]


def test_figures_of_a_labelled_review(scorer: TabularScorer, labelled: pd.DataFrame, reviewed: Review) -> None:
    """All pictures that the issue asks for are drawn."""
    drawn = figures(scorer, labelled, reviewed, policy=POLICY, history={"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})

    assert set(drawn) == {
        "loss",
        "risk",
        "precision_recall",
        "feature_error",
        "code",
        "alert_rate",
        "calibration",
        "members",
    }


def test_figures_without_labels_or_autoencoder(quick: TabularDetector) -> None:
    """What cannot be drawn is left out."""
    rows = pd.DataFrame({"amount": np.linspace(20, 60, 80), "fee": np.linspace(0.8, 1.2, 80)})
    found = review_table(quick.scorer_, rows, policy=POLICY)

    drawn = figures(quick.scorer_, rows, found, policy=POLICY)

    assert set(drawn) == {"risk", "alert_rate", "calibration", "members"}
