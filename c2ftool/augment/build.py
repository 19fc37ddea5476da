"""All augmentation of a phase, in its one order: roll, waveform mixup, (front end), noise, mixup, SpecAugment."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from c2ftool.augment.mixup import mixup
from c2ftool.augment.spectrogram import noise, spec_augment
from c2ftool.augment.waveform import mix_waveforms, roll
from c2ftool.draws import Draw
from c2ftool.spec.augment import Augment


@dataclass(frozen=True)
class Augmentations:
    """What a spec's `augment` section does to a batch.

    factor: how many times fewer frames the features have than at full resolution. pad_value: what 0 in the log-mel is
    after normalising.
    """

    spec: Augment
    factor: int = 1
    pad_value: float = 0.0

    def waveforms(
        self, waveforms: Tensor, lengths: Tensor, targets: Tensor | None, draw: Draw
    ) -> tuple[Tensor, Tensor | None]:
        """The waveforms (B, S) as the front end takes them, and the targets (B, C) that go with them."""
        if self.spec.roll is not None:
            waveforms = roll(waveforms, lengths, self.spec.roll, draw)
        if self.spec.waveform_mixup is not None and targets is not None:
            waveforms, targets = mix_waveforms(waveforms, lengths, targets, self.spec.waveform_mixup, draw)
        return waveforms, targets

    def features(self, features: Tensor, targets: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """The normalised log-mel (B, frames, mels) and the targets (B, C) that go with it."""
        if self.spec.noise is not None:
            features = noise(features, self.spec.noise, self.factor, draw)
        if self.spec.mixup is not None and targets is not None:
            features, targets = mixup(features, targets, self.spec.mixup, draw)
        if self.spec.spec_augment is not None:
            features = spec_augment(features, self.spec.spec_augment, draw, self.pad_value)
        return features, targets
