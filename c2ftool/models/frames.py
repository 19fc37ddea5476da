"""Scores over time from a backbone's sequence, as Schmid et al. (ICASSP 2025; models/prediction_wrapper.py) make them.

Axes: B clips, S steps of the sequence, D width, C classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

FRAMES = 250  # of 40 ms, in 10 s


def align(sequence: Tensor, frames: int = FRAMES) -> Tensor:
    """(B, frames, D) of (B, S, D): averaged where S is more, interpolated linearly where it is less.

    An average is over steps floor(i S / frames) .. ceil((i + 1) S / frames) - 1, so neighbours may share a step.
    """
    steps = sequence.shape[1]
    if steps == frames:
        return sequence
    x = sequence.transpose(1, 2)
    aligned = F.adaptive_avg_pool1d(x, frames) if steps > frames else F.interpolate(x, frames, mode="linear")
    return aligned.transpose(1, 2)


class FrameHead(nn.Module):
    """Linear scores of every frame, and of the clip from the mean over frames: the published files' two heads."""

    def __init__(self, width: int, strong: int, weak: int, frames: int = FRAMES) -> None:
        """strong, weak: classes of the frame scores and of the clip's."""
        super().__init__()
        self.frames = frames
        self.strong = nn.Linear(width, strong)
        self.weak = nn.Linear(width, weak)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """((B, C, frames) logits of frames, (B, C') logits of the clip) of a (B, S, D) sequence."""
        aligned = align(sequence, self.frames)
        return self.strong(aligned).transpose(1, 2), self.weak(aligned.mean(1))
