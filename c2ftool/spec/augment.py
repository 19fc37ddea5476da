"""`augment`: changes to the training clips. Built by c2ftool/augment, in the order of the fields here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from c2ftool.spec.base import Section


class Roll(Section):
    """The waveform shifted in a circle by a uniform offset, times a gain Beta(10, 10) + 0.5 (public EAT code)."""

    gain: bool = Field(True, description="Also draw a gain between 0.5 and 1.5.")


class Noise(Section):
    """Uniform noise times U(0, 1) / 10 on the normalised log-mel, then a circular shift of frames (AST, EAT)."""

    strength: float = Field(0.1, ge=0, description="Upper limit of the noise's scale.")
    shift: int = Field(10, ge=0, description="Frames of shift, -shift to shift - 1; follows the compression factor.")


class WaveformMixup(Section):
    """Two waveforms and their labels mixed (Tokozume et al., ICLR 2018; as AST uses it): with the given probability
    per clip its partner is the clip at the mirror place of the batch, lambda ~ Beta(alpha, alpha) per clip."""

    alpha: float = Field(10.0, gt=0, description="Shape of the Beta distribution; large values mix half and half.")
    probability: float = Field(0.5, ge=0, le=1, description="Share of clips that are mixed.")


class Mixup(Section):
    """Two clips and their labels mixed: the partner is the batch reversed, one lambda ~ Beta(alpha, alpha) per step."""

    alpha: float = Field(0.8, gt=0, description="Shape of the Beta distribution; small values mix little.")
    probability: float = Field(0.9, ge=0, le=1, description="Share of steps that are mixed.")


class SpecAugment(Section):
    """One frequency band and one stretch of time set to 0 per clip, after mixup (Park et al., 2019)."""

    frequency: float = Field(0.2, ge=0, lt=1, description="Largest share of the mel bands masked.")
    time: float = Field(0.2, ge=0, lt=1, description="Largest share of the frames masked.")
    fill: Literal["normalized", "log_mel"] = Field(
        "normalized",
        description="What masks are filled with: 0 of the normalised features (EAT), or 0 of the log-mel, as padding "
        "is, which normalising lifts above most of a clip (AST).",
    )


class Augment(Section):
    """Off unless named; `null` switches an inherited one off."""

    roll: Roll | None = None
    waveform_mixup: WaveformMixup | None = None
    noise: Noise | None = None
    mixup: Mixup | None = None
    spec_augment: SpecAugment | None = None
