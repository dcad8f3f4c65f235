"""The fitted chain: measure, flag, explain, encode."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from detector.cleaning.clean import clean
from detector.decide.policy import Budget, Policy
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.scorer import TabularScorer
from detector.detectors.table.verdicts import Verdicts
from detector.errors import DataError, SchemaError, SettingError, ShapeError
from detector.onnx.graph import BLOCK

USUAL = {
    "id": 1,
    "when": pd.Timestamp("2026-03-01 13:00"),
    "amount": 20.0,
    "fee": 0.4,
    "weight": 70.0,
    "country": "de",
    "online": False,
}


@pytest.fixture(scope="module")
def scorer(fitted: TabularDetector) -> TabularScorer:
    return fitted.scorer_


@pytest.fixture(scope="module")
def rows(fresh_rows: pd.DataFrame, scorer: TabularScorer) -> pd.DataFrame:
    """Cleaned rows over several blocks, with gaps, and a few anomalies among them."""
    chosen = fresh_rows.iloc[: BLOCK + 44].copy()
    chosen.loc[chosen.index[::40], "amount"] *= 30
    chosen.loc[chosen.index[1::40], "country"] = "xx"
    return clean(chosen, scorer.schema).rows


@pytest.fixture(scope="module")
def measured(scorer: TabularScorer, rows: pd.DataFrame) -> pd.DataFrame:
    return scorer.measure(rows)


def one_row(scorer: TabularScorer, **changed: Any) -> pd.DataFrame:
    """A usual row, cleaned, with some cells changed."""
    return clean(pd.DataFrame([USUAL | changed]), scorer.schema).rows


@pytest.mark.parametrize("size", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1])
def test_row_is_measured_the_same_in_any_batch(
    scorer: TabularScorer, rows: pd.DataFrame, measured: pd.DataFrame, size: int
) -> None:
    """To the last bit: risk, p-value and every member, alone, in small batches and across the borders of blocks."""
    parts = [scorer.measure(rows.iloc[start : start + size]) for start in range(0, len(rows), size)]

    pd.testing.assert_frame_equal(pd.concat(parts), measured, check_exact=True)


def test_row_is_measured_the_same_in_any_company(
    scorer: TabularScorer, rows: pd.DataFrame, measured: pd.DataFrame
) -> None:
    """Shuffled, and beside rows that are all extreme."""
    order = np.random.default_rng(0).permutation(len(rows))
    extreme = rows.assign(amount=1e12, country="xx")

    shuffled = scorer.measure(rows.iloc[order])
    beside = scorer.measure(pd.concat([extreme, rows])).iloc[len(extreme) :]

    pd.testing.assert_frame_equal(shuffled, measured.iloc[order], check_exact=True)
    pd.testing.assert_frame_equal(beside, measured, check_exact=True)


def test_row_is_explained_the_same_in_any_batch(scorer: TabularScorer, rows: pd.DataFrame) -> None:
    """Reasons come from the row alone, too."""
    together = scorer.explain(rows.iloc[:60])

    alone = [scorer.explain(rows.iloc[[i]])[0] for i in range(60)]

    assert [[reason.text for reason in each] for each in alone] == [
        [reason.text for reason in each] for each in together
    ]


def test_no_rows_are_measured_and_explained(scorer: TabularScorer, rows: pd.DataFrame) -> None:
    """An empty batch has no risks and no reasons, but its columns."""
    nothing = scorer.measure(rows.iloc[:0])

    assert nothing.shape == (0, 8)
    assert scorer.explain(rows.iloc[:0]) == []


def test_measures_name_the_members(measured: pd.DataFrame, scorer: TabularScorer) -> None:
    """Risk, p-value, then one column a member, all of them numbers."""
    assert scorer.members == ("autoencoder", "forest", "neighbours", "contraction", "rare_values")
    assert list(measured) == ["risk", "p_value", *scorer.members, "unsupervised_risk"]
    assert np.isfinite(measured.to_numpy()).all()


@pytest.mark.parametrize(
    ("changed", "blamed", "observed", "expected"),
    [
        ({"amount": 600.0}, "amount", "600.00", (15, 25)),
        ({"fee": 4.0}, "fee", "4.000", (0.3, 0.5)),
        ({"weight": 200.0}, "weight", "200.000", (55, 85)),
        ({"when": pd.Timestamp("2026-03-01 03:00")}, "when hour", "03:00", r"0[6-9]:\d\d|1\d:\d\d"),
        ({"when": pd.Timestamp("2026-03-04 13:00")}, "when weekday", "Wednesday", "Sunday"),
    ],
    ids=["amount x 30", "fee of 20 %", "weight", "night", "weekday"],
)
def test_planted_anomaly_is_found_and_explained(
    scorer: TabularScorer, changed: dict[str, Any], blamed: str, observed: str, expected: tuple[float, float] | str
) -> None:
    """It is far beyond all calibration rows, its cell leads the reasons, and what was expected is about the truth.

    A huge amount may come second to its fee, which is then too small for it, and a strange hour to its weekday.
    """
    row = one_row(scorer, **changed)

    p_value = scorer.measure(row)["p_value"].item()
    leading = {reason.feature: reason for reason in scorer.explain(row)[0][:2]}

    assert scorer.calibrator.smallest <= p_value < 0.8 / (scorer.calibrator.size + 1)
    assert leading[blamed].observed == observed
    assert leading[blamed].share > 0.1
    if isinstance(expected, str):
        assert re.fullmatch(expected, leading[blamed].expected)
    else:
        assert expected[0] < float(leading[blamed].expected.removeprefix("about ")) < expected[1]


@pytest.mark.parametrize(
    ("changed", "blamed", "observed", "expected"),
    [
        ({"country": "xx"}, "country", "xx (unseen)", "de"),
        ({"country": "x" * 60}, "country", f"{'x' * 39}… (unseen)", "de"),
        ({"country": None}, "country", "missing", "de"),
        ({"country": "pl"}, "country", "pl", "de"),
        ({"online": None}, "online", "missing", "false"),
        ({"amount": np.nan}, "amount", "missing", "about (19|20|21)"),
        ({"fee": np.nan}, "fee", "missing", "about 0.3[5-9]|about 0.4[0-5]?"),
    ],
    ids=["new country", "long country", "no country", "country of dearer things", "no answer", "no amount", "no fee"],
)
def test_odd_cell_raises_the_risk_and_is_named(
    scorer: TabularScorer, changed: dict[str, Any], blamed: str, observed: str, expected: str
) -> None:
    """New and missing values where training had none, or few, make a row riskier than it is without them."""
    row, usual = one_row(scorer, **changed), one_row(scorer)

    riskier = scorer.measure(row)["risk"].item() - scorer.measure(usual)["risk"].item()
    first = scorer.explain(row)[0][0]

    assert riskier > 0.4
    assert (first.feature, first.observed) == (blamed, observed)
    assert re.fullmatch(expected, first.expected)
    assert first.share > 0.15


def test_gap_that_training_knew_is_no_anomaly(scorer: TabularScorer) -> None:
    """A tenth of the weights are missing, so a missing weight is not rare."""
    missing = scorer.measure(one_row(scorer, weight=np.nan))

    assert missing["p_value"].item() > 0.1


def test_reasons_are_at_most_the_whole_risk(scorer: TabularScorer, rows: pd.DataFrame) -> None:
    """Shares fall, none is negative, together they are at most one, and at most ``top`` are given."""
    for reasons in scorer.explain(rows.iloc[:100], top=4):
        shares = [reason.share for reason in reasons]

        assert 1 <= len(shares) <= 4
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] >= 0
        assert sum(shares) <= 1 + 1e-9


def test_reason_in_words_is_exact(scorer: TabularScorer) -> None:
    """What a person reads: feature, observed value as the table writes it, expected value, share."""
    text = scorer.explain(one_row(scorer, weight=200.0))[0][0].text

    assert re.fullmatch(r"weight 200\.000, expected about [67]\d; [6-9]\d % of the risk", text)


def test_p_values_of_fresh_normal_rows_are_uniform(fitted: TabularDetector, fresh_rows: pd.DataFrame) -> None:
    """Whatever share is asked for, about that share of normal rows falls below it; 200 rows calibrate to about 0.1."""
    p_value = fitted.p_value(fresh_rows)

    assert kstest(p_value, "uniform").statistic < 0.12
    assert 0 < (p_value <= 0.01).mean() < 0.03


def test_false_discovery_rate_flags_next_to_nothing_on_a_quiet_day(
    scorer: TabularScorer, fresh_rows: pd.DataFrame
) -> None:
    """No anomalies, no alerts; while the quantile still flags its share."""
    quiet = scorer.judge(fresh_rows, policy=Policy(fdr=0.1)).frame
    floor = scorer.judge(fresh_rows, policy=Policy(quantile=0.95)).frame

    assert quiet["flagged"].mean() < 0.002
    assert floor["flagged"].mean() == pytest.approx(0.05, abs=0.04)


def test_false_discovery_rate_finds_anomalies_where_there_are_some(
    scorer: TabularScorer, fresh_rows: pd.DataFrame
) -> None:
    """Of two hundred planted rows in two thousand most are flagged, and few of the flagged are normal."""
    planted = fresh_rows.copy()
    planted.loc[:199, "weight"] = 200.0

    flagged = scorer.judge(planted, policy=Policy(fdr=0.1)).frame["flagged"].to_numpy()

    assert flagged[:200].mean() > 0.9
    assert flagged[200:].sum() < 0.25 * flagged.sum()  # a rate of .1, by ten calibration rows beyond where it cuts


@pytest.fixture(scope="module")
def verdicts(scorer: TabularScorer, fresh_rows: pd.DataFrame) -> Verdicts:
    """A table with ten anomalies, three bad rows and a budget of five."""
    table = fresh_rows.iloc[:300].copy()
    table.loc[:9, "amount"] *= 30
    table["amount"] = table["amount"].astype(object)
    table.loc[20, "amount"] = "a lot"
    table.loc[21, "amount"] = np.inf
    table.loc[22, "id"] = table.loc[19, "id"]
    return scorer.judge(table, policy=Policy(quantile=0.99, budget=Budget(rows=5)))


def test_verdicts_name_each_row(verdicts: Verdicts, scorer: TabularScorer) -> None:
    """Key and time first, then what was found; one row for each that could be read."""
    frame = verdicts.frame

    tail = ["unsupervised_risk", "decided_by"]
    assert list(frame) == ["id", "when", "risk", "p_value", "flagged", "severity", "reasons", *scorer.members, *tail]
    assert len(frame) == 297
    assert frame["id"].is_unique
    assert frame.index.tolist() == list(range(297))


def test_verdicts_flag_what_the_policy_says(verdicts: Verdicts) -> None:
    """The five riskiest; only they have a severity and reasons."""
    frame = verdicts.frame
    riskiest = frame["risk"].nlargest(5).index

    assert set(frame.index[frame["flagged"]]) == set(riskiest)
    assert (frame["severity"] != "").equals(frame["flagged"])
    assert (frame["reasons"] != "").equals(frame["flagged"])
    assert (
        frame.loc[riskiest, "reasons"].str.contains(r"amount [\d,]+\.\d\d, expected about \d+; \d+ % of the risk").all()
    )


def test_verdicts_quarantine_bad_rows(verdicts: Verdicts) -> None:
    """With their position and the reason, and no good row with them."""
    quarantine = verdicts.quarantine.set_index("row")["reason"]

    assert quarantine.index.tolist() == [20, 21, 22]
    assert quarantine[20] == "amount: 'a lot' is not a number"
    assert "is infinite" in quarantine[21]
    assert "appears again (first at row 19)" in quarantine[22]


def test_verdicts_flag_one_row_in_a_hundred_without_a_policy(scorer: TabularScorer, fresh_rows: pd.DataFrame) -> None:
    """The default: rows above the 99 % quantile of held-out normal rows."""
    frame = scorer.judge(fresh_rows.iloc[:500]).frame

    assert frame["flagged"].equals(frame["p_value"] <= 0.01)


def test_verdicts_can_have_a_budget_a_day(scorer: TabularScorer, fresh_rows: pd.DataFrame) -> None:
    """By the schema's time column."""
    table = fresh_rows.iloc[:40].assign(when=pd.date_range("2026-03-01 10:00", periods=40, freq="12h"))

    frame = scorer.judge(table, policy=Policy(budget=Budget(rows=1, per="day"))).frame

    assert frame.groupby(frame["when"].dt.date)["flagged"].sum().tolist() == [1] * 20


def test_verdicts_fall_back_on_the_position(quick: TabularDetector) -> None:
    """A table without key, time and entity is named by its rows' positions."""
    table = pd.DataFrame({"amount": ["41", "what", "9000"], "fee": [1.0, 1.0, 1.0]})

    verdicts = quick.scorer_.judge(table, policy=Policy(quantile=0.95))

    assert verdicts.frame["row"].tolist() == [0, 2]
    assert verdicts.frame["flagged"].tolist() == [False, True]
    assert verdicts.frame["reasons"][1].startswith("amount 9,000")


def test_severity_grows_with_the_distance() -> None:
    """Where held-out rows are enough to extend the tail, not all flagged rows are equally severe."""
    rows = np.random.default_rng(0).normal(size=(4000, 2))
    detector = TabularDetector(members=("forest", "neighbours"), trees=20, references=500).fit(rows)

    frame = detector.judge(np.array([[3.0, 2.0], [40.0, -40.0]])).frame

    assert frame["flagged"].tolist() == [True, True]
    assert frame["severity"].tolist()[1] == "critical" != frame["severity"].tolist()[0]


def test_scorer_refuses_a_table_without_its_columns(scorer: TabularScorer, fresh_rows: pd.DataFrame) -> None:
    """And names the nearest column there is."""
    with pytest.raises(SchemaError, match=r"'amount' is missing from the table. Did you mean 'amuont'\?"):
        scorer.judge(fresh_rows.rename(columns={"amount": "amuont"}))


def test_codes_and_reconstructions_have_the_rows_shape(scorer: TabularScorer, rows: pd.DataFrame) -> None:
    """A code a row, and a row in the units of the table for each code."""
    code = scorer.encode(rows)
    rebuilt = scorer.reconstruct(rows)

    assert code.shape == (len(rows), 16)
    assert rebuilt.index.equals(rows.index)
    assert set(scorer.schema.numeric + scorer.schema.boolean + scorer.schema.categorical) < set(rebuilt)
    assert {"when hour", "when weekday"} < set(rebuilt)
    assert set(rebuilt["country"]) <= {"de", "fr", "pl"}
    assert set(rebuilt["online"]) <= {"true", "false"}
    assert rebuilt["when hour"].between(0, 24).all()


def test_reconstruction_is_in_the_units_of_the_table(scorer: TabularScorer, mixed_rows: pd.DataFrame) -> None:
    """Amounts come back as amounts: close to the row's own for usual rows, missing ones filled with likely ones."""
    rows = clean(mixed_rows, scorer.schema).rows

    rebuilt = scorer.reconstruct(rows)

    assert np.corrcoef(rebuilt["amount"], rows["amount"])[0, 1] > 0.9
    assert (rebuilt["amount"] - rows["amount"]).abs().median() < 3
    assert rebuilt.loc[rows["weight"].isna(), "weight"].between(55, 85).all()


def test_decoding_a_code_is_the_reconstruction(scorer: TabularScorer, rows: pd.DataFrame) -> None:
    """Encode, then decode: the same as reconstruct."""
    rebuilt = scorer.decode(scorer.encode(rows))

    pd.testing.assert_frame_equal(rebuilt, scorer.reconstruct(rows).reset_index(drop=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3,), (3, 15), (1, 3, 16)])
def test_decoding_refuses_codes_of_another_length(scorer: TabularScorer, shape: tuple[int, ...]) -> None:
    """A code has the length the autoencoder was given."""
    with pytest.raises(ShapeError, match=rf"codes of shape \(n_rows, 16\), received {re.escape(str(shape))}"):
        scorer.decode(np.zeros(shape))


def test_feature_errors_are_nats_of_each_feature(scorer: TabularScorer) -> None:
    """One column a feature; the odd cell has the largest, and a usual row none that is large."""
    odd = scorer.feature_errors(one_row(scorer, weight=200.0)).iloc[0]
    usual = scorer.feature_errors(one_row(scorer)).iloc[0]

    assert list(odd.index) == [feature.name for feature in scorer.columns.features]
    assert odd.idxmax() == "weight"
    assert odd["weight"] > 10 > 3 > usual.max()
    assert (usual >= 0).all()


@pytest.mark.parametrize("ask", ["encode", "reconstruct", "feature_errors"])
def test_scorer_without_an_autoencoder_has_no_code(quick: TabularDetector, ask: str) -> None:
    """And says what to train."""
    rows = pd.DataFrame({"amount": [40.0], "fee": [1.0]})

    with pytest.raises(SettingError, match="no autoencoder. Train one with an autoencoder"):
        getattr(quick.scorer_, ask)(rows)


def test_scorer_without_an_autoencoder_cannot_decode(quick: TabularDetector) -> None:
    """There is no decoder either."""
    with pytest.raises(SettingError, match="no autoencoder, so it cannot decode"):
        quick.scorer_.decode(np.zeros((1, 16)))


def test_scorer_without_an_autoencoder_still_gives_reasons(quick: TabularDetector) -> None:
    """By forest and neighbours; what it expects is what is usual in the column."""
    rows = pd.DataFrame({"amount": [40.0, 90.0], "fee": [3.0, 1.0]})

    reasons = quick.scorer_.explain(rows)

    assert [each[0].feature for each in reasons] == ["fee", "amount"]
    assert [float(each[0].expected.removeprefix("about ")) for each in reasons] == pytest.approx([1, 40], rel=0.03)


def test_scorer_can_be_renamed(quick: TabularDetector) -> None:
    """Under another name it is the same scorer."""
    renamed = quick.scorer_.with_name("payments")

    assert renamed.name == "payments"
    assert renamed.graph is quick.scorer_.graph
    assert quick.scorer_.name == "detector"


CLEANED_ONLY = {
    "score": lambda scorer, rows: scorer.score(rows, Policy(quantile=0.9)),
    "measure": TabularScorer.measure,
    "unsupervised": TabularScorer.unsupervised,
    "encode": TabularScorer.encode,
    "reconstruct": TabularScorer.reconstruct,
    "feature_errors": TabularScorer.feature_errors,
    "explain": TabularScorer.explain,
    "attributions": TabularScorer.attributions,
}


@pytest.mark.parametrize("method", CLEANED_ONLY)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.assign(amount=["1", "much", *["3"] * 8]), "Row 1: amount: 'much' is not a number. `judge`"),
        (lambda rows: rows.assign(when=["soon", *["2026-03-01"] * 9]), "Row 0: when: 'soon' is not a date."),
        (lambda rows: rows.drop(columns="amount"), "Column 'amount' is missing .*`detector.cleaning.clean.clean"),
        (lambda rows: rows.to_numpy(), "got ndarray"),
    ],
    ids=["number", "date", "no column", "no frame"],
)
def test_uncleaned_rows_are_named(
    scorer: TabularScorer, rows: pd.DataFrame, method: str, spoil: Any, message: str
) -> None:
    """The column, the row and the method that takes a table as it comes; not what NumPy says of it."""
    with pytest.raises(DataError, match=f"Expected cleaned rows. .*{message}"):
        CLEANED_ONLY[method](scorer, spoil(rows.iloc[:10]))


def test_own_faults_are_not_blamed_on_rows(
    scorer: TabularScorer, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error with rows that are clean is another one, and stays as it is."""

    def fail(*_: Any) -> None:
        raise KeyError("of the program")

    monkeypatch.setattr(TabularScorer, "encoded", fail)

    with pytest.raises(KeyError, match="of the program"):
        scorer.encode(rows)
