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
Positions = Literal["bilinear", "bicubic", "cut", "first", "none"]


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
class RelativeTable:
    """What attention within square windows adds for how far apart two tokens lie: ((2 w - 1)^2, H), w a window's side.

    Rows are in the order (mel, time) of the distance. stage: how often the image of tokens was halved before. largest:
    the window, unless a side of that image is shorter.
    """

    stage: int
    largest: int

    def window(self, grid: Pair) -> int:
        """The side of a window, of an image made from so many (time, mel) patches."""
        height, width, _ = image_of(grid)
        return min(self.largest, height >> self.stage, width >> self.stage)

    def sides(self, grid: Pair) -> Pair:
        """Distances along each axis."""
        side = 2 * self.window(grid) - 1
        return side, side


Sized = Table | Kernel | RelativeTable


@dataclass(frozen=True)
class Shape:
    """What shaped tensors depend on: the token grid and the patch."""

    grid: Pair
    patch: Pair


@dataclass(frozen=True)
class Rules:
    """How shaped tensors are fitted. Relative tables are resized as positions, but bicubically unless by `bilinear`.

    antialias: where a grid or patch shrinks; None: on for positions and bilinear kernels, off for pi (the authors'
    code) and relative tables (Swin's).
    """

    positions: Positions = "bilinear"
    patch_kernel: Literal["pi", "bilinear"] = "pi"
    antialias: bool | None = None


@dataclass(frozen=True)
class Change:
    """What became of one tensor. resize: how it moved; None where it is to start afresh, or is computed."""

    name: str
    kind: Literal["resized", "created", "recomputed"]
    what: str  # in words: "positions 8 x 16 -> 8 x 64 (bilinear)"
    sized: Sized | None = None
    old: Shape | None = None
    resize: Resize | None = None

    def moved(self, tensor: Tensor, moment: Literal["first", "second"]) -> Tensor:
        """An optimiser's moment of the tensor, moved by the law of gradients."""
        assert self.resize is not None and self.sized is not None and self.old is not None
        by = self.resize.of_gradients()
        return _moved(tensor, self.sized, self.old, by if moment == "first" else self.resize.of_squares())


def fit(
    state: Mapping[str, Tensor], sized: Mapping[str, Sized], old: Shape, new: Shape, rules: Rules
) -> tuple[State, list[Change]]:
    """(the tensors as the new shape needs them, what changed). Tensors that start afresh are left out.

    Grids are written mel x time, as the papers do. Raises ValueError where a table does not have the old grid's rows.
    """
    out, changes = dict(state), []
    for name, kind in sized.items():
        if name not in state:
            continue
        about, before, after = _sides(name, state[name], kind, old, new)
        if before == after:
            continue
        about += f" {before[1]} x {before[0]} -> {after[1]} x {after[0]}"
        if rules.positions == "none" and not isinstance(kind, Kernel):
            del out[name]
            changes.append(Change(name, "created", f"{about} (start afresh)"))
            continue
        how, time = _map(kind, before[0], after[0], rules)
        _, frequency = _map(kind, before[1], after[1], rules)
        resize = Resize(time, frequency)
        out[name] = _moved(state[name], kind, old, resize)
        changes.append(Change(name, "resized", f"{about} ({how})", kind, old, resize))
    return out, changes


def _sides(name: str, tensor: Tensor, kind: Sized, old: Shape, new: Shape) -> tuple[str, Pair, Pair]:
    """(what a tensor holds, its sides at the old shape, at the new one), sides (time, mel)."""
    match kind:
        case Kernel():
            if tensor.dim() != 4:
                raise ValueError(f"{name} has {tensor.dim()} axes, not 4")
            return "patch kernel", old.patch, new.patch
        case Table():
            if tensor.dim() != 3:
                raise ValueError(f"{name} has {tensor.dim()} axes, not 3")
            rows, (time, frequency) = tensor.shape[1], old.grid
            if rows != kind.prefix + time * frequency:
                raise ValueError(f"{name} has {rows} rows, not {kind.prefix} and a grid of {frequency} x {time}")
            return "positions", old.grid, new.grid
        case RelativeTable():
            if tensor.dim() != 2:
                raise ValueError(f"{name} has {tensor.dim()} axes, not 2")
            rows, (side, _) = tensor.shape[0], kind.sides(old.grid)
            if rows != side * side:
                raise ValueError(
                    f"{name} has {rows} rows, not {side} x {side}, of windows {kind.window(old.grid)} wide"
                )
            return "attention bias", (side, side), kind.sides(new.grid)


def _map(kind: Sized, old: int, new: int, rules: Rules) -> tuple[str, Tensor]:
    """(the rule's name, what one axis is multiplied by)."""
    if isinstance(kind, Kernel):
        return rules.patch_kernel, kernel_map(old, new, rules.patch_kernel, antialias=rules.antialias)
    if isinstance(kind, RelativeTable):
        how: Literal["bilinear", "bicubic"] = "bilinear" if rules.positions == "bilinear" else "bicubic"
        return how, axis_map(old, new, how, antialias=rules.antialias is True)
    assert rules.positions != "none"
    return rules.positions, axis_map(old, new, rules.positions, antialias=rules.antialias is not False)


@torch.no_grad()
def _moved(tensor: Tensor, kind: Sized, old: Shape, resize: Resize) -> Tensor:
    """The tensor with a map applied over its grid or its patch."""
    if isinstance(kind, Kernel):  # (D, 1, mel, time) or (D, 1, time, mel)
        return resize(tensor.transpose(2, 3)).transpose(2, 3).contiguous() if kind.mel_first else resize(tensor)
    if isinstance(kind, RelativeTable):  # (distances, H)
        time, frequency = resize.time.shape[1], resize.frequency.shape[1]
        distances = tensor.T.unflatten(1, (frequency, time)).transpose(1, 2)
        return resize(distances).transpose(1, 2).flatten(1).T.contiguous()
    time, frequency = old.grid
    front, rows = tensor[:, : kind.prefix], tensor[:, kind.prefix :]
    shape = (frequency, time) if kind.mel_major else (time, frequency)
    grid = rows.transpose(1, 2).unflatten(2, shape)  # (1, D, ..)
    moved = resize(grid.transpose(2, 3)).transpose(2, 3) if kind.mel_major else resize(grid)
    return torch.cat([front, moved.flatten(2).transpose(1, 2)], dim=1)


def image_of(grid: Pair) -> tuple[int, int, int]:
    """(height, width, chunks) of the image of tokens that HTS-AT makes of (time, mel) patches.

    Time is cut into chunks, which are stacked on the mel axis until the image is as near to a square as halving and
    doubling its sides can bring it; of two equally near, the one of fewer chunks, so the wider one. 256 x 16 patches
    are 64 x 64 tokens in 4 chunks (Chen et al., ICASSP 2022, section 2.2), 64 x 16 are 32 x 32 in 2. Raises ValueError
    where a chunk is not a whole number of patches.
    """
    time, height = grid
    width, chunks = time, 1
    while width > 2 * height:
        width, height, chunks = width // 2, height * 2, chunks * 2
    if width * chunks != time:
        raise ValueError(f"{time} patches over time cannot be cut into {chunks} chunks")
    return height, width, chunks
