"""Augmentation of waveforms. Axes: B clips, S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.augment import Roll, WaveformMixup


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


def mix_waveforms(
    waveforms: Tensor, lengths: Tensor, targets: Tensor, spec: WaveformMixup, draw: Draw
) -> tuple[Tensor, Tensor]:
    """((B, S) float32, (B, C)): chosen clips mixed with the clip at the mirror place of the batch.

    Both without their mean; the partner is cut to the clip's own length, or ends before it. lambda ~ Beta(a, a), one
    for each clip. Raises ValueError for an odd batch, whose middle clip would be mixed with itself.
    Source: AST, src/dataloader.py (there the partner is drawn from the whole set).
    """
    if len(waveforms) % 2:
        raise ValueError(f"mixup needs an even batch, not {len(waveforms)} clips")
    scale = 1.0 / 32768 if waveforms.dtype == torch.int16 else 1.0
    inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
    whole = torch.where(inside, waveforms.float() * scale, 0.0)
    means = whole.sum(1, dtype=torch.float64) / lengths.clamp(min=1)
    centred = torch.where(inside, whole - means.float()[:, None], 0.0)
    share = draw.beta("augment.waveform_mixup.lambda", spec.alpha, spec.alpha)
    chosen = draw.uniform("augment.waveform_mixup") < spec.probability
    share = torch.where(chosen, share, 1.0)[:, None]
    mixed = centred * share + torch.where(inside, centred.flip(0), 0.0) * (1 - share)
    return mixed, targets * share + targets.flip(0) * (1 - share)
