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

    def to_grid(self, tokens: Tensor) -> Tensor:
        """(R, F, T, D) of the (R, N, D) tokens of the grid."""
        if self.chunks > 1:
            return tokens.unflatten(1, (self.chunks, self.frequency, -1)).transpose(1, 2).flatten(2, 3)
        if self.mel_major:
            return tokens.unflatten(1, (self.frequency, -1))
        return tokens.unflatten(1, (-1, self.frequency)).transpose(1, 2)

    def to_tokens(self, grid: Tensor) -> Tensor:
        """The (R, N, D) tokens of a (R, F, T, D) grid."""
        if self.chunks > 1:
            grid = grid.unflatten(2, (self.chunks, -1)).transpose(1, 2)
            return grid.flatten(1, 3)
        return (grid if self.mel_major else grid.transpose(1, 2)).flatten(1, 2)


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
        # neighbours are looked at where there are r channels, not D: every tap of `down` first, one matrix product for
        # all of them, then each moved to the token that it is for; `up` the other way round
        taps = F.linear(x, self.down.permute(2, 3, 0, 1).flatten(0, 2))
        inside = self._gathered(taps[:, front:])
        if front:
            inside = torch.cat([self._centre(taps[:, :front]), inside], dim=1)
        inside = self._act(inside if self.down_bias is None else inside + self.down_bias)
        spread = self._spread(inside[:, front:])
        if front:
            spread = torch.cat([self._alone(inside[:, :front]), spread], dim=1)
        out = F.linear(spread, self.up.permute(0, 2, 3, 1).flatten(1), self.up_bias)
        if front and self.skip:
            out = torch.cat([torch.zeros_like(out[:, :front]), out[:, front:]], dim=1)
        return out if self.scale == 1 else out * self.scale

    def _gathered(self, taps: Tensor) -> Tensor:
        """(R, N, r): of (R, N, K r), what each tap gives to the token that it looks from, added."""
        places = self._places()
        if len(places) == 1:
            return taps
        parts = self.lay.to_grid(taps).chunk(len(places), dim=3)
        total = parts[len(places) // 2]
        for (f, t), part in zip(places, parts, strict=True):
            if (f, t) != (0, 0):
                total = total + moved(part, f, t)
        return self.lay.to_tokens(total)

    def _spread(self, inside: Tensor) -> Tensor:
        """(R, N, K r) of (R, N, r): every token with its neighbours side by side, zeros where there is none."""
        places = self._places()
        if len(places) == 1:
            return inside
        grid = self.lay.to_grid(inside)
        return self.lay.to_tokens(torch.cat([grid if p == (0, 0) else moved(grid, *p) for p in places], dim=3))

    def _places(self) -> list[tuple[int, int]]:
        """How far from a token each tap looks: (frequency, time), in the kernel's order."""
        frequency, time = self.down.shape[2:]
        return [(f - frequency // 2, t - time // 2) for f in range(frequency) for t in range(time)]

    def _centre(self, taps: Tensor) -> Tensor:
        """(R, P, r) of (R, P, K r): a token in front sees itself alone."""
        rank, count = self.down.shape[0], self.down.shape[2] * self.down.shape[3]
        return taps[..., count // 2 * rank : (count // 2 + 1) * rank]

    def _alone(self, inside: Tensor) -> Tensor:
        """(R, P, K r) of (R, P, r): zeros for the neighbours that there are not."""
        beside = (self.down.shape[2] * self.down.shape[3] // 2) * self.down.shape[0]
        return F.pad(inside, (beside, beside))

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


def moved(grid: Tensor, frequency: int, time: int) -> Tensor:
    """(R, F, T, r): at each place what lies so far from it, zeros beyond the edges."""
    for axis, by in ((1, frequency), (2, time)):
        if by:
            length = grid.shape[axis]
            kept = grid.narrow(axis, min(max(by, 0), length), max(0, length - abs(by)))
            missing = length - kept.shape[axis]
            before, after = (0, missing) if by > 0 else (missing, 0)
            grid = F.pad(kept, (0, 0, before, after) if axis == 2 else (0, 0, 0, 0, before, after))
    return grid


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
