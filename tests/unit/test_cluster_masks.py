"""Masks of SSAST: exact counts, blocks of the sides that are asked for, no bias, and equality with a plain twin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.masks.cluster import block_count, cluster, masked_tokens, random_tokens
from c2ftool.spec.masks import Cluster, Random, masked_count


def draws(rows: int, step: int = 0) -> Draw:
    return Draw(5, 1, step, torch.arange(rows))


def spec_of(least: int = 3, largest: int = 5, ratio: float = 0.78125) -> Cluster:
    return Cluster(kind="cluster", ratio=ratio, size=[least, largest])


def as_grid(masked: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, T, F) bool of time-major places."""
    whole = torch.zeros(len(masked), grid[0] * grid[1], dtype=torch.bool).scatter_(1, masked, True)
    return whole.unflatten(1, grid)


def plain_row(grid: tuple[int, int], spec: Cluster, draw: Draw, count: int, mel_major: bool) -> list[int]:
    """The masked tokens of the one row of `draw`, a block and a token at a time."""
    time, frequency = grid
    tokens = time * frequency
    luck = draw.integers("mask.rank", 2**24, tokens)[0].tolist()
    side = spec.size[0] + int(draw.integers("mask.side", spec.size[1] - spec.size[0] + 1)[0])

    def number(t: int, f: int) -> int:
        return f * time + t if mel_major else t * frequency + f

    chosen: list[int] = []

    def take(candidates: set[int]) -> None:
        best_first = sorted(candidates - set(chosen), key=lambda token: (luck[token], token))
        chosen.extend(best_first[: count - len(chosen)])

    for u, v in draw.integers("mask.corner", 2**24, block_count(grid, spec.size[0], count), 2)[0].tolist():
        t0 = u * (time + side - 1) // 2**24 - (side - 1)
        f0 = v * (frequency + side - 1) // 2**24 - (side - 1)
        block = {(t, f) for t in range(t0, t0 + side) for f in range(f0, f0 + side)}
        take({number(t, f) for t, f in block if 0 <= t < time and 0 <= f < frequency})
    take(set(range(tokens)))
    return sorted(chosen)


@settings(max_examples=150, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    least=st.integers(1, 6),
    more=st.integers(0, 4),
    ratio=st.sampled_from([0.05, 0.3, 0.49, 0.78125, 0.9, 0.99]),
    step=st.integers(0, 2**31),
    mel_major=st.booleans(),
)
@example(grid=(64, 8), least=3, more=2, ratio=0.78125, step=0, mel_major=True)
@example(grid=(1, 2), least=6, more=0, ratio=0.5, step=0, mel_major=False)
def test_cluster_masks_are_those_of_the_plain_rule(grid, least, more, ratio, step, mel_major):
    tokens = grid[0] * grid[1]
    spec = spec_of(least, least + more, ratio)
    count = max(1, masked_count(spec, tokens))
    draw = Draw(3, 1, step, torch.tensor([0, 7]))
    masked = cluster(grid, spec, draw, count, mel_major=mel_major)
    assert masked.dtype == torch.int64 and masked.shape == (2, count)
    for place in range(2):
        assert masked[place].tolist() == plain_row(grid, spec, draw.select(slice(place, place + 1)), count, mel_major)


@pytest.mark.parametrize("spec", [spec_of(), Random(kind="random")], ids=lambda s: s.kind)
def test_masks_have_exactly_the_count_and_belong_to_the_row(spec):
    masked = masked_tokens((64, 8), spec, draws(64), 400, mel_major=True)
    assert masked.shape == (64, 400) and bool((masked.diff(dim=1) > 0).all())
    assert masked.min() >= 0 and masked.max() < 512
    # the same whatever else is in the micro-batch, another in another step and for another clip
    assert torch.equal(
        masked[40:44], masked_tokens((64, 8), spec, draws(64).select(slice(40, 44)), 400, mel_major=True)
    )
    assert not torch.equal(masked, masked_tokens((64, 8), spec, draws(64, step=1), 400, mel_major=True))
    assert len({tuple(row) for row in masked.tolist()}) == 64


@pytest.mark.parametrize(("side", "count"), [(3, 60), (5, 60)])
def test_what_is_masked_is_made_of_whole_blocks_but_for_the_last_one(side, count):
    grid = (40, 12)
    masked = as_grid(cluster(grid, spec_of(side, side), draws(200), count), grid).float()
    # a token is in a whole block where some window of that side, cut at the edges, is all masked
    padded = torch.nn.functional.pad(masked[:, None], [side - 1] * 4, value=1.0)
    full = torch.nn.functional.avg_pool2d(padded, side, 1) == 1.0
    inside = torch.nn.functional.max_pool2d(full.float(), side, 1)[:, 0] * masked
    loose = count - inside.sum((1, 2))
    assert loose.max() < side * side  # of the last block
    assert loose.min() == 0


def test_every_side_of_the_range_comes_up_and_one_for_each_clip():
    grid = (40, 40)
    masked = as_grid(cluster(grid, spec_of(2, 4), draws(200), 16), grid)
    extents = set()
    for clip in masked:
        rows = clip.any(1).nonzero()[:, 0]
        runs = [int(n) for n in clip.sum(1)[rows]]
        if clip[1:-1, 1:-1].sum() == 16 and len(rows) == 4 and set(runs) == {4}:
            extents.add(4)
        elif max(runs) <= 3 and 3 in runs:
            extents.add(3)
        elif max(runs) == 2:
            extents.add(2)
    assert extents == {2, 3, 4}


@pytest.mark.parametrize("spec", [spec_of(), Random(kind="random")], ids=lambda s: s.kind)
@pytest.mark.parametrize("mel_major", [False, True])
def test_no_place_is_masked_much_more_often_than_another(spec, mel_major):
    """The public code never masks token 0 and cuts a surplus off at the highest mel bands; here no place stands out."""
    grid, rows = (16, 8), 4_000
    masked = masked_tokens(grid, spec, draws(rows), 64, mel_major=mel_major)
    shares = torch.bincount(masked.flatten(), minlength=128) / rows
    assert shares.mean().item() == pytest.approx(0.5)
    assert shares.sub(0.5).abs().max() < 0.05  # five standard errors and the edges' small difference
    over = shares.unflatten(0, (8, 16) if mel_major else grid).mean(1 if mel_major else 0)
    assert over.sub(0.5).abs().max() < 0.03


def test_of_the_last_block_any_token_may_stay():
    """Five tokens of one whole block of 3 x 3, wherever it lies: each of the nine is left out equally often."""
    grid = (30, 30)
    kept = torch.zeros(3, 3)
    for clip in as_grid(cluster(grid, spec_of(3, 3), draws(2_000), 5), grid):
        t, f = clip.any(1).nonzero()[:, 0], clip.any(0).nonzero()[:, 0]
        if (len(t), len(f)) == (3, 3) and t[2] - t[0] == 2 and f[2] - f[0] == 2:  # it shows where the block is
            kept += clip[t[0] : t[2] + 1, f[0] : f[2] + 1]
    share = kept / kept.sum() * 9
    for turned in (share.flip(0), share.flip(1), share.T):
        assert (share - turned).abs().max() < 0.1
    assert share.min() > 0.9


@pytest.mark.parametrize(
    ("grid", "count", "most"), [((64, 8), 400, 0.0), ((64, 8), 250, 0.0), ((16, 8), 100, 0.001), ((4, 8), 25, 0.03)]
)
def test_single_tokens_are_needed_as_rarely_as_stated(grid, count, most):
    """How often the blocks that are drawn cover too few tokens, all of the least side."""
    time, frequency = grid
    blocks, draw = block_count(grid, 3, count), draws(2_000)
    drawn = draw.integers("mask.corner", 2**24, blocks, 2)
    t0, f0 = (drawn[..., 0] * (time + 2) >> 24) - 2, (drawn[..., 1] * (frequency + 2) >> 24) - 2
    t, f = torch.arange(time), torch.arange(frequency)
    in_time = ((t >= t0[..., None]) & (t < t0[..., None] + 3)).float()
    in_mel = ((f >= f0[..., None]) & (f < f0[..., None] + 3)).float()
    covered = (torch.einsum("bkt,bkf->btf", in_time, in_mel) > 0).sum((1, 2))
    assert (covered < count).float().mean() <= most


def test_random_masks_are_uniform_pairs():
    masked = random_tokens(5, draws(20_000), 2)
    pairs = torch.bincount(masked[:, 0] * 5 + masked[:, 1], minlength=25).float() / 20_000
    present = pairs[pairs > 0]
    assert len(present) == 10
    torch.testing.assert_close(present, torch.full((10,), 0.1), atol=0.01, rtol=0)


@pytest.mark.parametrize("count", [0, 33])
def test_more_tokens_than_there_are_cannot_be_masked(count):
    for spec in (spec_of(), Random(kind="random")):
        with pytest.raises(ValueError, match=f"{count} of 32 tokens cannot be masked"):
            masked_tokens((4, 8), spec, draws(1), count)
