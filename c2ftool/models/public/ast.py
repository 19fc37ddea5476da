"""AST's published tensors under our names, and back (public code: YuanGongND/ast, src/models/ast_models.py).

A file is a flat state dictionary behind `module.`: the distilled DeiT's body behind `v.` with its ImageNet classifiers
(v.head, v.head_dist), which are never used, and mlp_head.{0,1}, the LayerNorm and the linear layer of AST's own head.

Our names: backbone {cls_token, dist_token, pos_embed, patch_embed.proj, blocks.N..., norm}, head {norm, fc}. In both,
kernels are (D, 1, mel, time) and rows of positions mel-major (2 + f * T + t).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from c2ftool.models.public.account import (
    LAYER,
    Adapted,
    Pair,
    Report,
    Sorting,
    State,
    block_layers,
    cls_width,
    depth,
    known_size,
    patch_of,
    renamed_layer,
    tensors_of,
)
from c2ftool.models.public.deit import (
    NOT_USED,
    UNUSED_HEADS,
    body_name,
    body_tensors,
    is_unused_head,
    patch_rows,
)

HEAD = {"mlp_head.0": "norm", "mlp_head.1": "fc"}
_IMAGENET_CLASSES = 1000
_MELS = 128  # of every published AST
# Patches of the table of positions -> (time, frequency), of 16 x 16 patches: strides 10, 12, 14, 16 at 1024 frames,
# and stride 10 at the 128 frames of Speech Commands.
_PUBLISHED = {1212: (101, 12), 850: (85, 10), 657: (73, 9), 512: (64, 8), 144: (12, 12)}
_STRIDES = (16, 14, 12, 10)  # sixteenths of a patch


def is_ast(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published AST file, with `module.` or without."""
    return {"v.pos_embed", "v.dist_token"} <= {name.removeprefix("module.") for name in tensors}


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = Sorting()
    for name, tensor in tensors.items():
        short = name.removeprefix("module.")
        body = short.removeprefix("v.")
        if body != short and is_unused_head(body):
            sorting.ignored[name] = NOT_USED
        elif body != short:
            sorting.place(name, "backbone", body_name(body), tensor)
        else:
            sorting.place(name, "head", _head_name(short), tensor)
    backbone, head = sorting.parts["backbone"], sorting.parts["head"]
    patch = patch_of(backbone, mel_first=True)
    grid, note = grid_of(patch_rows(backbone), patch)
    report = Report(
        layout="AST" if head else "AST without its head",
        backbone=known_size("ast", cls_width(backbone), depth(backbone)),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing(
            {"backbone": body_tensors(backbone), "head": tensors_of(HEAD.values()) if head else set()}
        ),
        notes=(note,) if note else (),
    )
    return Adapted(backbone, head, {}, {}, report, grid, patch)


def _head_name(name: str) -> str | None:
    match = LAYER.fullmatch(name)
    return f"{HEAD[match[1]]}.{match[2]}" if match and match[1] in HEAD else None


def grid_of(rows: int, patch: Pair | None) -> tuple[Pair | None, str]:
    """((time, frequency) of so many positions of patches, a sentence where it is not known).

    Tables as published have their grid on record. Any other is that of 128 mel bands and the one stride, of those that
    were published or without overlap, that divides it; a table that several would divide has no known grid.
    """
    if patch == (16, 16) and rows in _PUBLISHED:
        return _PUBLISHED[rows], ""
    if not rows or patch is None or not 0 < patch[1] <= _MELS:
        return None, "its grid of tokens is not known: there is no table of positions or no patch kernel"
    steps = {patch[1] * sixteenths // 16 for sixteenths in _STRIDES} - {0}
    counts = sorted({(_MELS - patch[1]) // step + 1 for step in steps})
    grids = [(rows // count, count) for count in counts if rows % count == 0]
    if len(grids) == 1:
        return grids[0], ""
    found = " or ".join(f"{frequency} x {time}" for time, frequency in grids) or "none of the known ones"
    return None, f"its grid of tokens is not known: {rows} positions are {found} (mel x time)"


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> State:
    """An AST in the published layout: names, shapes and order as published.

    The ImageNet classifiers, which we do not keep and AST never uses, are written as zeros: without them a strict
    `load_state_dict` of the published model would refuse the file. Raises KeyError where a tensor is missing.
    """
    public = public_body(backbone)
    for published, ours in HEAD.items():
        public |= renamed_layer(f"module.{published}", head, ours)
    return public


def public_body(backbone: Mapping[str, Tensor]) -> State:
    """The body under its published names, the unused ImageNet classifiers with it; KeyError for a missing tensor."""
    body: State = {name: backbone[name] for name in ("cls_token", "pos_embed", "dist_token")}
    for layer in ("patch_embed.proj", *block_layers(backbone), "norm"):
        body |= renamed_layer(layer, backbone, layer)
    width = body["cls_token"].shape[-1]
    for unused in UNUSED_HEADS:
        body[f"{unused}.weight"] = torch.zeros(_IMAGENET_CLASSES, width)
        body[f"{unused}.bias"] = torch.zeros(_IMAGENET_CLASSES)
    return {f"module.v.{name}": tensor for name, tensor in body.items()}
