"""What detection metrics are computed from: events with their times, and scores over time.

Axes: N clips, C classes, T frames, E events. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """The events of some clips, in any order: event e is of class label[e] in clip clip[e].

    ids: N. classes: C. durations: (N,) of the clips. clip, label: (E,) numbers. onset, offset: (E,).
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    durations: Float64
    clip: Int64
    label: Int64
    onset: Float64
    offset: Float64

    def events_per_class(self) -> Int64:
        """(C,) events of each class."""
        return np.bincount(self.label, minlength=len(self.classes)).astype(np.int64)

    def of_clips(self, rows: Int64) -> Truth:
        """The same of some clips, which become clips 0, 1, .. in the order given."""
        place = np.full(len(self.ids), -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = place[self.clip] >= 0
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            durations=self.durations[rows],
            clip=place[self.clip[kept]],
            label=self.label[kept],
            onset=self.onset[kept],
            offset=self.offset[kept],
        )

    def of_classes(self, classes: Int64) -> Truth:
        """The same of some classes, which become classes 0, 1, .. in the order given; other events are left out."""
        place = np.full(len(self.classes), -1, np.int64)
        place[classes] = np.arange(len(classes))
        kept = place[self.label] >= 0
        return replace(
            self,
            classes=tuple(self.classes[number] for number in classes),
            clip=self.clip[kept],
            label=place[self.label[kept]],
            onset=self.onset[kept],
            offset=self.offset[kept],
        )


@dataclass(frozen=True)
class FrameScores:
    """Scores over time: frame k of a clip lasts from k x frame to (k + 1) x frame.

    values: (N, C, T) float32 or float16, logits or probabilities: only the order within a class counts, but for what
    is said to need probabilities. frames: (N,) frames that a clip has; what lies beyond them in `values` is nothing.
    frame: seconds.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.floating]
    frames: Int64
    frame: float = 0.04


_CLIPS = 256  # looked at, at a time
_INFINITE, _ONE, _MINUS_ZERO = 0x7C00, 0x3C00, 0x8000  # of float16, as bits


def all_finite(values: NDArray[np.floating]) -> bool:
    """Whether no value is NaN or infinite. Of halves by their bits: numpy's own test takes ten times as long."""
    if not values.size:
        return True
    if values.dtype == np.float16:
        return bool((np.ascontiguousarray(values).view(np.uint16) & _INFINITE).max() < _INFINITE)
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))  # NaN is carried through both


def are_probabilities(scores: FrameScores) -> bool:
    """Whether all values lie from 0 to 1."""
    for start in range(0, len(scores.values), _CLIPS):
        part = scores.values[start : start + _CLIPS]
        if part.dtype == np.float16:
            bits = np.ascontiguousarray(part).view(np.uint16)
            if bits.size and bits.max() > _ONE and ((bits > _ONE) & (bits != _MINUS_ZERO)).any():
                return False
        elif part.size and not (part.min() >= 0 and part.max() <= 1):
            return False
    return True
