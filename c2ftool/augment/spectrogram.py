"""Augmentation of normalised log-mels. Axes: B clips, T frames, M mel bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.augment import Noise, SpecAugment


def noise(features: Tensor, spec: Noise, factor: int, draw: Draw) -> Tensor:
    """(B, T, M): uniform [0, 1) noise times U(0, 1) x strength added, then each clip shifted in a circle of frames.

    factor: the compression of time; the shift, -n .. n - 1 frames, is n = ceil(spec.shift / factor).
    Source: AST, src/dataloader.py, and EAT: strength 0.1, shift 10.
    """
    clips, frames, _ = features.shape
    strength = draw.uniform("augment.noise.strength") * spec.strength
    noisy = features + draw.uniform("augment.noise", *features.shape[1:]) * strength[:, None, None]
    reach = math.ceil(spec.shift / factor)
    if not reach:
        return noisy
    shift = draw.integers("augment.noise.shift", 2 * reach) - reach
    source = (torch.arange(frames, device=features.device) - shift[:, None]) % frames
    return noisy.gather(1, source[..., None].expand(clips, frames, features.shape[2]))


def spec_augment(features: Tensor, spec: SpecAugment, draw: Draw, pad_value: float = 0.0) -> Tensor:
    """(B, T, M): one band of mels and one stretch of frames set to 0 in each clip, the widths uniform up to a share.

    pad_value: what is filled in where the spec's 0 is that of the log-mel. Shares follow any compression of time.

    Source: Park et al., 2019; widths and places as torchaudio's FrequencyMasking and TimeMasking draw them: a width
    U(0, share x size), a start U(0, size - width), both cut to whole bins. 0 is the mean of normalised features only
    where the statistics fit the data.
    """
    masked = _stripe(features.shape[2], spec.frequency, draw, "augment.spec.frequency")[:, None, :]
    masked = masked | _stripe(features.shape[1], spec.time, draw, "augment.spec.time")[:, :, None]
    return features.masked_fill(masked, pad_value if spec.fill == "log_mel" else 0.0)


def _stripe(size: int, share: float, draw: Draw, purpose: str) -> Tensor:
    """(B, size) bool: one stretch for each row."""
    drawn = draw.uniform(purpose, 2)
    width = drawn[:, 0] * int(share * size)
    start = drawn[:, 1] * (size - width)
    first = start.long()
    last = first + width.long()
    place = torch.arange(size, device=drawn.device)
    return (place >= first[:, None]) & (place < last[:, None])
