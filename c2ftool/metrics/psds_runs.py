"""Every run of frames that some threshold gives, without trying thresholds.

A run at threshold t is a maximal stretch of frames with score >= t. Only the scores' order counts, so rows of scores
are worked on as ordered values: float32 and float64 as they are, float16 as int16 in the same order. A row's *floor*
is the value up to which nothing is of interest: thresholds are above it.

Axes: R rows, T frames; flat arrays of runs or of changes have an entry each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ordered = NDArray[Any]  # float32, float64 or int16
Int64 = NDArray[np.int64]

_INFINITY = 0x7C00  # float16 +inf as bits; what is above is NaN


def ordered(values: NDArray[np.floating]) -> tuple[Ordered, bool]:
    """The values in a type that numpy compares quickly, in the same order, and whether any is NaN.

    float16 -> int16, both zeros 0; others unchanged (NaN then looked for by `highest`, and False returned here).
    """
    if values.dtype != np.float16:
        return values, False
    bits = values.view(np.int16) if values.flags.c_contiguous else np.ascontiguousarray(values).view(np.int16)
    size = bits & 0x7FFF
    sign = bits >> 15
    broken = bool(size.size) and int(size.max()) > _INFINITY
    size ^= sign
    size -= sign
    return size, broken


def lowest(dtype: np.dtype[Any]) -> Any:
    """What -inf is among the ordered values of scores of this type: nothing at or below it is ever detected."""
    return np.int16(-_INFINITY) if dtype == np.float16 else dtype.type(-np.inf)


@dataclass(frozen=True)
class Runs:
    """Distinct runs of rows, rows ascending: frames first to last (exclusive) of a row for death < threshold <= birth.

    row, first, last: int64; birth, death: ordered values. death is the floor for what outlives all thresholds.
    """

    row: Int64
    first: Int64
    last: Int64
    birth: Ordered
    death: Ordered


def changes_in_count(rows: Ordered, floor: Any) -> tuple[Ordered, Ordered]:
    """Where the number of runs of all rows together changes as the threshold falls: (values of +1, values of -1).

    The number of runs at t is the number of frames k with s[k] >= t > s[k - 1]. Each rise from s[k - 1] to s[k] is a
    +1 at s[k] and a -1 at s[k - 1]; where one rise follows another the two cancel, so that only the ends of ascents
    are left. rows: (R, T), not below the floor, and overwritten by nobody.
    """
    count, frames = rows.shape
    rises = np.zeros((count, frames + 1), np.bool_)
    np.greater(rows[:, 1:], rows[:, :-1], out=rises[:, 1:-1])
    np.greater(rows[:, 0], floor, out=rises[:, 0])
    ends = rises[:, :-1] > rises[:, 1:]
    starts = rises[:, :-1] < rises[:, 1:]
    starts &= rows > floor
    flat = rows.reshape(-1)
    return flat[np.flatnonzero(ends)], flat[np.flatnonzero(starts)]


def runs(rows: Ordered, floor: Any) -> Runs:
    """All distinct runs of the rows, (R, T) and not below the floor, at thresholds above it.

    At threshold s[k] frame k lies in the run between its nearest smaller neighbours; that run lives until the
    threshold reaches the larger of the two. Of frames with the same run the first stands for it. The neighbours are
    found by halving steps over minima of 1, 2, 4, .. frames, for all frames at once.
    """
    count, frames = rows.shape
    padded = np.full((count, frames + 2), floor, rows.dtype)  # the floor is smaller than whatever is looked at
    padded[:, 1:-1] = rows
    flat = padded.reshape(-1)
    minima = [flat]
    while 2 ** len(minima) <= frames:
        half = 2 ** (len(minima) - 1)
        minima.append(np.minimum(minima[-1][:-half], minima[-1][half:]))

    frame = np.flatnonzero(flat > floor)
    value = flat[frame]
    first = frame.copy()  # leftmost frame of which all up to `frame` are larger
    for power in range(len(minima) - 1, -1, -1):
        step = 2**power
        further = minima[power].take(first - step, mode="clip") > value
        first -= step * further
    before = flat[first - 1]
    leads = before < value
    frame, value, first, before = frame[leads], value[leads], first[leads], before[leads]
    last = frame.copy()
    for power in range(len(minima) - 1, -1, -1):
        further = minima[power].take(last + 1, mode="clip") >= value
        last += 2**power * further
    row = frame // (frames + 2)
    origin = row * (frames + 2) + 1
    return Runs(row, first - origin, last + 1 - origin, value, np.maximum(before, flat[last + 1]))
