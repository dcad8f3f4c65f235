"""Members, fitted and joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detector.decide.calibrate import Calibrator
from detector.detectors.table import calibration, prepared
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.fit import assemble
from detector.detectors.table.members import as_held_out, fit_members, has_learnt_likes
from detector.detectors.table.prepared import Prepared
from detector.detectors.table.recipe import MEMBERS, Recipe
from detector.detectors.table.scorer import TabularScorer
from detector.encoders.table import FittedNetwork, TableAutoencoder
from detector.errors import DataError, ParityError, SettingError
from detector.members.isolation_forest import Trees
from detector.members.novelty import KnownRows
from detector.schema import Schema
from detector.training.settings import Training

SCHEMA = Schema(numeric=("a", "b"))


def recipe(**changed: Any) -> Recipe:
    return Recipe(
        **{
            "members": ("forest", "neighbours"),
            "autoencoder": TableAutoencoder(
                hidden=(4,), code=2, groups=0, training=Training(epochs=1, least_steps=1, max_steps=1)
            ),
            "trees": 10,
            "max_samples": 64,
            "references": 100,
            "kernel_references": 50,
            "clean_references": 50,
            "clean_share": 0.25,
            "calibration_share": 0.2,
            "calibrate_on": "known",
            "tail": "empirical",
            "max_levels": 100,
            "name": "test",
            "random_state": 0,
        }
        | changed
    )


def draw(seed: int, n: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 2)), columns=["a", "b"])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return draw(0, 500)


@pytest.fixture(scope="module")
def assembled(table: pd.DataFrame) -> TabularScorer:
    return assemble(table, SCHEMA, recipe()).scorer


@pytest.mark.parametrize("members", [(), ("forest", "knn"), "forest"])
def test_recipe_refuses_members_it_does_not_know(members: Any) -> None:
    """And lists those it knows."""
    with pytest.raises(
        SettingError, match="members must be some of autoencoder, forest, neighbours, sequence. Received: members="
    ):
        recipe(members=members)


@pytest.mark.parametrize(
    "name", ["trees", "max_samples", "references", "kernel_references", "clean_references", "max_levels"]
)
def test_recipe_refuses_counts_below_one(name: str) -> None:
    """No tree, no reference, no level means nothing."""
    with pytest.raises(SettingError, match=f"{name} must be at least 1. Received: {name}=0"):
        recipe(**{name: 0})


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_recipe_needs_rows_to_calibrate_on_and_rows_to_learn_from(share: float) -> None:
    """Neither none nor all."""
    with pytest.raises(SettingError, match=f"calibration_share must lie between 0 and 1. .*calibration_share={share}"):
        recipe(calibration_share=share)


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_recipe_leaves_rows_that_count_as_clean(share: float) -> None:
    """All rows cannot be unusual."""
    with pytest.raises(SettingError, match=rf"clean_share must lie in \[0, 1\). Received: clean_share={share}"):
        recipe(clean_share=share)


def test_recipe_refuses_a_tail_it_does_not_know_before_anything_is_trained() -> None:
    """A slip in a setting is found in the first second, not after the training."""
    with pytest.raises(SettingError, match="tail must be one of empirical, pareto, extrapolated. Received: tail='fat'"):
        recipe(tail="fat")


@pytest.mark.parametrize(
    ("members", "columns"),
    [
        (("forest",), ("forest",)),
        (("neighbours",), ("neighbours", "contraction")),
        (("neighbours", "forest"), ("forest", "neighbours", "contraction")),
    ],
)
def test_assembly_joins_the_members_asked_for(
    table: pd.DataFrame, members: tuple[str, ...], columns: tuple[str, ...]
) -> None:
    """Neighbours give a distance and a pull; what was not asked for is not in the graph."""
    made = assemble(table, SCHEMA, recipe(members=members))
    scorer, curves = made.scorer, made.history

    assert scorer.members == columns
    assert set(scorer.graph.outputs) == set(columns)
    assert (scorer.trees is not None) == ("forest" in members)
    assert (scorer.known is not None) == ("neighbours" in members)
    assert curves == {}


def test_assembly_calibrates_on_every_row_by_members_that_did_not_see_it(table: pd.DataFrame) -> None:
    """The forest and networks learn from the one part; trees and distances leave each row out."""
    prepared = Prepared.of(table, SCHEMA, recipe())

    scorer = assemble(table, SCHEMA, recipe()).scorer

    assert sorted([*prepared.learnt, *prepared.kept_back]) == list(range(500))
    assert len(prepared.kept_back) == 100
    assert scorer.calibrator.size == scorer.metrics["rows_calibration"] == 500
    assert scorer.metrics["rows_fitted"] + scorer.metrics["rows_suspicious"] >= 400


def test_rows_that_calibrate_are_bounded(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten million rows not all are measured against the known ones; a sample keeps p-values what they are."""
    monkeypatch.setattr(calibration, "MOST_CALIBRATION_ROWS", 200)

    scorer = assemble(table, SCHEMA, recipe(members=MEMBERS)).scorer

    assert scorer.calibrator.size == scorer.metrics["rows_calibration"] == 200
    assert np.median(scorer.measure(draw(1, 2000))["p_value"]) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("labelled", "calibrate_on", "expected"), [(300, "known", 300), (300, "all", 500), (249, "known", 500)]
)
def test_only_rows_known_to_be_normal_calibrate(labelled: int, calibrate_on: str, expected: int) -> None:
    """Others may hold what nobody has reported yet; labels of a minority are no sample of normal rows."""
    rows = pd.DataFrame({"a": np.arange(500.0), "fraud": np.where(np.arange(500) < labelled, 0.0, np.nan)})
    schema = Schema(numeric=("a",), label="fraud")

    places = calibration.choose_calibrating(rows, schema, recipe(calibrate_on=calibrate_on))

    assert places.tolist() == list(range(expected))


def test_hidden_anomalies_do_not_hide_others() -> None:
    """Of the last quarter one row in twenty is an anomaly that nobody reported yet; known rows alone flag its like."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=2_000), "fraud": 0.0})
    rows.loc[1_500:, "fraud"] = np.nan
    rows.loc[1_500::20, "a"] = rng.normal(7, 1, 25)
    schema, new = Schema(numeric=("a",), label="fraud"), pd.DataFrame({"a": rng.normal(7, 1, 200)})

    found = {
        which: assemble(rows, schema, recipe(members=("forest", "neighbours"), calibrate_on=which)).scorer.measure(new)
        for which in ("known", "all")
    }

    flagged = {which: float((measures["p_value"] <= 0.005).mean()) for which, measures in found.items()}
    assert flagged["known"] > 0.8
    assert flagged["all"] < flagged["known"] - 0.2


def test_rows_kept_back_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten million rows not two million are kept back."""
    monkeypatch.setattr(prepared, "MOST_HELD_OUT_ROWS", 10)

    learnt, kept_back = prepared._split(500, recipe())

    assert (len(learnt), len(kept_back)) == (490, 10)


def test_scores_of_training_rows_are_those_of_new_ones(table: pd.DataFrame, assembled: TabularScorer) -> None:
    """Were a row its own neighbour, or scored by trees grown on it, p-values of new rows would be small."""
    fresh = assembled.measure(draw(1, 2000))

    assert np.median(fresh["p_value"]) == pytest.approx(0.5, abs=0.08)
    assert (fresh["p_value"] <= 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert np.median(assembled.measure(table)["p_value"]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("members", [("forest", "neighbours"), MEMBERS])
def test_nothing_is_learnt_from_rows_that_members_agree_about(table: pd.DataFrame, members: tuple[str, ...]) -> None:
    """Outliers are no known rows, and lie farthest from the bulk."""
    planted = table.copy()
    planted.iloc[:5] += np.array([30.0, -30.0])

    fitted = fit_members(Prepared.of(planted, SCHEMA, recipe(members=members)), recipe(members=members))

    assert 2 <= (~fitted.trusted).sum() <= 5
    assert (~fitted.trusted[:5]).any()
    assert not (~fitted.trusted[5:]).any()
    assert set(np.argsort(fitted.bulk.rarity)[-5:]) == set(range(5))
    assert fitted.known is not None
    assert len(fitted.known.rows["linear"]) == 100


def test_assembly_says_how_far_it_is(table: pd.DataFrame) -> None:
    """For a progress bar: each stage as it starts."""
    steps: list[tuple[str, int, int]] = []

    assemble(table, SCHEMA, recipe(on_step=lambda *step: steps.append(step)))

    assert [what for what, _, _ in steps] == ["isolation forest", "neighbours", "weights", "calibration", "export"]


def test_assembly_repeats_itself_with_the_same_seed(table: pd.DataFrame, assembled: TabularScorer) -> None:
    """Same rows, same seed, same graph to the last byte; another seed, another graph."""
    again = assemble(table, SCHEMA, recipe()).scorer
    other = assemble(table, SCHEMA, recipe(random_state=1)).scorer

    assert again.graph.content == assembled.graph.content
    assert np.array_equal(again.calibrator.risk, assembled.calibrator.risk)
    assert other.graph.content != assembled.graph.content


def test_assembly_refuses_a_table_in_which_nothing_varies() -> None:
    """There is nothing to learn."""
    with pytest.raises(DataError, match="No column varies"):
        assemble(pd.DataFrame({"a": [1.0] * 50, "b": [2.0] * 50}), SCHEMA, recipe())


def test_graph_agrees_with_keras_and_scikit_learn(fitted: TabularDetector) -> None:
    """The differences found at fit are recorded, and rounding is all there is."""
    metrics = fitted.scorer_.metrics

    assert 0 < metrics["parity_autoencoder"] < 1e-4
    assert 0 < metrics["parity_forest"] < 1e-5
    assert 0 < metrics["parity_neighbours"] < 1e-3


def test_assembly_refuses_a_forest_that_changed_on_the_way(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One per cent in the trees' depths is noticed before anything is saved."""
    faithful = Trees.from_forest

    def distorted(forest: Any) -> Trees:
        trees = faithful(forest)
        return replace(trees, depth=1.01 * trees.depth)

    monkeypatch.setattr(Trees, "from_forest", distorted)

    with pytest.raises(ParityError, match=r"differs from the fitted model by 0\.0\d+ \(parity_forest\); at most 0.001"):
        assemble(table, SCHEMA, recipe())


@pytest.mark.parametrize("spoilt", [lambda error: error + 0.01, lambda error: error * np.nan], ids=["shifted", "NaN"])
def test_assembly_refuses_a_network_that_changed_on_the_way(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, network: FittedNetwork, spoilt: Any
) -> None:
    """Keras and the graph must say the same of the calibration rows; NaN is not the same as anything."""
    changed = replace(network, probe_error=spoilt(network.probe_error))
    monkeypatch.setattr(TableAutoencoder, "fit", lambda *_, **__: changed)

    with pytest.raises(ParityError, match=r"\(parity_autoencoder\); at most 0.001 is allowed. Please report"):
        assemble(table, SCHEMA, recipe(members=("autoencoder",)))


def test_assembly_accepts_the_network_as_it_is(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, network: FittedNetwork
) -> None:
    """The same network, not distorted, passes: the check above is not one that always fails."""
    monkeypatch.setattr(TableAutoencoder, "fit", lambda *_, **__: network)

    made = assemble(table, SCHEMA, recipe(members=("autoencoder",)))
    scorer, curves = made.scorer, made.history

    assert scorer.members == ("autoencoder",)
    assert curves == network.history
    assert scorer.metrics["epochs"] == 1


@pytest.fixture(scope="module")
def network(table: pd.DataFrame) -> FittedNetwork:
    """The network that ``assemble`` trains on the table, caught on its way."""
    caught: list[FittedNetwork] = []
    fit = TableAutoencoder.fit

    def watched(*given: Any, **named: Any) -> FittedNetwork:
        caught.append(fit(*given, **named))
        return caught[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableAutoencoder, "fit", watched)
        assemble(table, SCHEMA, recipe(members=("autoencoder",)))
    return caught[-1]


@pytest.mark.parametrize(("learnt", "networks"), [(False, 2), (True, 4)], ids=["unlearnt rows", "a learnt row"])
def test_rows_leave_an_assembly_and_its_networks_stay_if_they_never_learnt_from_them(
    monkeypatch: pytest.MonkeyPatch, learnt: bool, networks: int
) -> None:
    """One network ranks, one scores; what they cannot have from a row that left, they need not be trained again for."""
    table = draw(1, 500)
    table.iloc[:4] = [[30.0, -30.0], [31.0, -30.0], [30.0, -31.0], [31.0, -31.0]]
    fits = []
    fit = TableAutoencoder.fit
    monkeypatch.setattr(TableAutoencoder, "fit", lambda *given, **named: fits.append(1) or fit(*given, **named))
    made = assemble(table, SCHEMA, recipe(members=MEMBERS))
    gone = np.zeros(len(table), dtype=bool)
    gone[: 4 + 50 * learnt] = True

    rest = made.without(gone)

    assert len(fits) == networks
    assert rest.prepared.rows.equals(table[~gone])
    assert sorted([*rest.prepared.learnt, *rest.prepared.kept_back]) == list(range((~gone).sum()))
    assert rest.scorer.metrics["rows_calibration"] == (~gone).sum()
    assert set(rest.scorer.metrics) == set(made.scorer.metrics)
    far = table.iloc[:1]
    assert (rest.scorer.measure(far)["neighbours"] > made.scorer.measure(far)["neighbours"] + 1).all()


def test_assembly_records_what_it_did(fitted: TabularDetector) -> None:
    """Plain numbers for MLflow and the bundle's JSON."""
    metrics = fitted.scorer_.metrics

    assert metrics["rows_fitted"] <= 800
    assert metrics["rows_calibration"] == 1000
    assert sum(value for name, value in metrics.items() if name.startswith("weight_") and "spread" not in name) == (
        pytest.approx(1.0)
    )
    assert metrics["epochs"] == len(fitted.history_["loss"]) == 6
    assert metrics["code_size"] == 16
    gap = metrics["reconstruction_error_holdout"] - metrics["reconstruction_error_train"]
    assert metrics["generalisation_gap"] == pytest.approx(gap)
    assert metrics["fit_seconds"] > 0
    assert all(type(value) in (int, float) for value in metrics.values())


def test_every_member_can_be_asked_for() -> None:
    """The names in the documentation are the names that work."""
    assert recipe(members=MEMBERS).members == ("autoencoder", "forest", "neighbours")


def test_usual_attributions_are_the_level_reasons_count_from(assembled: TabularScorer) -> None:
    """One level a member and feature, from rows the member was not fitted on."""
    assert set(assembled.usual) == {"forest", "neighbours", "contraction"}
    assert all(level.shape == (2,) and np.isfinite(level).all() for level in assembled.usual.values())
    assert isinstance(assembled.calibrator, Calibrator)
    assert isinstance(assembled.known, KnownRows)


def test_rows_a_network_learnt_score_as_rows_kept_back() -> None:
    """However few they are: by chance alone they do not differ, and a tail that is too short makes false alarms."""
    score = np.concatenate([np.linspace(0.0, 1.0, 60), np.linspace(0.1, 1.3, 15)])
    trained = np.arange(75) < 60

    moved = as_held_out(score, trained, ~trained)

    assert np.array_equal(moved[~trained], score[~trained])
    assert np.quantile(moved[trained], [0.5, 0.9]) == pytest.approx(np.quantile(score[~trained], [0.5, 0.9]))


def test_rows_that_a_network_knows_by_others_keep_their_scores() -> None:
    """They would score as low without themselves, and say nothing of how high the others would."""
    score = np.concatenate([np.linspace(0.0, 1.0, 60), np.linspace(0.1, 1.3, 15), np.full(40, -2.0)])
    trained = np.arange(115) % 4 > 0
    known = np.arange(115) >= 75

    moved = as_held_out(score, trained, ~trained, known)

    assert np.array_equal(moved[known], score[known])
    assert np.array_equal(moved[~known], as_held_out(score[~known], trained[~known], ~trained[~known]))


def test_scores_that_are_nearly_all_alike_are_not_stretched_without_bound() -> None:
    score = np.concatenate([np.full(30, 0.5), np.linspace(0.5, 0.501, 30), [0.9], np.linspace(0.0, 3.0, 20)])
    trained = np.arange(81) < 61

    assert as_held_out(score, trained, ~trained)[60] < 5.0


def test_where_few_rows_can_be_compared_scores_stay() -> None:
    score, trained = np.linspace(0.0, 1.0, 30), np.arange(30) < 21
    assert as_held_out(score, trained, ~trained) is score


def test_likes_of_a_row_are_other_rows_that_were_learnt() -> None:
    marks = np.array([1, 1, 2, 3, 3], dtype=np.uint64)
    assert has_learnt_likes(marks, np.array([0, 1, 2, 3])).tolist() == [True, True, False, False, True]
