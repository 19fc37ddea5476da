"""Mel bands scaled and stretched. Axes: B clips, T frames, M mel bands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from c2ftool.draws import Draw
from c2ftool.spec.augment import FilterAugment, FrequencyWarp


def filter_augment(features: Tensor, spec: FilterAugment, draw: Draw) -> Tensor:
    """(B, T, M) times gains over the mel bands: borders drawn for the step, gains in dB at each for every clip.

    With probability 1 - p the batch is left as it is. Source: Nam et al., ICASSP 2022 (FilterAugment, linear);
    PretrainedSED, helpers/augment.py, which applies it to the normalised log-mel.
    """
    if draw.once("augment.filter_augment") >= spec.probability:
        return features
    borders = _borders(features.shape[2], spec, draw)
    low, high = spec.db
    gains = low + (high - low) * draw.uniform("augment.filter_augment.gain", len(borders))
    return scale_bands(features, borders, gains)


def frequency_warp(features: Tensor, spec: FrequencyWarp, draw: Draw) -> Tensor:
    """(B, T, M): some of the mel bands, as many and where the step draws, stretched to M.

    With probability 1 - p the batch is left as it is. Source: PretrainedSED, helpers/augment.py.
    """
    if draw.once("augment.frequency_warp") >= spec.probability:
        return features
    mels = features.shape[2]
    count = max(1, int((spec.least + (1 - spec.least) * draw.once("augment.frequency_warp.bands")) * mels))
    return stretch_bands(features, int(draw.once("augment.frequency_warp.first") * (mels - count + 1)), count)


def scale_bands(features: Tensor, borders: Sequence[int], gains: Tensor) -> Tensor:
    """(B, T, M) times 10^(dB / 20), in dB linear from each border's gain to the next one's.

    borders: the first mel band of each band, from 0, and M. gains: (B, borders) dB. Both ends belong to a band: its
    last mel band has the gain of the border above it.
    """
    place = torch.arange(features.shape[2], device=features.device)
    decibels = torch.zeros(len(gains), features.shape[2], device=features.device)
    for number, (first, last) in enumerate(pairwise(borders)):
        along = (place[first:last] - first) / max(1, last - first - 1)
        start, end = gains[:, number, None], gains[:, number + 1, None]
        decibels[:, first:last] = start + (end - start) * along
    return features * (10 ** (decibels / 20))[:, None, :]


def stretch_bands(features: Tensor, first: int, count: int) -> Tensor:
    """(B, T, M): mel bands first .. first + count - 1 resized to M, bicubic, ends upon ends; time as it is."""
    _, frames, mels = features.shape
    chosen = features[:, None, :, first : first + count]
    return F.interpolate(chosen, size=(frames, mels), mode="bicubic", align_corners=True)[:, 0]


def _borders(mels: int, spec: FilterAugment, draw: Draw) -> list[int]:
    """The borders of a step's bands, from 0 to `mels`. Bands are narrower than asked where there is no room."""
    least, most = spec.bands
    bands = min(mels, least + int(draw.once("augment.filter_augment.bands") * (most - least + 1)))
    width = min(spec.min_width, mels // bands)
    spare = mels - bands * width
    drawn = sorted(
        int(draw.once(f"augment.filter_augment.border.{number}") * (spare + 1)) for number in range(1, bands)
    )
    return [0, *(extra + number * width for number, extra in enumerate(drawn, 1)), mels]
