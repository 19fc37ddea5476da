"""M2D's published tensors under our names, and back.

Three layouts are read, told apart by what stands before the encoder:

    sound events  model.backbone. or model.m2d.backbone. (Schmid et al., ICASSP 2025), with heads
    fine-tuned    module.ar.runtime.backbone. (nttcslab/m2d), with a head of clips that is not read
    encoder       nothing (nttcslab/m2d): told by norm_stats

Inside: cls_token, pos_embed, norm_stats, patch_embed.proj, blocks.N..., norm, which but for norm_stats are our names
too; beside the encoder, in to_spec., the constants of the front end. Head {strong, weak, rnn.*}. Kernels are
(D, 1, mel, time) and rows of positions mel-major (1 + f * T + t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from c2ftool.frontend.banks import mel_bank
from c2ftool.models.public import sed
from c2ftool.models.public.account import Adapted, State, block_layers, patch_of, renamed_layer
from c2ftool.spec.frontends import M2D as FRONT

_PUBLIC = "model."
_OUTER = ("model.m2d.", _PUBLIC, "module.ar.runtime.")
_STATISTICS = "norm_stats"
_NAMES = ("cls_token", "pos_embed")
_ENCODER = sed.Encoder(
    family="m2d",
    label="M2D",
    prefixes=tuple(f"{outer}backbone." for outer in _OUTER),
    layers={"patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    single={name: name for name in _NAMES},
    ignored={_STATISTICS: "mean and deviation, in whose place the public code has fixed ones"},
    passed={
        **{f"{outer}to_spec.": "constants of the front end, which are computed" for outer in _OUTER},
        "module.head.": "a head of clips on running statistics, which are not kept here",
    },
)
_MEAN, _DEVIATION = -7.1, 4.2  # that the public code has


def is_m2d(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published M2D file."""
    bodies = [{f"{prefix}{name}" for name in (*_NAMES, "norm.weight")} for prefix in _ENCODER.prefixes]
    return any(body <= tensors.keys() for body in bodies) or {*_NAMES, _STATISTICS} <= tensors.keys()


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    bare = any(name in tensors for name in _NAMES)
    encoder = replace(_ENCODER, prefixes=("",)) if bare else _ENCODER
    sorting = sed.sort(tensors, encoder)
    backbone = sorting.parts["backbone"]
    patch = patch_of(backbone, mel_first=True)
    grid, note = sed.grid_of(sed.rows(backbone, "pos_embed", 1), patch, FRONT.mels)
    return sed.adapted(sorting, encoder, encoder.tensors(block_layers(backbone)), grid, patch, note)


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> State:
    """An M2D in the layout of the sound-event files: names, shapes and order as published, constants with them.

    The published network has positions for 62 x 5 patches; those of another grid are written as they are. Raises
    KeyError where a tensor is missing.
    """
    body: State = {name: backbone[name] for name in _NAMES}
    body[_STATISTICS] = torch.tensor([_MEAN, _DEVIATION])
    for layer in ("patch_embed.proj", *block_layers(backbone), "norm"):
        body |= renamed_layer(layer, backbone, layer)
    public = {f"{_PUBLIC}backbone.{name}": tensor for name, tensor in body.items()}
    public |= {f"{_PUBLIC}to_spec.{name}": tensor for name, tensor in front_end_constants().items()}
    return public | sed.public_head(head or {})


def front_end_constants() -> State:
    """nnAudio's mel bank and the windowed sines and cosines of its Fourier transform, float32."""
    samples, spectrum = FRONT.frame_length_ms * FRONT.sample_rate // 1000, FRONT.spectrum
    bank = mel_bank(
        "slaney", FRONT.mels, samples, FRONT.sample_rate, spectrum.low_hz, spectrum.high_hz, torch.device("cpu")
    )
    time = torch.arange(samples, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * time / samples)
    # whole turns are taken off first: the angles are exact
    turns = torch.outer(torch.arange(samples // 2 + 1, dtype=torch.float64), time) % samples
    angles = 2 * math.pi * turns / samples
    return {
        "mel_basis": bank.T.contiguous(),
        "stft.wsin": (angles.sin() * window)[:, None].float(),
        "stft.wcos": (angles.cos() * window)[:, None].float(),
        "stft.window_mask": window[None, :, None].float(),
    }
