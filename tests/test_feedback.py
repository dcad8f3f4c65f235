"""What was said of a row and when: labels, reports and verdicts on one line of time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from detector.errors import SchemaError
from pipelines.config import Config
from pipelines.config.features import TURNS
from pipelines.config.masking import Masks
from pipelines.labels.feedback import Statements
from pipelines.labels.known import label_changes
from pipelines.store import Store
from tests.test_labels import a_config, say

Configure = Callable[..., Config]


def march(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


def turns(config: Config, *, keys: list[Any], reported: str | None = "told", **columns: Any) -> list[list[int]]:
    """The days in March of the turns of some rows of the first of March."""
    rows = pd.DataFrame({"id": keys, "when": pd.Timestamp("2026-03-01"), **columns})
    if "told" in rows:
        rows["told"] = pd.to_datetime(rows["told"])
    found = label_changes(rows, Statements.read(config), time="when", key="id", label="fraud", reported=reported)
    assert tuple(found.columns) == TURNS
    return [[int(each.day) for each in row if not pd.isna(each)] for row in found.to_numpy(dtype=object)]


def chargebacks(folder: Path, configure: Configure, *lines: tuple[Any, str], **head: Any) -> Config:
    pd.DataFrame(lines, columns=["id", "reported_at"]).to_csv(folder / "chargebacks.csv", index=False)
    return a_config(folder, configure, reports={"source": {"path": "chargebacks.csv"}}, **head)


def test_a_row_is_fraud_while_the_last_word_is_fraud(tmp_path: Path, configure: Configure) -> None:
    """A chargeback counts until a person says fine or unsure, and again after a second one; a repetition is no news."""
    config = chargebacks(
        tmp_path, configure, *[(key, "2026-03-05") for key in "abcd"], ("a", "2026-03-06"), ("c", "2026-03-20")
    )
    for key, verdict, day in (("b", "fine", 9), ("c", "unsure", 9), ("d", "fine", 3), ("c", "fine", 25)):
        say(config, key, verdict, march(day))

    found = turns(config, keys=list("abcde"))

    assert found == [[5], [5, 9], [5, 9, 20], [5], []]


def test_a_reported_label_is_a_word_as_any_other(tmp_path: Path, configure: Configure) -> None:
    """It counts from its report and is taken back by what is said later, not by what was said before."""
    config = a_config(tmp_path, configure)
    say(config, "a", "fine", march(4))
    say(config, "b", "fine", march(9))

    found = turns(config, keys=["a", "b", "c"], fraud=[1.0, 1.0, 1.0], told=["2026-03-06", "2026-03-06", None])

    assert found == [[6], [6, 9], []]


def test_a_label_without_a_date_stands(tmp_path: Path, configure: Configure) -> None:
    """Nobody knows whether it or the verdict came last: it counts from its row on."""
    config = a_config(tmp_path, configure)
    say(config, "a", "fine", march(9))

    assert turns(config, keys=["a", "b"], reported=None, fraud=[1.0, 0.0]) == [[1], []]


def test_an_answer_that_is_corrected_counts_until_then(tmp_path: Path, configure: Configure) -> None:
    """What a person took back was known before, so rows in between do not change afterwards."""
    config = a_config(tmp_path, configure)
    say(config, "a", "fraud", march(4))
    before = turns(config, keys=["a"])
    say(config, "a", "fine", march(8))

    assert before == [[4]]
    assert turns(config, keys=["a"]) == [[4, 8]]
    assert turns(a_config(tmp_path, configure, verdicts=False), keys=["a"]) == [[]]


@pytest.mark.parametrize("keys", [[7, 8], [7.0, None], ["7", "8"]], ids=["whole", "with a gap", "text"])
def test_numbers_as_keys_are_found(tmp_path: Path, configure: Configure, keys: list[Any]) -> None:
    """Whether the table, the reports or the alerts hold them as numbers or as text."""
    config = chargebacks(tmp_path, configure, (7, "2026-03-05"))
    say(config, "7", "fine", march(9))

    assert turns(config, keys=keys) == [[5, 9], []]


@pytest.mark.parametrize(
    ("rule", "expected"), [("hash", [[9], []]), ("last4", [[], []]), ("hide", [[], []])], ids=["hash", "last4", "hide"]
)
def test_a_masked_key_counts_if_it_names_one_row(
    tmp_path: Path, configure: Configure, rule: str, expected: list[list[int]]
) -> None:
    """A verdict on a hashed key finds its row; one on a key that many rows share would hit them all, and hits none."""
    keys = ["1111000012345678", "2222000012345678"]
    config = a_config(tmp_path, configure)
    alerts = config.alerts.model_copy(update={"mask": {"id": rule}})
    config = config.model_copy(update={"alerts": alerts})
    say(config, Masks({"id": rule}).show("id", keys[0]), "fraud", march(9))

    assert turns(config, keys=keys) == expected


def test_statements_about_other_rows_cost_little() -> None:
    """A small batch beside many reports copies none of those that are about other rows."""
    keys = [f"key {each}" for each in range(100_000)]
    reports = pd.DataFrame({"key": keys, "label": 1.0, "known_at": pd.Timestamp("2026-03-05")})
    reports["key"] = reports["key"].astype("object")
    statements, asked = Statements(reports, reports.iloc[:0], "id"), pd.Series(["key 7", "nobody"])

    tracemalloc.start()
    found = statements.about(asked)["reports"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found["row"].tolist() == [0]
    assert peak < 20 * len(reports)


def test_reports_with_only_a_header_say_nothing(tmp_path: Path, configure: Configure) -> None:
    """Where nobody has reported anything yet there is no statement; the columns must be there all the same."""
    config = chargebacks(tmp_path, configure)
    assert turns(config, keys=["a"]) == [[]]

    (tmp_path / "chargebacks.csv").write_text("id,when\n")
    with pytest.raises(SchemaError, match="no column 'reported_at'"):
        Statements.read(config)


def test_state_is_let_go_where_verdicts_cannot_be_read(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails leaves no connection open."""
    config = a_config(tmp_path, configure)
    say(config, "a", "fraud", march(4))
    closed: list[int] = []
    monkeypatch.setattr(Store, "close", lambda _: closed.append(1))
    monkeypatch.setattr("pipelines.labels.feedback.TRUTH_OF", {})

    with pytest.raises(KeyError, match="fraud"):
        Statements.read(config)

    assert len(closed) == 1
