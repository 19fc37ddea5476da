"""Mel filter banks, and the logarithms of what frames hold in their bands.

Axes: B clips, S samples, T frames, W samples of a frame, N of its transform, M mel bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from c2ftool.spec.spectrum import Spectrum

MelScale = Literal["kaldi", "htk", "slaney"]

# (columns of the spectrum, bands, weights (columns, bands)) of neighbouring bands
Blocks = list[tuple[slice, slice, Tensor]]

# Frames worked on together: on a CPU about what stays in a core's cache, elsewhere what bounds the memory.
_CPU_FRAMES = 512
_DEVICE_FRAMES = 1 << 17

# Slaney's scale (Auditory Toolbox, 1998): 15 mel to 1 kHz in equal steps, from there 27 to each factor of 6.4
_BREAK_HZ, _BREAK_MEL, _OCTAVE = 1000.0, 15.0, math.log(6.4) / 27


def mel_of(hertz: Tensor, scale: MelScale) -> Tensor:
    """The mel values of frequencies; HTK's scale is Kaldi's."""
    if scale == "slaney":
        above = _BREAK_MEL + torch.log(hertz.clamp(min=_BREAK_HZ) / _BREAK_HZ) / _OCTAVE
        return torch.where(hertz < _BREAK_HZ, hertz * _BREAK_MEL / _BREAK_HZ, above)
    return 1127.0 * torch.log1p(hertz / 700.0)


def hertz_of(mel: Tensor, scale: MelScale) -> Tensor:
    """The frequencies of mel values."""
    if scale == "slaney":
        above = _BREAK_HZ * torch.exp((mel - _BREAK_MEL).clamp(min=0) * _OCTAVE)
        return torch.where(mel < _BREAK_MEL, mel * _BREAK_HZ / _BREAK_MEL, above)
    return 700.0 * torch.expm1(mel / 1127.0)


@lru_cache(maxsize=32)
def mel_bank(
    scale: MelScale, mels: int, fft: int, sample_rate: int, low_hz: float, high_hz: float | None, device: torch.device
) -> Tensor:
    """(fft // 2 + 1, mels) float32 weights of the bins in bands equally spaced in mel from low_hz to high_hz.

    `kaldi`: triangles in mel, no weight at half the sample rate; `htk`: triangles in hertz (torchaudio's without norm);
    `slaney`: triangles in hertz, each of area 1 (librosa's). high_hz: half the sample rate if None; where it lies above
    that, bands beyond have no weight, as published (HTS-AT at 16 kHz). Computed in float64 and rounded once. Raises
    ValueError where no band lies between the edges.
    """
    top = sample_rate / 2 if high_hz is None else high_hz
    if not 0 <= low_hz < min(top, sample_rate / 2):
        raise ValueError(f"no mel band lies between {low_hz:g} and {min(top, sample_rate / 2):g} Hz")
    low, high = mel_of(torch.tensor([low_hz, top], dtype=torch.float64), scale)
    edges = low + torch.arange(mels + 2, dtype=torch.float64) * (high - low) / (mels + 1)
    bins = torch.arange(fft // 2 + 1, dtype=torch.float64) * sample_rate / fft
    if scale == "kaldi":
        bins = mel_of(bins, scale)
    else:
        edges = hertz_of(edges, scale)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins[:, None] - left) / (centre - left), (right - bins[:, None]) / (right - centre)
    weights = torch.minimum(rising, falling).clamp(min=0)
    if scale == "kaldi":
        weights[fft // 2] = 0
    elif scale == "slaney":
        weights *= 2 / (right - left)
    return weights.float().to(device)


def log_energies(
    signals: Tensor,
    write: Callable[[Tensor, Tensor], None],
    *,
    frames: int,
    frame_length: int,
    hop: int,
    fft: int,
    sample_rate: int,
    mels: int,
    spectrum: Spectrum,
) -> Tensor:
    """(B, frames, mels) float32 logarithms of the bands' energies in frames of (B, S) signals; no gradient.

    Frame t has the samples from t * hop on. write: puts the windowed frames of (b, s) samples into a given (b, t, W).
    Bank, logarithm and floor are the spectrum's; its `top_db` and `clamp` are left to the caller.
    """
    clips, device = len(signals), signals.device
    blocks = _blocks(spectrum.mel_scale, mels, fft, sample_rate, spectrum.low_hz, spectrum.high_hz, device)
    out = signals.new_empty(clips, frames, mels)
    if not out.numel():
        return out
    at_once = _CPU_FRAMES if device.type == "cpu" else _DEVICE_FRAMES
    # used again for each part of a batch: fresh memory costs more than the arithmetic done in it. Frames are written
    # where the transform reads them: padding by the transform itself would copy them once more
    room = signals.new_zeros(min(at_once, clips * frames), fft)
    with torch.no_grad(), _full_precision(device):
        for rows, first, last in _parts(clips, frames, at_once):
            samples = signals[rows, first * hop : (last - 1) * hop + frame_length]
            shape = len(samples), last - first
            padded = room[: shape[0] * shape[1]]
            write(samples, padded.view(*shape, fft)[..., :frame_length])
            part = out[rows, first:last].view(len(padded), mels)
            _energies(padded, blocks, part)
            _take_log(part, spectrum)
    return out


def _energies(frames: Tensor, blocks: Blocks, out: Tensor) -> None:
    """Write the energies (n, M) in the bands of windowed frames (n, N) to `out`."""
    # real and imaginary parts stay side by side and the banks hold each bin twice: adding the two squares before the
    # product would cost more than a product twice as long
    squares = torch.view_as_real(torch.fft.rfft(frames)).view(len(frames), -1).square_()
    for columns, bands, weights in blocks:
        torch.mm(squares[:, columns], weights, out=out[:, bands])


def _take_log(energies: Tensor, spectrum: Spectrum) -> None:
    """The spectrum's logarithm, in place."""
    match spectrum.log:
        case "ln":
            energies.clamp_(min=spectrum.floor).log_()
        case "ln_offset":
            energies.add_(spectrum.floor).log_()
        case "db":
            energies.clamp_(min=spectrum.floor).log10_().mul_(10)


def _parts(clips: int, frames: int, at_once: int) -> Iterator[tuple[slice, int, int]]:
    """(clips, first frame, last frame + 1) of pieces of a batch: several whole clips, or a stretch of one long clip."""
    together = max(1, at_once // frames)
    for clip in range(0, clips, together):
        for first in range(0, frames, at_once):
            yield slice(clip, clip + together), first, min(first + at_once, frames)


@lru_cache(maxsize=32)
def _blocks(
    scale: MelScale, mels: int, fft: int, sample_rate: int, low_hz: float, high_hz: float | None, device: torch.device
) -> Blocks:
    """The bank, each bin twice (for the squares of its real and imaginary part), cut into blocks of bands.

    A block has only the columns that its bands need: on a CPU eight blocks save most of the products, which are with 0;
    elsewhere one product is quicker than several short ones.
    """
    # cut where reading what is needed stops nothing
    bank = mel_bank(scale, mels, fft, sample_rate, low_hz, high_hz, torch.device("cpu")).repeat_interleave(2, dim=0)
    blocks: Blocks = []
    for bands in torch.arange(mels).tensor_split(8 if device.type == "cpu" else 1):
        if not len(bands):
            continue
        columns = slice(int(bands[0]), int(bands[-1]) + 1)
        used = bank[:, columns].any(1).nonzero().flatten()
        rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((rows, columns, bank[rows, columns].contiguous().to(device)))
    return blocks


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products within: TF32, which training asks for, would make five times the error allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
