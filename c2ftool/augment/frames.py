"""Frames moved and masked, labels and teachers with them. Axes: B clips, T label frames.

`ratio` is the length of a label frame over the hop of the features: 4 for 40 ms on 10 ms, 2 where hops are twice as
long. Nothing here depends on how many frames of features there are besides (998, 1000 and 1001 in 10 s).
"""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.augment.targets import Targets, by_frame, label_frames, roll_frames
from c2ftool.draws import Draw
from c2ftool.spec.augment import TimeMask, TimeRoll

LEAST_MASK = 0.05  # of the label frames


def time_roll(
    features: Tensor, targets: Targets | None, spec: TimeRoll, ratio: float, draw: Draw
) -> tuple[Tensor, Targets | None]:
    """(features (B, frames, mels), targets), each clip shifted in a circle by a normal number of frames.

    The standard deviation is a share of the features' frames, in whole frames, and the shift is cut towards 0.
    Source: PretrainedSED, helpers/augment.py (frame_shift).
    """
    spread = int(features.shape[1] * spec.std)
    return roll_by(features, targets, (draw.noise("augment.time_roll") * spread).long(), ratio)


def roll_by(features: Tensor, targets: Targets | None, shift: Tensor, ratio: float) -> tuple[Tensor, Targets | None]:
    """Features shifted in a circle by `shift` (B,) frames, frame targets by shift / ratio, to the nearest, then even.

    Targets of clips stay.
    """
    clips, frames, mels = features.shape
    source = (torch.arange(frames, device=features.device) - shift[:, None]) % frames
    source += torch.arange(clips, device=features.device)[:, None] * frames
    moved = features.reshape(clips * frames, mels).index_select(0, source.view(-1)).view(clips, frames, mels)
    if targets is None:
        return moved, None
    by = (shift.double() / ratio).round().long()
    return moved, {name: roll_frames(each, by) if by_frame(each) else each for name, each in targets.items()}


def time_mask(
    features: Tensor, targets: Targets | None, spec: TimeMask, ratio: float, draw: Draw
) -> tuple[Tensor, Targets | None]:
    """(features (B, frames, mels), targets) with one stretch of label frames set to 0, the same in every clip.

    The width is uniform from 5 % to spec.ratio of the label frames, the place uniform. Source: PretrainedSED,
    helpers/augment.py; there the targets of teachers are not masked.
    """
    frames = label_frames(targets, features.shape[1], ratio)
    least, most = int(LEAST_MASK * frames), int(spec.ratio * frames)
    width = least + int(draw.once("augment.time_mask.width") * (most - least + 1))
    first = int(draw.once("augment.time_mask.first") * (frames - width + 1))
    return mask_stretch(features, targets, first, first + width, ratio)


def mask_stretch(
    features: Tensor, targets: Targets | None, first: int, last: int, ratio: float
) -> tuple[Tensor, Targets | None]:
    """Features and frame targets with label frames first .. last - 1 set to 0. Targets of clips stay."""

    def within(frames: int, first: int, last: int) -> Tensor:
        place = torch.arange(frames, device=features.device)
        return (place >= first) & (place < last)

    hidden = within(features.shape[1], round(first * ratio), round(last * ratio))
    masked = features.masked_fill(hidden[:, None], 0.0)
    if targets is None:
        return masked, None
    return masked, {
        name: each.masked_fill(within(each.shape[2], first, last), 0.0) if by_frame(each) else each
        for name, each in targets.items()
    }
