"""The Kaldi filter bank, batched, at any frame length and hop.

Axes: B clips, S samples, T frames, W samples of a frame, M mel bands.

Per frame Kaldi removes the mean m, pre-emphasises (x[i] - 0.97 x[i-1], the first sample against itself) and applies the
window. All three are linear, so with p[i] = x[i] - 0.97 x[i-1] taken once over the signal a frame is
window * (p - 0.03 m), its first sample window[0] * 0.03 (x[0] - m): one pass over the frames instead of four.
Edges are snipped: only frames that lie wholly inside the signal are made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

PREEMPHASIS = 0.97
LOW_HZ = 20.0


def frame_count(samples: int, frame_length: int, hop: int) -> int:
    """Frames that lie wholly inside a signal."""
    return 0 if samples < frame_length else 1 + (samples - frame_length) // hop


def log_mel(
    waveforms: Tensor, *, sample_rate: int, mels: int, frame_length: int, hop: int, window: str = "hanning"
) -> Tensor:
    """(B, T, mels) float32 log filter bank energies of (B, S) float32 waveforms; natural log, floored at epsilon.

    frame_length, hop: samples. Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False,
    dither=0, window_type=window)` of each clip. On a CPU clips go one by one, so that the frames of one stay in cache.
    """
    if waveforms.ndim != 2:
        raise ValueError(f"waveforms must be (clips, samples), not {tuple(waveforms.shape)}")
    frames = frame_count(waveforms.shape[1], frame_length, hop)
    if frames == 0:
        return waveforms.new_zeros(len(waveforms), 0, mels)
    fft = 1 << (frame_length - 1).bit_length()
    shape = _window(window, frame_length, waveforms.device)
    banks = _bank_blocks(mels, fft, sample_rate, waveforms.device)
    out = waveforms.new_empty(len(waveforms), frames, mels)
    at_once = _CPU_FRAMES if waveforms.device.type == "cpu" else frames * len(waveforms)
    clips = max(1, at_once // frames)
    room = _Room.of(waveforms.new_empty(min(clips, len(waveforms)), 0), frames, fft)
    for start in range(0, len(waveforms), clips):
        part = slice(start, start + clips)
        _log_mel(waveforms[part], frame_length, hop, shape, banks, room, out[part])
    return out


# (bins, bands, weights (bins, bands)) of neighbouring bands
Blocks = list[tuple[slice, slice, Tensor]]


# Frames worked on together on a CPU: about what stays in a core's cache.
_CPU_FRAMES = 256


@dataclass(frozen=True)
class _Room:
    """Buffers used again for each part of a batch: fresh memory costs more than the arithmetic done in it."""

    padded: Tensor  # (b, T, fft), zero beyond the frame length
    power: Tensor  # (b, T, fft // 2 + 1)

    @classmethod
    def of(cls, like: Tensor, frames: int, fft: int) -> _Room:
        return cls(like.new_zeros(len(like), frames, fft), like.new_empty(len(like), frames, fft // 2 + 1))

    def first(self, clips: int) -> _Room:
        return self if clips == len(self.padded) else _Room(self.padded[:clips], self.power[:clips])


def _log_mel(waveforms: Tensor, length: int, hop: int, window: Tensor, banks: Blocks, room: _Room, out: Tensor) -> None:
    room = room.first(len(waveforms))
    framed = waveforms.unfold(1, length, hop)  # (B, T, W) view
    means = framed.mean(-1, keepdim=True)
    emphasised = torch.cat([waveforms[:, :1], torch.sub(waveforms[:, 1:], waveforms[:, :-1], alpha=PREEMPHASIS)], 1)
    rest = 1 - PREEMPHASIS
    # frames are written where the transform reads them: padding by the transform itself would copy them once more
    frames = room.padded[..., :length]
    torch.sub(emphasised.unfold(1, length, hop), means, alpha=rest, out=frames)
    frames[..., :1] = (framed[..., :1] - means) * rest
    frames.mul_(window)
    spectrum = torch.fft.rfft(room.padded)
    # real and imaginary parts by themselves: reducing over the pair axis is four times slower on a CPU
    torch.mul(spectrum.real, spectrum.real, out=room.power).addcmul_(spectrum.imag, spectrum.imag)
    power, flat = room.power.flatten(0, 1), out.flatten(0, 1)
    for bins, bands, weights in banks:
        torch.mm(power[:, bins], weights, out=flat[:, bands])
    out.clamp_(min=torch.finfo(torch.float32).eps).log_()


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
    """The banks in four blocks of bands, each with the bins it needs: a quarter of the products of the whole matrix."""
    banks = mel_banks(mels, fft, sample_rate, device)
    blocks: Blocks = []
    for bands in torch.arange(mels).tensor_split(4):
        if not len(bands):
            continue
        columns = slice(int(bands[0]), int(bands[-1]) + 1)
        used = banks[:, columns].any(1).nonzero().flatten()
        rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((rows, columns, banks[rows, columns].contiguous()))
    return blocks
