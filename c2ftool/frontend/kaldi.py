"""The Kaldi filter bank, batched, at any frame length and hop.

Axes: B clips, S samples, T frames, W samples of a frame, M mel bands.

Per frame Kaldi removes the mean m, pre-emphasises (x[i] - 0.97 x[i-1], the first sample against itself) and applies the
window. All three are linear, so with p[i] = x[i] - 0.97 x[i-1] taken once over the signal a frame is
window * (p - 0.03 m), its first sample window[0] * 0.03 (x[0] - m): one pass over the frames instead of four.
Edges are snipped: only frames that lie wholly inside the signal are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

PREEMPHASIS = 0.97
LOW_HZ = 20.0

# (columns of the spectrum, bands, weights (columns, bands)) of neighbouring bands
Blocks = list[tuple[slice, slice, Tensor]]

# Frames worked on together on a CPU: about what stays in a core's cache.
_CPU_FRAMES = 512


def frame_count(samples: int, frame_length: int, hop: int) -> int:
    """Frames that lie wholly inside a signal."""
    return 0 if samples < frame_length else 1 + (samples - frame_length) // hop


def log_mel(
    waveforms: Tensor, *, sample_rate: int, mels: int, frame_length: int, hop: int, window: str = "hanning"
) -> Tensor:
    """(B, T, mels) float32 log filter bank energies of (B, S) float32 waveforms; natural log, floored at epsilon.

    frame_length, hop: samples. Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False,
    dither=0, window_type=window)` of each clip; a frame depends on its own samples alone. No gradient is made. Raises
    ValueError for waveforms of another shape or type, and for an unknown window.
    """
    if waveforms.ndim != 2 or waveforms.dtype != torch.float32:
        raise ValueError(f"waveforms must be (clips, samples) float32, not {tuple(waveforms.shape)} {waveforms.dtype}")
    clips, device = len(waveforms), waveforms.device
    frames = frame_count(waveforms.shape[1], frame_length, hop)
    fft = 1 << (frame_length - 1).bit_length()
    shape = _window(window, frame_length, device)
    banks = _bank_blocks(mels, fft, sample_rate, device)
    out = waveforms.new_empty(clips, frames, mels)
    if not out.numel():
        return out
    at_once = _CPU_FRAMES if device.type == "cpu" else clips * frames
    # used again for each part of a batch: fresh memory costs more than the arithmetic done in it
    room = waveforms.new_zeros(min(at_once, clips * frames), fft)
    with torch.no_grad(), _full_precision():
        for rows, first, last in _parts(clips, frames, at_once):
            samples = waveforms[rows, first * hop : (last - 1) * hop + frame_length]
            _log_mel(samples, hop, shape, banks, room, out[rows, first:last])
    return out


def _parts(clips: int, frames: int, at_once: int) -> Iterator[tuple[slice, int, int]]:
    """(clips, first frame, last frame + 1) of pieces of a batch: several whole clips, or a stretch of one long clip."""
    together = max(1, at_once // frames)
    for clip in range(0, clips, together):
        for first in range(0, frames, at_once):
            yield slice(clip, clip + together), first, min(first + at_once, frames)


def _log_mel(waveforms: Tensor, hop: int, window: Tensor, banks: Blocks, room: Tensor, out: Tensor) -> None:
    """Write the log-mel (b, t, M) of (b, s) waveforms to `out`. room: (b t or more, fft), 0 beyond the frame length."""
    clips, frames, _ = out.shape
    length, rest = len(window), 1 - PREEMPHASIS
    framed = waveforms.unfold(1, length, hop)  # (b, t, W) view
    means = framed.mean(-1, keepdim=True)
    # 0.03 x[i-1] + (x[i] - x[i-1]): beside a large offset the difference is exact where x[i] - 0.97 x[i-1] is not
    emphasised = torch.empty_like(waveforms)  # its first sample is never used
    torch.sub(waveforms[:, 1:], waveforms[:, :-1], out=emphasised[:, 1:])
    emphasised[:, 1:].add_(waveforms[:, :-1], alpha=rest)
    # frames are written where the transform reads them: padding by the transform itself would copy them once more
    padded = room[: clips * frames].view(clips, frames, -1)
    torch.sub(emphasised.unfold(1, length, hop), means, alpha=rest, out=padded[..., :length])
    padded[..., :1] = (framed[..., :1] - means) * rest
    padded[..., :length].mul_(window)
    # real and imaginary parts stay side by side and the banks hold each bin twice: adding the two squares before the
    # product would cost more than a product twice as long
    squares = torch.view_as_real(torch.fft.rfft(padded)).view(clips * frames, -1).square_()
    flat = out.view(clips * frames, -1)
    for columns, bands, weights in banks:
        torch.mm(squares[:, columns], weights, out=flat[:, bands])
    out.clamp_(min=torch.finfo(torch.float32).eps).log_()


@contextmanager
def _full_precision() -> Iterator[None]:
    """Float32 products within: TF32, which training asks for, would make five times the error allowed.

    Autocast needs no such care: it leaves products that are written to a given tensor as they are.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


@lru_cache(maxsize=32)
def mel_banks(mels: int, fft: int, sample_rate: int, device: torch.device) -> Tensor:
    """(fft // 2 + 1, mels) float32 triangles, equally spaced in Kaldi's mel from 20 Hz to half the sample rate.

    The bin at half the sample rate has no weight, as in Kaldi.
    """

    def mel(hertz: Tensor | float) -> Tensor:
        return 1127.0 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700.0)

    low, high = mel(LOW_HZ), mel(sample_rate / 2)
    edges = low + torch.arange(mels + 2, dtype=torch.float64) * (high - low) / (mels + 1)
    bins = mel(torch.arange(fft // 2, dtype=torch.float64) * sample_rate / fft)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return torch.cat([triangles, torch.zeros(1, mels, dtype=torch.float64)]).float().to(device)


@lru_cache(maxsize=32)
def _bank_blocks(mels: int, fft: int, sample_rate: int, device: torch.device) -> Blocks:
    """The banks, each bin twice (for the squares of its real and imaginary part), cut into blocks of bands.

    A block has only the columns that its bands need: on a CPU eight blocks save most of the products, which are with 0;
    elsewhere one product is quicker than several short ones.
    """
    banks = mel_banks(mels, fft, sample_rate, device).repeat_interleave(2, dim=0)
    blocks: Blocks = []
    for bands in torch.arange(mels).tensor_split(8 if device.type == "cpu" else 1):
        if not len(bands):
            continue
        columns = slice(int(bands[0]), int(bands[-1]) + 1)
        used = banks[:, columns].any(1).nonzero().flatten()
        rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((rows, columns, banks[rows, columns].contiguous()))
    return blocks
