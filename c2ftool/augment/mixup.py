"""Mixup of a batch with its reverse. Axes: B clips."""

from __future__ import annotations

from torch import Tensor

from c2ftool.draws import Draw
from c2ftool.spec.augment import Mixup


def mixup(features: Tensor, targets: Tensor, spec: Mixup, draw: Draw) -> tuple[Tensor, Tensor]:
    """(features, targets) of each clip mixed with the clip at the mirror place, one lambda ~ Beta(a, a) for the step.

    With probability 1 - p the batch is left as it is. Raises ValueError for an odd batch, whose middle clip would be
    mixed with itself. Source: EAT, mixup of the fine-tuning code (timm's batch mode).
    """
    if len(features) % 2:
        raise ValueError(f"mixup needs an even batch, not {len(features)} clips")
    if draw.once("augment.mixup") >= spec.probability:
        return features, targets
    share = draw.beta_once("augment.mixup.lambda", spec.alpha, spec.alpha)
    mixed = features * share + features.flip(0) * (1 - share)
    return mixed, targets * share + targets.flip(0) * (1 - share)
