"""One run as one self-contained HTML file: what was found, why, how far to trust it, and in which data.

The file asks for nothing over the network and runs no script; its own Content-Security-Policy says so.
Every job fills the parts of `ReportContent` that it has; a part that is missing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detector.atomic import write_whole
from detector.errors import SinkError
from detector.explain.reason import Reason
from detector.metrics.ranking import Interval
from detector.schema import Schema
from pipelines.reports import style as figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPEN_ALERTS = 15
SHOWN_ALERTS = 100
SHOWN_COLUMNS = 100

CAPTIONS = {
    "loss": "The autoencoder's loss after each pass over the data. A held-out curve that rises while the "
    "other one falls means that rows are learnt by heart.",
    "risk": "Every row's risk. Counts are on a logarithmic scale, so that single rows show.",
    "precision_recall": "Going down the list from the highest risk: how much of the truth is found, and how "
    "many of the rows looked at are right.",
    "feature_error": "How badly each column is reconstructed on average. Columns far to the right carry the reasons.",
    "code": "Each dot is a row as the autoencoder sees it, flattened to two dimensions. Near dots are similar rows.",
    "alert_rate": "What another threshold would cost in alerts. Above the dashed line, more rows are unusual "
    "than normal rows alone would explain.",
    "calibration": "On normal rows, a threshold of 1 % should flag 1 %. Inside the band the difference is chance.",
    "risk_over_time": "The risk, what is flagged (orange), and what is known to be anomalous (dark, above).",
    "members": "How alike the members order the rows. Members that agree on everything add nothing to each other.",
}

_FACTS = {
    "rows_fitted": "Rows fitted",
    "rows_calibration": "Rows held out for calibration",
    "rows_cleaned_out": "Rows left out as too unusual to learn from",
    "contamination_detected": "Anomalies estimated among the training rows",
    "reconstruction_error_train": "Reconstruction error, rows fitted",
    "reconstruction_error_holdout": "Reconstruction error, rows held out",
    "generalisation_gap": "Generalisation gap",
    "epochs": "Epochs",
    "fit_seconds": "Seconds to fit",
}
_SHARES = {
    "contamination_detected",
    "prevalence",
    "precision_at_budget",
    "recall_at_budget",
    "precision",
    "recall",
}
_VERDICT = {"risk", "p_value", "flagged", "severity", "reasons", "truth", "unsupervised_risk", "decided_by"}


@dataclass(frozen=True)
class ColumnFact:
    """One column of the data; ``part`` is its role or its kind."""

    name: str
    part: str
    missing: float
    distinct: int
    example: str


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report says. Only the first four parts are always there.

    - ``job``: "Training", "Scoring" or "Evaluation".
    - ``made_at``: when, with its time zone.
    - ``rows``: rows read, quarantined ones included.
    - ``source``: where the rows came from, without secrets.
    - ``truth``: metrics of ``detector.metrics.ranking`` against known labels, joined in one mapping.
    - ``ap_interval``: average precision with its bootstrap interval.
    - ``alerts``: flagged rows as in ``Verdicts.frame``, riskiest first, and optionally ``truth`` (1, 0, missing). The
      first 15 are open to see, the first 100 at a click.
    - ``unit``: what the alerts are: "rows" or "events".
    - ``reasons``: the reasons of each row of ``alerts``; without them its ``reasons`` text is shown.
    - ``policy``: the flagging rule in words: ``Policy.describe()``.
    - ``calibration``: ``detector.metrics.ranking.calibration_metrics`` of held-out normal rows.
    - ``figures``: by name; the names of `CAPTIONS` get their caption.
    - ``quarantine``: rows by reason, see `quarantine_counts`.
    - ``model``: ``TabularScorer.metrics``.
    - ``places``: where to find the rest: a label, and a path, a command or an address.
    """

    name: str
    job: str
    made_at: datetime
    rows: int
    flagged: int | None = None
    quarantined: int | None = None
    source: str | None = None
    seconds: float | None = None
    truth: Mapping[str, float] | None = None
    ap_interval: Interval | None = None
    alerts: pd.DataFrame | None = None
    reasons: Sequence[Sequence[Reason]] | None = None
    unit: str = "rows"
    policy: str | None = None
    calibration: Mapping[str, float] | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    columns: Sequence[ColumnFact] = ()
    quarantine: Mapping[str, int] = field(default_factory=dict)
    members: Sequence[str] = ()
    model: Mapping[str, Any] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_report(path: Path, content: ReportContent) -> Path:
    """Write the report, replacing an older one in one step.

    Raises ``SinkError`` if the file cannot be written.
    """
    return write_page(path, render(content))


def write_page(path: Path, page: str) -> Path:
    """Write a page, replacing an older one in one step.

    Raises ``SinkError`` if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise SinkError(
            f"The report could not be written to {path}: {error.strerror or error}. "
            f"Choose another place with the setting 'report'."
        ) from error
    return path


def render(content: ReportContent) -> str:
    """The report as HTML."""
    return render_page(
        "report.html.j2",
        content=content,
        when=content.made_at.strftime("%A, %d %B %Y, %H:%M %Z").rstrip(", "),
        stamp=content.made_at.isoformat(timespec="seconds"),
        tiles=_truth_tiles(content),
        alerts=_alert_rows(content),
        open_alerts=OPEN_ALERTS,
        key_columns=_key_columns(content),
        figures=as_svg(content.figures),
        members=_members(content),
        weighted=any(f"weight_{name}" in (content.model or {}) for name in content.members),
        facts=_facts(content),
        shown_columns=list(content.columns)[:SHOWN_COLUMNS],
    )


def render_page(template: str, **parts: Any) -> str:
    """A template as HTML; everything that comes from data is escaped."""
    page = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"count": _count, "share": _share, "number": _number}
    return page.get_template(template).render(**parts)


def as_svg(figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Figures as a template shows them. Matplotlib escapes what it writes into the SVG, so the markup is safe."""
    return [
        {
            "name": name,
            "svg": Markup(figure_style.to_svg(figure)),
            "title": figure_style.title_of(figure),
            "caption": CAPTIONS.get(name, ""),
        }
        for name, figure in figures.items()
    ]


def column_facts(frame: pd.DataFrame, schema: Schema) -> list[ColumnFact]:
    """What a sample of the table says about each column the schema knows; others are "ignored".

    >>> column_facts(pd.DataFrame({"amount": [1.0, None]}), Schema(numeric=("amount",)))
    [ColumnFact(name='amount', part='numeric', missing=0.5, distinct=1, example='1.0')]
    """
    roles = {name: role for role, name in schema.roles.items()}
    facts = []
    for name in map(str, frame.columns):
        part = roles.get(name) or (schema.kind_of(name) if name in schema.features else "ignored")
        values = frame[name].dropna()
        example = "" if values.empty else figure_style.shorten(str(values.iloc[0]), 40)
        missing = 1.0 - len(values) / max(len(frame), 1)
        facts.append(ColumnFact(name, part, missing, int(values.astype(str).nunique()), example))
    return facts


def quarantine_counts(quarantine: pd.DataFrame) -> dict[str, int]:
    """Quarantined rows by reason, the most frequent first.

    >>> quarantine_counts(pd.DataFrame({"reason": ["no date", "twice", "twice"]}))
    {'twice': 2, 'no date': 1}
    """
    return {str(reason): int(rows) for reason, rows in quarantine["reason"].value_counts().items()}


def _truth_tiles(content: ReportContent) -> list[tuple[str, str, str]]:
    truth = content.truth or {}
    tiles = []
    if "ap" in truth:
        interval = content.ap_interval
        note = f"{interval.low:.2f} to {interval.high:.2f} with 95 % confidence; " if interval else ""
        note += f"a blind guess has {truth['prevalence']:.3f}"
        if "flagged_members" in truth and "ap_unsupervised_risk" in truth:
            note += f"; the members alone {truth['ap_unsupervised_risk']:.3f}"
        tiles.append(("Average precision", f"{truth['ap']:.3f}", note))
    if "auroc" in truth:
        tiles.append(("AUROC", f"{truth['auroc']:.3f}", "chance that an anomaly ranks above a normal row"))
    if "precision" in truth:
        note = f"of {_count(truth['flagged'])} labelled flags"
        if "flagged_members" in truth:
            note += f"; the members alone: {_share(truth['precision_members'])} of {_count(truth['flagged_members'])}"
        tiles.append(("Flags that are right", _share(truth["precision"]), note))
    if "recall" in truth:
        anomalies = f"of {_count(truth['anomalies'])} known anomalies" if "anomalies" in truth else "of known anomalies"
        if "recall_members" in truth:
            anomalies += f"; the members alone: {_share(truth['recall_members'])}"
        tiles.append(("Anomalies flagged", _share(truth["recall"]), anomalies))
    if "known_events" in truth:
        note = f"of {_count(truth['known_events'])} known; {_count(truth['false_events'])} false alarms"
        tiles.append(("Events found", _count(truth["found_events"]), note))
    if "precision_at_budget" in truth:
        found = _share(truth["recall_at_budget"])
        note = f"right among the {_count(truth['budget'])} riskiest; finds {found} of all"
        if "precision_at_budget_members" in truth:
            found = _share(truth["recall_at_budget_members"])
            note += f"; the members alone: {_share(truth['precision_at_budget_members'])}, {found}"
        tiles.append(("Precision at budget", _share(truth["precision_at_budget"]), note))
    if "false_alarm_rate" in truth:
        tiles.append(("False alarms", _share(truth["false_alarm_rate"]), "of normal rows are flagged"))
    return tiles


def _key_columns(content: ReportContent) -> list[str]:
    if content.alerts is None:
        return []
    return [str(name) for name in content.alerts.columns if name not in _VERDICT and name not in content.members]


def _alert_rows(content: ReportContent) -> list[dict[str, Any]]:
    if content.alerts is None:
        return []
    keys, rows = _key_columns(content), []
    for place, (_, row) in enumerate(content.alerts.head(SHOWN_ALERTS).iterrows()):
        truth = row.get("truth")
        rows.append(
            {
                "keys": [_cell(row[name]) for name in keys],
                "risk": f"{row['risk']:.2f}",
                "p_value": f"{row['p_value']:.2g}",
                "severity": str(row.get("severity", "")),
                "truth": None if truth is None or pd.isna(truth) else bool(truth),
                "reasons": list(content.reasons[place]) if content.reasons else [],
                "text": str(row.get("reasons", "")),
            }
        )
    return rows


def _members(content: ReportContent) -> list[tuple[str, str, str]]:
    model = content.model or {}
    return [
        (name, _number(model.get(f"weight_{name}")), _number(model.get(f"parity_{name}"))) for name in content.members
    ]


def _facts(content: ReportContent) -> list[tuple[str, str]]:
    model = content.model or {}
    return [
        (label, _share(model[name]) if name in _SHARES else _number(model[name]))
        for name, label in _FACTS.items()
        if model.get(name) is not None
    ]


def _count(value: float) -> str:
    return f"{int(value):,}"


def _share(value: float) -> str:
    return "–" if value is None or math.isnan(value) else figure_style.percent(float(value))


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    if abs(value) < 0.001 or abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cell(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, (pd.Timestamp, datetime)):
        return value.isoformat(sep=" ", timespec="seconds")
    return f"{value:g}" if isinstance(value, float) else str(value)
