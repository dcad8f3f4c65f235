"""How rare the values of a row's categories are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from detector.detectors.table.detector import TabularDetector
from detector.members.rare_values import RareValues
from detector.onnx.graph import joined
from detector.schema import Schema

INDICATORS = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]


def test_score_is_the_information_of_the_values_that_are_set() -> None:
    """Minus the logarithm of the smoothed share: of four rows three, one and none."""
    rare = RareValues.fit(INDICATORS)

    found = rare.contributions(np.eye(3, dtype=np.float32)).sum(axis=1)

    assert found == pytest.approx(-np.log(np.array([3.5, 1.5, 0.5]) / 5))


def test_a_known_row_does_not_count_itself() -> None:
    """The only row with a value finds it as rare as a value that was never seen."""
    rare = RareValues.fit(INDICATORS)

    own = rare.contributions(INDICATORS[3:], np.array([3])).sum()

    assert own == pytest.approx(-np.log(0.5 / 4))
    assert own > rare.contributions(INDICATORS[3:]).sum()


def test_graph_scores_as_the_plain_way() -> None:
    """Numbers before the indicators are none."""
    rare = RareValues.fit(INDICATORS)
    space = np.hstack([np.full((3, 2), 7, np.float32), np.eye(3, dtype=np.float32)])

    found = joined({"rare": rare.to_onnx(2)}).run({"space": space})["rare_values"]

    assert found[:, 0] == pytest.approx(rare.contributions(space[:, 2:]).sum(axis=1), rel=1e-5)


@pytest.mark.slow
def test_rows_of_rare_categories_are_found_and_explained_by_them() -> None:
    """A country that one row in a thousand has stands out, and the reason is the country."""
    rng = np.random.default_rng(0)
    names = np.array(["de", "fr", "it", "nl"])
    table = pd.DataFrame({name: rng.choice(names, 2_000, p=[0.5, 0.3, 0.199, 0.001]) for name in ("home", "shop")})
    table["amount"] = rng.normal(size=2_000)
    schema = Schema(numeric=("amount",), categorical=("home", "shop"))
    detector = TabularDetector(schema=schema, members=("forest", "neighbours"), trees=50).fit(table)
    usual = pd.DataFrame({"home": ["de"], "shop": ["fr"], "amount": [0.1]})
    scorer = detector.scorer_

    z = [scorer.measure(rows)["rare_values"].iloc[0] for rows in (usual.assign(home="nl"), usual)]
    reasons = scorer.explain(usual.assign(home="nl"))

    assert z[0] > z[1] + 3
    assert reasons[0][0].feature == "home"
    assert 0 < scorer.metrics["weight_rare_values"] < 1


def test_without_categories_there_is_no_such_member() -> None:
    """Missing cells alone make none."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    table.loc[::9, "a"] = np.nan

    scorer = TabularDetector(members=("forest", "neighbours"), trees=20).fit(table).scorer_

    assert scorer.members == ("forest", "neighbours", "contraction")
