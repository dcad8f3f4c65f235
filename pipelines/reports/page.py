"""One run as one self-contained HTML file: what was found, why, how far to trust it, and in which data.

The file asks for nothing over the network. It runs one script of its own, which sorts and filters the table of flagged
rows; its Content-Security-Policy allows that text and no other. Every job fills the parts of `ReportContent` that it
has; a part that is missing is left out.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from detector.atomic import write_whole
from detector.decide.severity import SEVERITIES
from detector.errors import SinkError
from pipelines.reports import style
from pipelines.reports.content import ReportContent
from pipelines.reports.findings import findings_of, tiles_of, weights_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    "comparison": "Left: how many anomalies are among the riskiest rows of each. Right: p-values that are "
    "right follow the diagonal.",
    "drift": "The columns that shifted most. The bins of a number hold a tenth of the earlier rows each.",
    "members": "How alike the members order the rows. Members that agree on everything add nothing to each other.",
}

SECTIONS = {
    "comparison": ("comparison",),
    "drift": ("drift",),
    "events": ("risk_over_time", *(f"event_{number}" for number in range(1, 7))),
    "threshold": ("risk", "alert_rate", "precision_recall", "calibration"),
    "drivers": ("feature_error", "code"),
    "members": ("members", "loss"),
}
"""Where each figure stands."""

_FACTS = {
    "rows_fitted": "Rows that members learnt from",
    "rows_calibration": "Rows that p-values are counted on, each scored as if unseen",
    "rows_suspicious": "Suspicious rows: in the most unusual hundredth of forest and autoencoder",
    "rows_cleaned_out": "Rows that the bulk was learnt without (train.clean_share), unusual or not",
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
_CODE = re.compile(r"`([^`]+)`")
_VERDICT = {"risk", "p_value", "flagged", "severity", "reasons", "truth", "unsupervised_risk", "decided_by"}


def write_report(path: Path, content: ReportContent) -> Path:
    """Write the report, replacing an older one in one step.

    Raises ``SinkError`` if the file cannot be written.
    """
    return write_page(path, render(content))


def check_page(path: Path) -> None:
    """Find out before the long part whether a page can be written; the folders above it are made.

    Raises ``SinkError`` if it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error)) from error
    if path.is_dir():
        raise _unwritten(path, "it is a folder")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _unwritten(path, f"this user may not write to {path.parent}")


def write_page(path: Path, page: str) -> Path:
    """Write a page, replacing an older one in one step.

    Raises ``SinkError`` if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error)) from error
    return path


def _unwritten(path: Path, why: str) -> SinkError:
    return SinkError(
        f"The report could not be written to {path}: {why}. Choose another place with the setting 'report'."
    )


def render(content: ReportContent) -> str:
    """The report as HTML."""
    return render_page(
        "report.html.j2",
        content=content,
        when=content.made_at.strftime("%A, %d %B %Y, %H:%M %Z").rstrip(", "),
        stamp=content.made_at.isoformat(timespec="seconds"),
        tiles=tiles_of(content),
        findings=findings_of(content),
        alerts=(alerts := _alert_rows(content)),
        levels=[level for level in reversed(SEVERITIES) if any(row["severity"] == level for row in alerts)],
        key_columns=[_called(content, name) for name in _key_columns(content)],
        figures=_by_section(as_svg({**content.figures, **_drift_figure(content)})),
        members=_members(content),
        powers=_powers(content),
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
    filters: dict[str, Callable[..., str]] = {
        "count": _count,
        "share": _share,
        "number": _number,
        "score": _score,
        "prose": prose,
    }
    page.filters |= filters
    script = (files("pipelines") / "templates" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return page.get_template(template).render(**parts, script=Markup(script), script_hash=f"sha256-{digest}")


def _drift_figure(content: ReportContent) -> dict[str, Figure]:
    drawn = None if content.drift is None else content.drift.figure
    return {} if drawn is None else {"drift": drawn}


def as_svg(figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Figures as a template shows them. Matplotlib escapes what it writes into the SVG, so the markup is safe."""
    return [
        {
            "name": name,
            "svg": Markup(style.to_svg(figure)),
            "title": style.title_of(figure),
            "caption": CAPTIONS.get(name, ""),
        }
        for name, figure in figures.items()
    ]


def _key_columns(content: ReportContent) -> list[str]:
    if content.alerts is None:
        return []
    return [str(name) for name in content.alerts.columns if name not in _VERDICT and name not in content.members]


def _called(content: ReportContent, name: str) -> str:
    """What people call a column of the data; its own name where they do not."""
    return next((each.words for each in content.columns if each.name == name and each.words), name)


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
                "rank": SEVERITIES.index(row["severity"]) if row.get("severity") in SEVERITIES else -1,
                "first": _first(content, place),
                "truth": None if truth is None or pd.isna(truth) else bool(truth),
                "reasons": list(content.reasons[place]) if content.reasons else [],
                "command": f"{content.explain} {shlex.quote(_cell(row[keys[0]]))}" if content.explain and keys else "",
                "text": str(row.get("reasons", "")),
            }
        )
    return rows


def _members(content: ReportContent) -> list[dict[str, Any]]:
    """What each member counts and tells: its weight with its spread, and its own figures where labels are known."""
    model, truth = content.model or {}, content.truth or {}
    return [
        {
            "name": name.replace("_", " "),
            "weight": model.get(f"weight_{name}"),
            "spread": model.get(f"weight_spread_{name}"),
            "ap": truth.get(f"ap_{name}"),
            "auroc": truth.get(f"auroc_{name}"),
            "parity": model.get(f"parity_{name}"),
        }
        for name in dict.fromkeys([*content.members, *weights_of(content)])
    ]


def _first(content: ReportContent, place: int) -> str:
    """The first reason of a flagged row, and how many more there are."""
    reasons = content.reasons[place] if content.reasons else ()
    if not reasons:
        return ""
    first = reasons[0]
    expected = f", expected {first.expected}" if first.expected else ""
    more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{first.feature} {first.observed}{expected}{more}"


def _powers(content: ReportContent) -> list[tuple[str, list[float | None]]]:
    """For each kind of spoilt rows that members were tried on, how well each of them tells these rows."""
    model = content.model or {}
    starts = {name: f"power_{name}_" for name in content.members}
    damages = dict.fromkeys(
        name.removeprefix(start) for start in starts.values() for name in model if name.startswith(start)
    )
    return [(damage, [model.get(f"{start}{damage}") for start in starts.values()]) for damage in damages]


def _by_section(figures: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The figures by the section of the report they stand in."""
    found: dict[str, list[dict[str, Any]]] = {section: [] for section in (*SECTIONS, "more")}
    for figure in figures:
        section = next((each for each, names in SECTIONS.items() if figure["name"] in names), "more")
        found[section].append(figure)
    return found


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
    return "–" if value is None or math.isnan(value) else style.percent(float(value))


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    if abs(value) < 0.001 or abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _score(value: float | None) -> str:
    """An average precision or an AUROC, all of them with as many digits."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def prose(text: str) -> Markup:
    r"""A sentence whose `names` of settings and commands are set as code; all else is escaped, and no % begins a line.

    >>> prose("`series.wait` < 3 %")
    Markup('<code>series.wait</code> &lt; 3\xa0%')
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))).replace(" %", "\u00a0%"))


def _cell(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, (pd.Timestamp, datetime)):
        return value.isoformat(sep=" ", timespec="seconds")
    return f"{value:g}" if isinstance(value, float) else str(value)
