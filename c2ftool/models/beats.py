"""BEATs' encoder (Chen et al., ICML 2023; public code: microsoft/unilm, beats/BEATs.py and backbone.py).

Axes: B clips, T x F token grid, N = T F tokens, D width, K taps.
Tokens are time-major (token = t * F + f), nothing stands in front of them. Positions come of a convolution over the
flat tokens and of a gated bias by distance (relative.py), so any length will do. Blocks are post-norm with the residual
weighted as in DeepNet (Wang et al., 2022): x = norm(alpha x + branch), alpha = (2 depth)^(1/4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.draws import Draw
from c2ftool.models.backbone import Backbone, PatchEmbed
from c2ftool.models.layout import Change, Kernel, Sized
from c2ftool.models.relative import GatedAttention, RelativeBias, XavierLinear, full_precision, wide
from c2ftool.models.vit import Mlp, beside
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.backbones import Relative
from c2ftool.spec.resolved import Tokens

EPS = 1e-5  # of every LayerNorm


class UnbiasedPatchEmbed(PatchEmbed):
    """Patches to tokens, by a convolution without bias."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__(tokens, width, mel_major=False)
        self.proj.bias = None


class PositionConv(nn.Module):
    """A grouped convolution over the tokens, its kernel normalised by tap: weight[k] = gain[k] direction[k] / norm."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.gain = nn.Parameter(torch.empty(1, 1, kernel))  # after the direction, from which its first values are
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D), through a GELU. With an even kernel token n sees K/2 before and K/2 - 1 after it."""
        padding = self.direction.shape[2] // 2
        out = F.conv1d(x.transpose(1, 2), self.weight().to(x.dtype), self.bias, padding=padding, groups=self.groups)
        return F.gelu(out[..., : x.shape[1]]).transpose(1, 2)

    def weight(self) -> Tensor:
        """(D, D / groups, K) kernel, float32: squares are not summed in half precision."""
        direction = wide(self.direction)
        norm = direction.square().sum((0, 1), keepdim=True).sqrt()
        return direction * (wide(self.gain) / norm)


class DeepNormMlp(Mlp):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int, gain: float) -> None:
        nn.Module.__init__(self)
        self.fc1 = XavierLinear(width, hidden, gain)
        self.fc2 = XavierLinear(hidden, width, gain)


class DeepNormBlock(nn.Module):
    """A post-norm transformer block with gated relative attention. beside_*: places for adapters."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.alpha, gain = (2 * size.depth) ** 0.25, (8 * size.depth) ** -0.25
        self.attn = GatedAttention(size.width, size.heads, gain)
        self.norm1 = nn.LayerNorm(size.width, EPS)
        self.mlp = DeepNormMlp(size.width, size.mlp_ratio * size.width, gain)
        self.norm2 = nn.LayerNorm(size.width, EPS)
        self.beside_attention: nn.Module | None = None
        self.beside_mlp: nn.Module | None = None

    def forward(self, x: Tensor, bias: Tensor, factors: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D). bias: of `RelativeBias`. factors: (2, B, 1, 1) of the branches, from `drop_path`."""
        branch = beside(self.beside_attention, self.attn(x, bias), x, x)
        x = self.norm1(torch.add(branch if factors is None else branch * factors[0], x, alpha=self.alpha))
        branch = beside(self.beside_mlp, self.mlp(x), x, x)
        return self.norm2(torch.add(branch if factors is None else branch * factors[1], x, alpha=self.alpha))


class Beats(Backbone):
    """The encoder, for any length.

    Left out is the public code's own dropout (0.1 after the embedding, in attention and after each branch; whole layers
    with 0.05 in pre-training): branches are skipped instead, by counted draws, where `drop_path_rate` says so.

    Half precision. The public code gives NaN under autocast in float16 (microsoft/unilm, issue 1569), because its front
    end runs inside: the power spectrum of a waveform scaled by 32768 passes 65504, and its logarithm is infinite for
    any clip that is not silent. Here front ends are outside of autocast, always float32; so is the patch kernel, and
    LayerNorm follows it. Attention is safe by itself (relative.py).
    """

    sized: Mapping[str, Sized] = {"patch_embed.proj.weight": Kernel(mel_first=False)}
    head_eps: ClassVar[float] = EPS

    def __init__(self, size: Size, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        shape = size.shape
        if not isinstance(shape, Relative):
            raise ValueError(f"{size.name} has no relative positions")
        self.patch_embed = UnbiasedPatchEmbed(tokens, shape.patch_width)
        self.patch_norm = nn.LayerNorm(shape.patch_width, EPS)
        self.patch_proj = nn.Linear(shape.patch_width, size.width)
        self.position = PositionConv(size.width, shape.kernel, shape.groups)
        self.norm_pre = nn.LayerNorm(size.width, EPS)
        self.relative = RelativeBias(shape, size.heads)
        self.blocks = nn.ModuleList(DeepNormBlock(size) for _ in range(size.depth))

    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions, normalised."""
        with full_precision(features.device):
            patches = self.patch_norm(self.patch_embed(features.to(self.patch_norm.weight.dtype)))
        tokens = self.patch_proj(patches)
        return self.norm_pre(tokens + self.position(tokens))

    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, N, D) embedded tokens -> (R, N, D). draw: of the rows; without it no branch is skipped."""
        x, bias = tokens, self.relative(tokens.shape[1])
        for block, factor in zip(self.blocks, self.skips(draw), strict=True):
            x = block(x, bias, factor)
        return x

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, N, D)."""
        return self.encode(self.embed(features), draw)

    def published_sequence(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, N, D): all tokens in their flat order, which the published frame heads took for time."""
        return self(features, draw)

    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; a kernel of another shape is left unset."""
        self.patch_embed.set_tokens(tokens)
        self.tokens = tokens
        return []

    @classmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As published: layers and the table of the bias normal 0.02, with exceptions.

        Those of attention and MLP are Xavier normal, with gain (8 depth)^(-1/4) for values, outputs and MLP; the patch
        kernel and the layer after it uniform within 1 / sqrt(fan in); the position kernel normal with deviation
        2 / sqrt(K D), its gain such that the kernel is its direction; gates' scales one.
        """
        match owner, short:
            case nn.LayerNorm(), _:
                value.fill_(1.0 if short == "weight" else 0.0)
            case nn.Conv2d(), _:
                _uniform(value, value[0].numel(), generator)
            case nn.Linear(), _ if name.startswith("patch_proj."):
                _uniform(value, owner.in_features, generator)
            case PositionConv(), "direction":
                value.normal_(0, 2 / (value.shape[2] * value.shape[0]) ** 0.5, generator=generator)
            case PositionConv(), "gain":
                value.copy_(owner.direction.detach().float().square().sum((0, 1), keepdim=True).sqrt())
            case GatedAttention(), "gate_scale":
                value.fill_(1.0)
            case _, "bias":
                value.zero_()
            case XavierLinear(), _:
                nn.init.xavier_normal_(value, owner.gain, generator=generator)
            case _:
                value.normal_(0, 0.02, generator=generator)


def _uniform(value: Tensor, fan_in: int, generator: torch.Generator) -> None:
    value.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
