"""SSAST's published tensors under our names, and back (public code: YuanGongND/ssast, src/models/ast_models.py).

A pre-trained file is a flat state dictionary behind `module.`: AST's body and unused ImageNet classifiers behind `v.`,
mask_embed, the two heads cpredlayer.{0,2} and gpredlayer.{0,2}, and p_input_fdim, p_input_tdim, the mel bands and
frames it was trained on, as whole numbers. A fine-tuned file has AST's names (v.*, mlp_head.{0,1}) and nothing else:
it is read and written as an AST's, and its clips are the mean of the patches, not of the two tokens.

Our names: backbone as AST's, decoder {mask_token, discriminative.{0,2}, generative.{0,2}}, head {norm, fc}.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from c2ftool.models.public import ast
from c2ftool.models.public.account import (
    LAYER,
    Adapted,
    Pair,
    Report,
    Sorting,
    State,
    cls_width,
    depth,
    patch_of,
    renamed_layer,
    tensors_of,
)
from c2ftool.models.public.deit import (
    NOT_USED,
    body_name,
    body_tensors,
    is_unused_head,
    patch_rows,
)
from c2ftool.spec.backbones import BACKBONES

_DECODER = {
    "cpredlayer.0": "discriminative.0",
    "cpredlayer.2": "discriminative.2",
    "gpredlayer.0": "generative.0",
    "gpredlayer.2": "generative.2",
}
_MELS, _FRAMES = "p_input_fdim", "p_input_tdim"
_INPUT = (_MELS, _FRAMES)
_INPUT_READ = "the size of the input, by which the grid of tokens is told"
_FRAME_MELS = 128  # of a patch of the frame variant


def is_ssast(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a pre-trained SSAST file, with `module.` or without.

    To be asked before `is_ast`, which takes it for an AST's.
    """
    return {"v.pos_embed", "mask_embed"} <= {name.removeprefix("module.") for name in tensors}


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = Sorting()
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("module.")
        body = short.removeprefix("v.")
        if short in _INPUT and short not in sizes:
            sizes[short] = _whole(tensor)
            sorting.ignored[name] = _INPUT_READ
        elif body != short and is_unused_head(body):
            sorting.ignored[name] = NOT_USED
        elif body != short:
            sorting.place(name, "backbone", body_name(body), tensor)
        else:
            sorting.place(name, *_place(short), tensor)
    backbone, head, decoder = (sorting.parts[part] for part in ("backbone", "head", "decoder"))
    patch = patch_of(backbone, mel_first=True)
    grid, note = _grid(backbone, patch, sizes)
    report = Report(
        layout="SSAST" if decoder else "fine-tuned SSAST",
        backbone=_size(backbone, patch),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing(
            {
                "backbone": body_tensors(backbone),
                "head": tensors_of(ast.HEAD.values()) if head else set(),
                "decoder": tensors_of(_DECODER.values()) | {"mask_token"} if decoder else set(),
            }
        ),
        notes=(note,) if note else (),
    )
    return Adapted(backbone, head, decoder, {}, report, grid, patch)


def _place(name: str) -> tuple[str, str | None]:
    """(part, our name) of a published tensor beside the body; None if it has no place."""
    if name == "mask_embed":
        return "decoder", "mask_token"
    match = LAYER.fullmatch(name)
    if match is None:
        return "decoder", None
    part, layers = ("head", ast.HEAD) if match[1] in ast.HEAD else ("decoder", _DECODER)
    return part, f"{layers[match[1]]}.{match[2]}" if match[1] in layers else None


def _whole(tensor: Tensor) -> int:
    """The value of a whole number as stored; 0 where it is none."""
    return int(tensor.item()) if tensor.numel() == 1 and not tensor.is_floating_point() else 0


def _grid(backbone: State, patch: Pair | None, sizes: Mapping[str, int]) -> tuple[Pair | None, str]:
    """((time, frequency) of the table of positions, a sentence where the input's size does not tell it)."""
    rows = patch_rows(backbone)
    if patch is not None and 0 not in patch:
        grid = (sizes.get(_FRAMES, 0) // patch[0], sizes.get(_MELS, 0) // patch[1])
        if rows and grid[0] * grid[1] == rows:
            return grid, ""
    found, note = ast.grid_of(rows, patch)
    said = " x ".join(str(sizes.get(name, "unknown")) for name in _INPUT)
    return found, note or f"its {rows} positions are not those of an input of {said} (mel x time)"


def _size(backbone: State, patch: Pair | None) -> str | None:
    """The backbone of ours; of the two kinds, that of frames has a kernel over all mel bands."""
    frame = patch is not None and patch[1] == _FRAME_MELS
    wanted = ("ssast", cls_width(backbone), depth(backbone), frame)
    sizes = BACKBONES.values()
    return next((b.name for b in sizes if (b.family, b.width, b.depth, b.patch[1] == _FRAME_MELS) == wanted), None)


def to_public(
    backbone: Mapping[str, Tensor],
    head: Mapping[str, Tensor] | None,
    *,
    decoder: Mapping[str, Tensor] | None = None,
    grid: Pair | None = None,
) -> State:
    """An SSAST in the published layout: names, shapes and order as published.

    With a head: the fine-tuned layout, which is AST's. Without: the pre-trained one, for which the decoder and the
    grid of tokens, (time, frequency), must be given. The ImageNet classifiers, which we do not keep and SSAST never
    uses, are written as zeros. Raises KeyError where a tensor is missing, ValueError without a grid.
    """
    if head:
        return ast.to_public(backbone, head)
    patch = patch_of(backbone, mel_first=True)
    if grid is None or patch is None:
        raise ValueError("the pre-trained layout tells the size of the input, and the grid of tokens is not known")
    decoder = decoder or {}
    sizes = {_MELS: grid[1] * patch[1], _FRAMES: grid[0] * patch[0]}
    public: State = {f"module.{name}": torch.tensor(sizes[name]) for name in _INPUT}
    public["module.mask_embed"] = decoder["mask_token"]
    public |= ast.public_body(backbone)
    for published, ours in _DECODER.items():
        public |= renamed_layer(f"module.{published}", decoder, ours)
    return public
