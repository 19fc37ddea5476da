"""AST's encoder: a distilled DeiT on patches of the log-mel (Gong et al., Interspeech 2021; src/models/ast_models.py).

Axes: B clips, R rows, T x F token grid, N = T F tokens, D width.
Tokens are mel-major (token = f * T + t), as published: the table of positions is in that order. Class and distillation
token stand in front, with positions of their own; blocks are pre-norm; a LayerNorm follows the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import PatchBackbone, PatchEmbed, unset
from c2ftool.models.layout import Change, Kernel, Sized, Table
from c2ftool.models.vit import NormOrder
from c2ftool.spec.backbones import Backbone
from c2ftool.spec.resolved import Tokens

PREFIX = 2  # class and distillation token


class Ast(PatchBackbone):
    """The encoder, for the token grid it was built or resized for."""

    sized: Mapping[str, Sized] = {
        "pos_embed": Table(prefix=PREFIX, mel_major=True),
        "patch_embed.proj.weight": Kernel(mel_first=True),
    }
    mel_major: ClassVar[bool] = True
    patch_embed: PatchEmbed
    norm_order: ClassVar[NormOrder] = "pre"
    head_eps: ClassVar[float] = 1e-5

    def __init__(self, size: Backbone, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, PREFIX + tokens.count, size.width))
        self.norm = nn.LayerNorm(size.width, 1e-6)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions. Raises ValueError for an input of another grid."""
        tokens = self.patch_embed(features)
        if tokens.shape[1] != self.tokens.count:
            grid = "{} x {}".format(*self.grid(features.shape[1]))
            raise ValueError(f"{features.shape[1]} frames make {grid} tokens; positions are for {self.tokens.grid}")
        return tokens + self.pos_embed[:, PREFIX:]

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, 2 + n, D) after the last norm: class, distillation, the others."""
        front = torch.cat([self.cls_token, self.dist_token], dim=1) + self.pos_embed[:, :PREFIX]
        x = torch.cat([front.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.norm(self.run_blocks(x, draw))

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; positions and kernel of another shape are left unset."""
        self.patch_embed.set_tokens(tokens)
        self.pos_embed = unset(self.pos_embed, (1, PREFIX + tokens.count, self.width))
        self.tokens = tokens
        return []
