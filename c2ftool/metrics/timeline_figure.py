"""One clip over time, as PNG bytes: its log-mel, and below it what is true, what was found and the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2ftool.metrics.canvas import BLUE, ORANGE, new_figure, plain_axes, png_bytes, shortened

TimedEvent = tuple[float, float, str]

MOST_LANES = 12
LOW_SCORE = 0.1  # a class that is neither true nor found has a lane from here
_WIDTH, _TOP, _LANE = 9.0, 2.3, 0.48  # inches
_CURVE = "#3b3f45"
_CURVE_ROOM, _TRUTH_AT, _FOUND_AT, _BAR = 0.56, 0.86, 0.69, 0.14  # heights in a lane, from its lower edge


def timeline_figure(
    features: ArrayLike,
    hop_seconds: float,
    truth: Sequence[TimedEvent],
    detections: Sequence[TimedEvent],
    scores: ArrayLike,
    names: Sequence[str],
    frame_seconds: float,
    title: str,
) -> bytes:
    """A clip's log-mel and a lane for each class with something in it, as a PNG; times in seconds.

    features: (frames, mels) normalised log-mel. truth, detections: (onset, offset, class). scores: (C, T)
    probabilities of the classes `names`, frame k lasting from k to k + 1 frame_seconds; what is not finite leaves gaps.
    A lane holds the truth (blue), the detections (orange) and the score. Lanes go to true classes first, then to those
    found, then to those whose score exceeds 0.1, highest first; 12 at most, the others are counted. Raises ValueError
    where shapes do not fit.
    """
    picture = np.asarray(features, np.float64)
    values = np.asarray(scores, np.float64)
    values = values.reshape(len(names), -1) if values.size else np.zeros((len(names), 0))
    if picture.ndim != 2 or not picture.size:
        raise ValueError(f"features must be (frames, mels), not {picture.shape}")
    if np.ndim(scores) == 2 and np.shape(scores)[0] != len(names):
        raise ValueError(f"{np.shape(scores)[0]} rows of scores for {len(names)} names")
    seconds = max(picture.shape[0] * hop_seconds, values.shape[1] * frame_seconds)
    chosen = _lanes(truth, detections, values, names)
    shown = chosen[:MOST_LANES]
    figure = new_figure(_WIDTH, _TOP + 0.95 + _LANE * max(len(shown), 1))
    top, lanes = figure.subplots(2, 1, sharex=True, height_ratios=[_TOP, _LANE * max(len(shown), 1)])
    _draw_log_mel(top, picture, hop_seconds)
    top.set_title(shortened(title, 90), fontsize=11, parse_math=False)
    rows = {name: row for row, name in enumerate(names)}
    for place, name in enumerate(shown):
        base = len(shown) - 1 - place
        _draw_events(lanes, [e for e in truth if e[2] == name], base + _TRUTH_AT, BLUE, base)
        _draw_events(lanes, [e for e in detections if e[2] == name], base + _FOUND_AT, ORANGE, None)
        if name in rows and values.shape[1]:
            _draw_score(lanes, values[rows[name]], base, frame_seconds)
        if place:
            lanes.axhline(base + 1, color="#c9ced6", linewidth=0.8)
    lanes.set_yticks([len(shown) - 0.5 - n for n in range(len(shown))], [shortened(name, 26) for name in shown])
    for text in lanes.get_yticklabels():
        text.set_parse_math(False)
    lanes.set(xlim=(0, seconds), ylim=(0, max(len(shown), 1)), xlabel=_time_label(len(chosen) - len(shown)))
    lanes.tick_params(axis="y", length=0)
    lanes.grid(axis="x", color="#e3e5e8", linewidth=0.6)
    lanes.set_axisbelow(True)
    plain_axes(lanes)
    if not shown:
        lanes.text(0.5, 0.5, "no event, no detection, no score above 0.1", transform=lanes.transAxes, ha="center",
                   va="center", fontsize=9, color="#555555")  # fmt: skip
    _explain(figure)
    return png_bytes(figure)


def _lanes(
    truth: Sequence[TimedEvent], detections: Sequence[TimedEvent], values: NDArray[np.float64], names: Sequence[str]
) -> list[str]:
    """The classes that have something to show, those that matter most first."""
    true = [name for _, _, name in sorted(truth, key=lambda event: event[0])]
    found = [name for _, _, name in sorted(detections, key=lambda event: event[0])]
    peaks = np.where(np.isfinite(values), values, -np.inf).max(axis=1, initial=-np.inf)
    scored = [names[row] for row in np.argsort(-peaks, kind="stable") if peaks[row] > LOW_SCORE]
    return list(dict.fromkeys([*true, *found, *scored]))


def _draw_log_mel(axes: Any, picture: NDArray[np.float64], hop_seconds: float) -> None:
    known = picture[np.isfinite(picture)]
    # digital silence lies far below all sound and would take up the whole scale
    low, high = np.percentile(known, (3.0, 99.8)) if known.size else (0.0, 1.0)
    frames, mels = picture.shape
    axes.imshow(
        picture.T, origin="lower", aspect="auto", interpolation="nearest", cmap="magma", vmin=low,
        vmax=max(high, low + 1e-6), extent=(0, frames * hop_seconds, 0, mels),
    )  # fmt: skip
    axes.set_ylabel("mel band")
    axes.tick_params(labelbottom=False)
    plain_axes(axes)


def _draw_events(axes: Any, events: Sequence[TimedEvent], height: float, colour: str, shade: float | None) -> None:
    """A bar for each event; `shade`: the lower edge of the lane, whose stretch is shaded too."""
    for onset, offset, _ in events:
        left, width = onset, max(offset - onset, 0.0)
        axes.barh(height, width, left=left, height=_BAR, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
        if shade is not None:
            axes.barh(shade + 0.5, width, left=left, height=1.0, color=colour, alpha=0.1, linewidth=0, zorder=0.5)


def _draw_score(axes: Any, values: NDArray[np.float64], base: float, frame_seconds: float) -> None:
    """The score as steps from the lane's lower edge (0) to a little above its middle (1)."""
    edges = np.arange(len(values) + 1) * frame_seconds
    heights = base + 0.02 + _CURVE_ROOM * np.clip(np.append(values, values[-1]), 0, 1)
    axes.fill_between(edges, base, heights, step="post", color=_CURVE, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(edges, heights, drawstyle="steps-post", color=_CURVE, linewidth=1.1, zorder=2.5)
    axes.axhline(base + 0.02 + 0.5 * _CURVE_ROOM, color=_CURVE, linewidth=0.5, linestyle=(0, (1, 3)), zorder=1)


def _time_label(others: int) -> str:
    more = {0: "", 1: " (1 more class is not shown)"}.get(others, f" ({others} more classes are not shown)")
    return f"seconds{more}"


def _explain(figure: Any) -> None:
    """The legend, the same whether or not the clip has one of each."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Patch(color=BLUE, label="truth"),
            Patch(color=ORANGE, label="detected"),
            Line2D([], [], color=_CURVE, label="score (dotted: 0.5)"),
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
