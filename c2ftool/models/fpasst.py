"""fPaSST's encoder: a DeiT on frames (Schmid et al., ICASSP 2025; public code: models/frame_passt/fpasst.py).

Axes: B clips, R rows, T tokens, D width.
Three convolutions make 64 channels of a quarter of the mel bands and frames; four channels at a time are laid side by
side, which gives 16 of all mel bands. A token is two steps of that, each token one step on. Class and distillation
token stand in front. A token's position is one of time and one that all share.

Not done: in training, the public code gives a shorter input a random stretch of the table of times. Here it is given
the first rows, as there in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import PatchBackbone, unset
from c2ftool.models.layout import Change, Sized, Table
from c2ftool.models.vit import NormOrder
from c2ftool.spec.backbones import Backbone
from c2ftool.spec.resolved import Tokens

PREFIX = 2  # class and distillation token
CHANNELS = 16  # that a token is made of
_STEM = ((1, 16, 2), (16, 32, 1), (32, 64, 2))  # channels before and after, stride; of every size of the encoder


class FrameEmbed(nn.Module):
    """Two steps of all mel bands to a token, a step apart; the last has zeros for its second step."""

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, width, (mels, 2))

    def forward(self, stem: Tensor) -> Tensor:
        """(B, channels, bands, T) of the stem -> (B, T, D)."""
        # the kernel spans all mel bands: a convolution over time alone, which is quicker
        steps = F.pad(stem.flatten(1, 2), (0, 1))
        return F.conv1d(steps, self.proj.weight.flatten(1, 2), self.proj.bias).transpose(1, 2)


class Fpasst(PatchBackbone):
    """The encoder, for the number of tokens it was built or resized for."""

    sized: Mapping[str, Sized] = {"time_pos": Table(prefix=0, mel_major=False)}
    mel_major: ClassVar[bool] = False
    norm_order: ClassVar[NormOrder] = "pre"

    def __init__(self, size: Backbone, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        self.stem = nn.ModuleList(nn.Conv2d(old, new, 3, stride, padding=1) for old, new, stride in _STEM)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.prefix_pos = nn.Parameter(torch.zeros(1, PREFIX, size.width))
        self.freq_pos = nn.Parameter(torch.zeros(1, 1, size.width))
        self.time_pos = nn.Parameter(torch.zeros(1, tokens.time, size.width))
        self.norm = nn.LayerNorm(size.width, 1e-6)

    def make_patch_embed(self, tokens: Tokens) -> nn.Module:
        """From what the stem makes to (B, T, D)."""
        return FrameEmbed(tokens.mels, self.size.width)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, T, D) with positions. Raises ValueError for an input of another length."""
        time, _ = self.grid(features.shape[1])
        if time != self.tokens.time:
            raise ValueError(f"{features.shape[1]} frames make {time} tokens; positions are for {self.tokens.time}")
        x = features.transpose(1, 2).contiguous()[:, None]
        for convolution in self.stem:
            x = F.gelu(convolution(x))
        return self.patch_embed(x) + (self.time_pos + self.freq_pos)

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, 2 + n, D) after the last norm: class, distillation, the others."""
        front = torch.cat([self.cls_token, self.dist_token], dim=1) + self.prefix_pos
        x = torch.cat([front.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.norm(self.run_blocks(x, draw))

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another number of tokens; positions of another number are left unset."""
        self.time_pos = unset(self.time_pos, (1, tokens.time, self.width))
        self.tokens = tokens
        return []
