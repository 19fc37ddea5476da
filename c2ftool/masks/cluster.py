"""Masks of SSAST: small blocks of tokens, or tokens one by one (Gong et al., AAAI 2022, section 2.3).

Axes: B clips, T x F token grid, N = T F tokens, K blocks, M masked tokens.

Two oddities of the public code are left out, which are no part of the method: there blocks run over the ends of the
grid's rows, and the tokens too many are cut off where the mel bands are highest. Token 0 can be masked here too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.masks import Cluster, Random

_BITS = 24  # of a draw: of a place, of a token's luck


def masked_tokens(
    grid: tuple[int, int], spec: Cluster | Random, draw: Draw, count: int, *, mel_major: bool = False
) -> Tensor:
    """(B, count) int64 masked tokens of each clip, ascending, by the rule of `spec`. draw: of the clips.

    mel_major: whether tokens are numbered f * T + t, else t * F + f. Raises ValueError where there are fewer tokens.
    """
    match spec:
        case Cluster():
            return cluster(grid, spec, draw, count, mel_major=mel_major)
        case Random():
            return random_tokens(grid[0] * grid[1], draw, count)


def cluster(grid: tuple[int, int], spec: Cluster, draw: Draw, count: int, *, mel_major: bool = False) -> Tensor:
    """(B, count) int64 masked tokens of each clip, ascending: the first blocks drawn, until there are enough tokens.

    All blocks of a clip are squares of one side, uniform over spec.size. Their places are uniform over all where they
    touch the grid, at whose edges they are cut; so every token is in a block as often as any other. Of the last block
    some tokens stay, chosen at random, as many as are wanted. mel_major: whether tokens are numbered f * T + t, else
    t * F + f. Raises ValueError where there are fewer tokens than `count`.
    """
    time, frequency = grid
    least, largest = spec.size
    blocks = block_count(grid, least, count)
    side = least + draw.integers("mask.side", largest - least + 1)[:, None]  # (B, 1)
    drawn = draw.integers("mask.corner", 2**_BITS, blocks, 2)
    t = _within(drawn[..., 0], side, time)
    f = _within(drawn[..., 1], side, frequency)
    covers = f[..., :, None] & t[..., None, :] if mel_major else t[..., :, None] & f[..., None, :]
    # the first block that covers each token; what is in no block comes after all of them
    numbers = torch.arange(blocks, dtype=torch.int32, device=drawn.device)[:, None, None]
    return _first(torch.where(covers, numbers, blocks).amin(1).flatten(1).long(), draw, count)


def _within(drawn: Tensor, side: Tensor, size: int) -> Tensor:
    """(B, K, size) bool: the rows of an axis that each block has a part in; (B, K) drawn numbers, (B, 1) sides."""
    first = (drawn * (size + side - 1) >> _BITS) - side + 1
    away = torch.arange(size, device=drawn.device) - first[..., None]
    return (away >= 0) & (away < side[..., None])


def random_tokens(tokens: int, draw: Draw, count: int) -> Tensor:
    """(B, count) int64 masked tokens of each clip, ascending, uniform without replacement.

    Raises ValueError where there are fewer tokens.
    """
    return _first(torch.zeros(len(draw.rows), tokens, dtype=torch.int64, device=draw.rows.device), draw, count)


def block_count(grid: tuple[int, int], side: int, count: int) -> int:
    """How many blocks of the least side are drawn: so many that a quarter of what may stay is expected uncovered.

    Where they still cover too few, single tokens are masked besides. In 2,000 draws of blocks of side 3 that happened
    never where 78 % of 128 tokens or more are masked, in 0.2 % of clips of 64 tokens, in 1.6 % of clips of 32, which
    then lacked about two tokens of 25.
    """
    time, frequency = grid
    share = side * side / ((time + side - 1) * (frequency + side - 1))  # of places, that cover a given token
    free = max(1, time * frequency - count) / (time * frequency)
    return 1 if share == 1 else max(1, math.ceil(math.log(free / 4) / math.log1p(-share)))


def _first(order: Tensor, draw: Draw, count: int) -> Tensor:
    """(B, count) the places of the smallest of (B, N) whole numbers, at random among equal ones; ascending."""
    tokens = order.shape[1]
    if not 0 < count <= tokens:
        raise ValueError(f"{count} of {tokens} tokens cannot be masked")
    # the token's own number parts equal draws, which selection would order as it likes, differently on each device
    rank = draw.integers("mask.rank", 2**_BITS, tokens) + (order << _BITS)
    rank = rank * tokens + torch.arange(tokens, device=rank.device)
    return rank.topk(count, dim=1, largest=False, sorted=False).indices.sort(dim=1).values
