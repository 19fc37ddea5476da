"""Segment-based agreement of detections with the truth, and the partial area under the ROC curve of segments' scores.

Counts are those of `sed_eval.sound_event.SegmentBasedMetrics`, areas those of `sed_scores_eval.segment_based.auroc`.

Axes: N clips, C classes, T frames, E events, M segments of all clips. Times in seconds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.events import Agreement, check_same, mean_of_known
from c2ftool.metrics.tables import Float64, FrameScores, Int64, Truth

_BLOCK = 1 << 25  # frames, and segments, taken at once: bounds the copies to some 200 MiB
_DECIMALS = 6  # borders of frames and segments are compared as whole microseconds


def segment_based(
    truth: Truth, found: Truth, seconds: float = 1.0, within_clips: bool = False, silent_is_zero: bool = False
) -> Agreement:
    """The agreement of detections with the truth in segments of so many seconds: a class is in a segment or it is not.

    A segment counts for a class that is active in any part of it: an event from 0.9 to 2.1 is in the first three. A
    segment's substitutions are the smaller of its missed and its false classes, deletions or insertions the rest.

    A clip whose length is not a whole number of segments ends with a whole segment. within_clips: segments beyond it
    are left out (sed_eval's `evaluated_length_seconds`); otherwise an event that lasts beyond its clip counts as long
    as it lasts, sed_eval's default.

    Times must not be negative. Raises ValueError if the tables are not of the same clips and classes.
    """
    check_same(truth, found)
    if not 0 < seconds < math.inf:
        raise ValueError(f"segments must last more than 0 s, not {seconds}")
    classes = len(truth.classes)
    ends = np.ceil(truth.durations / seconds).astype(np.int64) if within_clips else None
    spans = [_span(table, seconds, ends) for table in (truth, found)]
    most = max((int(stop.max(initial=0)) for _, stop in spans), default=0)
    real, told = (
        _distinct((table.clip.repeat(length) * most + place) * classes + table.label.repeat(length))
        for table, span in zip((truth, found), spans, strict=True)
        for place, length in [_places(*span)]
    )
    both = np.intersect1d(real, told, assume_unique=True)
    cells = _distinct(np.concatenate([real, told]) // max(classes, 1))
    in_truth, in_found, in_both = (
        np.bincount(np.searchsorted(cells, part // max(classes, 1)), minlength=len(cells))
        for part in (real, told, both)
    )
    reference, detected, correct = (
        np.bincount(part % max(classes, 1), minlength=classes).astype(np.int64) for part in (real, told, both)
    )
    return Agreement(
        reference,
        detected,
        correct,
        substitutions=int((np.minimum(in_truth, in_found) - in_both).sum()),
        deletions=int(np.maximum(in_truth - in_found, 0).sum()),
        insertions=int(np.maximum(in_found - in_truth, 0).sum()),
        silent_is_zero=silent_is_zero,
    )


def partial_auroc(
    scores: FrameScores, truth: Truth, seconds: float = 1.0, max_fpr: float = 0.1, unscored: float = 0.0
) -> Float64:
    """(C,) area under the ROC curve of segments up to a false positive rate, divided by that rate: 1 at best.

    As sed_scores_eval defines it: the curve goes in steps, straight on to the next false positive, and the area is not
    standardised by McClish's formula, so that chance has max_fpr / 2. NaN for a class without a positive segment or
    without a negative one; such classes are left out of `mean_partial_auroc`, where sed_scores_eval refuses them.

    A clip of `duration` has ceil(duration / seconds) segments. A segment's score is the highest of the frames that
    share any time with it, and `unscored` where it has none (a clip longer than its scores); a segment is positive if
    an event shares time with it. The library's 0 is the least of probabilities; of logits it is -inf.

    Raises ValueError if scores and truth are not of the same clips and classes, or for a rate outside 0 < rate <= 1.
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must be above 0 and at most 1, not {max_fpr}")
    values, marks = segment_scores(scores, truth, seconds, unscored)
    result = np.full(len(truth.classes), np.nan)
    width = max(1, _BLOCK // max(len(values), 1))
    for first in range(0, len(result), width):
        block = np.ascontiguousarray(values[:, first : first + width].T)
        chosen = np.ascontiguousarray(marks[:, first : first + width].T)
        for offset, (row, mark) in enumerate(zip(block, chosen, strict=True)):
            result[first + offset] = _area(row[mark], row[~mark], max_fpr)
    return result


def mean_partial_auroc(scores: FrameScores, truth: Truth, seconds: float = 1.0, max_fpr: float = 0.1) -> float:
    """The mean of `partial_auroc` over the classes that have one; NaN if none has. Errors as there."""
    return mean_of_known(partial_auroc(scores, truth, seconds, max_fpr))


def segment_scores(
    scores: FrameScores, truth: Truth, seconds: float = 1.0, unscored: float = 0.0
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """((M, C) scores, (M, C) whether an event is there) of the clips' segments, clip by clip. See `partial_auroc`."""
    check_same(truth, scores)
    if not 0 < seconds < math.inf:
        raise ValueError(f"segments must last more than 0 s, not {seconds}")
    clips, classes, frames = scores.values.shape
    counts = np.ceil(truth.durations / seconds).astype(np.int64)
    begins = np.cumsum(counts) - counts
    borders = np.round(np.arange(counts.max(initial=0) + 1) * seconds, _DECIMALS)
    grid = np.round(np.arange(frames + 1) * scores.frame, _DECIMALS)
    first = np.searchsorted(grid[1:], borders[:-1], "right")
    last = np.searchsorted(grid[:-1], borders[1:], "left")
    scored = int(np.searchsorted(first, frames))  # segments that have a frame in the longest clip
    places = np.stack([first, last], axis=1)[:scored].ravel()
    dtype = np.float32 if scores.values.dtype == np.float16 else scores.values.dtype
    result = np.full((int(counts.sum()), classes), unscored, dtype)
    width = max(1, _BLOCK // max(classes * frames, 1))
    for start in range(0, clips if scored else 0, width):
        rows = slice(start, start + width)
        own, number = scores.frames[rows], np.arange(scored)
        values = np.full((len(own), classes, frames + 1), -np.inf, dtype)  # a place more, where `last` may point
        values[:, :, :frames] = scores.values[rows]
        if (own < frames).any():
            values[np.broadcast_to((np.arange(frames + 1) >= own[:, None])[:, None], values.shape)] = -np.inf
        highest = np.maximum.reduceat(values, places, axis=2)[:, :, ::2].transpose(0, 2, 1)
        there = (number < counts[rows, None]) & (first[:scored] < own[:, None])
        result[(begins[rows, None] + number)[there]] = highest[there]
    return result, _marks(truth, borders, counts, begins)


def _marks(truth: Truth, borders: Float64, counts: Int64, begins: Int64) -> NDArray[np.bool_]:
    """(M, C) whether an event of the class shares time with the segment."""
    marks = np.zeros((int(counts.sum()), len(truth.classes)), np.bool_)
    if len(marks):
        first = np.searchsorted(borders[1:], truth.onset, "right")
        last = np.minimum(np.searchsorted(borders[:-1], truth.offset, "left"), counts[truth.clip])
        place, length = _places(first, last)
        marks[begins[truth.clip].repeat(length) + place, truth.label.repeat(length)] = True
    return marks


def _distinct(numbers: Int64) -> Int64:
    """The different numbers, sorted. `np.unique` hashes, which takes fifty times as long for millions."""
    ordered = np.sort(numbers)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _span(table: Truth, seconds: float, ends: Int64 | None) -> tuple[Int64, Int64]:
    """(first, last) segment of each event, last exclusive, within its clip if ends (N,) are given."""
    start = np.maximum(np.floor(table.onset / seconds).astype(np.int64), 0)
    stop = np.ceil(table.offset / seconds).astype(np.int64)
    return start, stop if ends is None else np.minimum(stop, ends[table.clip])


def _places(start: Int64, stop: Int64) -> tuple[Int64, Int64]:
    """(all numbers from start to stop of each event in turn, how many each has)."""
    length = np.maximum(stop - start, 0)
    return np.arange(length.sum()) + np.repeat(start - np.cumsum(length) + length, length), length


def _area(positives: NDArray[np.floating], negatives: NDArray[np.floating], max_fpr: float) -> float:
    """Area under one class's staircase up to max_fpr, divided by it; NaN without positives or negatives."""
    if not len(positives) or not len(negatives):
        return math.nan
    # each false positive is a step 1 / negatives wide, as high as the share of positives strictly above it
    steps = max_fpr * len(negatives)
    whole = min(int(steps), len(negatives))
    count = min(whole + 1, len(negatives))
    highest = np.sort(np.partition(negatives, len(negatives) - count)[len(negatives) - count :])[::-1]
    above = len(positives) - np.searchsorted(np.sort(positives), highest, "right")
    cut = (steps - whole) * above[whole] if whole < count else 0.0
    return float((above[:whole].sum() + cut) / (len(positives) * steps))
