"""Log-mels of a batch against what the public code does, on one core: one JSON line.

`ast`, `beats`: Kaldi's filter bank with a Hann and with Povey's window, against torchaudio's call for each clip.
`panns`: centred frames at 32 kHz, as PANNs and HTS-AT take them, against two convolutions with windowed cosines and
sines and a product with the filter bank, a batch at a time. Both sides turn float waveforms of ten seconds into the
same log-mel; the clips' means and scale are dealt with before.

`ratio` is their time over ours: above 1, ours is quicker. Both run in turn, and the ratio is the median over pairs, so
that a busy machine slows both. `ratio_front_end` compares what a training step pays: ours from int16, with the clips'
means removed, filled up and normalised, still against their bare log-mel.

    python tests/benchmarks/bench_frontend.py [--pairs 15] [--clips 16] [--seconds 10] [--only ast beats panns]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.compliance import kaldi
from torchaudio.functional import melscale_fbanks

from c2ftool.frontend import stft
from c2ftool.frontend.build import build_frontend
from c2ftool.frontend.kaldi import log_mel
from c2ftool.spec import frontends
from c2ftool.spec.frontends import FrontendDefaults
from c2ftool.spec.resolved import ResolvedFrontend

WANTED = {"ast": 3.0, "beats": 3.0, "panns": 2.0}
Work = Callable[[Tensor], Tensor]


def per_clip(spec: ResolvedFrontend) -> Work:
    """(B, frames, mels) by torchaudio, a clip at a time, as the public code of AST, EAT and BEATs calls it."""

    def work(waveforms: Tensor) -> Tensor:
        return torch.stack(
            [
                kaldi.fbank(
                    clip[None],
                    htk_compat=True,
                    sample_frequency=spec.sample_rate,
                    use_energy=False,
                    window_type=spec.window,
                    num_mel_bins=spec.mels,
                    dither=0.0,
                    frame_shift=10,
                )
                for clip in waveforms
            ]
        )

    return work


def convolutions(spec: ResolvedFrontend) -> Work:
    """(B, frames, mels) by convolutions with the Fourier transform's rows, as the public code of PANNs and HTS-AT."""
    fft, bins = spec.transform, spec.transform // 2 + 1
    turns = torch.outer(torch.arange(bins, dtype=torch.float64), torch.arange(fft, dtype=torch.float64)) % fft
    angles, window = 2 * math.pi * turns / fft, torch.hann_window(fft, dtype=torch.float64)
    real, imaginary = ((part * window).float()[:, None] for part in (angles.cos(), angles.sin()))
    high = spec.spectrum.high_hz or spec.sample_rate / 2
    bank = melscale_fbanks(
        bins, spec.spectrum.low_hz, high, spec.mels, spec.sample_rate, norm="slaney", mel_scale="slaney"
    )

    def work(waveforms: Tensor) -> Tensor:
        padded = F.pad(waveforms[:, None], (fft // 2, fft // 2), mode="reflect")
        power = F.conv1d(padded, real, stride=spec.hop) ** 2 + F.conv1d(padded, imaginary, stride=spec.hop) ** 2
        return 10 * (power.transpose(1, 2) @ bank).clamp(min=spec.spectrum.floor).log10()

    return work


def ours(spec: ResolvedFrontend) -> Work:
    """(B, frames, mels) by the function that the front end calls."""
    about: dict[str, Any] = {
        "sample_rate": spec.sample_rate,
        "mels": spec.mels,
        "frame_length": spec.frame_length,
        "hop": spec.hop,
        "spectrum": spec.spectrum,
    }
    if spec.spectrum.kind == "stft":
        return lambda waveforms: stft.log_mel(waveforms, **about)
    return lambda waveforms: log_mel(waveforms, window=spec.window, **about)


def resolved(default: FrontendDefaults, duration: float) -> ResolvedFrontend:
    """A published front end over so many seconds."""
    rate = default.sample_rate
    length, hop, samples = default.frame_length_ms * rate // 1000, default.hop_ms * rate // 1000, int(duration * rate)
    return ResolvedFrontend(
        sample_rate=rate, mels=default.mels, window=default.window, frame_length=length, hop=hop,
        frames=1 + (samples // hop if default.spectrum.kind == "stft" else (samples - length) // hop),
        mean=-4.268 if default.mean is None else default.mean, std=4.569 if default.std is None else default.std,
        pad=default.pad, spectrum=default.spectrum,
    )  # fmt: skip


def seconds(work: Callable[[], Tensor]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(spec: ResolvedFrontend, public: Work, clips: int, samples: int, pairs: int) -> dict[str, float]:
    """Times, ratios and the difference of one front end."""
    pcm = (torch.randn(clips, samples) * 3000).clamp(-32768, 32767).to(torch.int16)
    waveforms, lengths = pcm.float() / 32768 * spec.spectrum.scale, torch.full((clips,), samples)
    front_end, bare, theirs = build_frontend(spec), ours(spec), public(waveforms)
    error = float((bare(waveforms) - theirs).norm() / theirs.norm())
    rivals: dict[str, Callable[[], Tensor]] = {
        "public": lambda: public(waveforms),
        "log_mel": lambda: bare(waveforms),
        "front_end": lambda: front_end(pcm, lengths),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for pair in range(-1, pairs):  # the first is to warm up
        for name in sorted(rivals, reverse=pair % 2 == 0):
            spent = seconds(rivals[name])
            if pair >= 0:
                times[name].append(spent)

    def ratio(name: str) -> float:
        both = zip(times["public"], times[name], strict=True)
        return round(statistics.median(theirs / ours for theirs, ours in both), 2)

    return {
        "relative_error": float(f"{error:.2g}"),
        **{f"{name}_ms_per_clip": round(statistics.median(spent) / clips * 1e3, 3) for name, spent in times.items()},
        "ratio_front_end": ratio("front_end"),
        "ratio": ratio("log_mel"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=sorted(WANTED), default=sorted(WANTED))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for name in options.only:
        spec = resolved(getattr(frontends, name.upper()), options.seconds)
        public = convolutions(spec) if spec.spectrum.kind == "stft" else per_clip(spec)
        figures = compare(spec, public, options.clips, int(options.seconds * spec.sample_rate), options.pairs)
        results[name] = figures | {"wanted": WANTED[name]}
    print(
        json.dumps(
            {
                "benchmark": "front_ends",
                "threads": torch.get_num_threads(),
                "clips": options.clips,
                "seconds": options.seconds,
                "front_ends": results,
            }
        )
    )


if __name__ == "__main__":
    main()
