"""Days between the dates of a row: what no date tells by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.cleaning.plain import plain_row
from detector.detectors.table.detector import TabularDetector
from detector.encoding.spans import Span, damped, find_spans, undamped
from detector.encoding.table import TableEncoder
from detector.head.fit import HeadRecipe, fit_head
from detector.persist import bundle
from detector.schema import Schema

CLAIMS = Schema(time="claimed", numeric=("amount",), categorical=("kind",), datetime=("began", "paid"))


def claims(n: int, seed: int) -> pd.DataFrame:
    """Claims of a quarter, made 20 days or more after the policy began, and paid within a month."""
    rng = np.random.default_rng(seed)
    claimed = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, n), unit="D")
    began = claimed - pd.to_timedelta(rng.gamma(2, 200, n).round() + 20, unit="D")
    rows = pd.DataFrame({"claimed": claimed, "began": began, "amount": np.exp(rng.normal(6, 1, n)).round(2)})
    rows["paid"] = claimed + pd.to_timedelta(rng.integers(3, 30, n), unit="D")
    rows["kind"] = pd.Series(rng.choice(["fire", "theft", "water"], n), dtype="str")
    return rows.astype(dict.fromkeys(("claimed", "began", "paid"), "datetime64[us]"))


@pytest.fixture(scope="module")
def detector() -> TabularDetector:
    return TabularDetector(schema=CLAIMS, members=("forest", "neighbours"), trees=50).fit(claims(1_500, 0))


@pytest.mark.parametrize(
    ("column", "other", "days", "said"),
    [
        ("began", "claimed", -1, "days from began to claimed 1"),
        ("paid", "claimed", 200, "days from claimed to paid 200"),
        ("paid", "claimed", -2, "days from claimed to paid -2, expected at least 0 as in nearly all rows"),
    ],
    ids=["claimed at once", "paid late", "paid before"],
)
def test_dates_too_near_too_far_or_the_wrong_way_round_are_found(
    detector: TabularDetector, column: str, other: str, days: int, said: str
) -> None:
    """However usual each date is; the reason says the days, and names both columns to whoever masks one."""
    rows = claims(200, 1)
    odd = rows.assign(**{column: rows[other] + pd.Timedelta(days=days)})

    p_value = detector.scorer_.measure(odd)["p_value"]
    reasons = detector.scorer_.explain(odd.head(10))

    assert (detector.scorer_.measure(rows)["p_value"] > 0.01).mean() > 0.95
    assert (p_value <= 0.02).mean() > 0.9
    assert all(any(reason.text.startswith(said) for reason in each) for each in reasons)
    assert {reason.columns for each in reasons for reason in each if reason.feature.startswith("days")} <= {
        ("began", "claimed"),
        ("claimed", "paid"),
    }


def test_rows_of_later_months_are_no_news() -> None:
    """Accounts grow older than any in training, and months end on other weekdays."""
    rng = np.random.default_rng(0)

    def month(n: int, first: int, last: int) -> pd.DataFrame:
        day = rng.integers(first, last, n)
        at = pd.Series(pd.Timestamp("2026-01-01") + pd.to_timedelta(day, unit="D"))
        since = pd.Series(pd.Timestamp("2026-01-01") + pd.to_timedelta((rng.random(n) * day).round(), unit="D"))
        rows = pd.DataFrame({"amount": rng.normal(size=n), "at": at, "since": since})
        return rows.assign(settled=(at + pd.offsets.MonthEnd(0)).dt.normalize())

    schema = Schema(time="at", numeric=("amount",), datetime=("since", "settled"))
    fitted = TabularDetector(schema=schema, members=("forest", "neighbours"), trees=50).fit(month(3_000, 0, 90))
    later = fitted.scorer_.measure(month(500, 95, 115))

    assert "settled weekday" not in [feature.name for feature in fitted.scorer_.columns.features]
    assert (later["p_value"] <= 0.01).mean() < 0.05


@pytest.mark.parametrize(
    ("dates", "time", "found"),
    [
        (["a"], None, []),
        (["a", "b"], None, ["days from a to b"]),
        (["b", "a"], None, ["days from a to b"]),
        (["a", "b", "c"], None, ["days from a to b", "days from a to c", "days from b to c"]),
        (["a", "b", "c", "d"], None, ["days from a to b", "days from a to c", "days from a to d"]),
        (["a", "c"], "b", ["days from a to b", "days from b to c"]),
        (["a", "b"], "b", ["days from a to b"]),
        (["a", "gone"], None, []),
    ],
)
def test_which_dates_are_compared(dates: list[str], time: str | None, found: list[str]) -> None:
    """With the time of the row, or each with each, or with the first; always from the earlier one."""
    start = pd.Timestamp("2026-01-01")
    row = {name: start + pd.Timedelta(days=day) for day, name in enumerate("abcd")} | {"gone": pd.NaT}
    rows = pd.DataFrame([row] * 3).astype("datetime64[us]")

    assert [span.name for span in find_spans(rows, Schema(time=time, datetime=tuple(dates)))] == found


def test_missing_and_absurd_dates() -> None:
    """A missing date leaves the days missing, and dates beyond what microseconds can differ by are far apart."""
    times = [["1000-01-01", "9999-12-31"], ["2026-01-01", None], [None, None]]
    rows = pd.DataFrame(times, columns=["a", "b"]).astype("datetime64[us]")

    assert Span("a", "b").days(rows).round().tolist()[0] == 3_287_181
    assert np.isnan(Span("a", "b").days(rows)[1:]).all()
    assert undamped(damped(np.array([-3.0, 0.0, 1e6]))).round(6).tolist() == [-3.0, 0.0, 1e6]


def test_one_row_a_bundle_and_a_reconstruction_know_the_days(detector: TabularDetector, tmp_path: Path) -> None:
    """The same risk without a frame and after saving, and days in the units of the table."""
    rows, scorer = claims(20, 3), detector.scorer_
    bundle.save(scorer, tmp_path / "bundle")
    again = bundle.load(tmp_path / "bundle")
    expected = scorer.measure(rows)["risk"].tolist()
    columns = scorer.columns

    dates = {name: rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S") for name in ("claimed", "began", "paid")}
    plain = [plain_row(row, CLAIMS) for row in rows.assign(**dates).to_dict("records")]
    decoded = columns.decode(np.zeros((1, len(columns.centre))), np.zeros((1, 1), dtype=np.int64))

    assert again.columns.spans == columns.spans
    assert again.measure(rows)["risk"].tolist() == pytest.approx(expected)
    assert scorer.measure_plain(plain).risk.tolist() == pytest.approx(expected)
    assert 3 < decoded["days from claimed to paid"].item() < 30


def test_a_bundle_that_knew_no_days_keeps_its_inputs(detector: TabularDetector) -> None:
    """Each date has hour and weekday, and nothing else."""
    values, arrays = detector.scorer_.columns.state()
    old = {name: value for name, value in values.items() if name not in ("spans", "clocks", "relations")}

    again = TableEncoder.from_state(old, arrays)

    names = [feature.name for feature in again.features if feature.kind == "datetime"]
    assert names == ["began hour", "began weekday", "paid hour", "paid weekday"]
    assert again.encode(claims(5, 4)).numeric.shape == (5, 9)


def test_a_head_learns_from_days(detector: TabularDetector) -> None:
    """Claims of the first months that turned out to be frauds are told by the days alone, and the reason is these."""
    rows = claims(4_000, 5)
    early = (rows["claimed"] - rows["began"]) < pd.Timedelta(days=90)
    labels = (early & (np.random.default_rng(0).random(len(rows)) < 0.8)).astype(float)
    scorer = detector.scorer_
    measures = scorer.for_head(rows, scorer.unsupervised(rows))
    recipe = HeadRecipe(trees=20, learning_rate=0.2, leaves=6)

    head = fit_head(rows, measures, labels, rows["claimed"], columns=("amount",), recipe=recipe)
    decided = scorer.with_head(head)
    new = claims(300, 6)
    new_early = ((new["claimed"] - new["began"]) < pd.Timedelta(days=90)).to_numpy()
    risk = decided.measure(new)["risk"].to_numpy()

    assert head.serves
    assert risk[new_early].min() > np.median(risk[~new_early])
    assert {each[0].feature for each in decided.explain(new[new_early])} == {"days from began to claimed"}
