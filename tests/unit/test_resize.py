"""Resizing position tables, patch kernels and an optimiser's moments: what a phase boundary relies on."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor

from c2ftool.compression import resize
from c2ftool.compression.resize import Resize, axis_map, kernel_map

SIZES = st.integers(1, 40)
SMOOTH = st.sampled_from(["bilinear", "bicubic"])
PAIRS: list[tuple[tuple[int, int], tuple[int, int]]] = [
    ((16, 8), (64, 8)),
    ((24, 24), (101, 12)),
    ((7, 5), (9, 11)),
    ((64, 8), (16, 8)),
    ((13, 6), (5, 9)),
]


def plain_bilinear(old: int, new: int, antialias: bool) -> Tensor:
    """(new, old) weights of a triangle around each new centre: an old place wide, or a new one where that is wider."""
    rows = []
    reach = max(1.0, old / new) if antialias else 1.0
    for place in range(new):
        centre = (place + 0.5) * old / new
        if antialias:
            weights = [max(0.0, 1 - abs(o + 0.5 - centre) / reach) for o in range(old)]
        else:  # beyond the first and the last centre, their values
            inside = min(max(centre, 0.5), old - 0.5)
            weights = [max(0.0, 1 - abs(o + 0.5 - inside)) for o in range(old)]
        rows.append([weight / math.fsum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positions(old: tuple[int, int], new: tuple[int, int], how: Any = "bilinear") -> Resize:
    return Resize(axis_map(old[0], new[0], how), axis_map(old[1], new[1], how))


def kernels(old: tuple[int, int], new: tuple[int, int]) -> Resize:
    return Resize(kernel_map(old[0], new[0], "pi"), kernel_map(old[1], new[1], "pi"))


def matrix(r: Resize) -> Tensor:
    """The whole map, (new T * new F, old T * old F)."""
    return torch.kron(r.time, r.frequency)


# --- the maps of one axis ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SIZES, SIZES, st.booleans())
def test_a_bilinear_map_has_the_weights_of_its_definition(old: int, new: int, antialias: bool) -> None:
    made = axis_map(old, new, "bilinear", antialias=antialias)
    assert made.dtype == torch.float64 and made.device.type == "cpu"
    torch.testing.assert_close(made, plain_bilinear(old, new, antialias), rtol=0, atol=1e-12)


@settings(deadline=None)
@given(SIZES, SIZES, SMOOTH, st.booleans())
def test_a_constant_table_stays_constant(old: int, new: int, how: Any, antialias: bool) -> None:
    rows = axis_map(old, new, how, antialias=antialias).sum(1)
    torch.testing.assert_close(rows, torch.ones(new, dtype=torch.float64), rtol=0, atol=1e-12)


@settings(deadline=None)
@given(SIZES, SIZES)
def test_antialias_changes_nothing_of_a_bilinear_map_that_grows(one: int, other: int) -> None:
    old, new = sorted((one, other))
    smooth, plain = axis_map(old, new, "bilinear"), axis_map(old, new, "bilinear", antialias=False)
    torch.testing.assert_close(smooth, plain, rtol=0, atol=1e-6)


def test_antialias_matters_where_an_axis_shrinks() -> None:
    smooth, plain = axis_map(64, 16, "bilinear"), axis_map(64, 16, "bilinear", antialias=False)
    assert (smooth - plain).abs().max() > 0.1
    assert (smooth > 0).sum(1).min() == 6 and (plain > 0).sum(1).max() == 2


@settings(deadline=None)
@given(st.tuples(SIZES, SIZES), st.tuples(SIZES, SIZES), SMOOTH, st.booleans())
def test_a_table_is_resized_as_torch_resizes_an_image(
    old: tuple[int, int], new: tuple[int, int], how: Any, antialias: bool
) -> None:
    # an image one wide is left out: with antialias torch resizes its height wrongly
    old, new = (old[0] + 1, old[1] + 1), (new[0] + 1, new[1] + 1)
    table = normal(2, 3, *old)
    maps = [axis_map(a, b, how, antialias=antialias) for a, b in zip(old, new, strict=True)]
    expected = F.interpolate(table, size=new, mode=how, align_corners=False, antialias=antialias)
    torch.testing.assert_close(Resize(*maps)(table), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("hw, time, mel", [(24, 64, 8), (24, 16, 8), (24, 101, 12), (24, 24, 24), (24, 7, 31)])
def test_cut_is_what_ast_makes_of_an_imagenet_table(hw: int, time: int, mel: int) -> None:
    """Per axis, time first, as its code does it: a slice from the middle, or bilinear."""
    table = normal(1, 5, hw, hw)  # (1, D, mel, time)
    expected = table
    if time <= hw:
        start = int(hw / 2) - int(time / 2)
        expected = expected[:, :, :, start : start + time]
    else:
        expected = F.interpolate(expected, size=(hw, time), mode="bilinear")
    if mel <= hw:
        start = int(hw / 2) - int(mel / 2)
        expected = expected[:, :, start : start + mel, :]
    else:
        expected = F.interpolate(expected, size=(mel, time), mode="bilinear")
    made = positions((hw, hw), (time, mel), "cut")(table.transpose(2, 3)).transpose(2, 3)
    if max(time, mel) <= hw:
        assert torch.equal(made, expected)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 130), st.integers(1, 130))
def test_cut_takes_whole_rows_from_the_middle(one: int, other: int) -> None:
    new, old = sorted((one, other))
    rows = torch.arange(old, dtype=torch.float64)[:, None]
    kept = Resize(axis_map(old, new, "cut"), axis_map(1, 1, "cut"))(rows)[:, 0].tolist()
    start = old // 2 - new // 2
    assert kept == list(range(start, start + new))


@settings(deadline=None)
@given(SIZES, SIZES)
def test_first_takes_the_first_rows_and_lengthens_as_cut_does(old: int, new: int) -> None:
    made = axis_map(old, new, "first")
    if new <= old:
        rows = torch.arange(old, dtype=torch.float64)
        assert (made @ rows).tolist() == list(range(new))
    else:
        assert torch.equal(made, axis_map(old, new, "cut"))


@pytest.mark.parametrize("old, new", [(0, 4), (4, 0), (-1, 4), (4, -3)])
def test_sizes_below_one_are_refused(old: int, new: int) -> None:
    with pytest.raises(ValueError, match=f"from {old} to {new}"):
        axis_map(old, new, "bilinear")
    with pytest.raises(ValueError, match=f"from {old} to {new}"):
        kernel_map(old, new, "pi")


def test_unknown_ways_are_refused() -> None:
    nearest: Any = "nearest"
    with pytest.raises(ValueError, match="'nearest': bilinear, bicubic, cut or first"):
        axis_map(4, 8, nearest)
    with pytest.raises(ValueError, match="'nearest': pi or bilinear"):
        kernel_map(4, 4, nearest)


def test_maps_are_made_alike_where_models_are_counted_and_evaluated() -> None:
    """On the meta device, and first of all under inference mode, whose tensors autograd refuses."""
    makers = (lambda: axis_map(5, 9, "bicubic"), lambda: axis_map(9, 5, "cut"), lambda: kernel_map(5, 9, "pi"))
    usual = [make().clone() for make in makers]
    resize._interpolation.cache_clear()
    resize._kernel_inverse.cache_clear()
    with torch.device("meta"), torch.inference_mode():
        moved = Resize(axis_map(5, 9, "bicubic"), axis_map(3, 3, "cut"))(torch.empty(2, 5, 3))
        assert moved.device.type == "meta" and moved.shape == (2, 9, 3)
        assert kernel_map(5, 9, "pi").device.type == "cpu"
    for make, expected in zip(makers, usual, strict=True):
        assert torch.equal(make(), expected)
    table = torch.randn(5, 3, requires_grad=True)
    Resize(axis_map(5, 9, "bicubic"), kernel_map(3, 5, "pi"))(table).sum().backward()
    assert table.grad is not None and table.grad.isfinite().all()


# --- a grid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["bilinear", "bicubic", "cut", "pi"])
def test_an_identity_leaves_bits_alone(how: Any, dtype: torch.dtype) -> None:
    axis = kernel_map if how == "pi" else axis_map
    same = Resize(axis(8, 8, how), axis(4, 4, how))
    grid = normal(3, 8, 4).to(dtype)
    grid[0, 0] = torch.tensor([math.nan, -0.0, math.inf, torch.finfo(dtype).tiny / 2])
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    for r in (same, same.of_gradients(), same.of_squares()):
        assert torch.equal(r(grid).view(bits), grid.view(bits))


def test_an_axis_that_stays_keeps_its_places_apart() -> None:
    """What is not a number in one frame would come into all of them by a product with the identity."""
    grid = normal(2, 8, 4)
    grid[0, 3, 1] = math.inf
    made = Resize(axis_map(8, 8, "bilinear"), axis_map(4, 6, "bilinear"))(grid)
    assert not made[0, 3].isfinite().all()
    made[0, 3] = 0
    assert made.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_float64_even_under_autocast(dtype: torch.dtype) -> None:
    r, grid = positions((16, 8), (64, 8)), normal(4, 16, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = r(grid)
    assert made.dtype == dtype
    assert torch.equal(made, r(grid.double()).to(dtype))


@pytest.mark.parametrize("shape", [(), (1,), (2, 0), (2, 3)])
def test_leading_axes_are_kept(shape: tuple[int, ...]) -> None:
    assert positions((6, 4), (9, 3))(torch.zeros(*shape, 6, 4)).shape == (*shape, 9, 3)


def test_grids_of_another_size_and_of_integers_are_refused() -> None:
    r = positions((6, 4), (9, 3))
    for wrong in (torch.zeros(4, 6), torch.zeros(6), torch.zeros(6, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"a grid of floats \(\.\.\., 6, 4\) was expected, not"):
            r(wrong)


@pytest.mark.parametrize("wrong", [torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3), torch.zeros(0, 3).double()])
def test_what_is_no_map_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"frequency must be \(new, old\) float64"):
        Resize(axis_map(3, 3, "bilinear"), wrong)
    with pytest.raises(ValueError, match=r"time must be \(new, old\) float64"):
        Resize(wrong, axis_map(3, 3, "bilinear"))


# --- patch kernels ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SIZES, SIZES, st.booleans())
def test_a_widened_kernel_answers_to_a_stretched_patch_as_before(one: int, other: int, antialias: bool) -> None:
    old, new = sorted((one, other))
    kernel, patch = normal(old, seed=1), normal(old, seed=2)
    stretched = axis_map(old, new, "bilinear", antialias=antialias) @ patch
    wide = kernel_map(old, new, "pi", antialias=antialias) @ kernel
    torch.testing.assert_close(wide @ stretched, kernel @ patch, rtol=0, atol=1e-10)


@settings(deadline=None)
@given(SIZES, SIZES, st.booleans())
def test_a_narrowed_kernel_comes_as_near_as_one_can(one: int, other: int, antialias: bool) -> None:
    """Over patches of the old width; and a kernel that answers only to what the narrow patch holds comes back whole."""
    new, old = sorted((one, other))
    kernel, patches = normal(old), axis_map(old, new, "bilinear", antialias=antialias)
    narrow = kernel_map(old, new, "pi", antialias=antialias)
    missed = patches.T @ (narrow @ kernel) - kernel
    torch.testing.assert_close(patches @ missed, torch.zeros(new, dtype=torch.float64), rtol=0, atol=1e-10)
    inside = normal(new, seed=3)
    torch.testing.assert_close(narrow @ (patches.T @ inside), inside, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule, antialias", [("pi", False), ("bilinear", True)])
def test_rules_have_the_antialias_of_the_papers_helper(rule: Literal["pi", "bilinear"], antialias: bool) -> None:
    assert torch.equal(kernel_map(64, 16, rule), kernel_map(64, 16, rule, antialias=antialias))
    assert not torch.allclose(kernel_map(64, 16, rule), kernel_map(64, 16, rule, antialias=not antialias))


def test_a_bilinear_kernel_answers_to_a_stretched_patch_with_its_width() -> None:
    even = torch.ones(16, dtype=torch.float64)
    for factor in (2, 4):
        stretched = axis_map(16, 16 * factor, "bilinear") @ even
        answers = [(kernel_map(16, 16 * factor, rule) @ even @ stretched).item() for rule in ("bilinear", "pi")]
        assert answers == pytest.approx([16 * factor, 16])


@pytest.mark.parametrize(
    "old, new", [((16, 16), (64, 16)), ((16, 8), (12, 24)), ((16, 16), (32, 12)), ((9, 7), (5, 4))]
)
def test_axis_by_axis_is_the_pseudo_inverse_of_the_whole_patch(old: tuple[int, int], new: tuple[int, int]) -> None:
    """Also where one axis grows and the other shrinks, and the whole matrix has no full rank."""
    images = torch.eye(old[0] * old[1], dtype=torch.float64).view(-1, 1, *old)
    stretch = F.interpolate(images, size=new, mode="bilinear", align_corners=False).flatten(1).T
    kernel = normal(3, *old)
    whole = (torch.linalg.pinv(stretch.T) @ kernel.flatten(1).T).T.view(3, *new)
    torch.testing.assert_close(kernels(old, new)(kernel), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "old, new", [((16, 16), (32, 16)), ((16, 16), (64, 16)), ((64, 16), (16, 16)), ((16, 8), (20, 9))]
)
def test_pi_equals_timms(old: tuple[int, int], new: tuple[int, int]) -> None:
    kernel = (normal(6, 1, *old) / 16).float()
    timms = resample_patch_embed(kernel, list(new), interpolation="bilinear", antialias=False)
    made = kernels(old, new)(kernel)
    assert made.dtype == torch.float32
    assert float((made - timms).norm() / timms.norm()) < 1e-5


# --- an optimiser's moments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old, new", PAIRS)
@pytest.mark.parametrize("maps", [positions, kernels], ids=["positions", "kernels"])
def test_first_moments_move_as_gradients_do(maps: Any, old: tuple[int, int], new: tuple[int, int]) -> None:
    """A loss of R x has the gradient R^T g in x: what is made of it is the shortest g that fits it best."""
    r: Resize = maps(old, new)
    x = normal(*old).requires_grad_()
    resized = r(x)
    resized.retain_grad()
    (resized * normal(*new, seed=1)).sin().sum().backward()
    assert x.grad is not None and resized.grad is not None
    torch.testing.assert_close(x.grad.flatten(), matrix(r).T @ resized.grad.flatten(), rtol=0, atol=1e-10)

    made = r.of_gradients()(x.grad).flatten()
    best = torch.linalg.lstsq(matrix(r).T, x.grad.flatten()[:, None], driver="gelsd").solution[:, 0]
    torch.testing.assert_close(made, best, rtol=0, atol=1e-10)
    # this gradient does come of a loss of R x, so it is met
    torch.testing.assert_close(matrix(r).T @ made, x.grad.flatten(), rtol=0, atol=1e-10)
    assert made.norm() <= resized.grad.norm() * (1 + 1e-12)


@pytest.mark.parametrize("old, new", PAIRS)
@pytest.mark.parametrize("maps", [positions, kernels], ids=["positions", "kernels"])
def test_second_moments_move_as_variances_of_independent_gradients_do(
    maps: Any, old: tuple[int, int], new: tuple[int, int]
) -> None:
    r: Resize = maps(old, new)
    variances = normal(2, *old).square()
    made = r.of_squares()(variances)
    assert made.shape == (2, *new) and (made >= 0).all()
    assert (r.of_squares().time >= 0).all() and (r.of_squares().frequency >= 0).all()
    whole = matrix(r.of_gradients())
    expected = torch.stack([(whole @ v.flatten().diag() @ whole.T).diag().view(new) for v in variances])
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)


@settings(deadline=None)
@given(st.tuples(SIZES, SIZES), st.tuples(SIZES, SIZES), SMOOTH)
def test_the_gradients_of_gradients_move_as_values(old: tuple[int, int], new: tuple[int, int], how: Any) -> None:
    r = positions(old, new, how)
    again = r.of_gradients().of_gradients()
    torch.testing.assert_close(again.time, r.time, rtol=0, atol=1e-10)
    torch.testing.assert_close(again.frequency, r.frequency, rtol=0, atol=1e-10)


def test_gradients_of_a_kernel_are_stretched_like_a_patch() -> None:
    """A kernel's gradient is made of patches, so it moves by B itself; a cut table's is kept where the table was."""
    torch.testing.assert_close(
        kernels((16, 8), (64, 8)).of_gradients().time, axis_map(16, 64, "bilinear"), rtol=0, atol=1e-12
    )
    cut = positions((24, 24), (16, 8), "cut")
    torch.testing.assert_close(cut.of_gradients().time, cut.time, rtol=0, atol=1e-12)
    torch.testing.assert_close(cut.of_squares().time, cut.time, rtol=0, atol=1e-12)
