"""The confusion matrix as a picture, drawn by matplotlib, which the extra "plot" installs.

A row for each truth, a column for each prediction; a cell is darker where more of the row's pixels were predicted so.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tipsseg.evaluation.metrics import NO_LABEL_NAME, Confusion, row_names
from tipsseg.util.printable import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100  # pixels of an inch
_SIDE_MAX = 39.0  # of the picture without its legend, in inches
_NAMES_MAX = 200  # with more rows the cells are too small for names,
_NUMBERS_MAX = 32  # and with more than this for numbers
_LONGEST = 32  # longer names are cut to so many letters

_NO_TRUTH = "#ecedf0"
_PAPER, _INK = "white", "#20242c"


def draw(confusion: Confusion, names: Sequence[str], mean_iou: float | None = None) -> bytes:
    """Draw the picture of `plot` as a PNG file; the same matrix gives the same bytes.

    Raises:
        ImportError: Where matplotlib is not installed.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # what the user has set for plots of their own is no part of the picture
        plot(confusion, names, mean_iou).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def plot(confusion: Confusion, names: Sequence[str], mean_iou: float | None = None) -> Figure:
    """Plot a confusion matrix; a cell's colour is its share of the row, of the truth pixels of a class.

    Args:
        confusion: The matrix. Rows without truth pixels are grey.
        names: Of the classes 1..N, without background.
        mean_iou: 0..1, for the title; NaN and None stay out of it.

    Returns:
        A figure that belongs to no window; height and width are 4000 pixels at most.

    Raises:
        ImportError: Where matplotlib is not installed.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    totals = confusion.counts.sum(1, keepdims=True)
    known = np.broadcast_to(totals > 0, confusion.counts.shape)
    shares = np.ma.array(confusion.counts / np.maximum(totals, 1), mask=~known)  # [R, R + 1]
    rows = len(shares)
    numbers = rows <= _NUMBERS_MAX

    side = min(3.5 + rows * (0.36 if numbers else 0.14), _SIDE_MAX)
    figure = Figure((side + 1, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    # The root of the share: a few per cent can be seen.
    colours = colormaps["Blues"].with_extremes(bad=_NO_TRUTH)
    cells = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    axes.axvline(rows - 0.5, color=_INK, linewidth=1)  # beside it, the pixels without a label
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title(_title(mean_iou))
    legend = figure.colorbar(cells, ticks=[0, 0.05, 0.25, 0.5, 0.75, 1])
    legend.ax.set_yticklabels(["0", "5", "25", "50", "75", "100"])

    if rows <= _NAMES_MAX:
        size = 9 if numbers else 6
        written = _written_names(confusion, names)
        # A name is no formula, whatever dollar signs are in it.
        axes.set_xticks(range(rows + 1), [*written, NO_LABEL_NAME], rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(rows), written, fontsize=size, parse_math=False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if numbers:
        for row, column in np.argwhere(shares.filled(0) > 0).tolist():
            share = float(shares[row, column])
            ink = _PAPER if share > 0.3 else _INK
            axes.text(column, row, _percent(share), color=ink, fontsize=8, ha="center", va="center")
    return figure


def _title(mean_iou: float | None) -> str:
    what = "Confusion of pixels, in % of the truth (rows)"
    return what if mean_iou is None or math.isnan(mean_iou) else f"mean IoU {100 * mean_iou:.1f}\n{what}"


def _written_names(confusion: Confusion, names: Sequence[str]) -> list[str]:
    """The names of the rows, on one line and cut; "class N" for a name that is empty or has letters that the font has not."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    written = []
    for number, name in zip(confusion.ids, row_names(confusion, names), strict=True):
        text = one_line(name)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        written.append(text if text and all(ord(letter) in letters for letter in text) else f"class {number}")
    return written


def _percent(share: float) -> str:
    """A whole number of per cent; 0 and 100 only where they are exact."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return ">99"
    return f"{100 * share:.0f}"
