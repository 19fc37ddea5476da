"""Events in order, what is checked of them, and which of them an interval overlaps for how long.

Axes: N clips, C classes, E events, I intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.tables import Truth

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of an interval and an event that share some time: numbers of both and the seconds, (K,) each.

    An interval's pairs come in the order of its events.
    """

    interval: Int64
    event: Int64
    seconds: Float64


@dataclass(frozen=True)
class Events:
    """Events by group (a clip, or a class in a clip), then by onset: group g's are start[g] to start[g + 1].

    start: (groups + 1,). label, onset, offset, number: (E,), `number` being the event's place in the truth.
    """

    start: Int64
    label: Int64
    onset: Float64
    offset: Float64
    number: Int64

    def overlaps(self, group: Int64, onset: Float64, offset: Float64) -> Overlaps:
        """What intervals (I,) share with the events of their group, where they share more than nothing."""
        counts = self.start[group + 1] - self.start[group]
        interval = np.flatnonzero(counts)
        place = self.start[group[interval]]
        left = counts[interval]
        found: list[tuple[Int64, Int64, Float64]] = []
        while len(interval):
            seconds = np.minimum(offset[interval], self.offset[place]) - np.maximum(onset[interval], self.onset[place])
            shared = np.flatnonzero(seconds > 0)
            found.append((interval[shared], place[shared], seconds[shared]))
            more = np.flatnonzero(left > 1)
            interval, place, left = interval[more], place[more] + 1, left[more] - 1
        if not found:
            return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return Overlaps(*(np.concatenate(column) for column in zip(*found, strict=True)))


def events_by(group: Int64, groups: int, truth: Truth) -> Events:
    """The truth's events by the group given for each, (E,), 0 to groups - 1; within a group by label, then by onset."""
    order = np.lexsort((truth.onset, truth.label, group))
    start = np.concatenate(([0], np.cumsum(np.bincount(group, minlength=groups))))
    return Events(start, truth.label[order], truth.onset[order], truth.offset[order], order.astype(np.int64))


def check_truth(truth: Truth) -> None:
    """Nothing, if the truth can be evaluated against; otherwise raises DataError.

    Refused: no event at all, what `check_times` refuses, and two events of one class in a clip that overlap or touch.
    """
    check_times(truth)
    if len(truth.label) == 0:
        raise DataError("there is no event to evaluate against", cure="Choose clips that have labelled events.")
    order = np.lexsort((truth.offset, truth.onset, truth.label, truth.clip))
    early, late = order[:-1], order[1:]
    same = (truth.clip[early] == truth.clip[late]) & (truth.label[early] == truth.label[late])
    joined = np.flatnonzero(same & (truth.onset[late] <= truth.offset[early]))
    if len(joined):
        raise DataError(
            f"{len(joined)} events overlap or touch another one of their class: {_named(truth, int(early[joined[0]]))} "
            f"and {truth.onset[late[joined[0]]]:g} to {truth.offset[late[joined[0]]]:g} s",
            cure="Merge events of one class that overlap or touch before they are evaluated against.",
        )


def check_times(truth: Truth) -> None:
    """Nothing, or DataError for durations or events whose times make no sense; an event of no length is allowed."""
    durations = truth.durations
    if not np.isfinite(durations).all() or (durations < 0).any() or durations.sum() <= 0:
        raise DataError("durations of clips must be finite, not negative, and more than 0 together")
    bad = ~(np.isfinite(truth.onset) & np.isfinite(truth.offset) & (truth.onset >= 0) & (truth.offset >= truth.onset))
    if bad.any():
        event = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{int(bad.sum())} events have no valid times: {_named(truth, event)}",
            cure="Times are seconds from the start of the clip, the offset not before the onset.",
        )


def _named(truth: Truth, event: int) -> str:
    clip, label = truth.ids[truth.clip[event]], truth.classes[truth.label[event]]
    return f"clip {clip!r}, class {label!r}, {truth.onset[event]:g} to {truth.offset[event]:g} s"
