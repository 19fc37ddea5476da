"""Masks: exact counts on any grid, blocks that stay whole, the same draws in any micro-batch; gathering tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.masks.gather import gather_tokens, masked_places, scatter_tokens
from c2ftool.masks.inverse_block import block_centres, inverse_block, visible_count
from c2ftool.spec.masks import InverseBlock


def spec(**changes: object) -> InverseBlock:
    return InverseBlock.model_validate({"kind": "inverse_block", **changes})


def draw(rows: int = 6, step: int = 0) -> Draw:
    return Draw(1, 0, step, torch.arange(rows))


def test_counts_of_the_paper() -> None:
    assert visible_count(512, 0.8) == 102
    assert block_centres(512, 0.8, 0.07, 25) == 5
    assert inverse_block((64, 8), spec(), draw().clones(16)).shape == (96, 102)


def test_shares_are_taken_in_decimals_and_leave_at_least_one_token() -> None:
    assert visible_count(5, 0.8) == 1  # 5 x (1 - 0.8) is 0.99999... in binary
    assert visible_count(10, 0.7) == 3
    assert visible_count(3, 0.9) == 1
    assert visible_count(1000, 0.999) == 1
    assert block_centres(8, 0.9, 0.0, 25) == 1
    assert block_centres(100, 0.8, 0.05, 25) == 1


grids = st.tuples(st.integers(1, 70), st.integers(1, 12))
shapes = st.lists(st.integers(1, 64), min_size=2, max_size=2)


@settings(max_examples=80, deadline=None)
@given(
    grid=grids,
    ratio=st.floats(0.01, 0.99),
    surplus=st.floats(0, 0.9),
    block=shapes,
    blocks=st.none() | st.lists(shapes, min_size=2, max_size=3),
    step=st.integers(0, 1000),
)
def test_every_row_sees_exactly_its_count_of_distinct_tokens(
    grid: tuple[int, int],
    ratio: float,
    surplus: float,
    block: list[int],
    blocks: list[list[int]] | None,
    step: int,
) -> None:
    tokens = grid[0] * grid[1]
    wanted = spec(ratio=ratio, surplus=surplus, block=block, blocks=blocks, clones=3)
    visible = inverse_block(grid, wanted, draw(4, step).clones(3))
    assert visible.shape == (12, visible_count(tokens, ratio)) and visible.dtype == torch.int64
    assert (visible.diff(dim=1) > 0).all()  # ascending, none twice
    assert visible.min() >= 0 and visible.max() < tokens


@settings(max_examples=30, deadline=None)
@given(grid=grids, size=st.integers(1, 5), flexible=st.booleans(), step=st.integers(0, 1000))
def test_rows_are_the_same_in_any_micro_batch(grid: tuple[int, int], size: int, flexible: bool, step: int) -> None:
    wanted = spec(clones=4, blocks=[[6, 4], [5, 5], [8, 3]] if flexible else None)
    clips = draw(5, step)
    whole = inverse_block(grid, wanted, clips.clones(4))
    parts = [inverse_block(grid, wanted, clips.select(slice(i, i + size)).clones(4)) for i in range(0, 5, size)]
    assert torch.equal(whole, torch.cat(parts))


def test_clones_clips_and_steps_see_different_tokens() -> None:
    masks = inverse_block((64, 8), spec(), draw(4).clones(16))
    assert len({tuple(row.tolist()) for row in masks}) == 64
    assert not torch.equal(masks, inverse_block((64, 8), spec(), draw(4, step=1).clones(16)))


def test_kept_blocks_stay_whole_where_there_is_room() -> None:
    """One block of 25 of 26 visible tokens: every row holds a whole block, moved inwards or piled up at no border."""
    grid = (16, 8)
    visible = inverse_block(grid, spec(ratio=0.79, surplus=0.0), draw(64))
    assert visible.shape[1] == 26 and block_centres(128, 0.79, 0.0, 25) == 1
    seen = ~masked_places(visible, 128).view(64, *grid)
    for row in seen:
        whole = [(t, f) for t in range(16) for f in range(8) if row[max(t - 2, 0) : t + 3, max(f - 2, 0) : f + 3].all()]
        assert whole


def test_a_surplus_is_dropped_inside_the_blocks_and_a_deficit_filled_from_the_whole_grid() -> None:
    grid = (32, 8)
    few = spec(ratio=0.95, surplus=0.9, block=[1, 8])  # 30 blocks of 8 kept, 12 tokens visible
    many = spec(ratio=0.5, surplus=0.0, block=[40, 40])  # at least one block, larger than the grid: everything kept
    lone = spec(ratio=0.5, surplus=0.0, block=[64, 1])  # one block, a single column; the rest are random tokens
    assert inverse_block(grid, few, draw()).shape[1] == 12
    assert inverse_block(grid, many, draw()).shape[1] == 128
    visible = ~masked_places(inverse_block(grid, lone, draw(40)), 256).view(40, *grid)
    whole_columns = visible.all(dim=1).sum(1)
    assert (whole_columns >= 1).all()
    assert visible.any(dim=1).all()  # the fill reaches every column


class TiedDraw(Draw):
    """Ranks all tokens alike."""

    def integers(self, purpose: str, bound: int, *shape: int) -> Tensor:
        drawn = super().integers(purpose, bound, *shape)
        return torch.zeros_like(drawn) if purpose == "mask.rank" else drawn


def test_equal_draws_are_parted_by_the_tokens_number() -> None:
    """Selection among equals is up to the device; a mask must not be."""
    everything = spec(ratio=0.8, block=[64, 64])  # wherever its centre, the block covers the grid
    visible = inverse_block((30, 8), everything, TiedDraw(1, 0, 0, torch.arange(6)))
    assert (visible == torch.arange(192, 240)).all()


def test_every_token_has_its_turn() -> None:
    """Over many draws each token is seen, border tokens more often (blocks pile up there), none always."""
    visible = inverse_block((16, 8), spec(), draw(4000))
    share = torch.bincount(visible.flatten(), minlength=128).double() / 4000
    assert share.mean() == pytest.approx(25 / 128)
    assert share.min() > 0.05 and share.max() < 0.6


# --- gathering --------------------------------------------------------------------------------------------------------


def test_clones_read_their_own_clip() -> None:
    tokens = torch.arange(3 * 10 * 2).view(3, 10, 2)
    index = inverse_block((5, 2), spec(ratio=0.6), draw(3).clones(4))
    taken = gather_tokens(tokens, index)
    for row in range(12):
        assert torch.equal(taken[row], tokens[row // 4, index[row]])


def test_gathering_from_an_expanded_or_transposed_tensor() -> None:
    tokens, index = torch.randn(2, 7, 10), torch.tensor([[1, 5], [0, 9]])
    assert torch.equal(gather_tokens(tokens.transpose(1, 2), index)[1, 1], tokens[1, :, 9])


def test_gradients_flow_back_to_the_tokens_that_were_seen() -> None:
    tokens = torch.zeros(2, 6, 3, requires_grad=True)
    index = torch.tensor([[0, 1], [1, 2], [3, 4], [4, 5]])  # two clones of each clip
    gather_tokens(tokens, index).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[..., 0].tolist() == [[1, 2, 1, 0, 0, 0], [0, 0, 0, 1, 2, 1]]


def test_rows_that_are_no_whole_number_of_clones_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows are not a whole number of clones of 2 clips"):
        gather_tokens(torch.zeros(2, 4, 1), torch.zeros(5, 2, dtype=torch.int64))


def test_scattering_undoes_gathering() -> None:
    tokens, fill = torch.randn(4, 512, 3), torch.randn(4, 512, 3)
    index = inverse_block((64, 8), spec(), draw(4))
    whole = scatter_tokens(gather_tokens(tokens, index), index, fill)
    masked = masked_places(index, 512)
    assert masked.sum(1).tolist() == [410] * 4
    assert torch.equal(whole[masked], fill[masked])
    assert torch.equal(whole[~masked], tokens[~masked])
    constant = scatter_tokens(gather_tokens(tokens, index), index, torch.zeros(()).expand(4, 512, 3))
    assert not constant[masked].any()


@pytest.mark.gpu
def test_masks_on_a_gpu_are_those_of_the_cpu() -> None:
    on_cpu = inverse_block((64, 8), spec(blocks=[[6, 4], [5, 5]]), draw(12).clones(16))
    clips = Draw(1, 0, 0, torch.arange(12, device="cuda"))
    assert torch.equal(inverse_block((64, 8), spec(blocks=[[6, 4], [5, 5]]), clips.clones(16)).cpu(), on_cpu)
