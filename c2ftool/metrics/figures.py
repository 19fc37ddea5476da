"""Figures of an evaluation, as PNG bytes: confusion, scores by class. Readable from 2 to 1000 classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.canvas import BLUE, ORANGE, new_figure, plain_axes, png_bytes, shortened

NAMED_CLASSES = 60  # up to here every class is written at the axis
_NUMBERED_CLASSES = 20  # up to here every cell holds its count
_EXTREMES = 20  # classes named at either end where not all can be


def confusion_figure(confusion: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """The confusion matrix (C, C), label by prediction, as a PNG.

    Each row is coloured by its shares, so that rare classes show; cells hold counts where they fit, and classes are
    named where they fit.
    """
    from matplotlib.colors import PowerNorm

    count = len(classes)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    named = count <= NAMED_CLASSES
    side = min(max(3.2, 0.42 * count if count <= _NUMBERED_CLASSES else 0.19 * count), 11.0) if named else 8.0
    figure = new_figure(side + 2.6, side + 1.9)
    axes = figure.add_subplot()
    # among hundreds of classes a mistake is a faint dot: the square root makes it visible
    scale = {"vmin": 0, "vmax": 1} if named else {"norm": PowerNorm(0.5, 0, 1)}
    picture = axes.imshow(shares, cmap="Blues", interpolation="nearest", **scale)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("label")
    if named:
        size = 9 if count <= _NUMBERED_CLASSES else 7
        names = [shortened(name, 22) for name in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(count), names, fontsize=size, parse_math=False)
        axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=0.8)
        axes.tick_params(which="both", length=0)
    else:
        axes.set_xlabel(f"predicted class (1 to {count}, in the order of the table)")
        axes.set_ylabel(f"label (1 to {count})")
        axes.set_xticks(_ticks(count) - 1, [str(t) for t in _ticks(count)])
        axes.set_yticks(_ticks(count) - 1, [str(t) for t in _ticks(count)])
    if count <= _NUMBERED_CLASSES:
        small = 9 if confusion.max() < 1000 else 7
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[row, column] > 0.55 else "#1a1a1a"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=small, color=colour)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("share of the label's clips" + ("" if named else ", square-root scale"))
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    return png_bytes(figure)


def class_figure(values: Sequence[tuple[str, float | None]], what: str) -> bytes:
    """A figure by class in 0 .. 1, sorted, as a PNG: bars of all classes, or of both ends and a curve between.

    values: (class, value or None); classes without a value are left out and counted in the title.
    """
    known = sorted(((name, value) for name, value in values if value is not None), key=lambda pair: -pair[1])
    missing = len(values) - len(known)
    mean = sum(value for _, value in known) / len(known) if known else math.nan
    title = f"{what} by class, mean {mean:.3f}" + (f"; not defined for {missing}" if missing else "")
    if len(known) <= NAMED_CLASSES:
        figure = new_figure(7.5, 1.3 + 0.23 * max(len(known), 3))
        _bars(figure.add_subplot(), known, mean)
    else:
        figure = new_figure(11.5, 8.2)
        top, bottom = figure.subfigures(2, 1, height_ratios=[2.1, 1])
        left, right = top.subplots(1, 2)
        _bars(left, known[:_EXTREMES], mean)
        left.set_title(f"highest {_EXTREMES}", fontsize=10)
        _bars(right, known[-_EXTREMES:], mean)
        right.set_title(f"lowest {_EXTREMES}", fontsize=10)
        curve = bottom.subplots()
        heights = [value for _, value in known]
        curve.fill_between(range(1, len(known) + 1), heights, step="mid", color=BLUE, alpha=0.85, linewidth=0)
        curve.axhline(mean, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)))
        curve.set(xlim=(0.5, len(known) + 0.5), ylim=(0, 1), xlabel="class, from the highest", ylabel=what)
        plain_axes(curve)
    figure.suptitle(title, fontsize=11)
    return png_bytes(figure)


def _bars(axes: Any, pairs: Sequence[tuple[str, float]], mean: float) -> None:
    """Horizontal bars in the given order, from the top, each with its value; a dashed line at the mean."""
    places = np.arange(len(pairs))
    axes.barh(places, [value for _, value in pairs], color=BLUE, height=0.72)
    axes.set_yticks(places, [shortened(name, 34) for name, _ in pairs], fontsize=8.5, parse_math=False)
    axes.set(ylim=(len(pairs) - 0.4, -0.6), xlim=(0, 1), xticks=[0, 0.25, 0.5, 0.75, 1])
    for place, (_, value) in zip(places, pairs, strict=True):  # in a column of their own, clear of bars and line
        axes.text(1.02, place, f"{value:.3f}", va="center", fontsize=8, color="#333333")
    axes.axvline(mean, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=0)
    axes.tick_params(axis="y", length=0)
    plain_axes(axes)


def _ticks(count: int) -> NDArray[np.int64]:
    """Round class numbers from 1 to the count, about eight."""
    step = 10 ** int(math.log10(count))
    while count / step < 5:
        step //= 2
    return np.unique(np.r_[1, np.arange(step, count + 1, step)])
