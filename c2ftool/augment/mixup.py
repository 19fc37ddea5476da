"""Log-mels mixed with others of the batch. Axes: B clips, T frames, M mel bands."""

from __future__ import annotations

import torch
from torch import Tensor

from c2ftool.augment.matching import diagonal, mirror, neighbour
from c2ftool.augment.targets import Targets, blend, mix_targets, take
from c2ftool.draws import Draw
from c2ftool.spec.augment import MixStyle, Mixup, SpectrogramMixup

EPSILON = 1e-6  # added to a variance under a root


def mixup(features: Tensor, targets: Targets, spec: Mixup, draw: Draw) -> tuple[Tensor, Targets]:
    """(features, targets) of each clip mixed with the clip at the mirror place, one lambda ~ Beta(a, a) for the step.

    With probability 1 - p the batch is left as it is. Raises ValueError for an odd batch, whose middle clip would be
    mixed with itself. Source: EAT, mixup of the fine-tuning code (timm's batch mode).
    """
    partner = mirror(len(features), features.device)
    if draw.once("augment.mixup") >= spec.probability:
        return features, targets
    share = draw.beta_once("augment.mixup.lambda", spec.alpha, spec.alpha)
    return mix_with(features, targets, partner, torch.full((len(features),), share, device=features.device))


def spectrogram_mixup(features: Tensor, targets: Targets, spec: SpectrogramMixup, draw: Draw) -> tuple[Tensor, Targets]:
    """(features, targets) of each clip mixed with its neighbour's, lambda ~ Beta(a, a) for each clip, at least 1/2.

    With probability 1 - p the batch is left as it is. The labels of frames stay within 0 and 1. Raises ValueError for
    clips that do not make fours. Source: PretrainedSED, helpers/augment.py (there the partners are a permutation).
    """
    partner = neighbour(len(features), features.device)
    if draw.once("augment.spectrogram_mixup") >= spec.probability:
        return features, targets
    share = dominant(draw.beta("augment.spectrogram_mixup.lambda", spec.alpha, spec.alpha))
    features, targets = mix_with(features, targets, partner, share)
    if "frame" in targets:
        targets["frame"].clamp_(0, 1)
    return features, targets


def mix_style(features: Tensor, spec: MixStyle, draw: Draw) -> Tensor:
    """(B, T, M): each clip's mean and deviation over time, in every mel band, mixed with another clip's.

    The partner is the one of the four that neither waveforms nor log-mels are mixed with; lambda ~ Beta(a, a) for each
    clip, at least 1/2. With probability 1 - p the batch is left as it is. Raises ValueError for clips that do not make
    fours. Source: Schmid et al., DCASE 2022 (Freq-MixStyle); PretrainedSED, helpers/augment.py.
    """
    partner = diagonal(len(features), features.device)
    if draw.once("augment.mix_style") >= spec.probability:
        return features
    return mix_statistics(features, partner, dominant(draw.beta("augment.mix_style.lambda", spec.alpha, spec.alpha)))


def dominant(share: Tensor) -> Tensor:
    """The larger of share and 1 - share."""
    return torch.maximum(share, 1 - share)


def mix_with(features: Tensor, targets: Targets, partner: Tensor, share: Tensor) -> tuple[Tensor, Targets]:
    """Features and targets, each row mixed with the partner's. partner: (B,) rows; share: (B,) of the row itself."""
    mixed = blend(features, features.index_select(0, partner), share)
    return mixed, mix_targets(targets, take(targets, partner), share)


def mix_statistics(features: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """(B, T, M) with mean and standard deviation (of the unbiased variance) over T mixed with the partner's."""
    mean = features.mean(1, keepdim=True)
    centred = features - mean  # by hand: var_mean over an axis that is not the last takes ten times as long on a CPU
    variance = (centred * centred).sum(1, keepdim=True) / max(1, features.shape[1] - 1)
    deviation = (variance + EPSILON).sqrt_()
    wanted_mean = blend(mean, mean.index_select(0, partner), share)
    wanted = blend(deviation, deviation.index_select(0, partner), share)
    return centred.mul_(wanted / deviation).add_(wanted_mean)
