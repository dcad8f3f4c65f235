"""Each figure draws what it is given, says so in its title, and survives data that are thin or odd."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from detector.errors import DataError, MissingExtraError
from pipelines.reports import figures, model_figures, series_figures, style
from pipelines.reports.style import title_of

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random(600) < 0.1).astype(float)
RISK = RANDOM.normal(size=600) + 3 * LABELS
P_VALUE = np.clip(RANDOM.random(600), 1 / 500, 1)
ERRORS = pd.DataFrame(RANDOM.gamma(2, size=(600, 30)), columns=[f"column_{i}" for i in range(30)])
MEMBERS = pd.DataFrame({"forest": RISK, "neighbours": RISK + RANDOM.normal(size=600)})

DRAWINGS: dict[str, Callable[[], Figure]] = {
    "loss": lambda: figures.loss_curves(
        {"loss": [3, 2, 1], "held_out_loss": [3, 1, 2], "learning_rate": [0.1, 0.2, 0.1]}
    ),
    "loss alone": lambda: figures.loss_curves({"loss": [3.0]}),
    "loss diverged": lambda: figures.loss_curves({"loss": [1, np.nan], "held_out_loss": [np.nan, np.nan]}),
    "risk": lambda: figures.risk_histogram(RISK),
    "risk and labels": lambda: figures.risk_histogram(RISK, labels=LABELS, threshold=2.0),
    "risk of one row": lambda: figures.risk_histogram([1.0], threshold=1.0),
    "risk with infinities": lambda: figures.risk_histogram([1.0, np.inf, np.nan, 2.0]),
    "precision and recall": lambda: figures.precision_recall(LABELS, RISK, budget=50),
    "feature error": lambda: model_figures.feature_error(ERRORS),
    "feature error apart": lambda: model_figures.feature_error(ERRORS, unusual=LABELS == 1),
    "code and labels": lambda: model_figures.code_map(RANDOM.normal(size=(600, 5)), labels=LABELS, risk=RISK),
    "code and risk": lambda: model_figures.code_map(RANDOM.normal(size=(9_000, 5)), risk=RANDOM.normal(size=9_000)),
    "code of one dimension": lambda: model_figures.code_map(RANDOM.normal(size=(10, 1))),
    "code that never varies": lambda: model_figures.code_map(np.ones((10, 3))),
    "alert rate": lambda: figures.alert_rate(P_VALUE, chosen=0.01),
    "alert rate, none chosen": lambda: figures.alert_rate(P_VALUE),
    "calibration": lambda: figures.calibration(P_VALUE),
    "members": lambda: model_figures.member_correlation(MEMBERS),
    "one member": lambda: model_figures.member_correlation(MEMBERS[["forest"]]),
    "constant member": lambda: model_figures.member_correlation(MEMBERS.assign(still=1.0)),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=list(DRAWINGS))
def test_figure_has_title_and_units_and_renders(draw: Callable[[], Figure]) -> None:
    """Every figure has a title and axis labels, and becomes well-formed SVG."""
    figure = draw()

    svg = style.to_svg(figure)

    assert title_of(figure)
    assert figure.axes[-1].get_xlabel() or figure.axes[0].get_xlabel()
    assert ET.fromstring(svg).tag.endswith("svg")


def test_titles_say_what_one_sees() -> None:
    """Titles are computed from the data."""
    assert title_of(DRAWINGS["loss"]()) == "Held-out loss is lowest at epoch 2 of 3"
    assert title_of(figures.alert_rate([0.001, 0.5, 0.6, 1.0], chosen=0.01)) == (
        "The chosen threshold flags 25 % of the rows"
    )
    apart = ERRORS.mask(pd.DataFrame({"column_7": LABELS == 1}).reindex(columns=ERRORS.columns, fill_value=False), 99)
    assert title_of(model_figures.feature_error(apart, unusual=LABELS == 1)) == "Unusual rows differ most in column_7"


def test_precision_of_the_rows_looked_at_is_that_of_the_tile() -> None:
    """Where the riskiest row is honest, no point of the curve has a precision of 0 but the first; ties share out."""
    labels, risk = [0, 1, 0, 0, 1, 0, 0, 0, 1, 0], [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]

    axes = figures.precision_recall(labels, risk, budget=5).axes[0]

    assert axes.get_legend_handles_labels()[1][-1] == "5 rows looked at: precision 40 %, recall 67 %"
    point = axes.lines[-1]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((2 / 3, 0.4))


def test_curve_of_many_rows_keeps_its_ends() -> None:
    """A curve of 60,000 steps is drawn with few, among them the riskiest rows one by one, and the last one."""
    labels = (RANDOM.random(60_000) < 0.01).astype(float)

    line = figures.precision_recall(labels, RANDOM.normal(size=60_000)).axes[0].lines[0]

    assert len(line.get_xdata()) < 3 * figures.STEPS
    assert line.get_xdata()[-1] == 1.0
    assert line.get_ydata()[-1] == pytest.approx(labels.mean())


def test_anomalies_are_never_sampled_away() -> None:
    """Of 50,000 dots a sample is drawn, but each of the 20 known anomalies is there."""
    labels = np.zeros(50_000)
    labels[:20] = 1

    figure = model_figures.code_map(RANDOM.normal(size=(50_000, 3)), labels=labels)

    normal, anomalous = figure.axes[0].collections
    assert len(anomalous.get_offsets()) == 20
    assert len(normal.get_offsets()) == figures.DOTS


def test_svg_is_small_and_takes_the_ink_of_the_page() -> None:
    """Dots are one picture, text is text, and ink is the page's own colour."""
    svg = style.to_svg(DRAWINGS["code and risk"]())

    assert len(svg) < 400_000
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert "<text" in svg
    assert "currentColor" in svg
    assert style.INK not in svg


def test_column_names_are_text_and_not_markup_or_mathematics() -> None:
    """A column may be called anything."""
    errors = pd.DataFrame({"paid_$a_{b}$": [1.0, 2.0], "<script>alert(1)</script>": [0.5, 0.1]})

    svg = style.to_svg(model_figures.feature_error(errors))

    assert "paid_$a_{b}$" in svg
    assert "<script" not in svg


def test_png_bytes() -> None:
    """PNG for MLflow."""
    assert style.to_png(DRAWINGS["members"]()).startswith(b"\x89PNG")


def test_settings_of_matplotlib_stay_as_they_were() -> None:
    """The house style holds while drawing only."""
    before = dict(mpl.rcParams)

    style.to_svg(DRAWINGS["risk"]())

    assert dict(mpl.rcParams) == before


def test_import_is_cheap() -> None:
    """Matplotlib is loaded when something is drawn, and pyplot never."""
    code = (
        "import sys, pipelines.reports.figures as f; assert 'matplotlib' not in sys.modules;"
        "f.loss_curves({'loss': [1.0, 2.0]}); assert 'matplotlib.pyplot' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(MissingExtraError, match=r"anomaly-detector\[train\]"):
        figures.loss_curves({"loss": [1.0]})


def test_nothing_to_draw_is_an_error() -> None:
    """Each empty input says what is missing."""
    with pytest.raises(DataError, match="at least one epoch"):
        figures.loss_curves({})
    with pytest.raises(DataError, match="no risk to draw"):
        figures.risk_histogram([])
    with pytest.raises(DataError, match="at least one row and one feature"):
        model_figures.feature_error(pd.DataFrame())
    with pytest.raises(DataError, match=r"received shape \(1, 3\)"):
        model_figures.code_map(np.ones((1, 3)))


def test_a_time_axis_is_written_short() -> None:
    """No tick is a date cut to pieces ("11-26 16"): the day stands once, below the axis."""
    when = pd.date_range("2026-11-26 16:00", periods=1_000, freq="min")
    figure = series_figures.risk_over_time(when, np.arange(1_000.0), flagged=np.arange(1_000) > 990)

    style.to_svg(figure)

    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert "18:00" in ticks
    assert all(len(tick) <= 6 for tick in ticks)
    assert figure.axes[0].xaxis.get_offset_text().get_text() == "2026-Nov-27"


def test_names_that_no_font_has_are_drawn_without_a_warning() -> None:
    """A column may be called by a picture; whoever trains is not told of fonts."""
    figure = model_figures.feature_error(ERRORS.rename(columns={"column_7": "🙂 mood"}))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "🙂 mood" in style.to_svg(figure)
        assert style.to_png(figure)
