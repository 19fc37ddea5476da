"""EAT's encoder (Chen et al., IJCAI 2024; public code: models/images.py, base.py, modules.py).

Axes: B clips, R rows (clones of clips), T x F token grid, N = T F tokens, V visible tokens, D width.
Tokens are time-major (token = t * F + f). One CLS token stands in front; it joins after masking and has no position.
A LayerNorm over CLS and tokens comes before the first block; blocks are post-norm; there is no final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from c2ftool.compression.grid import token_grid
from c2ftool.draws import Draw
from c2ftool.masks.gather import gather_tokens
from c2ftool.models.positions import sincos_2d
from c2ftool.models.vit import Block, drop_path
from c2ftool.spec.backbones import Backbone


class PatchEmbed(nn.Module):
    """Patches of the log-mel to tokens."""

    def __init__(self, patch: tuple[int, int], width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch, stride=patch)

    def forward(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D), time-major."""
        return self.proj(features[:, None]).flatten(2).transpose(1, 2)


class Eat(nn.Module):
    """The encoder, for any length up to 768 time patches."""

    def __init__(self, size: Backbone, mels: int, drop_path_rate: float = 0.0) -> None:
        """drop_path_rate: with which a row skips the last block's branches in training; rises linearly from 0."""
        super().__init__()
        self.size = size
        self.mels = mels
        self.width = size.width
        self.depth = size.depth
        self.drop_path = [drop_path_rate * place / max(1, size.depth - 1) for place in range(size.depth)]
        self.patch_embed = PatchEmbed(size.patch, size.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.norm_pre = nn.LayerNorm(size.width, 1e-6)
        hidden = size.mlp_ratio * size.width
        self.blocks = nn.ModuleList(Block(size.width, size.heads, hidden, "post") for _ in range(size.depth))

    def grid(self, frames: int) -> tuple[int, int]:
        """(T, F) of an input of so many frames."""
        return token_grid(frames, self.mels, self.size.patch)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions, without CLS. Raises ValueError beyond 768 time patches."""
        tokens = self.patch_embed(features)
        return tokens + sincos_2d(*self.grid(features.shape[1]), self.width, tokens.device)

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, 1 + n, D), CLS first. draw: of the rows; without it no branch is skipped."""
        x = self._with_cls(tokens)
        skips = self.training and draw is not None and any(self.drop_path)
        factors = drop_path(self.drop_path, draw) if skips and draw is not None else [None] * self.depth
        for block, factor in zip(self.blocks, factors, strict=True):
            x, _ = block(x, factor)
        return x

    def targets(self, features: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The MLP outputs, before the residual, of the blocks in `layers`: each (B, N, D), without CLS.

        (B, frames, mels) features. What EAT's teacher averages; blocks after the last wanted one are not run.
        """
        x = self._with_cls(self.embed(features))
        outputs: list[Tensor] = []
        for place, block in enumerate(islice(self.blocks, max(layers) + 1)):
            x, branch = block(x)
            if place in layers:
                outputs.append(branch[:, 1:])
        return outputs

    def _with_cls(self, tokens: Tensor) -> Tensor:
        return self.norm_pre(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1))

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, 1 + N, D), CLS first."""
        return self.encode(self.embed(features), draw)

    def forward_visible(self, features: Tensor, visible: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) and (R, V) visible places -> (R, 1 + V, D); a clip is embedded once for its clones."""
        return self.encode(gather_tokens(self.embed(features), visible), draw)

    def sequence(self, features: Tensor) -> Tensor:
        """(B, T, D) in time order: tokens averaged over frequency."""
        time, frequency = self.grid(features.shape[1])
        tokens = self(features)[:, 1:]
        return tokens.reshape(len(tokens), time, frequency, self.width).mean(2)

    def clip(self, features: Tensor) -> Tensor:
        """(B, D): the CLS token."""
        return self(features)[:, 0]
