"""`augment`: changes to the training clips. Built by c2ftool/augment, in the order of the fields here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from c2ftool.spec.base import Section

Count = Annotated[int, Field(ge=1)]


class Roll(Section):
    """The waveform shifted in a circle by a uniform offset, times a gain Beta(10, 10) + 0.5 (public EAT code)."""

    gain: bool = Field(True, description="Also draw a gain between 0.5 and 1.5.")


class WaveformMixup(Section):
    """Two waveforms and their labels mixed (Tokozume et al., ICLR 2018), lambda ~ Beta(alpha, alpha) per clip."""

    alpha: float = Field(10.0, gt=0, description="Shape of the Beta distribution; large values mix half and half.")
    probability: float = Field(0.5, ge=0, le=1, description="Share of clips that are mixed.")
    dominant: bool = Field(
        False, description="Take the larger of lambda and 1 - lambda, so that a clip outweighs its partner."
    )
    partner: Literal["batch", "set"] = Field(
        "batch",
        description="What a clip is mixed with: `batch`, the clip at the mirror place of the batch; `set`, a further "
        "clip, drawn uniformly from the training clips and read besides (twice the reading).",
    )


class TimeRoll(Section):
    """The log-mel of each clip shifted in a circle by a normal number of frames, frame labels and teachers with it."""

    std: float = Field(
        0.125, gt=0, le=1, description="Standard deviation of the shift, as a share of the frames (10 s: 1.25 s)."
    )


class SpectrogramMixup(Section):
    """Two log-mels and their labels mixed, lambda ~ Beta(alpha, alpha) per clip, the larger share always the own."""

    alpha: float = Field(0.2, gt=0, description="Shape of the Beta distribution; small values mix little.")
    probability: float = Field(0.3, ge=0, le=1, description="Share of steps whose clips are mixed.")


class MixStyle(Section):
    """Each mel band's mean and deviation over time mixed with another clip's; labels stay (Freq-MixStyle)."""

    alpha: float = Field(0.4, gt=0, description="Shape of the Beta distribution of the shares, one for each clip.")
    probability: float = Field(0.3, ge=0, le=1, description="Share of steps whose clips are changed.")


class TimeMask(Section):
    """One stretch of time set to 0 in every clip of a step, in the log-mel, in frame labels and in teacher targets."""

    ratio: float = Field(0.2, ge=0.05, lt=1, description="Largest share of the label frames masked; the least is 0.05.")


class FilterAugment(Section):
    """Gains over mel bands, linear in dB between random borders, drawn per clip (Nam et al., ICASSP 2022)."""

    probability: float = Field(0.8, ge=0, le=1, description="Share of steps whose clips are changed.")
    bands: list[Count] = Field(
        [3, 5], min_length=2, max_length=2, description="Least and largest number of bands; one draw per step."
    )
    min_width: int = Field(6, ge=1, description="Fewest mel bands between two borders.")
    db: list[float] = Field(
        [-6.0, 6.0],
        min_length=2,
        max_length=2,
        description="Lowest and highest gain at a border. As published for sound events it multiplies the normalised "
        "log-mel, so it scales contrast about 0.",
    )

    @field_validator("bands", "db")
    @classmethod
    def _ascending(cls, value: list[float]) -> list[float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]:g} is above {value[1]:g}; write the lower limit first")
        return value


class FrequencyWarp(Section):
    """Some of the mel bands, at a random place, stretched to all of them; one draw per step."""

    probability: float = Field(0.8, ge=0, le=1, description="Share of steps whose clips are changed.")
    least: float = Field(0.6, gt=0, lt=1, description="Least share of the mel bands that is stretched.")


class Noise(Section):
    """Uniform noise times U(0, 1) / 10 on the normalised log-mel, then a circular shift of frames (AST, EAT)."""

    strength: float = Field(0.1, ge=0, description="Upper limit of the noise's scale.")
    shift: int = Field(10, ge=0, description="Frames of shift, -shift to shift - 1; follows the compression factor.")


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
    """Done in this order, the front end after `waveform_mixup`. Off unless named; `null` switches an inherited one off.

    The order is that of the published recipes: EAT's and AST's, and that for sound event detection.
    """

    roll: Roll | None = None
    waveform_mixup: WaveformMixup | None = None
    time_roll: TimeRoll | None = None
    spectrogram_mixup: SpectrogramMixup | None = None
    mix_style: MixStyle | None = None
    time_mask: TimeMask | None = None
    filter_augment: FilterAugment | None = None
    frequency_warp: FrequencyWarp | None = None
    noise: Noise | None = None
    mixup: Mixup | None = None
    spec_augment: SpecAugment | None = None
