"""Augmentation of waveforms. Axes: B clips, S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.augment import Roll


def roll(waveforms: Tensor, lengths: Tensor, spec: Roll, draw: Draw) -> Tensor:
    """(B, S) float32: each clip shifted in a circle of its own length by a uniform offset, times a gain.

    waveforms: (B, S) int16, or float in [-1, 1]. lengths: (B,) samples of each clip; beyond them 0 stays 0.
    Source: EAT, data/raw_audio_dataset.py (roll_mag_aug): gain Beta(10, 10) + 0.5.
    """
    scale = 1.0 / 32768 if waveforms.dtype == torch.int16 else 1.0
    span = lengths.clamp(min=1)
    offset = (draw.uniform("augment.roll.offset").double() * span).long()
    place = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = (place - offset[:, None]) % span[:, None]
    moved = waveforms.gather(1, source.clamp(max=waveforms.shape[1] - 1)).float() * scale
    if spec.gain:
        moved = moved * (draw.beta("augment.roll.gain", 10.0, 10.0) + 0.5)[:, None]
    return torch.where(place < lengths[:, None], moved, 0.0)
