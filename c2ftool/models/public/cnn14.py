"""CNN14's published tensors under our names, and back (PANNs: qiuqiangkong/audioset_tagging_cnn, pytorch/models.py).

A file is a dictionary {iteration, model, sampler}; `model` holds spectrogram_extractor.stft.conv_{real,imag} and
logmel_extractor.melW (constants of the front end), bn0, conv_block{1..6}.{conv1,conv2,bn1,bn2}, fc1, fc_audioset.

Our names: backbone {bn0, blocks.{0..5}.{conv1,conv2,bn1,bn2}, fc1}, head {fc}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from c2ftool.frontend.banks import mel_bank
from c2ftool.models.public.account import (
    LAYER,
    Adapted,
    Report,
    Sorting,
    State,
    known_size,
    renamed_layer,
    tensors_of,
)
from c2ftool.spec.frontends import PANNS

BLOCKS = 6
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CONSTANTS = "constants of the front end"
OTHER_CONSTANTS = "constants of another front end than its default: set frontend"
MEL_BANK = "logmel_extractor.melW"
_FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")
_CONV_BLOCK = re.compile(rf"conv_block([1-{BLOCKS}])\.(conv[12]\.weight|bn[12]\.(?:{'|'.join(BATCH_NORM)}))")


def is_cnn14(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published CNN14 file."""
    return {"conv_block1.conv1.weight", f"conv_block{BLOCKS}.conv2.weight", "bn0.weight"} <= tensors.keys()


def to_native(tensors: Mapping[str, Tensor]) -> Adapted:
    """Published tensors under our names, with an account of every one of them. Never raises: read the report."""
    sorting = Sorting()
    for name, tensor in tensors.items():
        if why := about_front_end(name, tensor):
            sorting.ignored[name] = why
        else:
            sorting.place(name, *_place(name), tensor)
    backbone, head = sorting.parts["backbone"], sorting.parts["head"]
    fc1 = backbone.get("fc1.weight")
    report = Report(
        layout="CNN14" if head else "CNN14 without its head",
        backbone=known_size("cnn14", fc1.shape[0] if fc1 is not None and fc1.dim() else 0, BLOCKS),
        loaded=sorting.loaded,
        ignored=sorting.ignored,
        unexpected=sorting.unexpected,
        missing=sorting.missing({"backbone": _expected(), "head": tensors_of(["fc"]) if head else set()}),
    )
    return Adapted(backbone, head, {}, {}, report)


def _place(name: str) -> tuple[str, str | None]:
    """(part, our name) of a published tensor; None if it has no place."""
    if match := _CONV_BLOCK.fullmatch(name):
        return "backbone", f"blocks.{int(match[1]) - 1}.{match[2]}"
    if name.startswith("bn0.") and name.removeprefix("bn0.") in BATCH_NORM:
        return "backbone", name
    layer = LAYER.fullmatch(name)
    if layer and layer[1] == "fc_audioset":
        return "head", f"fc.{layer[2]}"
    return "backbone", name if layer and layer[1] == "fc1" else None


def _expected() -> set[str]:
    names = tensors_of(["fc1"]) | {f"bn0.{kind}" for kind in BATCH_NORM}
    for block in range(BLOCKS):
        for place in (1, 2):
            names.add(f"blocks.{block}.conv{place}.weight")
            names |= {f"blocks.{block}.bn{place}.{kind}" for kind in BATCH_NORM}
    return names


def to_public(backbone: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> State:
    """The value of `model` in the published file: names, shapes and order as published.

    The front end's constants are those of its default. Raises KeyError where a tensor is missing.
    """
    public = front_end_constants() | {f"bn0.{kind}": backbone[f"bn0.{kind}"] for kind in BATCH_NORM}
    for block in range(BLOCKS):
        names = ["conv1.weight", "conv2.weight", *(f"bn{place}.{kind}" for place in (1, 2) for kind in BATCH_NORM)]
        public |= {f"conv_block{block + 1}.{name}": backbone[f"blocks.{block}.{name}"] for name in names}
    return public | renamed_layer("fc1", backbone, "fc1") | renamed_layer("fc_audioset", head, "fc")


def front_end_constants() -> State:
    """What torchlibrosa keeps of its front end: kernels of the windowed transform and bank of mel filters, float32.

    (513, 1, 1024) kernels are rows of exp(-2 pi i k n / 1024) times a periodic Hann window; the bank is (513, 64).
    """
    samples = PANNS.sample_rate * PANNS.frame_length_ms // 1000
    bins, n = torch.arange(samples // 2 + 1), torch.arange(samples)
    # whole turns taken off first: the angle of bin 512 at sample 1023 would lose digits
    angle = (bins[:, None] * n % samples).double() * (2 * math.pi / samples)
    window = 0.5 - 0.5 * torch.cos(n.double() * (2 * math.pi / samples))
    kernels = {"real": torch.cos(angle) * window, "imag": -torch.sin(angle) * window}
    public = {f"spectrogram_extractor.stft.conv_{part}.weight": k[:, None].float() for part, k in kernels.items()}
    return public | {MEL_BANK: _bank().clone()}


def _bank() -> Tensor:
    of = PANNS.spectrum
    samples = PANNS.sample_rate * PANNS.frame_length_ms // 1000
    return mel_bank("slaney", PANNS.mels, samples, PANNS.sample_rate, of.low_hz, of.high_hz, torch.device("cpu"))


def about_front_end(name: str, tensor: Tensor) -> str | None:
    """Why a constant of the front end is left aside; None for any other tensor. A bank not our own is told apart."""
    if not name.startswith(_FRONT_END):
        return None
    if name == MEL_BANK:
        own = _bank()
        if tensor.shape != own.shape or not torch.allclose(tensor.float(), own, rtol=1e-3, atol=1e-6):
            return OTHER_CONSTANTS
    return CONSTANTS
