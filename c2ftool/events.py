"""Sound events as frames: merging, frame borders, painted labels, and how long each class is active.

Axes: E events, B clips of a batch, N clips of a set, C classes, T frames. Events are parallel arrays: the number of
the clip, the number of the class (`label`), onset and offset in seconds. Frames are counted from 0, last exclusive.

Source: the public code of "Effective Pre-Training of Audio Transformers for Sound Event Detection" (PretrainedSED).
"""

from __future__ import annotations

from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Position = TypeVar("Position", np.int64, np.float64)  # of an event: a frame, or seconds


def merged(clip: Int64, label: Int64, onset: Float64, offset: Float64) -> tuple[Int64, Int64, Float64, Float64]:
    """(clip, label, onset, offset), sorted by clip, onset and label: events of one class that overlap made one.

    Events of the same clip and class that touch (one ends where the next begins) are one event, too.
    """
    clip, label, onset, offset = _unions(clip, label, onset, offset)
    order = np.lexsort((label, onset, clip))
    return clip[order], label[order], onset[order], offset[order]


@overload
def frame_bounds(onset: Float64, offset: Float64, frames: int, frame_ms: float = 40) -> tuple[Int64, Int64]: ...
@overload
def frame_bounds(onset: Tensor, offset: Tensor, frames: int, frame_ms: float = 40) -> tuple[Tensor, Tensor]: ...
def frame_bounds(
    onset: Float64 | Tensor, offset: Float64 | Tensor, frames: int, frame_ms: float = 40
) -> tuple[Int64 | Tensor, Int64 | Tensor]:
    """(first, last) (E,) int64 frames of events, last exclusive, within 0 .. frames.

    onset, offset: (E,) float64 seconds, both arrays or both tensors. first is the floor of the onset, last the ceiling
    of the offset, in frames; both are t * 16000 / 160 / (frame_ms / 10) in this order of operations. Another order
    moves borders: of the 40-ms borders on a grid of 1 ms, 8.04 s and 8.12 s begin one frame early, as they do in the
    public code. An event of no length has no frame on a border and one frame elsewhere; what lies before 0 or beyond
    the last frame is cut off; an event that ends before it begins has no frame. Raises TypeError for other numbers
    than float64.
    """
    if isinstance(onset, Tensor) and isinstance(offset, Tensor):
        if onset.dtype != torch.float64 or offset.dtype != torch.float64:
            raise TypeError(f"times must be float64, not {onset.dtype} and {offset.dtype}")
        # divided by tensors: by a number, a GPU would multiply with its reciprocal, and round otherwise
        hop, group = (torch.full((), by, dtype=torch.float64, device=onset.device) for by in (160.0, frame_ms / 10))
        first = (onset * 16000 / hop / group).floor().clamp(0, frames).long()
        last = (offset * 16000 / hop / group).ceil().clamp(0, frames).long()
        return first, torch.maximum(first, last)
    starts, ends = np.asarray(onset), np.asarray(offset)
    if starts.dtype != np.float64 or ends.dtype != np.float64:
        raise TypeError(f"times must be float64, not {starts.dtype} and {ends.dtype}")
    low = np.clip(np.floor(starts * 16000 / 160 / (frame_ms / 10)), 0, frames).astype(np.int64)
    high = np.clip(np.ceil(ends * 16000 / 160 / (frame_ms / 10)), 0, frames).astype(np.int64)
    return low, np.maximum(low, high)


def paint(clip: Tensor, label: Tensor, first: Tensor, last: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(B, C, T) float32: 1 where some event covers the frame, else 0; on the events' device.

    clip, label, first, last: (E,) int64. shape: (B, C, T). Raises ValueError for clips or classes outside the shape,
    except on a GPU, where looking would wait for it.
    """
    clips, classes, frames = shape
    if clip.device.type == "cpu" and len(clip):
        for what, number, count in (("clip", clip, clips), ("class", label, classes)):
            if int(number.min()) < 0 or int(number.max()) >= count:
                raise ValueError(f"events of {what} {int(number.min())} .. {int(number.max())}, there are {count}")
    place = torch.arange(frames, device=clip.device)
    covered = ((place >= first[:, None]) & (place < last[:, None])).float()
    row = (clip * classes + label)[:, None].expand(-1, frames)
    out = torch.zeros(clips * classes, frames, device=clip.device)
    return out.scatter_reduce_(0, row, covered, "amax").view(shape)


def active_frames(clip: Int64, label: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64, Int64]:
    """(clip, label, frames): of each clip and class that has events, how many frames they cover together.

    A frame counts once, also where two events that are apart in time share it.
    """
    clip, label, first, last = _unions(clip, label, first, last)
    if not len(clip):
        return clip, label, first
    starts = np.flatnonzero(_changes(clip, label))
    return clip[starts], label[starts], np.add.reduceat(last - first, starts)


def active_time_weights(
    clip: Int64, label: Int64, first: Int64, last: Int64, clips: int, classes: int, offset: float = 30
) -> Float64:
    """(N,) weights of clips in a class-balanced order: the sum over classes of 1000 a / (offset + F).

    a: the clip's active frames of the class; F: those of all clips. offset: frames added against classes that are
    rare. A clip without active frames weighs 0. Raises ValueError for events outside `clips` and `classes`.
    """
    for what, number, count in (("clip", clip, clips), ("class", label, classes)):
        if len(number) and not 0 <= number.min() <= number.max() < count:
            raise ValueError(f"events of {what} {number.min()} .. {number.max()}, there are {count}")
    clip, label, active = active_frames(clip, label, first, last)
    total = np.bincount(label, active, minlength=classes)
    return np.bincount(clip, active * (1000.0 / (offset + total[label])), minlength=clips).astype(np.float64)


def _unions(
    clip: Int64, label: Int64, start: NDArray[Position], stop: NDArray[Position]
) -> tuple[Int64, Int64, NDArray[Position], NDArray[Position]]:
    """Stretches of one clip and class that overlap or touch made one; sorted by clip, label and start."""
    if not len(clip):
        return clip, label, start, stop
    order = np.lexsort((start, label, clip))
    clip, label, start, stop = clip[order], label[order], start[order], stop[order]
    group = _changes(clip, label)
    # The latest stop so far in the group. Ranks, lifted from group to group, need one running maximum for all.
    values, rank = np.unique(stop, return_inverse=True)
    lift = (np.cumsum(group) - 1) * len(values)
    latest = values[np.maximum.accumulate(rank + lift) - lift]
    begins = group
    begins[1:] |= start[1:] > latest[:-1]
    starts = np.flatnonzero(begins)
    return clip[starts], label[starts], start[starts], np.maximum.reduceat(stop, starts)


def _changes(clip: Int64, label: Int64) -> NDArray[np.bool_]:
    """(E,) whether a sorted event is of another clip or class than the one before it; the first is."""
    changes = np.ones(len(clip), np.bool_)
    changes[1:] = (clip[1:] != clip[:-1]) | (label[1:] != label[:-1])
    return changes
