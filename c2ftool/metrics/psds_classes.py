"""Which scores of each class PSDS looks at, and reading them in the order in which they lie in memory.

A class's scores lie far apart, a row in each clip: to go to and fro in gigabytes of scores costs many times what is
computed of them. So the rows of as many classes as fit are read in one go through the scores.

Axes: N clips, T frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.metrics.psds_changes import Changes, Criteria, CrossTriggers, with_events, without_events
from c2ftool.metrics.psds_events import Events
from c2ftool.metrics.psds_runs import Ordered
from c2ftool.metrics.psds_scores import Scores

Int64 = NDArray[np.int64]

_HELD = 1 << 26  # scores read in one go: at most 256 MiB of float32
_BLOCK = 1 << 19  # scores worked on at once, so that intermediate arrays stay in the processor's cache


@dataclass(frozen=True)
class Look:
    """What is looked at of one class: thresholds above the floor, in the clips that have a score there.

    counted: clips without an event of the class, where each run is a false positive. matched: clips in which runs are
    held against events.
    """

    label: int
    floor: Any
    counted: Int64
    matched: Int64

    @staticmethod
    def at(label: int, highest: Ordered, lowest: Any, events: Events, too_many: int, crossing: bool) -> Look:
        """Of a class with highest scores (N,) and events by class and clip. crossing: all runs are held against events.

        The floor is where the clips without an event have too_many runs at least, one each.
        """
        clips = len(highest)
        having = np.diff(events.start[label * clips : (label + 1) * clips + 1]) > 0
        rest = highest[~having]
        floor = lowest
        if len(rest) >= too_many:
            floor = max(floor, np.partition(rest, len(rest) - too_many)[len(rest) - too_many])
        above = highest > floor
        return Look(
            label,
            floor,
            np.flatnonzero(above & ~having & (not crossing)),
            np.flatnonzero(above & (having | crossing)),
        )

    @property
    def clips(self) -> Int64:
        """All clips looked at, the counted ones first."""
        return np.concatenate((self.counted, self.matched))


def changes_of_classes(
    view: Scores, looks: Sequence[Look], events: Events, criteria: Criteria, cross: CrossTriggers | None
) -> Iterator[tuple[int, Changes]]:
    """Each class and the changes of its counts. cross: how cross-triggers weigh, where they count."""
    most = max(1, _HELD // max(1, view.frames))
    start = 0
    while start < len(looks):
        sizes = np.cumsum([len(look.counted) + len(look.matched) for look in looks[start:]])
        stop = start + max(1, int(np.searchsorted(sizes, most, "right")))
        group = looks[start:stop]
        clip = np.concatenate([look.clips for look in group])
        label = np.repeat([look.label for look in group], [len(look.clips) for look in group])
        held = view.rows(clip, label)
        done = 0
        for look in group:
            rows = held[done : done + len(look.clips)]
            done += len(rows)
            yield look.label, _changes(rows, look, view, events, criteria, cross)
        start = stop


def _changes(
    rows: Ordered, look: Look, view: Scores, events: Events, criteria: Criteria, cross: CrossTriggers | None
) -> Changes:
    changes = Changes(crossing=cross is not None)
    cross = None if cross is None else replace(cross, own=look.label)
    step = max(1, _BLOCK // max(1, view.frames))
    for start in range(0, len(look.counted), step):
        part = rows[start : min(start + step, len(look.counted))]
        without_events(np.maximum(part, look.floor), look.floor, changes)
    rows = rows[len(look.counted) :]
    for start in range(0, len(rows), step):
        clip = look.matched[start : start + step]
        block = np.maximum(rows[start : start + step], look.floor)
        group = look.label * len(view.clip) + clip
        with_events(block, look.floor, view.borders, criteria, group, events, changes, cross, clip)
    return changes
