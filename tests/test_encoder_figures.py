"""Figures that compare encoders say what is in the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from detector.errors import DataError
from pipelines.lab.figures import encoder_robustness, encoder_table
from pipelines.reports.style import title_of, to_png

TABLE = pd.DataFrame(
    {
        "error_train": [0.02, 0.2],
        "error_held_out": [0.03, 0.21],
        "rows_per_second": [512345.0, 1e6],
        "training_seconds": [3.21, 0.1],
        "size_bytes": [9000.0, 3000.0],
    },
    index=["dense", "paid_$_in_$"],
)


def stood(**columns: Any) -> pd.DataFrame:
    """Two encoders, two levels of noise and of contamination."""
    levels = [("noise", 0.0), ("noise", 0.5), ("contamination", 0.0), ("contamination", 0.1)]
    rows = [
        {"encoder": name, "damage": damage, "level": level, "error": 0.1 + level, "auroc": 0.9}
        | {"rank_stability": 1 - level * loss}
        for name, loss in (("dense", 0.5), ("linear", 0.1))
        for damage, level in levels
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_table_names_the_best_and_what_it_costs() -> None:
    """The best is on top; speed, time and size stand beside the bars."""
    figure = encoder_table(TABLE)

    texts = [text.get_text() for text in figure.axes[0].texts]
    assert title_of(figure) == "dense rebuilds rows it has not seen best"
    assert texts[-1] == "510,000 rows/s · 3.2 s to train · 9 kB"
    assert len(figure.axes[0].patches) == 4
    assert to_png(figure, dpi=50).startswith(b"\x89PNG")


def test_robustness_has_a_column_for_each_damage_tried() -> None:
    """Three measures of two damages, a line an encoder; shares in per cent."""
    figure = encoder_robustness(stood())

    assert title_of(figure) == "linear keeps its ranking best under damage"
    assert len(figure.axes) == 6
    assert {len(axes.lines) for axes in figure.axes} == {2}
    assert figure.axes[5].get_xlabel() == "dirty training rows (%)"
    assert figure.axes[5].lines[0].get_xdata().tolist() == [0.0, 10.0]
    assert to_png(figure, dpi=50).startswith(b"\x89PNG")


def test_robustness_of_one_encoder_is_reported_as_a_number() -> None:
    """There is none to compare it with; and a ranking that is not known is not claimed."""
    assert title_of(encoder_robustness(stood(encoder="dense"))) == "The ranking stays 0.91 alike under damage"
    assert title_of(encoder_robustness(stood(rank_stability=float("nan")))) == "What encoders stand"


def test_figures_need_something_to_show() -> None:
    """No encoder, or no damage."""
    with pytest.raises(DataError, match="at least one encoder"):
        encoder_table(TABLE.iloc[:0])
    with pytest.raises(DataError, match="levels of damage above 0"):
        encoder_robustness(stood(level=0.0))
