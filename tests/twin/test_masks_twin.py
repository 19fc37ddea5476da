"""Inverse block masks against a plain twin: a row, a block and a token at a time, from the same draws."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c2ftool.draws import Draw
from c2ftool.masks.inverse_block import inverse_block
from c2ftool.spec.masks import InverseBlock


def plain_row(grid: tuple[int, int], spec: InverseBlock, draw: Draw) -> list[int]:
    """The visible tokens of the one row of `draw`."""
    time, frequency = grid
    tokens = time * frequency
    ratio, surplus = Decimal(str(spec.ratio)), Decimal(str(spec.surplus))
    keep = max(1, int(tokens * (1 - ratio)))  # in decimals, as the paper's figures are meant
    row = int(draw.rows[0])
    if spec.blocks is None:
        block = spec.block
    else:
        clip = Draw(draw.seed, draw.phase, draw.step, torch.tensor([row // spec.clones]))
        block = spec.blocks[int(clip.integers("mask.shape", len(spec.blocks))[0])]
    centres = max(1, int(tokens * (1 - ratio + surplus) / (block[0] * block[1])))
    grid_kept = np.zeros((time, frequency), bool)
    for centre in draw.integers("mask.centre", tokens, centres)[0].tolist():
        for i in range(block[0]):
            for j in range(block[1]):
                t = min(max(centre // frequency + i - block[0] // 2, 0), time - 1)
                f = min(max(centre % frequency + j - block[1] // 2, 0), frequency - 1)
                grid_kept[t, f] = True
    kept = grid_kept.reshape(-1).tolist()
    luck = draw.integers("mask.rank", 2**24, tokens)[0].tolist()
    best_first = sorted(range(tokens), key=lambda token: (luck[token], token), reverse=True)
    inside = [token for token in best_first if kept[token]]
    outside = [token for token in best_first if not kept[token]]
    return sorted((inside + outside)[:keep])  # a surplus is dropped, a deficit filled with single tokens


shapes = st.lists(st.integers(1, 9), min_size=2, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 10)),
    ratio=st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.75, 0.8, 0.9, 0.99]),
    surplus=st.sampled_from([0.0, 0.07, 0.3]),
    block=shapes,
    blocks=st.none() | st.lists(shapes, min_size=2, max_size=3),
    clones=st.integers(1, 5),
    step=st.integers(0, 2**31),
)
@example(grid=(64, 8), ratio=0.8, surplus=0.07, block=[5, 5], blocks=None, clones=16, step=0)
@example(grid=(64, 8), ratio=0.8, surplus=0.07, block=[5, 5], blocks=[[6, 4], [5, 5], [8, 3]], clones=16, step=1)
def test_masks_are_those_of_the_plain_rule(
    grid: tuple[int, int],
    ratio: float,
    surplus: float,
    block: list[int],
    blocks: list[list[int]] | None,
    clones: int,
    step: int,
) -> None:
    spec = InverseBlock(kind="inverse_block", ratio=ratio, surplus=surplus, block=block, blocks=blocks, clones=clones)
    draw = Draw(3, 1, step, torch.tensor([0, 7])).clones(clones)
    visible = inverse_block(grid, spec, draw)
    for place in range(len(draw.rows)):
        assert visible[place].tolist() == plain_row(grid, spec, draw.select(slice(place, place + 1)))
