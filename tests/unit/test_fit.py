"""Fitting position tables and patch kernels to another phase, against plain twins after the published codes."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from c2ftool.models.ast import Ast
from c2ftool.models.eat import Eat
from c2ftool.models.layout import Change, Kernel, Rules, Shape, Table, fit

Pair = tuple[int, int]
PATCH = (16, 16)
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 6))  # (time, mel) of a grid
KERNELS: list[tuple[Pair, Pair]] = [((4, 4), (8, 4)), ((8, 4), (4, 4)), ((4, 4), (16, 8)), ((6, 4), (4, 6))]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def table(kind: Table, grid: Pair, width: int = 3, seed: int = 0) -> Tensor:
    return normal(1, kind.prefix + grid[0] * grid[1], width, seed=seed)


def fitted(kind: Table, grid: Pair, new: Pair, state: Tensor, **rules: Any) -> tuple[Tensor, Change]:
    """The table fitted to a new grid, and what is said of it."""
    out, changes = fit({"pos": state}, {"pos": kind}, Shape(grid, PATCH), Shape(new, PATCH), Rules(**rules))
    return out["pos"], changes[0]


# --- position tables --------------------------------------------------------------------------------------------------


def plain_table(state: Tensor, kind: Table, old: Pair, new: Pair, how: str, antialias: bool) -> Tensor:
    """Token by token into an image, resized by torch in float64, and token by token out of it."""
    image = torch.zeros(1, state.shape[2], *old, dtype=torch.float64)
    for t in range(old[0]):
        for f in range(old[1]):
            token = f * old[0] + t if kind.mel_major else t * old[1] + f
            image[0, :, t, f] = state[0, kind.prefix + token]
    if how == "cut":  # AST, src/models/ast_models.py: each axis by itself, from the middle or bilinear
        for axis in (0, 1):
            if new[axis] <= old[axis]:
                start = int(old[axis] / 2) - int(new[axis] / 2)
                image = image.narrow(2 + axis, start, new[axis])
            else:
                size = (new[0], image.shape[3]) if axis == 0 else (image.shape[2], new[1])
                image = F.interpolate(image, size=size, mode="bilinear")
    else:
        # axis by axis: with antialias torch resizes an image that is one wide wrongly
        for axis in (2, 3):
            if image.shape[axis] == new[axis - 2]:
                continue
            turned = image.transpose(2, axis)
            wide = turned.expand(-1, -1, -1, max(2, turned.shape[3])) if turned.shape[3] == 1 else turned
            resized = F.interpolate(wide, size=(new[axis - 2], wide.shape[3]), mode=how, antialias=antialias)
            image = resized[..., : turned.shape[3]].transpose(2, axis)
    out = torch.zeros(1, kind.prefix + new[0] * new[1], state.shape[2])
    out[:, : kind.prefix] = state[:, : kind.prefix]
    for t in range(new[0]):
        for f in range(new[1]):
            token = f * new[0] + t if kind.mel_major else t * new[1] + f
            out[0, kind.prefix + token] = image[0, :, t, f].float()
    return out


@settings(deadline=None, max_examples=120)
@given(SIDES, SIDES, st.sampled_from(["bilinear", "bicubic", "cut"]), st.booleans(), st.integers(0, 2), st.booleans())
def test_tables_are_resized_as_pictures_in_either_order(
    old: Pair, new: Pair, how: str, antialias: bool, prefix: int, mel_major: bool
) -> None:
    kind = Table(prefix, mel_major)
    state = table(kind, old)
    expected = plain_table(state, kind, old, new, how, antialias)
    if old == new:
        assert fit({"pos": state}, {"pos": kind}, Shape(old, PATCH), Shape(new, PATCH), Rules()) == ({"pos": state}, [])
        return
    out, change = fitted(kind, old, new, state, positions=how, antialias=antialias)
    assert out.dtype == state.dtype and out.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert torch.equal(out[:, :prefix], state[:, :prefix])
    assert change.kind == "resized" and change.name == "pos"


def test_the_paper_enlarges_the_time_axis_alone() -> None:
    kind = Ast.sized["pos_embed"]
    assert isinstance(kind, Table)
    state = table(kind, (16, 8))
    out, change = fitted(kind, (16, 8), (64, 8), state)
    assert change.what == "positions 8 x 16 -> 8 x 64 (bilinear)"  # mel x time, as in the paper
    for band in range(8):  # mel-major: a band's positions over time lie side by side
        before = state[0, 2 + 16 * band : 2 + 16 * (band + 1)]
        after = F.interpolate(before.T[None].double(), size=64, mode="linear").float()[0].T
        torch.testing.assert_close(out[0, 2 + 64 * band : 2 + 64 * (band + 1)], after, rtol=0, atol=1e-6)


def test_positions_of_both_orders_are_the_same_picture() -> None:
    old, new = (5, 3), (9, 4)
    major = table(Table(1, True), old)
    turned = major[:, 1:].unflatten(1, (old[1], old[0])).transpose(1, 2).flatten(1, 2)
    by_mel, _ = fitted(Table(1, True), old, new, major)
    by_time, _ = fitted(Table(1, False), old, new, torch.cat([major[:, :1], turned], dim=1))
    expected = by_mel[:, 1:].unflatten(1, (new[1], new[0])).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(by_time[:, 1:], expected)


def test_none_leaves_the_table_out_and_says_so() -> None:
    kind = Table(2, True)
    state = {"pos_embed": table(kind, (4, 2)), "norm.weight": normal(3)}
    out, (change,) = fit(
        state, {"pos_embed": kind}, Shape((4, 2), PATCH), Shape((8, 2), PATCH), Rules(positions="none")
    )
    assert list(out) == ["norm.weight"] and out["norm.weight"] is state["norm.weight"]
    assert (change.kind, change.what) == ("created", "positions 2 x 4 -> 2 x 8 (start afresh)")
    assert len(state) == 2  # what is given is not touched


@pytest.mark.parametrize("rows", [9, 11, 8])
def test_a_table_of_another_grid_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=rf"pos has {rows} rows, not 2 and a grid of 2 x 4"):
        fit({"pos": normal(1, rows, 3)}, {"pos": Table(2, True)}, Shape((4, 2), PATCH), Shape((8, 2), PATCH), Rules())


def test_what_is_not_sized_or_not_there_is_passed_over() -> None:
    state = {"blocks.0.mlp.fc1.weight": normal(4, 4)}
    out, changes = fit(state, Ast.sized, Shape((4, 2), PATCH), Shape((8, 2), (8, 16)), Rules())
    assert changes == [] and out == state and out is not state


# --- patch kernels ----------------------------------------------------------------------------------------------------


def stretching(old: Pair, new: Pair, antialias: bool) -> Tensor:
    """(new mel x new time, old mel x old time) float64: a bilinear stretch of a whole patch, pixel by pixel."""
    columns = []
    for place in range(old[1] * old[0]):
        patch = torch.zeros(old[1] * old[0], dtype=torch.float64)
        patch[place] = 1
        image = patch.view(1, 1, old[1], old[0])
        resized = F.interpolate(image, size=(new[1], new[0]), mode="bilinear", antialias=antialias)
        columns.append(resized.flatten())
    return torch.stack(columns, dim=1)


def plain_kernel(weight: Tensor, old: Pair, new: Pair, rule: str) -> Tensor:
    """(D, 1, mel, time): of both axes at once, with the pseudo-inverse of the whole matrix (Beyer et al., FlexiViT)."""
    flat = weight.double().flatten(1)
    if rule == "pi":
        by = torch.linalg.pinv(stretching(old, new, antialias=False).T)
    else:
        by = stretching(old, new, antialias=True)
    return (flat @ by.T).float().view(-1, 1, new[1], new[0])


@pytest.mark.parametrize("mel_first", [True, False])
@pytest.mark.parametrize("rule", ["pi", "bilinear"])
@pytest.mark.parametrize(("old", "new"), KERNELS)
def test_kernels_are_resized_as_whole_patches_in_either_order(
    old: Pair, new: Pair, rule: Literal["pi", "bilinear"], mel_first: bool
) -> None:
    weight = normal(5, 1, old[1], old[0])
    given_ = weight if mel_first else weight.transpose(2, 3).contiguous()
    shapes = Shape((4, 4), old), Shape((4, 4), new)
    out, (change,) = fit({"w": given_}, {"w": Kernel(mel_first)}, *shapes, Rules(patch_kernel=rule))
    made = out["w"] if mel_first else out["w"].transpose(2, 3)
    assert out["w"].is_contiguous()
    torch.testing.assert_close(made, plain_kernel(weight, old, new, rule), rtol=0, atol=1e-5)
    sides = f"{old[1]} x {old[0]} -> {new[1]} x {new[0]}"
    assert (change.kind, change.what) == ("resized", f"patch kernel {sides} ({rule})")


def test_grid_and_patch_change_each_their_own_tensors() -> None:
    sized = {**Ast.sized}
    state = {"pos_embed": normal(1, 2 + 8, 3), "patch_embed.proj.weight": normal(3, 1, 4, 4)}
    grids = Shape((4, 2), (4, 4)), Shape((8, 2), (4, 4))
    out, changes = fit(state, sized, *grids, Rules())
    assert [change.name for change in changes] == ["pos_embed"]
    assert out["patch_embed.proj.weight"] is state["patch_embed.proj.weight"]
    patches = Shape((4, 2), (4, 4)), Shape((4, 2), (8, 4))
    out, changes = fit(state, sized, *patches, Rules())
    assert [change.name for change in changes] == ["patch_embed.proj.weight"]
    assert out["pos_embed"] is state["pos_embed"] and out["patch_embed.proj.weight"].shape == (3, 1, 4, 8)
    assert fit({"patch_embed.proj.weight": normal(3, 1, 4, 4)}, Eat.sized, *patches, Rules())[0][
        "patch_embed.proj.weight"
    ].shape == (3, 1, 8, 4)


# --- an optimiser's moments -------------------------------------------------------------------------------------------


def whole_map(change: Change, kind: Table | Kernel, rows: int) -> Tensor:
    """(new, old) float64: what became of the grid's (or patch's) values, entry by entry, by fitting unit tensors."""
    assert change.old is not None and change.resize is not None
    old = change.old
    new_grid = (change.resize.time.shape[0], change.resize.frequency.shape[0])
    columns = []
    for place in range(rows):
        unit = torch.zeros(rows, dtype=torch.float64)
        unit[place] = 1
        if isinstance(kind, Table):
            state, new = unit.view(1, -1, 1), Shape(new_grid, old.patch)
        else:
            sides = (old.patch[1], old.patch[0]) if kind.mel_first else old.patch
            state, new = unit.view(1, 1, *sides), Shape(old.grid, new_grid)
        columns.append(fit({"x": state}, {"x": kind}, old, new, Rules())[0]["x"].flatten())
    return torch.stack(columns, dim=1)


MOVES: list[tuple[Table | Kernel, Shape, Shape]] = [
    (Table(0, True), Shape((3, 2), PATCH), Shape((6, 2), PATCH)),
    (Table(0, False), Shape((3, 2), PATCH), Shape((6, 3), PATCH)),
    (Table(0, True), Shape((6, 2), PATCH), Shape((3, 2), PATCH)),
    (Kernel(True), Shape((4, 4), (8, 3)), Shape((4, 4), (4, 3))),
    (Kernel(False), Shape((4, 4), (4, 3)), Shape((4, 4), (8, 3))),
]


@pytest.mark.parametrize(("kind", "old", "new"), MOVES)
def test_moments_move_as_gradients_do(kind: Table | Kernel, old: Shape, new: Shape) -> None:
    rows = math.prod(old.grid if isinstance(kind, Table) else old.patch)
    sides = (old.patch[1], old.patch[0]) if isinstance(kind, Kernel) and kind.mel_first else old.patch
    shape = (1, rows, 4) if isinstance(kind, Table) else (4, 1, *sides)
    first = normal(*shape, seed=1)
    _, (change,) = fit({"x": first}, {"x": kind}, old, new, Rules())
    matrix = whole_map(change, kind, rows)  # x_new = matrix @ x_old
    gradients = torch.linalg.pinv(matrix.T)

    def columns(tensor: Tensor) -> Tensor:  # (entries, D)
        return (tensor[0] if isinstance(kind, Table) else tensor.flatten(1).T).double()

    moved = change.moved(first, "first")
    assert moved.dtype == torch.float32
    torch.testing.assert_close(columns(moved), gradients @ columns(first), rtol=0, atol=1e-5)
    if matrix.shape[0] >= matrix.shape[1]:  # it grew: the old gradient is exactly that of the new one's values
        torch.testing.assert_close(matrix.T @ columns(moved), columns(first), rtol=0, atol=1e-5)
    squares = first.square()
    second = change.moved(squares, "second")
    assert bool((second >= 0).all())
    torch.testing.assert_close(columns(second), gradients.square() @ columns(squares), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.sampled_from(["bilinear", "bicubic", "cut"]), st.booleans())
def test_second_moments_stay_at_or_above_zero_and_prefix_rows_as_they_were(
    old: Pair, new: Pair, how: str, mel_major: bool
) -> None:
    if old == new:
        return
    kind = Table(2, mel_major)
    _, change = fitted(kind, old, new, table(kind, old), positions=how)
    first, second = table(kind, old, seed=1), table(kind, old, seed=2).square() * 1e-12
    moved_first, moved_second = change.moved(first, "first"), change.moved(second, "second")
    assert moved_first.shape == moved_second.shape == (1, 2 + new[0] * new[1], 3)
    assert bool((moved_second >= 0).all()) and bool(torch.isfinite(moved_first).all())
    assert torch.equal(moved_first[:, :2], first[:, :2]) and torch.equal(moved_second[:, :2], second[:, :2])
