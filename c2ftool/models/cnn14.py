"""CNN14, a convolutional network on the log-mel (PANNs: Kong et al., TASLP 2020; pytorch/models.py).

Axes: B clips, T x F positions after five halvings, D width. It has no tokens of its own; the last block's positions are
given as such, time-major.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone
from c2ftool.models.layout import Change
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.resolved import Tokens

BLOCKS = 6
DROPOUT = 0.2  # after each block
EMBEDDING_DROPOUT = 0.5  # before the layer that makes the embedding


class ConvBlock(nn.Module):
    """Two convolutions of 3 x 3, each with batch norm and ReLU; then, if `pool`, the mean of each 2 x 2 positions."""

    def __init__(self, before: int, after: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, F) -> (B, C', T, F), or (B, C', T // 2, F // 2)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, 2) if self.pool else x


class Cnn14(Backbone):
    """The network up to its embedding, for any length of at least 32 frames."""

    head_eps: ClassVar[float] = 1e-5

    def __init__(self, size: Size, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        """drop_path_rate: of no use here, there are no branches to skip."""
        super().__init__(size, tokens, drop_path_rate)
        channels = [1, *(size.width >> halvings for halvings in reversed(range(BLOCKS)))]
        self.bn0 = nn.BatchNorm1d(tokens.mels)
        self.blocks = nn.ModuleList(
            ConvBlock(channels[place], channels[place + 1], pool=place < BLOCKS - 1) for place in range(BLOCKS)
        )
        self.fc1 = nn.Linear(size.width, size.width)

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, T F, D), time-major. draw: of the rows; without it nothing is dropped."""
        x = self.bn0(features.transpose(1, 2)).transpose(1, 2).contiguous()[:, None]
        for place, block in enumerate(self.blocks):
            x = self._dropped(block(x), DROPOUT, f"model.dropout.{place}", draw)
        return x.flatten(2).transpose(1, 2)

    def embedding(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, D): the mean over mel, its largest value and mean over time added, a layer and ReLU."""
        frequency = self.grid(self.tokens.frames)[1]
        over_time = tokens.unflatten(1, (-1, frequency)).mean(2)
        pooled = over_time.amax(1) + over_time.mean(1)
        return F.relu(self.fc1(self._dropped(pooled, EMBEDDING_DROPOUT, "model.dropout.embedding", draw)))

    def _dropped(self, x: Tensor, rate: float, purpose: str, draw: Draw | None) -> Tensor:
        """In training, x with each value 0 with the probability `rate`, the others larger by as much."""
        if not self.training or draw is None:
            return x
        return x * draw.kept(purpose, rate, *x.shape[1:]).to(x.dtype)

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another length; nothing depends on it."""
        self.tokens = tokens
        return []

    @classmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As PANNs: weights Xavier uniform, norms one and zero."""
        if isinstance(owner, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            value.fill_(1.0 if short == "weight" else 0.0)
        elif short == "bias":
            value.zero_()
        else:
            nn.init.xavier_uniform_(value, generator=generator)

    def layer_of(self, name: str) -> int | None:
        """The block with which a parameter learns under layer decay: the embedding's layer with the last."""
        return BLOCKS - 1 if name.startswith("fc1.") else super().layer_of(name)
