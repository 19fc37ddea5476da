"""The targets of a batch, and how they follow the clips. Axes: B clips, C classes, T label frames.

A float tensor holds targets: (B, C) of clips or (B, C, T) of frames, labels and teachers' probabilities alike. A bool
tensor (B,) says what is known of a clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

Targets = dict[str, Tensor]


def blend(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Each row as share x own + (1 - share) x other. share: (B,)."""
    share = share.view(-1, *[1] * (own.ndim - 1))
    return (own * share).add_(other * (1 - share))


def mix_targets(targets: Targets, others: Targets, share: Tensor) -> Targets:
    """Targets mixed as their clips are; what is known of a clip that is mixed is what is known of both.

    share: (B,) of the clips themselves, 1 for one that stays.
    """
    mixed = {}
    for name, own in targets.items():
        if own.is_floating_point():
            mixed[name] = blend(own, others[name], share)
        else:
            mixed[name] = own & (others[name] | (share >= 1))
    return mixed


def take(targets: Targets, rows: Tensor) -> Targets:
    """The targets of other rows of the batch."""
    return {name: each.index_select(0, rows) for name, each in targets.items()}


def by_frame(target: Tensor) -> bool:
    """Whether a tensor of the targets holds frames."""
    return target.ndim == 3


def label_frames(targets: Targets | None, frames: int, ratio: float) -> int:
    """T; without frame targets, as many as so many feature frames have, `ratio` of them to a label frame."""
    held = [each.shape[2] for each in (targets or {}).values() if by_frame(each)]
    return held[0] if held else max(1, round(frames / ratio))


def roll_frames(x: Tensor, shift: Tensor) -> Tensor:
    """(B, C, T) with each clip shifted in a circle of its frames. shift: (B,) int64, towards later for above 0."""
    source = (torch.arange(x.shape[2], device=x.device) - shift[:, None]) % x.shape[2]
    return x.gather(2, source[:, None, :].expand_as(x))
