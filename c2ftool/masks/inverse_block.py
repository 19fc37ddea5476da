"""Inverse block masks: blocks that stay visible (Chen et al., EAT, section 3.3; public code: compute_block_mask_2d).

Axes: R rows (clones of clips), L = T x F tokens, time-major (token = t * F + f), V visible tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.masks import InverseBlock

_RANK_BITS = 24


def visible_count(tokens: int, ratio: float) -> int:
    """Tokens left visible: int(L (1 - ratio)), exact in decimals (0.2 of 5 is 1), and at least one."""
    return max(1, int(round(tokens * (1 - ratio), 6)))


def block_centres(tokens: int, ratio: float, surplus: float, area: int) -> int:
    """Blocks drawn: int(L (1 - ratio + surplus) / area); at least one, which the public code does not see to."""
    return max(1, int(round(tokens * (1 - ratio + surplus), 6) / area))


def inverse_block(grid: tuple[int, int], spec: InverseBlock, draw: Draw) -> Tensor:
    """(R, V) int64 visible tokens of each row, ascending; V is exactly `visible_count` for every row.

    draw: of the rows, clones included. Block centres are uniform over tokens, with replacement; a block's indices are
    clamped at the borders, so blocks there pile up on the edge. Then kept tokens are brought to V: a surplus is dropped
    at random, a deficit filled with random single tokens. With several block shapes all clones of a clip share one.
    """
    tokens = grid[0] * grid[1]
    shapes = [(b[0], b[1]) for b in spec.blocks or [spec.block]]
    kept = _blocks(grid, shapes[0], spec, draw)
    if len(shapes) > 1:
        clips = Draw(draw.seed, draw.phase, draw.step, draw.rows // spec.clones)
        choice = clips.integers("mask.shape", len(shapes))
        for number, shape in enumerate(shapes[1:], start=1):
            kept = torch.where((choice == number)[:, None], _blocks(grid, shape, spec, draw), kept)
    # kept tokens rank above the others, at random among themselves: the first V are what stays visible. The token's own
    # number parts equal draws, which selection would otherwise order as it likes, differently on each device.
    rank = draw.integers("mask.rank", 2**_RANK_BITS, tokens) + (kept.long() << _RANK_BITS)
    rank = rank * tokens + torch.arange(tokens, device=rank.device)
    return rank.topk(visible_count(tokens, spec.ratio), dim=1, sorted=False).indices.sort(dim=1).values


def _blocks(grid: tuple[int, int], shape: tuple[int, int], spec: InverseBlock, draw: Draw) -> Tensor:
    """(R, L) bool: tokens inside a kept block."""
    time, frequency = grid
    tokens = time * frequency
    centres = draw.integers("mask.centre", tokens, block_centres(tokens, spec.ratio, spec.surplus, shape[0] * shape[1]))
    device = centres.device
    rows = torch.arange(shape[0], device=device) - shape[0] // 2
    columns = torch.arange(shape[1], device=device) - shape[1] // 2
    t = (centres[..., None] // frequency + rows).clamp(0, time - 1)  # (R, blocks, block time)
    f = (centres[..., None] % frequency + columns).clamp(0, frequency - 1)
    places = (t[..., :, None] * frequency + f[..., None, :]).flatten(1)
    return torch.zeros(len(centres), tokens, dtype=torch.bool, device=device).scatter_(1, places, True)
