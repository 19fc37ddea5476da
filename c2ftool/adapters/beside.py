"""Bottleneck adapters beside a block's attention or MLP.

    parallel (He et al., ICLR 2022; Yeo et al., 2025, eq. 1):  branch + scale * (act(h down) up)
    look-aside (Yeo et al., 2025, eq. 2):                      the same, down and up convolutions over the token grid

One piece of code serves both: with a kernel of 1 x 1 the second is the first. Both convolutions have the kernel, zeros
around the grid and a stride of 1, so a block sees 2 (K - 1) / 2 tokens to either side. A token in front of the grid
(CLS, distillation) is a map of its own of 1 x 1: only the kernels' centres act, as in Convpass (Jie and Deng, 2022).
`up` begins at zero: an adapted network first computes what the plain one does.

Axes: R rows, P tokens in front, F x T token grid, N = F T, D width, r rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2ftool.spec.adapters import LookAside, Parallel, kernel_of


@dataclass(frozen=True)
class Lay:
    """How a block's tokens lie: `prefix` of them in front, then the grid.

    frequency: tokens over the mel axis. mel_major: whether token = f * T + t, else t * F + f. chunks: stretches of time
    that an image has stacked on its mel axis (HTS-AT), token = (c * F + f) * T / chunks + t.
    """

    prefix: int
    frequency: int
    mel_major: bool
    chunks: int = 1

    def to_map(self, tokens: Tensor) -> Tensor:
        """(R, D, F, T) of the (R, N, D) tokens of the grid; (R, D, T, F) where they are not mel-major."""
        if self.chunks > 1:
            image = tokens.unflatten(1, (self.chunks, self.frequency, -1)).transpose(1, 2).flatten(2, 3)
        else:
            image = tokens.unflatten(1, (self.frequency, -1) if self.mel_major else (-1, self.frequency))
        return image.permute(0, 3, 1, 2)

    def to_tokens(self, image: Tensor) -> Tensor:
        """The (R, N, D) tokens of what `to_map` gives."""
        rows = image.permute(0, 2, 3, 1)
        if self.chunks > 1:
            rows = rows.unflatten(2, (self.chunks, -1)).transpose(1, 2).flatten(2, 3)
        return rows.flatten(1, 2)


class BesideBranch(nn.Module):
    """One adapter of either kind."""

    def __init__(self, width: int, item: Parallel | LookAside, lay: Lay) -> None:
        """item: with its rank."""
        super().__init__()
        if item.rank is None:
            raise ValueError("an adapter needs its rank")
        kernel = kernel_of(item)
        self.down = nn.Parameter(torch.zeros(item.rank, width, *kernel))
        self.up = nn.Parameter(torch.zeros(width, item.rank, *kernel))
        self.down_bias = nn.Parameter(torch.zeros(item.rank)) if item.bias else None
        self.up_bias = nn.Parameter(torch.zeros(width)) if item.bias else None
        self.scale = item.scale
        self.residual = item.input == "residual"
        self.skip = item.prefix == "skip"
        self.relu = item.activation == "relu"
        self.lay = lay

    def forward(self, given: Tensor, residual: Tensor) -> Tensor:
        """(R, P + N, D), to be added to the branch's output. given: what the branch is given; residual: the stream."""
        x = residual if self.residual else given
        front = self.lay.prefix
        if self.down.shape[2:] == (1, 1) and not (front and self.skip):
            out = self._centre(x)
        else:
            parts = (
                [x.new_zeros(len(x), front, x.shape[2]) if self.skip else self._centre(x[:, :front])] if front else []
            )
            out = torch.cat([*parts, self._looking(x[:, front:])], dim=1) if parts else self._looking(x)
        return out if self.scale == 1 else out * self.scale

    def _centre(self, x: Tensor) -> Tensor:
        """Every token by itself: the kernels' centres."""
        f, t = self.down.shape[2] // 2, self.down.shape[3] // 2
        inside = self._act(F.linear(x, self.down[:, :, f, t], self.down_bias))
        return F.linear(inside, self.up[:, :, f, t], self.up_bias)

    def _looking(self, x: Tensor) -> Tensor:
        """(R, N, D) tokens of the grid with their neighbours."""
        # where tokens are time-major the map is, too, and the kernel is turned: nothing is moved
        turned = not self.lay.mel_major and self.lay.chunks == 1
        down, up = (w.transpose(2, 3) if turned else w for w in (self.down, self.up))
        padding = (down.shape[2] // 2, down.shape[3] // 2)
        inside = self._act(F.conv2d(self.lay.to_map(x), down, self.down_bias, padding=padding))
        return self.lay.to_tokens(F.conv2d(inside, up, self.up_bias, padding=padding))

    def _act(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.relu else F.gelu(x)

    def first_value(self, short: str, value: Tensor, generator: torch.Generator) -> None:
        """`down` Kaiming uniform as torch's convolutions, the rest zero.

        With `up` zero too the gradients of both would be zero for ever.
        """
        if short == "down":
            bound = 1 / math.sqrt(value[0].numel())
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.zero_()


class Beside(nn.ModuleDict):
    """All adapters of one place of a block; their outputs are added."""

    def forward(self, given: Tensor, residual: Tensor) -> Tensor:
        """(R, P + N, D), to be added to the branch's output."""
        outs = [adapter(given, residual) for adapter in self.values()]
        total: Tensor = sum(outs[1:], start=outs[0])
        return total

    def set_lay(self, lay: Lay) -> None:
        """Take another token grid; no tensor depends on it."""
        for adapter in self.values():
            adapter.lay = lay  # type: ignore[assignment]
