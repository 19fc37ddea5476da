"""The front ends that backbones were published with, as data. Built by c2ftool/frontend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from c2ftool.spec.spectrum import KALDI, Spectrum

Padding = Literal["log_mel", "silence", "repeat"]


@dataclass(frozen=True)
class FrontendDefaults:
    """A front end. Durations in milliseconds; features are (log-mel - mean) / (2 std).

    mean, std: None where they are measured on the data. pad: how shorter clips are filled up.
    """

    sample_rate: int = 16_000
    mels: int = 128
    window: str = "hanning"
    frame_length_ms: int = 25
    hop_ms: int = 10
    frames: int = 1024
    mean: float | None = None
    std: float | None = None
    pad: Padding = "log_mel"
    spectrum: Spectrum = KALDI

    @property
    def about(self) -> str:
        """In a few words: `Kaldi 128 mels 16 kHz`, `STFT, Slaney 64 mels 32 kHz`."""
        kinds = {"kaldi": "Kaldi", "htk": "HTK", "slaney": "Slaney"}
        stft = "STFT, " if self.spectrum.kind == "stft" else ""
        return f"{stft}{kinds[self.spectrum.mel_scale]} {self.mels} mels {self.sample_rate // 1000} kHz"


AST = FrontendDefaults()
# Chen et al., ICML 2023: Kaldi with Povey's window, of the waveform as 16-bit numbers
BEATS = FrontendDefaults(
    window="povey", frames=998, mean=15.41663, std=6.55582, pad="silence",
    spectrum=Spectrum(scale=32768.0, remove_mean=False),
)  # fmt: skip
ASIT = replace(AST, frames=998, mean=-4.2677393, std=4.5689974, pad="silence")
# torchaudio's MelSpectrogram in decibels, brought from [-79.6482, 50.6842] to [-1, 1]
ATST = FrontendDefaults(
    mels=64, window="hann", frame_length_ms=64, frames=1001, mean=(50.6842 - 79.6482) / 2, std=(50.6842 + 79.6482) / 4,
    pad="silence",
    spectrum=Spectrum(
        kind="stft", remove_mean=False, mel_scale="htk", low_hz=60, high_hz=7800, log="db", floor=1e-10, top_db=80,
        clamp=[-50.0, 80.0],
    ),
)  # fmt: skip
FPASST = FrontendDefaults(
    window="hann", frames=1000, mean=-4.5, std=2.5, pad="silence",
    spectrum=Spectrum(
        kind="stft", remove_mean=False, preemphasis=True, low_hz=0, high_hz=7000, floor=1e-7, jitter=[10, 2000]
    ),
)  # fmt: skip
# nnAudio's MelSpectrogram
M2D = FrontendDefaults(
    mels=80, window="hann", frames=1001, mean=-7.1, std=2.1, pad="silence",
    spectrum=Spectrum(
        kind="stft", remove_mean=False, padded=False, mel_scale="slaney", low_hz=50, high_hz=8000, log="ln_offset"
    ),
)  # fmt: skip
# torchlibrosa's, of HTS-AT and PANNs; a batch norm inside the network takes the place of mean and deviation
PANNS = FrontendDefaults(
    sample_rate=32_000, mels=64, window="hann", frame_length_ms=32, frames=1001, mean=0.0, std=0.5, pad="silence",
    spectrum=Spectrum(
        kind="stft", remove_mean=False, mel_scale="slaney", low_hz=50, high_hz=14_000, log="db", floor=1e-10
    ),
)  # fmt: skip
