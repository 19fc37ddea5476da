"""timm's distilled DeiT (ImageNet) under our names: what AST starts from (Gong et al., Interspeech 2021, section 2.2).

Names: cls_token, dist_token, pos_embed, patch_embed.proj, blocks.N..., norm, and the classifiers head, head_dist. Body
names are the same here; an AST file has them behind `v.`. Height of the image is the mel axis, width is time: position
2 + h * W + w is 2 + f * T + t.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

from torch import Tensor

from c2ftool.models.public.account import (
    BLOCK,
    LAYER,
    Adapted,
    Pair,
    Report,
    Sorting,
    block_layers,
    cls_width,
    depth,
    known_size,
    patch_of,
    tensors_of,
)

PREFIX = 2  # tokens in front of the patches: class, distillation
UNUSED_HEADS = ("head", "head_dist")
NOT_USED = "ImageNet's classes, which AST does not use"
_TOKENS = ("cls_token", "pos_embed", "dist_token")
_KERNEL = "patch_embed.proj.weight"


def is_deit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a distilled DeiT of timm."""
    return {*_TOKENS, _KERNEL} <= tensors.keys()


def is_plain_vit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of timm's vision transformers without a distillation token."""
    return {"pos_embed", _KERNEL} <= tensors.keys() and "dist_token" not in tensors


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """ImageNet weights as an AST's, with an account of every one of them. Never raises: read the report.

    The kernel is summed over the three colours, as AST does; the grid is the image's, square.
    """
    sorting = Sorting()
    for name, tensor in tensors.items():
        if is_unused_head(name):
            sorting.ignored[name] = NOT_USED
        else:
            coloured = name == _KERNEL and tensor.dim() == 4
            sorting.place(
                name, "backbone", body_name(name), tensor.float().sum(1, keepdim=True) if coloured else tensor
            )
    backbone = sorting.parts["backbone"]
    rows = patch_rows(backbone)
    side = isqrt(rows)
    square = side > 0 and side * side == rows
    report = Report(
        layout="distilled DeiT (ImageNet)",
        backbone=known_size("ast", cls_width(backbone), depth(backbone)),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({"backbone": body_tensors(backbone)}),
        notes=() if square else (f"its {rows} positions are no square grid",),
    )
    grid: Pair | None = (side, side) if square else None
    return Adapted(backbone, {}, {}, {}, report, grid, patch_of(backbone, mel_first=True))


def body_name(name: str) -> str | None:
    """Our name of a tensor of the body, which is the same; None if it is none of them."""
    match = LAYER.fullmatch(name)
    known = name in _TOKENS or (match and (match[1] in ("patch_embed.proj", "norm") or BLOCK.fullmatch(match[1])))
    return name if known else None


def is_unused_head(name: str) -> bool:
    """Whether a tensor belongs to the ImageNet classifiers."""
    match = LAYER.fullmatch(name)
    return match is not None and match[1] in UNUSED_HEADS


def body_tensors(backbone: Mapping[str, Tensor]) -> set[str]:
    """The names that a body of this depth must have."""
    return {*_TOKENS} | tensors_of(["patch_embed.proj", "norm", *block_layers(backbone)])


def patch_rows(backbone: Mapping[str, Tensor]) -> int:
    """The rows of the table of positions that belong to patches; 0 where there is no such table."""
    table = backbone.get("pos_embed")
    return max(0, table.shape[1] - PREFIX) if table is not None and table.dim() == 3 else 0
