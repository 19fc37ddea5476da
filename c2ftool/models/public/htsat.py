"""HTS-AT's published tensors under our names, and back; and Swin's ImageNet weights, from which it starts.

Public code: RetroCirce/HTS-Audio-Transformer, model/htsat.py; microsoft/Swin-Transformer, of which it is a copy. A file
of HTS-AT is a Lightning checkpoint, names behind `sed_model.`: the constants of its front end, bn0,
patch_embed.{proj,norm}, layers.S.blocks.N.{norm1,attn.{relative_position_bias_table,qkv,proj},norm2,mlp.{fc1,fc2}} with
the constants attn_mask and attn.relative_position_index, layers.S.downsample.{norm,reduction}, norm, tscam_conv, and
`head`, a layer that is never used. Swin's has no bn0 and no tscam_conv, and `head` has ImageNet's classes.

Our names: backbone {bn0, patch_embed.{proj,norm}, blocks.N.{norm1,attn.{bias_table,qkv,proj},norm2,mlp.{fc1,fc2}} over
all stages, merges.S.{norm,reduction}, norm}, head {conv}.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from math import isqrt

import torch
from torch import Tensor

from c2ftool.models.layout import RelativeTable, image_of
from c2ftool.models.public.account import (
    LAYER,
    Adapted,
    Pair,
    Report,
    Sorting,
    State,
    depth,
    known_size,
    patch_of,
    renamed_layer,
    tensors_of,
)
from c2ftool.models.public.cnn14 import BATCH_NORM, about_front_end, front_end_constants
from c2ftool.models.swin import relative_index, shift_mask
from c2ftool.spec.backbones import Swin
from c2ftool.spec.frontends import PANNS

PREFIX = "sed_model."
_WINDOW = Swin().window
_FREQUENCY = 16  # patches over the mel axis of every published file
_TABLE = "attn.bias_table"
_PUBLISHED_TABLE = "attn.relative_position_bias_table"
_KERNEL = "patch_embed.proj.weight"
_PLAIN = ("patch_embed.proj", "patch_embed.norm", "norm")
_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_BLOCK = re.compile(r"layers\.(\d{1,2})\.blocks\.(\d{1,3})\.(.+)")
_MERGE = re.compile(r"layers\.(\d{1,2})\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")

_DERIVED = "constants that follow from the image's size"
_UNUSED = "a layer that HTS-AT never uses"
_IMAGENET = "ImageNet's classes, which HTS-AT does not use"


def is_htsat(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published HTS-AT file, with `sed_model.` or without."""
    names = {name.removeprefix(PREFIX) for name in tensors}
    return {f"layers.0.blocks.0.{_PUBLISHED_TABLE}", "bn0.weight"} <= names


def is_swin(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published Swin Transformer (the first version) for images."""
    return {f"layers.0.blocks.0.{_PUBLISHED_TABLE}", _KERNEL} <= tensors.keys() and "bn0.weight" not in tensors


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors of HTS-AT or Swin under our names, with an account of every one of them.

    Of Swin's: the kernel is the mean over the three colours, the grid is the one that makes the image that it was
    trained on, and the batch norm over mel bands, which images have none of, is as it is before any training. Never
    raises: read the report.
    """
    image = is_swin(tensors)
    short = {name: name if image else name.removeprefix(PREFIX) for name in tensors}
    first = _first_blocks(short.values())
    sorting = Sorting()
    for name, tensor in tensors.items():
        if why := _why_ignored(short[name], tensor, image):
            sorting.ignored[name] = why
            continue
        if image and short[name] == _KERNEL and tensor.dim() == 4:
            tensor = tensor.float().mean(1, keepdim=True)
        sorting.place(name, *_place(short[name], first), tensor)
    backbone, head = sorting.parts["backbone"], sorting.parts["head"]
    notes = []
    if image:
        backbone |= _fresh_norm()
        notes.append("its batch norm over mel bands starts afresh")
    grid = grid_of(backbone, first)
    if grid is None:
        notes.append("its grid of tokens is not known: the tables of its stages are of no square image")
    norm = backbone.get("patch_embed.norm.weight")
    report = Report(
        layout="Swin (ImageNet)" if image else "HTS-AT" if head else "HTS-AT without its head",
        backbone=known_size("htsat", norm.shape[0] if norm is not None and norm.dim() else 0, depth(backbone)),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({"backbone": _expected(first), "head": tensors_of(["conv"]) if head else set()}),
        notes=tuple(notes),
    )
    return Adapted(backbone, head, {}, {}, report, grid, patch_of(backbone, mel_first=True))


def _why_ignored(name: str, tensor: Tensor, image: bool) -> str | None:
    """Why a tensor is left aside; None where it is not."""
    if name.endswith((".attn_mask", ".attn.relative_position_index")) and _BLOCK.fullmatch(name):
        return _DERIVED
    if name in ("head.weight", "head.bias"):
        return _IMAGENET if image else _UNUSED
    return about_front_end(name, tensor)


def _first_blocks(names: Iterable[str]) -> list[int]:
    """The number among all blocks of each stage's first block; at the end, how many blocks there are."""
    depths: dict[int, int] = {}
    for match in filter(None, map(_BLOCK.fullmatch, names)):
        stage, place = int(match[1]), int(match[2])
        depths[stage] = max(depths.get(stage, 0), place + 1)
    return [sum(depths.get(s, 0) for s in range(stage)) for stage in range(max(depths, default=-1) + 2)]


def _place(name: str, first: list[int]) -> tuple[str, str | None]:
    """(part, our name) of a published tensor; None if it has no place."""
    if match := _BLOCK.fullmatch(name):
        ours = _TABLE if match[3] == _PUBLISHED_TABLE else match[3]
        layer = LAYER.fullmatch(ours)
        known = ours == _TABLE != match[3] or (layer is not None and layer[1] in _LAYERS)
        return "backbone", f"blocks.{first[int(match[1])] + int(match[2])}.{ours}" if known else None
    if match := _MERGE.fullmatch(name):
        return "backbone", f"merges.{int(match[1])}.{match[2]}"
    if name.startswith("bn0.") and name.removeprefix("bn0.") in BATCH_NORM:
        return "backbone", name
    layer = LAYER.fullmatch(name)
    if layer and layer[1] == "tscam_conv":
        return "head", f"conv.{layer[2]}"
    return "backbone", name if layer and layer[1] in _PLAIN else None


def _expected(first: list[int]) -> set[str]:
    """The names that a backbone of these stages must have."""
    stages, blocks = max(1, len(first) - 1), range(first[-1])
    names = tensors_of([*_PLAIN, *(f"blocks.{n}.{layer}" for n in blocks for layer in _LAYERS)])
    names |= {f"bn0.{kind}" for kind in BATCH_NORM} | {f"blocks.{n}.{_TABLE}" for n in blocks}
    for stage in range(stages - 1):
        names |= tensors_of([f"merges.{stage}.norm"]) | {f"merges.{stage}.reduction.weight"}
    return names


def _fresh_norm() -> State:
    """A batch norm over the published mel bands that has seen nothing."""
    fresh = torch.nn.BatchNorm1d(PANNS.mels).state_dict()
    return {f"bn0.{kind}": fresh[kind] for kind in BATCH_NORM}


def grid_of(backbone: Mapping[str, Tensor], first: list[int]) -> Pair | None:
    """(time, frequency) of the patches that the tables of all stages are made for; None if there is no such grid.

    The image is taken to be square, as in the public code, and its last stage to be one window.
    """
    last = backbone.get(f"blocks.{first[-1] - 1}.{_TABLE}")
    window = (isqrt(last.shape[0]) + 1) // 2 if last is not None and last.dim() else 0
    if not 0 < window <= _WINDOW or window & (window - 1):
        return None
    side = window << (len(first) - 2)
    grid = (side * side // _FREQUENCY, _FREQUENCY)
    return grid if _tables_fit(backbone, first, grid) else None


def _tables_fit(backbone: Mapping[str, Tensor], first: list[int], grid: Pair) -> bool:
    """Whether the image of these patches is square and every table of bias is that of its windows."""
    height, width, _ = image_of(grid)
    if height != width:
        return False
    for stage, (start, end) in enumerate(itertools.pairwise(first)):
        along_time, along_mel = RelativeTable(stage, _WINDOW).sides(grid)
        tables = [backbone.get(f"blocks.{n}.{_TABLE}") for n in range(start, end)]
        if any(t is None or t.dim() != 2 or t.shape[0] != along_time * along_mel for t in tables):
            return False
    return True


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor], grid: Pair = (256, 16)) -> State:
    """The value of `state_dict` in the published file: names, shapes and order as published, constants computed.

    grid: (time, frequency) of the patches that the weights are made for; those of 10 s if not given. The unused `head`
    is zeros. Raises KeyError where a tensor is missing, ValueError where the image is not square, which the public code
    cannot build, or the weights are of another one.
    """
    widths = [backbone[f"blocks.{n}.norm1.weight"].shape[0] for n in range(depth(backbone))]
    first = [n for n, width in enumerate(widths) if n == 0 or width != widths[n - 1]] + [len(widths)]
    if not _tables_fit(backbone, first, grid):
        raise ValueError(
            f"the published layout has no weights of {grid[1]} x {grid[0]} patches such as these: it is of square "
            "images; train with frontend.frames=1001 (short clips: frontend.pad=repeat)"
        )
    public = front_end_constants() | {f"bn0.{kind}": backbone[f"bn0.{kind}"] for kind in BATCH_NORM}
    for layer in _PLAIN[:2]:
        public |= renamed_layer(layer, backbone, layer)
    for stage, (start, end) in enumerate(itertools.pairwise(first)):
        for place in range(end - start):
            published, ours = f"layers.{stage}.blocks.{place}", f"blocks.{start + place}"
            public |= _public_block(published, ours, backbone, stage, place % 2 == 1, grid)
        if end < len(widths):
            public[f"layers.{stage}.downsample.reduction.weight"] = backbone[f"merges.{stage}.reduction.weight"]
            public |= renamed_layer(f"layers.{stage}.downsample.norm", backbone, f"merges.{stage}.norm")
    public |= renamed_layer("norm", backbone, "norm") | renamed_layer("tscam_conv", head, "conv")
    classes = head["conv.bias"].shape[0]
    public |= {"head.weight": torch.zeros(classes, classes), "head.bias": torch.zeros(classes)}
    return {PREFIX + name: tensor for name, tensor in public.items()}


def _public_block(
    published: str, ours: str, backbone: Mapping[str, Tensor], stage: int, moved: bool, grid: Pair
) -> State:
    """A block under its published name, with its constants. moved: whether its windows are."""
    height, width, _ = image_of(grid)
    image, side = (height >> stage, width >> stage), RelativeTable(stage, _WINDOW).window(grid)
    public: State = {}
    if moved and min(image) > _WINDOW:
        public[f"{published}.attn_mask"] = shift_mask(image, side, side // 2)
    public |= renamed_layer(f"{published}.norm1", backbone, f"{ours}.norm1")
    public[f"{published}.{_PUBLISHED_TABLE}"] = backbone[f"{ours}.{_TABLE}"]
    public[f"{published}.attn.relative_position_index"] = relative_index(side)
    for layer in _LAYERS[1:]:
        public |= renamed_layer(f"{published}.{layer}", backbone, f"{ours}.{layer}")
    return public
