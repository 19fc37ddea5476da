"""All augmentation of a phase, in its one order: roll, (front end), noise, mixup, SpecAugment."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from c2ftool.augment.mixup import mixup
from c2ftool.augment.spectrogram import noise, spec_augment
from c2ftool.augment.waveform import roll
from c2ftool.draws import Draw
from c2ftool.spec.augment import Augment


@dataclass(frozen=True)
class Augmentations:
    """What a spec's `augment` section does to a batch. factor: the compression of time in the phase."""

    spec: Augment
    factor: int = 1

    def waveforms(self, waveforms: Tensor, lengths: Tensor, draw: Draw) -> Tensor:
        """The waveforms as the front end takes them: (B, S)."""
        return waveforms if self.spec.roll is None else roll(waveforms, lengths, self.spec.roll, draw)

    def features(self, features: Tensor, targets: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """The normalised log-mel (B, frames, mels) and the targets (B, C) that go with it."""
        if self.spec.noise is not None:
            features = noise(features, self.spec.noise, self.factor, draw)
        if self.spec.mixup is not None and targets is not None:
            features, targets = mixup(features, targets, self.spec.mixup, draw)
        if self.spec.spec_augment is not None:
            features = spec_augment(features, self.spec.spec_augment, draw)
        return features, targets
