"""Front ends with centred frames against a plain float64 twin, and every bank against torchaudio's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor
from torchaudio.compliance import kaldi
from torchaudio.functional import melscale_fbanks

from c2ftool.frontend.banks import mel_bank
from c2ftool.frontend.build import build_frontend, raw_log_mel
from c2ftool.spec import frontends
from c2ftool.spec.frontends import FrontendDefaults
from c2ftool.spec.resolved import ResolvedFrontend

CPU = torch.device("cpu")
CENTRED = {name: getattr(frontends, name) for name in ("ATST", "FPASST", "M2D", "PANNS")}


def resolved(default: FrontendDefaults, **changes: object) -> ResolvedFrontend:
    """A published front end in samples; of its log-mel alone where nothing is measured."""
    rate = default.sample_rate
    values = {
        "sample_rate": rate, "mels": default.mels, "window": default.window, "frames": default.frames,
        "frame_length": default.frame_length_ms * rate // 1000, "hop": default.hop_ms * rate // 1000,
        "mean": default.mean or 0.0, "std": default.std or 0.5, "pad": default.pad, "spectrum": default.spectrum,
    }  # fmt: skip
    return ResolvedFrontend.model_validate({**values, **changes})


def plain_mel(hertz: float, scale: str) -> float:
    if scale == "slaney":
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)
    return 2595 * math.log10(1 + hertz / 700)


def plain_hertz(mel: float, scale: str) -> float:
    if scale == "slaney":
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)
    return 700 * (10 ** (mel / 2595) - 1)


def plain_bank(scale: str, mels: int, fft: int, rate: int, low: float, high: float) -> np.ndarray:
    """(mels, bins), weight by weight."""
    first, last = plain_mel(low, scale), plain_mel(high, scale)
    at = [first + k * (last - first) / (mels + 1) for k in range(mels + 2)]
    if scale != "kaldi":
        at = [plain_hertz(mel, scale) for mel in at]
    bank = np.zeros((mels, fft // 2 + 1))
    for band in range(mels):
        left, centre, right = at[band : band + 3]
        for k in range(fft // 2 + (scale != "kaldi")):
            place = k * rate / fft
            if scale == "kaldi":
                place = plain_mel(place, scale)
            weight = max(0.0, min((place - left) / (centre - left), (right - place) / (right - centre)))
            bank[band, k] = weight * (2 / (right - left) if scale == "slaney" else 1)
    return bank


def plain_log_mel(clip: np.ndarray, spec: ResolvedFrontend) -> np.ndarray:
    """(frames, mels) float64, frame by frame, as the papers' code goes about it."""
    spectrum, length, fft = spec.spectrum, spec.frame_length, spec.transform
    signal = clip.astype(np.float64) * spectrum.scale
    if spectrum.preemphasis:
        signal = np.array([signal[t + 1] - 0.97 * signal[t] for t in range(len(signal) - 1)])
    window = np.zeros(fft)
    for i in range(length):
        window[(fft - length) // 2 + i] = 0.5 - 0.5 * math.cos(2 * math.pi * i / length)
    high = spec.sample_rate / 2 if spectrum.high_hz is None else spectrum.high_hz
    bank = plain_bank(spectrum.mel_scale, spec.mels, fft, spec.sample_rate, spectrum.low_hz, high)
    padded = np.pad(signal, fft // 2, mode="reflect")
    rows = []
    for frame in range(1 + len(signal) // spec.hop):
        start = frame * spec.hop
        energies = bank @ np.abs(np.fft.rfft(padded[start : start + fft] * window)) ** 2
        match spectrum.log:
            case "ln":
                rows.append(np.log(np.maximum(energies, spectrum.floor)))
            case "ln_offset":
                rows.append(np.log(energies + spectrum.floor))
            case "db":
                rows.append(10 * np.log10(np.maximum(energies, spectrum.floor)))
    values = np.array(rows)
    if spectrum.top_db is not None:
        values = np.maximum(values, values.max() - spectrum.top_db)
    return values if spectrum.clamp is None else np.clip(values, spectrum.clamp[0], spectrum.clamp[1])


def torch_log_mel(clip: Tensor, spec: ResolvedFrontend, bank: Tensor) -> Tensor:
    """(frames, mels) float32 by torch's own transform and torchaudio's bank (bins, mels)."""
    spectrum = spec.spectrum
    signal = clip * spectrum.scale
    if spectrum.preemphasis:
        signal = signal[1:] - 0.97 * signal[:-1]
    window = torch.hann_window(spec.frame_length)
    power = torch.stft(signal, spec.transform, spec.hop, spec.frame_length, window, return_complex=True).abs() ** 2
    energies = power.T @ bank
    match spectrum.log:
        case "ln":
            return energies.clamp(min=spectrum.floor).log()
        case "ln_offset":
            return (energies + spectrum.floor).log()
        case "db":
            values = 10 * energies.clamp(min=spectrum.floor).log10()
            if spectrum.top_db is not None:
                values = values.clamp(min=float(values.max()) - spectrum.top_db)
            return values if spectrum.clamp is None else values.clamp(*spectrum.clamp)


def torchaudio_bank(spec: ResolvedFrontend) -> Tensor:
    """(bins, mels)"""
    low, high = spec.spectrum.low_hz, spec.spectrum.high_hz
    assert high is not None
    scale, fft, rate = spec.spectrum.mel_scale, spec.transform, spec.sample_rate
    if scale == "kaldi":
        theirs, _ = kaldi.get_mel_banks(spec.mels, fft, float(rate), low, high, 100.0, -500.0, 1.0)
        return torch.nn.functional.pad(theirs, (0, 1)).T
    return melscale_fbanks(
        fft // 2 + 1, low, high, spec.mels, rate, norm="slaney" if scale == "slaney" else None, mel_scale=scale
    )


def error(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def sounds(samples: int) -> dict[str, Tensor]:
    """What is hard in float32: a bare tone, an offset, a near-silent 16-bit clip; and noise."""
    rng, t = np.random.default_rng(5), np.arange(samples) / 16_000
    hiss = rng.standard_normal(samples)
    named = {
        "noise": 0.1 * hiss,
        "tone": 0.5 * np.sin(2 * np.pi * 1000 * t) + 1e-4 * hiss,
        "offset": 0.2 + 1e-2 * hiss,
        "quiet": np.round(2 * hiss) / 32768,
    }
    return {name: torch.from_numpy(x).float() for name, x in named.items()}


@pytest.mark.parametrize("sound", sorted(sounds(1)))
@pytest.mark.parametrize("name", sorted(CENTRED))
def test_centred_frames_are_torchs_and_as_exact(name: str, sound: str) -> None:
    spec, clip = resolved(CENTRED[name]), sounds(4000)[sound]
    truth, reference = plain_log_mel(clip.numpy(), spec), torch_log_mel(clip, spec, torchaudio_bank(spec))
    computed = raw_log_mel(clip[None], spec)[0]
    assert error(computed, truth) <= max(2e-5, 1.2 * error(reference, truth))
    if sound == "noise":
        assert error(computed, reference) <= 2e-5


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ATST", {"hop": 320}),
        ("ATST", {"hop": 2560}),  # hops longer than the window
        ("FPASST", {"hop": 640, "mels": 64}),
        ("FPASST", {"frame_length": 1600}),  # a window that grows with the hop
        ("M2D", {"hop": 640}),
        ("M2D", {"frame_length": 801}),
        ("PANNS", {"sample_rate": 16_000, "hop": 160, "frame_length": 512}),  # the upper edge lies above half the rate
    ],
)
def test_any_hop_window_and_rate_of_centred_frames(name: str, changes: dict[str, int]) -> None:
    spec, clip = resolved(CENTRED[name], **changes), sounds(7001)["noise"]
    truth = plain_log_mel(clip.numpy(), spec)
    computed = raw_log_mel(clip[None], spec)[0].numpy()[: len(truth)]
    assert error(computed, truth) <= 2e-5


def test_atst_has_torchaudios_mel_spectrogram_in_decibels() -> None:
    clips = torch.stack(list(sounds(16_000).values()))
    spectrogram = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=1024, win_length=1024, hop_length=160, f_min=60, f_max=7800, n_mels=64
    )
    decibels = torchaudio.transforms.AmplitudeToDB("power", top_db=80)
    ours = raw_log_mel(clips, resolved(frontends.ATST))
    for clip, row in zip(clips, ours, strict=True):  # theirs takes the loudest value of a whole batch
        assert error(row, decibels(spectrogram(clip)).clamp(-50, 80).T) <= 2e-5


def test_beats_and_asit_have_torchaudios_kaldi() -> None:
    clips = torch.stack(list(sounds(16_000).values()))
    beats, asit = (raw_log_mel(clips, resolved(front)) for front in (frontends.BEATS, frontends.ASIT))
    for row, clip in enumerate(clips):
        for mine, wave, window in ((beats, clip * 32768, "povey"), (asit, clip - clip.mean(), "hanning")):
            theirs = kaldi.fbank(
                wave[None], num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10,
                window_type=window, dither=0.0,
            )  # fmt: skip
            assert error(mine[row], theirs) <= 2e-5


def test_normalised_features_have_the_papers_scale() -> None:
    clip = sounds(160_000)["noise"][None]
    whole = torch.tensor([160_000])
    raw = raw_log_mel(clip, resolved(frontends.ATST))
    atst = build_frontend(resolved(frontends.ATST))(clip, whole)
    assert torch.allclose(atst, (raw + 79.6482) / (50.6842 + 79.6482) * 2 - 1, atol=1e-6)
    raw = raw_log_mel(clip, resolved(frontends.M2D))
    assert torch.allclose(build_frontend(resolved(frontends.M2D))(clip, whole), (raw + 7.1) / 4.2, atol=1e-6)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize(
    ("mels", "fft", "rate", "low", "high"),
    [(64, 1024, 16_000, 60.0, 7800.0), (80, 400, 16_000, 50.0, 8000.0), (64, 1024, 32_000, 50.0, 14_000.0),
     (40, 512, 22_050, 0.0, 11_025.0), (200, 256, 8_000, 0.0, 4000.0)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_htk_and_slaney_banks_are_torchaudios(
    scale: str, mels: int, fft: int, rate: int, low: float, high: float
) -> None:
    theirs = melscale_fbanks(
        fft // 2 + 1, low, high, mels, rate, norm="slaney" if scale == "slaney" else None, mel_scale=scale
    )
    mine = mel_bank(scale, mels, fft, rate, low, high, CPU)
    assert mine.shape == theirs.shape
    # theirs is made in float32 of float32 frequencies
    assert float((mine - theirs).abs().max()) <= 2e-4 * float(theirs.max())
    assert error(mine.T, plain_bank(scale, mels, fft, rate, low, high)) <= 1e-7


@pytest.mark.parametrize(("low", "high"), [(0.0, 7000.0), (9.0, 6001.0), (20.0, 8000.0)])
def test_kaldi_banks_between_any_edges_are_torchaudios(low: float, high: float) -> None:
    theirs, _ = kaldi.get_mel_banks(128, 512, 16_000.0, low, high, 100.0, -500.0, 1.0)
    mine = mel_bank("kaldi", 128, 512, 16_000, low, high, CPU)
    assert torch.allclose(mine[:-1], theirs.T, atol=2e-4, rtol=0) and not mine[-1].any()
    assert error(mine.T, plain_bank("kaldi", 128, 512, 16_000, low, high)) <= 1e-7


def test_a_long_clip_of_centred_frames_is_worked_on_in_stretches() -> None:
    spec = resolved(replace(frontends.M2D, mels=20))
    clip = sounds(16_000 * 7)["noise"]
    assert error(raw_log_mel(clip[None], spec)[0], plain_log_mel(clip.numpy(), spec)) <= 2e-5
