"""Where one class's counts change as the threshold falls: false positives, found events, cross-triggers.

Times are compared after rounding to the microsecond, as sed_scores_eval does, so that a detection that fits exactly
is not lost to the last bit of a sum.

Axes: R rows (clips) of scores, T frames, K changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.psds_events import Events, Overlaps
from c2ftool.metrics.psds_runs import Ordered, Runs, changes_in_count, runs

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_STEPS = 2.0**44  # sums of overlaps are kept in whole steps of 2^-44 s: adding and taking away leaves no residue


def to_microseconds(seconds: Float64) -> Float64:
    """Seconds rounded to 6 decimals."""
    return np.round(seconds, 6)


def falling(at: Ordered) -> Int64:
    """The order that sorts ordered values from the highest down."""
    return np.argsort(at, kind="stable" if at.dtype == np.int16 else None)[::-1]  # 16 bits are sorted by radix


@dataclass(frozen=True)
class Criteria:
    """What makes a detection relevant, an event found, a detection a cross-trigger. cttc None: none are looked for."""

    dtc: float
    gtc: float
    cttc: float | None


@dataclass
class Changes:
    """Changes of a class's counts, in any order: at `at` (ordered values) the counts step by that much.

    crossing: whether cross-triggers are kept.
    """

    crossing: bool = False
    at: list[Ordered] = field(default_factory=list)
    false: list[NDArray[Any]] = field(default_factory=list)
    found: list[NDArray[Any]] = field(default_factory=list)
    crossed: list[NDArray[Any]] = field(default_factory=list)

    def add(self, at: Ordered, false: Any = 0, found: Any = 0, crossed: Any = 0.0) -> None:
        """Notes changes at (K,) thresholds; each step is a number for all or (K,)."""
        if len(at):
            self.at.append(at)
            self.false.append(np.broadcast_to(np.asarray(false, np.int8), at.shape))
            self.found.append(np.broadcast_to(np.asarray(found, np.int8), at.shape))
            if self.crossing:
                self.crossed.append(np.broadcast_to(np.asarray(crossed, np.float64), at.shape))

    def counts(self) -> tuple[Int64, Int64, Float64]:
        """(False positives, events found, weight of cross-triggers), (P,) each, wherever one changes, from the top."""
        if not self.at:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        at = np.concatenate(self.at)
        order = falling(at)
        at = at[order]
        ends = np.append(np.flatnonzero(at[1:] != at[:-1]), len(at) - 1)
        false = np.cumsum(np.concatenate(self.false)[order], dtype=np.int64)[ends]
        found = np.cumsum(np.concatenate(self.found)[order], dtype=np.int64)[ends]
        crossed = np.zeros(len(ends))
        if self.crossed:
            crossed = np.maximum(np.cumsum(np.concatenate(self.crossed)[order])[ends], 0.0)
        return false, found, crossed


def without_events(rows: Ordered, floor: Any, changes: Changes) -> None:
    """Notes what rows (R, T) do whose clips have no event of the class: every run is a false positive."""
    more, fewer = changes_in_count(rows, floor)
    changes.add(more, false=1)
    changes.add(fewer, false=-1)


def with_events(
    rows: Ordered,
    floor: Any,
    borders: Float64,
    criteria: Criteria,
    group: Int64,
    events: Events,
    changes: Changes,
    cross: CrossTriggers | None = None,
    clip: Int64 | None = None,
) -> None:
    """Notes what any rows (R, T) do, each with a score above the floor.

    borders: (T + 1,) seconds. group: (R,) each row's group of `events`, which are by class and clip.
    cross and clip (R,): where cross-triggers with events of other classes count.
    """
    live = runs(rows, floor)
    onset, offset = borders[live.first], borders[live.last]
    shared = events.overlaps(group[live.row], onset, offset)
    total = np.bincount(shared.interval, shared.seconds, len(live.row)).astype(np.float64)
    length = offset - onset
    relevant = to_microseconds(total) >= to_microseconds(criteria.dtc * length)

    wrong = np.flatnonzero(~relevant)
    weight: Any = 0.0
    if cross is not None and clip is not None:
        weight = cross.weights(clip[live.row[wrong]], onset[wrong], offset[wrong])
    ended = np.flatnonzero(live.death[wrong] > floor)
    changes.add(live.birth[wrong], false=1, crossed=weight)
    changes.add(live.death[wrong[ended]], false=-1, crossed=-weight[ended] if np.ndim(weight) else 0.0)

    kept = np.flatnonzero(relevant[shared.interval])
    relevant_shared = Overlaps(shared.interval[kept], shared.event[kept], shared.seconds[kept])
    _found(live, floor, relevant_shared, events, criteria.gtc, changes)
    _found_at_once(rows, group, events, criteria.gtc, changes)


def _needed(events: Events, gtc: float, number: Int64 | slice) -> Float64:
    return to_microseconds(gtc * (events.offset[number] - events.onset[number]))


def _found(live: Runs, floor: Any, shared: Overlaps, events: Events, gtc: float, changes: Changes) -> None:
    """Notes where events become found and where they are lost again.

    An event's covered time steps up where a relevant run comes to live and down where it ends.
    """
    if len(shared.event) == 0:
        return
    steps = np.rint(shared.seconds * _STEPS).astype(np.int64)
    death = live.death[shared.interval]
    ended = np.flatnonzero(death > floor)
    at = np.concatenate((live.birth[shared.interval], death[ended]))
    event = np.concatenate((shared.event, shared.event[ended]))
    steps = np.concatenate((steps, -steps[ended]))
    order = falling(at)
    near = event[order] - event.min()  # 16-bit numbers are sorted by radix
    order = order[np.argsort(near.astype(np.uint16) if near.max() < 1 << 16 else near, kind="stable")]
    at, event = at[order], event[order]
    ends = np.append(np.flatnonzero((at[1:] != at[:-1]) | (event[1:] != event[:-1])), len(at) - 1)
    covered = np.cumsum(steps[order])[ends]  # over all events; what earlier events left is taken off
    at, event = at[ends], event[ends]
    opens = np.concatenate(([True], event[1:] != event[:-1]))
    left = np.concatenate(([0], covered[:-1]))[opens]
    covered -= left[np.cumsum(opens) - 1]
    needed = _needed(events, gtc, event)
    found = (to_microseconds(covered / _STEPS) >= needed).astype(np.int8)
    before = np.concatenate(([np.int8(0)], found[:-1]))
    before[opens] = 0
    step = found - before
    changed = np.flatnonzero((step != 0) & (needed > 0))
    changes.add(at[changed], found=step[changed])


def _found_at_once(rows: Ordered, group: Int64, events: Events, gtc: float, changes: Changes) -> None:
    """Notes events so short that no coverage is needed: found with the first detection of their clip and class.

    rows: with a score above the floor each.
    """
    first, last = events.start[group.min()], events.start[group.max() + 1]
    short = _needed(events, gtc, slice(first, last)) <= 0
    if not short.any():
        return
    before = np.concatenate(([0], np.cumsum(short)))
    count = before[events.start[group + 1] - first] - before[events.start[group] - first]
    changes.add(np.repeat(rows.max(axis=1), count), found=1)


@dataclass(frozen=True)
class CrossTriggers:
    """What a false positive of one class weighs by the events of other classes that it covers.

    events: all events by clip. own: the class. weights: (C,) of a cross-trigger with each class.
    """

    events: Events
    own: int
    by_class: Float64
    cttc: float

    def weights(self, clip: Int64, onset: Float64, offset: Float64) -> Float64:
        """(I,) what each false positive weighs: the sum over classes of whose events in the clip it covers enough."""
        shared = self.events.overlaps(clip, onset, offset)
        order = np.argsort(shared.interval, kind="stable")
        interval, label = shared.interval[order], self.events.label[shared.event[order]]
        if len(interval) == 0:
            return np.zeros(len(clip))
        opens = np.concatenate(([True], (interval[1:] != interval[:-1]) | (label[1:] != label[:-1])))
        starts = np.flatnonzero(opens)
        seconds = np.add.reduceat(shared.seconds[order], starts)
        interval, label = interval[starts], label[starts]
        needed = to_microseconds(self.cttc * (offset - onset))[interval]
        hit = (to_microseconds(seconds) >= needed) & (label != self.own)
        return np.bincount(interval[hit], self.by_class[label[hit]], len(clip)).astype(np.float64)
