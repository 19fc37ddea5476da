"""From scores over time to events: thresholds, gaps, shortest durations.

Axes: N clips, C classes, T frames, E events. Times in seconds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from c2ftool.metrics.tables import FrameScores, Int64, Truth

Times = Literal["frame", "centre"]
_BLOCK = 1 << 25  # frames compared at once: bounds the copies to some 200 MiB whatever N, C and T
_DECIMALS = 6  # times are whole microseconds, so that 7 frames of 40 ms end at 0.28 and not a rounding error later


def decode(
    scores: FrameScores,
    threshold: ArrayLike,
    min_duration: float = 0.0,
    min_gap: float = 0.0,
    times: Times = "frame",
) -> Truth:
    """The events that the scores show, sorted by clip, onset and class; durations are frames x frame length.

    An event is a run of frames whose score reaches the threshold, a number or (C,) numbers, which is rounded to the
    scores' own precision. First, runs of a class with less than `min_gap` between them become one, scores in the gap
    or not; then events shorter than `min_duration` are left out. Frames beyond a clip's own are no part of any event.

    times: "frame", as PSDS defines detections: a frame is active where score >= threshold; an event lasts from the
    start of its first frame to the end of its last. "centre", as HEAR's event tasks (DCASE 2016 Task 2, MAESTRO): a
    frame is active where score > threshold; an event lasts from the centre of its first frame to that of its last,
    half a frame late and a whole frame short, and that is the duration compared with `min_duration`.

    Raises ValueError for a threshold of another shape or NaN, and for negative or non-finite durations.
    """
    clips, classes, frames = scores.values.shape
    levels = _levels(threshold, scores.values.dtype, classes)
    gap = _least_frames(min_gap, scores.frame, "min_gap")
    least = _least_frames(min_duration, scores.frame, "min_duration")
    width = max(1, _BLOCK // max(classes * frames, 1))
    runs = []
    for first in range(0, max(clips, 1), width):
        values = scores.values[first : first + width]
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # numpy compares these ten times as fast
        active = np.zeros((*values.shape[:2], frames + 1), np.bool_)  # a frame more, so that every run ends
        (np.greater if times == "centre" else np.greater_equal)(values, levels, out=active[:, :, :frames])
        own = scores.frames[first : first + width]
        if (own < frames).any():
            active &= np.arange(frames + 1) < own[:, None, None]
        row, start, stop = _joined(*_runs(active), gap)
        runs.append((row + first * classes, start, stop))
    row, start, stop = (np.concatenate(part) for part in zip(*runs, strict=True))
    inset = 0.5 if times == "centre" else 0.0
    kept = stop - start - 2 * inset >= least
    clip, label = np.divmod(row[kept], max(classes, 1))
    onset = np.round((start[kept] + inset) * scores.frame, _DECIMALS)
    offset = np.round((stop[kept] - inset) * scores.frame, _DECIMALS)
    order = np.lexsort((label, onset, clip))
    durations = np.round(scores.frames * scores.frame, _DECIMALS)
    return Truth(scores.ids, scores.classes, durations, clip[order], label[order], onset[order], offset[order])


def _levels(threshold: ArrayLike, dtype: np.dtype, classes: int) -> NDArray[np.floating]:
    """(C, 1) thresholds with the scores' precision."""
    levels = np.asarray(threshold, np.float64)
    if levels.shape not in ((), (classes,)):
        raise ValueError(f"a threshold for each of {classes} classes, or one for all, not {levels.shape}")
    if np.isnan(levels).any():
        raise ValueError("a threshold is NaN")
    rounded = np.broadcast_to(levels, (classes,)).astype(dtype)
    return (rounded.astype(np.float32) if dtype == np.float16 else rounded)[:, None]


def _least_frames(seconds: float, frame: float, name: str) -> int:
    """The fewest frames that last so long, a millionth of a frame less being as good."""
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be 0 s or more, not {seconds}")
    return math.ceil(round(seconds / frame, 6))


def _runs(active: NDArray[np.bool_]) -> tuple[Int64, Int64, Int64]:
    """(row, first, last) of each run of active frames, last exclusive, row by row; no row's last frame is active."""
    line = active.reshape(-1)
    changes = np.flatnonzero(line[1:] != line[:-1]) + 1  # where runs begin and end, in turn
    changes = np.append(np.flatnonzero(line[:1]), changes)
    row, start = np.divmod(changes[::2], active.shape[-1])
    return row, start, changes[1::2] - row * active.shape[-1]


def _joined(row: Int64, start: Int64, stop: Int64, gap: int) -> tuple[Int64, Int64, Int64]:
    """The runs of `_runs`, those less than `gap` frames apart made one."""
    apart = (row[1:] != row[:-1]) | (start[1:] - stop[:-1] >= gap)
    first, last = np.append(True, apart)[: len(row)], np.append(apart, True)[: len(row)]
    return row[first], start[first], stop[last]
