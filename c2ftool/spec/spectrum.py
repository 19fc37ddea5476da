"""What distinguishes the families of front ends: from a waveform's frames to a log-mel. Comes with the backbone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from c2ftool.spec.base import Section


class Spectrum(Section):
    """The arithmetic of a log-mel. Defaults are Kaldi's, as AST and EAT use it."""

    kind: Literal["kaldi", "stft"] = Field(
        "kaldi",
        description="`kaldi`: whole frames only; each loses its mean, is pre-emphasised and windowed. `stft`: frames "
        "centred on their hops, the clip's ends mirrored; a periodic window.",
    )
    scale: float = Field(1.0, description="What the waveform, in [-1, 1], is multiplied by.")
    remove_mean: bool = Field(True, description="Whether a clip's mean is taken off its waveform first.")
    preemphasis: bool = Field(False, description="`stft`: y[t] = x[t + 1] - 0.97 x[t] over the waveform.")
    padded: bool = Field(True, description="Whether the window is padded to a power of two for the transform.")
    mel_scale: Literal["kaldi", "htk", "slaney"] = Field(
        "kaldi",
        description="`kaldi`: triangles in mel; `htk`: triangles in hertz on the HTK scale; `slaney`: the Slaney "
        "scale, each triangle of area 1.",
    )
    low_hz: float = Field(20.0, description="Lower edge of the first band.")
    high_hz: float | None = Field(None, description="Upper edge of the last; half the sample rate if not given.")
    log: Literal["ln", "ln_offset", "db"] = Field(
        "ln",
        description="`ln` of max(power, floor); `ln_offset` of power + floor; `db`: 10 log10 of max(power, floor).",
    )
    floor: float = Field(2.0**-23, gt=0, description="Of the power, or added to it; float32's epsilon if not given.")
    top_db: float | None = Field(None, gt=0, description="`db`: no value is further below the clip's largest.")
    clamp: list[float] | None = Field(None, description="[least, largest] value of the log-mel.")
    jitter: list[int] | None = Field(
        None,
        description="[low, high] in training: each step the lower edge is raised by 0 .. low - 1 Hz and the upper one "
        "moved by high / 2 - (0 .. high - 1) Hz, one draw for the batch.",
    )


KALDI = Spectrum()
