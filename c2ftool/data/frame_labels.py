"""Events of a prepared set as labels of frames, and the weights of clips by how long their classes are active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from c2ftool.data.batch import FrameLabels
from c2ftool.data.order import Rows
from c2ftool.data.store import PreparedSet
from c2ftool.events import active_time_weights, frame_bounds

_ALL = 2**31  # frames that no clip has


@dataclass(frozen=True)
class LabelGrid:
    """The label frames of an input.

    frames: T. frame_ms: length of one. frame_samples: the same at the set's rate. place: (K,) of each class of the set
    its number in the run, -1 for those that the run does not have. covers: which part of a frame an event has to cover.
    """

    frames: int
    frame_ms: float
    frame_samples: int
    place: Rows
    covers: Literal["any", "centre"] = "any"

    def labels(
        self, source: PreparedSet, rows: Rows, strong: NDArray[np.bool_], starts: NDArray[np.int64] | None
    ) -> FrameLabels:
        """The frames of the rows' events. strong: (B,) which rows' are known. starts: (B,) samples, of crops.

        Borders are counted from the clip's start and then moved, so that a crop moves no event against another.
        """
        clip, events = source.events_of(rows)
        label = self.place[events.label]
        borders = frame_bounds if self.covers == "any" else centre_bounds
        first, last = borders(events.onset, events.offset, _ALL, self.frame_ms)
        if starts is not None:
            gone = starts[clip] // self.frame_samples
            first, last = first - gone, last - gone
        first, last = np.clip(first, 0, self.frames), np.clip(last, 0, self.frames)
        kept = (label >= 0) & (last > first) & strong[clip]
        return FrameLabels(
            clip=torch.from_numpy(clip[kept]),
            label=torch.from_numpy(label[kept]),
            first=torch.from_numpy(first[kept]),
            last=torch.from_numpy(last[kept]),
            strong=torch.from_numpy(strong.copy()),
            frames=self.frames,
        )


def centre_bounds(
    onset: NDArray[np.float64], offset: NDArray[np.float64], frames: int, frame_ms: float = 40
) -> tuple[Rows, Rows]:
    """(first, last) (E,) of the frames whose centre lies in [onset, offset], last exclusive: HEAR's labels.

    An event that ends 0.1 microseconds before a centre still covers it, as there.
    """
    starts = np.ceil(np.round(onset * 1000 / frame_ms - 0.5, 9))
    ends = np.floor((offset * 1000 + 1e-4) / frame_ms - 0.5) + 1
    first = np.clip(starts, 0, frames).astype(np.int64)
    return first, np.maximum(first, np.clip(ends, 0, frames).astype(np.int64))


def class_places(classes: Rows, count: int) -> Rows:
    """(count,) of each class of a set its number among `classes`; -1 for the others."""
    place = np.full(count, -1, np.int64)
    place[classes] = np.arange(len(classes))
    return place


def weights_by_active_time(
    source: PreparedSet, rows: Rows, classes: Rows, frames: int, frame_ms: float, offset: float
) -> NDArray[np.float64]:
    """(len(rows),) sampling weights from the events alone (Schmid et al., ICASSP 2025): see `active_time_weights`.

    frames: that are looked at of each clip, from its start.
    """
    clip, events = source.events_of(rows)
    label = class_places(classes, len(source.info.classes))[events.label]
    kept = label >= 0
    first, last = frame_bounds(events.onset[kept], events.offset[kept], frames, frame_ms)
    return active_time_weights(clip[kept], label[kept], first, last, len(rows), len(classes), offset)
