"""Mean and standard deviation of the default log-mel, over all frames of the training clips without padding.

The log-mel is EAT's: Kaldi filter bank, 128 mels, Hann windows of 25 ms every 10 ms, at the set's rate, of a waveform
less its mean. Clips are computed one by one on one thread and summed in float64 in stored order, so that the numbers
depend on neither jobs nor shards' order of finishing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from c2ftool.data.coding import Int16

MELS = 128


@dataclass(frozen=True)
class Sums:
    """Frames, and the sum and the sum of squares of their log-mel values (float64)."""

    frames: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.frames + other.frames, self.total + other.total, self.squares + other.squares)

    def mean_std(self) -> tuple[float, float]:
        """(mean, population standard deviation); (0, 1) where nothing was measured."""
        count = self.frames * MELS
        if not count:
            return 0.0, 1.0
        mean = self.total / count
        return mean, math.sqrt(max(self.squares / count - mean * mean, 0.0)) or 1.0


def clip_sums(samples: Int16, rate: int) -> Sums:
    """The sums over one clip; nothing where it is shorter than one frame. Call within `one_thread`."""
    import torch

    from c2ftool.frontend.kaldi import log_mel

    waveform = torch.from_numpy(samples.astype(np.float32) / 32768)[None]
    features = log_mel(
        waveform - waveform.mean(),
        sample_rate=rate,
        mels=MELS,
        frame_length=round(0.025 * rate),
        hop=round(0.01 * rate),
        window="hanning",
    )
    values = features[0].numpy().astype(np.float64)
    return Sums(len(values), float(values.sum()), float(np.square(values).sum()))


def merged(parts: Iterable[Sums]) -> Sums:
    """The sums of several shards, added in the order given."""
    return sum(parts, Sums())


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: the bits of a log-mel depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
