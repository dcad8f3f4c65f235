"""The chain as a scikit-learn estimator, on tables of every kind."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from threadpoolctl import threadpool_info, threadpool_limits

from detector.decide.policy import Policy
from detector.detectors.table.detector import TabularDetector
from detector.encoders.table import TableAutoencoder
from detector.errors import DataError, SchemaError, SettingError, UnfittedError
from detector.schema import Schema
from detector.training.settings import Training

SMALL = TableAutoencoder(
    hidden=(8,), code=4, embedding=2, groups=0, training=Training(epochs=1, least_steps=5, batch_size=64)
)


def swift(**changed: Any) -> TabularDetector:
    """A detector without TensorFlow, fitted in a fraction of a second."""
    return TabularDetector(**{"members": ("forest", "neighbours"), "trees": 10} | changed)


def numbers(n: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"amount": rng.normal(40, 5, n), "fee": rng.normal(1, 0.1, n)})


CHECKS = parametrize_with_checks([swift()])


@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)  # pytest 9 takes no generator
def test_detector_is_a_scikit_learn_estimator(estimator: TabularDetector, check: Any) -> None:
    """Every check scikit-learn has for outlier detectors."""
    check(estimator)


class Dependent(TabularDetector):
    """Broken on purpose."""

    def score_samples(self, X: Any) -> Any:
        """Make a row's score depend on the rest of its batch."""
        return super().score_samples(X) - super().score_samples(X).mean()


@pytest.mark.slow
def test_scikit_learns_checks_are_not_vacuous() -> None:
    """They are executed, not skipped, and an estimator that breaks a promise fails the checks for it and no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(Dependent(members=("forest",), trees=10), on_skip=None, on_fail=None)

    found = {result["check_name"] for result in results if result["status"] == "failed"}
    status = Counter(result["status"] for result in results)
    assert "check_methods_subset_invariance" in found
    assert found <= {"check_methods_subset_invariance", "check_outliers_train", "check_outliers_fit_predict"}
    assert status["passed"] >= 40
    assert status["skipped"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["check_estimators_pickle", "check_methods_subset_invariance", "check_fit2d_1feature"])
def test_detector_with_an_autoencoder_is_one_too(name: str) -> None:
    """The checks that a network could fail."""
    getattr(estimator_checks, name)("TabularDetector", TabularDetector(autoencoder=SMALL, trees=10))


def test_detector_keeps_scikit_learns_signs(quick: TabularDetector) -> None:
    """Scores are higher for normal rows and risks for anomalous ones; below 0 a row is called anomalous."""
    rows = pd.DataFrame({"amount": [40.0, 400.0], "fee": [1.0, -3.0]})

    assert (quick.score_samples(rows) == -quick.risk(rows)).all()
    assert quick.risk(rows)[0] < quick.risk(rows)[1]
    assert np.allclose(quick.decision_function(rows), quick.score_samples(rows) - quick.offset_)
    assert quick.predict(rows).tolist() == [1, -1]
    assert quick.p_value(rows)[0] > 0.3 > 0.05 > quick.p_value(rows)[1]


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_share_of_training_rows_called_anomalous(contamination: float) -> None:
    """As in scikit-learn."""
    rows = numbers(400)

    predicted = swift(contamination=contamination).fit_predict(rows)

    assert (predicted == -1).mean() == pytest.approx(contamination, abs=0.005)


@pytest.mark.parametrize("contamination", [0.0, -0.1, 0.51, "auto", None])
def test_detector_refuses_a_contamination_that_is_no_minority(contamination: Any) -> None:
    """More anomalous rows than normal ones means nothing, nor does what is no number."""
    with pytest.raises(
        SettingError, match=rf"contamination must lie in \(0, 0.5\]. Received: contamination={contamination!r}"
    ):
        swift(contamination=contamination).fit(numbers())


def test_detector_checks_its_settings_when_fitted() -> None:
    """A constructor only stores; what has no meaning is refused by ``fit``."""
    detector = swift(trees=0)

    with pytest.raises(SettingError, match="trees must be at least 1"):
        detector.fit(numbers())
    with pytest.raises(SettingError, match=r"schema must be a Schema. Received: schema=\{'numeric': \['amount'\]\}"):
        swift(schema={"numeric": ["amount"]}).fit(numbers())


SIZES = ("trees", "max_samples", "references", "kernel_references", "clean_references", "max_levels")


@pytest.mark.parametrize("name", SIZES)
def test_detector_refuses_sizes_that_are_no_whole_numbers(name: str) -> None:
    """They ended in errors of Python, pandas and scikit-learn."""
    with pytest.raises(SettingError, match=f"{name} must be a whole number, of type int. Received: {name}=20.5"):
        swift(**{name: 20.5}).fit(numbers())


@pytest.mark.parametrize("seed", [1.5, -1, None])
def test_detector_refuses_a_random_state_that_is_no_whole_number(seed: Any) -> None:
    """By its name, before a row is read; a whole float is one."""
    with pytest.raises(SettingError, match="random_state must "):
        swift(random_state=seed).fit(numbers())
    assert (
        swift(random_state=3.0).fit(numbers()).predict(numbers()).tolist()
        == swift(random_state=3).fit(numbers()).predict(numbers()).tolist()
    )


def test_a_frame_without_columns_is_refused() -> None:
    """To learn from and to score."""
    for ask in (swift().fit, swift().fit(numbers()).risk):
        with pytest.raises(SchemaError, match="Expected a frame with columns, received one of 100 rows without any"):
            ask(pd.DataFrame(index=range(100)))


@pytest.mark.parametrize(
    "ask", ["risk", "p_value", "score_samples", "decision_function", "predict", "judge", "explain", "encode", "decode"]
)
def test_unfitted_detector_says_so(ask: str) -> None:
    """In our error and in scikit-learn's at once."""
    for error in (UnfittedError, NotFittedError):
        with pytest.raises(error, match="not fitted yet. Call fit before asking"):
            getattr(swift(), ask)(numbers())


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_detector_refuses_too_few_rows(n_rows: int) -> None:
    """Two to learn from and one to calibrate on."""
    with pytest.raises(DataError, match=f"at least 3 usable rows.*n_samples = {n_rows}. Give more rows"):
        swift(schema=Schema(numeric=("amount", "fee"))).fit(numbers(n_rows))


def test_rows_that_cannot_be_read_are_told_with_the_reason() -> None:
    """By ``left_out_`` after fitting, and by the error where too few are left: half of a table went without a word."""
    rows = numbers(60).astype({"amount": object})
    rows.loc[::2, "amount"] = "many"
    detector = swift(schema=Schema(numeric=("amount", "fee")))

    left = detector.fit(rows).left_out_

    assert left.loc[left["reason"] == "amount: 'many' is not a number", "row"].tolist() == list(range(0, 60, 2))
    with pytest.raises(DataError, match=r"n_samples = 2, and 2 that cannot: amount: not a number \(2\)"):
        detector.fit(rows.head(4))


def test_detector_learns_from_three_rows() -> None:
    """Not well, but without a fault."""
    assert np.isfinite(swift().fit(numbers(3)).risk(numbers(3))).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_detector_refuses_infinite_numbers_in_arrays(quick: TabularDetector, bad: float) -> None:
    """As scikit-learn does; NaN is a missing value and welcome."""
    rows = numbers(50)
    rows.loc[3, "fee"] = bad

    with pytest.raises(ValueError, match="infinity"):
        swift().fit(rows.to_numpy())
    with pytest.raises(ValueError, match="infinity"):
        quick.risk(rows)


def test_detector_with_a_schema_quarantines_bad_rows() -> None:
    """A row that cannot be read has no risk, is called anomalous, and takes no good row with it."""
    table = numbers(100).astype(object)
    table.loc[[3, 5], "fee"] = [np.inf, "much"]
    detector = swift(schema=Schema(numeric=("amount", "fee"))).fit(table)

    assert np.flatnonzero(np.isnan(detector.risk(table))).tolist() == [3, 5]
    assert np.flatnonzero(np.isnan(detector.p_value(table))).tolist() == [3, 5]
    assert detector.predict(table)[[3, 5]].tolist() == [-1, -1]
    assert len(detector.explain(table)) == 98
    assert detector.judge(table).quarantine["row"].tolist() == [3, 5]


def test_detector_refuses_a_missing_column() -> None:
    """At fit and after it, naming the nearest."""
    detector = swift(schema=Schema(numeric=("amount", "fee")))

    with pytest.raises(SchemaError, match=r"'fee' is missing from the table. Did you mean 'fees'\?"):
        detector.fit(numbers().rename(columns={"fee": "fees"}))
    with pytest.raises(SchemaError, match="'fee' is missing from the table"):
        detector.fit(numbers()).risk(numbers()[["amount"]])


def test_detector_with_a_schema_needs_names() -> None:
    """An array has none, so the schema cannot be right for it."""
    detector = swift(schema=Schema(numeric=("amount", "fee")))

    with pytest.raises(SchemaError, match="expects a pandas DataFrame with named columns, received ndarray"):
        detector.fit(numbers().to_numpy())


@pytest.mark.parametrize("given", [lambda f: f.to_numpy(), lambda f: f.iloc[0], lambda f: f.iloc[0].to_dict()])
def test_detector_of_several_kinds_needs_names(given: Callable[[pd.DataFrame], Any]) -> None:
    """What it was fitted on says which column is which kind; a row or a mapping is no table."""
    frame = numbers(100).assign(shop=["food", "fuel"] * 50)
    detector = swift().fit(frame)

    with pytest.raises(SchemaError, match="fitted on columns of several kinds expects a pandas DataFrame with named"):
        detector.risk(given(frame))


def test_judge_refuses_what_is_no_policy() -> None:
    """Such as the name of a rule."""
    detector = swift().fit(numbers(100))

    with pytest.raises(SettingError, match=r"policy must be a Policy, such as Policy\(fdr=0.1\). Received: 'fdr'"):
        detector.judge(numbers(5), policy="fdr")  # type: ignore[arg-type]


def test_detector_takes_an_array_in_place_of_the_frame_it_learnt() -> None:
    """By position, with scikit-learn's warning; and the other way round."""
    frame = numbers(100)
    by_name, by_position = swift().fit(frame), swift().fit(frame.to_numpy())

    with pytest.warns(UserWarning, match="does not have valid feature names"):
        found = by_name.risk(frame.to_numpy())
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        again = by_position.risk(frame)

    assert np.array_equal(found, by_name.risk(frame))
    assert np.array_equal(again, found)


@pytest.mark.parametrize("names", [["amount", "fee"], [0, 1]])
def test_detector_ignores_the_order_of_a_schemas_columns(names: list[Any]) -> None:
    """With a schema a column is found by its name, wherever it stands."""
    frame = numbers(100).set_axis(names, axis="columns")
    detector = swift(schema=Schema(numeric=tuple(str(name) for name in names))).fit(frame)

    assert np.array_equal(detector.risk(frame[names[::-1]]), detector.risk(frame))


def kinds_of_tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(3)
    n = 200
    return {
        "one numeric column": pd.DataFrame({"x": rng.normal(size=n)}),
        "all categorical": pd.DataFrame({"a": rng.choice(["u", "v"], n), "b": rng.choice(["x", "y", "z"], n)}),
        "booleans": pd.DataFrame({"yes": rng.random(n) < 0.5, "x": rng.normal(size=n)}),
        "booleans and text": pd.DataFrame({"yes": rng.random(n) < 0.5, "a": rng.choice(["u", "v"], n)}),
        "dates": pd.DataFrame({"t": pd.date_range("2026-01-01", periods=n, freq="37min")}),
        "numbers as text": pd.DataFrame({"x": rng.normal(size=n).astype(str)}),
        "gaps": pd.DataFrame({"x": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)), "y": rng.normal(size=n)}),
        "empty column": pd.DataFrame({"x": rng.normal(size=n), "nothing": np.nan, "none": None}),
        "constant column": pd.DataFrame({"x": rng.normal(size=n), "same": 1.0, "word": "w"}),
        "two values": pd.DataFrame({"x": (rng.random(n) < 0.03).astype(float), "y": rng.integers(0, 2, n)}),
        "huge and tiny": pd.DataFrame({"x": rng.normal(size=n) * 1e200, "y": rng.normal(size=n) * 1e-200}),
        "category dtype": pd.DataFrame({"a": pd.Categorical(rng.choice(["u", "v"], n)), "x": rng.normal(size=n)}),
        "nullable dtypes": pd.DataFrame({"x": pd.array([1, None] * 100, dtype="Int64"), "a": ["u", None] * 100}),
    }


@pytest.fixture(scope="module", params=kinds_of_tables().items(), ids=lambda item: item[0])
def kind_of_table(request: pytest.FixtureRequest) -> pd.DataFrame:
    return request.param[1]


def test_detector_takes_tables_of_every_kind(kind_of_table: pd.DataFrame) -> None:
    """Risks are numbers, p-values lie in (0, 1], and every row has a reason."""
    detector = swift().fit(kind_of_table)

    p_value = detector.p_value(kind_of_table)

    assert np.isfinite(detector.risk(kind_of_table)).all()
    assert ((p_value > 0) & (p_value <= 1)).all()
    assert all(reasons and reasons[0].text for reasons in detector.explain(kind_of_table.iloc[:20]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one numeric column", "all categorical", "gaps"])
def test_autoencoder_takes_tables_of_every_kind(kind: str) -> None:
    """Numbers alone, categories alone, and gaps: each makes another network."""
    table = kinds_of_tables()[kind]

    detector = TabularDetector(autoencoder=SMALL, trees=10).fit(table)

    assert np.isfinite(detector.risk(table)).all()
    assert detector.encode(table).shape == (200, 4)
    assert list(detector.reconstruct(table)) == list(detector.decode(detector.encode(table))) == list(table)
    assert all(reasons and reasons[0].text for reasons in detector.explain(table.iloc[:20]))
    assert {len(curve) for curve in detector.history_.values()} == {1}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("country", "zz", "country zz (unseen), expected de"),
        ("country", None, "country missing, expected de"),
        ("online", None, "online missing, expected false"),
        ("when", pd.NaT, "when weekday missing"),
        ("weight", 200.0, "weight 200.000, expected about 70"),
    ],
)
def test_odd_cell_is_unusual_without_an_autoencoder_too(
    mixed_detector: TabularDetector, column: str, value: Any, reason: str
) -> None:
    """Unseen categories and unusual numbers raise the risk of a row that is usual otherwise."""
    usual = pd.DataFrame(
        {
            "when": [pd.Timestamp("2026-03-01 13:00")],
            "amount": [20.0],
            "fee": [0.4],
            "weight": [70.0],
            "country": ["de"],
            "online": [False],
        }
    )
    odd = usual.astype({column: object}).assign(**{column: [value]})

    assert mixed_detector.risk(odd)[0] > mixed_detector.risk(usual)[0]
    assert any(each.text.startswith(reason) for each in mixed_detector.explain(odd)[0])


@pytest.fixture(scope="module")
def mixed_detector(mixed_rows: pd.DataFrame) -> TabularDetector:
    """Without TensorFlow and without a time column that must be there; a few cells of each kind are missing."""
    schema = Schema(
        numeric=("amount", "fee", "weight"), categorical=("country",), boolean=("online",), datetime=("when",)
    )
    rows = mixed_rows.astype({"online": object})
    rows.loc[7::200, "online"] = None
    rows.loc[8::200, "when"] = pd.NaT
    return swift(schema=schema, trees=50).fit(rows)


def test_known_anomalies_are_not_learnt_from(mixed_rows: pd.DataFrame, mixed_schema: Schema) -> None:
    """Rows labelled 1 could as well not be there; rows labelled 0 and rows without a label are learnt from."""
    known = mixed_rows.astype({"is_fraud": float})
    known.loc[::4, "is_fraud"] = np.nan
    fraud = mixed_rows.iloc[:100].assign(is_fraud=1.0, amount=9999.0, id=range(5000, 5100))
    table = pd.concat([known, fraud]).sample(frac=1, random_state=0)

    with_fraud = swift(schema=mixed_schema).fit(table)
    without = swift(schema=mixed_schema).fit(table[table["is_fraud"] != 1])

    assert with_fraud.scorer_.graph.content == without.scorer_.graph.content
    assert np.array_equal(with_fraud.risk(table), without.risk(table))
    assert with_fraud.offset_ == without.offset_
    assert with_fraud.scorer_.calibrator.size == without.scorer_.calibrator.size == 750  # those known to be normal


def test_labels_change_nothing_else(mixed_rows: pd.DataFrame, mixed_schema: Schema) -> None:
    """Scoring does not look at them: a row's risk is the same labelled, unlabelled, and without the column."""
    detector = swift(schema=mixed_schema).fit(mixed_rows)

    risk = detector.risk(mixed_rows)

    assert np.array_equal(detector.risk(mixed_rows.assign(is_fraud=1)), risk)
    assert np.array_equal(detector.risk(mixed_rows.drop(columns="is_fraud")), risk)


def test_second_appearance_of_a_key_is_scored_but_not_learnt(mixed_rows: pd.DataFrame, mixed_schema: Schema) -> None:
    """An array of risks must be as long as the table; a duplicate must not count twice in training."""
    twice = pd.concat([mixed_rows, mixed_rows.iloc[:50]])

    detector = swift(schema=mixed_schema).fit(twice)

    risk = detector.risk(twice)
    assert detector.scorer_.metrics["rows_calibration"] == 1000
    assert len(risk) == 1050
    assert np.array_equal(risk[1000:], risk[:50])


def test_constant_and_empty_columns_are_left_out_and_said() -> None:
    """The reason is kept; any other value afterwards is riskier than all that was learnt."""
    table = numbers(100).assign(same=3.0, empty=np.nan)

    detector = swift().fit(table)

    assert detector.scorer_.columns.dropped == {"same": "always 3", "empty": "always missing"}
    assert detector.risk(table.assign(same=99.0, empty=1.0)).min() > detector.risk(table).max()


@pytest.mark.parametrize("table", [{"x": [1.0] * 20}, {"x": [np.nan] * 20}, {"x": ["a"] * 20}])
def test_detector_refuses_a_table_in_which_nothing_varies(table: dict[str, list[Any]]) -> None:
    """Constant, empty, one word: nothing to learn."""
    with pytest.raises(DataError, match="No column varies, so there is nothing to learn"):
        swift().fit(pd.DataFrame(table))


def test_empty_table_can_be_scored(
    quick: TabularDetector, mixed_detector: TabularDetector, mixed_rows: pd.DataFrame
) -> None:
    """A quiet hour has no rows, and that is no error."""
    nothing = mixed_rows.iloc[:0]

    assert mixed_detector.risk(nothing).shape == (0,)
    assert mixed_detector.predict(nothing).shape == (0,)
    assert mixed_detector.explain(nothing) == []
    assert mixed_detector.judge(nothing, policy=Policy(fdr=0.1)).frame.empty


def test_detector_repeats_itself_with_the_same_seed(mixed_rows: pd.DataFrame, mixed_schema: Schema) -> None:
    """And does not touch the table it is given."""
    before = mixed_rows.copy()

    first, again = (swift(schema=mixed_schema, random_state=7).fit(mixed_rows).risk(mixed_rows) for _ in range(2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, swift(schema=mixed_schema, random_state=8).fit(mixed_rows).risk(mixed_rows))
    pd.testing.assert_frame_equal(mixed_rows, before)


@pytest.mark.slow
def test_detector_with_an_autoencoder_repeats_itself(
    fitted: TabularDetector, mixed_rows: pd.DataFrame, fresh_rows: pd.DataFrame
) -> None:
    """The same seed gives the same network, so the same risks to the last bit, whatever was fitted in between."""
    again = clone(fitted).fit(mixed_rows)

    assert again.history_ == fitted.history_
    assert np.array_equal(again.risk(fresh_rows), fitted.risk(fresh_rows))


def test_detector_can_be_pickled(fitted: TabularDetector, fresh_rows: pd.DataFrame) -> None:
    """With its graphs, so that joblib can send it to other processes."""
    rows = fresh_rows.iloc[:50]

    restored = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - our own bytes

    assert np.array_equal(restored.risk(rows), fitted.risk(rows))
    assert restored.explain(rows.iloc[:5]) == fitted.explain(rows.iloc[:5])
    assert np.array_equal(restored.encode(rows), fitted.encode(rows))


def test_detector_reports_its_progress() -> None:
    """Stage, done, planned."""
    steps: list[tuple[str, int, int]] = []

    swift(on_step=lambda *step: steps.append(step)).fit(numbers(50))

    assert steps[0] == ("isolation forest", 0, 1)
    assert [name for name, *_ in steps[-3:]] == ["weights", "calibration", "export"]


@pytest.mark.slow
def test_warm_start_begins_where_the_earlier_detector_ended(
    fitted: TabularDetector, mixed_rows: pd.DataFrame, mixed_schema: Schema, tiny_autoencoder: TableAutoencoder
) -> None:
    """One short epoch from the earlier weights is better than one from nothing; other shapes are refused."""
    brief = replace(tiny_autoencoder, training=replace(tiny_autoencoder.training, epochs=1, least_steps=1))
    settings = {"schema": mixed_schema, "members": ("autoencoder",), "trees": 10}

    cold = TabularDetector(autoencoder=brief, **settings).fit(mixed_rows)
    warm = TabularDetector(autoencoder=brief, warm_start=fitted.scorer_, **settings).fit(mixed_rows)

    assert warm.history_["held_out_loss"][0] < 0.9 * cold.history_["held_out_loss"][0]
    with pytest.raises(SettingError, match="earlier weights do not fit this network"):
        TabularDetector(autoencoder=replace(brief, code=9), warm_start=fitted.scorer_, **settings).fit(mixed_rows)


def test_fitting_takes_one_thread_for_products_and_gives_the_others_back() -> None:
    """A second one waits more than it works, and takes a core from whatever else is computed."""
    seen: list[set[int]] = []

    def blas_threads() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        detector = TabularDetector(members=("neighbours",), on_step=lambda *_: seen.append(blas_threads()))
        detector.fit(np.random.default_rng(0).normal(size=(50, 2)))

        assert blas_threads() == {2}

    assert seen
    assert all(each == {1} for each in seen)
