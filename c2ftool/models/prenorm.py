"""What ATST-Frame, M2D and ASiT share: learned positions, pre-norm blocks, a LayerNorm after the last one.

Axes: B clips, R rows, P tokens in front (CLS or none), N tokens of the grid, D width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import PatchBackbone, unset
from c2ftool.models.layout import Change
from c2ftool.models.vit import NormOrder
from c2ftool.spec.backbones import Backbone
from c2ftool.spec.resolved import Tokens


class PreNormVit(PatchBackbone):
    """The encoder, for the token grid it was built or resized for. CLS, where there is one, has a position too."""

    norm_order: ClassVar[NormOrder] = "pre"

    def __init__(self, size: Backbone, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        if self.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(self._table(tokens)))
        self.norm = nn.LayerNorm(size.width, 1e-6)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions. Raises ValueError for an input of another grid."""
        tokens = self.patch_embed(features)
        if tokens.shape[1] != self.tokens.count:
            raise self.refusal(features.shape[1])
        # in this order the sum, and so every residual stream after it, is laid out as positions are: row by row
        return self.pos_embed[:, self.prefix :] + tokens

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, P + n, D) after the last norm, CLS first."""
        x = tokens
        if self.prefix:
            front = self.cls_token + self.pos_embed[:, : self.prefix]
            x = torch.cat([front.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.run_blocks(x, draw))

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; positions and kernel of another shape are left unset."""
        self.patch_embed.set_tokens(tokens)  # type: ignore[operator]
        self.pos_embed = unset(self.pos_embed, self._table(tokens))
        self.tokens = tokens
        return []

    def refusal(self, frames: int) -> ValueError:
        """What is wrong with an input of so many frames."""
        grid = "{} x {}".format(*self.grid(frames))
        return ValueError(f"{frames} frames make {grid} tokens; positions are for {self.tokens.grid}")

    def _table(self, tokens: Tokens) -> tuple[int, int, int]:
        time, frequency = self.shape(tokens).grid
        return 1, self.prefix + time * frequency, self.size.width
