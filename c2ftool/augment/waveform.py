"""Augmentation of waveforms. Axes: B clips, S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.augment.matching import mirror
from c2ftool.augment.targets import Targets, by_frame, mix_targets, take
from c2ftool.draws import Draw
from c2ftool.spec.augment import Roll, WaveformMixup

Clips = tuple[Tensor, Tensor, Targets]  # waveforms (B, S), lengths (B,), targets


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
    waveforms: Tensor, lengths: Tensor, targets: Targets, spec: WaveformMixup, draw: Draw, partners: Clips | None = None
) -> Clips:
    """((B, S) float32, (B,) lengths, targets): chosen clips mixed with their partners, lambda one for each clip.

    partners: a clip for each, where spec.partner is `set`; else it is the clip at the mirror place of the batch. Every
    clip loses its mean over its own samples. Where frames are labelled, a mixed clip lasts as long as the longer of the
    two; else the partner is cut to the clip's own length, or ends before it. Raises ValueError for an odd batch, whose
    middle clip would be mixed with itself, and for partners that are missing.

    Source: AST, src/dataloader.py, and PretrainedSED, both with partners from the whole set. The mix of two clips of
    full length has no mean of its own to remove.
    """
    own = _centred(waveforms, lengths)
    if spec.partner == "set":
        if partners is None:
            raise ValueError("waveform_mixup with partners of the set needs the partners")
        other, other_lengths, other_targets = partners
        other = _centred(other, other_lengths)
    else:
        rows = mirror(len(waveforms), waveforms.device)
        other, other_lengths, other_targets = own.index_select(0, rows), lengths[rows], take(targets, rows)
    share = draw.beta("augment.waveform_mixup.lambda", spec.alpha, spec.alpha)
    if spec.dominant:
        share = torch.maximum(share, 1 - share)
    share = torch.where(draw.uniform("augment.waveform_mixup") < spec.probability, share, 1.0)
    if any(by_frame(each) for each in targets.values()):
        lengths = torch.where(share < 1, torch.maximum(lengths, other_lengths), lengths)
    else:
        other.masked_fill_(~_inside(waveforms, lengths), 0.0)
    mixed = own.mul_(share[:, None]).add_(other.mul_(1 - share[:, None]))
    return mixed, lengths, mix_targets(targets, other_targets, share)


def _centred(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(B, S) float32 clips without their mean, 0 beyond their length; a new tensor."""
    outside = ~_inside(waveforms, lengths)
    clips = waveforms.to(torch.float32, copy=True)
    if waveforms.dtype == torch.int16:
        clips.mul_(1.0 / 32768)
    clips.masked_fill_(outside, 0.0)
    # 256 samples of 16 bits add up exactly in float32; in float64 from the start it takes many times as long
    blocks = clips.shape[1] // 256
    head = clips[:, : blocks * 256].unflatten(1, (blocks, 256)).sum(2)
    sums = head.double().sum(1) + clips[:, blocks * 256 :].double().sum(1)
    return clips.sub_((sums / lengths.clamp(min=1)).float()[:, None]).masked_fill_(outside, 0.0)


def _inside(waveforms: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
