"""Log-mel of a batch against torchaudio's call for each clip, on one core: one JSON line.

`ratio` is torchaudio's time over ours: above 1, ours is quicker. Both turn float waveforms of ten seconds into 128 mel
bands at a 10 ms hop. They run in turn, and the ratio is the median over pairs, so that a busy machine slows both.
`ratio_front_end` compares what a training step pays: ours from int16, with the clips' means removed, padded and
normalised, still against torchaudio's bare call.

    python tests/benchmarks/bench_frontend.py [--pairs 15] [--clips 16] [--seconds 10]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from c2ftool.frontend.build import build_frontend
from c2ftool.frontend.kaldi import log_mel
from c2ftool.spec.resolved import ResolvedFrontend

RATE, MELS, LENGTH, HOP = 16_000, 128, 400, 160


def torchaudio_clips(waveforms: Tensor) -> Tensor:
    """(B, frames, mels) by torchaudio, a clip at a time, as the public code of AST and EAT calls it."""
    return torch.stack(
        [
            kaldi.fbank(
                clip[None],
                htk_compat=True,
                sample_frequency=RATE,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=MELS,
                dither=0.0,
                frame_shift=10,
            )
            for clip in waveforms
        ]
    )


def seconds(work: Callable[[], Tensor]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = int(options.seconds * RATE)
    pcm = (torch.randn(options.clips, samples) * 3000).clamp(-32768, 32767).to(torch.int16)
    waveforms = pcm.float() / 32768
    lengths = torch.full((options.clips,), samples)
    frames = 1 + (samples - LENGTH) // HOP
    spec = ResolvedFrontend(
        kind="kaldi", sample_rate=RATE, mels=MELS, window="hanning", frame_length=LENGTH, hop=HOP, frames=frames,
        mean=-4.268, std=4.569,
    )  # fmt: skip
    front_end = build_frontend(spec)

    def ours() -> Tensor:
        return log_mel(waveforms, sample_rate=RATE, mels=MELS, frame_length=LENGTH, hop=HOP)

    theirs = torchaudio_clips(waveforms)
    error = float((ours() - theirs).norm() / theirs.norm())
    rivals: dict[str, Callable[[], Tensor]] = {
        "torchaudio": lambda: torchaudio_clips(waveforms),
        "log_mel": ours,
        "front_end": lambda: front_end(pcm, lengths),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for pair in range(-1, options.pairs):  # the first is to warm up
        order = sorted(rivals, reverse=pair % 2 == 0)
        for name in order:
            spent = seconds(rivals[name])
            if pair >= 0:
                times[name].append(spent)

    def ratio(name: str) -> float:
        pairs = zip(times["torchaudio"], times[name], strict=True)
        return round(statistics.median(theirs / ours for theirs, ours in pairs), 2)

    print(
        json.dumps(
            {
                "benchmark": "log_mel",
                "threads": torch.get_num_threads(),
                "clips": options.clips,
                "seconds": options.seconds,
                "relative_error": float(f"{error:.2g}"),
                **{
                    f"{name}_ms_per_clip": round(statistics.median(t) / options.clips * 1e3, 3)
                    for name, t in times.items()
                },
                "ratio_front_end": ratio("front_end"),
                "ratio": ratio("log_mel"),
                "wanted": 3.0,
            }
        )
    )


if __name__ == "__main__":
    main()
