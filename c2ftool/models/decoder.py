"""EAT's convolutional decoder, for pre-training only (public code: models/base.py, Decoder2d)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.masks.gather import gather_tokens
from c2ftool.spec.objective import Decoder


class DecoderBlock(nn.Module):
    """Grouped convolution, LayerNorm over channels without affine, GELU, and the input added."""

    def __init__(self, width: int, spec: Decoder) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, spec.kernel, padding=spec.kernel // 2, groups=spec.groups)

    def forward(self, x: Tensor) -> Tensor:
        """(R, D, T, F) -> (R, D, T, F)."""
        mixed = self.conv(x).permute(0, 2, 3, 1)
        return x + F.gelu(F.layer_norm(mixed, mixed.shape[-1:])).permute(0, 3, 1, 2)


class ConvDecoder(nn.Module):
    """Predicts tokens' targets from the visible tokens, over any grid.

    Axes: R rows, T x F grid, N = T F tokens, M tokens asked for, D width.
    """

    def __init__(self, width: int, spec: Decoder) -> None:
        super().__init__()
        if width % spec.groups:
            raise ValueError(f"width {width} is not a multiple of {spec.groups} decoder groups")
        if spec.kernel % 2 == 0:
            raise ValueError(f"decoder kernel {spec.kernel} is even")
        self.blocks = nn.ModuleList(DecoderBlock(width, spec) for _ in range(spec.layers))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int], at: Tensor | None = None) -> Tensor:
        """(R, N, D) tokens of a (T, F) grid -> (R, N, D) predictions; only those `at` (R, M) places if given."""
        rows, _, width = tokens.shape
        x = tokens.transpose(1, 2).reshape(rows, width, *grid)  # channels last in memory: no copy here or in the blocks
        for block in self.blocks:
            x = block(x)
        decoded = x.flatten(2).transpose(1, 2)
        return self.proj(decoded if at is None else gather_tokens(decoded, at))
