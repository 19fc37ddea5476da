"""What every patch-based backbone shares: patches to tokens, the blocks' loop, fitting to another token grid.

Axes: B clips, R rows, N tokens of the grid, P tokens in front of it, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from c2ftool.compression.grid import token_grid
from c2ftool.draws import Draw
from c2ftool.models.layout import Change, Kernel, Rules, Shape, Table, fit
from c2ftool.models.vit import Block, NormOrder, drop_path
from c2ftool.spec.backbones import Backbone as Size
from c2ftool.spec.resolved import Tokens


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


class PatchBackbone(nn.Module, ABC):
    """A Vision Transformer over patches of the log-mel.

    sized: the tensors whose shape follows the token grid or the patch. head_eps: of the LayerNorm of its heads.
    """

    sized: ClassVar[dict[str, Table | Kernel]]
    mel_major: ClassVar[bool]
    norm_order: ClassVar[NormOrder]
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
        self.patch_embed = PatchEmbed(tokens, size.width, self.mel_major)
        hidden = size.mlp_ratio * size.width
        self.blocks = nn.ModuleList(Block(size.width, size.heads, hidden, self.norm_order) for _ in range(size.depth))

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """(B, frames, mels) -> (B, N, D) with positions, without the tokens in front."""

    @abstractmethod
    def encode(self, tokens: Tensor, draw: Draw | None = None) -> Tensor:
        """(R, n, D) embedded tokens -> (R, P + n, D). draw: of the rows; without it no branch is skipped."""

    @abstractmethod
    def set_tokens(self, tokens: Tokens) -> list[Change]:
        """Take another token grid and patch; tensors of another shape are left unset. What is computed anew."""

    def grid(self, frames: int) -> tuple[int, int]:
        """(T, F) of an input of so many frames."""
        patch, stride = self.tokens.patch, self.tokens.stride
        return token_grid(frames, self.tokens.mels, (patch[0], patch[1]), (stride[0], stride[1]))

    def resize(self, tokens: Tokens, rules: Rules) -> list[Change]:
        """Fit the weights to another token grid and patch; returns what changed. Created tensors are left unset."""
        if tokens == self.tokens:
            return []
        before = {name: value.detach() for name, value in self.state_dict().items() if name in self.sized}
        fitted, changes = fit(before, self.sized, shape_of(self.tokens), shape_of(tokens), rules)
        changes += self.set_tokens(tokens)
        self.load_state_dict(fitted, strict=False)
        return changes

    def forward(self, features: Tensor, draw: Draw | None = None) -> Tensor:
        """(B, frames, mels) -> (B, P + N, D), the tokens in front first."""
        return self.encode(self.embed(features), draw)

    def sequence(self, features: Tensor) -> Tensor:
        """(B, T, D) in time order: tokens averaged over the mel axis."""
        time, frequency = self.grid(features.shape[1])
        tokens = self(features)[:, self.prefix :]
        shape = (frequency, time) if self.mel_major else (time, frequency)
        return tokens.unflatten(1, shape).mean(1 if self.mel_major else 2)

    def clip(self, features: Tensor) -> Tensor:
        """(B, D): the mean of the tokens in front."""
        return self(features)[:, : self.prefix].mean(1)

    def run_blocks(self, x: Tensor, draw: Draw | None) -> Tensor:
        """(R, n, D) through all blocks."""
        skips = self.training and draw is not None and any(self.drop_path)
        factors = drop_path(self.drop_path, draw) if skips and draw is not None else [None] * self.depth
        for block, factor in zip(self.blocks, factors, strict=True):
            x, _ = block(x, factor)
        return x


def unset(parameter: Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    """A parameter of another shape, its values yet to be set; the same one if it has that shape."""
    if tuple(parameter.shape) == shape and isinstance(parameter, nn.Parameter):
        return parameter
    return nn.Parameter(parameter.detach().new_empty(shape), parameter.requires_grad)
