"""ATST-Frame's published tensors under our names, and back.

Three layouts are read, told apart by the prefix of the encoder:

    sound events  model.atst. (Schmid et al., ICASSP 2025), with heads; the last norm is norm_frame
    pre-trained   model.teacher.encoder. of a Lightning file's state_dict; the last norm is norm
    AudioSet      encoder.encoder., or encoder.encoder.frame_encoder. where a model of clips taught it

Inside: mask_embed, pos_embed (1, 1 + T, D), patch_embed.patch_embed, blocks.N..., and the norm. The patch layer is
linear on (mel, time) patches, written as a kernel (D, 1, mel, time) here; the first row of positions belongs to a class
token that frames do not have, and is never read.

Our names: backbone {pos_embed (1, T, D), patch_embed.proj, blocks.N..., norm}, head {strong, weak, rnn.*}.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from c2ftool.models.public import sed
from c2ftool.models.public.account import Adapted, State, block_layers, patch_of, renamed_layer

_MELS = 64
_PUBLIC = "model.atst."
_TAUGHT = "encoder.encoder.teacher_module."
_PATCH, _KERNEL = "patch_embed.patch_embed", "patch_embed.proj.weight"
_FRONT_END = "a constant of the front end, which is computed"
_ENCODER = sed.Encoder(
    family="atst",
    label="ATST-Frame",
    prefixes=(_PUBLIC, "model.teacher.encoder.", "encoder.encoder.frame_encoder.", "encoder.encoder."),
    layers={_PATCH: "patch_embed.proj", "norm_frame": "norm", "norm": "norm"},
    single={"pos_embed": "pos_embed"},
    ignored={
        "mask_embed": "the token in place of masked frames, which pre-training alone has",
        "cls_token": "a class token, which frames do not have",
    },
    passed={
        _TAUGHT: "the model of clips that taught the frames'",
        "model.student.": "the student of pre-training, whose teacher is read",
        "model.teacher.projector.": "a projection, which pre-training alone has",
        "model.atst_mel.": _FRONT_END,
    },
)
_UNREAD = "the first row of its positions belongs to a class token and is not read"


def is_atst(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published ATST-Frame file."""
    return any(_ENCODER.short(name) == f"{_PATCH}.weight" for name in tensors if not name.startswith(_TAUGHT))


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = sed.sort(tensors, _ENCODER, _converted)
    backbone = sorting.parts["backbone"]
    patch = patch_of(backbone, mel_first=True)
    count = sed.rows(backbone, "pos_embed", 0)
    expected = _ENCODER.tensors(block_layers(backbone)) - _biases(backbone)
    return sed.adapted(sorting, _ENCODER, expected, (count, 1) if count else None, patch, _UNREAD)


def _biases(backbone: Mapping[str, Tensor]) -> set[str]:
    """The biases that queries, keys and values do not have."""
    return {f"{layer}.bias" for layer in block_layers(backbone) if layer.endswith(".qkv")}


def _converted(ours: str, tensor: Tensor) -> Tensor:
    """A published tensor in our shape; as it is where it has not the published one."""
    if ours == "pos_embed" and tensor.dim() == 3:
        return tensor[:, 1:]
    if ours == _KERNEL and tensor.dim() == 2 and tensor.shape[1] and tensor.shape[1] % _MELS == 0:
        return tensor.unflatten(1, (1, _MELS, -1))
    return tensor


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> State:
    """An ATST-Frame in the layout of the sound-event files: names, shapes and order as published.

    The token in place of masked frames and the first row of positions, which nothing reads, are zeros. The published
    network has 250 positions; those of another number are written as they are. Raises KeyError where a tensor is
    missing.
    """
    positions, kernel = backbone["pos_embed"], backbone[_KERNEL]
    width = positions.shape[-1]
    body: State = {
        "mask_embed": torch.zeros(1, 1, width),
        "pos_embed": torch.cat([torch.zeros(1, 1, width), positions], dim=1),
        f"{_PATCH}.weight": kernel.flatten(1),
        f"{_PATCH}.bias": backbone["patch_embed.proj.bias"],
    }
    without = _biases(backbone)
    for layer in block_layers(backbone):
        kinds = ("weight",) if f"{layer}.bias" in without else ("weight", "bias")
        body |= {f"{layer}.{kind}": backbone[f"{layer}.{kind}"] for kind in kinds}
    body |= renamed_layer("norm_frame", backbone, "norm")
    return {f"{_PUBLIC}{name}": tensor for name, tensor in body.items()} | sed.public_head(head or {})
