"""ASiT's published tensors under our names, and back.

Two layouts are read:

    sound events  model. or model.asit. (Schmid et al., ICASSP 2025), with heads where it was trained for them
    pre-trained   {student, teacher, ...} (Sara-Ahmed/ASiT), each with an encoder behind backbone., and behind module.
                  where it was trained on several devices; the teacher is read

Inside: cls_token, pos_embed, patch_embed.proj, blocks.N..., norm, which are our names too; head {strong, weak, rnn.*}.

A table has 296 rows for patches: pre-training's 37 steps of 8 bands, time-major. The network of the sound-event files
was configured with the two sides exchanged: it reads the table as 8 steps of 37 bands, resizes that, and was trained
so. The grid that is told is the one that a file's table is to be read as: 8 x 37 in files with heads, else 37 x 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from c2ftool.models.public import sed
from c2ftool.models.public.account import Adapted, Pair, State, block_layers, patch_of, renamed_layer

_MELS = 128
_PUBLIC = "model."
_SOUND_EVENTS = ("model.asit.", _PUBLIC)
_TEACHER = ("teacher.module.backbone.", "teacher.backbone.")
_STUDENT = ("student.module.backbone.", "student.backbone.")
_SELF_SUPERVISED = (*_TEACHER, *_STUDENT)
_PRETRAINED: Pair = (37, 8)
_EXCHANGED: Pair = (8, 37)
_NAMES = ("cls_token", "pos_embed")
_HEADS = "heads and losses, which pre-training alone has"
_ENCODER = sed.Encoder(
    family="asit",
    label="ASiT",
    prefixes=_SOUND_EVENTS,
    layers={"patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    single={name: name for name in _NAMES},
    ignored={},
    passed={},
)


def is_asit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published ASiT file."""
    if f"{_PUBLIC}dist_token" in tensors:  # fPaSST's
        return False
    return any(_body(prefix) <= tensors.keys() for prefix in (*_SOUND_EVENTS, *_SELF_SUPERVISED))


def _body(prefix: str) -> set[str]:
    return {f"{prefix}{name}" for name in (*_NAMES, "patch_embed.proj.weight", "norm.weight")}


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    found = next((prefix for prefix in _SELF_SUPERVISED if f"{prefix}pos_embed" in tensors), None)
    encoder = _ENCODER
    if found is not None:
        passed = {"student.": "the student of pre-training, whose teacher is read"} if found in _TEACHER else {}
        encoder = replace(_ENCODER, label="ASiT (pre-trained)", prefixes=(found,), passed=passed)
        others = {n for n in tensors if not n.startswith((found, *passed))}
        encoder = replace(encoder, passed=passed | dict.fromkeys(sorted(others), _HEADS))
    sorting = sed.sort(tensors, encoder)
    backbone = sorting.parts["backbone"]
    patch = patch_of(backbone, mel_first=False)
    grid, note = sed.grid_of(sed.rows(backbone, "pos_embed", 1), patch, _MELS)
    if grid == _PRETRAINED and patch == (16, 16) and sorting.parts["head"]:
        grid, note = _EXCHANGED, "its positions are read as 8 steps of 37 bands, as it was trained"
    return sed.adapted(sorting, encoder, encoder.tensors(block_layers(backbone)), grid, patch, note)


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> State:
    """An ASiT in the layout of the sound-event files: names, shapes and order as published.

    The published network has a table of 296 patches, which it takes as it is for 592 frames only, and else for 8 x 37;
    those of another grid are written as they are. Raises KeyError where a tensor is missing.
    """
    body: State = {name: backbone[name] for name in _NAMES}
    for layer in ("patch_embed.proj", *block_layers(backbone), "norm"):
        body |= renamed_layer(layer, backbone, layer)
    return {f"{_PUBLIC}{name}": tensor for name, tensor in body.items()} | sed.public_head(head or {})
