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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from c2ftool.models.positions import MAX_TIME, sincos_2d
from c2ftool.spec.backbones import BACKBONES

State = dict[str, Tensor]

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
_LAYER = re.compile(r"(.+)\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.\d{1,3}\.(?:norm1|attn\.qkv|attn\.proj|norm2|mlp\.fc1|mlp\.fc2)")
_DECODER_BLOCK = re.compile(r"decoder\.blocks\.(\d{1,3})\.0")
_BLOCK_LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Report:
    """What became of every tensor of a file. Names are the file's, but for `missing`, which are ours.

    backbone: the name of the size that the tensors have; None if it is not a known one.
    """

    layout: str
    backbone: str | None
    loaded: list[str]
    ignored: dict[str, str]  # name -> why
    unexpected: list[str]
    missing: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing is missing and nothing was left over."""
        return not (self.unexpected or self.missing)

    def __str__(self) -> str:
        parts = [f"{self.layout}: {len(self.loaded)} tensors loaded"]
        if self.ignored:
            parts.append(f"{len(self.ignored)} ignored ({'; '.join(sorted(set(self.ignored.values())))})")
        for word, names in (("unexpected", self.unexpected), ("missing", self.missing)):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:4])}{more})")
        return ", ".join(parts)


@dataclass(frozen=True)
class Adapted:
    """Published weights under our names, float32. Parts that the file does not have are empty."""

    backbone: State
    head: State
    decoder: State
    teacher: State  # of the backbone
    report: Report


@dataclass
class _Sorting:
    parts: dict[str, State] = field(default_factory=lambda: {p: {} for p in ("backbone", "head", "decoder", "teacher")})
    loaded: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def is_eat(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published EAT file."""
    return any(name.endswith("extra_tokens") for name in tensors)


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = _Sorting()
    image = any(_IMAGE in name for name in tensors)
    for name, tensor in tensors.items():
        part, ours = _place(name)
        if ours == _POSITIONS:
            sorting.ignored[name] = _about_positions(tensor)
        elif ours is None or ours in sorting.parts[part]:
            sorting.unexpected.append(name)
        else:
            sorting.parts[part][ours] = tensor.float()
            sorting.loaded.append(name)
    parts = sorting.parts
    missing = [f"{part}.{name}" for part in parts for name in sorted(_expected(part, parts[part]) - parts[part].keys())]
    kind = "fine-tuned EAT" if parts["head"] else "pre-trained EAT"
    report = Report(
        layout=kind if image else f"{kind} (transformers names)",
        backbone=_size(parts["backbone"]),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=missing,
    )
    return Adapted(parts["backbone"], parts["head"], parts["decoder"], parts["teacher"], report)


def _place(name: str) -> tuple[str, str | None]:
    """(part, our name) of a published tensor; None if it has no place."""
    part = "backbone"
    if name.startswith("_ema."):
        part, name = "teacher", name.removeprefix("_ema.")
    name = name.removeprefix("module.").removeprefix("model.").removeprefix(_IMAGE)
    if name in (_POSITIONS, "extra_tokens"):
        return part, _BACKBONE.get(name, name)
    match = _LAYER.fullmatch(name)
    if match is None:
        return part, None
    stem, kind = match.groups()
    if stem in _HEAD and part == "backbone":
        return "head", f"{_HEAD[stem]}.{kind}"
    if stem == "decoder.proj" and part == "backbone":
        return "decoder", f"proj.{kind}"
    if (block := _DECODER_BLOCK.fullmatch(stem)) and part == "backbone":
        return "decoder", f"blocks.{block[1]}.conv.{kind}"
    ours = stem if _BLOCK.fullmatch(stem) else (_BACKBONE | _TRANSFORMERS).get(stem)
    return part, None if ours is None or ours == "cls_token" else f"{ours}.{kind}"


def _about_positions(table: Tensor) -> str:
    """Why a stored table of positions is left aside; says so if it is not the one that is computed instead."""
    shape = list(table.shape)
    if len(shape) != 3 or shape[2] % 4 or shape[1] % _FREQUENCY or not 0 < shape[1] <= MAX_TIME * _FREQUENCY:
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
        layers = [f"blocks.{n}.conv" for n in range(_depth(found))] + ["proj"]
    else:
        layers = ["patch_embed.proj", "norm_pre", *_block_layers(found)]
    names = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return names | ({"cls_token"} if part in ("backbone", "teacher") else set())


def _size(backbone: State) -> str | None:
    """The known backbone of this width and depth."""
    if "cls_token" not in backbone:
        return None
    shape = tuple(backbone["cls_token"].shape)
    eats = (b for b in BACKBONES.values() if b.family == "eat")
    return next((b.name for b in eats if ((1, 1, b.width), b.depth) == (shape, _depth(backbone))), None)


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)


def _block_layers(backbone: Mapping[str, Tensor]) -> list[str]:
    """The layers of the blocks in the published order."""
    return [f"blocks.{n}.{layer}" for n in range(_depth(backbone)) for layer in _BLOCK_LAYERS]


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
            body |= _layer(published, head, ours)
        return body
    body = _public_body(backbone, decoder)
    return body | {"_ema": _public_body(teacher, None)} if teacher else body


def _layer(published: str, state: Mapping[str, Tensor], ours: str) -> State:
    return {f"{published}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}


def _public_body(backbone: Mapping[str, Tensor], decoder: Mapping[str, Tensor] | None) -> dict[str, Any]:
    cls = backbone["cls_token"]
    table = sincos_2d(MAX_TIME, _FREQUENCY, cls.shape[-1], torch.device("cpu"))
    public: dict[str, Any] = {f"{_IMAGE}extra_tokens": cls}
    public |= _layer(f"{_IMAGE}local_encoder.proj", backbone, "patch_embed.proj")
    public[_IMAGE + _POSITIONS] = table[None].clone()
    public |= _layer(f"{_IMAGE}context_encoder.norm", backbone, "norm_pre")
    if decoder:
        for n in range(_depth(decoder)):
            public |= _layer(f"{_IMAGE}decoder.blocks.{n}.0", decoder, f"blocks.{n}.conv")
        public |= _layer(f"{_IMAGE}decoder.proj", decoder, "proj")
    for layer in _block_layers(backbone):
        public |= _layer(layer, backbone, layer)
    return public
