"""`detector init FILE` of tables as people have them: mixed columns, numbers of rows, years, signs for missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.config import load_config
from pipelines.doctor import Check, examine
from pipelines.doctor.feature_columns import feature_of
from pipelines.doctor.init import init
from pipelines.doctor.proposal import Proposal, proposal_of

ROWS = 400


def measured() -> np.ndarray:
    return np.random.default_rng(0).gamma(3, 10, ROWS).round(1)


def choice_of(found: Proposal, column: str) -> tuple[str, str, str]:
    choice = next(each for each in found.choices if each.column == column)
    return choice.part, choice.why, choice.check


def examined(folder: Path, frame: pd.DataFrame) -> tuple[Proposal, list[Check]]:
    """What init proposes of a file, and what doctor says of that."""
    frame.to_csv(folder / "rows.csv", index=False)
    begun = init(folder / "rows.csv", folder=folder)
    return begun.proposal, examine(load_config(folder))


@pytest.mark.parametrize(
    ("values", "part", "why"),
    [
        (["1", "2", "3", "more"], "categorical", "4 different, and 25 % is not a number, such as 'more'"),
        ([f"{n}'" if n % 10 == 0 else str(n / 8) for n in range(200)], "ignore", "10 % is not a number, such as"),
        (["900", "950", "1,050", "875"], "numeric", "100 % are numeric, written as 1,234.56"),
    ],
    ids=["answers", "measured, with words", "thousands at times"],
)
def test_no_kind_is_proposed_that_sets_rows_aside(tmp_path: Path, values: list[str], part: str, why: str) -> None:
    """A column that is mostly of a kind would send all other rows to the quarantine."""
    answers = values * (ROWS // len(values))
    found, checks = examined(tmp_path, pd.DataFrame({"weight": measured(), "answer": answers}))

    assert choice_of(found, "answer")[0] == part
    assert choice_of(found, "answer")[1].startswith(why)
    assert not [check for check in checks if check.state == "problem"]


def test_few_words_among_numbers_are_said() -> None:
    """Of a column that is nearly all numbers the rows with words go to the quarantine, as they always do."""
    speed = ["slow" if n % 40 == 1 else str(n * 7 % 91 / 4) for n in range(ROWS)]

    part, _, check = choice_of(proposal_of(pd.DataFrame({"weight": measured(), "speed": speed})), "speed")

    assert part == "numeric"
    assert check == "2.50 % is not a number, such as 'slow': these rows go to the quarantine"


@pytest.mark.parametrize("sign", [".", "..", "-", "--", "?"])
def test_signs_for_missing_are_missing(tmp_path: Path, sign: str) -> None:
    """Statistics packages write a sign where a number is missing: no row is unreadable for that."""
    size = [sign if n % 3 == 0 else str(n % 50) for n in range(ROWS)]
    found, checks = examined(tmp_path, pd.DataFrame({"weight": measured(), "size": size}))

    assert choice_of(found, "size")[0] == "numeric"
    assert not [check.found for check in checks if check.state == "problem"]


def test_numbers_of_rows_are_never_learnt_as_sizes() -> None:
    """A row that was moved to the front, or one without a number, leaves the others numbers of rows."""
    moved = [1, 1_900, *range(2, 4 * ROWS - 6, 4)]
    gap = [None, *range(1, ROWS)]

    found = proposal_of(pd.DataFrame({"row": moved, "person": gap, "weight": measured()}))

    assert (choice_of(found, "row")[0], choice_of(found, "person")[0]) == ("key", "ignore")


def test_years_with_their_months_as_fractions_count_the_rows() -> None:
    """The time of the next month lies beyond all that was learnt; a measure in steps comes in any order."""
    months = (1991 + np.arange(ROWS) / 12).round(4)
    dose = np.random.default_rng(1).permutation(ROWS) / 4

    found = proposal_of(pd.DataFrame({"months": months, "dose": dose, "weight": measured()}))

    why = "it counts the rows: those to come lie beyond all that is learnt"
    assert choice_of(found, "months")[:2] == ("ignore", why)
    assert choice_of(found, "dose")[0] == "numeric"


def test_a_year_is_asked_about() -> None:
    """It may be when something was made, or when the row happened: years to come were never learnt."""
    year = 1960 + np.random.default_rng(1).integers(0, 40, ROWS)

    found = proposal_of(pd.DataFrame({"Year": year, "year_sum": year * 7, "model_yr": 2021, "weight": measured()}))

    assert "years to come lie beyond all that is learnt" in choice_of(found, "Year")[2]
    assert choice_of(found, "model_yr")[0] == "ignore"
    assert choice_of(found, "year_sum")[2] == ""


def test_times_of_long_ago_are_times(tmp_path: Path) -> None:
    """What init proposes as the time is no problem for doctor, however old it is."""
    day = pd.date_range("1854-08-01", periods=ROWS, freq="h")
    found, checks = examined(tmp_path, pd.DataFrame({"day": day, "ward": ["north", "south"] * (ROWS // 2)}))

    assert found.role("time") == "day"
    assert next(check.state for check in checks if check.place == "columns.time") == "ok"


def test_a_table_of_which_nothing_is_left_is_said_once(tmp_path: Path) -> None:
    """Init says it before a training refuses it, and doctor says it once."""
    names = pd.DataFrame({name: [f"{name} {n * 7_919 % 9_973}" for n in range(ROWS)] for name in ("town", "map")})
    found, checks = examined(tmp_path, names)

    assert "columns: nothing is left to learn from" in " ".join(found.notes)
    assert [check.found for check in checks if check.state == "problem"] == ["no column is a feature"]


def test_how_many_and_whether_are_no_entities() -> None:
    """A number of cards or of users, whether somebody pays a fee, and a grade name nobody."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"Cards": rng.integers(1, 9, ROWS), "users": rng.integers(0, 9_000, ROWS)})
    frame = frame.assign(userfee=rng.choice(["yes", "no"], ROWS), weight=measured(), household=rng.integers(1, 6, ROWS))
    frame["community"] = rng.integers(0, 90, ROWS)

    found = proposal_of(frame)

    assert found.role("entity") is None
    assert [choice_of(found, name)[0] for name in ("Cards", "users")] == ["numeric", "numeric"]


def test_only_what_may_be_a_time_is_asked_about() -> None:
    """A meal is no time, and a count of hours is a number, whatever the column is called."""
    frame = pd.DataFrame({"mealtime": ["lunch", "dinner"] * (ROWS // 2), "time": range(7, ROWS + 7)})

    notes = " ".join(proposal_of(frame.assign(id=frame.index, weight=measured())).notes)

    assert "columns.time" not in notes


def test_a_measure_that_has_zeros_is_not_taken_for_the_truth(tmp_path: Path) -> None:
    """A column called y is known truth only where it holds nothing but ones and zeros."""
    size = measured()
    size[:5] = 0

    _, checks = examined(tmp_path, pd.DataFrame({"y": size, "target": [0, 1, 1, 1] * (ROWS // 4)}))

    assert [check.found for check in checks if check.place == "columns.label"] == [
        "the feature 'target' looks like the known truth"
    ]


def test_what_holds_for_many_columns_is_said_once(tmp_path: Path) -> None:
    """Of a wide table, init and doctor name the first columns and how many others there are."""
    wide = {f"wk{n}": np.zeros(ROWS, dtype=int) for n in range(90)}
    pd.DataFrame({"weight": measured(), **wide}).to_csv(tmp_path / "rows.csv", index=False)

    summary = init(tmp_path / "rows.csv", folder=tmp_path).summary()

    assert (
        "  wk0, wk1, wk2 and 87 others (numeric): any other value counts as an anomaly; ignore it if it is"
        in "\n".join(part for part in summary if isinstance(part, str))
    )
    constant = [check.found for check in examine(load_config(tmp_path)) if "is always" in check.found]
    assert constant == ["'wk0' is always '0'; likewise wk1, wk2, wk3 and 86 others"]


def test_what_the_first_rows_hold_need_not_be_so_in_all(tmp_path: Path) -> None:
    """The first 20,000 rows are of January: the month is no constant, and a day of the month comes again."""
    minutes = np.random.default_rng(4).exponential(4, 60_000).cumsum()
    when = pd.DatetimeIndex(pd.Timestamp("2026-01-01") + pd.to_timedelta(minutes.round(), unit="min"))
    frame = pd.DataFrame({"when": when, "month": when.month, "day": when.day, "run": range(5, 60_005)})
    frame["weight"] = np.random.default_rng(3).gamma(3, 10, len(frame)).round(2)
    frame["place"] = np.where(when.month > 2, "north", "south")
    frame["code"] = [f"A{n}" for n in range(len(frame))]
    found, _ = examined(tmp_path, frame)

    assert (found.kind, found.role("key")) == ("table", "code")
    assert [choice_of(found, name)[0] for name in ("month", "day", "run")] == ["ignore", "numeric", "ignore"]
    assert choice_of(found, "place")[:2] == ("categorical", "text, 2 different")


@pytest.mark.parametrize(("every", "trailing"), [("15min", False), ("h", True), ("MS", True)])
def test_nobody_waits_for_years_until_a_reading_is_scored(tmp_path: Path, every: str, trailing: bool) -> None:
    """Readings after one that take days, or of a month each seven years: it is scored by those before it alone."""
    level = np.sin(np.arange(ROWS) / 6) + np.random.default_rng(0).normal(0, 0.1, ROWS)
    frame = pd.DataFrame({"date": pd.date_range("1980-01-01", periods=ROWS, freq=every), "sold": level.round(3)})
    frame.to_csv(tmp_path / "rows.csv", index=False)

    said = " ".join(str(part) for part in init(tmp_path / "rows.csv", folder=tmp_path).summary())

    assert load_config(tmp_path).series.trailing is trailing
    assert ("series.trailing: a reading is scored as it comes" in said) is trailing
    assert ("series.wait: the service scores a reading when 74 to 102 (" in said) is not trailing


def test_readings_of_trading_days_are_put_on_days(tmp_path: Path) -> None:
    """A price a day, without weekends and some holidays, is not spread over 24 hours."""
    days = pd.bdate_range("2015-01-05", periods=ROWS)
    price = 100 + np.random.default_rng(0).normal(0, 1, ROWS).cumsum()
    rows = pd.DataFrame({"date": days, "close": price.round(2)})[np.arange(ROWS) % 3 > 0]

    found, _ = examined(tmp_path, rows)

    assert found.sampled is not None
    assert found.sampled.every == "1D"
    assert load_config(tmp_path).series.trailing


def test_signs_are_missing_beside_numbers_and_values_beside_text() -> None:
    """A result of + or - is no column that is always +, and one of numbers and dashes is one of numbers."""
    results, numbers = pd.Series(["+", "-"] * 50), pd.Series(["1.5", "-", "2.25", "?"] * 25)

    result, number = (feature_of("found", column, rows="table") for column in (results, numbers))

    assert (result.part, result.why) == ("categorical", "text, 2 different")
    assert number.part == "numeric"
