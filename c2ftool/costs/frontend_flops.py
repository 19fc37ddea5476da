"""Operations of a log-mel front end, from its shape. Reported under its own name, never added to the model's.

The model's count (`flops`) holds matrix products only; a front end is mostly element-wise work and a transform whose
cost depends on the algorithm, so a convention is needed and stated here:

- transform: 2.5 n log2 n per frame, FFTW's convention for a real transform (half of 5 n log2 n for a complex one)
- window: 5 per sample of the window: mean and its subtraction (2), pre-emphasis (2), the window itself (1)
- power: 3 per bin, two squares and their sum, for the n / 2 + 1 bins of a real transform
- mel: 2 x bins x mels, the dense matrix product that is computed (its entries are mostly zero)
- scale: 3 per mel bin: logarithm, mean, deviation
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2


@dataclass(frozen=True)
class FrontendFlops:
    """Operations of the front end for one clip, by part."""

    window: int
    transform: int
    power: int
    mel: int
    scale: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.window + self.transform + self.power + self.mel + self.scale


def frontend_flops(frames: int, fft_size: int, mels: int, *, frame_length: int | None = None) -> FrontendFlops:
    """The operations of a log-mel of one clip, in the convention of this module.

    frames: spectra computed, before any padding. fft_size: samples of the transform. frame_length: samples of the
    window, at most and by default fft_size. Raises ValueError for sizes that make no spectrum.
    """
    length = fft_size if frame_length is None else frame_length
    if frames < 0 or mels < 1 or not 1 < length <= fft_size:
        raise ValueError(f"no log-mel has {frames} frames of {length} samples, a transform of {fft_size}, {mels} mels")
    bins = fft_size // 2 + 1
    return FrontendFlops(
        window=frames * 5 * length,
        transform=round(frames * 2.5 * fft_size * log2(fft_size)),
        power=frames * 3 * bins,
        mel=frames * 2 * bins * mels,
        scale=frames * 3 * mels,
    )
