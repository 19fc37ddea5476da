"""BEATs' published tensors under our names, and back. Two layouts are read:

    original   (microsoft/unilm, beats; {"cfg": .., "model": ..}) patch_embedding, layer_norm, post_extract_proj,
               encoder.{pos_conv.0, layer_norm, layers.N...}; in fine-tuned files predictor
    SED        (fschmid56/PretrainedSED) the same behind `model.model.`; beside it strong_head, weak_head, and in
               teachers' files seq_model.rnn

The gain and direction of the position kernel are called weight_g and weight_v in the one, parametrizations.weight.
original0 and original1 in the other; either is read in both. The bias table is one parameter, stored under every layer.

Our names: backbone {patch_embed.proj, patch_norm, patch_proj, position, norm_pre, relative.table, blocks.N...}, head
{strong, weak, rnn} or {fc}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from c2ftool.models.public import sed
from c2ftool.models.public.account import (
    LAYER,
    Adapted,
    Report,
    Sorting,
    State,
    depth,
    known_size,
    patch_of,
    tensors_of,
)
from c2ftool.spec.backbones import Relative

Layout = Literal["sed", "original"]

SED_PREFIX = "model.model."
_STEM = "patch_embedding.weight"
_TABLE = re.compile(r"encoder\.layers\.(\d{1,3})\.self_attn\.relative_attention_bias\.weight")
_LAYERS = re.compile(r"encoder\.layers\.(\d{1,3})\.(.+)")
_TIED = "one bias table for all layers"
# Published name -> ours. `.weight` and `.bias` follow where a name is that of a layer.
_OUTSIDE = {
    "post_extract_proj": "patch_proj",
    "encoder.layer_norm": "norm_pre",
    "layer_norm": "patch_norm",
}
_NAMED = {
    _STEM: "patch_embed.proj.weight",
    "encoder.pos_conv.0.bias": "position.bias",
    "encoder.pos_conv.0.weight_g": "position.gain",
    "encoder.pos_conv.0.weight_v": "position.direction",
    "encoder.pos_conv.0.parametrizations.weight.original0": "position.gain",
    "encoder.pos_conv.0.parametrizations.weight.original1": "position.direction",
}
_WEIGHT_NORM: dict[Layout, tuple[str, str]] = {
    "sed": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    "original": ("weight_g", "weight_v"),
}
_BLOCK = {
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.q_proj": "attn.q",
    "self_attn.out_proj": "attn.proj",
    "self_attn.grep_linear": "attn.gate",
    "self_attn_layer_norm": "norm1",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "final_layer_norm": "norm2",
}
_SCALE = {"self_attn.grep_a": "attn.gate_scale"}
_PREDICTOR = {"predictor": "fc"}


def is_beats(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published BEATs file."""
    return _prefix(tensors) is not None


def _prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """What stands before the encoder's names; None if there is no BEATs encoder."""
    found = (name.removesuffix(_STEM) for name in tensors if name.endswith(_STEM))
    return next((prefix for prefix in found if f"{prefix}encoder.pos_conv.0.bias" in tensors), None)


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = Sorting()
    prefix = _prefix(tensors) or ""
    tables: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        inside = name.removeprefix(prefix) if name.startswith(prefix) else None
        if inside is not None and _TABLE.fullmatch(inside):
            tables[name] = tensor
        elif inside and (ours := _backbone_name(inside)):
            sorting.place(name, "backbone", ours, tensor)
        else:
            sorting.place(name, "head", sed.head_name(name) or _layer(inside or "", _PREDICTOR), tensor)
    _place_table(sorting, tables)
    backbone, head = sorting.parts["backbone"], sorting.parts["head"]
    report = Report(
        layout=_layout(prefix, head),
        backbone=known_size("beats", _width(backbone), depth(backbone)),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({"backbone": _expected(depth(backbone)), "head": _expected_head(head)}),
    )
    return Adapted(backbone, head, {}, {}, report, patch=patch_of(backbone, mel_first=False))


def _place_table(sorting: Sorting, tables: Mapping[str, Tensor]) -> None:
    """The bias table of the first layer; those of the others are it, or else unexpected."""
    for place, (name, table) in enumerate(tables.items()):
        if place == 0:
            sorting.place(name, "backbone", "relative.table", table)
        elif torch.equal(table, next(iter(tables.values()))):
            sorting.ignored[name] = _TIED
        else:
            sorting.unexpected.append(name)


def _backbone_name(name: str) -> str | None:
    if name in _NAMED:
        return _NAMED[name]
    if match := _LAYERS.fullmatch(name):
        ours = _SCALE.get(match[2]) or _layer(match[2], _BLOCK)
        return f"blocks.{match[1]}.{ours}" if ours else None
    return _layer(name, _OUTSIDE)


def _layer(name: str, names: Mapping[str, str]) -> str | None:
    match = LAYER.fullmatch(name)
    return f"{names[match[1]]}.{match[2]}" if match and match[1] in names else None


def _layout(prefix: str, head: State) -> str:
    if "fc.weight" in head:
        return "fine-tuned BEATs"
    if any(name.startswith("rnn.") for name in head):
        return "BEATs for sound events, a teacher with its recurrent layers"
    return "BEATs for sound events" if head else "pre-trained BEATs"


def _width(backbone: Mapping[str, Tensor]) -> int:
    norm = backbone.get("norm_pre.weight")
    return norm.shape[0] if norm is not None and norm.dim() == 1 else 0


def _expected(blocks: int) -> set[str]:
    layers = [*_OUTSIDE.values(), *(f"blocks.{n}.{layer}" for n in range(blocks) for layer in _BLOCK.values())]
    scales = {f"blocks.{n}.attn.gate_scale" for n in range(blocks)}
    return tensors_of(layers) | scales | set(_NAMED.values()) | {"relative.table"}


def _expected_head(head: State) -> set[str]:
    if not head:
        return set()
    return tensors_of(["fc"]) if "fc.weight" in head else sed.head_tensors(head)


def to_public(
    backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None, *, layout: Layout = "sed"
) -> State:
    """A BEATs in a published layout: names, shapes and order as published. Raises KeyError where a tensor is missing.

    head: in the SED layout strong and weak, with rnn before them for a teacher; in the original one fc. An original
    file holds {"cfg": .., "model": ..}, `original_config` and this.
    """
    gain, direction = (f"encoder.pos_conv.0.{name}" for name in _WEIGHT_NORM[layout])
    body = _renamed("post_extract_proj", "patch_proj", backbone)
    body[_STEM] = backbone["patch_embed.proj.weight"]
    body["encoder.pos_conv.0.bias"] = backbone["position.bias"]
    body |= {gain: backbone["position.gain"], direction: backbone["position.direction"]}
    for block in range(depth(backbone)):
        body |= _public_block(block, backbone)
    body |= _renamed("encoder.layer_norm", "norm_pre", backbone) | _renamed("layer_norm", "patch_norm", backbone)
    if layout == "original":
        return body | (_renamed("predictor", "fc", head) if head else {})
    body = {SED_PREFIX + name: tensor for name, tensor in body.items()}
    return body | sed.public_head(head or {})


def _public_block(block: int, backbone: Mapping[str, Tensor]) -> State:
    """One layer's tensors. In the first layer's attention the table comes second, in that of the others last."""
    published, ours = f"encoder.layers.{block}.", f"blocks.{block}."
    scale, table = f"{published}self_attn.grep_a", f"{published}self_attn.relative_attention_bias.weight"
    body = {scale: backbone[f"{ours}attn.gate_scale"]}
    if block == 0:
        body[table] = backbone["relative.table"]
    for layer, name in _BLOCK.items():
        body |= _renamed(published + layer, ours + name, backbone)
        if block and name == "attn.gate":
            body[table] = backbone["relative.table"]
    return body


def _renamed(published: str, ours: str, state: Mapping[str, Tensor]) -> State:
    return {f"{published}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}


def original_config(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """`cfg` of an original file. The table does not tell the distance from which on all are alike: as published."""
    width, hidden = backbone["norm_pre.weight"].shape[0], backbone["blocks.0.mlp.fc1.weight"].shape[0]
    table, direction = backbone["relative.table"], backbone["position.direction"]
    return {
        "input_patch_size": backbone["patch_embed.proj.weight"].shape[2],
        "embed_dim": backbone["patch_norm.weight"].shape[0],
        "conv_bias": False,
        "encoder_layers": depth(backbone),
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": hidden,
        "encoder_attention_heads": table.shape[1],
        "activation_fn": "gelu",
        "layer_norm_first": False,
        "deep_norm": True,
        "conv_pos": direction.shape[2],
        "conv_pos_groups": width // direction.shape[1],
        "relative_position_embedding": True,
        "num_buckets": table.shape[0],
        "max_distance": Relative.distance,
        "gru_rel_pos": True,
        "finetuned_model": bool(head),
    } | ({"predictor_class": head["fc.weight"].shape[0]} if head else {})
