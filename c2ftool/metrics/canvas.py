"""What every figure is drawn on and with: matplotlib's own canvas, without pyplot and its global state.

matplotlib is imported when a figure is drawn. Colours are those of Okabe and Ito and one-hue scales, which colour-blind
readers can tell apart. Names are printed as they are: pass `parse_math=False`, or a dollar sign starts a formula.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8A8F98"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches that keeps its parts from overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def png_bytes(figure: Any) -> bytes:
    """The figure as a PNG file, drawn by the Agg renderer: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script the font lacks is drawn as boxes
        figure.savefig(buffer, format="png", backend="agg", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def plain_axes(axes: Any) -> None:
    """Nothing; takes the frame's upper and right lines away and makes the tick labels small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


def shortened(name: str, limit: int) -> str:
    """The name on one line in at most so many characters, the last an ellipsis if it was longer."""
    name = " ".join(name.split())
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"
