"""EAT's published tensors under our names, and back (public code: cwx-worst-one/EAT, models/).

Three layouts are read:

    pre-trained   modality_encoders.IMAGE.{extra_tokens, local_encoder.proj, fixed_positional_encoder.positions,
                  context_encoder.norm, decoder.blocks.N.0, decoder.proj}, blocks.N..., and a nested `_ema` (the
                  teacher: the same names without the decoder)
    fine-tuned    the same behind `model.`, without decoder and `_ema`; beside it fc_norm, head
    transformers  (the authors' Hugging Face version) model.{extra_tokens, local_encoder.proj,
                  fixed_positional_encoder.positions, pre_norm, blocks.N..., fc_norm, head}

Our names: backbone {patch_embed.proj, cls_token, norm_pre, blocks.N...}, head {norm, fc}, decoder {blocks.N.conv,
proj}. The table of positions is a constant: it is recomputed, not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from c2ftool.models.positions import MAX_TIME, sincos_2d
from c2ftool.models.public.account import (
    BLOCK,
    LAYER,
    Adapted,
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

_IMAGE = "modality_encoders.IMAGE."
_POSITIONS = "fixed_positional_encoder.positions"
_FREQUENCY = 8  # tokens over 128 mels: what the published table is made for
# Published stem -> ours, within the backbone. `.weight` and `.bias` follow where a stem is a layer.
_BACKBONE = {
    "extra_tokens": "cls_token",
    "local_encoder.proj": "patch_embed.proj",
    "context_encoder.norm": "norm_pre",
}
_TRANSFORMERS = {"pre_norm": "norm_pre"}
_HEAD = {"fc_norm": "norm", "head": "fc"}
_DECODER_BLOCK = re.compile(r"decoder\.blocks\.(\d{1,3})\.0")


def is_eat(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published EAT file."""
    return any(name.endswith("extra_tokens") for name in tensors)


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = Sorting()
    image = any(_IMAGE in name for name in tensors)
    for name, tensor in tensors.items():
        part, ours = _place(name)
        if ours == _POSITIONS:
            sorting.ignored[name] = _about_positions(tensor)
        else:
            sorting.place(name, part, ours, tensor)
    parts = sorting.parts
    kind = "fine-tuned EAT" if parts["head"] else "pre-trained EAT"
    report = Report(
        layout=kind if image else f"{kind} (transformers names)",
        backbone=known_size("eat", cls_width(parts["backbone"]), depth(parts["backbone"])),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({part: _expected(part, found) for part, found in parts.items()}),
    )
    patch = patch_of(parts["backbone"], mel_first=False)
    return Adapted(parts["backbone"], parts["head"], parts["decoder"], parts["teacher"], report, patch=patch)


def _place(name: str) -> tuple[str, str | None]:
    """(part, our name) of a published tensor; None if it has no place."""
    part = "backbone"
    if name.startswith("_ema."):
        part, name = "teacher", name.removeprefix("_ema.")
    name = name.removeprefix("module.").removeprefix("model.").removeprefix(_IMAGE)
    if name in (_POSITIONS, "extra_tokens"):
        return part, _BACKBONE.get(name, name)
    match = LAYER.fullmatch(name)
    if match is None:
        return part, None
    stem, kind = match.groups()
    if stem in _HEAD and part == "backbone":
        return "head", f"{_HEAD[stem]}.{kind}"
    if stem == "decoder.proj" and part == "backbone":
        return "decoder", f"proj.{kind}"
    if (block := _DECODER_BLOCK.fullmatch(stem)) and part == "backbone":
        return "decoder", f"blocks.{block[1]}.conv.{kind}"
    ours = stem if BLOCK.fullmatch(stem) else (_BACKBONE | _TRANSFORMERS).get(stem)
    return part, None if ours is None or ours == "cls_token" else f"{ours}.{kind}"


def _about_positions(table: Tensor) -> str:
    """Why a stored table of positions is left aside; says so if it is not the one that is computed instead."""
    shape = list(table.shape)
    if (
        len(shape) != 3
        or not table.numel()
        or shape[2] % 4
        or shape[1] % _FREQUENCY
        or not 0 < shape[1] <= MAX_TIME * _FREQUENCY
    ):
        return f"positions are recomputed; the file's table has another shape, {shape}"
    own = sincos_2d(shape[1] // _FREQUENCY, _FREQUENCY, shape[2], torch.device("cpu"))
    difference = float((own - table[0].float()).abs().max())
    if difference > 2e-3:  # half precision keeps 1 to 5e-4
        return f"positions are recomputed; the file's table differs by up to {difference:.2g}"
    return "positions are recomputed"


def _expected(part: str, found: State) -> set[str]:
    """The names that a part must have, given its depth; none for a part that is not there (a backbone always is)."""
    if not found and part != "backbone":
        return set()
    if part == "head":
        layers = list(_HEAD.values())
    elif part == "decoder":
        layers = [f"blocks.{n}.conv" for n in range(depth(found))] + ["proj"]
    else:
        layers = ["patch_embed.proj", "norm_pre", *block_layers(found)]
    return tensors_of(layers) | ({"cls_token"} if part in ("backbone", "teacher") else set())


def to_public(
    backbone: Mapping[str, Tensor],
    *,
    head: Mapping[str, Tensor] | None = None,
    decoder: Mapping[str, Tensor] | None = None,
    teacher: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The value of `model` in the published file: names, shapes, nesting and order as published.

    With a head: the fine-tuned layout (behind `model.`, no decoder, no teacher). Without: the pre-trained one, with the
    decoder's tensors and the nested `_ema` where they are given. Raises KeyError where a tensor is missing.
    """
    if head:
        body = {f"model.{name}": tensor for name, tensor in _public_body(backbone, None).items()}
        for published, ours in _HEAD.items():
            body |= renamed_layer(published, head, ours)
        return body
    body = _public_body(backbone, decoder)
    return body | {"_ema": _public_body(teacher, None)} if teacher else body


def _public_body(backbone: Mapping[str, Tensor], decoder: Mapping[str, Tensor] | None) -> dict[str, Any]:
    cls = backbone["cls_token"]
    table = sincos_2d(MAX_TIME, _FREQUENCY, cls.shape[-1], torch.device("cpu"))
    public: dict[str, Any] = {f"{_IMAGE}extra_tokens": cls}
    public |= renamed_layer(f"{_IMAGE}local_encoder.proj", backbone, "patch_embed.proj")
    public[_IMAGE + _POSITIONS] = table[None].clone()
    public |= renamed_layer(f"{_IMAGE}context_encoder.norm", backbone, "norm_pre")
    if decoder:
        for n in range(depth(decoder)):
            public |= renamed_layer(f"{_IMAGE}decoder.blocks.{n}.0", decoder, f"blocks.{n}.conv")
        public |= renamed_layer(f"{_IMAGE}decoder.proj", decoder, "proj")
    for layer in block_layers(backbone):
        public |= renamed_layer(layer, backbone, layer)
    return public
