"""The report holds what it is given, escapes it, and asks for nothing over the network."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from detector.errors import SinkError
from detector.explain.reason import Reason
from detector.metrics.ranking import Interval
from detector.schema import Schema
from pipelines.reports import figures, model_figures
from pipelines.reports.page import ColumnFact, ReportContent, column_facts, quarantine_counts, render, write_report

NASTY = "<script>alert(1)</script>"
PLAIN = ReportContent(name="payments", job="Scoring", made_at=datetime(2025, 3, 5, 9, 30, tzinfo=UTC), rows=1_000)
ALERTS = pd.DataFrame(
    {
        "transaction": [f"t{i}" for i in range(20)],
        "time": pd.Timestamp("2025-03-04 08:00:00"),
        "risk": np.linspace(9, 5, 20),
        "p_value": 0.00025,
        "flagged": True,
        "severity": "high",
        "reasons": "amount 950.00, expected about 42; 61 % of the risk",
        "forest": 2.0,
    }
)
TRUTH = {
    "labelled": 900.0,
    "anomalies": 40.0,
    "prevalence": 0.044,
    "auroc": 0.95,
    "ap": 0.71,
    "budget": 50.0,
    "precision_at_budget": 0.6,
    "recall_at_budget": 0.75,
    "lift_at_budget": 13.6,
    "flagged": 20.0,
    "precision": 0.9,
    "recall": 0.45,
    "f1": 0.6,
    "false_alarm_rate": 0.002,
}
FULL = replace(
    PLAIN,
    flagged=20,
    quarantined=3,
    source="transactions.parquet",
    seconds=1.5,
    truth=TRUTH,
    ap_interval=Interval(0.71, 0.66, 0.77),
    alerts=ALERTS,
    policy="at most 50 a day, the riskiest first",
    calibration={
        "calibration_rows": 500.0,
        "calibration_distance": 0.02,
        "share_below_0.01": 0.012,
        "share_below_0.001": 0.0,
    },
    figures={"loss": figures.loss_curves({"loss": [2.0, 1.0]}), "mine": figures.risk_histogram([1.0, 2.0])},
    columns=[ColumnFact("amount", "numeric", 0.031, 812, "12.50")],
    quarantine={"amount is not a number": 3},
    members=("forest",),
    model={
        "rows_fitted": 700,
        "contamination_detected": 0.0123,
        "weight_forest": 1.0,
        "parity_forest": 1.9e-7,
    },
    places={"Scores": "scores.parquet", "MLflow run": "https://mlflow.example/#/runs/1"},
    notes=["The source has no labels."],
)


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an opening tag."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Note a piece of text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def full() -> Page:
    """The report with every part, parsed."""
    return Page(render(FULL))


def test_report_without_optional_parts() -> None:
    """A job that only counted rows has a report too."""
    page = Page(render(PLAIN))

    assert "Scoring report" in page.text
    assert "Wednesday, 05 March 2025, 09:30 UTC" in page.text
    assert "1,000" in page.text
    assert "Figures" not in page.text
    assert "None" not in page.text


@pytest.mark.parametrize(
    "words",
    [
        "payments",
        "20",
        "2 % of the rows",
        "0.66 to 0.77 with 95 % confidence",
        "of 40 known anomalies",
        "Right among the 50 riskiest 60 % flagged or not; 75 % of the anomalies",
        "amount 950.00, expected about 42; 61 % of the risk",
        "2025-03-04 08:00:00",
        "0.00025",
        "Rule: at most 50 a day, the riskiest first.",
        "flags 1.2 %",
        "Loss over 2 epochs",
        "The autoencoder's loss after each pass",
        "amount is not a number",
        "3.1 %",
        "1.9e-07",
        "Anomalies estimated among the training rows 1.2 %",
        "The source has no labels.",
        "5 more",
    ],
)
def test_report_says(full: Page, words: str) -> None:
    """Every part that was given is in the page."""
    assert words in full.text


def test_report_names_numbers_for_what_they_are() -> None:
    """Rows that calibrate were not held out, rows beyond `clean_share` not found unusual, 50 rows no budget."""
    model = {"rows_fitted": 54_000, "rows_calibration": 54_000, "rows_cleaned_out": 5_357, "rows_suspicious": 41}

    page = Page(render(replace(FULL, model=model)))

    assert "Rows that p-values are counted on, each scored as if unseen 54,000" in page.text
    assert "Rows that the bulk was learnt without (train.clean_share), unusual or not 5,357" in page.text
    assert "Rows not learnt from: in the most unusual hundredth of forest and autoencoder 41" in page.text
    assert "Precision at budget" not in page.text
    assert "held out for calibration" not in page.text


def test_report_asks_for_nothing(full: Page) -> None:
    """No script, and no style sheet, picture, font or frame from elsewhere."""
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(full.tags)
    for tag, name, value in full.attributes:
        if name in {"src", "srcset", "href", "xlink:href"} and tag != "a":
            assert value.startswith(("data:", "#"))
        assert not name.startswith("on")
    assert ("meta", "http-equiv", "Content-Security-Policy") in full.attributes
    assert "@import" not in full.text
    assert "url(http" not in full.text


def test_report_escapes_everything_that_comes_from_data() -> None:
    """A column, a value, a reason, a source or a place called <script> is shown, never run."""
    alerts = ALERTS.rename(columns={"transaction": NASTY}).assign(severity=NASTY, reasons=NASTY)
    content = replace(
        FULL,
        name=NASTY,
        job=NASTY,
        source=NASTY,
        alerts=alerts.assign(**{NASTY: NASTY}),
        policy=NASTY,
        columns=[ColumnFact(NASTY, NASTY, 0.0, 1, NASTY)],
        quarantine={NASTY: 1},
        members=(NASTY,),
        places={NASTY: NASTY, "run": f"https://x/\"onmouseover='{NASTY}'"},
        notes=[NASTY],
        figures={NASTY: model_figures.feature_error(pd.DataFrame({NASTY: [1.0, 2.0]}))},
    )
    reasons = [[Reason(NASTY, NASTY, NASTY, 0.5)] for _ in range(len(alerts))]

    for page in (render(content), render(replace(content, reasons=reasons))):
        assert "<script" not in page
        assert not any(name.startswith("on") for _, name, _ in Page(page).attributes)
        assert page.count("&lt;script&gt;") > 10


def test_places_that_are_no_address_are_not_links() -> None:
    """Only http and https become links."""
    page = Page(render(replace(PLAIN, places={"a": "javascript:alert(1)", "b": "https://mlflow.example/"})))

    assert [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")] == [
        "https://mlflow.example/"
    ]


def test_reasons_are_shown_with_their_share() -> None:
    """A reason is a bar, what was observed and what was expected."""
    reasons = [[Reason("amount", "950.00", "about 42", 0.61), Reason("hour", "03:12", "", 0.2)]] * len(ALERTS)

    page = Page(render(replace(FULL, reasons=reasons)))

    assert "amount 950.00 , expected about 42; 61 %" in page.text
    assert "hour 03:12 ; 20 %" in page.text
    assert ("rect", "width", "61.0") in page.attributes


def test_known_truth_is_marked() -> None:
    """Where the truth is known, each flag says whether it was right."""
    page = Page(render(replace(FULL, alerts=ALERTS.head(3).assign(truth=[1.0, 0.0, np.nan]))))

    assert "✓ anomaly" in page.text
    assert "✗ false alarm" in page.text
    assert "unknown" in page.text


def test_no_alerts_is_good_news() -> None:
    """An empty list of alerts is said in words."""
    assert "No row was flagged." in render(replace(FULL, alerts=ALERTS.head(0), flagged=0))


def test_column_facts_name_the_part_of_each_column() -> None:
    """Roles, kinds and ignored columns, missing shares and distinct values."""
    frame = pd.DataFrame({"id": [1, 2], "amount": [1.5, np.nan], "shop": ["a", "a"], "extra": [None, None]})

    facts = column_facts(frame, Schema(key="id", numeric=("amount",), categorical=("shop",)))

    assert [(f.name, f.part, f.missing, f.distinct) for f in facts] == [
        ("id", "key", 0.0, 2),
        ("amount", "numeric", 0.5, 1),
        ("shop", "categorical", 0.0, 1),
        ("extra", "ignored", 1.0, 0),
    ]
    assert column_facts(frame.head(0), Schema(key="id"))[0].example == ""


def test_quarantine_counts_of_nothing() -> None:
    """An empty quarantine has no reasons."""
    assert quarantine_counts(pd.DataFrame({"row": [], "reason": []})) == {}


def test_write_report_replaces_the_old_one(tmp_path: Path) -> None:
    """The file is written in one step and nothing is left beside it."""
    path = tmp_path / "new" / "report.html"

    write_report(path, PLAIN)
    write_report(path, replace(PLAIN, name="later"))

    assert "later" in path.read_text(encoding="utf-8")
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder where the file should be is an error in plain words."""
    (tmp_path / "report.html").mkdir()

    with pytest.raises(SinkError, match="Choose another place with the setting 'report'"):
        write_report(tmp_path / "report.html", PLAIN)
