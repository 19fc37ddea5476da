"""EAT's encoder (Chen et al., IJCAI 2024; public code: models/images.py, base.py, modules.py).

Axes: B clips, R rows (clones of clips), T x F token grid, N = T F tokens, V visible tokens, D width.
Tokens are time-major (token = t * F + f). One CLS token stands in front; it joins after masking and has no position.
A LayerNorm over CLS and tokens comes before the first block; blocks are post-norm; there is no final norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.masks.gather import gather_tokens
from c2ftool.models.backbone import PatchBackbone, PatchEmbed
from c2ftool.models.layout import Change, Kernel, Sized
from c2ftool.models.positions import sincos_2d
from c2ftool.models.vit import NormOrder
from c2ftool.spec.backbones import Backbone
from c2ftool.spec.resolved import Tokens


class Eat(PatchBackbone):
    """The encoder, for any length up to 768 time patches."""

    sized: Mapping[str, Sized] = {"patch_embed.proj.weight": Kernel(mel_first=False)}
    mel_major: ClassVar[bool] = False
    patch_embed: PatchEmbed
    norm_order: ClassVar[NormOrder] = "post"

    def __init__(self, size: Backbone, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.norm_pre = nn.LayerNorm(size.width, 1e-6)

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions, without CLS. Raises ValueError beyond 768 time patches."""
        tokens = self.patch_embed(features)
        return tokens + sincos_2d(*self.grid(features.shape[1]), self.width, tokens.device)

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, 1 + n, D), CLS first. draw: of the rows; without it no branch is skipped."""
        return self.run_blocks(self._with_cls(tokens), draw)

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; a kernel of another shape is left unset."""
        old, self.tokens = self.tokens.grid, tokens
        self.patch_embed.set_tokens(tokens)
        if old == tokens.grid:
            return []
        about = f"positions {old[1]} x {old[0]} -> {tokens.frequency} x {tokens.time} (sine-cosine)"
        return [Change("positions", "recomputed", about)]

    @classmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As data2vec 2.0 (init_bert_params): linear layers normal 0.02, CLS normal 1, the rest as timm."""
        if name == "cls_token":
            value.normal_(generator=generator)
        elif isinstance(owner, nn.Linear) and short == "weight":
            value.normal_(0, 0.02, generator=generator)
        else:
            super().first_value(owner, short, name, value, generator)

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

    def forward_visible(self, features: Tensor, visible: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) and (R, V) visible places -> (R, 1 + V, D); a clip is embedded once for its clones."""
        return self.encode(gather_tokens(self.embed(features), visible), draw)
