"""The training curves of a run in one figure, phases marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c2ftool.metrics.canvas import (
    COLOURS,
    name_stretches,
    new_figure,
    plain_axes,
    plain_legend,
    png_bytes,
    shade_stretches,
    shortened,
)
from c2ftool.metrics.definitions import METRICS

Curve = Sequence[tuple[float, float]]
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))
_POINTS = 300  # longer curves are drawn as means of so many stretches, with their range as a band
_WIDTH = 9.0


def curve_figure(curves: Mapping[str, Curve], phases: Sequence[tuple[str, int, int]]) -> bytes:
    """The curves over optimiser steps, as a PNG: a panel for the losses, one for the scores, one for each other name.

    curves: name -> (step, value) pairs; values that are not finite leave gaps. phases: (name, first step, last step),
    shaded in turn and named above the top panel. Losses that are all positive and span a factor of ten have a
    logarithmic axis. Raises ValueError without curves.
    """
    panels = _panels(curves)
    if not panels:
        raise ValueError("no curve to draw")
    figure = new_figure(_WIDTH, 0.7 + 2.1 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    steps = [step for curve in curves.values() for step, _ in curve] + [s for _, *ends in phases for s in ends]
    low, high = min(steps), max(steps)
    margin = 0.01 * (high - low) or 1
    stretches = [(name, first - 0.5, last + 0.5) for name, first, last in phases]
    for axes, (title, names) in zip(grid, panels.items(), strict=True):
        axes.set_xlim(low - margin, high + margin)
        shade_stretches(axes, stretches)
        for number, name in enumerate(names):
            _draw(axes, curves[name], name, number)
        values = np.array([v for name in names for _, v in curves[name] if math.isfinite(v)])
        if title == "loss" and len(values) and values.min() > 0 and values.max() >= 10 * values.min():
            _logarithmic(axes)
        axes.set_ylabel(shortened(title, 24), parse_math=False)
        axes.grid(axis="y", color="#e3e5e8", linewidth=0.6)
        axes.set_axisbelow(True)
        plain_axes(axes)
        if len(names) > 1 or names[0] != title:
            plain_legend(axes, framealpha=0.85, edgecolor="none", ncols=1 + len(names) // 5)
    name_stretches(grid[0], stretches, 0.9 * _WIDTH)
    grid[-1].set_xlabel("optimiser step")
    grid[-1].xaxis.get_major_locator().set_params(integer=True)
    grid[-1].xaxis.set_major_formatter("{x:,.0f}")
    return png_bytes(figure)


def _panels(curves: Mapping[str, Curve]) -> dict[str, list[str]]:
    """Title of a panel -> its curves: losses first, then scores, then the others by the last part of their name."""
    panels: dict[str, list[str]] = {"loss": [], "score": []}
    for name, curve in curves.items():
        last = name.replace(".", "/").split("/")[-1]
        if len(curve):
            title = "loss" if "loss" in name.lower() else "score" if last in METRICS and last != "d_prime" else last
            panels.setdefault(title, []).append(name)
    return {title: names for title, names in panels.items() if names}


def _draw(axes: Any, curve: Curve, name: str, number: int) -> None:
    points = np.asarray(sorted(curve), np.float64)
    style = {"color": COLOURS[number % len(COLOURS)], "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.5}
    label = shortened(name.lstrip("_"), 40)  # a leading underscore would hide it from the legend
    if len(points) <= _POINTS:
        axes.plot(*points.T, marker="o" if len(points) <= 40 else None, markersize=3.5, label=label, **style)
        return
    points = points[np.isfinite(points[:, 1])]
    stretches = np.array_split(points, min(_POINTS, max(len(points), 1)))
    middle, mean, least, most = (
        np.array([(s[:, 0].mean(), s[:, 1].mean(), s[:, 1].min(), s[:, 1].max()) for s in stretches if len(s)])
        .reshape(-1, 4)
        .T
    )
    axes.fill_between(middle, least, most, color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(middle, mean, label=label, **style)


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis labelled 0.2, 0.5, 1, 2 ...: a loss seldom spans enough decades for powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
