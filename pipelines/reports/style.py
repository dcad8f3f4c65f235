"""The one look of all figures, and the figure as PNG or as SVG.

Blue is normal, orange is anomalous, grey is unknown or a reference: a pair that colour-blind readers tell
apart, on light and on dark ground. Matplotlib is imported when a figure is drawn and without pyplot, so
nothing global changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

from detector.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK = "#24303c"
INK_ON_COLOUR = "#24303d"  # to the eye the same, but `to_svg` leaves it dark on dark pages
RULE = "#b9c2cb"
BLUE = "#3f7fbf"
ORANGE = "#d9641e"
GREY = "#8b96a1"

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a column may be called "paid_$_in_$"
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.fonttype": "none",
    "svg.hashsalt": "detector",
}

_Arguments = ParamSpec("_Arguments")


def in_house_style(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Run a drawing function under the house style, and leave Matplotlib's settings as they were."""

    @functools.wraps(draw)
    def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return styled


def empty_figure(*, rows: int = 1, ratios: list[int] | None = None, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with axes one above the other that share their x axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, height), layout="constrained", facecolor="white")
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios or [1] * rows)
    return figure, list(grid[:, 0])


def legend_below(figure: Figure, *, columns: int = 3) -> None:
    """What each line is, below the axes, where it hides none of them."""
    figure.legend(loc="outside lower center", ncols=columns)


def ramp(*, diverging: bool = False) -> Colormap:
    """Colours from normal to anomalous, or around zero."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = [ORANGE, "#f3f4f5", BLUE] if diverging else ["#9dbfe0", BLUE, "#8a5a83", ORANGE]
    return LinearSegmentedColormap.from_list("detector", colours)


def percent(share: float) -> str:
    """A share in words that stay short.

    >>> percent(0.25), percent(0.00714), percent(0.0)
    ('25 %', '0.71 %', '0 %')
    """
    if share == 0 or share >= 0.1:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %"


def percent_axis(axis: Any) -> None:
    """Write the major ticks of a logarithmic axis of shares as per cent."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axis.set_minor_formatter(lambda *_: "")


def count_axis(axis: Any) -> None:
    """Write the major ticks of a logarithmic axis of counts as plain numbers."""
    axis.set_major_formatter(lambda count, _: f"{count:,.0f}" if count >= 1 else "")
    axis.set_minor_formatter(lambda *_: "")


def date_axis(axes: Axes) -> None:
    """Write the ticks of a time axis short: "14:00" under one "2026-Nov-27"."""
    from matplotlib import dates

    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def shorten(text: str, length: int) -> str:
    """Cut a text that would not fit.

    >>> shorten("merchant_category", 10)
    'merchant_…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def title_of(figure: Figure) -> str:
    """What the figure says, for a caption or a screen reader."""
    return str(figure.axes[0].get_title(loc="left")) if figure.axes else ""


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as PNG bytes, on white."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """The figure as one ``<svg>`` element that takes the text colour and font of the page it stands in.

    The ground is transparent and the ink is ``currentColor``, so that it reads on light and on dark.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" | width="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("'DejaVu Sans', sans-serif", "inherit").replace("'DejaVu Sans'", "inherit")
    return svg.replace(INK, "currentColor").strip()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError(
            "Figures need matplotlib. Install the training extra: pip install 'anomaly-detector[train]'."
        ) from error
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a column may be called "🙂"
        yield
