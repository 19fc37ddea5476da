"""The parts of a Vision Transformer, written once. Axes: B clips, N tokens, D width, H heads.

pre-norm (ViT, most):   x = x + attn(norm1(x));  x = x + mlp(norm2(x))
post-norm (EAT):        x = norm1(x + attn(x));  x = norm2(x + mlp(x))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw

NormOrder = Literal["pre", "post"]


def drop_path(rates: Sequence[float], draw: Draw) -> list[Tensor | None]:
    """The factors of each block's two branches, (2, R, 1, 1): 0 where a row skips the branch, else 1 / (1 - rate).

    None for a block that is never skipped. Stochastic depth per row (Huang et al., ECCV 2016). All blocks come from one
    draw, and outside of them: a compiled block sees only numbers.
    """
    rate = torch.tensor(rates, device=draw.rows.device)[:, None]
    kept = draw.uniform("model.drop_path", len(rates), 2) >= rate
    factors = (kept / (1 - rate)).permute(1, 2, 0)[..., None, None]
    return [factors[block] if rates[block] else None for block in range(len(rates))]


def beside(adapters: nn.Module | None, branch: Tensor, given: Tensor, residual: Tensor) -> Tensor:
    """A branch's output with that of what stands beside it. given: what the branch was given."""
    if adapters is None:
        return branch
    out: Tensor = adapters(given, residual)
    return branch + out


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A transformer block of either order. beside_attention, beside_mlp: places for adapters."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm_order: NormOrder, eps: float = 1e-6, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.norm_order = norm_order
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, hidden)
        self.beside_attention: nn.Module | None = None
        self.beside_mlp: nn.Module | None = None

    def forward(self, x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(output, MLP output) of (B, N, D); the MLP output is taken before the residual.

        factors: (2, B, 1, 1) for the attention and the MLP branch, from `drop_path`.
        """
        given = self.norm1(x) if self.norm_order == "pre" else x
        attended = beside(self.beside_attention, self.attn(given), given, x)
        x = x + (attended if factors is None else attended * factors[0])
        if self.norm_order == "post":
            x = self.norm1(x)
        given = self.norm2(x) if self.norm_order == "pre" else x
        branch = beside(self.beside_mlp, self.mlp(given), given, x)
        x = x + (branch if factors is None else branch * factors[1])
        return (self.norm2(x) if self.norm_order == "post" else x), branch
