"""The Kaldi filter bank, batched, at any frame length and hop.

Axes: B clips, S samples, T frames, W samples of a frame, M mel bands.

Per frame Kaldi removes the mean m, pre-emphasises (x[i] - 0.97 x[i-1], the first sample against itself) and applies the
window. All three are linear, so with p[i] = x[i] - 0.97 x[i-1] taken once over the signal a frame is
window * (p - 0.03 m), its first sample window[0] * 0.03 (x[0] - m): one pass over the frames instead of four.
Edges are snipped: only frames that lie wholly inside the signal are made.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from c2ftool.frontend.banks import log_energies
from c2ftool.spec.spectrum import KALDI, Spectrum

PREEMPHASIS = 0.97


def frame_count(samples: int, frame_length: int, hop: int) -> int:
    """Frames that lie wholly inside a signal."""
    return 0 if samples < frame_length else 1 + (samples - frame_length) // hop


def log_mel(
    waveforms: Tensor,
    *,
    sample_rate: int,
    mels: int,
    frame_length: int,
    hop: int,
    window: str = "hanning",
    spectrum: Spectrum = KALDI,
) -> Tensor:
    """(B, T, mels) float32 log filter bank energies of (B, S) float32 waveforms; natural log, floored at epsilon.

    frame_length, hop: samples. Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False,
    dither=0, window_type=window)` of each clip; a frame depends on its own samples alone. spectrum: another bank or
    logarithm; what it says of the waveform is left to the caller. No gradient is made. Raises ValueError for waveforms
    of another shape or type, and for an unknown window.
    """
    if waveforms.ndim != 2 or waveforms.dtype != torch.float32:
        raise ValueError(f"waveforms must be (clips, samples) float32, not {tuple(waveforms.shape)} {waveforms.dtype}")
    shape = _window(window, frame_length, waveforms.device)

    def write(samples: Tensor, out: Tensor) -> None:
        _write_frames(samples, hop, shape, out)

    return log_energies(
        waveforms,
        write,
        frames=frame_count(waveforms.shape[1], frame_length, hop),
        frame_length=frame_length,
        hop=hop,
        fft=1 << (frame_length - 1).bit_length() if spectrum.padded else frame_length,
        sample_rate=sample_rate,
        mels=mels,
        spectrum=spectrum,
    )


def _write_frames(waveforms: Tensor, hop: int, window: Tensor, out: Tensor) -> None:
    """Write the emphasised, windowed frames of (b, s) waveforms to `out` (b, t, W)."""
    length, rest = len(window), 1 - PREEMPHASIS
    framed = waveforms.unfold(1, length, hop)  # (b, t, W) view
    means = framed.mean(-1, keepdim=True)
    # 0.03 x[i-1] + (x[i] - x[i-1]): beside a large offset the difference is exact where x[i] - 0.97 x[i-1] is not
    emphasised = torch.empty_like(waveforms)  # its first sample is never used
    torch.sub(waveforms[:, 1:], waveforms[:, :-1], out=emphasised[:, 1:])
    emphasised[:, 1:].add_(waveforms[:, :-1], alpha=rest)
    torch.sub(emphasised.unfold(1, length, hop), means, alpha=rest, out=out)
    out[..., :1] = (framed[..., :1] - means) * rest
    out.mul_(window)


@lru_cache(maxsize=32)
def _window(name: str, length: int, device: torch.device) -> Tensor:
    """(length,) float32 symmetric window."""
    i = torch.arange(length, dtype=torch.float64, device="cpu")
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * i / (length - 1))
    match name:
        case "hanning":
            shape = hann
        case "povey":
            shape = hann**0.85
        case "hamming":
            shape = 0.54 - 0.46 * torch.cos(2 * math.pi * i / (length - 1))
        case "rectangular":
            shape = torch.ones_like(i)
        case _:
            raise ValueError(f"unknown window {name!r}: hanning, povey, hamming or rectangular")
    return shape.float().to(device)
