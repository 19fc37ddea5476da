"""Linear maps between token grids, and between patch widths: how position tables and patch kernels change shape.

Feng et al., ICASSP 2024, section 2, where a phase with more tokens, or with narrower patches, goes on from the weights
of the one before. The maps of one axis come from `F.interpolate` itself, given an identity image, so they are torch's
in every detail; a grid's map is one such map per axis. All of it in float64: a pseudo-inverse in float32 of both axes
at once, one growing and one shrinking, has been seen to be wrong by 1e8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Positions = Literal["bilinear", "bicubic", "cut", "first"]
KernelRule = Literal["pi", "bilinear"]


def axis_map(old: int, new: int, how: Positions, *, antialias: bool = True) -> Tensor:
    """(new, old) float64 on the CPU: what one axis of a position table is multiplied by. Not to be written to.

    bilinear, bicubic: half-pixel centres (`align_corners=False`). Where the axis grows, `antialias` changes nothing of
    a bilinear map, but a bicubic one by up to 0.07: torch's antialiased cubic is another (a = -0.5, not -0.75).
    cut: `new` rows from the middle, from `old // 2 - new // 2` on, where they are no more than the old ones, else
    bilinear without antialias: AST's rule for its ImageNet and AudioSet start (Gong et al., Interspeech 2021, section
    2.2, and their code).
    first: the first `new` rows where they are no more than the old ones, else as cut: a table of times, given to a
    shorter input (ATST-Frame, fPaSST, M2D).

    Raises ValueError for a size below 1 and for another `how`.
    """
    _check_sizes(old, new)
    match how:
        case "cut" | "first" if new <= old:
            start = old // 2 - new // 2 if how == "cut" else 0
            return _identity(old)[start : start + new]
        case "cut" | "first":
            return _interpolation(old, new, "bilinear", False)
        case "bilinear" | "bicubic":
            return _interpolation(old, new, how, antialias)
        case _:
            raise ValueError(f"unknown resizing of positions {how!r}: bilinear, bicubic, cut or first")


def kernel_map(old: int, new: int, how: KernelRule, *, antialias: bool | None = None) -> Tensor:
    """(new, old) float64 on the CPU: what one axis of a patch kernel is multiplied by. Not to be written to.

    With B the bilinear map that stretches a patch from `old` to `new`:
    pi: pinv(B^T), the kernel that answers to a stretched patch as the old one did to the patch, exactly where it
    widens and as nearly as possible where it narrows (Beyer et al., CVPR 2023, section 3.4); antialias off if None.
    bilinear: B itself, antialias on if None. The answer to a stretched patch then grows with the width.

    Raises ValueError for a size below 1 and for another `how`.
    """
    _check_sizes(old, new)
    match how:
        case "pi":
            return _kernel_inverse(old, new, bool(antialias))
        case "bilinear":
            return _interpolation(old, new, "bilinear", antialias is not False)
        case _:
            raise ValueError(f"unknown resizing of patch kernels {how!r}: pi or bilinear")


@dataclass(frozen=True)
class Resize:
    """A separable linear map R of a (time, frequency) grid; both matrices float64.

    time: (new time, old time). frequency: (new frequency, old frequency). Raises ValueError for anything else.
    """

    time: Tensor
    frequency: Tensor

    def __post_init__(self) -> None:
        for name, matrix in (("time", self.time), ("frequency", self.frequency)):
            if matrix.ndim != 2 or not matrix.numel() or matrix.dtype != torch.float64:
                raise ValueError(f"{name} must be (new, old) float64, not {_said(matrix)}")

    def __call__(self, grid: Tensor) -> Tensor:
        """(..., new time, new frequency) of a (..., old time, old frequency) grid, in its type and on its device.

        The arithmetic is float64. An axis whose map is the identity is left alone; where both are, the grid itself
        comes back. Raises ValueError for a grid of another size or not of floating point.
        """
        old = (self.time.shape[1], self.frequency.shape[1])
        if tuple(grid.shape[-2:]) != old or not grid.is_floating_point():
            raise ValueError(f"a grid of floats (..., {old[0]}, {old[1]}) was expected, not {_said(grid)}")
        resized = grid
        if not _is_identity(self.frequency):
            resized = resized.double() @ self.frequency.T.to(grid.device)
        if not _is_identity(self.time):
            resized = self.time.to(grid.device) @ resized.double()
        return resized.to(grid.dtype)

    def of_gradients(self) -> Resize:
        """pinv(R^T): how gradients move where the values moved by R; so the first moments of an optimiser.

        A loss of R x has the gradient R^T g in x, g its gradient in R x. This is the shortest g with that R^T g, or
        the nearest where there is none (the grid shrank and x was sharper than the new grid can hold).
        """
        return self._each(_gradient_map)

    def of_squares(self) -> Resize:
        """`of_gradients`, its entries squared: how variances of independent gradients move; so second moments.

        It is the diagonal of P diag(v) P^T, P the map of gradients, so nothing below 0 comes of what is not.
        """
        return self._each(lambda matrix: _gradient_map(matrix).square())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Resize:
        return Resize(change(self.time), change(self.frequency))


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


def _check_sizes(old: int, new: int) -> None:
    if old < 1 or new < 1:
        raise ValueError(f"an axis cannot go from {old} to {new}: both sizes are at least 1")


def _identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64, device="cpu")


def _is_identity(matrix: Tensor) -> bool:
    new, old = matrix.shape
    return new == old and torch.equal(matrix, torch.eye(new, dtype=matrix.dtype, device=matrix.device))


def _gradient_map(matrix: Tensor) -> Tensor:
    """pinv of the transpose; an identity stays one to the bit."""
    return matrix if _is_identity(matrix) else torch.linalg.pinv(matrix.T)


# The maps are kept, and may be wanted first under inference mode: made in it they could never enter a graph.


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _interpolation(old: int, new: int, mode: str, antialias: bool) -> Tensor:
    """(new, old): column c is what interpolating makes of 1 at place c and 0 elsewhere."""
    if new == old:
        return _identity(old)
    # a square image, of which only the height changes: with antialias torch resizes an image one wide wrongly
    image = _identity(old)[None, None]
    return F.interpolate(image, size=(new, old), mode=mode, align_corners=False, antialias=antialias)[0, 0]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kernel_inverse(old: int, new: int, antialias: bool) -> Tensor:
    return _gradient_map(_interpolation(old, new, "bilinear", antialias))
