"""The report holds what it is given, escapes it, and asks for nothing over the network."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pipelines
from detector.errors import SinkError
from detector.explain.reason import Reason
from detector.metrics.ranking import Interval
from detector.schema import Schema
from pipelines.reports import figures, model_figures
from pipelines.reports.content import Alternative, ColumnFact, ReportContent, column_facts, quarantine_counts
from pipelines.reports.page import render, write_report

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
CALIBRATION = {
    "calibration_rows": 500.0,
    "calibration_distance": 0.02,
    "share_below_0.01": 0.012,
    "share_below_0.001": 0.0,
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
    calibration=CALIBRATION,
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
    assert "Suspicious rows: in the most unusual hundredth of forest and autoencoder 41" in page.text
    assert "Precision at budget" not in page.text
    assert "held out for calibration" not in page.text


def test_report_asks_for_nothing(full: Page) -> None:
    """One script, which is allowed by its digest; no style sheet, picture, font or frame from elsewhere."""
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(full.tags)
    assert full.tags.count("script") == 1
    text = (Path(pipelines.__path__[0]) / "templates" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    (policy,) = [value for tag, name, value in full.attributes if name == "content" and "default-src" in value]
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in policy
    assert f"<script>{text}</script>" in render(FULL)
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
        assert page.count("<script") == 1
        assert not any(name.startswith("on") for _, name, _ in Page(page).attributes)
        assert page.count("&lt;script&gt;") > 10


def test_places_that_are_no_address_are_not_links() -> None:
    """Only http and https become links."""
    page = Page(render(replace(PLAIN, places={"a": "javascript:alert(1)", "b": "https://mlflow.example/"})))

    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert [link for link in links if not link.startswith("#")] == ["https://mlflow.example/"]


def test_reasons_are_shown_with_their_share() -> None:
    """A reason is a bar, what was observed and what was expected."""
    reasons = [[Reason("amount", "950.00", "about 42", 0.61), Reason("hour", "03:12", "", 0.2)]] * len(ALERTS)

    page = Page(render(replace(FULL, reasons=reasons)))

    assert "amount 950.00 , expected about 42; 61 %" in page.text
    assert "hour 03:12 ; 20 %" in page.text
    assert ("rect", "width", "61.0") in page.attributes


def test_findings_come_first(full: Page) -> None:
    """In sentences with counts: few flags say that they are few, and what counts nothing is named."""
    model = {"weight_forest": 0.0, "weight_neighbours": 0.75, "weight_autoencoder": 0.25}
    content = replace(
        FULL,
        reviewed=900,
        truth=TRUTH | {"flagged": 14.0, "precision": 1 / 14, "recall": 1 / 40},
        members=("autoencoder", "forest", "neighbours"),
        model=model,
    )

    text = Page(render(content)).text

    first = text.index("1 of 14 flags was right, and they found 1 of 40 known anomalies. Few flags")
    assert first < text.index("Rows read")
    assert "anomalies rank 16 times as high as by a blind guess: average precision 0.71 (0.66 to 0.77" in text
    assert "p-values hold what they promise: of 500 normal rows a threshold of 1 % flags 1.2 %." in text
    assert "The risk is made of neighbours 75 %, autoencoder 25 %; forest counts nothing here." in text
    assert "18 of 20 flags were right, and they found 18 of 40" in full.text


def test_weights_of_every_member_are_told_and_a_head_is_named() -> None:
    """A member without a score of its own counts too, so shares add up; where a head decides, they are not its own."""
    model = {"weight_rare_values": 0.8, "weight_phase": 0.2, "weight_spread_phase": 0.01}
    alone = replace(FULL, members=("rare_values",), model=model)
    decided = replace(alone, truth=TRUTH | {"ap_unsupervised_risk": 0.3})

    text, headed = (Page(render(each)).text for each in (alone, decided))

    assert "The risk is made of rare values 80 %, phase 20 %." in text
    assert "phase 20 % ± 1 %" in text
    assert "The head decides. Without it, the risk would be made of rare values 80 %, phase 20 %." in headed
    assert "rare_values" not in text


def test_names_of_settings_are_set_as_code() -> None:
    """A note comes from a sentence for the terminal; what a reader sees has no backticks, and data no markup."""
    page = render(replace(FULL, notes=["`series.wait` shortens that.", "<b> & `<i>`"]))

    assert "<p><code>series.wait</code> shortens that.</p>" in page
    assert "<p>&lt;b&gt; &amp; <code>&lt;i&gt;</code></p>" in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"truth": TRUTH | {"flagged": 0.0, "precision": 0.0, "recall": 0.0}}, "so none of 40 known anomalies"),
        ({"truth": None, "flagged": 3, "reviewed": 600}, "3 of 600 rows are flagged (0.5 %)."),
        ({"truth": None, "flagged": 1, "reviewed": None}, "1 of 1,000 rows is flagged."),
        (
            {"truth": TRUTH | {"known_events": 2.0, "found_events": 2.0, "flagged_events": 3.0, "false_events": 1.0}},
            "Findings 2 of 2 known events were found; of 3 flagged ones 1 is a false alarm. 18 of 20 flagged rows were",
        ),
        ({"calibration": {**CALIBRATION, "share_below_0.01": 0.04}}, "p-values are off: of 500 normal rows"),
    ],
)
def test_findings_fit_what_there_is(changes: dict[str, Any], said: str) -> None:
    """No labels, no flags, or p-values that are wrong."""
    assert said in Page(render(replace(FULL, **changes))).text


def test_other_thresholds_are_shown_with_the_one_that_was_chosen() -> None:
    """What each would flag, how much of that is right, and how much it finds."""
    rows = [Alternative(0.001, 4, 0.5, 0.08), Alternative(0.002, 9, 5 / 9, 0.2, chosen=True), Alternative(0.01, 47)]

    page = render(replace(FULL, alternatives=rows))

    text = Page(page).text
    assert "0.1 % 4 50 % 8 %" in text
    assert "0.2 % , as decided 9 56 % 20 %" in text.replace("0.2 %, as", "0.2 % , as")
    assert "1 % 47 – –" in text
    assert page.count('class="chosen"') == 1


def test_members_show_weights_and_what_they_tell() -> None:
    """With the spread over folds, and a line for each kind of spoilt rows."""
    model = {"weight_forest": 0.25, "weight_spread_forest": 0.01, "power_forest_few_cells": 0.66, "parity_forest": 2e-7}

    text = Page(render(replace(FULL, model=model))).text

    assert "forest 25 % ± 1 %" in text
    assert "few cells 0.66" in text


def test_a_flagged_row_opens_to_its_reasons_and_its_command() -> None:
    """The first reason in the line, all of them and the command below; the key is quoted for a shell."""
    reasons = [[Reason("amount", "950.00", "about 42", 0.61), Reason("hour", "03:12", "", 0.2)]] * 2
    alerts = ALERTS.head(2).assign(transaction=["t1", "a b"])

    page = render(replace(FULL, alerts=alerts, reasons=reasons, explain="detector explain ."))

    assert page.count("<details><summary>amount 950.00, expected about 42; and 1 more</summary>") == 2
    assert "detector explain . t1</code>" in page
    assert "detector explain . &#39;a b&#39;</code>" in page


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
