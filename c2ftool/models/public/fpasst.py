"""fPaSST's published tensors under our names, and back; and the distilled DeiT (ImageNet) that it starts from.

A file (Schmid et al., ICASSP 2025; models/frame_passt/) has the encoder behind `model.`, then the heads:

    cls_token, dist_token, new_pos_embed (1, 2, D), freq_new_pos_embed (1, D, 1, 1), time_new_pos_embed (1, D, 1, T),
    conv_in_{1,2,3}, patch_embed.proj, blocks.N..., norm

Our names: backbone {cls_token, dist_token, prefix_pos, freq_pos (1, 1, D), time_pos (1, T, D), stem.{0,1,2},
patch_embed.proj, blocks.N..., norm}, head {strong, weak, rnn.*}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

import torch.nn.functional as F
from torch import Tensor

from c2ftool.models.public import sed
from c2ftool.models.public.account import Adapted, State, block_layers, renamed_layer
from c2ftool.models.public.deit import NOT_USED, UNUSED_HEADS

_PUBLIC = "model."
_TOKENS = ("cls_token", "dist_token")
_TABLES = {"new_pos_embed": "prefix_pos", "freq_new_pos_embed": "freq_pos", "time_new_pos_embed": "time_pos"}
_STEM = {f"conv_in_{place + 1}": f"stem.{place}" for place in range(3)}
_KERNEL = "patch_embed.proj.weight"
_ENCODER = sed.Encoder(
    family="fpasst",
    label="fPaSST",
    prefixes=("model.fpasst.", _PUBLIC, ""),
    layers={**_STEM, "patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    single={**{name: name for name in _TOKENS}, **_TABLES},
    ignored={},
    passed={},
)
_DEIT = replace(
    _ENCODER,
    label="distilled DeiT (ImageNet) for fPaSST",
    prefixes=("",),
    layers={"patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    single={**{name: name for name in _TOKENS}, "pos_embed": "prefix_pos"},
    ignored={f"{head}.{kind}": NOT_USED for head in UNUSED_HEADS for kind in ("weight", "bias")},
)
_AFRESH = "the three convolutions before it start afresh"
_STEPS = 250  # of 40 ms, in 10 s
_CHANNELS, _MELS, _LENGTH = 16, 128, 2  # of the patch kernel


def is_fpasst(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published fPaSST file."""
    short = {_ENCODER.short(name) for name in tensors}
    return {"conv_in_1.weight", "time_new_pos_embed"} <= short


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = sed.sort(tensors, _ENCODER, _converted)
    backbone = sorting.parts["backbone"]
    return sed.adapted(sorting, _ENCODER, _ENCODER.tensors(block_layers(backbone)), _grid(backbone), None)


def _converted(ours: str, tensor: Tensor) -> Tensor:
    """A published tensor in our shape; as it is where it has not the published one."""
    if ours in ("freq_pos", "time_pos") and tensor.dim() == 4 and tensor.shape[2] == 1:
        return tensor[:, :, 0].transpose(1, 2).contiguous()
    return tensor


def _grid(backbone: Mapping[str, Tensor]) -> tuple[int, int] | None:
    count = sed.rows(backbone, "time_pos", 0)
    return (count, 1) if count else None


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> State:
    """An fPaSST in the published layout: names, shapes and order as published.

    The published network has 250 positions; those of another number are written as they are. Raises KeyError where a
    tensor is missing.
    """
    body: State = {name: backbone[name] for name in _TOKENS}
    for published, ours in _TABLES.items():
        table = backbone[ours]
        body[published] = table if ours == "prefix_pos" else table.transpose(1, 2)[:, :, None].contiguous()
    for published, ours in _STEM.items():
        body |= renamed_layer(published, backbone, ours)
    for layer in ("patch_embed.proj", *block_layers(backbone), "norm"):
        body |= renamed_layer(layer, backbone, layer)
    return {f"{_PUBLIC}{name}": tensor for name, tensor in body.items()} | sed.public_head(head or {})


def from_deit(tensors: Mapping[str, Tensor]) -> Adapted:
    """A distilled DeiT's tensors (names as timm's) as fPaSST starts from them. Never raises: read the report.

    The square table of positions is resized to one row of 250 steps; its mean is what all steps share, and is added to
    them besides, as published. The kernel's colours are repeated to 16 channels, and its 16 x 16 places are those of
    128 x 2. The stem is in no such file: it is not missing, but starts afresh.
    """
    sorting = sed.sort(tensors, _DEIT)
    backbone = sorting.parts["backbone"]
    faults = [fault for fault in (_fit_positions(backbone), _fit_kernel(backbone)) if fault]
    expected = {*_DEIT.single.values(), *_TABLES.values()} | _DEIT.tensors(block_layers(backbone))
    return sed.adapted(sorting, _DEIT, expected, _grid(backbone), None, _AFRESH, *faults)


def _fit_positions(backbone: State) -> str:
    """Cut the positions up in place; what is wrong with them, if anything."""
    side = isqrt(sed.rows(backbone, "prefix_pos", len(_TOKENS)))
    table = backbone.get("prefix_pos")
    if table is None or not side or tuple(table.shape[:2]) != (1, len(_TOKENS) + side * side):
        return "its positions are no square grid"
    square = table[:, len(_TOKENS) :].transpose(1, 2).unflatten(2, (side, side))
    row = F.interpolate(square, size=(1, _STEPS), mode="bicubic", align_corners=False)
    backbone["prefix_pos"] = table[:, : len(_TOKENS)].contiguous()
    backbone["freq_pos"] = row.mean(3).transpose(1, 2).contiguous()
    backbone["time_pos"] = row[:, :, 0].transpose(1, 2).contiguous()
    return ""


def _fit_kernel(backbone: State) -> str:
    """Repeat the kernel's colours in place; what is wrong with it, if anything."""
    kernel = backbone.get(_KERNEL)
    if kernel is None or kernel.dim() != 4 or tuple(kernel.shape[1:]) != (3, 16, 16):
        return "its patch kernel is not one of 16 x 16 in three colours"
    repeated = kernel.repeat(1, -(-_CHANNELS // 3), 1, 1)[:, :_CHANNELS] * (3 / _CHANNELS)
    backbone[_KERNEL] = repeated.reshape(-1, _CHANNELS, _MELS, _LENGTH)
    return ""
