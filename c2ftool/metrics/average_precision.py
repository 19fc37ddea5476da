"""Ranking metrics of each class: average precision, area under the ROC curve, d-prime. Exact, ties included.

Both need, for each positive clip, only how many clips and how many positives score at least as much. So the scores
are sorted as bare values, without the clips' order, and the few positives looked up: a tie is one place in the table.

Axes: N clips, C classes, P positives of one class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_BLOCK = 1 << 22  # scores sorted at once: bounds the copy to 16 or 32 MiB whatever N and C


def average_precision(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Average precision of each class, (C,) float64; NaN for a class without a positive.

    The sum over thresholds of precision times the gain in recall, without interpolation; clips with equal scores pass
    a threshold together. Equal to `sklearn.metrics.average_precision_score` within 1e-12.

    targets: (N, C), 0 or 1. scores: (N, C), finite, compared in their own precision.
    Raises ValueError for other shapes or values.
    """
    marks, values = _checked(targets, scores)
    clips = len(values)
    result = np.full(values.shape[1], np.nan)
    for column, ordered, positives in _columns(marks, values):
        if len(positives):
            below = np.searchsorted(ordered, positives, "left")
            positives_below = np.searchsorted(positives, positives, "left")
            # each positive adds 1/P of recall at the precision of its own threshold
            result[column] = np.mean((len(positives) - positives_below) / (clips - below))
    return result


def mean_average_precision(targets: ArrayLike, scores: ArrayLike) -> float:
    """Mean of `average_precision` over the classes with a positive; NaN if there is none. Errors as there."""
    return _mean(average_precision(targets, scores))


def roc_auc(targets: ArrayLike, scores: ArrayLike) -> Floats:
    """Area under the ROC curve of each class, (C,) float64; NaN for a class without a positive or without a negative.

    The share of (positive, negative) pairs in the right order, a tie counting half (Mann-Whitney). Equal to
    `sklearn.metrics.roc_auc_score` within 1e-12. Shapes and errors as for `average_precision`.
    """
    marks, values = _checked(targets, scores)
    clips = len(values)
    result = np.full(values.shape[1], np.nan)
    for column, ordered, positives in _columns(marks, values):
        count = len(positives)
        if 0 < count < clips:
            below = np.searchsorted(ordered, positives, "left")
            not_above = np.searchsorted(ordered, positives, "right")
            # integers until the division; positives among themselves are count^2 / 2 pairs, ties or not
            twice = int(below.sum()) + int(not_above.sum()) - count * count
            result[column] = twice / (2 * count * (clips - count))
    return result


def d_prime(auc: float) -> float:
    """The d-prime of a (mean) AUC: sqrt(2) times its normal quantile (Gemmeke et al., ICASSP 2017).

    Infinite for 1 (and -infinite for 0), NaN for NaN. AudioSet's convention averages the AUC over classes first.
    """
    if math.isnan(auc):
        return math.nan
    if auc in (0.0, 1.0):
        return math.copysign(math.inf, auc - 0.5)
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def _columns(marks: NDArray[np.bool_], values: NDArray[np.floating]) -> Iterator[tuple[int, NDArray, NDArray]]:
    """(class, its scores in ascending order, its positives' scores in ascending order), class by class."""
    clips, classes = values.shape
    width = max(1, _BLOCK // max(clips, 1))
    for first in range(0, classes, width):
        columns = slice(first, min(first + width, classes))
        count = columns.stop - first
        # the positives are few: they are picked before the copy, since turning all marks costs half as much as it
        rows, mine = np.divmod(np.flatnonzero(marks[:, columns]), count)
        by_class = np.argsort(mine.astype(np.min_scalar_type(count)), kind="stable")  # 16 bits: a radix sort
        positives = np.split(values[rows, first + mine][by_class], np.cumsum(np.bincount(mine, minlength=count))[:-1])
        block = _turned(values[:, columns])
        block.sort(axis=1)
        for number, (row, found) in enumerate(zip(block, positives, strict=True), first):
            yield number, row, np.sort(found)


def _turned(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """A copy of shape (C, N), made in tiles that fit a processor's cache: twice as quick as in one go."""
    result = np.empty(values.shape[::-1], values.dtype)
    for row in range(0, len(values), 1024):
        tile = slice(row, row + 1024)
        result[:, tile] = values[tile].T
    return result


def _checked(targets: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Targets as booleans and scores as float32 or float64, both (N, C). Raises ValueError for anything else."""
    marks, values = np.asarray(targets), np.asarray(scores)
    if marks.ndim != 2 or marks.shape != values.shape:
        raise ValueError(f"targets and scores must both be (clips, classes), not {marks.shape} and {values.shape}")
    if marks.dtype != np.bool_:
        ones = marks == 1
        if not (ones | (marks == 0)).all():
            raise ValueError("targets must be 0 or 1")
        marks = ones
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return marks, values


def _mean(values: Floats) -> float:
    """The mean over what is not NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
