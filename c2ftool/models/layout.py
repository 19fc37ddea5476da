"""Which tensors of a backbone have the shape of a token grid or of a patch, and fitting them to another.

Used at the start (published weights), between phases (Feng et al., ICASSP 2024, section 2) and in evaluation at another
compression. Pairs are (time, mel) throughout, whatever the order inside a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from c2ftool.compression.resize import Resize, axis_map, kernel_map

State = dict[str, Tensor]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Table:
    """Learned positions (1, prefix + tokens, D): the prefix rows belong to the tokens in front of the grid's.

    mel_major: token = f * T + t (AST), else t * F + f.
    """

    prefix: int
    mel_major: bool


@dataclass(frozen=True)
class Kernel:
    """A patch kernel (D, 1, mel, time) if mel_first, else (D, 1, time, mel)."""

    mel_first: bool


@dataclass(frozen=True)
class Shape:
    """What shaped tensors depend on: the token grid and the patch."""

    grid: Pair
    patch: Pair


@dataclass(frozen=True)
class Rules:
    """How shaped tensors are fitted.

    antialias: where a grid or patch shrinks; None: on for positions and bilinear kernels, off for pi (the authors'
    code).
    """

    positions: Literal["bilinear", "bicubic", "cut", "none"] = "bilinear"
    patch_kernel: Literal["pi", "bilinear"] = "pi"
    antialias: bool | None = None


@dataclass(frozen=True)
class Change:
    """What became of one tensor. resize: how it moved; None where it is to start afresh, or is computed."""

    name: str
    kind: Literal["resized", "created", "recomputed"]
    what: str  # in words: "positions 8 x 16 -> 8 x 64 (bilinear)"
    sized: Table | Kernel | None = None
    old: Shape | None = None
    resize: Resize | None = None

    def moved(self, tensor: Tensor, moment: Literal["first", "second"]) -> Tensor:
        """An optimiser's moment of the tensor, moved by the law of gradients."""
        assert self.resize is not None and self.sized is not None and self.old is not None
        by = self.resize.of_gradients()
        return _moved(tensor, self.sized, self.old, by if moment == "first" else self.resize.of_squares())


def fit(
    state: Mapping[str, Tensor], sized: Mapping[str, Table | Kernel], old: Shape, new: Shape, rules: Rules
) -> tuple[State, list[Change]]:
    """(the tensors as the new shape needs them, what changed). Tensors that start afresh are left out.

    Grids are written mel x time, as the papers do. Raises ValueError where a table does not have the old grid's rows.
    """
    out, changes = dict(state), []
    for name, kind in sized.items():
        if name not in state:
            continue
        if isinstance(kind, Table):
            rows = state[name].shape[1]
            if rows != kind.prefix + old.grid[0] * old.grid[1]:
                raise ValueError(
                    f"{name} has {rows} rows, not {kind.prefix} and a grid of {old.grid[1]} x {old.grid[0]}"
                )
            if old.grid == new.grid:
                continue
            about = f"positions {old.grid[1]} x {old.grid[0]} -> {new.grid[1]} x {new.grid[0]}"
            if rules.positions == "none":
                del out[name]
                changes.append(Change(name, "created", f"{about} (start afresh)"))
                continue
            maps = [
                axis_map(a, b, rules.positions, antialias=rules.antialias is not False)
                for a, b in zip(old.grid, new.grid, strict=True)
            ]
            about += f" ({rules.positions})"
        else:
            if old.patch == new.patch:
                continue
            maps = [
                kernel_map(a, b, rules.patch_kernel, antialias=rules.antialias)
                for a, b in zip(old.patch, new.patch, strict=True)
            ]
            sides = f"{old.patch[1]} x {old.patch[0]} -> {new.patch[1]} x {new.patch[0]}"
            about = f"patch kernel {sides} ({rules.patch_kernel})"
        resize = Resize(time=maps[0], frequency=maps[1])
        out[name] = _moved(state[name], kind, old, resize)
        changes.append(Change(name, "resized", about, kind, old, resize))
    return out, changes


@torch.no_grad()
def _moved(tensor: Tensor, kind: Table | Kernel, old: Shape, resize: Resize) -> Tensor:
    """The tensor with a map applied over its grid or its patch."""
    if isinstance(kind, Kernel):  # (D, 1, mel, time) or (D, 1, time, mel)
        return resize(tensor.transpose(2, 3)).transpose(2, 3).contiguous() if kind.mel_first else resize(tensor)
    time, frequency = old.grid
    front, rows = tensor[:, : kind.prefix], tensor[:, kind.prefix :]
    shape = (frequency, time) if kind.mel_major else (time, frequency)
    grid = rows.transpose(1, 2).unflatten(2, shape)  # (1, D, ..)
    moved = resize(grid.transpose(2, 3)).transpose(2, 3) if kind.mel_major else resize(grid)
    return torch.cat([front, moved.flatten(2).transpose(1, 2)], dim=1)
