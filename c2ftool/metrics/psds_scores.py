"""Scores as PSDS reads them: in blocks, as ordered values, clips and classes in the truth's order, without a copy.

Axes: N clips and C classes of the truth, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2ftool.errors import DataError
from c2ftool.metrics.psds_runs import Ordered, lowest, ordered
from c2ftool.metrics.tables import FrameScores, Truth

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_BLOCK = 1 << 22  # scores looked through at once
_GATHERED = 1 << 19  # scores of rows from here and there copied at once


@dataclass(frozen=True)
class Scores:
    """Scores of the truth's clips and classes.

    clip: (N,) and label: (C,) places in `scores`. borders: (T + 1,) seconds between which frames lie. lowest: the
    ordered value of what is never detected.
    """

    scores: FrameScores
    clip: Int64
    label: Int64
    borders: Float64
    lowest: Any

    @staticmethod
    def of(scores: FrameScores, truth: Truth) -> Scores:
        """The view. Raises DataError where clips or classes of the truth have no scores, ValueError for odd shapes."""
        values = scores.values
        if values.shape[:2] != (len(scores.ids), len(scores.classes)) or values.ndim != 3:
            raise ValueError(f"scores {values.shape} do not fit {len(scores.ids)} clips, {len(scores.classes)} classes")
        if values.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(f"scores must be float16, float32 or float64, not {values.dtype}")
        if scores.frames.shape != values.shape[:1] or ((scores.frames < 0) | (scores.frames > values.shape[2])).any():
            raise ValueError(f"frames must be {len(scores.ids)} numbers from 0 to {values.shape[2]}")
        return Scores(
            scores,
            _places("clips", truth.ids, scores.ids),
            _places("classes", truth.classes, scores.classes),
            np.arange(values.shape[2] + 1) * scores.frame,
            lowest(values.dtype),
        )

    @property
    def frames(self) -> int:
        """T."""
        return self.scores.values.shape[2]

    def highest(self) -> Ordered:
        """(C, N) highest ordered value of each class and clip. Raises DataError if a score is NaN."""
        values = self.scores.values
        result = np.empty((len(self.label), len(self.clip)), ordered(values[:0])[0].dtype)
        if self.frames == 0:
            result[:] = self.lowest
            return result
        step = max(1, _BLOCK // max(1, values.shape[1] * values.shape[2]))
        together = np.array_equal(self.clip, np.arange(len(self.clip)))
        for start in range(0, len(self.clip), step):
            clip = self.clip[start : start + step]
            block = values[start : start + step] if together else values[clip]
            order, broken = ordered(block)
            top = self._cut(order, clip, copied=order is not block or not together).max(axis=2)
            if broken or np.isnan(top).any():
                self._refuse(start, block)
            result[:, start : start + step] = np.maximum(top[:, self.label], self.lowest).T
        return result

    def rows(self, clip: Int64, label: Int64) -> Ordered:
        """(R, T) ordered values of clips and classes, (R,) of the truth's numbers each; read as they lie in memory."""
        values = self.scores.values
        place, column = self.clip[clip], self.label[label]
        order = np.lexsort((column, place))
        result = np.empty((len(clip), self.frames), ordered(values[:0])[0].dtype)
        step = max(1, _GATHERED // max(1, self.frames))
        for start in range(0, len(clip), step):
            some = order[start : start + step]
            if values.flags.c_contiguous:  # whole rows are copied at once
                block = values.reshape(-1, self.frames).take(place[some] * values.shape[1] + column[some], axis=0)
            else:
                block = values[place[some], column[some]]
            result[some] = self._cut(ordered(block)[0], place[some], copied=True)
        return result

    def block(self, clip: Int64) -> Ordered:
        """(R, C, T) ordered values of some clips (the truth's numbers)."""
        place = self.clip[clip]
        block = self.scores.values[place]
        if not np.array_equal(self.label, np.arange(block.shape[1])):
            block = block[:, self.label]
        return self._cut(ordered(block)[0], place, copied=True)

    def _cut(self, order: Ordered, place: Int64, copied: bool) -> Ordered:
        """The same with nothing where a clip has no more frames; written over where it is a copy."""
        frames = self.scores.frames[place]
        if (frames == self.frames).all():
            return order
        order = order if copied else order.copy()
        beyond = np.arange(self.frames) >= frames.reshape(-1, *[1] * (order.ndim - 1))
        np.copyto(order, self.lowest, where=beyond)
        return order

    def _refuse(self, start: int, block: NDArray[np.floating]) -> None:
        frames = self.scores.frames[self.clip[start : start + len(block)]]
        counted = np.arange(self.frames) < frames[:, None]
        bad = np.argwhere((np.isnan(block) & counted[:, None]).any(axis=2)[:, self.label])
        if len(bad) == 0:
            return
        clip, label = bad[0]
        raise DataError(
            f"scores of clip {self.scores.ids[self.clip[start + clip]]!r}, "
            f"class {self.scores.classes[self.label[label]]!r} are not numbers",
            cure="The weights or the clips hold NaN; evaluate an earlier checkpoint.",
        )


def _places(what: str, wanted: tuple[str, ...], there: tuple[str, ...]) -> Int64:
    if wanted == there:
        return np.arange(len(wanted))
    number = {name: place for place, name in enumerate(there)}
    lost = [name for name in wanted if name not in number]
    if lost:
        some = ", ".join(repr(name) for name in lost[:5]) + (", .." if len(lost) > 5 else "")
        raise DataError(
            f"{len(lost)} of {len(wanted)} {what} of the truth have no scores: {some}",
            cure="Score every clip and class of the truth, or evaluate against a truth without them.",
        )
    return np.array([number[name] for name in wanted], np.int64)
