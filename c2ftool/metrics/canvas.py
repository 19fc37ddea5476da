"""What every figure is drawn on and with: matplotlib's own canvas, without pyplot and its global state.

matplotlib is imported when a figure is drawn. Colours are those of Okabe and Ito and one-hue scales, which colour-blind
readers can tell apart. Names are printed as they are: pass `parse_math=False`, or a dollar sign starts a formula.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8A8F98"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches that keeps its parts from overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


@contextlib.contextmanager
def missing_glyphs_as_boxes() -> Iterator[None]:
    """A context in which a name in a script that the font lacks is measured and drawn as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def png_bytes(figure: Any) -> bytes:
    """The figure as a PNG file, drawn by the Agg renderer: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with missing_glyphs_as_boxes():
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


def plain_legend(where: Any, **options: Any) -> Any:
    """The legend of axes or of a figure, small, its names printed as they are."""
    legend = where.legend(fontsize=8, **options)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def shade_stretches(axes: Any, stretches: Sequence[tuple[str, float, float]]) -> None:
    """Nothing; marks stretches (name, start, end) of the horizontal axis: every other one shaded, a line between."""
    for number, (_, start, end) in enumerate(stretches):
        if number % 2:
            axes.axvspan(start, end, color="#eef1f5", linewidth=0, zorder=0)
        if number:
            axes.axvline(start, color=GREY, linewidth=0.8, zorder=0.5)


def name_stretches(axes: Any, stretches: Sequence[tuple[str, float, float]], inches: float) -> None:
    """Nothing; writes each name above its stretch, its number where the name has no room, nothing where that has none.

    inches: the width of the axes, whose limits are set.
    """
    low, high = axes.get_xlim()
    for number, (name, start, end) in enumerate(stretches, 1):
        room = inches * 72 * (end - start) / (high - low) / 5.2  # characters of 9 points
        short = shortened(name, 28)
        text = short if len(short) <= room else str(number) if len(str(number)) <= room else ""
        axes.text(
            (start + end) / 2,
            1.02,
            text,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
            color="#444444",
            parse_math=False,
        )
