"""Exact relations between columns: found where nearly all rows keep them, and whoever breaks one stands out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.plain import plain_row
from detector.detectors.table.detector import TabularDetector
from detector.encoding.find_relations import find_relations
from detector.encoding.relations import PRODUCT, SUM, Relation, Relations
from detector.explain.reason import in_words
from detector.persist import bundle
from pipelines.factory.kinds import KINDS

RELATED = {
    "net = quantity × price",
    "vat = 0.19 or 0.07 × net",
    "gross = net + vat",
    "total = net + vat + freight - rebate",
}


def invoices(n: int, seed: int) -> pd.DataFrame:
    """Rows of a shop's invoices, in cents."""
    rng = np.random.default_rng(seed)
    quantity, price = rng.integers(1, 8, n).astype(float), np.exp(rng.normal(3, 1, n)).round(2)
    net = (quantity * price).round(2)
    vat = (net * rng.choice([0.19, 0.07], n, p=[0.8, 0.2])).round(2)
    freight, rebate = rng.choice([0, 4.9, 9.9], n), (net * rng.choice([0, 0.03, 0.1], n)).round(2)
    rows = pd.DataFrame({"quantity": quantity, "price": price, "net": net, "vat": vat, "gross": (net + vat).round(2)})
    rows = rows.assign(freight=freight, rebate=rebate, total=(net + vat + freight - rebate).round(2))
    return rows.assign(age=rng.normal(40, 10, n).round())


def found_in(rows: pd.DataFrame) -> dict[str, Relation]:
    """The relations by their formulas."""
    found = find_relations(rows.to_numpy(dtype=float), list(rows.columns)).found
    return {each.formula: each for each in found}


@pytest.fixture(scope="module")
def detector() -> TabularDetector:
    """Of invoices, 3 of 1,500 of which have no VAT where there should be some."""
    rows = invoices(1_500, 0)
    rows.loc[[10, 500, 900], "vat"] = 0.0
    return TabularDetector(members=("forest", "neighbours"), trees=30).fit(rows)


@pytest.mark.parametrize("seed", range(5))
def test_relations_are_found_whichever_rows_are_tried(seed: int) -> None:
    """Each once, as the sum of its parts, with the factors as people write them."""
    found = found_in(invoices(1_000, seed))

    assert set(found) >= RELATED
    assert all("age" not in each.columns for each in found.values())
    assert all(each.broken == 0 for each in found.values())


def test_few_rows_may_break_a_relation_and_more_may_not() -> None:
    """Up to 1 %, whatever they hold: the share is known."""
    rows = invoices(1_000, 0)
    rows.loc[:6, "vat"] = 1e6

    few = found_in(rows)
    rows.loc[:14, "vat"] = 1e6
    more = found_in(rows)

    assert set(few) >= RELATED
    assert few["gross = net + vat"].broken == 0.007
    assert "gross = net + vat" not in more
    assert "net = quantity × price" in more


def unrelated(kind: str, n: int = 1_000) -> pd.DataFrame:
    """Columns that have nothing to do with each other, or only roughly."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(n, 6))
    made = {
        "small counts": rng.poisson(2, (n, 6)).astype(float),
        "one hot": np.eye(6)[rng.integers(0, 6, n)],
        "mostly nought": np.where(rng.random((n, 6)) < 0.95, 0.0, noise),
        "far out": np.exp(4 * noise).round(2),
        "nearly the same": (100 + noise[:, :1] + 0.01 * noise).round(3),
        "pixels": rng.integers(0, 256, (n, 6)).astype(float),
        "copies of few values": np.repeat(rng.choice([1.0, 2.0, 5.0], (n, 1)), 6, axis=1),
        "shuffled": invoices(n, 1).apply(rng.permutation).to_numpy()[:, :6],
    }
    return pd.DataFrame(made[kind], columns=list("abcdef"))


@pytest.mark.parametrize(
    "kind",
    [
        "small counts",
        "one hot",
        "mostly nought",
        "far out",
        "nearly the same",
        "pixels",
        "copies of few values",
        "shuffled",
    ],
)
def test_nothing_is_found_where_columns_are_not_exactly_related(kind: str) -> None:
    """Neither by chance, nor because values are few or coarse."""
    assert not found_in(unrelated(kind))
    assert not len(find_relations(unrelated(kind, 20).to_numpy(), list("abcdef")))


def test_units_shares_and_counts() -> None:
    """A constant belongs to a sum, counts are exact, and yen are rounded to whole ones."""
    rng = np.random.default_rng(0)
    celsius, yen = rng.normal(20, 5, 500), rng.integers(100, 90_000, 500).astype(float)
    a, b = rng.integers(0, 900, (2, 500)).astype(float)
    rows = pd.DataFrame({"celsius": celsius, "fahrenheit": 1.8 * celsius + 32, "yen": yen, "tax": (yen * 0.1).round()})
    found = found_in(rows.assign(a=a, b=b, events=a + b))

    assert set(found) == {"fahrenheit = 1.8 × celsius + 32", "tax = 0.1 × yen", "events = a + b"}
    assert found["events = a + b"].breaks(np.array([[3.0, 1.0, 2.0], [4.0, 1.0, 2.0]])).tolist() == [False, True]
    assert found["tax = 0.1 × yen"].breaks(np.array([[101.0, 1_004.0], [104.0, 1_004.0]])).tolist() == [False, True]


def test_what_a_column_should_be_follows_from_the_others() -> None:
    """Each column of a relation; nothing follows from a factor of 0 or a gap."""
    total = Relation(SUM, "total", ("net", "rebate"), (1.0, -2.0), constant=5.0)
    price = Relation(PRODUCT, "net", ("n", "price"), (1.0,))
    none = Relation(PRODUCT, "tax", ("net",), (0.0,))

    values = np.array([[9.0, 10.0, 3.0]])
    assert [total.expected(values, name).item() for name in total.columns] == [9.0, 10.0, 3.0]
    assert [price.expected(np.array([[12.0, 3.0, 5.0]]), name).item() for name in price.columns] == [15.0, 2.4, 4.0]
    assert np.isnan(none.expected(np.array([[1.0, 5.0]]), "net")).all()
    assert np.isnan(total.expected(np.array([[9.0, np.nan, 3.0]]), "total")).all()


@pytest.mark.parametrize(
    ("column", "factor", "formula"),
    [("net", 1.5, "net = quantity × price"), ("gross", 1.01, "gross = net + vat"), ("vat", 0.5, "gross = net + vat")],
)
def test_row_that_breaks_a_relation_stands_out_with_the_column_at_fault(
    detector: TabularDetector, column: str, factor: float, formula: str
) -> None:
    """Above all rows that keep them, however usual its values; the reason says what it should have been."""
    rows = invoices(300, 1)
    before = detector.scorer_.measure(rows)
    wrong = rows.assign(**{column: (factor * rows[column]).round(2)})[rows["vat"] > 1.0]

    after = detector.scorer_.measure(wrong)
    said = detector.scorer_.explain(wrong.head(20))

    assert (after["risk"] > before["risk"].loc[wrong.index]).all()
    assert (after["p_value"] <= 0.01).all()
    assert all(reasons[0].feature == column for reasons in said)
    right = float(rows.loc[wrong.index[0], column])
    assert in_words(said[0]).startswith(f"{column} {wrong[column].iloc[0]:,.2f}, expected {right:,.2f} by {formula}; ")
    assert {column} < set(said[0][0].columns)
    assert sum(reason.share for reason in said[0]) <= 1.0 + 1e-9


def test_rows_that_broke_a_relation_in_training_calibrate(detector: TabularDetector) -> None:
    """What 3 of 1,500 show is as rare as that, and what none showed lies beyond all."""
    relations = detector.scorer_.columns.relations
    weights = {each.formula: each.weight for each in relations.found}
    rows = invoices(200, 2)

    seen = detector.scorer_.measure(rows.assign(vat=0.0))["p_value"].median()
    unseen = detector.scorer_.measure(rows.assign(price=rows["price"] + 1))["p_value"].median()

    assert weights["net = quantity × price"] == 1.0
    assert 0.0 < weights["gross = net + vat"] < 1.0
    assert 3 / 1_501 < seen < 10 / 1_501
    assert unseen < 3 / 1_501


def test_rows_that_keep_relations_and_rows_with_gaps_are_as_before(detector: TabularDetector) -> None:
    """Only what is broken counts, and a gap breaks nothing."""
    rows = invoices(200, 3)
    encoded = detector.scorer_.encoded(rows.assign(vat=np.nan))

    assert encoded.broken is not None
    assert not encoded.broken.any()
    assert not detector.scorer_.steps_lifted(detector.scorer_.encoded(rows)).any()


def test_one_row_and_a_bundle_know_the_same(detector: TabularDetector, tmp_path: Path) -> None:
    """A row without a frame has the risk it has in one, before and after saving; older bundles know no relation."""
    rows = invoices(5, 4).assign(gross=1.0)
    scorer = detector.scorer_
    bundle.save(scorer, tmp_path / "bundle")
    again = bundle.load(tmp_path / "bundle")

    expected = scorer.measure(rows)["risk"].tolist()
    plain = [plain_row(row, scorer.schema) for row in rows.to_dict("records")]

    assert again.columns.relations == scorer.columns.relations
    assert again.measure(rows)["risk"].tolist() == pytest.approx(expected)
    assert scorer.measure_plain(plain).risk.tolist() == pytest.approx(expected)
    assert Relations.from_state(()).found == ()


def test_features_of_the_past_are_no_relations() -> None:
    """They are computed, so they always hold, and would take the places of those that can be broken."""
    rows = invoices(600, 5)[["net", "vat"]].rename(columns={"vat": "net_sum_30d_by_card"})
    fitted = TabularDetector(members=("forest",), trees=10).fit(rows)

    assert not len(fitted.scorer_.columns.relations)


def test_training_names_what_it_found(detector: TabularDetector) -> None:
    """With the share of the rows that break it."""
    (said,) = KINDS["table"].noticed(detector)

    assert "net = quantity × price" in said
    assert "gross = net + vat (0.2 % of the rows break it)" in said


def test_many_relations_that_hardly_ever_break_break_no_promise() -> None:
    """Each is broken by one row of 2,000: of 15, some are never broken in training and soon after."""
    rng = np.random.default_rng(0)

    def rows(n: int) -> pd.DataFrame:
        parts = rng.integers(1, 900, (n, 15)).astype(float)
        doubled = 2 * parts + (rng.random((n, 15)) < 1 / 2_000)
        names = [f"part{i}" for i in range(15)] + [f"twice{i}" for i in range(15)]
        return pd.DataFrame(np.hstack([parts, doubled]), columns=names)

    fitted = TabularDetector(members=("forest", "neighbours"), trees=10).fit(rows(1_000))
    new = rows(4_000)
    broken = fitted.scorer_.encoded(new).broken
    p_value = fitted.scorer_.measure(new)["p_value"].to_numpy()

    assert len(fitted.scorer_.columns.relations) == 15
    assert broken is not None
    assert broken.any(axis=1).mean() > 0.004
    assert (p_value <= 0.002).mean() < 0.004
    assert (p_value[broken.any(axis=1)] <= 0.02).all()
