"""The batched filter bank against torchaudio's, and against a plain float64 twin that goes frame by frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from c2ftool.frontend.banks import mel_bank
from c2ftool.frontend.kaldi import log_mel

EPSILON = float(np.finfo(np.float32).eps)
WINDOWS = ("hanning", "povey", "hamming", "rectangular")


def window_value(name: str, i: int, length: int) -> float:
    turn = math.cos(2 * math.pi * i / (length - 1))
    values = {"hanning": 0.5 - 0.5 * turn, "hamming": 0.54 - 0.46 * turn, "rectangular": 1.0}
    return (0.5 - 0.5 * turn) ** 0.85 if name == "povey" else values[name]


def plain_log_mel(clip: np.ndarray, rate: int, mels: int, length: int, hop: int, window: str) -> np.ndarray:
    """(frames, mels) float64: each step of Kaldi's recipe as its manual states it."""
    fft = 2 ** math.ceil(math.log2(length))
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (20.0, rate / 2))
    step = (high - low) / (mels + 1)
    rows = []
    for start in range(0, len(clip) - length + 1, hop):
        frame = clip[start : start + length].astype(np.float64)
        frame = frame - frame.mean()
        emphasised = [frame[0] - 0.97 * frame[0], *(frame[i] - 0.97 * frame[i - 1] for i in range(1, length))]
        shaped = [value * window_value(window, i, length) for i, value in enumerate(emphasised)]
        power = np.abs(np.fft.rfft(shaped, fft)) ** 2
        row = []
        for band in range(mels):
            left, centre, right = (low + (band + k) * step for k in range(3))
            energy = 0.0
            for k in range(fft // 2):
                mel = 1127 * math.log(1 + k * rate / fft / 700)
                energy += power[k] * max(0.0, min((mel - left) / (centre - left), (right - mel) / (right - centre)))
            row.append(math.log(max(energy, EPSILON)))
        rows.append(row)
    return np.array(rows)


def torchaudio_log_mel(clip: Tensor, rate: int, mels: int, length: int, hop: int, window: str) -> Tensor:
    return kaldi.fbank(
        clip[None], htk_compat=True, sample_frequency=rate, use_energy=False, window_type=window, num_mel_bins=mels,
        dither=0.0, frame_length=length * 1000 / rate, frame_shift=hop * 1000 / rate,
    )  # fmt: skip


def ours(clip: Tensor, rate: int, mels: int, length: int, hop: int, window: str) -> Tensor:
    return log_mel(clip[None], sample_rate=rate, mels=mels, frame_length=length, hop=hop, window=window)[0]


def error(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def signals(rate: int = 16_000, samples: int = 3000) -> dict[str, Tensor]:
    """What is hard in float32: a bare tone between the bands' floor, an offset, rumble, a near-silent 16-bit clip."""
    rng, t = np.random.default_rng(3), np.arange(samples) / rate
    hiss = rng.standard_normal(samples)
    named = {
        "noise": 0.1 * hiss,
        "tone": 0.5 * np.sin(2 * np.pi * 1000 * t) + 1e-4 * hiss,
        "offset": 0.5 + 1e-3 * hiss,
        "rumble": 0.7 * np.sin(2 * np.pi * 3 * t) + 1e-5 * hiss,
        "quiet": np.round(2 * hiss) / 32768,
    }
    return {name: torch.from_numpy(x).float() for name, x in named.items()}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", sorted(signals()))
def test_the_filter_bank_is_torchaudios_and_as_exact(name: str, window: str) -> None:
    clip, shape = signals()[name], (16_000, 40, 400, 160, window)
    truth = plain_log_mel(clip.numpy(), *shape)
    reference = torchaudio_log_mel(clip, *shape)
    computed = ours(clip, *shape)
    assert error(computed, reference) <= 2e-5
    assert error(computed, truth) <= max(1.2 * error(reference, truth), 2e-6)


@pytest.mark.parametrize(
    ("rate", "mels", "length", "hop"),
    [
        (16_000, 128, 400, 160),
        (16_000, 128, 400, 320),  # frame shift 2
        (16_000, 128, 400, 2560),  # frame shift 16: hops longer than the window
        (16_000, 23, 512, 100),  # a window that fills the transform
        (32_000, 64, 800, 320),
        (44_100, 128, 1103, 441),
        (8_000, 8, 200, 80),
    ],
)
def test_any_rate_bands_window_and_hop(rate: int, mels: int, length: int, hop: int) -> None:
    clip = torch.from_numpy(0.1 * np.random.default_rng(4).standard_normal(rate)).float()
    reference = torchaudio_log_mel(clip, rate, mels, length, hop, "hanning")
    computed = ours(clip, rate, mels, length, hop, "hanning")
    assert computed.shape == reference.shape
    assert error(computed, reference) <= 2e-5


def test_clips_longer_than_a_piece_of_work() -> None:
    """A CPU works through long clips in stretches and short ones together: neither shows."""
    clips = 0.1 * torch.randn(3, 16_000 * 12, generator=torch.Generator().manual_seed(0))
    together = log_mel(clips, sample_rate=16_000, mels=64, frame_length=400, hop=160)
    for clip, row in zip(clips, together, strict=True):
        assert error(row, torchaudio_log_mel(clip, 16_000, 64, 400, 160, "hanning")) <= 2e-5
    short = clips[:, :1000]
    for clip, row in zip(short, log_mel(short, sample_rate=16_000, mels=64, frame_length=400, hop=160), strict=True):
        assert error(row, torchaudio_log_mel(clip, 16_000, 64, 400, 160, "hanning")) <= 2e-5


def test_the_mel_bank_is_torchaudios() -> None:
    """Weights, also of bands so narrow that no bin falls into them."""
    for mels, fft, rate in ((128, 512, 16_000), (64, 1024, 32_000), (200, 256, 8_000)):
        theirs, _ = kaldi.get_mel_banks(mels, fft, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0)
        mine = mel_bank("kaldi", mels, fft, rate, 20.0, None, torch.device("cpu"))
        assert mine.shape == (fft // 2 + 1, mels)
        assert torch.allclose(mine[:-1], theirs.T, atol=2e-4, rtol=0)  # theirs is made in float32
        assert not mine[-1].any()
