"""Groups of rows apart from all others that one rare value explains are not taken out of training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from detector.decide.contamination import find_contamination
from detector.detectors.table.detector import TabularDetector
from detector.detectors.table.ordinary_groups import ordinary_rows
from detector.schema import Schema

ROWS = 5_000
LIGHT = ("forest", "neighbours")


def logs(rng: np.random.Generator) -> pd.DataFrame:
    """Categories alone, each by itself, some of which are rare."""
    hosts = [f"h{number}" for number in range(20)]
    return pd.DataFrame(
        {
            "action": rng.choice(["login", "read", "write", "delete"], ROWS, p=[0.3, 0.5, 0.19, 0.01]),
            "host": rng.choice(hosts, ROWS),
            "status": rng.choice(["200", "404", "500"], ROWS, p=[0.95, 0.04, 0.01]),
        }
    )


def attempts(rng: np.random.Generator) -> pd.DataFrame:
    """Counts that are nought in most rows."""
    counts = {"attempts": rng.poisson(0.03, ROWS), "hour": rng.integers(0, 24, ROWS)}
    return pd.DataFrame(counts).astype(float).assign(kind=rng.choice(list("abc"), ROWS))


def flags(rng: np.random.Generator) -> pd.DataFrame:
    """Something that is true in few rows, beside categories of many combinations."""
    hosts = rng.choice([f"h{number}" for number in range(30)], ROWS)
    return pd.DataFrame(
        {"flag": (rng.random(ROWS) < 0.03).astype(float), "kind": rng.choice(list("abcde"), ROWS), "host": hosts}
    )


SCHEMAS = {
    logs: Schema(categorical=("action", "host", "status")),
    attempts: Schema(numeric=("attempts", "hour"), categorical=("kind",)),
    flags: Schema(boolean=("flag",), categorical=("kind", "host")),
}


@pytest.mark.parametrize("make", SCHEMAS)
def test_rare_values_stay_in_training(make: Callable[[np.random.Generator], pd.DataFrame]) -> None:
    """Where 5 % have a rare value, 1 % of new rows are flagged, and not those 5 %."""
    rng = np.random.default_rng(0)
    train, new = make(rng), make(rng)

    scorer = TabularDetector(schema=SCHEMAS[make], members=LIGHT).fit(train).scorer_

    assert scorer.calibrator.trimmed == 0
    assert (scorer.measure(new)["p_value"] <= 0.01).mean() < 0.02


def test_outliers_leave_training_beside_categories() -> None:
    """Numbers far from all others are taken out as before, and so are those that have a category of their own."""
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.normal(size=(ROWS, 4)), columns=list("abcd"))
    numbers.iloc[:100] = rng.normal(15, 3, size=(100, 4))
    rows = numbers.assign(kind=rng.choice(["x", "y", "z"], ROWS))
    schema = Schema(numeric=tuple("abcd"), categorical=("kind",))

    for given in (rows, rows.assign(kind=rows["kind"].mask(np.arange(ROWS) < 60, "other"))):
        detector = TabularDetector(schema=schema, members=LIGHT).fit(given)
        assert sorted(detector.left_out_["row"]) == list(range(100))


@pytest.mark.parametrize(
    ("changed", "ordinary"),
    [
        ({"status": "late"}, True),
        ({"status": "late", "kind": "new"}, False),
        ({"status": "late", "amount": 500.0}, False),
        ({"amount": 500.0}, False),
        ({"attempts": 1.0}, True),
        ({"attempts": 9.0}, False),
        ({"attempts": 1.0, "status": "late"}, False),
        ({"flag": 1.0}, True),
        ({}, False),
    ],
)
def test_what_one_rare_value_explains(changed: dict[str, object], ordinary: bool) -> None:
    """One category or the next count is enough; two, or a number beyond all others, say more."""
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"kind": rng.choice(list("ab"), 1_000), "status": "ok", "amount": rng.uniform(0, 9, 1_000)})
    rows = rows.assign(attempts=0.0, flag=0.0)
    group = np.arange(1_000) < 40
    rows = rows.assign(**{name: rows[name].mask(group, value) for name, value in changed.items()})
    schema = Schema(numeric=("amount", "attempts"), categorical=("kind", "status"), boolean=("flag",))

    found = ordinary_rows(group, rows=rows, schema=schema)

    assert (found & group).sum() == (40 if ordinary else 0)


def test_combinations_of_common_values_are_ordinary_where_nothing_is_measured() -> None:
    """In a table of few different rows, some of them are rarer than others."""
    rows = pd.DataFrame({"kind": ["a", "b"] * 500, "host": ["x"] * 530 + ["y"] * 470, "hour": [1.0, 2.0] * 500})
    group = (rows["kind"].eq("a") & rows["host"].eq("y")).to_numpy() & (np.arange(1_000) < 600)
    schema = Schema(numeric=("hour",), categorical=("kind", "host"))

    assert ordinary_rows(group, rows=rows, schema=schema)[group].all()
    assert not ordinary_rows(group, rows=rows.assign(hour=np.linspace(0, 1, 1_000)), schema=schema)[group].any()


def test_what_is_left_of_a_group_counts_if_it_is_large() -> None:
    """Forty rows apart are taken out beside those that are explained; four are too few."""
    rng = np.random.default_rng(0)
    risk = np.concatenate([rng.normal(size=4_900), rng.normal(40, 5, 100)])

    for explained, taken in ((60, 40), (96, 0)):
        found = find_contamination(risk, excused=lambda group, n=explained: group & (np.arange(5_000) < 4_900 + n))
        assert found.apart.sum() == taken
