"""How many tokens an input makes. Integers only: specs are resolved with it before any tensor exists."""

from __future__ import annotations


def token_grid(
    frames: int, mels: int, patch: tuple[int, int], stride: tuple[int, int] | None = None
) -> tuple[int, int]:
    """(time, frequency) tokens of an input cut into patches of (frames, mel bands); without overlap if no stride.

    What does not fill a patch is left out, as a convolution does. Raises ValueError where no token is left.
    """
    step = stride or patch
    time, frequency = (frames - patch[0]) // step[0] + 1, (mels - patch[1]) // step[1] + 1
    if frames < patch[0] or mels < patch[1]:
        raise ValueError(f"{frames} frames x {mels} mel bands leave no {patch[0]} x {patch[1]} patch")
    return time, frequency


def shorter(length: int, factor: int, what: str = "frames") -> int:
    """A length compressed by a factor, cut to whole ones: 1024 frames at factor 4 are 256. Raises ValueError for none.

    (Feng et al., ICASSP 2024, section 2.)
    """
    if length < factor:
        raise ValueError(f"{length} {what} compressed {factor} to 1 leave none")
    return length // factor
