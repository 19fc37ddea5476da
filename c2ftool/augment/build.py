"""All augmentation of a phase, in its one order.

roll, waveform mixup, (front end), time roll, spectrogram mixup, MixStyle, time mask, FilterAugment, frequency warping,
noise, mixup, SpecAugment: the order of the published recipes (docs/methods/augmentation.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from c2ftool.augment.bands import filter_augment, frequency_warp
from c2ftool.augment.frames import time_mask, time_roll
from c2ftool.augment.mixup import mix_style, mixup, spectrogram_mixup
from c2ftool.augment.spectrogram import noise, spec_augment
from c2ftool.augment.targets import Targets
from c2ftool.augment.waveform import Clips, mix_waveforms, roll
from c2ftool.draws import Draw
from c2ftool.spec.augment import Augment


@dataclass(frozen=True)
class Augmentations:
    """What a spec's `augment` section does to a batch. Inputs are left as they are.

    factor: how many times fewer frames the features have than at full resolution. pad_value: what 0 in the log-mel is
    after normalising. label_ratio: the length of a label frame over the hop of the features as they come here.
    """

    spec: Augment
    factor: int = 1
    pad_value: float = 0.0
    label_ratio: float = 4.0

    def waveforms(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        targets: Targets | None,
        draw: Draw,
        partners: Clips | None = None,
    ) -> tuple[Tensor, Tensor, Targets | None]:
        """The waveforms (B, S) as the front end takes them, their lengths (B,), and the targets that go with them.

        partners: (waveforms, lengths, targets) of a further clip for each, for waveform mixup with partners of the set.
        """
        if self.spec.roll is not None:
            waveforms = roll(waveforms, lengths, self.spec.roll, draw)
        if self.spec.waveform_mixup is not None and targets is not None:
            mixing = self.spec.waveform_mixup
            waveforms, lengths, targets = mix_waveforms(waveforms, lengths, targets, mixing, draw, partners)
        return waveforms, lengths, targets

    def features(self, features: Tensor, targets: Targets | None, draw: Draw) -> tuple[Tensor, Targets | None]:
        """The normalised log-mel (B, frames, mels) and the targets that go with it."""
        spec = self.spec
        if spec.time_roll is not None:
            features, targets = time_roll(features, targets, spec.time_roll, self.label_ratio, draw)
        if spec.spectrogram_mixup is not None and targets is not None:
            features, targets = spectrogram_mixup(features, targets, spec.spectrogram_mixup, draw)
        if spec.mix_style is not None:
            features = mix_style(features, spec.mix_style, draw)
        if spec.time_mask is not None:
            features, targets = time_mask(features, targets, spec.time_mask, self.label_ratio, draw)
        if spec.filter_augment is not None:
            features = filter_augment(features, spec.filter_augment, draw)
        if spec.frequency_warp is not None:
            features = frequency_warp(features, spec.frequency_warp, draw)
        if spec.noise is not None:
            features = noise(features, spec.noise, self.factor, draw)
        if spec.mixup is not None and targets is not None:
            features, targets = mixup(features, targets, spec.mixup, draw)
        if spec.spec_augment is not None:
            features = spec_augment(features, spec.spec_augment, draw, self.pad_value)
        return features, targets
