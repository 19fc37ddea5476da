"""The PSD-ROC of a detector in one figure, as PNG bytes. Readable from one class to hundreds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2ftool.metrics.canvas import BLUE, GREY, ORANGE, new_figure, plain_axes, plain_legend, png_bytes, shortened

Steps = tuple[ArrayLike, ArrayLike]
_Known = tuple[str, NDArray[np.float64], float]  # of a class: name, TPR at the places of the grid, area

_LINES = 20  # up to here every class has its line and its name
_ENDS = 4  # classes with a line at either end where not all have one
_POINTS = 900  # places at which heights are taken: more than the picture has pixels across
_BANDS = ((0.1, 0.9, 0.16, "10 % to 90 % of the classes"), (0.25, 0.75, 0.28, "25 % to 75 %"))
_BEST, _WORST = "#009E73", "#CC79A7"
_MEDIAN = "#14304a"
_NAME_GAP = 0.048  # between names, as a share of the axis
_WIDTH, _HEIGHT = 9.0, 5.2


def psd_roc_figure(
    curves: Sequence[Steps], names: Sequence[str], effective: Steps, psds: float, max_efpr: float, what: str = "PSDS"
) -> bytes:
    """True positive rates over effective false positives per hour, as a PNG.

    curves: (eFPR, TPR) of each class, eFPR ascending: each TPR holds until the next eFPR, the last to the end, and
    before the first it is 0. Classes whose curve is empty or not finite are left out and counted in the title. Up to
    20 classes have a line each, more are shown as quantiles and the best and worst few. effective: the curve that
    `psds` is the area of, drawn thick (not if it is empty or not finite). max_efpr: the end of the axis, above 0.
    what: the name of the figure in the legend. Raises ValueError where numbers of curves and names differ.
    """
    if len(curves) != len(names):
        raise ValueError(f"{len(curves)} curves for {len(names)} names")
    if not 0 < max_efpr < math.inf:
        raise ValueError(f"max_efpr must be finite and above 0, not {max_efpr}")
    grid = np.linspace(0.0, max_efpr, _POINTS)
    found = [(name, _heights(curve, grid), _area(curve, max_efpr)) for name, curve in zip(names, curves, strict=True)]
    known = sorted(((n, h, a) for n, h, a in found if h is not None and a is not None), key=lambda item: -item[2])
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.add_subplot()
    named = _draw_classes(axes, grid, known)
    value = f"{what}: {psds:.4f}" if math.isfinite(psds) else f"{what}: not defined"
    whole = _heights(effective, grid)
    place = (grid, whole) if whole is not None else ((), ())
    axes.plot(*place, drawstyle="steps-post", color=ORANGE, linewidth=2.6, zorder=4, label=value)
    _name_lines(axes, named, max_efpr)
    axes.set(xlim=(0, max_efpr), ylim=(0, 1.005), xlabel="effective false positives per hour (eFPR)")
    axes.set_ylabel("true positive rate")
    axes.grid(color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    plain_axes(axes)
    plain_legend(figure, loc="outside lower center", frameon=False, ncols=3)
    if not known:
        axes.text(0.5, 0.5, "no class has a curve", transform=axes.transAxes, ha="center", fontsize=9, color="#555555")
    absent = len(curves) - len(known)
    count = "1 class" if len(known) == 1 else f"{len(known)} classes"
    axes.set_title(f"PSD-ROC, {count}" + (f"; not defined for {absent}" if absent else ""), fontsize=11)
    return png_bytes(figure)


def _points(curve: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(eFPR, TPR) as arrays; None where there is no point or one is not a number."""
    efpr, tpr = (np.asarray(part, np.float64).reshape(-1) for part in curve)
    if len(efpr) != len(tpr):
        raise ValueError(f"{len(efpr)} eFPR for {len(tpr)} TPR")
    # the eFPR of a curve's last point may be infinite, which is beyond the axis
    return None if not len(efpr) or np.isnan(efpr).any() or not np.isfinite(tpr).all() else (efpr, tpr)


def _heights(curve: Steps, grid: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The curve's TPR at each place of the grid, None where it has none."""
    points = _points(curve)
    if points is None:
        return None
    efpr, tpr = points
    return np.concatenate([[0.0], tpr])[np.searchsorted(efpr, grid, side="right")]


def _area(curve: Steps, max_efpr: float) -> float | None:
    """The area under the curve's steps up to `max_efpr`, as a share of all there is; None where it has none."""
    points = _points(curve)
    if points is None:
        return None
    efpr, tpr = points
    widths = np.diff(np.append(np.clip(efpr, 0.0, max_efpr), max_efpr))
    return float(widths @ tpr / max_efpr)


def _draw_classes(axes: Any, grid: NDArray[np.float64], known: Sequence[_Known]) -> list[tuple[_Known, str]]:
    """A line for each class of few, bands and a few lines of many; returns the lines to be named, with colours."""
    if len(known) <= _LINES:
        for number, (_, heights, _) in enumerate(known):
            label = "a class, its area at its name" if not number else None
            axes.plot(grid, heights, drawstyle="steps-post", color=BLUE, linewidth=0.9, alpha=0.45, label=label)
        return [(item, GREY) for item in known]
    stacked = np.stack([heights for _, heights, _ in known])
    for low, high, alpha, label in _BANDS:
        edges = np.quantile(stacked, (low, high), axis=0)
        axes.fill_between(grid, *edges, step="post", color=BLUE, alpha=alpha, linewidth=0, label=label)
    axes.plot(
        grid, np.median(stacked, axis=0), drawstyle="steps-post", color=_MEDIAN, linewidth=1.1,
        linestyle=(0, (4, 2)), zorder=5, label="median",
    )  # fmt: skip
    for ends, colour, label in ((known[:_ENDS], _BEST, "best"), (known[-_ENDS:], _WORST, "worst")):
        for number, (_, heights, _) in enumerate(ends):
            text = f"{label} {_ENDS}, their areas at their names" if not number else None
            axes.plot(grid, heights, drawstyle="steps-post", color=colour, linewidth=1.2, alpha=0.8, label=text)
    return [(i, _BEST) for i in known[:_ENDS]] + [(i, _WORST) for i in known[-_ENDS:]]


def _name_lines(axes: Any, lines: Sequence[tuple[_Known, str]], end: float) -> None:
    """Each line's name and area to the right of its end, moved apart, with a thin line from one to the other."""
    places = _apart([float(heights[-1]) for (_, heights, _), _ in lines], _NAME_GAP)
    for ((name, heights, area), colour), place in zip(lines, places, strict=True):
        axes.annotate(
            f"{shortened(name, 26)}  {area:.3f}",
            (end, float(heights[-1])),
            (1.045, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color="#333333",
            parse_math=False,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 1,
                        "shrinkB": 0},
        )  # fmt: skip


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved apart to at least `gap` in their order, by as little as can be, within 0 .. 1.

    Without the gaps below each, places must ascend: least squares are then means of pooled neighbours. Where 1 is too
    low for all the gaps, the upper ones lie above it.
    """
    order = np.argsort(heights, kind="stable")
    pools: list[tuple[float, int]] = []  # (mean, how many)
    for number, row in enumerate(order):
        mean, count = heights[row] - number * gap, 1
        while pools and pools[-1][0] >= mean:
            below, many = pools.pop()
            mean, count = (mean * count + below * many) / (count + many), count + many
        pools.append((mean, count))
    highest = max(1.0 - gap * (len(order) - 1), 0.0)
    places = np.array([min(max(mean, 0.0), highest) for mean, count in pools for _ in range(count)])
    moved = np.empty(len(order))
    moved[order] = places + gap * np.arange(len(order))
    return moved.tolist()
