"""What every backbone is: tokens out of a log-mel, their order, fitting to another token grid; and what the Vision
Transformers among them share: patches to tokens, the blocks' loop.

Axes: B clips, R rows, N tokens of the grid, P tokens in front of it, D width.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from c2ftool.adapters.beside import Lay
from c2ftool.adapters.insert import Adapter, insert, lay_out
from c2ftool.draws import Draw
from c2ftool.models.layout import Change, Rules, Shape, Sized, fit
from c2ftool.models.vit import Block, NormOrder, drop_path
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.layout import tokens_of
from c2ftool.spec.resolved import Tokens

_BLOCK = re.compile(r"blocks\.(\d+)\.")


def shape_of(tokens: Tokens) -> Shape:
    """The grid and the patch of a phase's tokens."""
    return Shape(tokens.grid, (tokens.patch[0], tokens.patch[1]))


class PatchEmbed(nn.Module):
    """Patches of the log-mel to tokens: time-major (t * F + f), or mel-major (f * T + t) as AST has them."""

    def __init__(self, tokens: Tokens, width: int, mel_major: bool) -> None:
        super().__init__()
        self.mel_major = mel_major
        self.proj = nn.Conv2d(1, width, self._pair(tokens.patch), stride=self._pair(tokens.stride))

    def _pair(self, sides: list[int]) -> tuple[int, int]:
        return (sides[1], sides[0]) if self.mel_major else (sides[0], sides[1])

    def set_tokens(self, tokens: Tokens) -> None:
        """Take another patch and stride; a kernel of another size is left unset."""
        self.proj.kernel_size, self.proj.stride = self._pair(tokens.patch), self._pair(tokens.stride)
        shape = (*self.proj.weight.shape[:2], *self.proj.kernel_size)
        self.proj.weight = unset(self.proj.weight, shape)

    def forward(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D)."""
        # laid out as the kernel is: a transposed view would give its gradient strides that data parallelism warns of
        image = features.transpose(1, 2).contiguous() if self.mel_major else features
        return self.proj(image[:, None]).flatten(2).transpose(1, 2)


class Backbone(nn.Module, ABC):
    """A network from log-mel to tokens.

    sized: the tensors whose shape follows the token grid or the patch. mel_major: whether the grid's tokens are in the
    order f * T + t, else t * F + f. width: of the tokens that `forward` gives. head_eps: of the LayerNorm of its heads.
    """

    sized: Mapping[str, Sized] = {}
    mel_major: ClassVar[bool] = False
    head_eps: ClassVar[float] = 1e-6

    def __init__(self, size: Size, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        """drop_path_rate: with which a row skips the last block's branches in training; rises linearly from 0."""
        super().__init__()
        self.size = size
        self.tokens = tokens
        self.width = size.width
        self.depth = size.depth
        self.prefix = size.prefix
        self.drop_path = [drop_path_rate * place / max(1, size.depth - 1) for place in range(size.depth)]

    @abstractmethod
    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, P + N, D), the tokens in front first. draw: of the rows, for drop path."""

    @abstractmethod
    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; tensors of another shape are left unset. What is computed anew.

        Called by `lay_tokens`, from outside.
        """

    @classmethod
    @abstractmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Fill a parameter with its first values.

        owner, short: the module it belongs to and its name there. name: its name in the backbone. value: float32 on
        the CPU.
        """

    def grid(self, frames: int) -> tuple[int, int]:
        """(T, F) of an input of so many frames."""
        tokens = self.tokens
        patch, stride = (tokens.patch[0], tokens.patch[1]), (tokens.stride[0], tokens.stride[1])
        return tokens_of(frames, tokens.mels, patch, stride, self.size.grid).grid

    def shape(self, tokens: Tokens) -> Shape:
        """What the sized tensors depend on."""
        return shape_of(tokens)

    def resize(self, tokens: Tokens, rules: Rules) -> list[Change]:
        """Fit the weights to another token grid and patch; returns what changed. Created tensors are left unset."""
        if tokens == self.tokens:
            return []
        before = {name: value.detach() for name, value in self.state_dict().items() if name in self.sized}
        fitted, changes = fit(before, self.sized, self.shape(self.tokens), self.shape(tokens), rules)
        changes += self.lay_tokens(tokens)
        self.load_state_dict(fitted, strict=False)
        return changes

    def lay_tokens(self, tokens: Tokens) -> list[Change]:
        """`set_tokens`, and tell the adapters how tokens lie now."""
        changes = self.set_tokens(tokens)
        lay_out(self.blocks_of(), self.lays())
        return changes

    def blocks_of(self) -> list[nn.Module]:
        """The blocks, in order."""
        return list(getattr(self, "blocks", []))

    def lays(self) -> list[Lay]:
        """How the tokens of each block lie."""
        return [Lay(self.prefix, self.tokens.frequency, self.mel_major)] * self.depth

    def adapt(self, adapters: Sequence[Adapter]) -> None:
        """Put adapters into the blocks. Raises ValueError for a network without blocks."""
        if adapters and not self.size.block_widths:
            raise ValueError(f"{self.size.name} has no transformer blocks for adapters")
        insert(self.blocks_of(), self.lays(), adapters)

    def embedding(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, E): the published clip embedding of (B, P + N, D) tokens: the mean of those in front, or of the rest."""
        return (tokens[:, : self.prefix] if self.size.pool == "cls" else tokens[:, self.prefix :]).mean(1)

    def clip(self, features: Tensor) -> Tensor:
        """(B, E): the clip embedding of (B, frames, mels)."""
        return self.embedding(self(features))

    def sequence(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, T, D) in time order: tokens averaged over the mel axis. draw: of the rows, as for `forward`."""
        time, frequency = self.grid(features.shape[1])
        tokens = self(features, draw)[:, self.prefix :]
        shape = (frequency, time) if self.mel_major else (time, frequency)
        return tokens.unflatten(1, shape).mean(1 if self.mel_major else 2)

    def published_sequence(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, S, E): the sequence that published frame heads were trained on; `sequence` unless a family differs."""
        return self.sequence(features, draw)

    def skips(self, draw: Draw | None) -> list[Tensor | None]:
        """The factors of each block's branches, (2, R, 1, 1), in training where branches are skipped; else None."""
        if self.training and draw is not None and any(self.drop_path):
            return drop_path(self.drop_path, draw)
        return [None] * self.depth

    def layer_of(self, name: str) -> int | None:
        """The block with which a parameter of the backbone learns under layer decay; None: at the full rate.

        What is in no block learns at the full rate, or where the size says `joined` with the first block, and the last
        norm (`norm`) with the last.
        """
        if match := _BLOCK.match(name):
            return int(match[1])
        if not self.size.joined:
            return None
        return self.depth - 1 if name.startswith("norm.") else 0


class PatchBackbone(Backbone):
    """A Vision Transformer over patches of the log-mel."""

    norm_order: ClassVar[NormOrder]
    qkv_bias: ClassVar[bool] = True

    def __init__(self, size: Size, tokens: Tokens, drop_path_rate: float = 0.0) -> None:
        super().__init__(size, tokens, drop_path_rate)
        self.patch_embed = self.make_patch_embed(tokens)
        hidden = size.mlp_ratio * size.width
        self.blocks = nn.ModuleList(
            Block(size.width, size.heads, hidden, self.norm_order, qkv_bias=self.qkv_bias) for _ in range(size.depth)
        )

    def make_patch_embed(self, tokens: Tokens) -> nn.Module:
        """From (B, frames, mels) to (B, N, D)."""
        return PatchEmbed(tokens, self.size.width, self.mel_major)

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions, without the tokens in front."""

    @abstractmethod
    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, P + n, D). draw: of the rows; without it no branch is skipped."""

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, P + N, D), the tokens in front first."""
        return self.encode(self.embed(features), draw)

    def run_blocks(self, x: Tensor, draw: Draw | None) -> Tensor:
        """(R, n, D) through all blocks."""
        for block, factor in zip(self.blocks, self.skips(draw), strict=True):
            x, _ = block(x, factor)
        return x

    @classmethod
    def first_value(cls, owner: nn.Module, short: str, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As timm's: layers, learned positions and tokens truncated normal 0.02, norms one and zero.

        The patch convolution is Xavier uniform over its flattened kernel.
        """
        if isinstance(owner, nn.LayerNorm):
            value.fill_(1.0 if short == "weight" else 0.0)
        elif short == "bias":
            value.zero_()
        elif isinstance(owner, nn.Conv2d):
            xavier_uniform(value, generator)
        else:
            nn.init.trunc_normal_(value, std=0.02, generator=generator)


def xavier_uniform(value: Tensor, generator: torch.Generator) -> None:
    """Fill a kernel, uniform over its flattened shape (Glorot and Bengio, 2010)."""
    fan_out, fan_in = value.flatten(1).shape
    bound = (6 / (fan_in + fan_out)) ** 0.5
    value.uniform_(-bound, bound, generator=generator)


def unset(parameter: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    """A parameter of another shape, its values yet to be set; the same one if it has that shape."""
    if tuple(parameter.shape) == shape and isinstance(parameter, nn.Parameter):
        return parameter
    return nn.Parameter(parameter.detach().new_empty(shape), parameter.requires_grad)
