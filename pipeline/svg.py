"""Static SVG drawn by matplotlib: what the pages of this project have in common.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2008), which people with any colour vision can tell
apart.  Texts stay texts: they can be searched, copied and read aloud, and matplotlib escapes them.
"""

from __future__ import annotations

import io
import re
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#B3261E",
    "#8A8F98",
)
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a family may be called $x$
    "font.family": ["DejaVu Sans"],  # measured with what matplotlib brings; the page says what it is shown in
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}
WIDE_IN: Final = 11.2
"""In inches, 96 pixels each: all of a page's width."""


def drawn(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: the same bytes for the same figures, no name shared with other plots."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font: \1px sans-serif", svg)
    return re.sub(r'<g id="[^"]*"', "<g", svg)


def panels(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row."""
    figure = Figure(figsize=size)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)
