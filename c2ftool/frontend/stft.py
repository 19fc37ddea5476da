"""Log-mels of a short-time Fourier transform with centred frames, batched: ATST, PaSST, M2D, PANNs, HTS-AT.

Axes: B clips, S samples, T frames, W samples of the window, N of the transform, M mel bands.

Frame t is centred on sample t * hop and the signal goes on mirrored beyond its ends, as in `torch.stft(center=True,
pad_mode="reflect")`. There the window lies in the middle of the transform's samples; a power spectrum does not change
where they are moved in a circle, so here it lies at their beginning and nothing beside the window is read.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from c2ftool.frontend.banks import log_energies
from c2ftool.spec.spectrum import Spectrum

PREEMPHASIS = 0.97


def emphasised(waveforms: Tensor) -> Tensor:
    """(B, S - 1) x[t + 1] - 0.97 x[t] of waveforms (B, S), as PaSST's code has it."""
    return torch.sub(waveforms[:, 1:], waveforms[:, :-1], alpha=PREEMPHASIS)


def log_mel(
    signals: Tensor,
    lengths: Tensor | None = None,
    *,
    sample_rate: int,
    mels: int,
    frame_length: int,
    hop: int,
    spectrum: Spectrum,
) -> Tensor:
    """(B, 1 + S // hop, mels) float32 log-mel of (B, S) float32 signals, already emphasised where that is wanted.

    frame_length, hop: samples; the window is a periodic Hann window. lengths: (B,) valid samples of each signal, which
    is mirrored there, and its frames after 1 + length // hop are 0; without them all are whole. `top_db` is below the
    clip's own largest value, not the batch's. Nothing is made of no samples. No gradient is made. Raises ValueError for
    signals of another shape or type.
    """
    if signals.ndim != 2 or signals.dtype != torch.float32:
        raise ValueError(f"waveforms must be (clips, samples) float32, not {tuple(signals.shape)} {signals.dtype}")
    samples, fft = signals.shape[1], frame_length
    if spectrum.padded:
        fft = 1 << (frame_length - 1).bit_length()
    frames = 1 + samples // hop if samples else 0
    window = _window(frame_length, signals.device)
    left = fft // 2 - (fft - frame_length) // 2
    right = max(0, (frames - 1) * hop + frame_length - left - samples)

    def write(part: Tensor, out: Tensor) -> None:
        torch.mul(part.unfold(1, frame_length, hop), window, out=out)

    out = log_energies(
        _mirrored(signals, left, right, lengths) if samples else signals,
        write,
        frames=frames,
        frame_length=frame_length,
        hop=hop,
        fft=fft,
        sample_rate=sample_rate,
        mels=mels,
        spectrum=spectrum,
    )
    beyond = None
    if lengths is not None:
        beyond = (torch.arange(frames, device=out.device) >= frames_of(lengths, hop)[:, None])[..., None]
    if spectrum.top_db is not None and out.numel():
        own = out if beyond is None else out.masked_fill(beyond, -math.inf)
        torch.maximum(out, own.amax((1, 2), keepdim=True) - spectrum.top_db, out=out)
    if spectrum.clamp is not None:
        out.clamp_(spectrum.clamp[0], spectrum.clamp[1])
    return out if beyond is None else out.masked_fill_(beyond, 0.0)


def frames_of(lengths: Tensor, hop: int) -> Tensor:
    """(B,) frames of signals of (B,) samples."""
    return torch.where(lengths > 0, 1 + lengths // hop, 0)


def _mirrored(signals: Tensor, left: int, right: int, lengths: Tensor | None) -> Tensor:
    """(B, left + S + right): the signals with their mirror images before and behind them.

    lengths: where each ends and turns back; without them behind sample S. Signals shorter than what is wanted are
    mirrored to and fro.
    """
    samples = signals.shape[1]
    if lengths is None and samples > max(left, right):
        return nn.functional.pad(signals, (left, right), mode="reflect")
    # int32: remainders of int64 take ten times as long on a CPU
    places = torch.arange(-left, samples + right, dtype=torch.int32, device=signals.device).abs_()
    ends = signals.new_full((len(signals),), samples) if lengths is None else lengths
    last = (ends.int() - 1).clamp_(min=0)[:, None]
    turned = last - (places % (2 * last).clamp_(min=1) - last).abs_()
    return signals.gather(1, turned.long())


@lru_cache(maxsize=32)
def _window(length: int, device: torch.device) -> Tensor:
    """(length,) float32 periodic Hann window."""
    i = torch.arange(length, dtype=torch.float64, device="cpu")
    return (0.5 - 0.5 * torch.cos(2 * math.pi * i / length)).float().to(device)
