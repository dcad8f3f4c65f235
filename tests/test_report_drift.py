"""What a report says of drift: which columns are others than they were, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.features import ColumnWords, Wording
from detector.metrics.drift import Reference
from detector.schema import Schema
from pipelines.config import Config
from pipelines.reports.content import ReportContent
from pipelines.reports.drift import Drift, drift_since
from pipelines.reports.page import render
from pipelines.training import review
from pipelines.training.evaluate import evaluate
from pipelines.training.train import train

SCHEMA = Schema(numeric=("amount", "fee"), categorical=("country",))
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PAGE = ReportContent(name="payments", job="Training", made_at=NOW, rows=1_000)
FOREST_ONLY = {"autoencoder": {"enabled": False}, "neighbours": {"enabled": False}, "forest": {"trees": 20}}
Configure = Callable[..., Config]


def payments(n: int, seed: int, *, scale: float = 1.0, abroad: float = 0.1) -> pd.DataFrame:
    """Rows as ``clean`` returns them."""
    rng = np.random.default_rng(seed)
    country = rng.choice(["DE", "FR", "AU"], n, p=[0.9 - abroad, 0.1, abroad])
    return pd.DataFrame({"amount": scale * rng.lognormal(3, 1, n), "fee": rng.normal(5, 1, n), "country": country})


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of 5,000 rows."""
    rng = np.random.default_rng(0)
    return Reference.of(payments(5_000, 0), SCHEMA, risk=rng.normal(size=1_000), p_value=rng.uniform(size=1_000))


def compared(reference: Reference, rows: pd.DataFrame, **more: object) -> Drift:
    """Rows beside the version before."""
    found = drift_since(reference, rows, against="the version before", **more)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("rows", [60, 500, 20_000])
def test_rows_of_the_same_kind_are_stable(reference: Reference, rows: int) -> None:
    """Few rows differ by chance, which is not drift."""
    found = compared(reference, payments(rows, 1))

    assert {column.verdict for column in found.columns} == {"stable"}
    assert found.finding() == "Compared with the version before, none of 3 columns has shifted."
    assert found.figure is None


def test_shifted_columns_are_said_in_words_and_units(reference: Reference) -> None:
    """The column that moved most comes first, by its own name, with what it was and what it is."""
    wording = Wording(names={"amount": ColumnWords("amount paid", "EUR")})

    found = compared(reference, payments(3_000, 1, scale=2.0), wording=wording)

    first = found.columns[0]
    assert (first.words, first.verdict) == ("amount paid (EUR)", "shifted strongly")
    was, now = (float(number) for number in first.change.removeprefix("median ").split(", now "))
    assert was == pytest.approx(np.exp(3), rel=0.05)
    assert now == pytest.approx(2 * np.exp(3), rel=0.05)
    assert found.finding().startswith(
        "Compared with the version before, 1 of 3 columns has shifted: amount paid (EUR) ("
    )


def test_verdicts_follow_the_customary_limits(reference: Reference) -> None:
    """From 0.1 a column has shifted, from 0.25 strongly."""
    verdicts = {}
    for abroad in (0.1, 0.22, 0.4):
        (country,) = (
            each for each in compared(reference, payments(20_000, 1, abroad=abroad)).columns if each.name == "country"
        )
        verdicts[country.verdict] = country.psi

    assert list(verdicts) == ["stable", "shifted", "shifted strongly"]
    assert verdicts["stable"] < 0.1 < verdicts["shifted"] < 0.25 < verdicts["shifted strongly"]


def test_level_and_missing_values_are_said(reference: Reference) -> None:
    """A level says its shares; a column that went missing says so."""
    rows = payments(5_000, 1, abroad=0.5)
    rows.loc[:2_000, "fee"] = np.nan

    changes = {column.name: column.change for column in compared(reference, rows).columns}

    assert changes["country"] == "AU 9.7 %, now 50 %"
    assert "missing 0 %, now 40 %" in changes["fee"]


def test_columns_that_only_one_has_are_named(reference: Reference) -> None:
    """Nothing to compare is no reason to say nothing."""
    rows = payments(2_000, 1).drop(columns="fee").assign(shop="a")

    found = compared(reference, rows, features=("amount", "country", "shop"))

    assert (found.new, found.gone) == (("shop",), ("fee",))
    assert "New columns, with nothing to compare: shop." in render(replace(PAGE, drift=found))


def test_nothing_to_compare(reference: Reference) -> None:
    """No row or no common column is no drift."""
    assert drift_since(reference, payments(10, 0)[:0], against="x") is None
    assert drift_since(reference, pd.DataFrame({"other": [1.0]}), against="x") is None


def test_the_detector_s_own_risk_and_alerts_count(reference: Reference) -> None:
    """Where the detector of the reference scored the rows, its risks and alerts are compared too."""
    rng = np.random.default_rng(1)
    scores = pd.DataFrame({"risk": rng.normal(2, 1, 2_000), "p_value": rng.uniform(0, 0.05, 2_000)})

    found = compared(reference, payments(2_000, 1), scores=scores)

    shifted = {column.words: column.change for column in found.columns if column.shifted}
    assert set(shifted) == {"risk", "rows worth an alert"}
    assert shifted["rows worth an alert"].startswith("1")
    assert "of the rows, now 2" in shifted["rows worth an alert"]


def test_page_shows_the_table_and_the_figure(reference: Reference) -> None:
    """The section stands in the contents, with verdicts, words, the limits and their source, and then and now."""
    page = render(replace(PAGE, drift=compared(reference, payments(3_000, 1, scale=2.0))))

    assert '<a href="#drift">Drift</a>' in page
    assert "<strong>shifted strongly</strong>" in page
    assert "Siddiqi" in page
    assert 'id="figure-drift"' in page
    assert "3,000 rows now, 5,000 then" in page


@pytest.mark.slow
def test_second_training_is_compared_with_the_first(
    trained: Path, configure: Configure, payments: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first report has nothing to compare with; the second names the column that moved."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})
    config = configure(trained, train=FOREST_ONLY)
    first = config.report.read_text(encoding="utf-8")
    payments.assign(amount=3 * payments["amount"]).to_parquet(trained / "payments.parquet")

    train(config, now=NOW)

    second = config.report.read_text(encoding="utf-8")
    assert 'id="drift"' not in first
    assert 'id="drift"' in second
    assert "Compared with the version before (rows from 20" in second
    (line,) = (line for line in second.split("<tr>") if '<td class="key">amount</td>' in line and "PSI" in line)
    assert "<strong>shifted strongly</strong>" in line


def test_evaluation_compares_with_the_rows_learnt_from(
    trained: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own risks are on the scale of training, so they are compared as well."""
    monkeypatch.setattr(review, "figures", lambda *_, **__: {})
    config = configure(trained, policy={"quantile": 0.9})

    page = evaluate(config, input=str(config.source.path), now=NOW).report.read_text(encoding="utf-8")

    assert "the rows that the detector learnt from" in page
    assert '<td class="key">risk</td>' in page
