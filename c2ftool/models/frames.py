"""Scores over time from a backbone's sequence, as Schmid et al. (ICASSP 2025; models/prediction_wrapper.py) make them.

Axes: B clips, S steps of the sequence, T frames, D width, C classes. Class before frame, as published.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone
from c2ftool.models.recurrent import BiGru

Sequence = Literal["published", "time"]
Weak = Literal["mean", "attention"]

FRAMES = 250  # of 40 ms, in 10 s
LEAST = 1e-7  # of an attention, and of a clip's probability that comes of one


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


def attended(strong: Tensor, attention: Tensor) -> Tensor:
    """(B, C) float32 logits of clips, of the frames' (B, C, T) logits and those of an attention over classes.

    The clip's probability is sum_t(p a) / sum_t(a), where p is the sigmoid of the frame's logit and a the softmax of
    `attention` over the C classes, no less than 1e-7 (DESED's baseline; Li et al., TASLP 2024). It is given as a logit
    for losses that are safe with logits: its odds are sum_t(p a) / sum_t((1 - p) a), and both sums are taken in log
    space, so that no logit is too large. It is kept where the probability lies in [1e-7, 1 - 1e-7], so that its cross
    entropy is that of the probability clamped so; without gradient beyond.
    """
    weight = attention.float().log_softmax(1).clamp(min=math.log(LEAST))
    on = (weight + F.logsigmoid(strong.float())).logsumexp(2)
    off = (weight + F.logsigmoid(-strong.float())).logsumexp(2)
    most = math.log((1 - LEAST) / LEAST)
    return (on - off).clamp(-most, most)


class FrameHead(nn.Module):
    """Scores of every frame, and of the clip: the published files' two linear heads, for teachers behind a GRU.

    The sequence is aligned to the frames; there is nothing between that, the GRU and the linear layers. The clip's
    scores are a linear layer's (`weak`) on the mean over frames, or with `attention` the frames' weighted by a softmax
    of that layer's scores over classes, frame by frame (`attended`).
    """

    def __init__(
        self,
        width: int,
        classes: int,
        frames: int,
        *,
        recurrent: tuple[int, int] | None = None,
        weak: Weak = "mean",
        weak_classes: int | None = None,
    ) -> None:
        """width: of the sequence (`sequence_width`). recurrent: layers and hidden units of one direction of the GRU.

        weak_classes: of the clip's scores; as many as the frames' if not given. Raises ValueError where an attention
        has another number.
        """
        super().__init__()
        weak_classes = classes if weak_classes is None else weak_classes
        if weak == "attention" and weak_classes != classes:
            raise ValueError(f"an attention weighs the scores of {classes} classes, not of {weak_classes}")
        self.frames = frames
        self.attention = weak == "attention"
        self.rnn = BiGru(width, *recurrent) if recurrent else None
        if recurrent:
            width = 2 * recurrent[1]
        self.strong = nn.Linear(width, classes)
        self.weak = nn.Linear(width, weak_classes)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        """((B, C, frames) logits of frames, (B, C') logits of the clip) of a (B, S, D) sequence."""
        x = align(sequence, self.frames)
        if self.rnn is not None:
            x = self.rnn(x)
        strong = self.strong(x).transpose(1, 2)
        if self.attention:
            return strong, attended(strong, self.weak(x).transpose(1, 2))
        return strong, self.weak(x.mean(1))


class FrameDetector(nn.Module):
    """A backbone with a head that scores frames and clips."""

    def __init__(self, backbone: Backbone, head: FrameHead, sequence: Sequence) -> None:
        """sequence: what the head is given: `published_sequence`, or `sequence` in the order of time."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.published = sequence == "published"

    def forward(self, features: Tensor, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """((B, C, T) logits of frames, (B, C') logits of clips) of (B, frames, mels). draw: of the rows."""
        sequence = self.backbone.published_sequence if self.published else self.backbone.sequence
        scores: tuple[Tensor, Tensor] = self.head(sequence(features, draw))
        return scores


def sequence_width(backbone: Backbone, sequence: Sequence) -> int:
    """The width of a backbone's sequence: M2D's published one has the bands of a time step side by side."""
    if sequence == "published" and backbone.size.family == "m2d":
        return backbone.grid(backbone.tokens.frames)[1] * backbone.width
    return backbone.width
