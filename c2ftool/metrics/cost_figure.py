"""Scores over what they cost, and what planned phases will cost: two figures, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.canvas import (
    BLUE,
    COLOURS,
    ORANGE,
    missing_glyphs_as_boxes,
    name_stretches,
    new_figure,
    plain_axes,
    plain_legend,
    png_bytes,
    shade_stretches,
    shortened,
)
from c2ftool.metrics.report_page import flops_text, flops_unit

Role = Literal["run", "baseline", "control"]
Phase = tuple[str, float, float]
_STYLES: dict[Role, tuple[tuple[str, ...], Any]] = {  # colours and dashes by role
    "run": ((BLUE, "#009E73", "#CC79A7", "#56B4E9"), "-"),
    "baseline": (("#33383f", "#7d838c"), "-"),
    "control": ((ORANGE, "#E69F00"), (0, (5, 1.5))),
}
_WIDTH, _HEIGHT = 9.0, 4.4
_DOTTED = 40  # curves of more points are drawn without a dot at each
_ALONG = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82)  # where on its stretch a name may be, best first
_OFF_LINE = 5.0  # points between a line and a name
_NOTE_SIZE = 9
_STEP, _PAD = 2.0, 2.0  # pixels between dots that stand for lines and texts; and around a text
_END_LIFTS = sorted((6.5 * n for n in range(-24, 25)), key=abs)  # of a total above its line's end, in points


@dataclass(frozen=True)
class CostCurve:
    """The evaluations of one run. Baselines have a dashed line at their best value."""

    label: str
    points: Sequence[tuple[float, float]]  # (training FLOPs so far, value of the metric)
    role: Role
    mark: tuple[float, float] | None = None  # the point that counts, drawn as a star


def cost_figure(curves: Sequence[CostCurve], metric: str, phases: Sequence[Phase]) -> bytes:
    """The metric over training FLOPs, a line per run, as a PNG.

    phases: (name, FLOPs at its start, at its end) of the run, shaded in turn and named above. Values that are not
    finite leave gaps; points whose cost is not finite are left out. Raises ValueError if no point is left.
    """
    lines = [_line(curve.points) for curve in curves]
    if not any(len(line) for line in lines):
        raise ValueError("no evaluation to draw")
    marks = [c.mark if c.mark is not None and all(map(math.isfinite, c.mark)) else None for c in curves]
    ends = [line[-1, 0] for line in lines if len(line)] + [m[0] for m in marks if m] + [end for *_, end in phases]
    high = max(ends) or 1.0
    size, unit = flops_unit(high)
    stretches = [(name, start / size, end / size) for name, start, end in phases]
    figure = new_figure(_WIDTH, _HEIGHT + 0.2 * len(curves))
    axes = figure.subplots()
    axes.set_xlim(0, 1.02 * high / size)
    shade_stretches(axes, stretches)
    name_stretches(axes, stretches, 0.9 * _WIDTH)
    _fit_values(axes, [v for line in lines for v in line[:, 1]] + [m[1] for m in marks if m])
    floor = axes.get_ylim()[0]
    seen: dict[Role, int] = {}
    for curve, line, mark in zip(curves, lines, marks, strict=True):
        number = seen[curve.role] = seen.get(curve.role, -1) + 1
        colours, dashes = _STYLES[curve.role]
        colour = colours[number % len(colours)]
        label = _label(curve)
        known = line[np.isfinite(line[:, 1]), 1]
        if curve.role == "baseline" and len(known):
            axes.axhline(known.max(), color=colour, linewidth=1, linestyle=(0, (5, 3)), zorder=1.5)
            label += f"; dashed: its best, {known.max():.4g}"
        if mark is not None:
            place = (mark[0] / size, mark[1])
            axes.vlines(place[0], floor, place[1], colour, linestyles=(0, (1, 2)), linewidth=1, zorder=1.5)
            axes.plot(*place, "*", markersize=15, color=colour, markeredgecolor="white", zorder=4)
            label += f"; star: {mark[1]:.4g} at {flops_text(mark[0])}"
        axes.plot(
            line[:, 0] / size,
            line[:, 1],
            color=colour,
            linestyle=dashes,
            linewidth=1.6,
            marker="o" if len(line) <= _DOTTED else None,
            markersize=3.5,
            label=label,
            zorder=3 if curve.role == "run" else 2,
        )
    axes.set_ylabel(shortened(metric, 40), parse_math=False)
    axes.set_xlabel(f"training so far ({unit})")
    _finish(figure, axes)
    return png_bytes(figure)


def plan_figure(plans: Sequence[tuple[str, Sequence[tuple[str, float, float]]]]) -> bytes:
    """Training FLOPs that add up over epochs, a line per plan, as a PNG.

    plans: (label, phases), a phase being (name, epochs, training FLOPs). Phases are named along their stretch of the
    line, by their number where the name has no room, not at all where that has none; the total stands at the line's
    end. Raises ValueError without a phase.
    """
    plans = [(label, phases) for label, phases in plans if phases]
    if not plans:
        raise ValueError("no phase to draw")
    paths = [np.cumsum([(0.0, 0.0), *((p[1], p[2]) for p in phases)], axis=0) for _, phases in plans]
    size, unit = flops_unit(max(path[-1, 1] for path in paths))
    paths = [path / (1.0, size) for path in paths]
    figure = new_figure(_WIDTH, _HEIGHT + 0.6 + 0.2 * len(plans))
    axes = figure.subplots()
    for number, ((label, _), path) in enumerate(zip(plans, paths, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        shown = shortened(label.lstrip("_"), 90)
        width = 1.6 + 0.9 * min(len(plans) - 1 - number, 3)  # of lines that cover each other all are seen
        axes.plot(*path.T, color=colour, linewidth=width, marker="o", markersize=3 + width, label=shown)
    axes.set_xlim(0, 1.14 * max(path[-1, 0] for path in paths) or 1.0)  # the margin is for the totals
    axes.set_ylim(0, 1.08 * max(path[-1, 1] for path in paths) or 1.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"training so far ({unit})")
    _finish(figure, axes)
    with missing_glyphs_as_boxes():
        figure.draw_without_rendering()  # what follows needs to know where everything is
        _write_notes(_Room(axes, paths), [phases for _, phases in plans], paths, size)
    return png_bytes(figure)


def _write_notes(
    room: _Room, plans: Sequence[Sequence[Phase]], paths: Sequence[NDArray[np.float64]], size: float
) -> None:
    """The totals, then the phases' names: a total is always written, a name where there is room."""
    for number, path in enumerate(paths):
        total, colour = flops_text(float(path[-1, 1]) * size), COLOURS[number % len(COLOURS)]
        places = [_Note(total, path[-1], (8.0, lift), "left", "center") for lift in _END_LIFTS]
        room.write(places, colour, always=True)
    for number, (phases, path) in enumerate(zip(plans, paths, strict=True)):
        for place, (name, *_) in enumerate(phases):
            notes = room.along(path[place], path[place + 1], [shortened(name, 28), str(place + 1)])
            room.write(notes, COLOURS[number % len(COLOURS)])


@dataclass(frozen=True)
class _Note:
    """A text that may be written: where in data units, how far from there in points, turned by how many degrees."""

    text: str
    place: NDArray[np.float64]
    offset: tuple[float, float]
    across: Literal["left", "center"]  # what of the text is at that place
    up: Literal["bottom", "center", "top"]
    angle: float = 0.0


class _Room:
    """The free room of axes with lines in them: a text goes to the first of its places where it covers nothing."""

    def __init__(self, axes: Any, paths: Iterable[NDArray[np.float64]]) -> None:
        self.axes = axes
        self.point = axes.figure.dpi / 72  # a point in pixels, which all is measured in
        (left, bottom), (right, top) = axes.get_window_extent().get_points()
        self.inside = (left, right, bottom, top)
        self.taken = np.concatenate([_dots(axes.transData.transform(path)) for path in paths])

    def along(self, start: NDArray[np.float64], end: NDArray[np.float64], texts: Iterable[str]) -> Iterator[_Note]:
        """Notes beside a stretch of a line, turned as it is: of the first text, then of the next ...

        A text that is longer than the stretch has none.
        """
        x, y = np.subtract(*self.axes.transData.transform([end, start])).tolist()
        length, angle = math.hypot(x, y), math.degrees(math.atan2(y, x))
        for text in texts:
            if self._size(text)[0] < length:
                for share in _ALONG:
                    for off in (_OFF_LINE, -_OFF_LINE):
                        away = (-y / length * off, x / length * off)
                        yield _Note(
                            text, start + share * (end - start), away, "center", "bottom" if off > 0 else "top", angle
                        )

    def write(self, notes: Iterable[_Note], colour: str, *, always: bool = False) -> None:
        """Nothing; writes the first note that covers nothing: if all do, the first if `always`, else none."""
        notes = list(notes)
        note = next((n for n in notes if self._free(n)), notes[0] if always else None)
        if note is None:
            return
        self.taken = np.concatenate([self.taken, self._corners_and_inside(note)])
        self.axes.annotate(
            note.text, note.place, note.offset, textcoords="offset points", color=colour, fontsize=_NOTE_SIZE,
            ha=note.across, va=note.up, rotation=note.angle, rotation_mode="anchor", parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        ).set_in_layout(False)  # fmt: skip

    def _free(self, note: _Note) -> bool:
        origin, turn, (width, height), (left, low) = self._box(note)
        inside = self._corners_and_inside(note)
        x0, x1, y0, y1 = self.inside
        if not ((inside >= (x0, y0)) & (inside <= (x1, y1))).all():
            return False
        # taken dots in the text's own frame: its lower left corner is (0, 0)
        own = (self.taken - origin) @ turn.T - (left, low)
        return not ((own > -_PAD) & (own < (width + _PAD, height + _PAD))).all(axis=1).any()

    def _corners_and_inside(self, note: _Note) -> NDArray[np.float64]:
        """Dots all over the text, its corners among them."""
        origin, turn, (width, height), (left, low) = self._box(note)
        across = np.linspace(0, width, 2 + int(width / _STEP))
        up = np.linspace(0, height, 2 + int(height / _STEP))
        own = np.stack(np.meshgrid(left + across, low + up), axis=-1).reshape(-1, 2)
        return np.asarray(own @ turn + origin, np.float64)

    def _box(self, note: _Note) -> tuple[Any, Any, tuple[float, float], tuple[float, float]]:
        """The place in pixels, the text's two directions, its size, and its lower left corner seen from the place."""
        width, height = self._size(note.text)
        origin = self.axes.transData.transform(note.place) + np.multiply(note.offset, self.point)
        x, y = math.cos(math.radians(note.angle)), math.sin(math.radians(note.angle))
        low = {"bottom": 0.0, "center": -height / 2, "top": -height}[note.up]
        return (
            origin,
            np.array([(x, y), (-y, x)]),
            (width, height),
            (-width / 2 if note.across == "center" else 0.0, low),
        )

    def _size(self, text: str) -> tuple[float, float]:
        from matplotlib.text import Text

        box = Text(0, 0, text, fontsize=_NOTE_SIZE, figure=self.axes.figure, parse_math=False).get_window_extent()
        return box.width, box.height


def _dots(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dots along a line in pixels, a step or less apart."""
    steps = [max(int(np.hypot(*(b - a)) / _STEP), 1) + 1 for a, b in pairwise(path)]
    return np.concatenate([np.linspace(a, b, n) for (a, b), n in zip(pairwise(path), steps, strict=True)])


def _line(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """The points (N, 2) whose cost is finite, by their cost."""
    known = [point for point in points if math.isfinite(point[0])]
    return np.array(sorted(known, key=lambda point: point[0]), np.float64).reshape(-1, 2)


def _label(curve: CostCurve) -> str:
    label = shortened(curve.label.lstrip("_"), 50)  # a leading underscore would hide it from the legend
    return label if curve.role == "run" or curve.role in label.lower() else f"{label} ({curve.role})"


def _fit_values(axes: Any, values: Sequence[float]) -> None:
    """Nothing; leaves the values some room above and below."""
    known = [v for v in values if math.isfinite(v)]
    if known:
        margin = 0.07 * (max(known) - min(known)) or 0.1
        axes.set_ylim(min(known) - margin, max(known) + margin)


def _finish(figure: Any, axes: Any) -> None:
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    plain_axes(axes)
    plain_legend(figure, loc="outside lower center", frameon=False)
